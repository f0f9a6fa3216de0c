"""Recognizes the form of a user's table.

The form is recognized from the names of all columns and a sample of the records. So a language, a
split or negatives that first appear in a later record are not lost.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

from hybridbatch.common.errors import DataError
from hybridbatch.common.texts import listed
from hybridbatch.data.formats.columns import (
    NO_LANGUAGE,
    Columns,
    plain,
    roles_of,
    sided_columns,
)
from hybridbatch.data.formats.table_forms import (
    AlignedForm,
    Form,
    LongForm,
    TranslationForm,
    WideForm,
)
from hybridbatch.data.formats.tables import Record, RowProblem, known_language

HELP = (
    "a long table has the columns record_id, language, query, passage; a wide one query_LANG and"
    " passage_LANG; aligned lines have language, pos, text, or a column per language (docs/data.md)"
)


class NoTexts(DataError):
    """A table has no column of texts; in a folder it may be metadata."""


class Sample(NamedTuple):
    """The data that a form is recognized from."""

    columns: tuple[str, ...]  # of all records
    records: tuple[tuple[int, Record], ...]  # the first ones, with their numbers


def form_of(
    place: str,
    sample: Sample,
    chosen: Mapping[str, str] | None = None,
    fixed: str | None = None,
) -> Form:
    """The form of a table.

    Args:
        place: the table, for errors.
        chosen: role -> column, as the user states.
        fixed: canonical language of rows in tables that do not state one.

    Raises:
        NoTexts: The table has no column of texts.
        DataError: The table fits no form, or more than one; the message has a remedy.
        ConfigError: The table does not allow a choice of the user.
    """
    if len(set(sample.columns)) < len(sample.columns):
        raise DataError(
            f"{place}: the header ({listed(sample.columns)}) has one column name twice; rename one"
            " of the columns"
        )
    columns = roles_of(sample.columns, chosen or {}, place)
    forms = list(_candidates(place, sample, columns, fixed))
    if len(forms) == 1:
        return forms[0]
    shown = listed(sample.columns)
    if forms:
        both = " and ".join(form.about for form in forms)
        raise DataError(
            f"{place}: the columns {shown} fit two forms ({both}); leave out the columns of"
            " one form"
        )
    error = DataError if {"query", "passage", "text"} & columns.roles.keys() else NoTexts
    stated = {**columns.roles, "language": fixed} if fixed else columns.roles
    raise error(f"{place}: {_missing(stated)} (columns: {shown}); {HELP}")


def _candidates(
    place: str, sample: Sample, columns: Columns, fixed: str | None
) -> Iterator[Form]:
    roles = columns.roles

    def having(*names: str) -> dict[str, str]:
        return {role: roles[role] for role in names if role in roles}

    if "query" in roles and "passage" in roles and _holds_objects(sample, roles["query"]):
        nested = having("query", "passage", "negatives")
        yield WideForm({}, nested, roles.get("record_id"), roles.get("split"))
        return
    if {"query", "passage", "language"} <= roles.keys():
        # complete: other columns cannot be languages, whatever their names are
        names = ("record_id", "language", "query", "passage", "split")
        yield LongForm(having(*names), columns.negatives)
        return
    records = [record for _, record in sample.records]
    strict = "query" not in roles
    sided = sided_columns(sample.columns, records, place, strict=strict)
    if {"query", "passage"} <= roles.keys() and fixed:
        yield LongForm(
            having("record_id", "query", "passage", "split"), columns.negatives, fixed
        )
    if sided:
        record_id = roles.get("record_id")
        yield WideForm(sided, {}, None if record_id in sided else record_id, roles.get("split"))
    if "translation" in roles and _holds_objects(sample, roles["translation"]):
        others = frozenset(having("record_id").values())
        yield TranslationForm(roles["translation"], roles.get("split"), others)
    first = sample.records[0][0] if sample.records else 1
    if {"language", "position", "text"} <= roles.keys() and "query" not in roles:
        yield AlignedForm(
            having("document", "position", "split", "language", "text"), {}, first
        )
    elif {"query", "passage"} <= roles.keys():
        return  # columns such as pos_id are no languages
    elif not sided and (texts := _language_columns(place, sample.columns)):
        yield AlignedForm(having("document", "position", "split"), texts, first)


def _holds_objects(sample: Sample, column: str) -> bool:
    """Whether the first record with the column has an object there."""
    values = (record.get(column) for _, record in sample.records)
    return isinstance(next((value for value in values if value is not None), None), Mapping)


def _language_columns(place: str, columns: Iterable[str]) -> dict[str, str]:
    """Column -> language, if every other column is a document, position, split or id."""
    columns = list(columns)
    texts: dict[str, str] = {}
    for column in columns:
        if plain(column) in NO_LANGUAGE:
            continue
        try:
            code = known_language(column, column)
        except RowProblem:
            return {}
        if code in texts.values():
            raise DataError(f"{place}: two columns hold the language {code}; remove one")
        texts[column] = code
    if len(texts) > 1 and "id" in columns and columns[0] != "id":
        raise DataError(
            f"{place}: column 'id' can be the id of the line or Indonesian text; rename it to"
            " record_id or to ind"
        )
    return texts if len(texts) > 1 else {}


def _missing(roles: Mapping[str, str]) -> str:
    """The reason why the table is not of the form that it is closest to."""
    if "query" in roles or "passage" in roles:
        missing = [role for role in ("language", "query", "passage") if role not in roles]
        told = f"no column for {' and '.join(missing)}"
        if missing == ["language"]:
            told += "; if all rows are in one language, name it, as in --language swh"
        return told
    if "text" in roles:
        missing = [role for role in ("language", "position") if role not in roles]
        return f"no column for {' and '.join(missing)} of the lines"
    return "no column for a query, a passage or the text of a line"
