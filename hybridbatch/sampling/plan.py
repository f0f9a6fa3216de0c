"""The schedule: a table that lists the rows of the batch of every training step.

- Monolingual batches are X-X-mono of LAReQA (Roy et al. 2020, arXiv:2004.05484), and cross-lingual
  ones are LAReQA's X-Y.
- A hybrid schedule draws the kind of every batch (arXiv:2408.10536).
- "mixed" is LAReQA's X-X: same-language pairs of many languages in one batch.
- "mtt" is multilingual translate-train (Lawrie et al. 2023, arXiv:2209.01335) with all language
  copies: every record of a batch brings its same-language pairs in several languages.
"""

from collections.abc import Mapping
from functools import partial
from numbers import Integral, Real
from typing import get_args

import numpy as np

from hybridbatch.common.errors import ConfigError, DataError, nearest
from hybridbatch.common.seeding import stream
from hybridbatch.sampling.filling import fill_batches, fill_copies
from hybridbatch.sampling.index import RecordIndex
from hybridbatch.sampling.pairs import draw_copies, draw_pairs
from hybridbatch.sampling.schedule import Schedule, _name, _steps_by_stream
from hybridbatch.sampling.strategies import MIXING, ORDERED, Strategy
from hybridbatch.sampling.streams import (
    COPIES,
    CROSS_LINGUAL,
    KIND_NAMES,
    MIXED,
    MONOLINGUAL,
    NO_LANGUAGE,
    Stream,
    can_fill,
    capacity,
    copies_of,
    find_streams,
    groups_of,
    parallel_records,
    records_of,
    row_type,
    usable_records,
)


def plan_schedule(
    index: RecordIndex,
    *,
    mix: float,
    batch_size: int,
    steps: int,
    seed: int,
    strategy: Strategy = "hybrid",
    copies: int | None = None,
    source_weights: Mapping[str, float] | None = None,
) -> Schedule:
    """Plan `steps` batches; step t depends on the other arguments and t alone, not on `steps`.

    - Kind: monolingual with probability `mix`, from one draw per step that is the same for every
      mix.
    - Source: in proportion to the number of its records that are usable for the kind, times its
      weight.
    - Language of a monolingual batch: uniform among the languages of the source that can fill a
      batch.
    - Languages of a cross-lingual pair: uniform over the record's ordered pairs of different
      languages, independent for each pair.
    - Records: epoch after epoch without replacement within a stream (`streams.fill_batches`). A
      batch holds no record and no passage text twice.

    The strategies "monolingual-first" and "cross-lingual-first" are hybrid schedules with one kind
    after the other. They have as many batches of each kind as the hybrid schedule of the same mix
    and seed. Their steps depend on `steps`, too.

    An mtt batch is filled with records. Each record brings its two-sided rows in different
    languages, chosen uniformly, at most `copies` of them and at most half of the batch. The last
    record brings as many as there is room for. So a record with one language takes part too, and
    "mtt" with one copy is "mixed".

    If the index has `same_records`, both kinds of batches take the same records in the same order,
    so step t holds the same records for every `mix`. Only `parallel_records` take part. The draws
    of languages are common to all mixes anyway. In an mtt schedule, `same_records` affects only the
    choice of records, because its batches hold fewer records than pairs.

    Args:
        index: the rows to draw from.
        strategy: "hybrid", "monolingual-first", "cross-lingual-first", "mixed" or "mtt".
        mix: probability of a monolingual batch, 0 to 1; not used by "mixed" and "mtt".
        copies: most pairs of a record in a batch of the strategy "mtt", at least 1; None: all its
            languages.
        batch_size: pairs in a batch.
        seed: >= 0.
        source_weights: factor >= 0 by source name, 1 where absent.
    Raises:
        ConfigError: a setting is out of bounds or names an unknown source.
        DataError: the data cannot fill a batch of a requested kind.
    """
    if not isinstance(seed, Integral) or seed < 0:
        raise ConfigError(f"seed {seed!r} is not a whole number of at least 0")
    weights = _weights(index, source_weights or {})
    same_records = index.same_records
    kinds = _kinds(mix, strategy)
    if batch_size < 1 or steps < 0:
        raise ConfigError(
            f"batch_size {batch_size} must be at least 1, and steps {steps} at least 0"
        )
    streams = find_streams(index, kinds | {CROSS_LINGUAL} if same_records else kinds)
    if same_records:
        streams = _parallel_only(index, streams)
    if copies is not None and copies < 1:
        raise ConfigError(f"copies {copies} must be at least 1")
    copies = max(1, min(batch_size // 2, copies or batch_size))
    fillable = {
        key: members
        for key, members in streams.items()
        if can_fill(index, key, members, batch_size, copies)
    }
    chances = {
        kind: _source_chances(
            index,
            CROSS_LINGUAL if same_records and kind != COPIES else kind,
            streams,
            fillable,
            weights,
            batch_size,
            copies,
        )
        for kind in kinds
    }

    kind = _kind_of_steps(mix, strategy, steps, seed)
    source = _draw_sources(kind, chances, stream(seed, "source").random(steps))
    language = _draw_languages(kind, source, fillable, stream(seed, "language").random(steps))

    query_row = np.empty((steps, batch_size), row_type(index))
    passage_row = np.empty_like(query_row)
    uniform = (
        stream(seed, "pair").random((steps, batch_size)) if kinds != {MONOLINGUAL} else None
    )
    if same_records and COPIES not in kinds:
        records = _common_records(index, fillable, source, batch_size, seed)
    for key, chosen in _steps_by_stream(kind, source, language):
        members = fillable[key]
        groups, order = (
            groups_of(index, key, members),
            partial(stream, seed, "order", key[0], key[1], key[2] + 1),
        )
        if key[0] == COPIES:
            pairs = copies_of(index, members, copies)
            filled = members[fill_copies(groups, pairs, batch_size, len(chosen), order)]
        elif same_records:
            owners = records_of(index, key, members)
            filled = members[np.searchsorted(owners, records[chosen])]
        else:
            filled = members[fill_batches(groups, batch_size, len(chosen), order)]
        if key[0] == MONOLINGUAL or uniform is None:
            query_row[chosen] = passage_row[chosen] = filled
        elif key[0] == COPIES:
            query_row[chosen] = passage_row[chosen] = draw_copies(
                index, filled, uniform[chosen]
            )
        else:
            queries, passages = draw_pairs(
                index, key[0], filled.ravel(), uniform[chosen].ravel()
            )
            query_row[chosen], passage_row[chosen] = (
                queries.reshape(filled.shape),
                passages.reshape(filled.shape),
            )
    notes = _notes(index, streams, fillable, batch_size, copies)
    if same_records:
        kept = int(parallel_records(index).sum())
        notes += (
            f"same records for both kinds of batches: {kept} of {index.records} records are whole"
            " in every language of their source and take part",
        )
    return Schedule(kind, source, language, query_row, passage_row, notes)


def _kind_of_steps(mix: float, strategy: Strategy, steps: int, seed: int) -> np.ndarray:
    """uint8 [T]: the kind of every step, drawn for hybrid batches."""
    if strategy not in MIXING:
        return np.full(steps, max(_kinds(mix, strategy)), np.uint8)
    monolingual = stream(seed, "kind").random(steps) < mix
    kind = np.where(monolingual, MONOLINGUAL, CROSS_LINGUAL).astype(np.uint8)
    if strategy in ORDERED:  # cross-lingual is the smaller number
        kind = np.sort(kind)[:: -1 if strategy == "monolingual-first" else 1].copy()
    return kind


def _parallel_only(
    index: RecordIndex, streams: Mapping[Stream, np.ndarray]
) -> dict[Stream, np.ndarray]:
    """The streams without the records that cannot serve both kinds of batches."""
    parallel = parallel_records(index)
    if not parallel.any():
        raise DataError(
            f"same_records: none of the {index.records} records has a query and a passage in"
            " every language of its source; name fewer training languages with --languages,"
            " or leave --same-records out"
        )
    found = {}
    for key, members in streams.items():
        kept = members[parallel[records_of(index, key, members)]]
        if len(kept):
            found[key] = kept
    return found


def _common_records(
    index: RecordIndex,
    fillable: Mapping[Stream, np.ndarray],
    source: np.ndarray,
    batch_size: int,
    seed: int,
) -> np.ndarray:
    """int [T, B]: the records of every step, whatever its kind.

    They have the order of the cross-lingual stream of the source.
    """
    found = np.empty((len(source), batch_size), row_type(index))
    for number in np.unique(source).tolist():
        key = (CROSS_LINGUAL, number, NO_LANGUAGE)
        members = fillable[key]
        order = partial(stream, seed, "order", CROSS_LINGUAL, number, NO_LANGUAGE + 1)
        steps = np.flatnonzero(source == number)
        places = fill_batches(groups_of(index, key, members), batch_size, len(steps), order)
        found[steps] = members[places]
    return found


def _kinds(mix: float, strategy: Strategy) -> set[int]:
    if strategy not in get_args(Strategy):
        known = ", ".join(get_args(Strategy))
        raise ConfigError(f"strategy {strategy!r} is not one of {known}")
    if not isinstance(mix, Real) or not 0 <= mix <= 1:
        raise ConfigError(f"mix {mix!r} is not between 0 (cross-lingual) and 1 (monolingual)")
    if strategy not in MIXING:
        return {MIXED if strategy == "mixed" else COPIES}
    return {
        kind for kind, wanted in ((MONOLINGUAL, mix > 0), (CROSS_LINGUAL, mix < 1)) if wanted
    }


def _weights(index: RecordIndex, by_name: Mapping[str, float]) -> np.ndarray:
    """float64 [sources]: the weight of each source."""
    for name, factor in by_name.items():
        if name not in index.sources:
            raise ConfigError(
                f"source_weights: the data has no source {name!r}{nearest(name, index.sources)}"
            )
        if not 0 <= factor < float("inf"):
            raise ConfigError(f"source_weights: {name} = {factor} must be 0 or more")
    return np.array([by_name.get(name, 1.0) for name in index.sources])


def _source_chances(
    index: RecordIndex,
    kind: int,
    streams: Mapping[Stream, np.ndarray],
    fillable: Mapping[Stream, np.ndarray],
    weights: np.ndarray,
    batch_size: int,
    copies: int,
) -> np.ndarray:
    """float64 [sources]: probability of each source for a batch of `kind`."""
    if kind == MONOLINGUAL:
        usable = np.zeros((len(index.sources), len(index.languages)), bool)
        for key in fillable:
            if key[0] == kind:
                usable[key[1:]] = True
        sizes = usable_records(index, usable)
    else:
        sizes = np.array(
            [len(fillable.get((kind, s, NO_LANGUAGE), ())) for s in range(len(index.sources))]
        )
    chances = sizes * weights
    if chances.sum() > 0:
        return chances / chances.sum()
    if sizes.any():
        able = [name for name, size in zip(index.sources, sizes, strict=True) if size]
        raise ConfigError(
            f"source_weights: no source is left for {KIND_NAMES[kind]} batches; give {able[0]!r} a"
            " weight"
        )
    own = {key: members for key, members in streams.items() if key[0] == kind}
    raise DataError(_why_empty(index, kind, own, batch_size, copies))


def _why_empty(
    index: RecordIndex,
    kind: int,
    streams: Mapping[Stream, np.ndarray],
    batch_size: int,
    copies: int,
) -> str:
    if not streams:
        if kind == CROSS_LINGUAL:
            return (
                "cross-lingual batches need records in at least two languages, a query in one and"
                f" a passage in another, and none of the {index.records} records has that; use"
                " --mix 1 or data in more languages"
            )
        return (
            f"{KIND_NAMES[kind]} batches need rows with a query and a passage in the same language,"
            " and none of the"
            f" {index.rows} rows has both" + ("; use --mix 0" if kind == MONOLINGUAL else "")
        )
    passages = {key: capacity(index, key, members, copies) for key, members in streams.items()}
    largest = max(passages, key=passages.__getitem__)
    return (
        f"no {KIND_NAMES[kind]} batch of {batch_size} pairs can be filled: the largest stream,"
        f" {_name(index, largest)}, has {len(streams[largest])} records with {passages[largest]}"
        f" different passages; use --batch-size {passages[largest]} or less, or more data"
    )


def _draw_sources(
    kind: np.ndarray, chances: Mapping[int, np.ndarray], uniform: np.ndarray
) -> np.ndarray:
    """int16 [T]: the source of every batch."""
    source = np.zeros(len(kind), np.int16)
    for which, chance in chances.items():
        possible = np.flatnonzero(chance)
        upto = np.cumsum(chance[possible])[:-1]
        steps = kind == which
        source[steps] = possible[np.searchsorted(upto, uniform[steps], side="right")]
    return source


def _draw_languages(
    kind: np.ndarray,
    source: np.ndarray,
    fillable: Mapping[Stream, np.ndarray],
    uniform: np.ndarray,
) -> np.ndarray:
    """int16 [T]: the language of every batch."""
    language = np.full(len(kind), NO_LANGUAGE, np.int16)
    for number in np.unique(source[kind == MONOLINGUAL]).tolist():
        possible = np.array([key[2] for key in fillable if key[:2] == (MONOLINGUAL, number)])
        steps = (kind == MONOLINGUAL) & (source == number)
        language[steps] = possible[(uniform[steps] * len(possible)).astype(np.int64)]
    return language


def _notes(
    index: RecordIndex,
    streams: Mapping[Stream, np.ndarray],
    fillable: Mapping[Stream, np.ndarray],
    batch_size: int,
    copies: int,
) -> tuple[str, ...]:
    """One line for each source and kind with streams that are too small to be drawn."""
    small: dict[tuple[int, int], list[str]] = {}
    for key, members in streams.items():
        if key not in fillable:
            passages = capacity(index, key, members, copies)
            what = f"{passages} different passages in {len(members)} records"
            name = f"{index.languages[key[2]]}: " if key[2] != NO_LANGUAGE else ""
            small.setdefault(key[:2], []).append(name + what)
    return tuple(
        f"{index.sources[source]}: left out of {KIND_NAMES[kind]} batches, too small for"
        f" {batch_size} pairs ({'; '.join(streams)})"
        for (kind, source), streams in small.items()
    )
