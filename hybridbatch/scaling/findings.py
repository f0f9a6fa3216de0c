"""From the responses of a sweep to its findings: tables with intervals and tests, and the sentences
they support.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
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
from hybridbatch.scaling.fits import MIN_SIZES, Law, TooFewSizes, fit_law
from hybridbatch.scaling.language_traits import TooFewLanguages, lexical_distances, regress, traits
from hybridbatch.scaling.mix_response import (
    Trend,
    bootstrap_means,
    break_even,
    gain_trend,
    mix_trend,
    optimum_mix,
    seeds_p,
)
from hybridbatch.scoring import significance

Row = dict[str, Any]
Texts = Mapping[str, Mapping[str, Sequence[str]]]  # of evaluation tasks, by task and language
LEVEL = 0.95
ALPHA = 0.05
SEED = 13  # of bootstrap and randomisation
LAW_RESAMPLES = 200  # with which the coverage of the intervals was measured
LAW_METRICS = {"mAP": "1 - mAP", "contrastive_entropy": "contrastive entropy"}
# axes on which a baseline may differ from the hybrid it is compared with
BASELINES = ("strategy", "copies", "teacher")
TESTED = ("mAP", "rank_distance")  # metrics of the main questions
BEST_MIX = "best mix"


@dataclass(frozen=True)
class Findings:
    """Tables of a sweep; every row names its measure, its part of the grid, and the keys of its
    cells.
    """

    means: list[Row]
    comparisons: list[Row]
    optima: list[Row]
    break_evens: list[Row]
    interactions: list[Row]
    laws: list[Row]
    languages: list[Row]
    traits: list[Row]
    missing: list[Row]
    # beside mix, pairs and seed, those that vary: together they name a part of the grid
    axes: tuple[str, ...]
    centre: Mapping[str, Any]  # the part with the most cells
    curves: tuple[Row, ...]  # means along every axis of scale ("over", "size"), for figures

    def tables(self) -> dict[str, list[Row]]:
        """The tables by name, those that have rows."""
        return {name: rows for name, rows in vars(self).items() if isinstance(rows, list) and rows}

    def place(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """The part of the grid that a row is about."""
        return {name: row[name] for name in self.axes if name in row}


def find(sweep: Sweep, texts: Texts | None = None) -> Findings:
    """All findings of a sweep.

    Args:
        texts: of the evaluation tasks, for the lexical distance of languages, which is left out
            without them.
    Raises: DataError if it has no finished trained cell.
    """
    if not sweep.trained:
        raise DataError(
            f"{sweep.folders[0].path}: no trained cell is finished yet; nothing can be reported"
        )
    axes = tuple(name for name in sweep.varying if name not in ("mix", "pairs", "seed"))
    main = {measure: sweep.responses(measure) for measure in sweep.measures(MAIN_METRICS)}
    further = [measure for measure in sweep.measures(FURTHER_METRICS) if measure.group == "all"]
    parts = [part for measure in main for part in main[measure]]
    shown = [*parts, *(part for measure in further for part in sweep.responses(measure))]
    widest = [part for measure in main for part in sorted(main[measure], key=_fewest_sizes_last)]
    scaled = [
        part
        for axis in sweep.scales
        for measure in main
        for part in sorted(sweep.responses(measure, axis), key=_fewest_sizes_last)
    ]
    comparisons = [
        row for part in parts for row in [*_comparisons(part), *_rivals(part, main[part.measure])]
    ]
    centre = _centre(sweep, axes)
    languages = _languages(sweep, centre, texts or {})
    return Findings(
        means=_once((row for part in shown for row in _means(part)), axes),
        comparisons=_corrected(_once(comparisons, axes), axes),
        optima=_once((row for part in parts for row in _optima(part)), axes),
        break_evens=_once(
            (row for part in widest for row in _break_evens(part)), axes, but=("pairs",)
        ),
        interactions=_settled(_once((row for part in scaled for row in _interactions(part)), axes)),
        laws=[
            row for measure in sweep.measures(list(LAW_METRICS)) for row in _laws(sweep, measure)
        ],
        languages=languages,
        traits=_settled(list(_traits(languages))),
        missing=[dict(entry) for entry in sweep.missing],
        axes=axes,
        centre={name: centre[0]["axes"].get(name) for name in axes},
        curves=tuple(
            _once((_on_scale(row, part) for part in scaled or parts for row in _means(part)), axes)
        ),
    )


def _fewest_sizes_last(part: Responses) -> int:
    return -len(part.sizes)


def _centre(sweep: Sweep, axes: Sequence[str]) -> list[dict[str, Any]]:
    """The cells of the part of the grid that has the most, at its largest number of pairs with the
    most mixes.
    """
    parts: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for cell in sweep.trained:
        parts.setdefault(tuple(cell["axes"].get(name) for name in axes), []).append(cell)
    most = max(parts.values(), key=lambda cells: (cells[0]["axes"]["mix"] is not None, len(cells)))
    mixes: dict[int, set[Any]] = {}
    for cell in most:
        mixes.setdefault(cell["axes"]["pairs"], set()).add(cell["axes"]["mix"])
    largest = max(mixes, key=lambda pairs: (len(mixes[pairs]), pairs))
    return [cell for cell in most if cell["axes"]["pairs"] == largest]


def _once(rows: Iterable[Row], axes: Sequence[str], but: Sequence[str] = ()) -> list[Row]:
    """The first row about each thing: parts of a grid may overlap. `but` names columns that say
    nothing of the thing.
    """
    names = (*axes, "task", "setting", "metric", "group", "mix", "against", "pairs", "of", "over")
    about = [name for name in names if name not in but]
    kept: dict[tuple[Any, ...], Row] = {}
    for row in rows:
        kept.setdefault(tuple(row.get(name) for name in about), row)
    return list(kept.values())


def _place(part: Responses) -> Row:
    measure = part.measure
    return {
        "task": measure.task,
        "setting": measure.setting,
        "metric": measure.metric,
        "group": measure.group,
    } | dict(part.fixed)


def _on_scale(row: Row, part: Responses) -> Row:
    return row | {"over": part.over, "size": row[part.over]}


def _means(part: Responses) -> Iterator[Row]:
    low, high = np.quantile(
        bootstrap_means(part.values, seed=SEED), [(1 - LEVEL) / 2, (1 + LEVEL) / 2], axis=0
    )
    for m, mix in enumerate(part.mixes):
        for n, size in enumerate(part.sizes):
            yield {
                **_place(part), "mix": mix, part.over: size, "seeds": len(part.seeds),
                "questions": part.values.shape[-1], "mean": float(part.values[m, n].mean()), "low": float(low[m, n]),
                "high": float(high[m, n]), "untrained": _number(part.untrained.mean()), "keys": part.keys[m, n].tolist(),
            }  # fmt: skip


def _comparisons(part: Responses) -> Iterator[Row]:
    """Every inner mix against both pure strategies, at every size.

    The p value is the larger of those of the paired randomisation test over questions, with seeds
    averaged, and of the t test over seeds (`responses.seeds_p`): a difference must hold for both.
    The interval is over questions and seeds. With means alone (no questions) there is an interval
    but no test.
    """
    pairs = [
        (m, other)
        for m, mix in enumerate(part.mixes)
        for other, against in enumerate(part.mixes)
        if mix is not None and 0 < mix < 1 and against in (0, 1)
    ]
    if not pairs:
        return
    yield from _differences(
        part, [(m, part.mixes[other], part.values[other], part.keys[other]) for m, other in pairs]
    )


def _rivals(part: Responses, parts: Sequence[Responses]) -> Iterator[Row]:
    """Every inner mix against the baselines, at the sizes and seeds that both have.

    These are the strategies that know no mix, and the same mix with a teacher.
    """
    for rival in parts:
        other = {
            name: value for name, value in rival.fixed.items() if value != part.fixed.get(name)
        }
        if (
            part.mixes == (None,)
            or not other
            or not set(other) <= set(BASELINES)
            or part.fixed.get("teacher")
        ):
            continue
        sizes = [size for size in part.sizes if size in rival.sizes]
        seeds = [seed for seed in part.seeds if seed in rival.seeds]
        if not sizes or not seeds:
            continue
        ours, theirs = _at(part, sizes, seeds), _at(rival, sizes, seeds)
        words = [
            f"{value} batches" if name == "strategy" else f"{name} {value}"
            for name, value in other.items()
        ]
        yield from _differences(
            ours,
            [
                (m, ", ".join(words), theirs.values[n], theirs.keys[n])
                for m, mix in enumerate(part.mixes)
                for n, its in enumerate(rival.mixes)
                if mix is not None and 0 < mix < 1 and its in (None, mix)
            ],
        )


def _at(part: Responses, sizes: Sequence[float], seeds: Sequence[int]) -> Responses:
    """The responses at some sizes and seeds."""
    chosen = np.ix_(
        [part.sizes.index(size) for size in sizes], [part.seeds.index(seed) for seed in seeds]
    )
    values = np.stack([each[chosen] for each in part.values])
    keys = np.stack([each[chosen] for each in part.keys])
    return replace(part, sizes=tuple(sizes), seeds=tuple(seeds), values=values, keys=keys)


def _differences(
    part: Responses, pairs: Sequence[tuple[int, float | str | None, np.ndarray, np.ndarray]]
) -> Iterator[Row]:
    """A row for each size and (number of a mix; what it is compared with, and its values [N, S, Q]
    and keys [N, S]).
    """
    if not pairs:
        return
    # [pairs, N, S, Q]
    differences = np.array([part.values[m] - values for m, _, values, _ in pairs])
    low, high = np.quantile(
        bootstrap_means(differences, seed=SEED), [(1 - LEVEL) / 2, (1 + LEVEL) / 2], axis=0
    )
    per_question = differences.mean(axis=2)
    questions = per_question.shape[-1]
    tested = questions > 1
    if tested:
        p = significance.randomisation_p(per_question.reshape(-1, questions).T, seed=SEED).reshape(
            per_question.shape[:2]
        )
        p = np.maximum(p, seeds_p(differences))
    for i, (m, against, values, keys) in enumerate(pairs):
        for n, size in enumerate(part.sizes):
            mean = float(per_question[i, n].mean())
            yield {
                **_place(part), "mix": part.mixes[m], "against": against, "pairs": size,
                "mean": float(part.values[m, n].mean()), "mean_against": float(values[n].mean()),
                "difference": mean, "low": float(low[i, n]), "high": float(high[i, n]),
                "p": float(p[i, n]) if tested else None,
                "ahead": (mean < 0) == part.measure.lower_is_better and mean != 0,
                "keys": [*part.keys[m, n].tolist(), *keys[n].tolist()],
            }  # fmt: skip


def _corrected(rows: list[Row], axes: Sequence[str]) -> list[Row]:
    """Holm's correction over the sweep's main questions, and the verdict it leaves.

    The main questions are mAP and rank distance of all query languages, in every part of the grid
    at its largest size that has both pure strategies.
    The other tests are exploratory: they keep their raw p value and get no verdict.
    """
    against: dict[tuple[Any, ...], dict[int, set[Any]]] = {}
    for row in rows:
        place = tuple(row.get(name) for name in axes)
        against.setdefault(place, {}).setdefault(row["pairs"], set()).add(row["against"])
    largest = {
        place: max(found, key=lambda pairs: (len({0, 1} & found[pairs]), pairs))
        for place, found in against.items()
    }
    main = [
        row
        for row in rows
        if row["p"] is not None
        and row["group"] == "all"
        and row["pairs"] == largest[tuple(row.get(name) for name in axes)]
        and row["metric"] in TESTED
    ]
    for row, settled in _holm(main):
        row["verdict"] = (
            ("better" if row["ahead"] else "worse") if settled else "no significant difference"
        )
    return rows


def _holm(rows: list[Row]) -> Iterator[tuple[Row, bool]]:
    """The rows with their corrected p value, and whether it and the interval ("low", "high") agree
    on a difference.
    """
    corrected = significance.holm(np.array([row["p"] for row in rows])) if rows else np.empty(0)
    for row, p in zip(rows, corrected, strict=True):
        row["p_holm"] = float(p)
        yield row, bool(p < ALPHA and not row["low"] <= 0 <= row["high"])


def _settled(rows: list[Row]) -> list[Row]:
    """Holm's correction over the tests of mAP and rank distance of all query languages, and whether
    each is settled.
    """
    main = [
        r
        for r in rows
        if r.get("p") is not None and r.get("group", "all") == "all" and r["metric"] in TESTED
    ]
    for row, settled in _holm(main):
        row["settled"] = settled
    return rows


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
            **_place(part), "pairs": size, "best_mix": best.mix.value, "low": best.mix.interval[0],
            "high": best.mix.interval[1], "gain_over_pure": best.gain.value, "gain_low": best.gain.interval[0],
            "gain_high": best.gain.interval[1], "keys": _keys(part, size),
        }  # fmt: skip


def _break_evens(part: Responses) -> Iterator[Row]:
    """The number of training records from which every inner mix beats each pure strategy."""
    if len(part.sizes) < 2:
        return
    sign = -1 if part.measure.lower_is_better else 1
    for m, mix in enumerate(part.mixes):
        for other, against in enumerate(part.mixes):
            if mix is not None and 0 < mix < 1 and against in (0, 1):
                found = break_even(
                    part.sizes, sign * (part.values[m] - part.values[other]), seed=SEED
                )
                yield {
                    **_place(part), "mix": mix, "against": against, "pairs": found.size,
                    "low": _number(found.interval[0]), "high": _number(found.interval[1]),
                    "always_ahead": found.always_ahead, "chance_ahead_at_largest": found.reached,
                    "keys": [*part.keys[m].ravel().tolist(), *part.keys[other].ravel().tolist()],
                }  # fmt: skip


def _keys(part: Responses, size: Any) -> list[str]:
    """Keys of the cells at a size, or of all."""
    return [
        str(key)
        for key in (part.keys if size == "all" else part.keys[:, part.sizes.index(size)]).ravel()
    ]


def _interactions(part: Responses) -> Iterator[Row]:
    """How the best mix, and the gain of every inner mix over each pure strategy, change per
    doubling of scale.
    """
    if len(part.sizes) < 2 or not part.pure or part.measure.group.startswith("script:"):
        return

    def row(of: str, trend: Trend, keys: np.ndarray, **about: Any) -> Row:
        return {
            **_place(part), "over": part.over, "of": of, **about, "per_doubling": trend.value, "low": trend.interval[0],
            "high": trend.interval[1], "p": trend.p, "from": part.sizes[0], "to": part.sizes[-1],
            "keys": [str(key) for key in keys.ravel()],
        }  # fmt: skip

    lower = part.measure.lower_is_better
    yield row(
        BEST_MIX,
        mix_trend(part.mixes, part.sizes, part.values, seed=SEED, lower_is_better=lower),
        part.keys,
    )
    for m, mix in enumerate(part.mixes):
        for other in (0, len(part.mixes) - 1):
            if mix is not None and 0 < mix < 1:
                found = gain_trend(part.sizes, part.values[m] - part.values[other], seed=SEED)
                yield row(
                    "difference", found, part.keys[[m, other]], mix=mix, against=part.mixes[other]
                )


def _laws(sweep: Sweep, measure: Measure) -> Iterator[Row]:
    """A power law over every axis of sizes, and over every two that have enough; in words where
    there is none.
    """
    if measure.group != "all" and not measure.group.endswith("-resource"):
        return
    for axes in [*((name,) for name in sweep.scales), *combinations(sweep.scales, 2)]:
        others = [name for name in sweep.varying if name not in (*axes, "seed")]
        parts: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
        for cell in sweep.trained:
            parts.setdefault(tuple(cell["axes"].get(name) for name in others), []).append(cell)
        for values, cells in parts.items():
            distinct = [len({size_of(cell, axis) for cell in cells}) for axis in axes]
            if min(distinct) < (2 if len(axes) == 1 else MIN_SIZES):
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


def _law(
    sweep: Sweep, measure: Measure, axes: Sequence[str], cells: Sequence[Mapping[str, Any]]
) -> Row:
    values = sweep.matrix([cell["key"] for cell in cells], measure)
    sizes = np.array([[size_of(cell, name) for name in axes] for cell in cells], dtype=float)
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
    """Every target's mAP before training and after, per setting, with what is known of the
    language.

    Args:
        cells: trained ones, which differ in mix and seed alone; a mix is averaged over its seeds.
        texts: of the evaluation tasks.
    """
    untrained = sweep.untrained(cells[0]["axes"]["model"])
    keys = [cell["key"] for cell in cells] + ([untrained["key"]] if untrained else [])
    mixes = np.array(
        [np.nan if cell["axes"]["mix"] is None else cell["axes"]["mix"] for cell in cells]
    )
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
            after = values[: len(cells), number]
            rows.append(
                {
                    "task": measure.task, "setting": measure.setting, "language": code, "name": facts.name,
                    "script": facts.script, "family": facts.family, **traits(code, trained, PRETRAINING),
                    "lexical_distance": distances.get(measure.task, {}).get(code),
                    "untrained": float(values[-1, number]) if untrained else None,
                    **{f"mix {mix:g}": float(after[mixes == mix].mean()) for mix in np.unique(mixes) if mix == mix},
                    "keys": keys,
                }
            )  # fmt: skip
    return rows


def _traits(languages: Sequence[Row]) -> Iterator[Row]:
    """What of a language goes with its gain, in points of mAP, from hybrid batches over each pure
    strategy.

    A row for each trait: its rank correlation with the gain, and its slope beside the other traits.
    """
    from scipy.stats import spearmanr

    names = ("joshi_class", "pretrained", "script_share", "family_share", "lexical_distance")
    for task, setting in dict.fromkeys((row["task"], row["setting"]) for row in languages):
        rows = [row for row in languages if (row["task"], row["setting"]) == (task, setting)]
        mixes = sorted(
            float(name.removeprefix("mix ")) for name in rows[0] if name.startswith("mix ")
        )
        inner = [mix for mix in mixes if 0 < mix < 1]
        if not inner or mixes[0] != 0 or mixes[-1] != 1:
            continue
        used = [name for name in names if any(row[name] is not None for row in rows)]
        rows = [row for row in rows if all(row[name] is not None for name in used)]
        design = {name: [float(row[name]) for row in rows] for name in used}
        design = {name: values for name, values in design.items() if len(set(values)) > 1}
        mix = min(inner, key=lambda each: (abs(each - 0.5), each))
        for against in (0.0, 1.0):
            gains = [100 * (row[f"mix {mix:g}"] - row[f"mix {against:g}"]) for row in rows]
            about = {
                "task": task,
                "setting": setting,
                "metric": "mAP",
                "mix": mix,
                "against": against,
            }
            found, refusal = {}, None
            try:
                found = (
                    {each.name: each for each in regress(design, gains, seed=SEED, level=LEVEL)}
                    if design
                    else {}
                )
            except TooFewLanguages as too_few:
                refusal = str(too_few)
            for name, values in design.items():
                row = about | {"trait": name, "languages": len(rows)}
                row["rank_correlation"] = (
                    _number(float(spearmanr(values, gains).statistic))
                    if len(set(gains)) > 1
                    else None
                )
                if name in found:
                    each = found[name]
                    row |= {
                        "slope": each.value,
                        "low": each.interval[0],
                        "high": each.interval[1],
                        "p": each.p,
                    }
                yield row | ({"refused": refusal} if refusal else {})


def _number(value: float) -> float | None:
    """JSON has no infinity and no NaN."""
    return float(value) if np.isfinite(value) else None
