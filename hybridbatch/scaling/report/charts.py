"""The interactive figures of the page as JSON values: rows packed by column, and their drawing."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from hybridbatch.common.tables import columns
from hybridbatch.scaling.findings import Findings
from hybridbatch.scaling.fits import Law
from hybridbatch.scaling.report.tables import TableRow
from hybridbatch.scoring.averages import SETTINGS

Chart = dict[str, Any]
DIGITS = 5  # significant digits of a number in a figure
CURVE_POINTS = 40
BEYOND = 4  # figures draw a law up to this multiple of the largest size
BIAS_METRICS = ("rank_distance", "same_language_share@10")
SCALE_WORDS = {
    "pairs": "training records",
    "train_languages": "training languages",
    "batch_size": "batch size",
}


def charts(findings: Findings) -> list[Chart]:
    """The figures for which the findings have rows.

    Returns:
        A mapping for each figure with ``kind``, ``title`` and ``note``. A figure of kind "lines"
        has ``rows`` with x, y, low, high, ref and keys; its ``panel``, ``series`` and ``choices``
        (of the reader) are names of columns. A figure of kind "heat" has languages as ``rows`` and
        mixes as ``columns``.
    """
    found = [
        _mix_response(findings),
        _scaling(findings),
        _bias(findings),
        _laws(findings),
        _languages(findings),
    ]
    return [chart for chart in found if chart["rows"]["count"]]


def packed(rows: Sequence[TableRow], names: Iterable[str] | None = None) -> dict[str, Any]:
    """Rows packed by column.

    Numbers stay as they are. Texts and ``keys`` become indices into a list of the distinct values.
    """
    found = {}
    for name in columns(rows) if names is None else names:
        found[name] = _column([row.get(name) for row in rows])
    return {"count": len(rows), "columns": found}


def _column(values: Sequence[Any]) -> Any:
    if any(isinstance(value, list | tuple) for value in values):
        places: dict[Any, int] = {}
        codes = []
        for value in values:
            codes.append([places.setdefault(each, len(places)) for each in value or ()])
        return {"lists": list(places), "codes": codes}
    if any(isinstance(value, str | bool) for value in values):
        distinct = list(dict.fromkeys(values))
        place = {each: number for number, each in enumerate(distinct)}
        return {"values": distinct, "codes": [place[each] for each in values]}
    return [_rounded(value) for value in values]


def _rounded(value: Any) -> Any:
    if not isinstance(value, float):
        return value
    return float(f"{value:.{DIGITS}g}") if np.isfinite(value) else None


def _scaling(findings: Findings) -> Chart:
    rows = [
        {
            **_place(row),
            "along": SCALE_WORDS.get(row["over"], row["over"]),
            "part": _words(findings, row, row["over"]),
            "series": _arm(row),
            "x": row["size"],
            **_values(row),
        }
        for row in findings.curves
    ]
    return {
        "kind": "lines",
        "title": "Scaling",
        "log": True,
        "panel": "setting",
        "series": "series",
        "choices": ["along", "metric", "group", "task", "part"],
        "note": (
            "Means with 95 % bands over seeds and questions. The dashed line is the model before"
            " training."
        ),
        "rows": packed(rows),
    }


def _mix_response(findings: Findings) -> Chart:
    rows = [
        {
            **_place(row),
            "part": _words(findings, row),
            "series": f"{row['pairs']:,} records",
            "x": row["mix"],
            **_values(row),
        }
        for row in findings.means
        if row["mix"] is not None
    ]
    return {
        "kind": "lines",
        "title": "Response to the mix",
        "log": False,
        "panel": "setting",
        "series": "series",
        "choices": ["metric", "group", "task", "part"],
        "x": "mix: 0 cross-lingual, 1 monolingual batches",
        "note": (
            "Means with 95 % bands over seeds and questions. The dashed line is the model before"
            " training."
        ),
        "rows": packed(rows if len({row["x"] for row in rows}) > 1 else []),
    }


def _bias(findings: Findings) -> Chart:
    rows = [
        {
            **_place(row),
            "part": _words(findings, row),
            "series": f"{row['pairs']:,} records",
            "x": row["mix"],
            **_values(row),
        }
        for row in findings.means
        if row["mix"] is not None
        and row["metric"] in BIAS_METRICS
        and row["setting"] == "multilingual"
    ]
    return {
        "kind": "lines",
        "title": "Language bias in the pool of all languages",
        "log": False,
        "panel": "metric",
        "series": "series",
        "choices": ["group", "task", "part"],
        "x": "mix: 0 cross-lingual, 1 monolingual batches",
        "note": (
            "Rank distance is the number of ranks between the best and the worst placed translation"
            " of the answer. The second measure is the share of the first ten passages that are in"
            " the language of the query. A model with a high share prefers the language of the"
            " query."
        ),
        "rows": packed(rows if len({row["x"] for row in rows}) > 1 else []),
    }


def _laws(findings: Findings) -> Chart:
    rows = []
    for row in findings.laws:
        if "law" not in row or " and " in row["over"]:
            continue
        law: Law = row["law"]
        sizes = np.array(row["sizes"])[:, 0]
        about = {
            "task": row["task"],
            "setting": row["setting"],
            "group": row["group"],
            "of": row["of"],
            "along": SCALE_WORDS.get(row["over"], row["over"]),
            "part": _words(findings, row, row["over"]),
            "series": _arm(row),
        }
        curve = np.geomspace(sizes.min(), BEYOND * sizes.max(), CURVE_POINTS)
        low, high = law.band(curve)
        rows += [
            {
                **about,
                "x": float(x),
                "y": float(y),
                "low": float(a),
                "high": float(b),
                "curve": 1,
                "keys": [],
            }
            for x, y, a, b in zip(curve, law.predict(curve), low, high, strict=True)
        ]
        rows += [
            {
                **about,
                "x": float(x),
                "y": y,
                "low": None,
                "high": None,
                "curve": 0,
                "keys": [key],
            }
            for x, y, key in zip(sizes, row["values"], row["keys"], strict=True)
        ]
    return {
        "kind": "lines",
        "title": "Laws of scale",
        "log": True,
        "panel": "setting",
        "series": "series",
        "choices": ["of", "along", "group", "task", "part"],
        "note": (
            "Points are runs. Lines are the fitted laws E + A x^-b with their 95 % bands, drawn up"
            f" to {BEYOND} times the largest size."
        ),
        "rows": packed(rows),
    }


def _languages(findings: Findings) -> Chart:
    rows = [row for row in findings.languages if row["setting"] in SETTINGS]
    mixes = [name for name in columns(rows) if name.startswith("mix ")]
    return {
        "kind": "heat",
        "title": "Languages",
        "columns": mixes,
        "choices": ["setting", "task"],
        "note": "Differences in mAP by query language and mix, in points, at the largest size.",
        "rows": packed(rows if mixes else []),
    }


def _place(row: TableRow) -> dict[str, Any]:
    return {name: row[name] for name in ("task", "setting", "metric", "group")}


def _values(row: TableRow) -> dict[str, Any]:
    return {
        "y": row["mean"],
        "low": row["low"],
        "high": row["high"],
        "ref": row["untrained"],
        "keys": row["keys"],
    }


def _arm(row: TableRow) -> str:
    return (
        f"mix {row['mix']:g}" if row.get("mix") is not None else str(row.get("strategy", "all"))
    )


def _words(findings: Findings, row: TableRow, along: str = "pairs") -> str:
    """The part of the grid in words, without the axis of the figure and without the strategy."""
    axes = ("pairs", *findings.axes)
    names = [
        name for name in axes if name not in (along, "strategy") and row.get(name) is not None
    ]
    return ", ".join(f"{name.replace('_', ' ')} {row[name]}" for name in names) or "whole grid"
