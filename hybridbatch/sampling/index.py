"""The rows of one split as integers: all that a schedule needs, and nested subsets of the rows."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from hybridbatch.common.errors import DataError
from hybridbatch.common.languages import canonical
from hybridbatch.common.seeding import stream


def shared_passage_groups(record: np.ndarray, passage: np.ndarray, records: int) -> np.ndarray:
    """int32 [records]: the group of each record; equal passages connect records to groups.

    Args:
        record: int64 [R]: the record of each row.
        passage: uint64 [R]: hash of the row's passage; 0 if there is none.
    """
    return shared_text_groups(record, (passage,), records)


def shared_text_groups(
    record: np.ndarray, texts: Sequence[np.ndarray], records: int
) -> np.ndarray:
    """int32 [records]: the group of each record; equal texts connect records to groups.

    If two records share a passage or a query, each would be a false negative of the other in one
    batch. A group is numbered by its first record, so its number does not depend on which texts
    connect it.

    Args:
        record: int64 [R]: the record of each row.
        texts: uint64 [R] each: hash of a text of the row, such as its passage; 0 if there is none.
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    lefts, rights = [], []
    for text in texts:
        rows = np.flatnonzero(text)
        rows = rows[np.argsort(text[rows], kind="stable")]
        same = text[rows[1:]] == text[rows[:-1]]
        lefts.append(record[rows[:-1][same]])
        rights.append(record[rows[1:][same]])
    left, right = np.concatenate(lefts), np.concatenate(rights)
    links = coo_array((np.ones(len(left), np.int8), (left, right)), shape=(records, records))
    return connected_components(links, directed=False)[1].astype(np.int32)


@dataclass(frozen=True)
class RecordIndex:
    """Integer arrays over the rows of one split: all that a schedule needs, no text.

    Rows of a record are contiguous; records of a source are contiguous. R rows, N records.
    """

    sources: tuple[str, ...]
    languages: tuple[str, ...]
    # int64 [N + 1]: record i has rows record_start[i] to record_start[i + 1] - 1
    record_start: np.ndarray
    source: np.ndarray  # int16 [N]: number of the record's source
    # int32 or int64 [N]: records that share a passage or a query have the same group, because each
    # would be a false negative of the other
    group: np.ndarray
    language: np.ndarray  # int16 [R]: number of the row's language
    has: np.ndarray  # uint8 [R]: HAS_QUERY | HAS_PASSAGE
    # int64 [R]: the store's number of each row; None: equal to the row numbers here
    row: np.ndarray | None = None
    # Whether batches of all kinds take the same records in the same order. Only records that can
    # serve every kind take part: see `plan_schedule`.
    same_records: bool = False

    @classmethod
    def from_rows(cls, rows: Sequence[Mapping[str, Any]]) -> "RecordIndex":
        """The index of your own rows, in any order.

        `store_rows` returns their places in `rows`.

        Args:
            rows: mappings with ``id`` (of the record, equal in all its languages), ``language``
                (any code or name), ``query`` and ``passage`` (one may be None or empty), and
                optionally ``source``.
        Raises: `DataError` that names a row that lacks a field or repeats another row;
            `ConfigError` for an unknown language.
        """
        keys = [_row_key(number, row) for number, row in enumerate(rows)]
        order = sorted(range(len(keys)), key=lambda number: keys[number])
        for before, after in pairwise(order):
            if keys[before] == keys[after]:
                source, record, language = keys[after]
                raise DataError(
                    f"rows {before} and {after}: record {record!r} of {source} has two rows in"
                    f" {language}; keep one"
                )
        sources = sorted({key[0] for key in keys})
        languages = sorted({key[2] for key in keys})
        records = [keys[number][:2] for number in order]
        starts = [
            place
            for place, record in enumerate(records)
            if not place or record != records[place - 1]
        ]
        record_start = np.array([*starts, len(order)], np.int64)
        hashes = []
        for side in ("passage", "query"):
            texts = [str(rows[number].get(side) or "") for number in order]
            hashes.append(np.array([_text_hash(text) for text in texts], np.uint64))
        owner = np.repeat(np.arange(len(starts)), np.diff(record_start))
        return cls(
            sources=tuple(sources),
            languages=tuple(languages),
            record_start=record_start,
            source=np.array([sources.index(records[place][0]) for place in starts], np.int16),
            group=shared_text_groups(owner, hashes, len(starts)),
            language=np.array([languages.index(keys[number][2]) for number in order], np.int16),
            has=np.array([_sides(rows[number]) for number in order], np.uint8),
            row=np.array(order, np.int64),
        )

    @property
    def rows(self) -> int:
        """R, the number of rows."""
        return len(self.language)

    @property
    def records(self) -> int:
        """N, the number of records."""
        return len(self.source)

    def record_of(self, rows: np.ndarray) -> np.ndarray:
        """The record number of index rows (int array of any shape)."""
        return np.searchsorted(self.record_start, rows, side="right") - 1

    def store_rows(self, rows: np.ndarray) -> np.ndarray:
        """The store's numbers of index rows (int array of any shape)."""
        return rows if self.row is None else self.row[rows]


def _row_key(number: int, row: Mapping[str, Any]) -> tuple[str, str, str]:
    """Source, record id and language of a row that the user gives."""
    for field in ("id", "language"):
        if row.get(field) in (None, ""):
            raise DataError(
                f"row {number}: no {field!r}; a row needs id, language, query, passage"
            )
    if not _sides(row):
        raise DataError(f"row {number}: has neither a query nor a passage")
    return str(row.get("source") or "rows"), str(row["id"]), canonical(row["language"])


def _sides(row: Mapping[str, Any]) -> int:
    """Whether a row has a query and a passage, as the bits of `RecordIndex.has`."""
    return HAS_QUERY * bool(row.get("query")) | HAS_PASSAGE * bool(row.get("passage"))


def _text_hash(text: str) -> int:
    """64 bits of the hash of a passage; 0 if there is none."""
    if not text:
        return 0
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")


def restrict(
    index: RecordIndex, languages: np.ndarray, max_records: int | None, seed: int
) -> RecordIndex:
    """The rows in `languages` (ascending numbers) of a random `max_records` records.

    Only records with a row in these languages are drawn. Subsets are nested, hold every source in
    proportion, and prefer the same records whatever the languages.
    """
    kept = np.isin(index.language, languages)
    owner = np.repeat(np.arange(index.records), np.diff(index.record_start))
    records = np.unique(owner[kept])
    if max_records is not None and max_records < len(records):
        records = records[
            _subset(
                index.source[records], _priorities(index.source, seed)[records], max_records
            )
        ]
    chosen = np.zeros(index.records, bool)
    chosen[records] = True
    return _part(index, languages, records, np.flatnonzero(kept & chosen[owner]))


def set_aside(index: RecordIndex, share: float, seed: int) -> tuple[RecordIndex, RecordIndex]:
    """The rest, and about `share` of the records of every source in whole groups.

    A group of more records than a source's share stays in the rest.
    """
    aside = np.zeros(index.records, bool)
    for number in np.unique(index.source).tolist():
        members = np.flatnonzero(index.source == number)
        draw = stream(seed, "aside", number).integers(0, 1 << 63, len(members), np.uint64)
        aside[members] = choose_groups(index.group[members], draw, round(share * len(members)))
    owner = np.repeat(np.arange(index.records), np.diff(index.record_start))
    languages = np.arange(len(index.languages))
    parts = []
    for chosen in (~aside, aside):
        rows = np.flatnonzero(chosen[owner])
        parts.append(_part(index, languages, np.flatnonzero(chosen), rows))
    return parts[0], parts[1]


def choose_groups(group: np.ndarray, draw: np.ndarray, quota: int) -> np.ndarray:
    """bool [n]: whole groups with the smallest draws, at most `quota` members together."""
    if not len(group):
        return np.zeros(0, bool)
    # Groups are numbered closely, so arrays over all numbers take less memory than sorted ones.
    base = int(group.min())
    count = int(group.max()) - base + 1
    sizes, smallest = np.zeros(count, np.int64), np.full(count, np.iinfo(np.uint64).max)
    for start in range(0, len(group), _CHUNK):
        number = group[start : start + _CHUNK] - base
        np.add.at(sizes, number, 1)
        np.minimum.at(smallest, number, draw[start : start + _CHUNK])
    # a larger group would be the whole of what is chosen, or more
    small = np.flatnonzero((sizes > 0) & (sizes <= quota))
    ranked = small[np.argsort(smallest[small], kind="stable")]
    chosen = np.zeros(count, bool)
    chosen[ranked[np.cumsum(sizes[ranked]) <= quota]] = True
    return chosen[group - base]


def _part(
    index: RecordIndex, languages: np.ndarray, records: np.ndarray, rows: np.ndarray
) -> RecordIndex:
    """Some rows of the index, and their languages and records (ascending numbers)."""
    owner = np.repeat(np.arange(index.records), np.diff(index.record_start))
    return RecordIndex(
        sources=index.sources,
        languages=tuple(index.languages[number] for number in languages),
        record_start=np.append(np.searchsorted(owner[rows], records), len(rows)),
        source=index.source[records],
        group=index.group[records],
        language=np.searchsorted(languages, index.language[rows]).astype(np.int16),
        has=index.has[rows],
        row=index.store_rows(rows),
    )


def _priorities(source: np.ndarray, seed: int) -> np.ndarray:
    """float64 [N], in [0, 1): records with smaller numbers join a subset of their source first."""
    draws = np.empty(len(source))
    for number in np.unique(source).tolist():
        members = source == number
        draws[members] = stream(seed, "subset", number).random(int(members.sum()))
    return draws


def _subset(source: np.ndarray, priority: np.ndarray, size: int) -> np.ndarray:
    """Ascending positions of `size` records, with the smallest priorities first.

    Every source has a share in proportion to its number of records.
    """
    # fractional rank of a record within its source; the smallest is taken next
    place = np.empty(len(source))
    for number in np.unique(source):
        members = np.flatnonzero(source == number)
        ranked = members[np.argsort(priority[members], kind="stable")]
        place[ranked] = (np.arange(len(ranked)) + 0.5) / len(ranked)
    return np.sort(np.argsort(place, kind="stable")[:size])


HAS_QUERY, HAS_PASSAGE = 1, 2  # bits of RecordIndex.has
_CHUNK = 1 << 20  # records whose groups are counted together
