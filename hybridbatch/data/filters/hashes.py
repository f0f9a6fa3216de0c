"""Sets of hashes that hold tens of millions of entries in eight bytes each."""

import numpy as np


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
