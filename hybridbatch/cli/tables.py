"""Tables for a terminal of any width: words stay whole, and what does not fit becomes a list."""

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

BETWEEN = 3  # characters that a column takes besides its own
LONG = 24  # words longer than this, such as paths, may be broken

Row = Mapping[str, Any]


def drawn(
    rows: Sequence[Row], width: int, title: str | None = None, caption: str | None = None
) -> RenderableType:
    """Rows of equal keys as a table of at most `width` characters.

    If the table is too wide, columns with one value in all rows go below it. If it is still too
    wide, every row becomes a list of names and values.
    """
    names = list(rows[0]) if rows else []
    below = [caption] if caption else []
    widths = fitted(rows, names, width)
    if widths is None and len(rows) > 1:
        same = [name for name in names if len({cell(row.get(name)) for row in rows}) == 1]
        names = [name for name in names if name not in same]
        widths = fitted(rows, names, width)
        told = ", ".join(f"{header(name)} {cell(rows[0].get(name))}" for name in same)
        below[:0] = [f"in all rows: {told}"] if same else []
    below = [textwrap.fill(text, max(8, width - 1), break_on_hyphens=False) for text in below]
    if widths is None:
        parts: list[RenderableType] = [Text(title)] if title else []
        parts += [_as_list(row, names) for row in rows]
        return Group(*parts, *(Text(text) for text in below))
    return _table(rows, widths, title, "\n".join(below) or None)


def fitted(rows: Sequence[Row], names: Sequence[str], width: int) -> dict[str, int] | None:
    """The widths of columns that together fit; None if words would have to be broken."""
    widths, least = {}, {}
    for name in names:
        texts = [header(name), *(cell(row.get(name)) for row in rows)]
        lines = [line for text in texts for line in text.splitlines()]
        words = [word for text in texts for word in text.split()]
        widths[name] = max(map(_length, lines), default=1)
        least[name] = min(widths[name], max(map(_length, words), default=1))
        if least[name] > LONG:
            least[name] = LONG
    room = width - BETWEEN * len(widths)
    if sum(least.values()) > room:
        return None
    while sum(widths.values()) > room:
        widest = max((n for n in widths if widths[n] > least[n]), key=widths.__getitem__)
        widths[widest] -= 1
    return widths


def _length(text: str) -> int:
    return Text(text).cell_len


def header(name: str) -> str:
    """The name of a column as words."""
    return str(name).replace("_", " ")


def _table(
    rows: Sequence[Row], widths: Mapping[str, int], title: str | None, caption: str | None
) -> Table:
    table = Table(
        title=title,
        caption=caption,
        title_justify="left",
        caption_justify="left",
        box=SIMPLE_HEAD,
        pad_edge=False,
    )
    for name, width in widths.items():
        numeric = any(isinstance(row.get(name), int | float) for row in rows)
        table.add_column(
            header(name), justify="right" if numeric else "left", overflow="fold", width=width
        )
    for row in rows:
        table.add_row(*(Text(cell(row.get(name))) for name in widths))
    return table


def _as_list(row: Row, names: Sequence[str]) -> RenderableType:
    """A row as its first value, and below it the names and values of the others."""
    first, *others = names
    values = Table.grid(padding=(0, 2))
    values.add_column(no_wrap=True)
    values.add_column(overflow="fold")
    for name in others:
        if row.get(name) not in (None, ""):
            values.add_row(Text(header(name)), Text(cell(row[name])))
    return Group(
        Text(""), Text(cell(row.get(first)), style="bold"), Padding(values, (0, 0, 0, 2))
    )


def cell(value: Any) -> str:
    """A value as a table shows it."""
    if value is None:
        return "–"
    if isinstance(value, float):
        if 0 < abs(value) < 0.001:
            return f"{value:.3g}"
        return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3f}"
    return (
        f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)
    )
