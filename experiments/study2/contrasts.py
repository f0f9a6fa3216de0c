"""A row of a report of experiments A to D: difference, interval, test, verdict by the plan."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from hybridbatch.scoring.significance import crossed_t, decide, equivalence_p, holm

MARGIN, RANK_MARGIN = 0.01, 0.10  # of mAP; share of the other side's rank distance
ALPHA = 0.05  # of every test
Row = dict[str, Any]


def margin_of(metric: str, against: float) -> float:
    """The largest difference that counts as none; `against`: the mean of the other side."""
    return RANK_MARGIN * against if metric == "rank_distance" else MARGIN


def unit_table(differences: pd.DataFrame, unit_of: Mapping[str, str]) -> np.ndarray:
    """float [seeds, units] whose mean is the mean over questions.

    A unit counts by its questions: its cell is the sum of their differences times the number of
    units over the number of questions.

    Args:
        differences: [seeds, questions].
        unit_of: the unit of each question: its article, its passage.
    """
    sums = differences.T.groupby(unit_of).sum().T
    questions = differences.notna().sum(axis=1)
    return sums.mul(sums.shape[1]).div(questions, axis=0).to_numpy()


def contrast(differences: np.ndarray, margin: float, unit: str) -> Row:
    """Interval, test and detectable difference of float [seeds, units]; `unit` names the units.

    `settle` takes the entry ``found`` away again.
    """
    found = crossed_t(differences)
    return {
        "difference": found.mean, "low": found.low, "high": found.high, "p": found.p,
        "degrees": found.degrees, "seeds": differences.shape[0], "units": differences.shape[1],
        "unit": unit, "detectable": found.detectable, "margin": margin,
        "p_equivalence": equivalence_p(found, margin), "found": found,
    }  # fmt: skip


def over_languages(differences: np.ndarray) -> Row:
    """The same with query languages as the units, float [languages]; empty for one language."""
    if len(differences) < 2:
        return {}
    found = crossed_t(differences[:, None])
    return {"languages_low": found.low, "languages_high": found.high, "languages_p": found.p}


def settle(rows: list[Row], final: bool) -> list[Row]:
    """The rows of a family; with Holm's correction and verdicts if all seeds are there.

    A difference that is smaller than the margin by the two one-sided tests is marked.
    """
    after = holm(np.array([row["p"] for row in rows])) if rows else []
    for row, p in zip(rows, after, strict=True):
        found = row.pop("found")
        if final:
            row["p_holm"] = float(p)
            row["verdict"] = decide(found, float(p), row["margin"], alpha=ALPHA)
            if row["verdict"] == "difference" and row["p_equivalence"] < ALPHA:
                row["within_margin"] = True
    return rows
