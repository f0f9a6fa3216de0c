"""The forms a user's table may have, and how each makes rows, or lines of documents, of a record."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from hybridbatch.records import Split
from hybridbatch.sources.reading import (
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


class Item(NamedTuple):
    """A record in one language, as a form reads it."""

    record_id: str | None  # None: the table does not say
    language: str
    query: str | None
    passage: str | None
    negatives: tuple[str, ...]
    split: Split


class Line(NamedTuple):
    """A line of a document in one language, as an aligned form reads it."""

    document: str | None  # None: the table does not say
    language: str
    position: int
    text: str
    split: Split


@dataclass(frozen=True)
class LongForm:
    """A row per record and language. `columns` gives the column of each role that the table has."""

    columns: Mapping[str, str]

    @property
    def about(self) -> str:
        """What was recognised, for people."""
        return "long form, " + ", ".join(f"{role} in {column!r}" for role, column in self.columns.items())

    def items(self, number: int, record: Record) -> Iterator[Item | RowProblem]:
        """The row of the record. A null query or passage says that the record has no such side in its language."""
        columns = self.columns
        query, passage = (_side(record, columns[role]) for role in ("query", "passage"))
        if query is None and passage is None:
            raise RowProblem(columns["query"], "neither query nor passage")
        yield Item(
            identifier(record, columns["record_id"]),
            language(record, columns["language"]),
            query,
            passage,
            negatives(record.get(columns["negatives"]), columns["negatives"]) if "negatives" in columns else (),
            _split(record, columns.get("split")),
        )


@dataclass(frozen=True)
class WideForm:
    """A row per record, with a column, or a key of a JSON object, per side and language.

    `sided` maps a flat column to its (role, canonical language); `nested` maps a role to the column of its objects.
    """

    sided: Mapping[str, tuple[str, str]]
    nested: Mapping[str, str]
    record_id: str | None
    split: str | None

    @property
    def about(self) -> str:
        """What was recognised, for people."""
        ids = f"record id in {self.record_id!r}" if self.record_id else "records named by file and line"
        if self.nested:
            return f"wide form, texts by language in {', '.join(map(repr, self.nested.values()))}, {ids}"
        found = dict.fromkeys(code for _, code in self.sided.values())
        return f"wide form, {len(found)} languages ({', '.join(found)}), {ids}"

    def items(self, number: int, record: Record) -> Iterator[Item | RowProblem]:
        """The rows of the record. An empty or null cell says that there is no such text in that language."""
        record_id = identifier(record, self.record_id) if self.record_id else None
        part = _split(record, self.split)
        found: dict[str, dict[str, Any]] = {}
        problem: RowProblem | None = None
        for role, code, field, value in self._cells(record):
            if value is None or value == "":
                continue
            try:
                read = negatives(value, field) if role == "negatives" else checked_text(value, field)
                sides = found.setdefault(code or known_language(field.rpartition(".")[2], field), {})
            except RowProblem as caught:
                problem = caught
                yield problem
                continue
            if role in sides:
                yield RowProblem(field, "two texts for one language")
            sides.setdefault(role, read)
        rows = {code: sides for code, sides in found.items() if "query" in sides or "passage" in sides}
        if not rows and not problem:
            raise RowProblem("line", "no query and no passage in any language")
        for code, sides in rows.items():
            yield Item(record_id, code, sides.get("query"), sides.get("passage"), sides.get("negatives", ()), part)

    def _cells(self, record: Record) -> Iterator[tuple[str, str | None, str, Any]]:
        """(role, canonical language or None if still unread, name of the cell, value)."""
        for column, (role, code) in self.sided.items():
            yield role, code, column, record.get(column)
        for role, column in self.nested.items():
            by_language = record.get(column)
            if not isinstance(by_language, Mapping):
                raise RowProblem(column, "must be an object of texts by language")
            for code, value in by_language.items():
                yield role, None, f"{column}.{code}", value


@dataclass(frozen=True)
class AlignedForm:
    """Lines of documents: a row per line and language (`columns`), or per line with a column per language (`texts`)."""

    columns: Mapping[str, str]
    texts: Mapping[str, str]  # column -> canonical language; empty in the long table
    first: int  # line number of the first record

    @property
    def about(self) -> str:
        """What was recognised, for people."""
        where = f"one column per language ({', '.join(self.texts.values())})" if self.texts else "a row per language"
        return f"aligned lines, {where}; makes pairs of neighbouring lines"

    def lines(self, number: int, record: Record) -> Iterator[Line]:
        """The lines of the record. Without a column of positions, they are counted from the first record."""
        columns = self.columns
        document = identifier(record, columns["document"]) if "document" in columns else None
        at = position(record, columns["position"]) if "position" in columns else number - self.first
        part = _split(record, columns.get("split"))
        if not self.texts:
            code, line = language(record, columns["language"]), text(record, columns["text"])
            yield Line(document, code, at, line, part)
        for column, code in self.texts.items():
            if record.get(column) not in (None, ""):
                yield Line(document, code, at, text(record, column), part)


Form = LongForm | WideForm | AlignedForm


def negatives(value: Any, field: str) -> tuple[str, ...]:
    """Hard negatives: a list, or as text a JSON list or texts between tabs. Raises `RowProblem`."""
    if value is None or value == "":
        return ()
    if isinstance(value, str) and value.lstrip().startswith("["):
        try:
            value = json.loads(value)
        except ValueError:
            raise RowProblem(field, "malformed JSON list") from None
    elif isinstance(value, str):
        value = value.split("\t")
    if not isinstance(value, list):
        raise RowProblem(field, "must be a list of texts")
    return tuple(checked_text(one, field) for one in value)


def _split(record: Record, column: str | None) -> Split:
    return split(record, column) if column else "train"


def _side(record: Record, column: str) -> str | None:
    return None if column in record and record[column] is None else text(record, column)
