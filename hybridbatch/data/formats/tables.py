"""Reads tables one record at a time: JSON Lines, TSV, CSV (plain, ``.gz``, ``.zst``) and Parquet.

A record that cannot be used becomes a `BadRow`, and reading continues. Only a damaged file stops
it.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from hybridbatch.common.errors import DataError, HybridBatchError
from hybridbatch.common.files import open_lines
from hybridbatch.common.records import BadRow, Row, Split
from hybridbatch.common.texts import is_blank, shortened
from hybridbatch.data.formats.arrow_files import parquet_records
from hybridbatch.data.formats.delimited import CSV, TSV, table_records
from hybridbatch.data.formats.encodings import utf8_lines, with_ends
from hybridbatch.data.formats.json_files import json_line_records, json_type

Record = Mapping[str, Any]
Numbered = tuple[int, Record]  # line (Parquet: row) number from 1, record
KINDS = {
    ".jsonl": "json",
    ".ndjson": "json",
    ".json": "json",
    ".tsv": "tsv",
    ".csv": "csv",
    ".parquet": "parquet",
}
_PACKED = (".gz", ".zst")
UNKNOWN_KIND = "unknown kind of file; give .jsonl, .tsv, .csv (also .gz, .zst) or .parquet"
SPLIT_NAMES: dict[str, Split] = {
    "train": "train",
    "training": "train",
    "validation": "validation",
    "valid": "validation",
    "val": "validation",
    "dev": "validation",
    "test": "test",
    "testing": "test",
    "eval": "test",
    "evaluation": "test",
}


_KNOWN: dict[str, str] = {}  # canonical languages by the codes read so far


class RowProblem(Exception):
    """The reason why a record cannot be used; `convert` turns it into a `BadRow`."""

    def __init__(self, field: str, reason: str) -> None:
        super().__init__(reason)
        self.field, self.reason = shortened(field), shortened(reason, 240)


def kind(path: Path) -> str | None:
    """json, tsv, csv or parquet by the file's name; None for other names."""
    name = Path(path.stem) if path.suffix in _PACKED else path
    found = KINDS.get(name.suffix.lower())
    return None if found == "parquet" and name != path else found


def bare_name(path: Path) -> str:
    """The file's name without the suffixes of its kind."""
    name = Path(path.stem) if path.suffix in _PACKED else Path(path.name)
    return name.stem if name.suffix.lower() in KINDS else path.name


def read_records(path: Path, name: str | None = None) -> Iterator[Numbered | BadRow]:
    """The records of a file, with their line numbers.

    Args:
        path: the file; its name shows its kind.
        name: the file's name in bad rows; default: the path.

    Raises:
        DataError: The file is missing, truncated or otherwise unreadable.
    """
    readers = {
        "json": _json_records,
        "tsv": _tsv_records,
        "csv": _csv_records,
    }
    found = kind(path)
    if found is None:
        raise DataError(f"{path}: {UNKNOWN_KIND}")
    if found == "parquet":
        return parquet_records(path)
    return readers[found](path, name or str(path))


def convert(
    path: Path, name: str, parse: Callable[[int, Record], Iterable[Row | BadRow]]
) -> Iterator[Row | BadRow]:
    """The rows that `parse` makes of each (line, record) of a file.

    If `parse` raises `RowProblem`, the record becomes a `BadRow` of file `name`.

    Raises:
        DataError: See `read_records`.
    """
    return convert_records(read_records(path, name), name, parse)


def convert_records(
    records: Iterable[Numbered | BadRow],
    name: str,
    parse: Callable[[int, Record], Iterable[Row | BadRow]],
) -> Iterator[Row | BadRow]:
    """As `convert`, for records that are read by other means."""
    for item in records:
        if isinstance(item, BadRow):
            yield item
            continue
        try:
            yield from parse(*item)
        except RowProblem as problem:
            yield BadRow(name, item[0], problem.field, problem.reason)


def absorb(path: Path, name: str, take: Callable[[Record], None]) -> Iterator[BadRow]:
    """Pass every record of a file to `take`, and yield its bad records.

    A `RowProblem` makes a bad record, as in `convert`.
    """
    return absorb_records(read_records(path, name), name, take)


def absorb_records(
    records: Iterable[Numbered | BadRow], name: str, take: Callable[[Record], None]
) -> Iterator[BadRow]:
    """As `absorb`, for records that are read by other means."""
    for item in records:
        if isinstance(item, BadRow):
            yield item
            continue
        try:
            take(item[1])
        except RowProblem as problem:
            yield BadRow(name, item[0], problem.field, problem.reason)


def text(record: Record, field: str) -> str:
    """The text of a field.

    Raises:
        RowProblem: The text is missing, of another type, empty, or cannot be UTF-8.
    """
    if field not in record:
        raise RowProblem(field, "missing")
    return checked_text(record[field], field)


def spaced(text: str) -> str:
    """`text` without byte order marks, with white space of every kind as single blanks."""
    return " ".join(text.replace("\ufeff", "").split())


def checked_text(value: Any, field: str) -> str:
    """`value`, if it is a usable text.

    Raises:
        RowProblem: It is not.
    """
    if not isinstance(value, str):
        raise RowProblem(field, f"must be text, not {json_type(value)}")
    if not value.isascii():
        try:
            value.encode()  # fails at lone surrogates, which stand for invalid UTF-8
        except UnicodeEncodeError:
            raise RowProblem(field, "not valid UTF-8") from None
    if not "!" <= value[:1] <= "~" and is_blank(value):
        raise RowProblem(field, "empty")
    return value


def identifier(record: Record, field: str) -> str:
    """An id: text or a whole number, which Parquet may hold as 1.0.

    Raises:
        RowProblem: The field has no id.
    """
    value = record.get(field)
    if type(value) is str:
        return checked_text(value, field)
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    return text(record, field)


def position(record: Record, field: str) -> int:
    """A whole number, possibly written as text.

    Raises:
        RowProblem: The field has no whole number.
    """
    value = record.get(field)
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise RowProblem(field, f"must be a whole number, not {json_type(value)}")
    try:
        return int(value)
    except ValueError:
        raise RowProblem(field, "must be a whole number") from None


def language(record: Record, field: str) -> str:
    """The canonical id of a language code.

    Raises:
        RowProblem: The code is unknown; the message has the nearest names.
    """
    code = record.get(field)
    if type(code) is str and code in _KNOWN:
        return _KNOWN[code]
    code = text(record, field)
    _KNOWN[code] = known_language(code, field)
    return _KNOWN[code]


def known_language(code: str, field: str) -> str:
    """The canonical id of `code`.

    Raises:
        RowProblem: The code is unknown; the message has the nearest names.
    """
    found = _canonical(code)
    if isinstance(found, HybridBatchError):
        raise RowProblem(field, str(found))
    return found


def split(record: Record, field: str) -> Split:
    """Train, validation or test, under any of their usual names.

    Raises:
        RowProblem: The name is unknown.
    """
    value = text(record, field)
    name = value.strip().lower()
    if name not in SPLIT_NAMES:
        raise RowProblem(field, f"{value!r} is no split; use train, validation or test")
    return SPLIT_NAMES[name]


@cache
def _canonical(code: str) -> str | HybridBatchError:
    from hybridbatch.common.languages import language_of_texts

    try:
        return language_of_texts(code)
    except HybridBatchError as error:
        return error


def _json_records(path: Path, name: str) -> Iterator[Numbered | BadRow]:
    with open_lines(path) as lines:
        yield from json_line_records(lines, name)


def _tsv_records(path: Path, name: str) -> Iterator[Numbered | BadRow]:
    """Tab-separated without quoting: a tab or a line end cannot be part of a cell."""
    with open_lines(path) as lines:
        yield from table_records(with_ends(utf8_lines(lines)), TSV, name)


def headless_records(path: Path, name: str, columns: list[str]) -> Iterator[Numbered | BadRow]:
    """The records of tab-separated text without a header, plain or packed.

    Raises:
        DataError: See `read_records`.
    """
    with open_lines(path) as lines:
        yield from table_records(with_ends(utf8_lines(lines)), TSV, name, columns)


def _csv_records(path: Path, name: str) -> Iterator[Numbered | BadRow]:
    """RFC 4180; a quoted cell may span lines, and the first line numbers its record."""
    with open_lines(path) as lines:
        yield from table_records(with_ends(utf8_lines(lines)), CSV, name)
