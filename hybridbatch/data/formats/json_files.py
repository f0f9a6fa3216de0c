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

Numbered = tuple[int, Mapping[str, Any]]
_BLOCK = 512  # lines that are parsed at once
_ROUNDED = 2**63  # longer integers than these become rounded numbers in orjson


def parse_json(raw: bytes | str) -> Any:
    """The value of a JSON text, fast. Raises: as `json.loads`, with its messages."""
    if isinstance(raw, str):
        try:
            raw = raw.encode()
        except UnicodeEncodeError:
            return json.loads(raw)
    try:
        value = orjson.loads(raw)
    except orjson.JSONDecodeError:
        return json.loads(raw.decode())  # says what is wrong, and takes a little more
    # An id of twenty digits would be a rounded number; `json` keeps all of them.
    if isinstance(value, dict) and float in map(type, value.values()):
        numbers = [number for number in value.values() if type(number) is float]
        if max(map(abs, numbers)) >= _ROUNDED:
            return json.loads(raw.decode())
    return value


def json_type(value: Any) -> str:
    """What JSON calls the type of a value."""
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
    """The records of JSON Lines; blank lines are passed over.

    Args:
        lines: (number from 1, line), as bytes of UTF-8 or as text.
        name: of the file, for bad rows.
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
    """The record of a line, or why it is none; nothing for a blank line."""
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
    # a number of thousands of digits, brackets without end
    except (ValueError, RecursionError):
        yield BadRow(name, number, "line", "malformed JSON")
    else:
        if isinstance(record, dict):
            yield number, record
        else:
            reason = f"must be a JSON object, not {json_type(record)}"
            yield BadRow(name, number, "line", reason)


def shapes_of(lines: Iterable[tuple[int, bytes]]) -> set[tuple[str, ...]] | None:
    """The names of the fields of the records of JSON Lines in UTF-8, in every order that occurs.

    Many lines are parsed at once, which is faster than `json_line_records`. None if some lines
    cannot be read so, such as malformed ones.
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

    An object with one list of objects in it, such as ``{"data": [...]}``, is read like that list.
    Raises: `DataError` naming the line for malformed JSON, and for JSON that is no table.
    """
    with open_stream(path) as stream:
        raw = stream.read()
    try:
        text = raw.decode("utf-8-sig" if encoding == "utf-8" else encoding)
    except UnicodeDecodeError as error:
        raise DataError(
            f"{path}: not valid {encoding} at byte {error.start + 1}; if it is in another encoding,"
            " name it with --encoding"
        ) from error
    try:
        value = parse_json(text)
    except json.JSONDecodeError as error:
        raise DataError(
            f"{path}:{error.lineno}: malformed JSON ({error.msg}); is the file cut?"
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
