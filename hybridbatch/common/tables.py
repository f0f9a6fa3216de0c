"""Rows as tables in files: CSV and Markdown, the same everywhere."""

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

FORMULA = ("=", "+", "-", "@", "\t", "\r")  # a spreadsheet runs a cell that begins so


def columns(rows: Iterable[Mapping[str, Any]]) -> list[str]:
    """The names of all columns, in the order of their first rows."""
    return list(dict.fromkeys(name for row in rows for name in row))


def constant(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Columns that have the same value in each of several rows, with the value."""
    found = {}
    for name in columns(rows) if len(rows) > 1 else ():
        first = rows[0].get(name)
        if not isinstance(first, list | tuple) and all(row.get(name) == first for row in rows):
            found[name] = first
    return found


def shown(value: Any, digits: int = 4) -> str:
    """A value for people: four significant digits, separated thousands, nothing for None."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.{digits}g}"
    return f"{value:,}" if isinstance(value, int) else str(value)


def csv_text(rows: Sequence[Mapping[str, Any]]) -> str:
    """Rows as CSV, with the columns of all of them. Texts that a spreadsheet would run as formulas
    get an apostrophe in front.
    """
    text = io.StringIO()
    names = columns(rows)
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(map(_safe, names))
    for row in rows:
        writer.writerow([_safe(row.get(name, "")) for name in names])
    return text.getvalue()


def _safe(value: Any) -> Any:
    risky = isinstance(value, str) and value.startswith(FORMULA)
    return f"'{value}" if risky else value


def markdown_table(
    rows: Sequence[Mapping[str, Any]],
    names: Sequence[str] | None = None,
    right: Sequence[str] = (),
) -> str:
    """Rows as a Markdown table; floats with four significant digits, numbers without separators.

    Args:
        rows: of any columns.
        names: the columns to show; default: all.
        right: those that are aligned on the right.
    """
    if not rows:
        return "(none)"
    names = columns(rows) if names is None else names
    rule = ["---:" if name in right else "---" for name in names]
    lines = [list(names), rule]
    for row in rows:
        lines.append([_markdown_cell(row.get(name)) for name in names])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _markdown_cell(value: Any) -> str:
    if value is None:
        return ""
    text = f"{value:.4g}" if isinstance(value, float) else str(value)
    return " ".join(text.split()).replace("|", "\\|")
