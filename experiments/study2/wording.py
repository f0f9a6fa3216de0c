"""How the pages of findings show numbers."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

Row = Mapping[str, Any]
HEADER = (
    "| contrast | measure | difference | df | p | p (Holm) | detectable | over languages | verdict |",
    "|---|---|---|---:|---:|---:|---:|---|---|",
)
KINDS = {"0": "cross-lingual", "0.0": "cross-lingual", "0.5": "hybrid", "1": "monolingual",
         "1.0": "monolingual"}  # fmt: skip


def contrast_words(contrast: str) -> str:
    """A contrast with its mixes in words: of "0.5 - 1" "hybrid - monolingual"."""
    mix = r"(^|- |\()(0\.0|0\.5|1\.0|0|1)(?=[ ,)]|$)"
    return re.sub(mix, lambda found: found[1] + KINDS[found[2]], contrast)


def told(row: Row) -> str:
    """A difference with its interval, in points of mAP or in ranks."""
    if of_ranks(row):
        return f"{row['difference']:+.1f} ranks [{row['low']:+.1f}, {row['high']:+.1f}]"
    places = digits(row)
    difference, low, high = (
        f"{100 * row[name]:+.{places}f}" for name in ("difference", "low", "high")
    )
    return f"{difference} points [{low}, {high}]"


def digits(row: Row, names: Sequence[str] = ("difference", "low", "high")) -> int:
    """The digits of some numbers of a row behind the point.

    A change per doubling is small. Points that would read 0 and are not get a digit more.
    """
    if of_ranks(row):
        return 1
    places = 2 if row.get("kind") == "trend" else 1
    points = [100 * row[name] for name in names]
    return places + any(each and not round(each, places) for each in points)


def detectable(row: Row) -> str:
    """The difference that would be found, in points of mAP or in ranks."""
    return f"{row['detectable'] * (1 if of_ranks(row) else 100):.{digits(row)}f}"


def said(row: Row) -> str:
    """A difference in a sentence: where it is none, with what the test could have found."""
    verdict = row.get("verdict")
    if verdict is None:
        return f"{told(row)} (exploratory)"
    if verdict == "equivalent":
        return f"{told(row)} (equivalent)"
    if verdict == "undecided":
        return f"{told(row)} (undecided; {detectable(row)} {unit(row)} would be found)"
    if row.get("within_margin"):
        return f"{told(row)} (a difference, within the margin)"
    return told(row)


def verdict(row: Row, without: str = "none yet") -> str:
    """The verdict of a row; `without` stands where it has none."""
    found = row.get("verdict", without)
    return f"{found}, within the margin" if row.get("within_margin") else found


def score(value: float) -> str:
    """A mean average precision."""
    return f"{value:.3f}".removeprefix("0")


def probability(p: float) -> str:
    """A p value."""
    return "<.001" if p < 0.001 else score(p)


def gains(row: Row) -> bool:
    """Whether a contrast of mAP is above 0, by its test where it has one, else by its interval."""
    return row["low"] > 0 and row.get("verdict", "difference") == "difference"


def loses(row: Row) -> bool:
    """Whether it is below 0."""
    return row["high"] < 0 and row.get("verdict", "difference") == "difference"


def within_margin(row: Row) -> bool:
    """Whether its whole interval lies within the margin."""
    return -row["margin"] < row["low"] and row["high"] < row["margin"]


def enumerated(names: Sequence[str]) -> str:
    """At least one name, in a sentence."""
    *others, last = names
    return f"{', '.join(others)} and {last}" if others else last


def yes(came: bool) -> str:
    """In words."""
    return "yes" if came else "no"


def contrast_line(row: Row, measure: str, without: str = "none yet") -> str:
    """A contrast as a line of a table with `HEADER`; `without` stands where it has no verdict."""
    over, ends = "", ("languages_low", "languages_high")
    if ends[0] in row:
        scale, places = 1 if of_ranks(row) else 100, digits(row, ends)
        over = " to ".join(f"{row[end] * scale:+.{places}f}" for end in ends)
    after = probability(row["p_holm"]) if "p_holm" in row else ""
    return (
        f"| {row['contrast']} | {measure} | {told(row)} | {row['degrees']:.1f} |"
        f" {probability(row['p'])} | {after} | {detectable(row)} | {over} | {verdict(row, without)} |"
    )


def unit(row: Row) -> str:
    """Of a difference."""
    return "ranks" if of_ranks(row) else "points"


def of_ranks(row: Row) -> bool:
    """Whether a contrast is in ranks, not in mAP."""
    return "rank_distance" in (row.get("measure"), row.get("metric"))


def of_setting(setting: str, metric: str) -> str:
    """A measure of one task."""
    return f"{setting.removesuffix('-lingual')} {metric.replace('_', ' ')}"


def shown(metric: str, value: float) -> str:
    """A mean with its usual digits."""
    return f"{value:.1f}" if metric == "rank_distance" else score(value)
