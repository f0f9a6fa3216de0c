"""Parquet and Arrow files, and the folders that `datasets.Dataset.save_to_disk` writes."""

import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from hybridbatch.common.errors import DataError, first_line
from hybridbatch.common.files import limit_of, read_json

Numbered = tuple[int, Mapping[str, Any]]
_BATCH_ROWS = 4096
_FEW_ROWS = 256  # where rows may share a text, so that a batch could be very large
_FIRST_ROWS = 16  # whose size tells how many rows a batch may have
_BATCH_BYTES = 1 << 28
# errors of damaged files, in names, lengths and texts
_DAMAGED = (OSError, ValueError, OverflowError, SystemError)
MOST_COLUMN = 1 << 32  # most bytes that a column of a row group may unpack to


def parquet_columns(path: Path) -> list[str]:
    """The names of the columns.

    Raises:
        DataError: The file is unreadable.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(pa.OSFile(os.fsencode(path))) as table:
            return list(table.schema_arrow.names)
    except (pa.ArrowException, *_DAMAGED) as error:
        raise _unreadable(path, "Parquet", 0, error) from error


def parquet_records(path: Path) -> Iterator[Numbered]:
    """The rows, numbered from 1.

    Raises:
        DataError: The file is damaged; the message names the last good row.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    number = 0
    try:
        with pq.ParquetFile(pa.OSFile(os.fsencode(path))) as table:
            _require_unpackable(path, table.metadata)
            for number, record in _rows(_parquet_batches(path, table)):
                yield number, record
    except (pa.ArrowException, *_DAMAGED) as error:
        raise _unreadable(path, "Parquet", number, error) from error


def column_limit() -> int:
    """The most bytes that a column of a row group may unpack to. Raises `ConfigError`."""
    return limit_of("HYBRIDBATCH_MAX_COLUMN", MOST_COLUMN)


def _require_unpackable(path: Path, about: Any) -> None:
    """Refuse a column that unpacks to more than a machine can hold.

    A few hundred kilobytes of Parquet can represent gigabytes.

    Raises:
        DataError: A column is too large.
    """
    most = column_limit()
    for group in range(about.num_row_groups):
        for place in range(about.num_columns):
            column = about.row_group(group).column(place)
            if column.total_uncompressed_size > most:
                size = f"{column.total_uncompressed_size:,} bytes, more than {most:,}"
                raise _too_large(path, column.path_in_schema, group, size)


def _parquet_batches(path: Path, table: Any) -> Iterator[Any]:
    """The rows in batches that fit in memory.

    A text that many rows share is stored once, and the size of a column in the footer counts it
    once. So the sizes of the unpacked rows count here.

    Raises:
        DataError: A column of a row group is too large.
    """
    most = column_limit()
    for group in range(table.num_row_groups):
        about = table.metadata.row_group(group)
        stored = max(
            (about.column(place).total_uncompressed_size for place in range(about.num_columns)),
            default=0,
        )
        rows = _BATCH_ROWS if stored * about.num_rows <= most else _FEW_ROWS
        first = next(table.iter_batches(batch_size=_FIRST_ROWS, row_groups=[group]), None)
        if first is not None and first.num_rows:
            unpacked = sum(map(_unpacked_bytes, first.columns))
            fitting = _BATCH_BYTES * first.num_rows // max(1, unpacked)
            rows = max(1, min(rows, fitting))
        sizes: Counter[str] = Counter()
        for batch in table.iter_batches(batch_size=rows, row_groups=[group]):
            for name, column in zip(batch.schema.names, batch.columns, strict=True):
                sizes[name] += _unpacked_bytes(column)
                if sizes[name] > most:
                    raise _too_large(path, name, group, f"more than {most:,} bytes")
            yield batch


def _unpacked_bytes(column: Any) -> int:
    """The bytes of a column's values; each row counts, even if rows share a value."""
    import pyarrow as pa
    import pyarrow.compute as pc

    kind = column.type
    if pa.types.is_dictionary(kind) and (
        pa.types.is_string(kind.value_type) or pa.types.is_large_string(kind.value_type)
    ):
        lengths = pc.binary_length(column.dictionary).cast(pa.int64())
        return int(pc.sum(lengths.take(column.indices)).as_py() or 0)
    return int(column.nbytes)


def _too_large(path: Path, column: str, group: int, size: str) -> DataError:
    return DataError(
        f"{path}: column {column!r} of row group {group} unpacks to {size}; to read it,"
        " set HYBRIDBATCH_MAX_COLUMN=16GB in the environment"
    )


def arrow_columns(path: Path) -> list[str]:
    """The names of the columns of an Arrow file.

    Raises:
        DataError: The file is unreadable.
    """
    import pyarrow as pa

    try:
        with pa.memory_map(os.fsencode(path)) as source:
            return list(_arrow_reader(source).schema.names)
    except (pa.ArrowException, *_DAMAGED) as error:
        raise _unreadable(path, "Arrow", 0, error) from error


def arrow_records(path: Path) -> Iterator[Numbered]:
    """The rows of an Arrow file (stream, as `datasets` writes it, or file format), from 1.

    Raises:
        DataError: The file is damaged; the message names the last good row.
    """
    import pyarrow as pa

    number = 0
    try:
        with pa.memory_map(os.fsencode(path)) as source:
            reader = _arrow_reader(source)
            if isinstance(reader, pa.ipc.RecordBatchFileReader):
                batches: Iterable[Any] = map(reader.get_batch, range(reader.num_record_batches))
            else:
                batches = reader
            for number, record in _rows(_validated(batches)):
                yield number, record
    except (pa.ArrowException, *_DAMAGED) as error:
        raise _unreadable(path, "Arrow", number, error) from error


def _validated(batches: Iterable[Any]) -> Iterator[Any]:
    """The checked batches; without a check, wrong text lengths in a damaged batch would be used."""
    for batch in batches:
        batch.validate(full=True)
        yield batch


def saved_files(folder: Path) -> list[Path]:
    """The Arrow files of a `save_to_disk` folder, in order; an empty list for other folders.

    Raises:
        DataError: The folder's ``state.json`` names files that do not exist.
    """
    state = folder / "state.json"
    if not state.is_file():
        return []
    told = read_json(state)
    entries = told.get("_data_files") if isinstance(told, dict) else None
    if not isinstance(entries, list):
        return []
    files = []
    for entry in entries:
        name = entry.get("filename") if isinstance(entry, dict) else None
        if not isinstance(name, str) or "/" in name or not (folder / name).is_file():
            raise DataError(
                f"{state}: names {name!r}, but this file does not exist; save the data set again"
            )
        files.append(folder / name)
    return files


def _arrow_reader(source: Any) -> Any:
    import pyarrow as pa

    try:
        return pa.ipc.open_stream(source)
    except pa.ArrowInvalid:
        source.seek(0)
        return pa.ipc.open_file(source)


def _rows(batches: Iterable[Any]) -> Iterator[Numbered]:
    number = 0
    for batch in batches:
        columns = [_column_values(column) for column in batch.columns]
        names = batch.schema.names
        for values in zip(*columns, strict=True):
            number += 1
            yield number, dict(zip(names, values, strict=True))


def _column_values(column: Any) -> list[Any]:
    try:
        return column.to_pylist()
    except UnicodeDecodeError:
        import pyarrow as pa

        raw = column.cast(pa.large_binary()).to_pylist()
        return [
            value if value is None else value.decode("utf-8", "surrogateescape")
            for value in raw
        ]


def _unreadable(path: Path, kind: str, number: int, error: Exception) -> DataError:
    return DataError(
        f"{path}: cannot be read as {kind} after row {number} ({first_line(error)}); write the file again"
    )
