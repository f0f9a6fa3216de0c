"""Order, groups and splits of a store's rows, computed from integer keys alone."""

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np

from hybridbatch.common.records import SPLITS, Split
from hybridbatch.data.store.disk_arrays import DiskArray, NpyFile
from hybridbatch.data.store.groups import TextPairs, groups_of
from hybridbatch.data.store.keys import Numbering, SpilledKeys
from hybridbatch.sampling.index import RecordIndex, choose_groups

TRAIN, VALIDATION, TEST = (SPLITS.index(split) for split in ("train", "validation", "test"))
EqualQueries = Literal["apart", "together"]
ARRAY_TYPES = {
    "record_start": np.int64,
    "source": np.int16,
    "group": np.int32,
    "language": np.int16,
    "has": np.uint8,
}


class NothingLeft(Exception):
    """All records were left out."""


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

    rows: DiskArray  # int64 [rows of the split]: places in the file of the rows
    index: RecordIndex  # memory-mapped from the files of the store


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
    keys: SpilledKeys,
    sources: Numbering,
    languages: Numbering,
    plan: SplitPlan,
    folders: tuple[Path, Path],
    without: Collection[tuple[int, int, int]] = (),
) -> dict[Split, Arrangement]:
    """Write the index of the non-empty splits of all rows except those of the records `without`.

    Records of one source that share a passage or a query, directly or through others, form a group.
    If a source has only training rows, about `validation_share` of its records become validation
    records. Whole groups move, so that no validation passage is trained on. A hash of seed, source
    and record chooses them. A source with splits keeps its splits. Test records are set aside by
    equal rules, with an equal share of every language.

    Memory is about 30 bytes a record, and does not grow with the rows of a record (test records: 60
    bytes more).

    Args:
        folders: of the index, and of files that are not needed afterwards.
        without: see `SpilledKeys.sorted`.

    Raises:
        DuplicateRow: Two rows have one record and one language.
        SplitRecord: A record has rows in two splits.
        NothingLeft: No row remains.
    """
    table = _sorted_table(keys, sources, languages, plan, folders[1], without)
    group = groups_of(table.texts, len(table.source))
    remaining = (
        _Remaining.of(sources, table.source),
        _Remaining.of(languages, table.language),
    )
    split = _whole(table.split)
    lengths = np.bincount(_whole(table.source), minlength=len(sources.names))
    ends = np.cumsum(lengths)
    for number in np.flatnonzero(lengths).tolist():
        part = slice(int(ends[number] - lengths[number]), int(ends[number]))
        records = _Records(table, group, part, remaining[1].place)
        own = sources.names[number] in plan.own
        split[part] = _set_aside(split[part], records, plan, own=own)
    return _write_index(table, group, split, remaining, folders)


def _whole(values: DiskArray) -> np.ndarray:
    return values[: len(values)]


@dataclass(frozen=True)
class _Table:
    """The sorted rows and records. R rows, N records."""

    rows: DiskArray  # int64 [R]: places in the file of the rows
    language: DiskArray  # int16 [R]
    has: DiskArray  # uint8 [R]
    width: DiskArray  # int32 [N]: rows of the record
    source: DiskArray  # int16 [N]
    draw: DiskArray  # uint64 [N]: random, determined by seed and record
    split: DiskArray  # uint8 [N]
    texts: list[TextPairs]


def _sorted_table(
    keys: SpilledKeys,
    sources: Numbering,
    languages: Numbering,
    plan: SplitPlan,
    scratch: Path,
    without: Collection[tuple[int, int, int]],
) -> _Table:
    """Sort the keys. Raises as `arrange`."""
    kinds = ["passage"] + (["query"] if plan.equal_queries == "apart" else [])
    table = _Table(
        rows=DiskArray(scratch / "rows", np.int64),
        language=DiskArray(scratch / "language", np.int16),
        has=DiskArray(scratch / "has", np.uint8),
        width=DiskArray(scratch / "width", np.int32),
        source=DiskArray(scratch / "source", np.int16),
        draw=DiskArray(scratch / "draw", np.uint64),
        split=DiskArray(scratch / "split", np.uint8),
        texts=[TextPairs(scratch, kind, len(keys.rows)) for kind in kinds],
    )
    seed = _mix(np.array([plan.seed], np.uint64))
    uneven: int | None = None
    for places, part in keys.sorted(sources, languages, without):
        if not len(part):
            continue
        first = np.ones(len(part), bool)
        first[1:] = (part["high"][1:] != part["high"][:-1]) | (
            part["low"][1:] != part["low"][:-1]
        )
        twice = np.flatnonzero(~first[1:] & (part["language"][1:] == part["language"][:-1]))
        if len(twice):
            raise DuplicateRow(int(places[twice[0]]))
        starts = np.flatnonzero(first)
        record = np.cumsum(first, dtype=np.int64) - 1
        split = part["split"]
        wrong = np.flatnonzero(split != split[starts][record])
        if len(wrong) and uneven is None:
            uneven = int(places[wrong[0]])
        for kind, pairs in zip(kinds, table.texts, strict=True):
            pairs.append(part[kind], record + len(table.source))
        table.rows.append(places)
        table.language.append(part["language"])
        table.has.append(part["has"])
        table.width.append(np.diff(np.append(starts, len(part))))
        table.source.append(part["source"][starts])
        table.draw.append(_mix(part["high"][starts] ^ seed))
        table.split.append(split[starts])
    if uneven is not None:
        raise SplitRecord(uneven)
    if not len(table.rows):
        raise NothingLeft
    return table


@dataclass(frozen=True)
class _Records:
    """The records of one source. N records."""

    table: _Table
    all_groups: np.ndarray
    part: slice
    language: np.ndarray  # int16: the final number of each language

    @property
    def group(self) -> np.ndarray:
        """int32 [N]."""
        return self.all_groups[self.part]

    @property
    def draw(self) -> np.ndarray:
        """uint64 [N]: random, determined by seed and record."""
        return self.table.draw[self.part]

    def languages(self) -> np.ndarray:
        """uint64 [N]: a hash of the languages of each record's group."""
        base = int(self.group.min())
        found = np.empty(0, np.int64)
        for first, rows, widths in _record_chunks(self.table, self.part):
            groups = self.all_groups[first : first + len(widths)].astype(np.int64) - base
            spoken = self.language[self.table.language[rows]].astype(np.int64)
            found = np.union1d(found, np.repeat(groups, widths) << 16 | spoken)
        sets = np.zeros(int(self.group.max()) - base + 1, np.uint64)
        np.add.at(sets, found >> 16, _mix((found & 0xFFFF).astype(np.uint64)))
        return sets[self.group - base]


def _record_chunks(table: _Table, records: slice) -> Iterator[tuple[int, slice, np.ndarray]]:
    """(first record, its rows and those of the following records, their widths), in parts."""
    first = row = 0
    for widths in table.width.chunks():
        start = max(0, records.start - first)
        stop = min(len(widths), records.stop - first)
        if start < stop:
            before = row + int(widths[:start].sum())
            chosen = widths[start:stop]
            yield first + start, slice(before, before + int(chosen.sum())), chosen
        row += int(widths.sum())
        first += len(widths)


def _write_index(
    table: _Table,
    group: np.ndarray,
    split: np.ndarray,
    remaining: tuple["_Remaining", "_Remaining"],
    folders: tuple[Path, Path],
) -> dict[Split, Arrangement]:
    """Write the arrays of each split, with the sources and languages that remain."""
    index, scratch = folders
    sources, languages = remaining
    arrangements: dict[Split, Arrangement] = {}
    for number, name in enumerate(SPLITS):
        records = int((split == number).sum())
        if not records:
            continue
        everything = slice(0, len(split))
        rows = 0
        for first, _, widths in _record_chunks(table, everything):
            rows += int(widths[split[first : first + len(widths)] == number].sum())
        (index / name).mkdir(parents=True)
        lengths = {"record_start": records + 1, "source": records, "group": records}
        lengths |= {"language": rows, "has": rows}
        files = {}
        for array, length in lengths.items():
            files[array] = NpyFile(index / name / f"{array}.npy", ARRAY_TYPES[array], length)
        places = DiskArray(scratch / f"rows-{name}", np.int64)
        files["record_start"].append(np.zeros(1, np.int64))
        end = 0
        for first, part, widths in _record_chunks(table, everything):
            chosen = split[first : first + len(widths)] == number
            of_rows = np.repeat(chosen, widths)
            own = slice(first, first + len(widths))
            starts = end + np.cumsum(widths[chosen], dtype=np.int64)
            end = int(starts[-1]) if len(starts) else end
            files["record_start"].append(starts)
            files["source"].append(sources.place[table.source[own][chosen]])
            files["group"].append(group[own][chosen])
            files["language"].append(languages.place[table.language[part][of_rows]])
            files["has"].append(table.has[part][of_rows])
            places.append(table.rows[part][of_rows])
        for file in files.values():
            file.close()
        arrays = {}
        for array in lengths:
            arrays[array] = np.load(index / name / f"{array}.npy", mmap_mode="r")
        made = RecordIndex(sources=sources.names, languages=languages.names, **arrays)
        arrangements[name] = Arrangement(places, made)
    return arrangements


class _Remaining(NamedTuple):
    """The names that rows remain of, and the new number of each old one."""

    names: tuple[str, ...]
    place: np.ndarray  # int16

    @classmethod
    def of(cls, numbering: Numbering, values: DiskArray) -> "_Remaining":
        """Those of the numbers in `values`."""
        used = np.zeros(len(numbering.names), bool)
        for part in values.chunks():
            used[part] = True
        names = tuple(
            name for name, is_used in zip(numbering.names, used, strict=True) if is_used
        )
        return cls(names, (np.cumsum(used) - 1).astype(np.int16))


def _set_aside(
    split: np.ndarray, records: _Records, plan: SplitPlan, *, own: bool
) -> np.ndarray:
    """The splits of a source's records, after some training records moved to missing splits."""
    split = split.copy()
    given = set(np.unique(split).tolist())
    if plan.test_share and TEST not in given:
        trained = np.flatnonzero(split == TRAIN)
        quota = round(plan.test_share * len(trained))
        group, draw = records.group[trained], records.draw[trained]
        languages = records.languages()[trained]
        split[trained[_choose_evenly(group, draw, languages, plan.test_share, quota)]] = TEST
    if given == {TRAIN} or (own and VALIDATION not in given):
        trains = split == TRAIN
        quota = round(plan.validation_share * int(trains.sum()))
        if quota:
            chosen = choose_groups(records.group[trains], records.draw[trains], quota)
            split[np.flatnonzero(trains)[chosen]] = VALIDATION
    return split


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


def _mix(values: np.ndarray) -> np.ndarray:
    """The finaliser of splitmix64 (Steele et al. 2014), a bijection of uint64 that looks random."""
    values = (values + np.uint64(0x9E3779B97F4A7C15)).astype(np.uint64)
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))
