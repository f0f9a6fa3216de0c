"""The integer keys of rows on disk, and their order: what decides the arrangement of a store.

A key has 38 bytes. Rows are sorted in runs when they arrive. `SpilledKeys.sorted` merges the runs
bucket by bucket: a bucket is a range of the hash of the record id, and every run gives a slice of
it. So memory holds one bucket, whatever the number of rows.
"""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hybridbatch.data.store.disk_arrays import DiskArray

BUCKET_ROWS = 1 << 22  # rows that are sorted together, about
_RANGES = 256  # of the hash; a bucket is some of them

KEY = np.dtype(
    [
        ("source", "<i2"),
        ("language", "<i2"),
        ("has", "u1"),
        ("split", "u1"),  # number in `records.SPLITS`
        # the halves of a 128-bit hash of the record id, so that collisions can be ignored
        ("high", "<u8"),
        ("low", "<u8"),
        ("query", "<u8"),  # hash of source and query text; 0 if there is no query
        ("passage", "<u8"),  # hash of source and passage text
    ]
)


@dataclass(frozen=True)
class Numbering:
    """The places of sources or languages among their sorted names."""

    names: tuple[str, ...]  # sorted
    place: np.ndarray  # int16, by number in the order of arrival

    @classmethod
    def of(cls, numbers: dict[str, int]) -> "Numbering":
        """The numbering of names that have numbers in the order of arrival."""
        names = tuple(sorted(numbers))
        place = np.empty(len(numbers), np.int16)
        for at, name in enumerate(names):
            place[numbers[name]] = at
        return cls(names, place)


class SpilledKeys:
    """The keys of rows in runs, each sorted by source (in the order of arrival) and record."""

    def __init__(self, path: Path) -> None:
        self.rows = DiskArray(path, KEY)
        # of each run, by source: where each range of the hash starts, int64 [_RANGES + 1]
        self._runs: list[dict[int, np.ndarray]] = []

    def append(self, run: np.ndarray) -> None:
        """Add a sorted run of keys."""
        starts = {}
        bounds = np.flatnonzero(np.diff(run["source"])) + 1
        edges = np.arange(_RANGES + 1)
        for first, last in zip([0, *bounds], [*bounds, len(run)], strict=True):
            ranges = (run["high"][first:last] >> np.uint64(56)).astype(np.int64)
            start = np.searchsorted(ranges, edges) + first + len(self.rows)
            starts[int(run["source"][first])] = start
        self._runs.append(starts)
        self.rows.append(run)

    def sorted(
        self,
        sources: Numbering,
        languages: Numbering,
        without: Collection[tuple[int, int, int]] = (),
    ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """(places in the file, keys), in the order of source, record and language, in parts.

        No record is in two parts. Sources and languages have the numbers of their names.

        Args:
            without: records to leave out: number of the source on arrival, halves of the hash.
        """
        arrived = np.argsort(sources.place)
        highs = np.array(sorted({high for _, high, _ in without}), np.uint64)
        for number in arrived.tolist():
            own = [starts[number] for starts in self._runs if number in starts]
            for first, last in _buckets(own):
                slices = [(start[first], start[last]) for start in own]
                places = np.concatenate([np.arange(start, stop) for start, stop in slices])
                keys = np.concatenate([self.rows[start:stop] for start, stop in slices])
                if len(highs):
                    kept = ~_among(keys, highs, without)
                    places, keys = places[kept], keys[kept]
                keys["source"] = sources.place[keys["source"]]
                keys["language"] = languages.place[keys["language"]]
                order = np.lexsort((keys["language"], keys["low"], keys["high"]))
                yield places[order], keys[order]


def _buckets(runs: Sequence[np.ndarray]) -> Iterator[tuple[int, int]]:
    """Ranges of the hash that hold about `BUCKET_ROWS` rows together."""
    sizes = np.sum([np.diff(start) for start in runs], axis=0)
    first = 0
    held = 0
    for number, size in enumerate(sizes.tolist()):
        if held and held + size > BUCKET_ROWS:
            yield first, number
            first, held = number, 0
        held += size
    yield first, _RANGES


def _among(
    keys: np.ndarray, highs: np.ndarray, records: Collection[tuple[int, int, int]]
) -> np.ndarray:
    """bool [n]: which keys belong to one of the records."""
    near = np.minimum(np.searchsorted(highs, keys["high"]), len(highs) - 1)
    belong = np.zeros(len(keys), bool)
    for row in np.flatnonzero(highs[near] == keys["high"]).tolist():
        key = keys[row]
        belong[row] = (int(key["source"]), int(key["high"]), int(key["low"])) in records
    return belong
