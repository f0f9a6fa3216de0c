"""Tables as text: CSV and TSV in the dialects that programs write.

The delimiter is the character that separates the header: a comma, a semicolon (spreadsheets in most
of Europe), or a tab. CSV is quoted as in RFC 4180. TSV is not quoted, unless the whole file shows
that its writer quotes every cell that contains a quote, as pandas and spreadsheets do.
"""

import csv
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hybridbatch.common.errors import DataError
from hybridbatch.common.files import line_limit
from hybridbatch.common.records import BadRow
from hybridbatch.common.texts import listed

Lines = Iterable[tuple[int, str]]  # number from 1, line without its end
DELIMITERS = {",": "a comma", ";": "a semicolon", "\t": "a tab"}
_HINT = re.compile(r"sep=([,;\t])")
_WHOLE = re.compile('"(?:[^"]|"")*"')
_OPENED = re.compile('"(?:[^"]|"")*')
_CLOSED = re.compile('(?:[^"]|"")*"')


@dataclass(frozen=True)
class Dialect:
    """How a table is written as text."""

    delimiter: str
    quoted: bool
    hint: bool = False  # the first line only names the delimiter ("sep=;")


CSV, TSV = Dialect(",", quoted=True), Dialect("\t", quoted=False)


def dialect_of(lines: Lines, fallback: Dialect, is_column: Callable[[str], bool]) -> Dialect:
    """The dialect that the header shows.

    Args:
        lines: lines of the file, from its first.
        fallback: the dialect that the file's name suggests.
        is_column: whether a header cell is a usual column name.
    """
    for _, line in lines:
        if not line.strip():
            continue
        if match := _HINT.fullmatch(line.strip('"')):
            return Dialect(match[1], quoted=True, hint=True)
        return _best(line, fallback, is_column)
    return fallback


def _best(header: str, fallback: Dialect, is_column: Callable[[str], bool]) -> Dialect:
    """The delimiter that gives the most known columns; the fallback unless another gives more."""

    def known(delimiter: str) -> int:
        try:
            cells = next(csv.reader([header], delimiter=delimiter), [])
        except csv.Error:  # a line end in the middle, which the reader will report
            cells = header.split(delimiter)
        return sum(is_column(cell.strip()) for cell in cells)

    counts = {delimiter: known(delimiter) for delimiter in DELIMITERS if delimiter in header}
    if not counts:
        return fallback
    most = max(counts.values())
    if fallback.delimiter in counts and counts[fallback.delimiter] == most:
        return fallback
    found = next(delimiter for delimiter in counts if counts[delimiter] == most)
    return Dialect(found, quoted=fallback.quoted or found != "\t")


def is_quoted(lines: Lines, path: Path) -> bool:
    """Whether the writer of a tab-separated file quotes cells.

    Such programs quote every cell that holds a quote, a tab or a line end, and double the quotes in
    it. So the file counts as quoted if every cell with a quote in it has this form, and at least
    one cell proves it: its quotes are doubled, or it holds a tab or a line end, or it is in the
    header.

    Raises:
        DataError: The file is quoted, but its last quote is never closed.
    """
    evidence = False
    opened = 0  # line of the quote that is open
    for number, line in lines:
        if '"' not in line:
            continue
        for cell in line.split("\t"):
            if opened:
                if _CLOSED.fullmatch(cell):
                    opened, evidence = 0, True
                elif not re.fullmatch('(?:[^"]|"")*', cell):
                    return False
            elif '"' not in cell:
                continue
            elif _WHOLE.fullmatch(cell):
                evidence = evidence or number == 1 or '""' in cell[1:-1]
            elif _OPENED.fullmatch(cell):
                opened = number
            else:
                return False
    if opened and evidence:
        raise DataError(f"{path}:{opened}: {OPEN_QUOTE}")
    return evidence and not opened


ENOUGH = 12  # delimiters in the inner lines of a cell that are no chance
OPEN_QUOTE = (
    "the quote that opens in this line is never closed, so the rest of the file would be lost; it"
    " is damaged or cut: close the quote, or fetch the file again"
)


def table_records(
    lines: Iterable[str], dialect: Dialect, name: str, header: list[str] | None = None
) -> Iterator[tuple[int, Mapping[str, Any]] | BadRow]:
    """The records of a table, numbered by their first lines.

    Columns without a name and blank lines are skipped.

    Args:
        lines: lines of the file, from its first, each with a line feed at its end.
        name: name of the file, for errors.
        header: the names of the columns, if the file does not have them.

    Raises:
        DataError: A column name occurs twice, or a quote is never closed, or is closed only after
            lines that look like rows.
    """
    rows = _quoted_rows(lines, dialect, name) if dialect.quoted else _plain_rows(lines, dialect)
    if dialect.hint:
        next(rows, None)
    kept: list[int] = []
    width = 0
    usual = 0  # number of cells of a usual row, if every column has a name; else 0
    for item in rows:
        if usual and type(item) is tuple and len(item[2]) == usual and item[0] == item[1]:
            yield item[0], dict(zip(header or (), item[2], strict=True))
            continue
        if isinstance(item, BadRow):
            yield item
            continue
        number, last, cells = item
        if cells in ([], [""]):
            continue
        if header is None:
            header = [cell.strip() for cell in cells]
            _check_header(header, name, number)
            header, kept, width = _named(header)
            usual = width if width == len(header) > 1 else 0
            continue
        if not width:
            header, kept, width = _named(header)
        if last > number and _holds_rows(cells, dialect.delimiter, width):
            raise DataError(
                f"{name}:{number}: the quote that opens in this line ends only in line {last}, and"
                f" the lines between look like rows of {width} fields; mend the quotes, or give the"
                " table as JSON Lines if the cell is right"
            )
        if len(cells) == width == len(header):
            yield number, dict(zip(header, cells, strict=True))
        elif (fitting := _fitted(cells, kept, width)) is not None:
            yield number, dict(zip(header, fitting, strict=True))
        elif last > number:
            # A quote that opens by mistake swallows lines until another quote ends it.
            raise DataError(
                f"{name}:{number}: the quote that opens in this line ends only in line {last},"
                f" which gives {len(cells)} fields where the header has {width}; mend the quotes"
            )
        else:
            yield BadRow(
                name, number, "line", f"{len(cells)} fields where the header has {width}"
            )


def _holds_rows(cells: list[str], delimiter: str, width: int) -> bool:
    """Whether a cell of several lines holds rows, because its quote opened by mistake.

    Then every inner line has the delimiters of a row, and the last line those of a row up to this
    cell. There must be `ENOUGH` delimiters, because a line of prose may have a comma, too.
    """
    for place, cell in enumerate(cells):
        inner = [line for line in cell.split("\n")[1:] if line.strip()]
        counts = [line.count(delimiter) for line in inner]
        expected = [width - 1] * (len(inner) - 1) + [place]
        if sum(counts[:-1]) >= ENOUGH and counts == expected:
            return True
    return False


def _check_header(header: list[str], name: str, number: int) -> None:
    named = [cell for cell in header if cell]
    if len(set(named)) < len(named):
        raise DataError(
            f"{name}:{number}: the header ({listed(named)}) has one column name twice; rename one of"
            " the columns"
        )


def _named(header: list[str]) -> tuple[list[str], list[int], int]:
    """The names, the places of the columns that have one, and the total number of columns."""
    kept = [place for place, cell in enumerate(header) if cell]
    return [header[place] for place in kept], kept, len(header)


def _fitted(cells: list[str], kept: list[int], width: int) -> list[str] | None:
    """The cells of the named columns; None unless the row fits the header apart from empty cells."""
    needed = kept[-1] + 1 if kept else 0
    if len(cells) < needed or any(cell.strip() for cell in cells[width:]):
        return None
    return [cells[place] for place in kept]


def _plain_rows(
    lines: Iterable[str], dialect: Dialect
) -> Iterator[tuple[int, int, list[str]] | BadRow]:
    delimiter = dialect.delimiter
    for number, line in enumerate(lines, 1):
        yield number, number, line.removesuffix("\n").split(delimiter)


def _quoted_rows(
    lines: Iterable[str], dialect: Dialect, name: str
) -> Iterator[tuple[int, int, list[str]] | BadRow]:
    """(first line, last line, cells) of each row, strictly read."""
    most = line_limit()
    csv.field_size_limit(min(most, sys.maxsize))  # a cell may hold a whole document
    reader = csv.reader(lines, delimiter=dialect.delimiter, strict=True)
    while True:
        first = reader.line_num + 1
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            if "unexpected end of data" in str(error):
                raise DataError(f"{name}:{first}: {OPEN_QUOTE}") from error
            if "field limit" in str(error):
                raise DataError(
                    f"{name}:{first}: has more than {most:,} letters in one cell; to read longer"
                    " cells, set HYBRIDBATCH_MAX_LINE=1GB in the environment"
                ) from error
            if reader.line_num > first:
                raise DataError(
                    f"{name}:{first}: the quote that opens in this line meets another one in line"
                    f" {reader.line_num} ({error}), so the lines between would be lost; mend the"
                    " quotes"
                ) from error
            yield BadRow(name, first, "line", f"malformed CSV ({error})")
            continue
        yield first, reader.line_num, cells
