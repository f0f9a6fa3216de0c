"""The streams a schedule draws from: which rows or records a batch can hold, and in which order they come.

A stream is (kind, source, language): all rows of a source in one language for monolingual batches, all records of a
source for batches of other kinds. Its members come epoch after epoch, each epoch in a new seeded order.
"""

from collections import Counter, defaultdict, deque
from collections.abc import Callable, Iterator
from functools import lru_cache
from itertools import islice, pairwise

import numpy as np

from hybridbatch.records import HAS_PASSAGE, HAS_QUERY, RecordIndex

CROSS_LINGUAL, MONOLINGUAL, MIXED, COPIES = 0, 1, 2, 3
KIND_NAMES = {CROSS_LINGUAL: "cross-lingual", MONOLINGUAL: "monolingual", MIXED: "mixed", COPIES: "mtt"}
NO_LANGUAGE = -1

Stream = tuple[int, int, int]  # kind, number of the source, number of the language or NO_LANGUAGE

_BOTH = HAS_QUERY | HAS_PASSAGE
_AT_ONCE = 1 << 21  # rows or pairs worked on at a time: bounds the temporary arrays


def row_type(index: RecordIndex) -> type[np.signedinteger]:
    """The smallest of int32 and int64 that holds every row number of `index`."""
    return np.int32 if index.rows <= np.iinfo(np.int32).max else np.int64


def find_streams(index: RecordIndex, kinds: set[int]) -> dict[Stream, np.ndarray]:
    """The members of every stream of `kinds`, ascending: row numbers if monolingual, record numbers otherwise.

    A row can serve a monolingual, mixed or mtt batch if it has both sides; a record can serve a cross-lingual one if it has
    a query in one language and a passage in another. Memory: 4 bytes a row and 4 a record.
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
                parts[kind, source, NO_LANGUAGE].append((first + np.flatnonzero(choices)).astype(whole))
    return {stream: np.concatenate(parts[stream]) for stream in sorted(parts)}


def usable_records(index: RecordIndex, fillable: np.ndarray) -> np.ndarray:
    """int64 [sources]: records with a two-sided row in a language of `fillable` (bool [sources, languages])."""
    totals = np.zeros(len(index.sources), np.int64)
    for source, first, last in _record_blocks(index):
        begin, end = index.record_start[first], index.record_start[last]
        usable = (index.has[begin:end] == _BOTH) & fillable[source][index.language[begin:end]]
        totals[source] += np.count_nonzero(_sum_by_record(index, first, last, usable))
    return totals


def draw_pairs(
    index: RecordIndex, kind: int, records: np.ndarray, uniform: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """One (query row, passage row) for each record, chosen by its number in `uniform` (float64 [n], in [0, 1)).

    Cross-lingual: uniform over the record's ordered pairs (row with a query, another row with a passage). Mixed:
    uniform over its rows with both sides, which serve as query and passage.
    """
    queries, passages = np.empty(len(records), row_type(index)), np.empty(len(records), row_type(index))
    widest = int(np.diff(index.record_start).max(initial=1))
    step = max(1, _AT_ONCE // widest)
    for begin in range(0, len(records), step):
        part = slice(begin, begin + step)
        start, has = _sides_of(index, records[part])
        draw = _draw_cross_lingual if kind == CROSS_LINGUAL else _draw_same
        query, passage = draw((has & HAS_QUERY) > 0, (has & HAS_PASSAGE) > 0, uniform[part])
        queries[part], passages[part] = start + query, start + passage
    return queries, passages


def copies_of(index: RecordIndex, records: np.ndarray, most: int) -> np.ndarray:
    """int64 [n]: the pairs that each record brings to an mtt batch: its two-sided rows, `most` at most."""
    upto = np.concatenate([[0], np.cumsum(index.has == _BOTH)])
    return np.minimum(upto[index.record_start[records + 1]] - upto[index.record_start[records]], most)


def draw_copies(index: RecordIndex, records: np.ndarray, uniform: np.ndarray) -> np.ndarray:
    """The row of every pair of mtt batches: two-sided rows of its record, without replacement, chosen by `uniform`.

    Args:
        records: int [n, B]: the record of every pair; the pairs of a record stand together, no more than it has rows.
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


def draw_translations(index: RecordIndex, rows: np.ndarray, side: int, uniform: np.ndarray) -> np.ndarray:
    """For each of `rows` (int [T, B]) another row of its record that has `side`, chosen by `uniform`; -1: there is none."""
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
    """The first row of each record, and the sides that its rows have: uint8 [n, rows of the widest]."""
    start = index.record_start[records]
    width = index.record_start[records + 1] - start
    column = np.arange(width.max())
    cells = np.minimum(start[:, None] + column, index.rows - 1)
    return start, np.where(column < width[:, None], index.has[cells], 0)


def records_of(index: RecordIndex, stream: Stream, members: np.ndarray) -> np.ndarray:
    """The record number of each member."""
    return index.record_of(members) if stream[0] == MONOLINGUAL else members


def groups_of(index: RecordIndex, stream: Stream, members: np.ndarray) -> np.ndarray:
    """The group of each member's record."""
    return index.group[records_of(index, stream, members)]


def capacity(index: RecordIndex, stream: Stream, members: np.ndarray, copies: int) -> int:
    """The pairs that any batch of the members can have: their different groups, or, of an mtt stream, the fewest pairs
    that a record of each group brings; 1 at most where there is one group only.
    """
    groups, place = np.unique(groups_of(index, stream, members), return_inverse=True)
    if stream[0] != COPIES or len(groups) < 2:
        return len(groups)
    fewest = np.full(len(groups), copies)
    np.minimum.at(fewest, place, copies_of(index, members, copies))
    return int(fewest.sum())


def can_fill(index: RecordIndex, stream: Stream, members: np.ndarray, batch_size: int, copies: int) -> bool:
    """Whether the `capacity` of the members is at least `batch_size`; looks no further than it must."""
    if stream[0] == COPIES:
        return capacity(index, stream, members, copies) >= batch_size
    looked = batch_size
    while True:
        enough = len(np.unique(groups_of(index, stream, members[:looked]))) >= batch_size
        if enough or looked >= len(members):
            return enough
        looked *= 4


def fill_batches(
    groups: np.ndarray, batch_size: int, batches: int, generator: Callable[[int], np.random.Generator]
) -> np.ndarray:
    """int [batches, batch_size]: positions of members, such that no two of a batch are of one group.

    The members come in an endless sequence: epoch e in the order of ``generator(e).permutation``. A member whose group
    is already in the batch is deferred: it comes first in the next batch, so each is used once in an epoch, and the
    result for fewer batches is a prefix of that for more. A group with more than 1 / batch_size of the members cannot
    be used up in an epoch; its members take turns.

    Args:
        groups: int [members], with at least `batch_size` distinct values.
        generator: the random generator of an epoch, a pure function of it.
    """
    sequence = _endless(len(groups), generator)
    filled = np.empty((batches, batch_size), np.int32 if len(groups) < 2**31 else np.int64)
    done, position, span = 0, 0, batches
    while done < batches:
        span = min(span, batches - done, max(1, _AT_ONCE // batch_size))
        block = sequence(position, position + span * batch_size).reshape(span, batch_size)
        clean = _leading_clean(groups[block])
        filled[done : done + clean] = block[:clean]
        done, position = done + clean, position + clean * batch_size
        if clean < span:
            for batch, after in _deferring(groups, batch_size, sequence, position):
                filled[done] = batch
                done, position = done + 1, after
                if done == batches:
                    break
        span = 2 * clean + 8  # about as far as the next clash is likely to be
    return filled


def fill_copies(
    groups: np.ndarray,
    copies: np.ndarray,
    batch_size: int,
    batches: int,
    generator: Callable[[int], np.random.Generator],
) -> np.ndarray:
    """As `fill_batches`, of members that bring several pairs each: int [batches, batch_size], the member of every pair.

    The pairs of a member stand together; the last member of a batch brings as many as there is room for.

    Args:
        copies: int [members]: the pairs of each.
    """
    sequence = _endless(len(groups), generator)
    filled = np.empty((batches, batch_size), np.int32 if len(groups) < 2**31 else np.int64)
    done, position = 0, 0
    while done < batches:
        for batch, after in _deferring(groups, batch_size, sequence, position, copies):
            filled[done] = np.repeat(batch, copies[batch])[:batch_size]
            done, position = done + 1, after
            if done == batches:
                break
    return filled


def _endless(size: int, generator: Callable[[int], np.random.Generator]) -> Callable[[int, int], np.ndarray]:
    """Any stretch (start, stop) of the endless sequence of `size` members, epoch after epoch."""

    @lru_cache(maxsize=2)
    def epoch(number: int) -> np.ndarray:
        return generator(number).permutation(np.arange(size, dtype=np.int32 if size < 2**31 else np.int64))

    def sequence(start: int, stop: int) -> np.ndarray:
        pieces = [
            epoch(number)[max(start - number * size, 0) : stop - number * size]
            for number in range(start // size, -(-stop // size))
        ]
        return pieces[0] if len(pieces) == 1 else np.concatenate(pieces)

    return sequence


def _deferring(
    groups: np.ndarray,
    batch_size: int,
    sequence: Callable[[int, int], np.ndarray],
    position: int,
    copies: np.ndarray | None = None,
) -> Iterator[tuple[list[int], int]]:
    """Batches from `position` of the sequence on, and the position after each, until no member is left deferred.

    A batch is full when its members, with `copies` pairs each (default: one), have `batch_size` pairs or more.
    """
    deferred: dict[int, deque[int]] = {}
    waiting: Counter[int] = Counter()
    while True:
        batch, used, room = [], set(), batch_size
        for group in list(islice(deferred, batch_size)):
            if room <= 0:
                break
            queue = deferred.pop(group)
            batch.append(queue.popleft())
            used.add(group)
            waiting[batch[-1]] -= 1
            room -= 1 if copies is None else int(copies[batch[-1]])
            if queue:
                deferred[group] = queue  # at the end: groups take turns
        while room > 0:
            fresh = sequence(position, position + batch_size)
            for member, group in zip(fresh.tolist(), groups[fresh].tolist(), strict=True):
                if room <= 0:
                    break
                position += 1
                if group not in used:
                    batch.append(member)
                    used.add(group)
                    room -= 1 if copies is None else int(copies[member])
                elif waiting[member] < 2:  # two epochs of a member waiting: its group is too large ever to be used up
                    deferred.setdefault(group, deque()).append(member)
                    waiting[member] += 1
        yield batch, position
        if not deferred:
            return


def _leading_clean(groups: np.ndarray) -> int:
    """How many of the first batches (rows) have no group twice."""
    ordered = np.sort(groups, axis=1)
    clash = (ordered[:, 1:] == ordered[:, :-1]).any(axis=1)
    return int(clash.argmax()) if clash.any() else len(groups)


def _record_blocks(index: RecordIndex) -> Iterator[tuple[int, int, int]]:
    """(source, first record, last record + 1) of consecutive blocks of about `_AT_ONCE` rows."""
    step = max(1, _AT_ONCE * index.records // max(1, index.rows))
    bounds = [0, *(np.flatnonzero(np.diff(index.source)) + 1).tolist(), index.records]
    for begin, end in pairwise(bounds):
        for first in range(begin, end, step):
            yield int(index.source[first]), first, min(first + step, end)


def _sum_by_record(index: RecordIndex, first: int, last: int, flags: np.ndarray) -> np.ndarray:
    """int32 [last - first]: how many of each record's rows have the flag (bool, one for each row of these records)."""
    starts = index.record_start[first : last + 1] - index.record_start[first]
    sums = np.zeros(last - first, np.int32)
    filled = np.diff(starts) > 0  # reduceat gives an empty slice the value of its neighbour
    if filled.any():
        sums[filled] = np.add.reduceat(flags, starts[:-1][filled], dtype=np.int32)
    return sums


def _choices(index: RecordIndex, kind: int, first: int, last: int, has: np.ndarray) -> np.ndarray:
    """int32 [last - first]: in how many ways a pair of `kind` can be drawn from each record."""
    both = _sum_by_record(index, first, last, has == _BOTH)
    if kind in (MIXED, COPIES):
        return both
    queries = _sum_by_record(index, first, last, (has & HAS_QUERY) > 0)
    passages = _sum_by_record(index, first, last, (has & HAS_PASSAGE) > 0)
    return queries * passages - both


def _draw_cross_lingual(query: np.ndarray, passage: np.ndarray, uniform: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Columns of an ordered pair for each line of `query` and `passage` (bool [n, rows]): which rows have that side."""
    partners = query * (passage.sum(axis=1, dtype=np.int32)[:, None] - passage)
    upto = np.cumsum(partners, axis=1)
    choice = (uniform * upto[:, -1]).astype(np.int64)
    chosen = (upto <= choice[:, None]).sum(axis=1)
    lines = np.arange(len(query))
    rest = choice - (upto - partners)[lines, chosen]
    passage[lines, chosen] = False
    return chosen, (np.cumsum(passage, axis=1, dtype=np.int32) <= rest[:, None]).sum(axis=1)


def _draw_same(query: np.ndarray, passage: np.ndarray, uniform: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The column of a two-sided row for each line, twice."""
    upto = np.cumsum(query & passage, axis=1, dtype=np.int32)
    chosen = (upto <= (uniform * upto[:, -1]).astype(np.int64)[:, None]).sum(axis=1)
    return chosen, chosen
