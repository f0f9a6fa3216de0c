"""The forms of a user's table: the rows or document lines that each makes of a record."""

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import chain
from typing import Any, NamedTuple

from hybridbatch.common.records import Split
from hybridbatch.common.texts import is_blank, shortened
from hybridbatch.data.formats.columns import Sided
from hybridbatch.data.formats.tables import (
    Record,
    RowProblem,
    checked_text,
    identifier,
    known_language,
    language,
    position,
    split,
    text,
)


def negatives(value: Any, field: str) -> tuple[str, ...]:
    """Hard negatives of a cell, without empty ones.

    The cell is a text, or a list of texts or of objects with title and text, possibly as JSON.

    Raises:
        RowProblem: The cell has no such value.
    """
    value = _listed(value)
    if value is None:
        return ()
    if isinstance(value, str):
        value = [value]
    if not isinstance(value, list):
        raise RowProblem(field, "must be a list of texts")
    return tuple(_text_of(one, field) for one in value if not _is_empty(one))


def passages(value: Any, field: str) -> list[str]:
    """The passages of a cell: one text, or a list of texts or of objects with title and text.

    Empty passages of a list are left out.

    Raises:
        RowProblem: The cell has no such value, or its list is empty.
    """
    value = _listed(value)
    if not isinstance(value, list):
        return [checked_text(value, field)]
    found = [_text_of(one, field) for one in value if not _is_empty(one)]
    if not found:
        raise RowProblem(field, "empty list")
    return found


def _listed(value: Any) -> Any:
    """`value`, or the list of texts or objects that it is as JSON, as text tables have it."""
    if not isinstance(value, str) or not value.lstrip().startswith("["):
        return value
    try:
        found = json.loads(value)
    except (ValueError, RecursionError):
        return value  # a text such as "[1] Smith et al."
    if all(one is None or isinstance(one, str | Mapping) for one in found):
        return found
    return value


def _text_of(value: Any, field: str) -> str:
    """A text, or the title and text of an object, joined with a blank as mteb does."""
    if not isinstance(value, Mapping):
        return checked_text(value, field)
    title = value.get("title") or ""
    if not isinstance(title, str):
        raise RowProblem(field, "a title must be text")
    return f"{title} {text(value, 'text')}".strip()


def _is_empty(value: Any) -> bool:
    """Whether a text, or the text of an object, is absent or shows nothing."""
    if isinstance(value, Mapping):
        return "text" in value and _is_empty(value["text"])
    return value is None or (isinstance(value, str) and is_blank(value))


class Item(NamedTuple):
    """A record in one language, as a form reads it."""

    record_id: str | None  # None: the table does not state it
    language: str
    query: str | None
    passage: str | None
    negatives: tuple[str, ...]
    split: Split | None  # None: the table does not state it


class Line(NamedTuple):
    """A line of a document in one language, as an aligned form reads it."""

    document: str | None  # None: the table does not state it
    language: str
    position: int
    text: str
    split: Split | None


@dataclass(frozen=True)
class LongForm:
    """A row per record and language.

    `columns` has the column of each role that the table has. `fixed` is the language of all rows if
    no column has it.
    """

    columns: Mapping[str, str]
    negatives: tuple[str, ...] = ()
    fixed: str | None = None

    @property
    def about(self) -> str:
        """The recognized form, for people."""
        roles = [f"{role} in {shortened(column)!r}" for role, column in self.columns.items()]
        if self.negatives:
            roles.append(f"negatives in {', '.join(map(repr, self.negatives))}")
        if self.fixed:
            roles.append(f"all in {self.fixed}")
        if "record_id" not in self.columns:
            roles.append("records named by file and line")
        return f"long form, {', '.join(roles)}"

    @property
    def used(self) -> set[str]:
        """The columns that are read."""
        return {*self.columns.values(), *self.negatives}

    def items(self, number: int, record: Record) -> Iterable[Item | RowProblem]:
        """A row for each passage of the record.

        A null query or passage means that the record lacks this side in its language.
        """
        columns = self.columns
        query = _side(record, columns["query"])
        given = _listed(record.get(columns["passage"]))
        several = type(given) is list
        passage = None if several else _side(record, columns["passage"])
        if query is None and passage is None and not several:
            raise RowProblem(columns["query"], "neither query nor passage")
        record_id = identifier(record, columns["record_id"]) if "record_id" in columns else None
        code = self.fixed or language(record, columns["language"])
        found = _negatives_in(record, self.negatives) if self.negatives else ()
        part = _split(record, columns["split"]) if "split" in columns else None
        item = Item(record_id, code, query, passage, found, part)
        if not several:
            return (item,)
        return [item._replace(passage=one) for one in passages(given, columns["passage"])]


@dataclass(frozen=True)
class WideForm:
    """A row per record, with a column, or a key of a JSON object, per side and language.

    `sided` maps a flat column to its side; `nested` maps a role to the column of its objects.
    """

    sided: Mapping[str, Sided]
    nested: Mapping[str, str]
    record_id: str | None
    split: str | None

    @property
    def about(self) -> str:
        """The recognized form, for people."""
        ids = (
            f"record id in {self.record_id!r}"
            if self.record_id
            else "records named by file and line"
        )
        if self.nested:
            return f"wide form, texts by language in {', '.join(map(repr, self.nested.values()))}, {ids}"
        found = dict.fromkeys(side.language for side in self.sided.values())
        return f"wide form, {len(found)} languages ({', '.join(found)}), {ids}"

    @property
    def used(self) -> set[str]:
        """The columns that are read."""
        return {*self.sided, *self.nested.values(), self.record_id or "", self.split or ""}

    def items(self, number: int, record: Record) -> Iterator[Item | RowProblem]:
        """The rows of the record.

        An empty or null cell means that the record lacks this text in the cell's language.
        """
        record_id = identifier(record, self.record_id) if self.record_id else None
        part = _split(record, self.split)
        found: dict[str, dict[str, Any]] = {}
        problem: RowProblem | None = None
        for role, code, cell, value in self._cells(record):
            if value is None or (isinstance(value, str) and is_blank(value)):
                continue
            try:
                sides = found.setdefault(
                    code or known_language(cell.rpartition(".")[2], cell), {}
                )
                read = negatives(value, cell) if role == "negatives" else passages(value, cell)
            except RowProblem as caught:
                problem = caught
                yield problem
                continue
            if role in sides:
                yield RowProblem(cell, "two texts for one language")
            sides.setdefault(role, read)
        rows = {
            code: sides
            for code, sides in found.items()
            if "query" in sides or "passage" in sides
        }
        if not rows and not problem:
            raise RowProblem("line", "no query and no passage in any language")
        for code, sides in rows.items():
            query = sides.get("query", [None])[0]
            for passage in sides.get("passage", [None]):
                yield Item(record_id, code, query, passage, sides.get("negatives", ()), part)

    def _cells(self, record: Record) -> Iterator[tuple[str, str | None, str, Any]]:
        """(role, canonical language or None if still unread, name of the cell, value)."""
        for column, (role, code) in self.sided.items():
            yield role, code, column, record.get(column)
        for role, column in self.nested.items():
            by_language = record.get(column)
            if role == "negatives" and by_language is None:
                continue
            if not isinstance(by_language, Mapping):
                raise RowProblem(column, "must be an object of texts by language")
            for code, value in by_language.items():
                yield role, None, f"{column}.{code}", value


@dataclass(frozen=True)
class AlignedForm:
    """Lines of documents, in a long or a wide table.

    A long table has a row per line and language (`columns`). A wide table has a row per line with a
    column per language (`texts`).
    """

    columns: Mapping[str, str]
    texts: Mapping[str, str]  # column -> canonical language; empty in the long table
    first: int  # line number of the first record

    @property
    def about(self) -> str:
        """The recognized form, for people."""
        where = (
            f"one column per language ({', '.join(self.texts.values())})"
            if self.texts
            else "a row per language"
        )
        return f"aligned lines, {where}; makes pairs of neighbouring lines"

    @property
    def used(self) -> set[str]:
        """The columns that are read."""
        return {*self.columns.values(), *self.texts}

    def lines(self, number: int, record: Record) -> Iterator[Line]:
        """The lines of the record.

        Without a column of positions, lines are counted from the first record.
        """
        columns = self.columns
        document = identifier(record, columns["document"]) if "document" in columns else None
        at = (
            position(record, columns["position"])
            if "position" in columns
            else number - self.first
        )
        part = _split(record, columns.get("split"))
        if not self.texts:
            code, line = language(record, columns["language"]), text(record, columns["text"])
            yield Line(document, code, at, line, part)
        for column, code in self.texts.items():
            if not _is_empty(record.get(column)):
                yield Line(document, code, at, text(record, column), part)


@dataclass(frozen=True)
class TranslationForm:
    """A sentence and its translations in one object, as in OPUS data sets on the hub.

    The object is ``{"translation": {"en": ..., "sw": ...}}``.
    """

    column: str
    split: str | None
    others: frozenset[str] = field(default_factory=frozenset)  # columns that are ignored

    @property
    def about(self) -> str:
        """The recognized form, for people."""
        return (
            f"translations in {self.column!r}, taken as sentences in any order; each language of a"
            " record has one side, for cross-lingual batches"
        )

    @property
    def used(self) -> set[str]:
        """The columns that are read."""
        return {self.column, self.split or "", *self.others}

    def texts(self, number: int, record: Record) -> tuple[dict[str, str], Split | None]:
        """The sentence by canonical language, and its split.

        Raises:
            RowProblem: The record is unusable.
        """
        by_language = record.get(self.column)
        if not isinstance(by_language, Mapping):
            raise RowProblem(self.column, "must be an object of texts by language")
        found: dict[str, str] = {}
        for code, value in by_language.items():
            if _is_empty(value):
                continue
            cell = f"{self.column}.{code}"
            if known_language(code, cell) in found:
                raise RowProblem(cell, "two texts for one language")
            found[known_language(code, cell)] = checked_text(value, cell)
        if len(found) < 2:
            raise RowProblem(self.column, "fewer than two languages have a text")
        return found, _split(record, self.split)


Form = LongForm | WideForm | AlignedForm | TranslationForm


def _split(record: Record, column: str | None) -> Split | None:
    """The split of a record; None if the table, or this record, does not state one."""
    if column is None or _is_empty(record.get(column)):
        return None
    return split(record, column)


def _side(record: Record, column: str) -> str | None:
    value = record.get(column)
    if type(value) is str:
        return checked_text(value, column)
    return None if value is None and column in record else text(record, column)


def _negatives_in(record: Record, columns: Iterable[str]) -> tuple[str, ...]:
    if not columns:
        return ()
    return tuple(
        chain.from_iterable(negatives(record.get(column), column) for column in columns)
    )
