"""Workbooks of spreadsheet programs (.xlsx, .xls, .ods), read by the library calamine."""

import datetime
import re
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hybridbatch.common.errors import ConfigError, DataError, first_line

SUFFIXES = (".xlsx", ".xlsm", ".xls", ".ods")
# cells up to the last row and column of a sheet; calamine reserves 24 bytes for each
MOST_CELLS = 1 << 27
_SHEET = re.compile(r"(?:.*/)?worksheets/[^/]+\.xml")
_CELL = re.compile(
    rb"""<(?:\w{1,20}:)?c\s(?:[^<>]{0,200}\s)?r=["']([A-Za-z]{1,20})([0-9]{1,20})["']"""
)
_LONGEST_TAG = 300  # bytes of what `_CELL` matches, at most
_CHUNK = 1 << 20
Sheet = tuple[
    str, list[tuple[int, list[str]]]
]  # name, (row number from 1, cells) of filled rows


def sheets(path: Path) -> Iterator[Sheet]:
    """The non-empty sheets of a workbook, with every cell as text, as a CSV would have it.

    Raises:
        ConfigError: The library is not installed.
        DataError: The workbook cannot be read, or one of its sheets is too large.
    """
    try:
        from python_calamine import CalamineError, CalamineWorkbook
    except ImportError:
        raise ConfigError(
            f"{path}: reading spreadsheets needs the package python-calamine; run `pip install"
            " 'hybridbatch[spreadsheets]'`, or save the sheet as CSV"
        ) from None
    _require_extent(path)
    try:
        with CalamineWorkbook.from_path(path) as workbook:
            for name in workbook.sheet_names:
                table = workbook.get_sheet_by_name(name).to_python(skip_empty_area=False)
                filled = []
                for number, row in enumerate(table, 1):
                    cells = [_text(cell) for cell in row]
                    if any(map(str.strip, cells)):
                        filled.append((number, cells))
                if filled:
                    yield name, filled
    except FileNotFoundError as error:
        raise DataError(f"{path}: no such file or folder") from error
    except (CalamineError, OSError, ValueError) as error:
        raise DataError(
            f"{path}: cannot be read as a spreadsheet ({first_line(error)}); save it again, or save"
            " it as CSV"
        ) from error


def _require_extent(path: Path) -> None:
    """Refuse an .xlsx whose cells lie so far apart that calamine would abort the process.

    It holds all cells between the first and the last, also if a sheet has two.

    Raises:
        DataError: A sheet is too large.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            for name in filter(_SHEET.fullmatch, archive.namelist()):
                rows, columns = _extent(archive, name)
                if rows * columns > MOST_CELLS:
                    raise DataError(
                        f"{path}: {name} reaches to row {rows:,} and column {columns:,}, which are"
                        f" more than {MOST_CELLS:,} cells; delete the cells beyond the table, or"
                        " save the sheet as CSV"
                    )
    except (zipfile.BadZipFile, zlib.error, OSError, EOFError, RuntimeError, ValueError):
        return  # no such archive, or a damaged one, which calamine will tell


def _extent(archive: zipfile.ZipFile, name: str) -> tuple[int, int]:
    """The last row and the last column that hold a cell, from 1."""
    row, column = 0, b""
    rest = b""
    with archive.open(name) as sheet:
        while chunk := sheet.read(_CHUNK):
            text = rest + chunk
            for letters, number in _CELL.findall(text):
                row = max(row, int(number))
                if (len(letters), letters) > (len(column), column):
                    column = letters
            rest = text[-_LONGEST_TAG:]
    place = 0
    for letter in column.upper():
        place = 26 * place + letter - ord("A") + 1
    return row, place


def _text(cell: Any) -> str:
    """A cell as a person reads it: 2019, not 2019.0."""
    if isinstance(cell, bool):
        return "TRUE" if cell else "FALSE"
    if isinstance(cell, float) and cell.is_integer():
        return str(int(cell))
    if isinstance(cell, datetime.datetime | datetime.date | datetime.time):
        return cell.isoformat()
    return str(cell)
