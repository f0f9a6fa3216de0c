"""Workbooks of spreadsheet programs (.xlsx, .xls, .ods), read by the library calamine."""

import datetime
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hybridbatch.common.errors import ConfigError, DataError, first_line

SUFFIXES = (".xlsx", ".xlsm", ".xls", ".ods")
Sheet = tuple[
    str, list[tuple[int, list[str]]]
]  # name, (row number from 1, cells) of filled rows


def sheets(path: Path) -> Iterator[Sheet]:
    """The non-empty sheets of a workbook, with every cell as text, as a CSV would have it.

    Raises:
        ConfigError: The library is not installed.
        DataError: The workbook cannot be read.
    """
    try:
        from python_calamine import CalamineError, CalamineWorkbook
    except ImportError:
        raise ConfigError(
            f"{path}: reading spreadsheets needs the package python-calamine; run `pip install"
            " 'hybridbatch[spreadsheets]'`, or save the sheet as CSV"
        ) from None
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


def _text(cell: Any) -> str:
    """A cell as a person reads it: 2019, not 2019.0."""
    if isinstance(cell, bool):
        return "TRUE" if cell else "FALSE"
    if isinstance(cell, float) and cell.is_integer():
        return str(int(cell))
    if isinstance(cell, datetime.datetime | datetime.date | datetime.time):
        return cell.isoformat()
    return str(cell)
