"""The interface of a step between a source's rows and the store."""

from collections.abc import Iterable, Iterator
from typing import Any, Protocol

from hybridbatch.common.progress import Reporter
from hybridbatch.common.records import BadRow, Row


class Stage(Protocol):
    """Changes the rows of a source on their way into the store, and counts the changes."""

    def rows(self, rows: Iterable[Row | BadRow]) -> Iterator[Row | BadRow]:
        """The rows that remain."""

    def describe(self) -> dict[str, Any]:
        """Everything besides the rows that the result depends on, as JSON; empty if it counts."""

    def as_json(self) -> dict[str, Any]:
        """The counts, for the manifest."""

    def tell(self, report: Reporter) -> None:
        """Report what was done."""
