"""JSON Lines, and JSON files that hold all their records in one array."""

import json
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

import orjson

from hybridbatch.common.errors import DataError
from hybridbatch.common.files import open_stream
from hybridbatch.common.records import BadRow
from hybridbatch.data.formats.arrow_files import column_limit

Numbered = tuple[int, Mapping[str, Any]]
_BLOCK = 512  # lines parsed at once
_ROUNDED = 2**63  # orjson rounds integers longer than these


def parse_json(raw: bytes | str) -> Any:
    """The value of a JSON text, parsed fast; errors are those of `json.loads`."""
    if isinstance(raw, str):
        try:
            raw = raw.encode()
        except UnicodeEncodeError:
            return json.loads(raw)
    try:
        value = orjson.loads(raw)
    except orjson.JSONDecodeError:
        return json.loads(raw.decode())  # slower, but its message says what is wrong
    # orjson would round an id of twenty digits; `json` keeps all digits.
    if isinstance(value, dict) and float in map(type, value.values()):
        numbers = [number for number in value.values() if type(number) is float]
        if max(map(abs, numbers)) >= _ROUNDED:
            return json.loads(raw.decode())
    return value


def json_type(value: Any) -> str:
    """JSON's name for the type of a value."""
    if isinstance(value, Mapping):
        return "an object"
    names = {
        type(None): "null",
        bool: "a truth value",
        int: "a number",
        float: "a number",
        list: "a list",
    }
    return names.get(type(value), type(value).__name__)


def json_line_records(
    lines: Iterable[tuple[int, bytes | str]], name: str
) -> Iterator[Numbered | BadRow]:
    """The records of JSON Lines; blank lines are skipped.

    Args:
        lines: (number from 1, line), as bytes of UTF-8 or as text.
        name: name of the file, for bad rows.
    """
    for number, raw in lines:
        try:
            record = orjson.loads(raw)
        except orjson.JSONDecodeError:
            record = None
        if type(record) is dict and float not in map(type, record.values()):
            yield number, record
        else:
            yield from _carefully(number, raw, name)


def _carefully(number: int, raw: bytes | str, name: str) -> Iterator[Numbered | BadRow]:
    """The record of a line, or the reason why it is bad; nothing for a blank line."""
    if number == 1:
        raw = _without_mark(raw)
    if not raw.strip():
        return
    try:
        record = parse_json(raw)
    except UnicodeDecodeError:
        yield BadRow(name, number, "line", "not valid UTF-8")
    except json.JSONDecodeError as error:
        yield BadRow(name, number, "line", f"malformed JSON ({error.msg})")
    # a number of thousands of digits, or endless brackets
    except (ValueError, RecursionError):
        yield BadRow(name, number, "line", "malformed JSON")
    else:
        if isinstance(record, dict):
            yield number, record
        else:
            reason = f"must be a JSON object, not {json_type(record)}"
            yield BadRow(name, number, "line", reason)


def shapes_of(lines: Iterable[tuple[int, bytes]]) -> set[tuple[str, ...]] | None:
    """The field names of the records of UTF-8 JSON Lines, in every order that occurs.

    Many lines are parsed at once, which is faster than `json_line_records`. The result is None if
    some lines cannot be read this way, for example malformed lines.
    """
    shapes: set[tuple[str, ...]] = set()
    lines = iter(lines)
    while block := list(islice(lines, _BLOCK)):
        filled = [raw for _, raw in block if raw and not raw.isspace()]
        if block[0][0] == 1 and filled:
            filled[0] = filled[0].removeprefix(b"\xef\xbb\xbf")
        try:
            records = orjson.loads(b"[" + b",".join(filled) + b"]")
        except orjson.JSONDecodeError:
            return None
        if len(records) != len(filled) or not all(type(record) is dict for record in records):
            return None
        shapes.update(map(tuple, records))
    return shapes


def _without_mark(raw: bytes | str) -> bytes | str:
    if isinstance(raw, bytes):
        return raw.removeprefix(b"\xef\xbb\xbf")
    return raw.removeprefix("\ufeff")


def array_records(path: Path, name: str, encoding: str) -> Iterator[Numbered | BadRow]:
    """The objects of a file that is one JSON array, numbered from 1; the file is held in memory.

    An object that holds one list of objects, such as ``{"data": [...]}``, is read like that list.

    Raises:
        DataError: The JSON is malformed (the message names the line), is not a table, or unpacks to
            more than a column of Parquet may.
    """
    most = column_limit()
    with open_stream(path) as stream:
        raw = stream.read(most + 1)
    if len(raw) > most:
        raise DataError(
            f"{path}: has more than {most:,} bytes in one array; write one object a line"
            " (.jsonl), or set HYBRIDBATCH_MAX_COLUMN=16GB in the environment"
        )
    try:
        text = raw.decode("utf-8-sig" if encoding == "utf-8" else encoding)
    except UnicodeDecodeError as error:
        raise DataError(
            f"{path}: is not valid {encoding} at byte {error.start + 1}; if the file has"
            " another encoding, name it with --encoding"
        ) from error
    try:
        value = parse_json(text)
    except json.JSONDecodeError as error:
        raise DataError(
            f"{path}:{error.lineno}: malformed JSON ({error.msg}); check whether the file is"
            " cut off"
        ) from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: malformed JSON; write one object a line (.jsonl)") from error
    for number, record in enumerate(_list_in(value, path), 1):
        if isinstance(record, dict):
            yield number, record
        else:
            reason = f"must be a JSON object, not {json_type(record)}"
            yield BadRow(name, number, "line", reason)


def _list_in(value: Any, path: Path) -> list[Any]:
    if isinstance(value, list):
        return value
    if isinstance(value, dict):
        lists = [part for part in value.values() if isinstance(part, list)]
        if len(lists) == 1 and lists[0] and isinstance(lists[0][0], dict):
            return lists[0]
        return [value]
    raise DataError(
        f"{path}: is {json_type(value)}, not a table; write an array of objects, or one object a"
        " line"
    )
