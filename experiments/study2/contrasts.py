"""A row of a report of experiments A and B: difference, interval, test, and verdict by the plan's rules."""

from typing import Any

import numpy as np

from hybridbatch.scoring.significance import crossed_t, decide, equivalence_p, holm

MARGIN, RANK_MARGIN = 0.01, 0.10  # of mAP; share of the other side's rank distance
Row = dict[str, Any]


def margin_of(metric: str, against: float) -> float:
    """The largest difference that counts as none; `against`: the mean of the other side."""
    return RANK_MARGIN * against if metric == "rank_distance" else MARGIN


def contrast(differences: np.ndarray, margin: float, units: str) -> Row:
    """Interval, test and detectable difference of float [seeds, units].

    `settle` takes the entry ``found`` away again.
    """
    found = crossed_t(differences)
    return {
        "difference": found.mean, "low": found.low, "high": found.high, "p": found.p,
        "degrees": found.degrees, "seeds": differences.shape[0], units: differences.shape[1],
        "detectable": found.detectable, "margin": margin,
        "p_equivalence": equivalence_p(found, margin), "found": found,
    }  # fmt: skip


def over_languages(differences: np.ndarray) -> Row:
    """The same with query languages as the units, float [languages]; empty for one language."""
    if len(differences) < 2:
        return {}
    found = crossed_t(differences[:, None])
    return {"languages_low": found.low, "languages_high": found.high, "languages_p": found.p}


def settle(rows: list[Row], final: bool) -> list[Row]:
    """The rows of a family; with Holm's correction and verdicts if all seeds are there."""
    after = holm(np.array([row["p"] for row in rows])) if rows else []
    for row, p in zip(rows, after, strict=True):
        found = row.pop("found")
        if final:
            row["p_holm"] = float(p)
            row["verdict"] = decide(found, float(p), row["margin"])
    return rows
