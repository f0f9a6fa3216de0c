"""From the responses of a sweep to its findings: tables with intervals and tests, and the sentences they support."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np

from hybridbatch.errors import DataError
from hybridbatch.languages import language
from hybridbatch.scaling.analysis import MAIN_METRICS, PRETRAINING, Measure, Responses, Sweep
from hybridbatch.scaling.fits import Law, TooFewSizes, fit_law
from hybridbatch.scaling.responses import bootstrap_means, break_even, optimum_mix
from hybridbatch.scoring import significance

Row = dict[str, Any]
LEVEL = 0.95
ALPHA = 0.05
SEED = 13  # of bootstrap and randomisation
LAW_RESAMPLES = 200  # with which the coverage of the intervals was measured
SCALES = ("pairs", "train_languages", "batch_size", "steps", "epochs")  # axes that a law can be fitted over
LAW_METRICS = {"mAP": "1 - mAP", "contrastive_entropy": "contrastive entropy"}


@dataclass(frozen=True)
class Findings:
    """Tables of a sweep; every row names its measure, its part of the grid, and the keys of its cells."""

    means: list[Row]
    comparisons: list[Row]
    optima: list[Row]
    break_evens: list[Row]
    laws: list[Row]
    languages: list[Row]
    missing: list[Row]

    def tables(self) -> dict[str, list[Row]]:
        """The tables by name, those that have rows."""
        return {name: rows for name, rows in vars(self).items() if rows}


def find(sweep: Sweep) -> Findings:
    """All findings of a sweep. Raises: DataError if it has no finished trained cell."""
    if not any(cell["train"] for cell in sweep.cells):
        raise DataError(f"{sweep.folder.path}: no trained cell is finished yet; nothing can be reported")
    parts = [part for measure in sweep.measures(MAIN_METRICS) for part in sweep.responses(measure)]
    return Findings(
        means=[row for part in parts for row in _means(part)],
        comparisons=_corrected([row for part in parts for row in _comparisons(part)]),
        optima=[row for part in parts for row in _optima(part)],
        break_evens=[row for part in parts for row in _break_evens(part)],
        laws=[row for measure in sweep.measures(list(LAW_METRICS)) for row in _laws(sweep, measure)],
        languages=_languages(sweep),
        missing=[dict(entry) for entry in sweep.missing],
    )


def _place(part: Responses) -> Row:
    measure = part.measure
    return {"task": measure.task, "setting": measure.setting, "metric": measure.metric, "group": measure.group} | dict(
        part.fixed
    )


def _means(part: Responses) -> Iterator[Row]:
    low, high = np.quantile(bootstrap_means(part.values, seed=SEED), [(1 - LEVEL) / 2, (1 + LEVEL) / 2], axis=0)
    for m, mix in enumerate(part.mixes):
        for n, size in enumerate(part.sizes):
            yield {
                **_place(part), "mix": mix, "pairs": size, "seeds": len(part.seeds),
                "questions": part.values.shape[-1], "mean": float(part.values[m, n].mean()), "low": float(low[m, n]),
                "high": float(high[m, n]), "untrained": _number(part.untrained.mean()), "keys": part.keys[m, n].tolist(),
            }  # fmt: skip


def _comparisons(part: Responses) -> Iterator[Row]:
    """Every inner mix against both pure strategies, at every size.

    The p value is of the paired randomisation test over questions, with seeds averaged; the interval is over
    questions and seeds. With means alone (no questions) there is an interval but no test.
    """
    pairs = [
        (m, other)
        for m, mix in enumerate(part.mixes)
        for other, against in enumerate(part.mixes)
        if 0 < mix < 1 and against in (0, 1)
    ]
    if not pairs:
        return
    differences = np.array([part.values[m] - part.values[other] for m, other in pairs])  # [pairs, N, S, Q]
    low, high = np.quantile(bootstrap_means(differences, seed=SEED), [(1 - LEVEL) / 2, (1 + LEVEL) / 2], axis=0)
    per_question = differences.mean(axis=2)
    questions = per_question.shape[-1]
    tested = questions > 1
    p = significance.randomisation_p(per_question.reshape(-1, questions).T, seed=SEED) if tested else np.empty(0)
    for i, (m, other) in enumerate(pairs):
        for n, size in enumerate(part.sizes):
            mean = float(per_question[i, n].mean())
            yield {
                **_place(part), "mix": part.mixes[m], "against": part.mixes[other], "pairs": size,
                "mean": float(part.values[m, n].mean()), "mean_against": float(part.values[other, n].mean()),
                "difference": mean, "low": float(low[i, n]), "high": float(high[i, n]),
                "p": float(p[i * len(part.sizes) + n]) if tested else None,
                "ahead": (mean < 0) == part.measure.lower_is_better and mean != 0,
                "keys": [*part.keys[m, n].tolist(), *part.keys[other, n].tolist()],
            }  # fmt: skip


def _corrected(rows: list[Row]) -> list[Row]:
    """Holm's correction over the sweep's main questions, and the verdict it leaves.

    The main questions are mAP and rank distance of all query languages at the largest size. The other tests are
    exploratory: they keep their raw p value and get no verdict.
    """
    largest = max((row["pairs"] for row in rows), default=0)
    main = [
        row
        for row in rows
        if row["p"] is not None
        and row["group"] == "all"
        and row["pairs"] == largest
        and row["metric"] != "contrastive_entropy"
    ]
    corrected = significance.holm(np.array([row["p"] for row in main])) if main else np.empty(0)
    for row, p in zip(main, corrected, strict=True):
        row["p_holm"] = float(p)
        settled = p < ALPHA and not row["low"] <= 0 <= row["high"]
        row["verdict"] = ("better" if row["ahead"] else "worse") if settled else "no significant difference"
    return rows


def _optima(part: Responses) -> Iterator[Row]:
    """The best mix at every size and over all sizes, and how far it moves from the smallest to the largest."""
    if len(part.mixes) < 3 or part.mixes[0] != 0 or part.mixes[-1] != 1:
        return
    lower = part.measure.lower_is_better
    sizes: list[tuple[Any, np.ndarray]] = [(size, part.values[:, n]) for n, size in enumerate(part.sizes)]
    if len(sizes) > 1:
        sizes.append(("all", part.values.mean(axis=1)))
    for size, values in sizes:
        best = optimum_mix(part.mixes, values, seed=SEED, lower_is_better=lower)
        yield {
            **_place(part), "pairs": size, "best_mix": best.mix.value, "low": best.mix.interval[0],
            "high": best.mix.interval[1], "gain_over_pure": best.gain.value, "gain_low": best.gain.interval[0],
            "gain_high": best.gain.interval[1],
        }  # fmt: skip


def _break_evens(part: Responses) -> Iterator[Row]:
    """The number of training records from which every inner mix beats each pure strategy."""
    if len(part.sizes) < 2:
        return
    sign = -1 if part.measure.lower_is_better else 1
    for m, mix in enumerate(part.mixes):
        for other, against in enumerate(part.mixes):
            if 0 < mix < 1 and against in (0, 1):
                found = break_even(part.sizes, sign * (part.values[m] - part.values[other]), seed=SEED)
                yield {
                    **_place(part), "mix": mix, "against": against, "pairs": found.size,
                    "low": _number(found.interval[0]), "high": _number(found.interval[1]),
                    "always_ahead": found.always_ahead, "chance_ahead_at_largest": found.reached,
                }  # fmt: skip


def _laws(sweep: Sweep, measure: Measure) -> Iterator[Row]:
    """A power law over every axis of sizes, and over every two that have enough; in words where there is none."""
    if measure.group != "all" and not measure.group.endswith("-resource"):
        return
    trained = [cell for cell in sweep.cells if cell["train"]]
    scales = [name for name in SCALES if name in sweep.varying and _numeric(trained, name)]
    for axes in [*((name,) for name in scales), *combinations(scales, 2)]:
        others = [name for name in sweep.varying if name not in (*axes, "seed")]
        for values in dict.fromkeys(tuple(cell["axes"].get(name) for name in others) for cell in trained):
            fixed = dict(zip(others, values, strict=True))
            cells = [cell for cell in trained if all(cell["axes"].get(name) == value for name, value in fixed.items())]
            place = {"task": measure.task, "setting": measure.setting, "group": measure.group, **fixed}
            yield {
                **place,
                "of": LAW_METRICS[measure.metric],
                "over": " and ".join(axes),
                **_law(sweep, measure, axes, cells),
            }


def _law(sweep: Sweep, measure: Measure, axes: Sequence[str], cells: Sequence[Mapping[str, Any]]) -> Row:
    import pandas as pd

    series = [sweep.questions(cell["key"], measure) for cell in cells]
    values = pd.concat(series, axis=1, join="inner").to_numpy(dtype=float).T
    sizes = np.array([[cell["axes"][name] for name in axes] for cell in cells], dtype=float)
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


def _languages(sweep: Sweep) -> list[Row]:
    """Every target's mAP before training and after, per setting: each mix at the largest size, over seeds and slices."""
    frame = sweep.frame()
    frame = frame[frame["metric"] == "mAP"]
    largest = frame["pairs"].max()
    rows = []
    for (task, setting, code), part in frame.groupby(["task", "setting", "language"]):
        facts = language(str(code))
        before = part[part["pairs"] == 0]["value"].mean()
        at_largest = part[part["pairs"] == largest].groupby("mix")["value"].mean()
        rows.append(
            {
                "task": task, "setting": setting, "language": code, "name": facts.name,
                "joshi_class": facts.joshi_class, "script": facts.script, "family": facts.family,
                f"pretrained_{PRETRAINING}": bool(facts.pretrained) and PRETRAINING in facts.pretrained,
                "untrained": _number(before), **{f"mix {mix:g}": float(value) for mix, value in at_largest.items()},
            }
        )  # fmt: skip
    return rows


def _numeric(cells: Sequence[Mapping[str, Any]], name: str) -> bool:
    return all(isinstance(cell["axes"].get(name), int | float) for cell in cells)


def _number(value: float) -> float | None:
    """JSON has no infinity and no NaN."""
    return float(value) if np.isfinite(value) else None
