"""How the core reports what it does without knowing of terminals: it calls a `Reporter`.

`console.RichReporter` draws it; `SILENT` drops it, which is what library users get by default.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

# rows of a table, and what is said below it
Overview = Callable[[], tuple[Sequence[Mapping[str, Any]], str]]


LONG = 60.0  # seconds; the length of longer work is told before it begins


class Bar(Protocol):
    """One running progress bar."""

    def advance(self, amount: int = 1, **fields: float | str) -> None:
        """Count `amount` units more; `fields` (such as ``loss=0.31``) replace those shown at the
        end of the line.
        """


class Reporter(Protocol):
    """Where notes, warnings and progress of long work go."""

    def note(self, text: str) -> None:
        """Report a fact that the user should know."""

    def warn(self, text: str) -> None:
        """Report a problem that the user should fix or at least consider."""

    # -> AbstractContextManager[Bar]
    def bar(self, description: str, total: int, unit: str = "", done: int = 0):
        """Return a context manager that gives a `Bar` of `total` units, of which `done` are done."""

    def live(self, title: str, overview: Overview):  # -> AbstractContextManager[None]
        """A context manager that keeps a table up to date by asking `overview` again and again."""


class _SilentBar:
    def advance(self, amount: int = 1, **fields: float | str) -> None:
        """Nothing."""


class SilentReporter:
    """A reporter that says nothing."""

    def note(self, text: str) -> None:
        """Nothing."""

    def warn(self, text: str) -> None:
        """Nothing."""

    @contextmanager
    def bar(self, description: str, total: int, unit: str = "", done: int = 0) -> Iterator[Bar]:
        """A bar that draws nothing."""
        yield _SilentBar()

    @contextmanager
    def live(self, title: str, overview: Overview) -> Iterator[None]:
        """Nothing."""
        yield


SILENT = SilentReporter()


class PartOf(SilentReporter):
    """Work within a bar: the units of its own bar count for the bar around it.

    Attributes:
        done: units that were counted.
    """

    def __init__(self, around: Bar) -> None:
        self.around = around
        self.done = 0

    @contextmanager
    def bar(self, description: str, total: int, unit: str = "", done: int = 0) -> Iterator[Bar]:
        """A bar whose units are those of the bar around it."""
        yield self

    def advance(self, amount: int = 1, **fields: float | str) -> None:
        """Count units."""
        self.done += amount
        self.around.advance(amount, **fields)
