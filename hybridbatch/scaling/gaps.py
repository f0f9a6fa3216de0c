"""Does debiasing close the gap between the pure strategies? And where are lines without training?"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from hybridbatch.scaling.analysis import Measure, Responses, Sweep
from hybridbatch.scaling.contrasts import (
    RANK_MARGIN,
    TESTED,
    VERDICTS,
    contrast,
    corrected,
    is_inner,
    place,
)
from hybridbatch.scoring import significance

Row = dict[str, Any]
Main = Mapping[Measure, Sequence[Responses]]


def gaps(sweep: Sweep, main: Main, margin: float) -> list[Row]:
    """The difference of mix 0 and mix 1 in raw scores, less their difference in debiased scores.

    A family is one task: its mAP in every setting, and rank distance, at the largest size.

    Args:
        main: the responses of each measure.
        margin: of mAP; a smaller change of the gap counts as none.
    """
    rows: list[Row] = []
    for measure, parts in main.items():
        twin = sweep.debiased.get(measure.task)
        if twin is None or measure.group != "all" or measure.metric not in TESTED:
            continue
        after = main.get(Measure(twin, measure.setting, measure.metric), ())
        for part in parts:
            for other in after:
                if _alike(part, other):
                    rows += _of_part(part, other, margin)
    largest: dict[Any, float] = {}
    for row in rows:
        where = str(row["fixed"])
        largest[where] = max(largest.get(where, 0), row["pairs"])
    tested = []
    for row in rows:
        if row["pairs"] == largest[str(row.pop("fixed"))] and row["p"] is not None:
            row["family"] = f"debiasing and the gap between pure strategies on {row['task']}"
            tested.append(row)
    corrected(tested)
    for row in tested:
        found, allowed = row["contrast"], row["margin"]
        verdict = (
            significance.decide(found, row["p_holm"], allowed) if allowed > 0 else "undecided"
        )
        row["verdict"] = VERDICTS.get(verdict, "closes" if _closes(row) else "widens")
    for row in rows:
        del row["contrast"]
    return rows


def _alike(part: Responses, other: Responses) -> bool:
    """Whether two responses are of the same cells and questions."""
    same = part.fixed == other.fixed and np.array_equal(part.keys, other.keys)
    return same and part.values.shape == other.values.shape and {0, 1} <= set(part.mixes)


def _of_part(part: Responses, after: Responses, margin: float) -> Iterator[Row]:
    cross, mono = part.mixes.index(0), part.mixes.index(1)
    for n, size in enumerate(part.sizes):
        raw = part.values[cross, n] - part.values[mono, n]
        left = after.values[cross, n] - after.values[mono, n]
        found = contrast(raw - left)
        allowed = margin
        if part.measure.metric == "rank_distance":
            allowed = RANK_MARGIN * float(part.values[mono, n].mean())
        gap, rest = float(raw.mean()), float(left.mean())
        yield {
            **place(part),
            "pairs": size,
            "gap_raw": gap,
            "gap_debiased": rest,
            "closed": gap - rest,
            "low": found.low if found else gap - rest,
            "high": found.high if found else gap - rest,
            "p": found.p if found and part.values.shape[-1] > 1 else None,
            "degrees": found.degrees if found else None,
            "detectable": found.detectable if found else None,
            "share": (gap - rest) / gap if abs(gap) > allowed else None,
            "margin": allowed,
            "keys": part.keys[[cross, mono], n].ravel().tolist(),
            "fixed": dict(part.fixed),
            "contrast": found,
        }


def _closes(row: Mapping[str, Any]) -> bool:
    return abs(float(row["gap_debiased"])) < abs(float(row["gap_raw"]))


def lines(sweep: Sweep, main: Main) -> list[Row]:
    """Scores without training: of the starts, raw and debiased, and of the baselines."""
    rows: list[Row] = []
    for measure, parts in main.items():
        if measure.group != "all" or measure.metric not in TESTED:
            continue
        for cell in sweep.starts:
            if not _has(cell, measure):
                continue
            rows.append(_line(sweep, measure, cell, parts))
    return rows


def _has(cell: Mapping[str, Any], measure: Measure) -> bool:
    for task in cell["eval"]["tasks"]:
        if task["name"] == measure.task:
            found = task["settings"].get(measure.setting, {}).values()
            return any(measure.metric in metrics for metrics in found)
    return False


def _line(
    sweep: Sweep, measure: Measure, cell: Mapping[str, Any], parts: Iterable[Responses]
) -> Row:
    axes = cell["axes"]
    values = sweep.matrix([cell["key"]], measure)
    found = contrast(values)
    mean = float(values.mean())
    row: Row = {
        "task": measure.task,
        "setting": measure.setting,
        "metric": measure.metric,
        "line": axes.get("baseline") or "untrained",
        "model": axes["model"],
        "mean": mean,
        "low": found.low if found else mean,
        "high": found.high if found else mean,
    }
    part = _of_start(parts, sweep, axes)
    if part is not None:
        inner = [m for m, mix in enumerate(part.mixes) if is_inner(mix)]
        m = min(inner, key=lambda m: abs(float(part.mixes[m] or 0) - 0.5))
        keys = part.keys[m, -1].tolist()
        together = sweep.matrix([*keys, cell["key"]], measure)
        gain = contrast(together[:-1] - together[-1])
        row |= {
            "mix": part.mixes[m],
            "pairs": part.sizes[-1],
            "trained": float(part.values[m, -1].mean()),
        }
        if gain:
            row |= {"gain": gain.mean, "gain_low": gain.low, "gain_high": gain.high}
            row["detectable"] = gain.detectable
    return row | {"keys": [cell["key"]]}


def _of_start(
    parts: Iterable[Responses], sweep: Sweep, axes: Mapping[str, Any]
) -> Responses | None:
    """The hybrid responses with the most values that started from the model of a line."""
    found = None
    for part in parts:
        model = part.fixed.get("model", sweep.trained[0]["axes"]["model"])
        fits = axes.get("baseline") == "bm25" or model == axes["model"]
        larger = found is None or part.values.size > found.values.size
        if fits and larger and any(map(is_inner, part.mixes)):
            found = part
    return found
