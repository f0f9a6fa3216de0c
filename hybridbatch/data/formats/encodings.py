"""Text files in common encodings, and their lines as text.

UTF-8 is read directly, and an invalid line affects only that line. A byte order mark, or the zero
bytes of UTF-16 without one, shows another encoding. Other encodings are not guessed: bytes that are
not UTF-8 may be Windows-1252 or one of fifty others, so the user names the encoding.
"""

import codecs
import io
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, NamedTuple

from hybridbatch.common.errors import DataError
from hybridbatch.common.files import line_limit, open_lines, open_stream

AUTO = "auto"
_HEAD = 1 << 16
_CHUNK = 1 << 20
_MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32"),  # begins as that of UTF-16 does
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_FOREIGN = (
    (b"PK\x03\x04", "a zip archive or an Excel workbook", "name it .xlsx, or unpack it"),
    (b"\xd0\xcf\x11\xe0", "an old Excel workbook", "save it as .xlsx"),
    (b"\x1f\x8b", "packed with gzip", "name it with .gz at the end"),
    (b"\x28\xb5\x2f\xfd", "packed with zstd", "name it with .zst at the end"),
    (b"PAR1", "Parquet", "name it .parquet"),
    (b"%PDF", "a PDF", "give a table"),
    (b"version https://git-lfs", "a pointer of Git LFS", "fetch the data with `git lfs pull`"),
    (b"<!DOCTYPE html", "a web page", "download the file itself"),
    (b"<!doctype html", "a web page", "download the file itself"),
    (b"<html", "a web page", "download the file itself"),
)


class TextFile(NamedTuple):
    """Facts about a text file that its bytes show."""

    encoding: str
    mac_lines: bool  # whether lines end in carriage returns alone
    first: str  # its first character that is not white space; empty if there is none
    quotes: bool  # whether it holds a double quote
    valid: bool  # whether all of it is valid UTF-8, if UTF-8 is its encoding
    # whether it is known to be valid UTF-8 with lines of usual length that all end in a line feed,
    # with or without a carriage return
    regular: bool = False


def inspect_text(path: Path, encoding: str = AUTO, *, whole: bool = True) -> TextFile:
    """Look through a text file once.

    Args:
        encoding: Python's name of the encoding; `AUTO`: UTF-8, or the encoding that the file's
            first bytes show.
        whole: look through all of it; else only at its first bytes.

    Raises:
        DataError: The file cannot be read, or is not text.
    """
    try:
        with open_stream(path) as stream:
            head = stream.read(_HEAD)
            found = _encoding_of(path, head, encoding)
            quotes, valid, regular = False, True, False
            if whole:
                quotes, valid, regular = _look_through(stream, head, found)
    except DataError:
        with open_lines(path) as lines:  # a damaged file: name the last good line
            for _ in lines:
                pass
        raise
    mac_lines = b"\r" in head and b"\n" not in head and not found.startswith("utf-16")
    start = head.decode(found, "ignore").lstrip("\ufeff").lstrip()
    return TextFile(found, mac_lines, start[:1], quotes, valid, regular)


def _encoding_of(path: Path, head: bytes, chosen: str) -> str:
    for mark, encoding in _MARKS:
        if head.startswith(mark):
            return encoding
    for mark, what, mend in _FOREIGN:
        if head.startswith(mark):
            raise DataError(f"{path}: is {what}, not a table as text; {mend}")
    if chosen != AUTO:
        return chosen
    # The ASCII characters of UTF-16 text have a zero in one of their two bytes, always the same one.
    even, odd = head[::2].count(0), head[1::2].count(0)
    many = (even + odd) * 5 > len(head)
    some = (even + odd) * 50 > len(head)  # Amharic or Chinese with delimiters and line ends
    if many or (some and not _is_valid(codecs.getincrementaldecoder("utf-8")(), head)):
        if even * 10 < odd:
            return "utf-16-le"
        if odd * 10 < even:
            return "utf-16-be"
    if many:
        raise DataError(f"{path}: is not text (a fifth of its bytes are zero); give a table")
    return "utf-8"


def _look_through(stream: BinaryIO, head: bytes, encoding: str) -> tuple[bool, bool, bool]:
    """Whether there is a double quote, whether all of a UTF-8 file is valid, and `regular`."""
    quotes, valid = False, True
    returns = 0  # carriage returns that no line feed follows
    longest = length = 0  # bytes of the longest line, and of the line so far
    decoder = codecs.getincrementaldecoder("utf-8")()
    chunk = head
    while chunk:
        quotes = quotes or b'"' in chunk
        if encoding == "utf-8" and valid:
            valid = _is_valid(decoder, chunk)
        if b"\r" in chunk:
            returns += chunk.count(b"\r") - chunk.count(b"\r\n")
        first, last = chunk.find(b"\n"), chunk.rfind(b"\n")
        length += len(chunk) if first < 0 else first
        longest = max(longest, length)
        if first >= 0:
            length = len(chunk) - last - 1
        chunk = stream.read(_CHUNK)
    if encoding == "utf-8" and valid:
        valid = _is_valid(decoder, b"", final=True)
    usual = line_limit() >= longest + _CHUNK
    return quotes, valid, encoding == "utf-8" and valid and not returns and usual


def _is_valid(decoder: codecs.IncrementalDecoder, chunk: bytes, *, final: bool = False) -> bool:
    try:
        decoder.decode(chunk, final)
    except UnicodeDecodeError:
        return False
    return True


def utf8_lines_of(path: Path) -> tuple[int, int]:
    """The number of invalid UTF-8 lines, and of valid lines with letters beyond ASCII."""
    invalid = valid = 0
    with open_lines(path) as lines:
        for _, raw in lines:
            if raw.isascii():
                continue
            try:
                raw.decode()
                valid += 1
            except UnicodeDecodeError:
                invalid += 1
    return invalid, valid


@contextmanager
def text_lines(path: Path, file: TextFile) -> Iterator[Iterator[tuple[int, str]]]:
    """(number from 1, line without its end) of a text file.

    Bytes that are not UTF-8 become lone surrogates, which later checks of a text find.

    Raises:
        DataError: The file is missing, truncated or otherwise unreadable.
    """
    if file.encoding == "utf-8" and not file.mac_lines:
        with open_lines(path) as lines:
            yield utf8_lines(lines)
        return
    single_byte = not file.encoding.startswith(("utf-16", "utf-32"))
    errors = "surrogateescape" if single_byte else "strict"
    encoding = "utf-8-sig" if file.encoding == "utf-8" else file.encoding
    with open_stream(path) as stream:
        newline = None if file.mac_lines else "\n"
        try:
            yield _numbered(io.TextIOWrapper(stream, encoding, errors, newline))
        except UnicodeError as error:
            raise DataError(
                f"{path}: is not valid {file.encoding} ({error}). The file is cut or damaged,"
                " or has another encoding; name the encoding with --encoding"
            ) from error


@contextmanager
def whole_lines(path: Path, file: TextFile) -> Iterator[Iterator[str]]:
    """The lines of a text file, each with a line feed at its end; the last one may have none.

    Raises:
        DataError: As `text_lines`.
    """
    if file.regular:  # ten times as fast
        with open_stream(path) as stream:
            yield iter(io.TextIOWrapper(stream, "utf-8-sig", newline=None))
    else:
        with text_lines(path, file) as lines:
            yield with_ends(lines)


def with_ends(lines: Iterable[tuple[int, str]]) -> Iterator[str]:
    """Numbered lines without their ends as lines that end in a line feed."""
    return (line + "\n" for _, line in lines)


def _numbered(lines: io.TextIOWrapper) -> Iterator[tuple[int, str]]:
    for number, line in enumerate(lines, 1):
        bare = line.rstrip("\r\n")
        yield number, bare.removeprefix("\ufeff") if number == 1 else bare


def utf8_lines(lines: Iterator[tuple[int, bytes]]) -> Iterator[tuple[int, str]]:
    """Lines of UTF-8 as text; invalid bytes become lone surrogates."""
    for number, raw in lines:
        yield number, raw.decode("utf-8-sig" if number == 1 else "utf-8", "surrogateescape")
