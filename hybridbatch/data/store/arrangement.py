"""Order, groups and splits of a store's rows, computed from integer keys alone."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from hybridbatch.common.records import SPLITS, Split
from hybridbatch.sampling.index import RecordIndex, choose_groups, shared_text_groups

TRAIN, VALIDATION, TEST = (SPLITS.index(split) for split in ("train", "validation", "test"))
EqualQueries = Literal["apart", "together"]


@dataclass(frozen=True)
class RowKeys:
    """One entry a row, in any order. R rows."""

    source: np.ndarray  # int16 [R], numbered in the order of names
    # uint64 [R, 2]: 128-bit hash of the record id, so that collisions can be ignored
    record: np.ndarray
    language: np.ndarray  # int16 [R], numbered in the order of ids
    has: np.ndarray  # uint8 [R]
    query: np.ndarray  # uint64 [R]: hash of source and query text; 0 if there is no query
    passage: np.ndarray  # uint64 [R]: hash of source and passage text
    split: np.ndarray  # uint8 [R]: number in `records.SPLITS`


class DuplicateRow(Exception):
    """Two rows have one record and one language; `row` is one of them."""

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


@dataclass(frozen=True)
class SplitPlan:
    """The shares of sources to set aside, and the rule for equal queries.

    Attributes:
        validation_share: share of the records of a source without a validation split.
        test_share: share of the records of a source without a test split.
        seed: seed of the choice.
        equal_queries: ``apart``: records with equal queries are in one group, like records with
            equal passages, so that they never meet in a batch; ``together``: they may meet.
        own: names of the user's own sources. If one has a test split and no validation split,
            validation records are still set aside from its training records.
    """

    validation_share: float = 0.05
    test_share: float = 0.0
    seed: int = 13
    equal_queries: EqualQueries = "apart"
    own: frozenset[str] = frozenset()


def arrange(
    keys: RowKeys,
    sources: Sequence[str],
    languages: Sequence[str],
    plan: SplitPlan,
    without: np.ndarray | None = None,
) -> dict[Split, Arrangement]:
    """The non-empty splits of all rows except those of the mask `without` (bool [R]).

    Records of one source that share a passage or a query, directly or through others, form a group.
    If a source has only training rows, about `validation_share` of its records become validation
    records. Whole groups move, so that no validation passage is trained on. A hash of seed, source
    and record chooses them. A source with splits keeps its splits. Test records are set aside by
    equal rules, with an equal share of every language.

    Raises:
        DuplicateRow: Two rows have one record and one language.
        SplitRecord: A record has rows in two splits.
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
    texts = [keys.passage[order]]
    if plan.equal_queries == "apart":
        texts.append(keys.query[order])
    group = shared_text_groups(record, texts, len(starts))
    split = keys.split[order]
    uneven = np.flatnonzero(split != split[starts][record])
    if len(uneven):
        raise SplitRecord(int(order[uneven[0]]))
    records = _Records(
        source[starts],
        group,
        _mix(keys.record[order[starts], 0] ^ _mix(np.array([plan.seed], np.uint64))),
        _language_sets(group[record], language, len(starts)),
    )
    split = split[starts].copy()
    for number in np.unique(records.source):
        _set_aside(split, records, int(number), plan, own=sources[number] in plan.own)
    arrangements: dict[Split, Arrangement] = {}
    for number, name in enumerate(SPLITS):
        chosen = split == number
        if not chosen.any():
            continue
        rows = chosen[record]
        widths = np.diff(np.append(starts, len(order)))[chosen]
        index = RecordIndex(
            sources=tuple(sources),
            languages=tuple(languages),
            record_start=np.concatenate([[0], np.cumsum(widths)]).astype(np.int64),
            source=source[starts][chosen],
            group=group[chosen],
            language=language[rows],
            has=keys.has[order[rows]],
        )
        arrangements[name] = Arrangement(order[rows], index)
    return arrangements


def _starts_record(keys: RowKeys, order: np.ndarray) -> np.ndarray:
    """bool [R]: whether the row at each place of `order` is the first row of its record."""
    first = np.ones(len(order), bool)
    first[1:] = keys.source[order[1:]] != keys.source[order[:-1]]
    for half in range(2):
        values = keys.record[order, half]
        first[1:] |= values[1:] != values[:-1]
    return first


@dataclass(frozen=True)
class _Records:
    """One entry a record. N records."""

    source: np.ndarray  # int16 [N]
    group: np.ndarray  # int32 [N]
    draw: np.ndarray  # uint64 [N]: random, determined by seed and record
    languages: np.ndarray  # uint64 [N]: hash of the languages of the record's group


def _language_sets(group_of_row: np.ndarray, language: np.ndarray, groups: int) -> np.ndarray:
    """uint64 [groups]: a hash of the languages of each group."""
    pairs = np.unique(np.stack([group_of_row.astype(np.int64), language.astype(np.int64)]), axis=1)
    sets = np.zeros(groups, np.uint64)
    np.add.at(sets, pairs[0], _mix(pairs[1].astype(np.uint64)))
    return sets


def _set_aside(
    split: np.ndarray, records: _Records, source: int, plan: SplitPlan, *, own: bool
) -> None:
    """Move records of a source from the training split to missing test and validation splits."""
    members = np.flatnonzero(records.source == source)
    given = set(split[members].tolist())
    if plan.test_share and TEST not in given:
        trained = members[split[members] == TRAIN]
        quota = round(plan.test_share * len(trained))
        group, draw = records.group[trained], records.draw[trained]
        languages = records.languages[records.group[trained]]
        split[trained[_choose_evenly(group, draw, languages, plan.test_share, quota)]] = TEST
    if given == {TRAIN} or (own and VALIDATION not in given):
        trained = members[split[members] == TRAIN]
        quota = round(plan.validation_share * len(trained))
        chosen = choose_groups(records.group[trained], records.draw[trained], quota)
        split[trained[chosen]] = VALIDATION


def _choose_evenly(
    group: np.ndarray, draw: np.ndarray, languages: np.ndarray, share: float, quota: int
) -> np.ndarray:
    """bool [n]: whole groups, about `share` of the members of each set of languages.

    This is systematic sampling. The groups stand in a row, where groups with equal languages and
    equal size are side by side in random order. One group in every 1 / share is taken. So every set
    of languages gives its share, up to one group of each size. Groups of more than `quota` members,
    which would be the whole test set, are skipped.
    """
    _, first, number, sizes = np.unique(
        group, return_index=True, return_inverse=True, return_counts=True
    )
    smallest = np.full(len(sizes), np.iinfo(np.uint64).max)
    np.minimum.at(smallest, number, draw)
    small = np.flatnonzero(sizes <= quota)
    ranked = small[np.lexsort((smallest[small], sizes[small], languages[first[small]]))]
    due = np.floor(np.arange(1, len(ranked) + 1) * share + 0.5)
    chosen = np.zeros(len(sizes), bool)
    chosen[ranked[np.diff(due, prepend=0.0) > 0]] = True
    return chosen[number]


def renumbered(
    numbers: np.ndarray, kept: np.ndarray, names: Sequence[str]
) -> tuple[np.ndarray, list[str]]:
    """The numbers (int16 [R]) of kept rows (bool [R]) among the remaining names, and these names.

    Other rows get any number.
    """
    used = np.unique(numbers[kept])
    return np.searchsorted(used, numbers).astype(numbers.dtype), [
        names[number] for number in used.tolist()
    ]


def _mix(values: np.ndarray) -> np.ndarray:
    """The finaliser of splitmix64 (Steele et al. 2014), a bijection of uint64 that looks random."""
    values = (values + np.uint64(0x9E3779B97F4A7C15)).astype(np.uint64)
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))
