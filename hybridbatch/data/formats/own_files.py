"""The user's files as tables.

Every kind of file is opened to the names of all its columns, a sample of its records, and a way to
read them.
"""

import re
from collections.abc import Callable, Container, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from hybridbatch.common.errors import DataError
from hybridbatch.common.files import open_lines
from hybridbatch.common.records import BadRow, Split
from hybridbatch.common.texts import writable
from hybridbatch.data.formats import spreadsheets
from hybridbatch.data.formats.arrow_files import (
    arrow_columns,
    arrow_records,
    parquet_columns,
    parquet_records,
    saved_files,
)
from hybridbatch.data.formats.columns import is_known
from hybridbatch.data.formats.delimited import (
    CSV,
    TSV,
    Dialect,
    dialect_of,
    is_quoted,
    table_records,
)
from hybridbatch.data.formats.encodings import (
    AUTO,
    TextFile,
    inspect_text,
    text_lines,
    utf8_lines_of,
    whole_lines,
)
from hybridbatch.data.formats.json_files import (
    Numbered,
    array_records,
    json_line_records,
    shapes_of,
)
from hybridbatch.data.formats.tables import SPLIT_NAMES, bare_name, kind
from hybridbatch.data.formats.user_tables import HELP, Sample

Records = Callable[[], Iterator[Numbered | BadRow]]
SAMPLE = 100  # number of records that a form is recognized from
GIVE = (
    ".jsonl, .json, .tsv, .csv (also .gz, .zst), .parquet, .arrow, .xlsx or .ods, or a folder of"
    " datasets' save_to_disk"
)
# Files that programs put beside data to describe it.
METADATA = frozenset(
    [
        "dataset_info.json",
        "dataset_infos.json",
        "dataset_dict.json",
        "state.json",
        "metadata.json",
        "config.json",
        "croissant.json",
        "datapackage.json",
        "info.json",
        "stats.json",
        "manifest.json",
    ]
)
# MS MARCO's training triples have no header.
TRIPLE = ("query", "positive", "negative")
_LEGACY = 2  # lines that are not UTF-8, in a file without a line that shows UTF-8


@dataclass(frozen=True)
class Table:
    """A table of the user.

    Attributes:
        path: its file.
        name: its name in errors: the path, and the sheet if the file has several.
        sample: all its columns, and its first records.
        records: reads it; may be called more than once.
        split: the split that the names of file, folder or sheet state; None: they state none.
        label: its short name, different for each table of a source: records without an id are
            called ``LABEL:LINE``.
    """

    path: Path
    name: str
    sample: Sample
    records: Records
    split: Split | None = None
    label: str = ""


def own_kind(path: Path) -> str | None:
    """The kind of a user's file by its name; None if it cannot be read."""
    suffix = path.suffix.lower()
    if suffix in spreadsheets.SUFFIXES:
        return "spreadsheet"
    return "arrow" if suffix == ".arrow" else kind(path)


def own_name(path: Path) -> str:
    """The name of a file or folder without the suffixes of its kind."""
    if path.is_dir():
        name = path.resolve().name
    elif own_kind(path) in ("spreadsheet", "arrow"):
        name = path.stem
    else:
        name = bare_name(path)
    return writable(name)


def split_in_name(name: str) -> Split | None:
    """The split that a name states, as on the hub: train, validation, dev, test ... as a word.

    ``testset``, ``test_data`` and ``TestSplit`` are such words, too. None if the name has no such
    word, or words of two splits.
    """
    words = re.split(r"[^a-z]+", name.casefold())
    stems = {re.sub(r"(set|data|split)$", "", word) for word in words}
    found = {SPLIT_NAMES[stem] for stem in stems if stem in SPLIT_NAMES}
    return found.pop() if len(found) == 1 else None


def find_files(path: Path, parallel: Container[Path] = ()) -> tuple[list[Path], list[Path]]:
    """The tables at a path, and the other files of a folder.

    A folder's files are those in it, and those in its sub-folders that are named by a split or that
    `save_to_disk` wrote.

    Args:
        parallel: files of parallel text, which are no tables whatever their names are.

    Raises:
        DataError: The path does not exist, or is a file of an unknown kind.
    """
    if not path.exists():
        raise DataError(f"{path}: no such file or folder")
    if path in parallel:
        return [], [path]
    if path.is_file():
        if own_kind(path) is None:
            raise DataError(f"{path}: this kind of file is not known; give {GIVE}")
        return [path], []
    if saved := saved_files(path):
        return saved, []
    found: list[Path] = []
    passed: list[Path] = []
    for entry in sorted(path.iterdir()):
        if entry.name.startswith("."):
            continue
        if entry.is_dir():
            inner = saved_files(entry)
            if not inner and (split_in_name(entry.name) or entry.name == "data"):
                inner, passed_inside = find_files(entry)
                passed += passed_inside
            found += inner
            if not inner:
                passed.append(entry)
        elif entry in parallel or entry.name in METADATA or own_kind(entry) is None:
            passed.append(entry)
        else:
            found.append(entry)
    return found, passed


def open_tables(path: Path, root: Path, encoding: str = AUTO) -> list[Table]:
    """The tables of a file: one, or for a workbook one per sheet.

    Args:
        root: the path that the user gave; folders between it and the file may state a split.
        encoding: encoding of text files, as `inspect_text` takes it.

    Raises:
        DataError: The file cannot be read, or holds no record.
        ConfigError: The library that reads the file is not installed.
    """
    names = [
        own_name(path),
        *(folder.name for folder in path.parents if root in folder.parents),
    ]
    if path != root and path.parent == root and saved_files(root):
        names = [root.name]
    split = next((found for name in names if (found := split_in_name(name))), None)
    if own_kind(path) == "spreadsheet":
        return _sheet_tables(path, split, _label(path, root))
    columns, records = open_records(path, encoding)
    return [_table(path, str(path), columns, records, split, _label(path, root))]


def open_records(path: Path, encoding: str = AUTO) -> tuple[list[str] | None, Records]:
    """The columns (None: those of the records) and the records of a file that is no spreadsheet.

    Raises:
        DataError: The file cannot be read.
    """
    file_kind = own_kind(path)
    if file_kind in ("parquet", "arrow"):
        return _arrow_table(path, file_kind)
    if file_kind == "json":
        return _json_table(path, encoding)
    return _text_table(path, TSV if file_kind == "tsv" else CSV, encoding)


def _label(path: Path, root: Path) -> str:
    """The file's name without its kind, after the folders between the user's folder and the file."""
    between = [folder.name for folder in path.parents if root in folder.parents]
    return "/".join([*reversed(between), own_name(path)])


def _table(
    path: Path,
    name: str,
    columns: list[str] | None,
    records: Records,
    split: Split | None,
    label: str,
    *,
    may_be_empty: bool = False,
) -> Table:
    """A table with its sample; without `columns`, the columns are those of the sample.

    Args:
        may_be_empty: whether the table may have columns alone, as a sheet beside others.

    Raises:
        DataError: No record can be read.
    """
    sample: list[Numbered] = []
    first_bad: BadRow | None = None
    items = records()
    for item in items:
        if isinstance(item, BadRow):
            first_bad = first_bad or item
        else:
            sample.append(item)
        if len(sample) == SAMPLE:
            break
    if not sample and not may_be_empty:
        reason = f"line {first_bad.line}: {first_bad.reason}" if first_bad else "it holds none"
        raise DataError(f"{name}: no record can be read ({reason}); {HELP}")
    if columns is None:
        columns = list(sample[0][1])
    return Table(path, name, Sample(tuple(columns), tuple(sample)), records, split, label)


def _arrow_table(path: Path, found: str) -> tuple[list[str], Records]:
    if found == "parquet":
        return parquet_columns(path), lambda: parquet_records(path)
    return arrow_columns(path), lambda: arrow_records(path)


def _json_table(path: Path, encoding: str) -> tuple[list[str], Records]:
    """The columns of all JSON records, because a later record may have more than the first."""
    file = inspect_text(path, encoding, whole=False)
    records = _json_records(path, file)
    columns: dict[str, None] = {}
    first = next((item[1] for item in records() if isinstance(item, tuple)), {})
    columns.update(dict.fromkeys(first))
    shapes = None
    if file.encoding == "utf-8" and not file.mac_lines and not _may_be_array(path):
        with open_lines(path) as lines:
            shapes = shapes_of(lines)
    valid = True
    if shapes is None:  # slowly, so that unreadable lines are skipped
        shapes = set()
        for item in records():
            if isinstance(item, BadRow):
                valid = valid and "UTF-8" not in item.reason
            else:
                shapes.add(tuple(item[1]))
    for shape in sorted(shapes):
        columns.update(dict.fromkeys(shape))
    if not valid:
        _refuse_other_encoding(path)
    return list(columns), records


def _may_be_array(path: Path) -> bool:
    """Whether a JSON file's name allows one array instead of one object a line."""
    return ".json" in Path(path.name.lower()).suffixes


def _json_records(path: Path, file: TextFile) -> Records:
    name = str(path)

    def from_lines() -> Iterator[Numbered | BadRow]:
        if file.encoding == "utf-8" and not file.mac_lines:
            with open_lines(path) as raw_lines:
                yield from json_line_records(raw_lines, name)
        else:
            with text_lines(path, file) as lines:
                yield from json_line_records(lines, name)

    def from_array() -> Iterator[Numbered | BadRow]:
        yield from array_records(path, name, file.encoding)

    if not _may_be_array(path):
        return from_lines
    if file.first == "[":
        return from_array
    start = list(islice(from_lines(), 2))
    first = start[0] if start else None
    if isinstance(first, tuple) and (len(start) > 1 or any(map(is_known, first[1]))):
        return from_lines
    try:  # one object, possibly over several lines, that holds the records
        next(from_array(), None)
    except DataError:
        return from_lines
    return from_array


def _text_table(path: Path, named: Dialect, encoding: str) -> tuple[list[str] | None, Records]:
    file = inspect_text(path, encoding)
    if not file.valid:
        _refuse_other_encoding(path)
    with text_lines(path, file) as lines:
        dialect = dialect_of(lines, named, is_known)
    if file.quotes and not dialect.quoted:
        with text_lines(path, file) as lines:
            quoted = is_quoted(lines, path)
        dialect = Dialect(dialect.delimiter, quoted, dialect.hint)
    header = list(TRIPLE) if _is_triple(path, file, dialect) else None

    def records() -> Iterator[Numbered | BadRow]:
        with whole_lines(path, file) as lines:
            yield from table_records(lines, dialect, str(path), header)

    return None, records


def _is_triple(path: Path, file: TextFile, dialect: Dialect) -> bool:
    """Whether the first line is three texts, and not a header."""
    with text_lines(path, file) as lines:
        first = next((line for _, line in lines if line.strip()), "")
    cells = first.split(dialect.delimiter)
    if dialect.delimiter != "\t" or len(cells) != len(TRIPLE):
        return False
    texts = sum(" " in cell.strip() or not cell.isascii() for cell in cells)
    return texts >= 2 and not any(is_known(cell.strip().strip('"')) for cell in cells)


def _refuse_other_encoding(path: Path) -> None:
    """Refuse a file without a valid UTF-8 line, apart from ASCII.

    Raises:
        DataError: The file has another encoding.
    """
    invalid, valid = utf8_lines_of(path)
    if invalid >= _LEGACY and not valid:
        raise DataError(
            f"{path}: {invalid:,} lines are not UTF-8, and no other line proves that the file"
            " is; save it as UTF-8, or name its encoding, such as --encoding cp1252"
            " (Windows-1252)"
        )


def _sheet_tables(path: Path, split: Split | None, label: str) -> list[Table]:
    found = list(spreadsheets.sheets(path))
    if not found:
        raise DataError(f"{path}: all its sheets are empty; {HELP}")
    tables = []
    for name, rows in found:
        sheet = "" if len(found) == 1 else f"[{name}]"
        part = split or split_in_name(name)
        tables.append(_sheet_table(path, sheet, rows, part, label + sheet))
    if not any(table.sample.records for table in tables):
        raise DataError(f"{path}: its sheets hold no record below their headers; {HELP}")
    return tables


def _sheet_table(
    path: Path, sheet: str, rows: list[tuple[int, list[str]]], split: Split | None, label: str
) -> Table:
    place = f"{path}{sheet}"
    header = [cell.strip() for cell in rows[0][1]]
    named = [name for name in header if name]
    kept = [column for column, name in enumerate(header) if name]

    def records() -> Iterator[Numbered | BadRow]:
        for at, row in islice(rows, 1, None):
            padded = row + [""] * (len(header) - len(row))
            yield at, {header[column]: padded[column] for column in kept}

    return _table(path, place, named, records, split, label, may_be_empty=bool(sheet))
