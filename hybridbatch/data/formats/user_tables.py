"""The forms a user's table may have, and how each makes rows, or lines of documents, of a record."""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from hybridbatch.common.errors import DataError
from hybridbatch.common.records import Split
from hybridbatch.data.formats.tables import (
    Record,
    RowProblem,
    checked_text,
    identifier,
    known_language,
    language,
    position,
    read_records,
    split,
    text,
)


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
        return "long form, " + ", ".join(
            f"{role} in {column!r}" for role, column in self.columns.items()
        )

    def items(self, number: int, record: Record) -> Iterator[Item | RowProblem]:
        """The row of the record. A null query or passage says that the record has no such side in
        its language.
        """
        columns = self.columns
        query, passage = (_side(record, columns[role]) for role in ("query", "passage"))
        if query is None and passage is None:
            raise RowProblem(columns["query"], "neither query nor passage")
        yield Item(
            identifier(record, columns["record_id"]),
            language(record, columns["language"]),
            query,
            passage,
            negatives(record.get(columns["negatives"]), columns["negatives"])
            if "negatives" in columns
            else (),
            _split(record, columns.get("split")),
        )


@dataclass(frozen=True)
class WideForm:
    """A row per record, with a column, or a key of a JSON object, per side and language.

    `sided` maps a flat column to its (role, canonical language); `nested` maps a role to the column
    of its objects.
    """

    sided: Mapping[str, tuple[str, str]]
    nested: Mapping[str, str]
    record_id: str | None
    split: str | None

    @property
    def about(self) -> str:
        """What was recognised, for people."""
        ids = (
            f"record id in {self.record_id!r}"
            if self.record_id
            else "records named by file and line"
        )
        if self.nested:
            return f"wide form, texts by language in {', '.join(map(repr, self.nested.values()))}, {ids}"
        found = dict.fromkeys(code for _, code in self.sided.values())
        return f"wide form, {len(found)} languages ({', '.join(found)}), {ids}"

    def items(self, number: int, record: Record) -> Iterator[Item | RowProblem]:
        """The rows of the record. An empty or null cell says that there is no such text in that
        language.
        """
        record_id = identifier(record, self.record_id) if self.record_id else None
        part = _split(record, self.split)
        found: dict[str, dict[str, Any]] = {}
        problem: RowProblem | None = None
        for role, code, field, value in self._cells(record):
            if value is None or value == "":
                continue
            try:
                read = (
                    negatives(value, field) if role == "negatives" else checked_text(value, field)
                )
                sides = found.setdefault(
                    code or known_language(field.rpartition(".")[2], field), {}
                )
            except RowProblem as caught:
                problem = caught
                yield problem
                continue
            if role in sides:
                yield RowProblem(field, "two texts for one language")
            sides.setdefault(role, read)
        rows = {
            code: sides for code, sides in found.items() if "query" in sides or "passage" in sides
        }
        if not rows and not problem:
            raise RowProblem("line", "no query and no passage in any language")
        for code, sides in rows.items():
            yield Item(
                record_id,
                code,
                sides.get("query"),
                sides.get("passage"),
                sides.get("negatives", ()),
                part,
            )

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
    """Lines of documents: a row per line and language (`columns`), or per line with a column per
    language (`texts`).
    """

    columns: Mapping[str, str]
    texts: Mapping[str, str]  # column -> canonical language; empty in the long table
    first: int  # line number of the first record

    @property
    def about(self) -> str:
        """What was recognised, for people."""
        where = (
            f"one column per language ({', '.join(self.texts.values())})"
            if self.texts
            else "a row per language"
        )
        return f"aligned lines, {where}; makes pairs of neighbouring lines"

    def lines(self, number: int, record: Record) -> Iterator[Line]:
        """The lines of the record. Without a column of positions, they are counted from the first
        record.
        """
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


def _split(record: Record, column: str | None) -> Split:
    return split(record, column) if column else "train"


def _side(record: Record, column: str) -> str | None:
    return None if column in record and record[column] is None else text(record, column)


# What a column may be called; where several are there, the first name is taken, and two others are
# an error.
ALIASES = {
    "record_id": ("record_id", "id", "_id", "qid", "query_id", "question_id"),
    "language": ("language", "lang", "locale"),
    "query": ("query", "question"),
    "passage": ("passage", "positive", "context", "answer"),
    "negatives": ("negatives", "hard_negatives", "negative"),
    "split": ("split",),
    "document": ("doc", "document", "document_id", "doc_id"),
    "position": ("pos", "position"),
    "text": ("text", "sentence"),
}
_SIDES = {alias: role for role in ("query", "passage", "negatives") for alias in ALIASES[role]}
_SIDED = re.compile(rf"({'|'.join(_SIDES)})[._](.+)")
_NO_LANGUAGE = {alias for aliases in ALIASES.values() for alias in aliases}
HELP = (
    "a long table has the columns record_id, language, query, passage; a wide one query_LANG and"
    " passage_LANG;"
    " aligned lines have language, pos, text, or a column per language (docs/data.md)"
)


def detect(path: Path) -> Form:
    """The form of a table. Raises `DataError` with the mend if it fits none, or more than one."""
    first_bad = None
    for item in read_records(path):
        if isinstance(item, tuple):
            return form_of(path, *item)
        first_bad = first_bad or item
    reason = f"line {first_bad.line}: {first_bad.reason}" if first_bad else "it holds none"
    raise DataError(f"{path}: no record can be read ({reason}); {HELP}")


def form_of(path: Path, number: int, record: Record) -> Form:
    """The form of a table whose first record is `record`, at line `number`. Raises `DataError`
    naming `path`.
    """
    columns = list(record)
    roles = {role: column for role in ALIASES if (column := _column(path, role, columns))}
    if "query" in roles and "passage" not in roles and "text" in roles:
        roles["passage"] = roles.pop("text")
    forms = list(_candidates(path, number, record, roles))
    if len(forms) == 1:
        return forms[0]
    shown = ", ".join(map(str, columns))
    if forms:
        both = " and ".join(form.about for form in forms)
        raise DataError(
            f"{path}: the columns {shown} fit two forms ({both}); leave out those of one"
        )
    raise DataError(f"{path}: {_missing(roles)} (columns: {shown}); {HELP}")


def _candidates(path: Path, number: int, record: Record, roles: dict[str, str]) -> Iterator[Form]:
    def having(*names: str) -> dict[str, str]:
        return {role: roles[role] for role in names if role in roles}

    if {"record_id", "language", "query", "passage"} <= roles.keys():
        yield LongForm(having("record_id", "language", "query", "passage", "negatives", "split"))
    elif isinstance(record.get(roles.get("query", "")), dict) and "passage" in roles:
        yield WideForm(
            {}, having("query", "passage", "negatives"), roles.get("record_id"), roles.get("split")
        )
    sided = _sided_columns(path, record, strict="query" not in roles)
    if sided:
        yield WideForm(sided, {}, roles.get("record_id"), roles.get("split"))
    if {"language", "position", "text"} <= roles.keys() and "query" not in roles:
        yield AlignedForm(having("document", "position", "split", "language", "text"), {}, number)
    elif texts := _language_columns(path, record):
        yield AlignedForm(having("document", "position", "split"), texts, number)


def _column(path: Path, role: str, columns: list[str]) -> str | None:
    found = [alias for alias in ALIASES[role] if alias in columns]
    if len(found) > 1 and found[0] != ALIASES[role][0]:
        raise DataError(
            f"{path}: the columns {' and '.join(found)} could both be the {role}; rename the right"
            " one"
            f" to {ALIASES[role][0]}"
        )
    return found[0] if found else None


def _sided_columns(path: Path, record: Record, *, strict: bool) -> dict[str, tuple[str, str]]:
    """Column -> (role, language) of columns such as query_sw; `strict`: an unknown language there
    is an error.
    """
    sided: dict[str, tuple[str, str]] = {}
    for column in record:
        match = _SIDED.fullmatch(column)
        if not match or column in _NO_LANGUAGE:
            continue
        try:
            side = _SIDES[match[1]], known_language(match[2], column)
        except RowProblem as problem:
            if strict:
                raise DataError(
                    f"{path}: column {column!r}: {problem.reason}; rename or remove it"
                ) from None
            continue
        twin = next((other for other, taken in sided.items() if taken == side), None)
        if twin:
            raise DataError(
                f"{path}: the columns {twin} and {column} hold the same language; remove one"
            )
        sided[column] = side
    return sided


def _language_columns(path: Path, record: Record) -> dict[str, str]:
    """Column -> language, if every column that is not document, position, split or id is a language
    code.
    """
    texts: dict[str, str] = {}
    for column in record:
        if column in _NO_LANGUAGE:
            continue
        try:
            code = known_language(column, column)
        except RowProblem:
            return {}
        if code in texts.values():
            raise DataError(f"{path}: two columns hold the language {code}; remove one")
        texts[column] = code
    if len(texts) > 1 and "id" in record and next(iter(record)) != "id":
        raise DataError(
            f"{path}: column 'id' may be the line's id or Indonesian; rename it to record_id or to"
            " ind"
        )
    return texts if len(texts) > 1 else {}


def _missing(roles: dict[str, str]) -> str:
    """What keeps the table from being of the form that it is closest to."""
    if "query" in roles or "passage" in roles:
        missing = [
            role for role in ("record_id", "language", "query", "passage") if role not in roles
        ]
        return f"no column for {' and '.join(missing)}"
    if "text" in roles:
        missing = [role for role in ("language", "position") if role not in roles]
        return f"no column for {' and '.join(missing)} of the lines"
    return "no column for a query, a passage or the text of a line"
