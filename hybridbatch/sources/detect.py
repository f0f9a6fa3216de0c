"""Which form a user's table has, by the columns of its first record."""

import re
from collections.abc import Iterator
from pathlib import Path

from hybridbatch.errors import DataError
from hybridbatch.sources.forms import AlignedForm, Form, LongForm, WideForm
from hybridbatch.sources.reading import Record, RowProblem, known_language, read_records

# What a column may be called; where several are there, the first name is taken, and two others are an error.
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
    "a long table has the columns record_id, language, query, passage; a wide one query_LANG and passage_LANG;"
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
    """The form of a table whose first record is `record`, at line `number`. Raises `DataError` naming `path`."""
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
        raise DataError(f"{path}: the columns {shown} fit two forms ({both}); leave out those of one")
    raise DataError(f"{path}: {_missing(roles)} (columns: {shown}); {HELP}")


def _candidates(path: Path, number: int, record: Record, roles: dict[str, str]) -> Iterator[Form]:
    def having(*names: str) -> dict[str, str]:
        return {role: roles[role] for role in names if role in roles}

    if {"record_id", "language", "query", "passage"} <= roles.keys():
        yield LongForm(having("record_id", "language", "query", "passage", "negatives", "split"))
    elif isinstance(record.get(roles.get("query", "")), dict) and "passage" in roles:
        yield WideForm({}, having("query", "passage", "negatives"), roles.get("record_id"), roles.get("split"))
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
            f"{path}: the columns {' and '.join(found)} could both be the {role}; rename the right one"
            f" to {ALIASES[role][0]}"
        )
    return found[0] if found else None


def _sided_columns(path: Path, record: Record, *, strict: bool) -> dict[str, tuple[str, str]]:
    """Column -> (role, language) of columns such as query_sw; `strict`: an unknown language there is an error."""
    sided: dict[str, tuple[str, str]] = {}
    for column in record:
        match = _SIDED.fullmatch(column)
        if not match or column in _NO_LANGUAGE:
            continue
        try:
            side = _SIDES[match[1]], known_language(match[2], column)
        except RowProblem as problem:
            if strict:
                raise DataError(f"{path}: column {column!r}: {problem.reason}; rename or remove it") from None
            continue
        twin = next((other for other, taken in sided.items() if taken == side), None)
        if twin:
            raise DataError(f"{path}: the columns {twin} and {column} hold the same language; remove one")
        sided[column] = side
    return sided


def _language_columns(path: Path, record: Record) -> dict[str, str]:
    """Column -> language, if every column that is not document, position, split or id is a language code."""
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
        raise DataError(f"{path}: column 'id' may be the line's id or Indonesian; rename it to record_id or to ind")
    return texts if len(texts) > 1 else {}


def _missing(roles: dict[str, str]) -> str:
    """What keeps the table from being of the form that it is closest to."""
    if "query" in roles or "passage" in roles:
        missing = [role for role in ("record_id", "language", "query", "passage") if role not in roles]
        return f"no column for {' and '.join(missing)}"
    if "text" in roles:
        missing = [role for role in ("language", "position") if role not in roles]
        return f"no column for {' and '.join(missing)} of the lines"
    return "no column for a query, a passage or the text of a line"
