"""The streams that a schedule draws from: the members that batches can hold, and their order.

A stream is (kind, source, language). For monolingual batches its members are all rows of a source
in one language. For other kinds its members are all records of a source. The members come epoch
after epoch, each epoch in a new seeded order.
"""

from collections import defaultdict
from collections.abc import Iterator
from itertools import pairwise

import numpy as np

from hybridbatch.sampling.index import HAS_PASSAGE, HAS_QUERY, RecordIndex

CROSS_LINGUAL, MONOLINGUAL, MIXED, COPIES = 0, 1, 2, 3
KIND_NAMES = {
    CROSS_LINGUAL: "cross-lingual",
    MONOLINGUAL: "monolingual",
    MIXED: "mixed",
    COPIES: "mtt",
}
NO_LANGUAGE = -1
Stream = tuple[
    int, int, int
]  # kind, number of the source, number of the language or NO_LANGUAGE
_BOTH = HAS_QUERY | HAS_PASSAGE
_AT_ONCE = 1 << 21  # rows or pairs handled at a time; bounds the temporary arrays


def row_type(index: RecordIndex) -> type[np.signedinteger]:
    """The smaller of int32 and int64 that holds every row number of `index`."""
    return np.int32 if index.rows <= np.iinfo(np.int32).max else np.int64


def find_streams(index: RecordIndex, kinds: set[int]) -> dict[Stream, np.ndarray]:
    """The members of every stream of `kinds`, ascending.

    Members are row numbers if the stream is monolingual, and record numbers otherwise. A row can
    serve a monolingual, mixed or mtt batch if it has both sides. A record can serve a cross-lingual
    batch if it has a query in one language and a passage in another. Memory: 4 bytes a row and 4 a
    record.
    """
    parts: dict[Stream, list[np.ndarray]] = defaultdict(list)
    whole = row_type(index)
    for source, first, last in _record_blocks(index):
        begin, end = index.record_start[first], index.record_start[last]
        has = np.asarray(index.has[begin:end])
        if MONOLINGUAL in kinds:
            rows = (begin + np.flatnonzero(has == _BOTH)).astype(whole)
            languages = index.language[rows]
            rows = rows[np.argsort(languages, kind="stable")]
            counts = np.bincount(languages, minlength=len(index.languages))
            for language, part in enumerate(np.split(rows, np.cumsum(counts)[:-1])):
                if len(part):
                    parts[MONOLINGUAL, source, language].append(part)
        for kind in kinds - {MONOLINGUAL}:
            choices = _choices(index, kind, first, last, has)
            if choices.any():
                parts[kind, source, NO_LANGUAGE].append(
                    (first + np.flatnonzero(choices)).astype(whole)
                )
    return {stream: np.concatenate(parts[stream]) for stream in sorted(parts)}


def usable_records(index: RecordIndex, fillable: np.ndarray) -> np.ndarray:
    """int64 [sources]: the number of records with a two-sided row in a `fillable` language.

    `fillable` is bool [sources, languages].
    """
    totals = np.zeros(len(index.sources), np.int64)
    for source, first, last in _record_blocks(index):
        begin, end = index.record_start[first], index.record_start[last]
        usable = (index.has[begin:end] == _BOTH) & fillable[source][index.language[begin:end]]
        totals[source] += np.count_nonzero(_sum_by_record(index, first, last, usable))
    return totals


def parallel_records(index: RecordIndex) -> np.ndarray:
    """bool [N]: the records that have query and passage in every language of their source.

    The languages of a source are the languages in which it has a row with both sides. A record with
    a one-sided row is excluded: cross-lingual batches would use its text, and monolingual batches
    never would.
    """
    owner = np.repeat(np.arange(index.records), np.diff(index.record_start))
    whole = index.has == _BOTH
    spoken = np.zeros((len(index.sources), len(index.languages)), bool)
    spoken[index.source[owner[whole]], index.language[whole]] = True
    wanted = spoken.sum(axis=1)[index.source]
    rows = np.diff(index.record_start)
    both = np.bincount(owner[whole], minlength=index.records)
    return (both == rows) & (both == wanted) & (wanted > 1)


def copies_of(index: RecordIndex, records: np.ndarray, most: int) -> np.ndarray:
    """int64 [n]: the number of pairs that each record brings to an mtt batch.

    It is the number of two-sided rows of the record, at most `most`.
    """
    upto = np.concatenate([[0], np.cumsum(index.has == _BOTH)])
    return np.minimum(
        upto[index.record_start[records + 1]] - upto[index.record_start[records]], most
    )


def records_of(index: RecordIndex, stream: Stream, members: np.ndarray) -> np.ndarray:
    """The record number of each member."""
    return index.record_of(members) if stream[0] == MONOLINGUAL else members


def groups_of(index: RecordIndex, stream: Stream, members: np.ndarray) -> np.ndarray:
    """The group of each member's record."""
    return index.group[records_of(index, stream, members)]


def capacity(index: RecordIndex, stream: Stream, members: np.ndarray, copies: int) -> int:
    """The largest number of pairs that any batch of the members can have.

    For most streams this is the number of different groups. For an mtt stream it is the sum, over
    all groups, of the fewest pairs that a record of the group brings; with only one group it is 1
    at most.
    """
    groups, place = np.unique(groups_of(index, stream, members), return_inverse=True)
    if stream[0] != COPIES or len(groups) < 2:
        return len(groups)
    fewest = np.full(len(groups), copies)
    np.minimum.at(fewest, place, copies_of(index, members, copies))
    return int(fewest.sum())


def can_fill(
    index: RecordIndex, stream: Stream, members: np.ndarray, batch_size: int, copies: int
) -> bool:
    """Whether the `capacity` of the members is at least `batch_size`.

    It looks at no more members than it must.
    """
    if stream[0] == COPIES:
        return capacity(index, stream, members, copies) >= batch_size
    looked = batch_size
    while True:
        enough = len(np.unique(groups_of(index, stream, members[:looked]))) >= batch_size
        if enough or looked >= len(members):
            return enough
        looked *= 4


def _record_blocks(index: RecordIndex) -> Iterator[tuple[int, int, int]]:
    """(source, first record, last record + 1) of consecutive blocks of about `_AT_ONCE` rows."""
    step = max(1, _AT_ONCE * index.records // max(1, index.rows))
    bounds = [0, *(np.flatnonzero(np.diff(index.source)) + 1).tolist(), index.records]
    for begin, end in pairwise(bounds):
        for first in range(begin, end, step):
            yield int(index.source[first]), first, min(first + step, end)


def _sum_by_record(index: RecordIndex, first: int, last: int, flags: np.ndarray) -> np.ndarray:
    """int32 [last - first]: the number of rows with the flag in each record.

    The flag is bool, with one value for each row of these records.
    """
    starts = index.record_start[first : last + 1] - index.record_start[first]
    sums = np.zeros(last - first, np.int32)
    filled = np.diff(starts) > 0  # reduceat gives an empty slice its neighbour's value
    if filled.any():
        sums[filled] = np.add.reduceat(flags, starts[:-1][filled], dtype=np.int32)
    return sums


def _choices(
    index: RecordIndex, kind: int, first: int, last: int, has: np.ndarray
) -> np.ndarray:
    """int32 [last - first]: the number of ways to draw a pair of `kind` from each record."""
    both = _sum_by_record(index, first, last, has == _BOTH)
    if kind in (MIXED, COPIES):
        return both
    queries = _sum_by_record(index, first, last, (has & HAS_QUERY) > 0)
    passages = _sum_by_record(index, first, last, (has & HAS_PASSAGE) > 0)
    return queries * passages - both
