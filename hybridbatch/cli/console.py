"""Everything the terminal shows: notes, progress, tables. Only this module and `tables` import rich.

Results go to standard output: as tables on a terminal, one record a line in a pipe, or as JSON.
Notes, warnings and progress go to standard error.
"""

import sys
import textwrap
import threading
import time
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console, RenderableType
from rich.live import Live
from rich.text import Text

from hybridbatch.cli.progress_line import ProgressLine
from hybridbatch.cli.tables import drawn
from hybridbatch.common.progress import Bar, Overview

out = Console(soft_wrap=True)  # results: pipes carry them
err = Console(stderr=True, soft_wrap=True)  # notes and progress
EVERY = 30.0  # seconds between the lines of progress where standard error is no terminal
LONGEST_ERROR = 490  # characters, after "error: "
FIRST = 3.0  # seconds until the first of them, which tells how long it takes


@dataclass
class Mode:
    """How the user wants all output to be shown."""

    quiet: bool = False
    verbose: bool = False
    json: bool = False
    started: float = field(default_factory=time.monotonic)
    collected: dict[str, Any] = field(default_factory=dict)  # with --json, until `finish`
    several: bool = False  # tables were shown before, in a pipe


mode = Mode()


def begin(*, quiet: bool = False, verbose: bool = False, json: bool = False) -> None:
    """Set how all further output is shown; a flag that is on stays on."""
    mode.quiet, mode.verbose, mode.json = (
        mode.quiet or quiet,
        mode.verbose or verbose,
        mode.json or json,
    )


def reset() -> None:
    """Forget all output options, at the start of each run of the command line in this process."""
    global mode
    mode = Mode()


def finish() -> None:
    """With ``--json``, print the collected results: a list for one table, else a mapping."""
    if not mode.json or not mode.collected:
        return
    names = list(mode.collected)
    value = mode.collected["rows"] if names == ["rows"] else mode.collected
    mode.collected = {}
    _print_json(value)


def error(message: str) -> None:
    """Write an error as one line to standard error. Control characters of names are escaped.

    Of a message that is too long, as it quotes the user's data, the middle is left out.
    """
    style = "red" if err.is_terminal else ""
    text = _printable(message)
    if len(text) > LONGEST_ERROR:
        text = f"{text[: LONGEST_ERROR - 160]} ... {text[-150:]}"
    err.print(Text(f"error: {text}", style=style))


def _printable(text: str) -> str:
    """`text` with control characters and ends of lines as escapes."""
    ends = ("Cc", "Zl", "Zp")
    return "".join(repr(c)[1:-1] if unicodedata.category(c) in ends else c for c in text)


class TerminalReporter:
    """Draws progress on a terminal; elsewhere it writes a line every 30 seconds."""

    def note(self, text: str) -> None:
        """Write a line to standard error, unless ``--quiet`` is given."""
        if not mode.quiet:
            err.print(Text(_wrapped(f"{_clock()}{text}", err)))

    def warn(self, text: str) -> None:
        """Write a line to standard error, marked as a warning."""
        text = _wrapped(f"{_clock()}warning: {text}", err)
        err.print(Text(text, style="yellow" if err.is_terminal else ""))

    @contextmanager
    def bar(self, description: str, total: int, unit: str = "", done: int = 0) -> Iterator[Bar]:
        """Progress with count, rate and time left."""
        line = ProgressLine(description, total, unit, done)
        if mode.quiet:
            yield line
        elif err.is_terminal:
            with Live(
                get_renderable=lambda: Text(line.text(err.width), no_wrap=True),
                console=err,
                refresh_per_second=5,
            ):
                yield line
        else:
            yield _TellingBar(line)

    @contextmanager
    def live(self, title: str, overview: Overview) -> Iterator[None]:
        """A table that is drawn anew every two seconds; nothing where standard error is no
        terminal.
        """
        if mode.quiet or not err.is_terminal:
            yield
            return
        with Live(
            get_renderable=lambda: _overview(*overview(), title),
            console=err,
            refresh_per_second=0.5,
        ):
            yield


def _overview(rows: Sequence[Mapping[str, Any]], caption: str, title: str) -> RenderableType:
    return drawn(rows, err.width, title, caption)


def _clock() -> str:
    """With ``--verbose``, the seconds since the start."""
    return f"[{time.monotonic() - mode.started:7.1f} s] " if mode.verbose else ""


class _TellingBar:
    """Progress as lines: the first soon after the start, then one every 30 seconds."""

    def __init__(self, line: ProgressLine) -> None:
        self.line = line
        self.next = time.monotonic() + FIRST
        self.first = True
        self.lock = threading.Lock()

    def advance(self, amount: int = 1, **fields: float | str) -> None:
        """Count further units, and print a line if it is time for one."""
        self.line.advance(amount, **fields)
        now = time.monotonic()
        with self.lock:
            if now < self.next or self.line.finished:
                return
            self.next = now + EVERY
            worth_telling = not self.first or (self.line.seconds_left() or 0) > EVERY
            self.first = False
        if worth_telling:
            err.print(Text(f"{_clock()}{self.line.plain()}"))


def table(
    rows: Sequence[Mapping[str, Any]],
    title: str | None = None,
    caption: str | None = None,
    name: str = "rows",
) -> None:
    """Show rows of equal keys: a table on a terminal, a record a line in a pipe, JSON if asked.

    Args:
        rows: floats are shown with three decimals, and whole from 100 on.
        title: of the table; in a pipe only where it is one of several.
        name: of the rows in JSON.
    """
    if mode.json:
        mode.collected[name] = [dict(row) for row in rows]
    elif not out.is_terminal:
        _print_records(rows, title)
    elif not rows:
        out.print(Text(f"{title or 'rows'}: none"))
    else:
        out.print(drawn(rows, out.width, title, caption))


def _print_records(rows: Sequence[Mapping[str, Any]], title: str | None) -> None:
    """A line of names, then a line for each row, separated by tabs."""
    if mode.several:
        _print_line("")
    if mode.several or not rows:
        _print_line(f"# {title or 'rows'}" + ("" if rows else ": none"))
    mode.several = True
    if rows:
        _print_line("\t".join(map(str, rows[0])))
    for row in rows:
        _print_line("\t".join(_field(row.get(name)) for name in rows[0]))


def _field(value: Any) -> str:
    """A value between tabs: no unit, no thousands separator."""
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.6g}"
    return " ".join(str(value).split())


def _print_line(text: str) -> None:
    """Print a line unchanged, at any length; rich would turn its tabs into spaces."""
    if out.quiet:
        return
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    writable = text.encode(encoding, "backslashreplace").decode(encoding)
    sys.stdout.write(f"{writable}\n")


def lines(texts: Iterable[str], name: str = "lines") -> None:
    """Print plain lines to standard output."""
    if mode.json:
        mode.collected.setdefault(name, []).extend(texts)
        return
    for text in texts:
        _print_line(_wrapped(text, out))


def _wrapped(text: str, console: Console) -> str:
    """On a terminal, break a long text between words; paths stay whole."""
    if not console.is_terminal or len(text) < console.width or "\n" in text:
        return text
    return textwrap.fill(
        text, max(20, console.width - 1), break_long_words=False, break_on_hyphens=False
    )


def path(place: Path, name: str = "path") -> None:
    """Print the path of a result."""
    if mode.json:
        mode.collected[name] = str(place)
    else:
        _print_line(str(place))


def json(value: Any) -> None:
    """Print a JSON value to standard output, for the next tool."""
    mode.collected = {}
    _print_json(value)


def _print_json(value: Any) -> None:
    from json import dumps

    _print_line(dumps(_finite(value), ensure_ascii=False, indent=1, default=str))


def _finite(value: Any) -> Any:
    """Replace NaN and infinity, which JSON does not have, by None."""
    if isinstance(value, Mapping):
        return {str(name): _finite(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(each) for each in value]
    if isinstance(value, float) and (value != value or abs(value) == float("inf")):
        return None
    return value


def document(value: Mapping[str, Any]) -> None:
    """A nested mapping on standard output, as YAML: readable, and parsable by the next tool."""
    if mode.json:
        mode.collected.update(value)
        return
    import yaml

    text = yaml.safe_dump(value, allow_unicode=True, sort_keys=False, width=120)
    _print_line(text.rstrip())


def show_traceback() -> None:
    """With ``--verbose``, print the traceback of the current error."""
    if mode.verbose:
        import traceback

        print(traceback.format_exc(), file=sys.stderr)  # noqa: T201
