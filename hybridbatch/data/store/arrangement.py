"""Order, groups and splits of a store's rows, from integer keys alone: what belongs together, and
where it goes.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from hybridbatch.common.records import SPLITS, Split
from hybridbatch.sampling.index import RecordIndex, shared_passage_groups

TRAIN, VALIDATION = SPLITS.index("train"), SPLITS.index("validation")


@dataclass(frozen=True)
class RowKeys:
    """One entry a row, in any order. R rows."""

    source: np.ndarray  # int16 [R], numbered in the order of names
    # uint64 [R, 2]: 128-bit hash of the record id, so that collisions need no thought
    record: np.ndarray
    language: np.ndarray  # int16 [R], numbered in the order of ids
    has: np.ndarray  # uint8 [R]
    passage: np.ndarray  # uint64 [R]: hash of source and passage text; 0 where there is none
    split: np.ndarray  # uint8 [R]: number in `records.SPLITS`


class DuplicateRow(Exception):
    """Two rows are the same record in the same language; `row` is one of them."""

    def __init__(self, row: int) -> None:
        self.row = row


class SplitRecord(Exception):
    """A record has rows in two splits; `row` is one of them."""

    def __init__(self, row: int) -> None:
        self.row = row


@dataclass(frozen=True)
class Arrangement:
    """The rows of one split in their final order: by source, hash of the record id, language."""

    rows: np.ndarray  # int64 [rows of the split]: positions in the keys
    index: RecordIndex


def arrange(
    keys: RowKeys,
    sources: Sequence[str],
    languages: Sequence[str],
    *,
    validation_share: float,
    seed: int,
    without: np.ndarray | None = None,
) -> dict[Split, Arrangement]:
    """The non-empty splits, of all rows but those of the mask `without` (bool [R]).

    Records of one source that share a passage text, directly or through others, form a group. Where
    a source has training rows only, about `validation_share` of its records become validation
    records: whole groups, so that no validation passage is trained on, chosen by a hash of seed,
    source and record. A source that comes with splits of its own keeps them.

    Raises: `DuplicateRow`, `SplitRecord`.
    """
    order = np.lexsort((keys.language, keys.record[:, 1], keys.record[:, 0], keys.source))
    if without is not None:
        order = order[~without[order]]
    first = _starts_record(keys, order)
    source, language = keys.source[order], keys.language[order]
    twice = np.flatnonzero(~first[1:] & (language[1:] == language[:-1]))
    if len(twice):
        raise DuplicateRow(int(order[twice[0]]))
    starts = np.flatnonzero(first)
    record = np.cumsum(first, dtype=np.int64) - 1
    group = shared_passage_groups(record, keys.passage[order], len(starts))
    split = keys.split[order]
    uneven = np.flatnonzero(split != split[starts][record])
    if len(uneven):
        raise SplitRecord(int(order[uneven[0]]))
    split = _with_validation(
        split[starts],
        source[starts],
        keys.record[order[starts], 0],
        group,
        validation_share=validation_share,
        seed=seed,
    )
    arrangements: dict[Split, Arrangement] = {}
    for number, name in enumerate(SPLITS):
        records = split == number
        if not records.any():
            continue
        rows = records[record]
        widths = np.diff(np.append(starts, len(order)))[records]
        index = RecordIndex(
            sources=tuple(sources),
            languages=tuple(languages),
            record_start=np.concatenate([[0], np.cumsum(widths)]).astype(np.int64),
            source=source[starts][records],
            group=group[records],
            language=language[rows],
            has=keys.has[order[rows]],
        )
        arrangements[name] = Arrangement(order[rows], index)
    return arrangements


def _starts_record(keys: RowKeys, order: np.ndarray) -> np.ndarray:
    """bool [R]: whether the row at each place of `order` is the first of its record."""
    first = np.ones(len(order), bool)
    first[1:] = keys.source[order[1:]] != keys.source[order[:-1]]
    for half in range(2):
        values = keys.record[order, half]
        first[1:] |= values[1:] != values[:-1]
    return first


def _with_validation(
    split: np.ndarray,
    source: np.ndarray,
    key: np.ndarray,
    group: np.ndarray,
    *,
    validation_share: float,
    seed: int,
) -> np.ndarray:
    """The split of each record after sources without splits of their own have given up their
    validation records.
    """
    split = split.copy()
    for number in np.unique(source):
        members = np.flatnonzero(source == number)
        if (split[members] == TRAIN).all():
            draw = _mix(key[members] ^ _mix(np.array([seed], np.uint64)))
            quota = round(validation_share * len(members))
            chosen = _choose_groups(group[members], draw, quota)
            split[members[chosen]] = VALIDATION
    return split


def _choose_groups(group: np.ndarray, draw: np.ndarray, quota: int) -> np.ndarray:
    """bool [n]: whole groups with the smallest draws, at most `quota` members together."""
    _, number, sizes = np.unique(group, return_inverse=True, return_counts=True)
    smallest = np.full(len(sizes), np.iinfo(np.uint64).max)
    np.minimum.at(smallest, number, draw)
    # a larger one would be the whole validation set, or more
    small = np.flatnonzero(sizes <= quota)
    ranked = small[np.argsort(smallest[small], kind="stable")]
    chosen = np.zeros(len(sizes), bool)
    chosen[ranked[np.cumsum(sizes[ranked]) <= quota]] = True
    return chosen[number]


def renumbered(
    numbers: np.ndarray, kept: np.ndarray, names: Sequence[str]
) -> tuple[np.ndarray, list[str]]:
    """The numbers (int16 [R]) among the names that kept rows (bool [R]) have, and those names;
    others become any number.
    """
    used = np.unique(numbers[kept])
    return np.searchsorted(used, numbers).astype(numbers.dtype), [
        names[number] for number in used.tolist()
    ]


def _mix(values: np.ndarray) -> np.ndarray:
    """The finaliser of splitmix64 (Steele et al. 2014): a bijection of uint64 that looks random."""
    values = (values + np.uint64(0x9E3779B97F4A7C15)).astype(np.uint64)
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))
