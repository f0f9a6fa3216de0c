"""Draws the rows of a pair: monolingual, cross-lingual, one of several copies, a translation."""

import numpy as np

from hybridbatch.sampling.index import HAS_PASSAGE, HAS_QUERY, RecordIndex
from hybridbatch.sampling.streams import _AT_ONCE, _BOTH, CROSS_LINGUAL, row_type


def draw_pairs(
    index: RecordIndex, kind: int, records: np.ndarray, uniform: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """One (query row, passage row) for each record, chosen by `uniform`.

    `uniform` (float64 [n], in [0, 1)) has a number for each record. A cross-lingual choice is
    uniform over the record's ordered pairs (a row with a query, another row with a passage). A
    mixed choice is uniform over the rows with both sides, and the row serves as query and passage.
    """
    queries, passages = (
        np.empty(len(records), row_type(index)),
        np.empty(len(records), row_type(index)),
    )
    widest = int(np.diff(index.record_start).max(initial=1))
    step = max(1, _AT_ONCE // widest)
    for begin in range(0, len(records), step):
        part = slice(begin, begin + step)
        start, has = _sides_of(index, records[part])
        draw = _draw_cross_lingual if kind == CROSS_LINGUAL else _draw_same
        query, passage = draw((has & HAS_QUERY) > 0, (has & HAS_PASSAGE) > 0, uniform[part])
        queries[part], passages[part] = start + query, start + passage
    return queries, passages


def draw_copies(index: RecordIndex, records: np.ndarray, uniform: np.ndarray) -> np.ndarray:
    """The row of every pair of mtt batches, chosen by `uniform`.

    The rows are two-sided rows of the pair's record, drawn without replacement.

    Args:
        records: int [n, B]: the record of every pair. The pairs of a record stand together, and
            there are no more of them than the record has rows.
        uniform: float64 [n, B], in [0, 1).
    """
    starts = np.ones(records.shape, bool)
    starts[:, 1:] = records[:, 1:] != records[:, :-1]
    first = np.flatnonzero(starts)
    width = np.diff(np.append(first, records.size))
    rows = np.empty(records.size, row_type(index))
    step = max(1, _AT_ONCE // int(np.diff(index.record_start).max(initial=1)))
    for begin in range(0, len(first), step):
        part = slice(begin, begin + step)
        start, has = _sides_of(index, records.ravel()[first[part]])
        free = has == _BOTH
        for copy in range(int(width[part].max())):
            lines = np.flatnonzero(width[part] > copy)
            at = first[part][lines] + copy
            chosen, _ = _draw_same(free[lines], free[lines], uniform.ravel()[at])
            free[lines, chosen] = False
            rows[at] = start[lines] + chosen
    return rows.reshape(records.shape)


def draw_translations(
    index: RecordIndex, rows: np.ndarray, side: int, uniform: np.ndarray
) -> np.ndarray:
    """For each of `rows` (int [T, B]), another row of its record that has `side`.

    The row is chosen by `uniform`; -1 means that there is none.
    """
    found = np.empty(rows.size, row_type(index))
    step = max(1, _AT_ONCE // int(np.diff(index.record_start).max(initial=1)))
    for begin in range(0, rows.size, step):
        own, draws = rows.ravel()[begin : begin + step], uniform.ravel()[begin : begin + step]
        start, has = _sides_of(index, index.record_of(own))
        others = (has & side) > 0
        others[np.arange(len(own)), own - start] = False
        chosen, _ = _draw_same(others, others, draws)
        found[begin : begin + step] = np.where(others.any(axis=1), start + chosen, -1)
    return found.reshape(rows.shape)


def _sides_of(index: RecordIndex, records: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The first row of each record, and the sides that its rows have.

    The sides are uint8 [n, rows of the widest record].
    """
    start = index.record_start[records]
    width = index.record_start[records + 1] - start
    column = np.arange(width.max())
    cells = np.minimum(start[:, None] + column, index.rows - 1)
    return start, np.where(column < width[:, None], index.has[cells], 0)


def _draw_cross_lingual(
    query: np.ndarray, passage: np.ndarray, uniform: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The columns of an ordered pair for each line of `query` and `passage`.

    Both are bool [n, rows] and tell which rows have the side.
    """
    partners = query * (passage.sum(axis=1, dtype=np.int32)[:, None] - passage)
    upto = np.cumsum(partners, axis=1)
    choice = (uniform * upto[:, -1]).astype(np.int64)
    chosen = (upto <= choice[:, None]).sum(axis=1)
    lines = np.arange(len(query))
    rest = choice - (upto - partners)[lines, chosen]
    passage[lines, chosen] = False
    return chosen, (np.cumsum(passage, axis=1, dtype=np.int32) <= rest[:, None]).sum(axis=1)


def _draw_same(
    query: np.ndarray, passage: np.ndarray, uniform: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The column of a two-sided row for each line, twice: as query and as passage."""
    upto = np.cumsum(query & passage, axis=1, dtype=np.int32)
    chosen = (upto <= (uniform * upto[:, -1]).astype(np.int64)[:, None]).sum(axis=1)
    return chosen, chosen
