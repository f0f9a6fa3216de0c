"""A schedule: a table that lists the rows of the batch of every training step."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np

from hybridbatch.sampling.index import RecordIndex
from hybridbatch.sampling.streams import COPIES, KIND_NAMES, NO_LANGUAGE, Stream, find_streams


@dataclass(frozen=True)
class Schedule:
    """T steps of B pairs. Row numbers refer to the `RecordIndex` of the plan."""

    kind: np.ndarray  # uint8 [T]: MONOLINGUAL, CROSS_LINGUAL, MIXED or COPIES
    source: np.ndarray  # int16 [T]
    language: np.ndarray  # int16 [T]: NO_LANGUAGE unless monolingual
    query_row: np.ndarray  # int32 (int64 beyond 2**31 rows) [T, B]
    # same type and shape; a row of the query row's record: the query row unless cross-lingual
    passage_row: np.ndarray
    notes: tuple[str, ...] = ()  # the data that could not be drawn, and why

    @property
    def steps(self) -> int:
        """T, the number of steps."""
        return len(self.kind)

    @property
    def batch_size(self) -> int:
        """B, the number of pairs in a batch."""
        return self.query_row.shape[1]

    def slice(self, start: int, stop: int) -> "Schedule":
        """The steps from `start` to `stop` - 1."""
        cut = np.s_[start:stop]
        return Schedule(
            self.kind[cut],
            self.source[cut],
            self.language[cut],
            self.query_row[cut],
            self.passage_row[cut],
            self.notes,
        )

    def for_rank(self, rank: int, world: int) -> "Schedule":
        """The contiguous share of every batch that process `rank` of `world` computes.

        The sizes of the shares differ by one at most.
        """
        cut = np.s_[:, rank * self.batch_size // world : (rank + 1) * self.batch_size // world]
        return replace(self, query_row=self.query_row[cut], passage_row=self.passage_row[cut])

    def fingerprint(self) -> str:
        """Hex sha256 (16 digits) of the table."""
        digest = hashlib.sha256(repr(self.query_row.shape).encode())
        for table in (self.kind, self.source, self.language, self.query_row, self.passage_row):
            digest.update(np.ascontiguousarray(table, dtype="<i8").tobytes())
        return digest.hexdigest()[:16]

    def summary(self, index: RecordIndex) -> dict[str, Any]:
        """Counts for people and for JSON.

        It counts batches by kind, source and language, pairs by languages, and epochs by stream.
        The keys of ``language_pairs`` are ``"query language->passage language"``. ``epochs`` is the
        average number of times that a member of the stream was drawn.
        """
        pairs = len(index.languages) * index.language[self.query_row].astype(np.int64)
        pairs += index.language[self.passage_row]
        counts = np.bincount(pairs.ravel(), minlength=len(index.languages) ** 2)
        sizes = {
            key: len(members)
            for key, members in find_streams(index, set(self.kind.tolist())).items()
        }
        drawn = [
            (key, self._draws(index, key, steps))
            for key, steps in _steps_by_stream(self.kind, self.source, self.language)
        ]
        return {
            "steps": self.steps,
            "batch_size": self.batch_size,
            "kinds": _named_counts(self.kind, KIND_NAMES),
            "sources": _named_counts(self.source, dict(enumerate(index.sources))),
            "languages": _named_counts(self.language, dict(enumerate(index.languages))),
            "language_pairs": {
                "->".join(
                    index.languages[number]
                    for number in divmod(int(pair), len(index.languages))
                ): int(counts[pair])
                for pair in np.flatnonzero(counts)
            },
            "epochs": {_name(index, key): draws / sizes[key] for key, draws in drawn},
            "notes": list(self.notes),
        }

    def _draws(self, index: RecordIndex, key: Stream, steps: np.ndarray) -> int:
        """The number of times that members of the stream were drawn, in total, in its `steps`."""
        if key[0] != COPIES:
            return len(steps) * self.batch_size
        records = index.record_of(self.query_row[steps])
        return len(steps) + int(np.count_nonzero(np.diff(records, axis=1)))


def _name(index: RecordIndex, key: Stream) -> str:
    parts = [index.sources[key[1]], KIND_NAMES[key[0]]]
    return " ".join(parts + ([index.languages[key[2]]] if key[2] != NO_LANGUAGE else []))


def _steps_by_stream(
    kind: np.ndarray, source: np.ndarray, language: np.ndarray
) -> list[tuple[Stream, np.ndarray]]:
    """The steps of every stream that is drawn, ascending."""
    table = np.stack([kind, source, language], axis=1).astype(np.int64)
    keys, inverse = np.unique(table, axis=0, return_inverse=True)
    order = np.argsort(inverse.ravel(), kind="stable")
    bounds = np.searchsorted(inverse.ravel()[order], np.arange(len(keys) + 1))
    cuts = pairwise(bounds.tolist())
    return [
        ((key[0], key[1], key[2]), order[begin:end])
        for key, (begin, end) in zip(keys.tolist(), cuts, strict=True)
    ]


def _named_counts(numbers: np.ndarray, names: Mapping[int, str]) -> dict[str, int]:
    values, counts = np.unique(numbers, return_counts=True)
    return {
        names[value]: count
        for value, count in zip(values.tolist(), counts.tolist(), strict=True)
        if value in names
    }
