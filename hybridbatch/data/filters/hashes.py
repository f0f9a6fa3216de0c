"""Sets of hashes that hold tens of millions of entries in eight bytes each, and logs on disk."""

import tempfile
from collections.abc import Iterator, Sequence
from typing import IO

import numpy as np

KEPT = 1 << 21  # hashes of a log that stay in memory
PART = 1 << 23  # hashes that are compared together, about


class HashLog:
    """64-bit hashes in the order of arrival, on disk beyond `KEPT` of them."""

    def __init__(self) -> None:
        self._recent: list[np.ndarray] = []
        self._waiting = self._written = 0
        self._file: IO[bytes] | None = None

    def __len__(self) -> int:
        return self._written + self._waiting

    def append(self, hashes: np.ndarray) -> None:
        """Add hashes, uint64 [n]."""
        self._recent.append(hashes)
        self._waiting += len(hashes)
        if self._waiting > KEPT:
            if self._file is None:
                self._file = tempfile.TemporaryFile()  # noqa: SIM115  lives as long as the log
            self._file.seek(0, 2)
            self._file.write(np.concatenate(self._recent).tobytes())
            self._written += self._waiting
            self._recent, self._waiting = [], 0

    def chunks(self) -> Iterator[np.ndarray]:
        """All hashes, in parts."""
        for start in range(0, self._written, KEPT):
            assert self._file is not None
            self._file.seek(8 * start)
            content = self._file.read(8 * min(KEPT, self._written - start))
            yield np.frombuffer(content, np.uint64)
        yield from self._recent


def repeats(logs: Sequence[HashLog]) -> list[tuple[int, int]]:
    """How many hashes of each log repeat one of the same log, and how many one of earlier logs.

    A hash that does both counts as the first. Memory is that of about `PART` hashes.
    """
    parts = max(1, -(-sum(map(len, logs)) // PART))
    found = [[0, 0] for _ in logs]
    for part in range(parts):
        earlier = np.empty(0, np.uint64)
        for counts, log in zip(found, logs, strict=True):
            own = [chunk[chunk % np.uint64(parts) == part] for chunk in log.chunks()]
            hashes = np.concatenate([np.empty(0, np.uint64), *own])
            distinct = np.unique(hashes)
            counts[0] += len(hashes) - len(distinct)
            counts[1] += len(np.intersect1d(distinct, earlier, assume_unique=True))
            earlier = np.union1d(earlier, distinct)
    return [(within, across) for within, across in found]


class HashSet:
    """A set of 64-bit hashes in sorted runs, each more than twice as long as the next.

    The set takes eight bytes a hash.
    """

    def __init__(self) -> None:
        self._runs: list[np.ndarray] = []

    def contains(self, hashes: np.ndarray) -> np.ndarray:
        """bool [n]: which hashes (uint64 [n]; fastest if sorted) the set contains."""
        found = np.zeros(len(hashes), bool)
        for run in self._runs:
            near = np.minimum(np.searchsorted(run, hashes), len(run) - 1)
            found |= run[near] == hashes
        return found

    def add(self, hashes: np.ndarray) -> None:
        """Add sorted hashes, uint64 [n]."""
        if not len(hashes):
            return
        self._runs.append(hashes)
        while len(self._runs) > 1 and len(self._runs[-2]) <= 2 * len(self._runs[-1]):
            merged = np.concatenate([self._runs.pop(), self._runs.pop()])
            merged.sort(kind="stable")  # merges sorted runs
            self._runs.append(merged)

    def update(self, other: "HashSet") -> None:
        """Add all hashes of another set."""
        for run in other._runs:
            self.add(run)
