"""Parquet and Arrow files, and the folders that `datasets.Dataset.save_to_disk` writes."""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from hybridbatch.common.errors import DataError
from hybridbatch.common.files import limit_of, read_json

Numbered = tuple[int, Mapping[str, Any]]
_BATCH_ROWS = 4096
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
        with pq.ParquetFile(path) as table:
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
        with pq.ParquetFile(path) as table:
            _require_unpackable(path, table.metadata)
            for number, record in _rows(table.iter_batches(batch_size=_BATCH_ROWS)):
                yield number, record
    except (pa.ArrowException, *_DAMAGED) as error:
        raise _unreadable(path, "Parquet", number, error) from error


def _require_unpackable(path: Path, about: Any) -> None:
    """Refuse a column that unpacks to more than a machine can hold.

    A few hundred kilobytes of Parquet can represent gigabytes.

    Raises:
        DataError: A column is too large.
    """
    most = limit_of("HYBRIDBATCH_MAX_COLUMN", MOST_COLUMN)
    for group in range(about.num_row_groups):
        for place in range(about.num_columns):
            column = about.row_group(group).column(place)
            if column.total_uncompressed_size > most:
                raise DataError(
                    f"{path}: column {column.path_in_schema!r} of row group {group} unpacks"
                    f" to {column.total_uncompressed_size:,} bytes, more than {most:,}; to"
                    " read it, set HYBRIDBATCH_MAX_COLUMN=16GB in the environment"
                )


def arrow_columns(path: Path) -> list[str]:
    """The names of the columns of an Arrow file.

    Raises:
        DataError: The file is unreadable.
    """
    import pyarrow as pa

    try:
        with pa.memory_map(str(path)) as source:
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
        with pa.memory_map(str(path)) as source:
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
    reason = str(error).partition("\n")[0] or type(error).__name__
    return DataError(
        f"{path}: cannot be read as {kind} after row {number} ({reason}); write the file again"
    )
