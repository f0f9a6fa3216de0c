"""Tables of records read one at a time: JSON Lines, TSV, CSV (plain, ``.gz``, ``.zst``) and
Parquet.

A record that cannot be used becomes a `BadRow` and the reading goes on; only a damaged file stops
it.
"""

import csv
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from hybridbatch.common.errors import DataError, HybridBatchError
from hybridbatch.common.files import open_lines
from hybridbatch.common.records import BadRow, Row, Split

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
# what invalid UTF-8 is decoded to, and what no UTF-8 can hold
_LONE_SURROGATE = re.compile("[\ud800-\udfff]")
_SPLITS: dict[str, Split] = {
    "train": "train",
    "training": "train",
    "validation": "validation",
    "valid": "validation",
    "val": "validation",
    "dev": "validation",
    "test": "test",
}


class RowProblem(Exception):
    """Why a record cannot be used; `convert` makes a `BadRow` of it."""

    def __init__(self, field: str, reason: str) -> None:
        super().__init__(reason)
        self.field, self.reason = field, reason


def kind(path: Path) -> str | None:
    """json, tsv, csv or parquet by the file's name; None if it is none of them."""
    name = Path(path.stem) if path.suffix in _PACKED else path
    found = KINDS.get(name.suffix.lower())
    return None if found == "parquet" and name != path else found


def bare_name(path: Path) -> str:
    """The file's name without the suffixes that say its kind."""
    name = Path(path.stem) if path.suffix in _PACKED else Path(path.name)
    return name.stem if name.suffix.lower() in KINDS else path.name


def read_records(path: Path, name: str | None = None) -> Iterator[Numbered | BadRow]:
    """The records of a file, with their line numbers.

    Args:
        path: the file; its kind is known by its name.
        name: how bad rows call it; default: the path.
    Raises: `DataError` for a missing, truncated or otherwise unreadable file.
    """
    readers = {
        "json": _json_records,
        "tsv": _tsv_records,
        "csv": _csv_records,
        "parquet": _parquet_records,
    }
    found = kind(path)
    if found is None:
        raise DataError(f"{path}: {UNKNOWN_KIND}")
    return readers[found](path, name or str(path))


def convert(
    path: Path, name: str, parse: Callable[[int, Record], Iterable[Row | BadRow]]
) -> Iterator[Row | BadRow]:
    """The rows that `parse` makes of each (line, record) of a file.

    A `RowProblem` that it raises becomes a `BadRow` of file `name`. Raises: `DataError` as
    `read_records`.
    """
    return convert_records(read_records(path, name), name, parse)


def convert_records(
    records: Iterable[Numbered | BadRow],
    name: str,
    parse: Callable[[int, Record], Iterable[Row | BadRow]],
) -> Iterator[Row | BadRow]:
    """As `convert`, for records that have been read by other means."""
    for item in records:
        if isinstance(item, BadRow):
            yield item
            continue
        try:
            yield from parse(*item)
        except RowProblem as problem:
            yield BadRow(name, item[0], problem.field, problem.reason)


def absorb(path: Path, name: str, take: Callable[[Record], None]) -> Iterator[BadRow]:
    """Hand every record of a file to `take`; yields what is bad in it, `RowProblem` included, as
    `convert`.
    """
    return absorb_records(read_records(path, name), name, take)


def absorb_records(
    records: Iterable[Numbered | BadRow], name: str, take: Callable[[Record], None]
) -> Iterator[BadRow]:
    """As `absorb`, for records that have been read by other means."""
    for item in records:
        if isinstance(item, BadRow):
            yield item
            continue
        try:
            take(item[1])
        except RowProblem as problem:
            yield BadRow(name, item[0], problem.field, problem.reason)


def text(record: Record, field: str) -> str:
    """The text of a field. Raises `RowProblem` if it is missing, of another type, empty, or cannot
    be UTF-8.
    """
    if field not in record:
        raise RowProblem(field, "missing")
    return checked_text(record[field], field)


def spaced(text: str) -> str:
    """`text` without byte order marks, white space of every kind as single blanks."""
    return " ".join(text.replace("\ufeff", "").split())


def checked_text(value: Any, field: str) -> str:
    """`value`, if it is a text that can be used. Raises `RowProblem`."""
    if not isinstance(value, str):
        raise RowProblem(field, f"must be text, not {_json_type(value)}")
    if _LONE_SURROGATE.search(value):
        raise RowProblem(field, "not valid UTF-8")
    if not value.strip():
        raise RowProblem(field, "empty")
    return value


def identifier(record: Record, field: str) -> str:
    """An id: text or a whole number. Raises `RowProblem`."""
    value = record.get(field)
    return (
        str(value)
        if isinstance(value, int) and not isinstance(value, bool)
        else text(record, field)
    )


def position(record: Record, field: str) -> int:
    """A whole number, perhaps written as text. Raises `RowProblem`."""
    value = record.get(field)
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise RowProblem(field, f"must be a whole number, not {_json_type(value)}")
    try:
        return int(value)
    except ValueError:
        raise RowProblem(field, "must be a whole number") from None


def language(record: Record, field: str) -> str:
    """The canonical id of a language code. Raises `RowProblem` with the nearest names if it is
    unknown.
    """
    return known_language(text(record, field), field)


def known_language(code: str, field: str) -> str:
    """The canonical id of `code`. Raises `RowProblem` with the nearest names if it is unknown."""
    found = _canonical(code)
    if isinstance(found, HybridBatchError):
        raise RowProblem(field, str(found))
    return found


def split(record: Record, field: str) -> Split:
    """Train, validation or test, under the names people give them. Raises `RowProblem`."""
    value = text(record, field)
    if value.lower() not in _SPLITS:
        raise RowProblem(field, f"{value!r} is no split; use train, validation or test")
    return _SPLITS[value.lower()]


@cache
def _canonical(code: str) -> str | HybridBatchError:
    from hybridbatch.common.languages import canonical

    try:
        return canonical(code)
    except HybridBatchError as error:
        return error


def _json_type(value: Any) -> str:
    names = {
        type(None): "null",
        bool: "a truth value",
        int: "a number",
        float: "a number",
        list: "a list",
    }
    return names.get(
        type(value), "an object" if isinstance(value, Mapping) else type(value).__name__
    )


def _json_records(path: Path, name: str) -> Iterator[Numbered | BadRow]:
    with open_lines(path) as lines:
        for number, raw in lines:
            if not raw.strip():
                continue
            try:
                record = json.loads(raw.decode("utf-8-sig" if number == 1 else "utf-8"))
            except UnicodeDecodeError:
                yield BadRow(name, number, "line", "not valid UTF-8")
            except json.JSONDecodeError as error:
                yield BadRow(name, number, "line", f"malformed JSON ({error.msg})")
            # a number of thousands of digits, brackets without end
            except (ValueError, RecursionError):
                yield BadRow(name, number, "line", "malformed JSON")
            else:
                if isinstance(record, dict):
                    yield number, record
                else:
                    yield BadRow(
                        name, number, "line", f"must be a JSON object, not {_json_type(record)}"
                    )


def _text_lines(lines: Iterable[tuple[int, bytes]]) -> Iterator[str]:
    """Lines as text, with their ends; bytes that are not UTF-8 become lone surrogates, found when a
    cell is looked at.
    """
    for number, raw in lines:
        yield raw.decode("utf-8-sig" if number == 1 else "utf-8", "surrogateescape") + "\n"


def _tsv_records(path: Path, name: str) -> Iterator[Numbered | BadRow]:
    """Tab-separated, no quoting: a tab or a line end cannot be part of a cell."""
    with open_lines(path) as lines:
        cells = (line[:-1].split("\t") for line in _text_lines(lines))
        yield from _with_header(enumerate(cells, 1), name)


def headless_records(path: Path, name: str, columns: list[str]) -> Iterator[Numbered | BadRow]:
    """The records of tab-separated text without a header, plain or packed. Raises: `DataError` as
    `read_records`.
    """
    with open_lines(path) as lines:
        cells = (line[:-1].split("\t") for line in _text_lines(lines))
        yield from _with_header(enumerate(cells, 1), name, columns)


def _csv_records(path: Path, name: str) -> Iterator[Numbered | BadRow]:
    """RFC 4180; a quoted cell may span lines, and its record is numbered by its first one."""
    with open_lines(path) as lines:
        reader = csv.reader(_text_lines(lines), strict=True)

        def numbered() -> Iterator[tuple[int, list[str]] | BadRow]:
            while True:
                first = reader.line_num + 1
                try:
                    yield first, next(reader)
                except StopIteration:
                    return
                except csv.Error as error:
                    yield BadRow(name, first, "line", f"malformed CSV ({error})")

        yield from _with_header(numbered(), name)


def _with_header(
    rows: Iterable[tuple[int, list[str]] | BadRow], name: str, header: list[str] | None = None
) -> Iterator[Numbered | BadRow]:
    for item in rows:
        if isinstance(item, BadRow):
            yield item
            continue
        number, cells = item
        if cells in ([], [""]):
            continue
        if header is None:
            header = [cell.strip() for cell in cells]
            if len(set(header)) < len(header):
                raise DataError(
                    f"{name}:{number}: a column name occurs twice in the header {header}; rename"
                    " one"
                )
        elif len(cells) != len(header):
            yield BadRow(
                name, number, "line", f"{len(cells)} fields where the header has {len(header)}"
            )
        else:
            yield number, dict(zip(header, cells, strict=True))


def _parquet_records(path: Path, name: str) -> Iterator[Numbered | BadRow]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    number = 0
    try:
        with pq.ParquetFile(path) as table:
            for batch in table.iter_batches(batch_size=4096):
                columns = [_column_values(column) for column in batch.columns]
                for values in zip(*columns, strict=True):
                    number += 1
                    yield number, dict(zip(batch.schema.names, values, strict=True))
    except (pa.ArrowException, OSError) as error:
        reason = str(error).splitlines()[0]
        raise DataError(
            f"{path}: cannot be read as Parquet after row {number} ({reason}); write it anew"
        ) from error


def _column_values(column: Any) -> list[Any]:
    try:
        return column.to_pylist()
    except UnicodeDecodeError:
        import pyarrow as pa

        raw = column.cast(pa.large_binary()).to_pylist()
        return [
            value if value is None else value.decode("utf-8", "surrogateescape") for value in raw
        ]
