"""Compute the findings of a sweep: tables with intervals and tests."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np

from hybridbatch.common.errors import DataError
from hybridbatch.common.languages import language
from hybridbatch.scaling.analysis import (
    FURTHER_METRICS,
    MAIN_METRICS,
    PRETRAINING,
    Measure,
    Responses,
    Sweep,
    size_of,
    trained_languages,
)
from hybridbatch.scaling.contrasts import (
    LEVEL,
    MARGIN,
    against_baselines,
    against_pure,
    contrast,
    is_inner,
    judged,
    over_languages,
    place,
    settle,
)
from hybridbatch.scaling.fits import MIN_SIZES, Law, TooFewSizes, fit_law
from hybridbatch.scaling.gaps import gaps, lines
from hybridbatch.scaling.language_traits import (
    TooFewLanguages,
    lexical_distances,
    regress,
    traits,
)
from hybridbatch.scaling.mix_response import (
    Trend,
    break_even,
    gain_trend,
    mix_trend,
    optimum_mix,
)

Row = dict[str, Any]
Texts = Mapping[
    str, Mapping[str, Sequence[str]]
]  # of the evaluation tasks, by task and language
SEED = 13  # of the bootstrap
LAW_RESAMPLES = 200  # the coverage of the intervals was measured with this number
LAW_METRICS = {"mAP": "1 - mAP", "contrastive_entropy": "contrastive entropy"}
BEST_MIX = "best mix"


@dataclass(frozen=True)
class Findings:
    """The tables of a sweep.

    Every row names its measure, its part of the grid, and the keys of its cells.
    """

    means: list[Row]
    comparisons: list[Row]
    gaps: list[Row]  # how far debiasing closes the gap between the pure strategies
    lines: list[Row]  # scores without training
    optima: list[Row]
    break_evens: list[Row]
    interactions: list[Row]
    laws: list[Row]
    languages: list[Row]
    traits: list[Row]
    missing: list[Row]
    # varying axes other than mix, pairs and seed; their values name a part of the grid
    axes: tuple[str, ...]
    centre: Mapping[str, Any]  # the part with the most cells
    curves: tuple[Row, ...]  # means along every axis of scale ("over", "size"), for figures

    def tables(self) -> dict[str, list[Row]]:
        """The tables that have rows, by name."""
        return {
            name: rows for name, rows in vars(self).items() if isinstance(rows, list) and rows
        }

    def place(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """The part of the grid that a row describes."""
        return {name: row[name] for name in self.axes if name in row}


def find(sweep: Sweep, texts: Texts | None = None) -> Findings:
    """All findings of a sweep.

    Args:
        sweep: the sweep.
        texts: the texts of the evaluation tasks. Without them, the languages have no lexical
            distance.

    Raises:
        DataError: the sweep has no finished trained cell.
    """
    if not sweep.trained:
        raise DataError(
            f"{sweep.folders[0].path}: no trained cell is finished yet, so there is nothing"
            " to report"
        )
    axes = tuple(name for name in sweep.varying if name not in ("mix", "pairs", "seed"))
    centre = _centre(sweep, axes)
    main = {measure: sweep.responses(measure) for measure in sweep.measures(MAIN_METRICS)}
    parts = [part for responses in main.values() for part in responses]
    shown = [*parts, *_further(sweep)]
    widest = [part for found in main.values() for part in sorted(found, key=_fewest_sizes_last)]
    scaled = list(_scaled(sweep, main))
    languages = _languages(sweep, centre, texts or {})
    return Findings(
        means=_once(_of_each(_means, shown), axes),
        comparisons=_comparisons(sweep, main, axes),
        gaps=gaps(sweep, main, _margin(sweep)),
        lines=lines(sweep, main),
        optima=_once(_of_each(_optima, parts), axes),
        break_evens=_once(_of_each(_break_evens, widest), axes, but=("pairs",)),
        interactions=settle(_once(_of_each(_interactions, scaled), axes), _trend_family),
        laws=list(_all_laws(sweep)),
        languages=languages,
        traits=settle(list(_traits(languages)), _trait_family),
        missing=[dict(entry) for entry in sweep.missing],
        axes=axes,
        centre={name: centre[0]["axes"].get(name) for name in axes},
        curves=tuple(_once(_curves(scaled or parts), axes)),
    )


def _of_each(
    table: Callable[[Responses], Iterator[Row]], parts: Iterable[Responses]
) -> Iterator[Row]:
    """The rows of a table for every part of the grid."""
    for part in parts:
        yield from table(part)


def _further(sweep: Sweep) -> Iterator[Responses]:
    """The responses over all query languages in metrics that are shown but not tested."""
    for measure in sweep.measures(FURTHER_METRICS):
        if measure.group == "all":
            yield from sweep.responses(measure)


def _scaled(sweep: Sweep, measures: Iterable[Measure]) -> Iterator[Responses]:
    """The responses along every axis of scale; parts with the most sizes are first."""
    for axis in sweep.scales:
        for measure in measures:
            yield from sorted(sweep.responses(measure, axis), key=_fewest_sizes_last)


def _comparisons(
    sweep: Sweep, main: Mapping[Measure, Sequence[Responses]], axes: Sequence[str]
) -> list[Row]:
    """Every inner mix against its rivals, with verdicts and with intervals over languages."""
    rows: list[Row] = []
    for parts in main.values():
        for part in parts:
            rows += against_pure(part)
            rows += against_baselines(part, parts)
    rows = judged(_once(rows, axes), axes, _margin(sweep))
    over_languages(sweep, rows)
    return rows


def _margin(sweep: Sweep) -> float:
    """The difference of mAP that counts as none."""
    return float(sweep.settings[0].get("margin", MARGIN)) if sweep.settings else MARGIN


def _all_laws(sweep: Sweep) -> Iterator[Row]:
    for measure in sweep.measures(list(LAW_METRICS)):
        yield from _laws(sweep, measure)


def _curves(parts: Iterable[Responses]) -> Iterator[Row]:
    for part in parts:
        for row in _means(part):
            yield _on_scale(row, part)


def _trend_family(row: Row) -> str:
    """The family of a trend: how the best mix, or the gain over a rival, changes along an axis."""
    rival = f" over {row['against']}" if "against" in row else ""
    return f"{row['of']}{rival} on {row['task']} with {row['over']}"


def _trait_family(row: Row) -> str:
    return f"traits behind the gain over {row['against']} on {row['task']}"


def _fewest_sizes_last(part: Responses) -> int:
    return -len(part.sizes)


def _centre(sweep: Sweep, axes: Sequence[str]) -> list[dict[str, Any]]:
    """The cells at the centre of the grid.

    They are in the part of the grid with the most cells, at the largest number of pairs that has
    the most mixes.
    """
    parts = _by_axes(sweep.trained, axes)
    most = max(
        parts.values(), key=lambda cells: (cells[0]["axes"]["mix"] is not None, len(cells))
    )
    mixes: dict[int, set[Any]] = {}
    for cell in most:
        mixes.setdefault(cell["axes"]["pairs"], set()).add(cell["axes"]["mix"])
    largest = max(mixes, key=lambda pairs: (len(mixes[pairs]), pairs))
    return [cell for cell in most if cell["axes"]["pairs"] == largest]


def _once(rows: Iterable[Row], axes: Sequence[str], but: Sequence[str] = ()) -> list[Row]:
    """Drop rows that repeat an earlier row, because parts of a grid may overlap.

    Args:
        rows: the rows of a table.
        axes: the axes that name a part of the grid.
        but: columns that do not tell rows apart.
    """
    names = (
        *axes,
        "task",
        "setting",
        "metric",
        "group",
        "mix",
        "against",
        "pairs",
        "of",
        "over",
    )
    about = [name for name in names if name not in but]
    kept: dict[tuple[Any, ...], Row] = {}
    for row in rows:
        kept.setdefault(tuple(row.get(name) for name in about), row)
    return list(kept.values())


def _on_scale(row: Row, part: Responses) -> Row:
    return row | {"over": part.over, "size": row[part.over]}


def _means(part: Responses) -> Iterator[Row]:
    """The mean of every mix and size, with its t interval over seeds and questions."""
    for m, mix in enumerate(part.mixes):
        for n, size in enumerate(part.sizes):
            mean = float(part.values[m, n].mean())
            found = contrast(part.values[m, n])
            yield {
                **place(part),
                "mix": mix,
                part.over: size,
                "seeds": len(part.seeds),
                "questions": part.values.shape[-1],
                "mean": mean,
                "low": found.low if found else mean,
                "high": found.high if found else mean,
                "untrained": _number(part.untrained.mean()),
                "keys": part.keys[m, n].tolist(),
            }


def _optima(part: Responses) -> Iterator[Row]:
    """The best mix at every size and over all sizes."""
    if not part.pure:
        return
    lower = part.measure.lower_is_better
    sizes: list[tuple[Any, np.ndarray]] = [
        (size, part.values[:, n]) for n, size in enumerate(part.sizes)
    ]
    if len(sizes) > 1:
        sizes.append(("all", part.values.mean(axis=1)))
    for size, values in sizes:
        best = optimum_mix(part.mixes, values, seed=SEED, lower_is_better=lower)
        yield {
            **place(part),
            "pairs": size,
            "best_mix": best.mix.value,
            "low": best.mix.interval[0],
            "high": best.mix.interval[1],
            "gain_over_pure": best.gain.value,
            "gain_low": best.gain.interval[0],
            "gain_high": best.gain.interval[1],
            "keys": _keys(part, size),
        }


def _break_evens(part: Responses) -> Iterator[Row]:
    """The number of training records from which every inner mix beats each pure strategy."""
    if len(part.sizes) < 2:
        return
    sign = -1 if part.measure.lower_is_better else 1
    for m, mix in enumerate(part.mixes):
        for other, against in enumerate(part.mixes):
            if is_inner(mix) and against in (0, 1):
                found = break_even(
                    part.sizes, sign * (part.values[m] - part.values[other]), seed=SEED
                )
                yield {
                    **place(part),
                    "mix": mix,
                    "against": against,
                    "pairs": found.size,
                    "low": _number(found.interval[0]),
                    "high": _number(found.interval[1]),
                    "always_ahead": found.always_ahead,
                    "chance_ahead_at_largest": found.reached,
                    "keys": [
                        *part.keys[m].ravel().tolist(),
                        *part.keys[other].ravel().tolist(),
                    ],
                }


def _keys(part: Responses, size: Any) -> list[str]:
    """The keys of the cells at a size, or of all cells."""
    return [
        str(key)
        for key in (
            part.keys if size == "all" else part.keys[:, part.sizes.index(size)]
        ).ravel()
    ]


def _interactions(part: Responses) -> Iterator[Row]:
    """The changes per doubling of scale.

    They are the change of the best mix, and of the gain of every inner mix over each pure strategy.
    """
    if len(part.sizes) < 2 or not part.pure or part.measure.group.startswith("script:"):
        return

    def row(of: str, trend: Trend, keys: np.ndarray, **about: Any) -> Row:
        return {
            **place(part),
            "over": part.over,
            "of": of,
            **about,
            "per_doubling": trend.value,
            "low": trend.interval[0],
            "high": trend.interval[1],
            "p": trend.p,
            "from": part.sizes[0],
            "to": part.sizes[-1],
            "keys": [str(key) for key in keys.ravel()],
        }

    lower = part.measure.lower_is_better
    yield row(
        BEST_MIX,
        mix_trend(part.mixes, part.sizes, part.values, seed=SEED, lower_is_better=lower),
        part.keys,
    )
    for m, mix in enumerate(part.mixes):
        for other in (0, len(part.mixes) - 1):
            if is_inner(mix):
                found = gain_trend(part.sizes, part.values[m] - part.values[other])
                yield row(
                    "difference",
                    found,
                    part.keys[[m, other]],
                    mix=mix,
                    against=part.mixes[other],
                )


def _laws(sweep: Sweep, measure: Measure) -> Iterator[Row]:
    """A power law over every axis of sizes, and over every two axes that have enough sizes.

    If a law cannot be fitted, its row has the reason in words.
    """
    if measure.group != "all" and not measure.group.endswith("-resource"):
        return
    singles = [(name,) for name in sweep.scales]
    for axes in [*singles, *combinations(sweep.scales, 2)]:
        others = [name for name in sweep.varying if name not in (*axes, "seed")]
        fewest = 2 if len(axes) == 1 else MIN_SIZES
        for values, cells in _by_axes(sweep.trained, others).items():
            if _fewest_distinct(cells, axes) < fewest:
                continue
            yield {
                "task": measure.task,
                "setting": measure.setting,
                "group": measure.group,
                **dict(zip(others, values, strict=True)),
                "of": LAW_METRICS[measure.metric],
                "over": " and ".join(axes),
                **_law(sweep, measure, axes, cells),
            }


def _by_axes(
    cells: Iterable[dict[str, Any]], axes: Sequence[str]
) -> dict[tuple[Any, ...], list[dict[str, Any]]]:
    """Cells by their values on some axes."""
    parts: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for cell in cells:
        parts.setdefault(tuple(cell["axes"].get(name) for name in axes), []).append(cell)
    return parts


def _fewest_distinct(cells: Sequence[Mapping[str, Any]], axes: Sequence[str]) -> int:
    """The number of sizes on the axis that has the fewest."""
    fewest = len(cells)
    for axis in axes:
        fewest = min(fewest, len({size_of(cell, axis) for cell in cells}))
    return fewest


def _law(
    sweep: Sweep, measure: Measure, axes: Sequence[str], cells: Sequence[Mapping[str, Any]]
) -> Row:
    values = sweep.matrix([cell["key"] for cell in cells], measure)
    points = []
    for cell in cells:
        points.append([size_of(cell, name) for name in axes])
    sizes = np.array(points, dtype=float)
    errors = 1 - values if measure.metric == "mAP" else values
    try:
        law = fit_law(sizes, errors, seed=SEED, level=LEVEL, resamples=LAW_RESAMPLES)
    except TooFewSizes as refusal:
        return {"refused": str(refusal)}
    return {
        **_law_row(law),
        "sizes": sizes.tolist(),
        "values": errors.mean(axis=1).tolist(),
        "keys": [cell["key"] for cell in cells],
        "law": law,
    }


def _law_row(law: Law) -> Row:
    shown: Row = {"E": law.E, "E_low": law.E_interval[0], "E_high": law.E_interval[1]}
    for k in range(len(law.A)):
        suffix = "" if len(law.A) == 1 else f"_{k + 1}"
        shown |= {
            f"A{suffix}": law.A[k],
            f"A{suffix}_low": law.A_intervals[k][0],
            f"A{suffix}_high": law.A_intervals[k][1],
        }
        shown |= {
            f"b{suffix}": law.b[k],
            f"b{suffix}_low": law.b_intervals[k][0],
            f"b{suffix}_high": law.b_intervals[k][1],
        }
    return shown | {"residual": law.residual, "extrapolation_error": law.extrapolation_error}


def _languages(sweep: Sweep, cells: Sequence[Mapping[str, Any]], texts: Texts) -> list[Row]:
    """The mAP of every query language before and after training, with traits of the language.

    Args:
        sweep: the sweep.
        cells: trained cells that differ only in mix and seed. A mix is averaged over its seeds.
        texts: the texts of the evaluation tasks.
    """
    untrained = sweep.untrained(cells[0]["axes"]["model"])
    keys = [cell["key"] for cell in cells]
    if untrained:
        keys.append(untrained["key"])
    trained = trained_languages(cells[0])
    rows = []
    distances: dict[str, dict[str, float]] = {}
    for measure in sweep.measures(["mAP"]):
        if measure.group != "all":
            continue
        codes, values = sweep.by_language(keys, measure.task, measure.setting, "mAP")
        if measure.task in texts and measure.task not in distances:
            distances[measure.task] = lexical_distances(texts[measure.task], codes, trained)
        for number, code in enumerate(codes):
            facts = language(code)
            rows.append(
                {
                    "task": measure.task,
                    "setting": measure.setting,
                    "language": code,
                    "name": facts.name,
                    "script": facts.script,
                    "family": facts.family,
                    **traits(code, trained, PRETRAINING),
                    "lexical_distance": distances.get(measure.task, {}).get(code),
                    "untrained": float(values[-1, number]) if untrained else None,
                    **_by_mix(cells, values[: len(cells), number]),
                    "keys": keys,
                }
            )
    return rows


def _by_mix(cells: Sequence[Mapping[str, Any]], values: np.ndarray) -> dict[str, float]:
    """The mean of the values of the cells at each mix, named ``mix 0.5`` and so on."""
    of_mix: dict[float, list[float]] = {}
    for cell, value in zip(cells, values.tolist(), strict=True):
        if cell["axes"]["mix"] is not None:
            of_mix.setdefault(cell["axes"]["mix"], []).append(value)
    return {f"mix {mix:g}": float(np.mean(of_mix[mix])) for mix in sorted(of_mix)}


TRAITS = ("joshi_class", "pretrained", "script_share", "family_share", "lexical_distance")


def _traits(languages: Sequence[Row]) -> Iterator[Row]:
    """How the gain of hybrid batches over each pure strategy depends on traits of the language.

    Gains are in points of mAP. Each trait has a row with its rank correlation with the gain, and
    its slope in a regression on all traits.
    """
    for task, setting in dict.fromkeys((row["task"], row["setting"]) for row in languages):
        rows = [row for row in languages if (row["task"], row["setting"]) == (task, setting)]
        mixes = [
            float(name.removeprefix("mix ")) for name in rows[0] if name.startswith("mix ")
        ]
        inner = [mix for mix in mixes if 0 < mix < 1]
        if not inner or min(mixes) != 0 or max(mixes) != 1:
            continue
        mix = min(inner, key=lambda each: (abs(each - 0.5), each))
        rows, design = _design(rows)
        for against in (0.0, 1.0):
            gains = [100 * (row[f"mix {mix:g}"] - row[f"mix {against:g}"]) for row in rows]
            about = {"task": task, "setting": setting, "metric": "mAP"}
            yield from _trait_rows(about | {"mix": mix, "against": against}, design, gains)


def _design(rows: list[Row]) -> tuple[list[Row], dict[str, list[float]]]:
    """The languages whose traits are all known, and the traits that vary among these languages."""
    used = []
    for name in TRAITS:
        if any(row[name] is not None for row in rows):
            used.append(name)
    whole = []
    for row in rows:
        if all(row[name] is not None for name in used):
            whole.append(row)
    design = {}
    for name in used:
        values = [float(row[name]) for row in whole]
        if len(set(values)) > 1:
            design[name] = values
    return whole, design


def _trait_rows(
    about: Row, design: Mapping[str, list[float]], gains: list[float]
) -> Iterator[Row]:
    """A row for each trait of a design, with its correlation and its slope."""
    from scipy.stats import spearmanr

    slopes, refusal = {}, None
    if design:
        try:
            slopes = {
                each.name: each for each in regress(design, gains, seed=SEED, level=LEVEL)
            }
        except TooFewLanguages as too_few:
            refusal = str(too_few)
    for name, values in design.items():
        row = about | {"trait": name, "languages": len(gains), "rank_correlation": None}
        if len(set(gains)) > 1:
            row["rank_correlation"] = _number(float(spearmanr(values, gains).statistic))
        if name in slopes:
            slope = slopes[name]
            row |= {
                "slope": slope.value,
                "low": slope.interval[0],
                "high": slope.interval[1],
                "p": slope.p,
            }
        if refusal:
            row["refused"] = refusal
        yield row


def _number(value: float) -> float | None:
    """The number, or None for infinity and NaN, which JSON does not have."""
    return float(value) if np.isfinite(value) else None
