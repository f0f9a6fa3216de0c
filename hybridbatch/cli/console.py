"""All that the terminal shows: notes, progress bars, tables. The only module that imports rich."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Table
from rich.text import Text

from hybridbatch.common.progress import SILENT, Bar, Overview

out = Console(soft_wrap=True)  # results: pipes carry them
err = Console(stderr=True, soft_wrap=True)  # notes and progress


def error(message: str) -> None:
    """One line on standard error."""
    err.print(Text(f"error: {message}", style="red" if err.is_terminal else ""))


class RichReporter:
    """Draws progress on a terminal; elsewhere only notes and warnings are printed, one line each."""

    def note(self, text: str) -> None:
        """A line on standard error."""
        err.print(Text(text))

    def warn(self, text: str) -> None:
        """A line on standard error, marked."""
        err.print(Text(f"warning: {text}", style="yellow" if err.is_terminal else ""))

    @contextmanager
    def bar(self, description: str, total: int, unit: str = "", done: int = 0) -> Iterator[Bar]:
        """A progress bar with rate and time left; nothing where standard error is no terminal."""
        if not err.is_terminal:
            with SILENT.bar(description, total, unit, done) as quiet:
                yield quiet
            return
        columns = (
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TextColumn("{task.fields[unit]} {task.fields[rate]}"),
            TimeRemainingColumn(compact=True),
            TextColumn("{task.fields[extra]}", style="dim"),
        )
        with Progress(*columns, console=err, transient=False) as progress:
            task = progress.add_task(
                description, total=total, completed=done, unit=unit, rate="", extra=""
            )
            yield _RichBar(progress, task)

    @contextmanager
    def live(self, title: str, overview: Overview) -> Iterator[None]:
        """A table that is drawn anew every two seconds; nothing where standard error is no
        terminal.
        """
        if not err.is_terminal:
            yield
            return
        with Live(
            get_renderable=lambda: _drawn(*overview(), title), console=err, refresh_per_second=0.5
        ):
            yield


class _RichBar:
    def __init__(self, progress: Progress, task: TaskID) -> None:
        self.progress, self.task = progress, task

    def advance(self, amount: int = 1, **fields: float | str) -> None:
        """Count on, and show `fields` behind the time left."""
        speed = self.progress.tasks[self.task].speed
        extra = "  ".join(
            f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {value}"
            for name, value in fields.items()
        )
        update: dict[str, Any] = {"advance": amount, "rate": f"{speed:,.1f}/s" if speed else ""}
        if extra:
            update["extra"] = extra
        self.progress.update(self.task, **update)


def table(
    rows: Sequence[Mapping[str, Any]], title: str | None = None, caption: str | None = None
) -> None:
    """Print rows of equal keys as a table on standard output; floats with three decimals, rank
    distances whole.
    """
    if not rows:
        out.print(Text(f"{title or 'table'}: nothing"))
        return
    out.print(_drawn(rows, caption, title))


def _drawn(rows: Sequence[Mapping[str, Any]], caption: str | None, title: str | None) -> Table:
    drawn = Table(title=title, caption=caption, title_justify="left", caption_justify="left")
    for name in rows[0] if rows else ():
        numeric = any(isinstance(row.get(name), int | float) for row in rows)
        drawn.add_column(str(name), justify="right" if numeric else "left", overflow="fold")
    for row in rows:
        drawn.add_row(*(cell(row.get(name)) for name in rows[0]))
    return drawn


def cell(value: Any) -> str:
    """A value as a table shows it."""
    if value is None:
        return "–"
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3f}"
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)


def lines(texts: Iterable[str]) -> None:
    """Plain lines on standard output."""
    for text in texts:
        out.print(Text(text))


def json(value: Any) -> None:
    """A JSON value on standard output, for the next tool."""
    from json import dumps

    out.print(dumps(value, ensure_ascii=False, indent=1), markup=False, highlight=False)


def document(value: Any) -> None:
    """A nested JSON-like value on standard output, as YAML: readable, and parsable by the next
    tool.
    """
    import yaml

    out.print(Text(yaml.safe_dump(value, allow_unicode=True, sort_keys=False, width=120).rstrip()))
