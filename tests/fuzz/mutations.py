"""Ways in which files go bad, drawn by hypothesis: bits, bytes, pieces, and values of JSON."""

import json
from typing import Any

from hypothesis import strategies as st

NASTY: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 2**63, 2**64, -(2**70), 1e308, -1e308, 1e-320, 0.1, "", " ", "a", "\ud800", "\x00",
    "../../etc/passwd", "/", "=1+1", "<!--<script>", "\u202e", "e\u0301" * 3, "x" * 3000, [], [[]], {}, {"": None},
    [None] * 5, ["a", 1], {"a": {"b": {"c": []}}},
)  # fmt: skip
PIECES = (
    b"", b"\x00", b"\xff", b"\xed\xa0\x80", b"\xef\xbb\xbf", b"\n", b"\r\n", b"\t", b'"', b"'", b",", b"{", b"}", b"[",
    b"]", b"[" * 3000, b'{"a":' * 1200, b"9" * 5000, b"1e308", b"-1", b"NaN", b"Infinity", b"null", b"true",
    b'"\\ud800"', b"\\", b"&", b"<", b"<!--", b"-->", b"=cmd()", b"eng", b"xx", b"&a *a", b": ", b"- ", b"!!python/name",
    b" " * 4000,
)  # fmt: skip


def json_values() -> st.SearchStrategy[Any]:
    """Values that nobody expects, and ordinary ones of another type."""
    leaves = (
        st.sampled_from(NASTY)
        | st.integers()
        | st.floats(allow_nan=False, allow_infinity=False)
        | st.text(max_size=8)
    )
    return st.recursive(
        leaves,
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(st.text(max_size=4), inner, max_size=3)
        ),
        max_leaves=4,
    )


@st.composite
def flipped(draw: st.DrawFn, raw: bytes) -> bytes:
    """One bit is another."""
    place = draw(st.integers(0, 8 * len(raw) - 1))
    content = bytearray(raw)
    content[place // 8] ^= 1 << place % 8
    return bytes(content)


@st.composite
def mangled(draw: st.DrawFn, raw: bytes) -> bytes:
    """One to three changes: bytes lost, doubled, swapped or put in; a cut."""
    for _ in range(draw(st.integers(1, 3))):
        start = draw(st.integers(0, len(raw)))
        length = draw(st.sampled_from((1, 1, 2, 7, 40, 400)))
        piece = draw(st.sampled_from(PIECES) | st.binary(max_size=4))
        kind = draw(st.sampled_from(("flip", "lose", "double", "put", "replace", "cut")))
        if kind == "flip" and raw:
            raw = draw(flipped(raw))
        elif kind == "lose":
            raw = raw[:start] + raw[start + length :]
        elif kind == "double":
            raw = raw[: start + length] + raw[start:]
        elif kind == "put":
            raw = raw[:start] + piece + raw[start:]
        elif kind == "replace":
            raw = raw[:start] + piece + raw[start + max(1, len(piece)) :]
        elif kind == "cut":
            raw = raw[:start]
    return raw


@st.composite
def reshaped(draw: st.DrawFn, raw: bytes) -> bytes:
    """A JSON document in which one value is missing or another; without its checksum, which would
    tell. Lines of JSON: one of the lines.
    """
    lines = raw.splitlines()
    try:
        value = json.loads(raw)
    except ValueError:
        number = draw(st.integers(0, max(0, len(lines) - 1)))
        try:
            lines[number] = _dumped(_changed(draw, json.loads(lines[number])))
        except (ValueError, IndexError):
            return raw
        return b"\n".join(lines)
    if isinstance(value, dict):
        value.pop("checksum", None)
    return _dumped(_changed(draw, value))


def _dumped(value: Any) -> bytes:
    return json.dumps(value, indent=1 if isinstance(value, dict) else None).encode()


def _changed(draw: st.DrawFn, value: Any) -> Any:
    paths = list(_paths(value))
    path = draw(st.sampled_from(paths)) if paths else ()
    if not path:
        return draw(json_values())
    owner = value
    for step in path[:-1]:
        owner = owner[step]
    if draw(st.integers(0, 3)) == 0:
        del owner[path[-1]]
    else:
        owner[path[-1]] = draw(json_values())
    return value


def _paths(value: Any, path: tuple[Any, ...] = ()) -> Any:
    """The places of all values; of long lists the first few, so that all keys get their turn."""
    yield path
    if len(path) > 7:
        return
    if isinstance(value, dict):
        for name in list(value)[:40]:
            yield from _paths(value[name], (*path, name))
    elif isinstance(value, list):
        for number in range(min(3, len(value))):
            yield from _paths(value[number], (*path, number))
