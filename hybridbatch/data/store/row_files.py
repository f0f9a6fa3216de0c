"""The rows of a store on disk: Arrow IPC files, memory-mapped.

Uncompressed Arrow, not Parquet, because training and negatives need rows in random order: a
memory-mapped batch gives a row by its offset, while Parquet must decompress a whole row group for
it. Opening reads only the footer.
"""

import hashlib
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from hybridbatch.common.errors import DataError
from hybridbatch.common.files import sha256_file
from hybridbatch.common.progress import Bar

SCHEMA = pa.schema(
    [
        pa.field("source", pa.large_string(), nullable=False),
        pa.field("record_id", pa.large_string(), nullable=False),
        pa.field("language", pa.large_string(), nullable=False),
        pa.field("query", pa.large_string()),
        pa.field("passage", pa.large_string()),
        pa.field("negatives", pa.list_(pa.large_string()), nullable=False),
    ]
)
# Of data with translated rows; other data has no such column, so that it is what it was before
# there were any.
TRANSLATED_SCHEMA = SCHEMA.append(pa.field("translated_from", pa.large_string()))
BLOCK_ROWS = 1 << 15  # rows of an Arrow record batch


class Shards:
    """Rows 0 to R - 1 of some Arrow files, one after the other; nothing is read before it is asked
    for.
    """

    def __init__(self, paths: Sequence[Path]) -> None:
        self._paths = tuple(paths)

    @cached_property
    def _batches(self) -> list[pa.RecordBatch]:
        batches = []
        for path in self._paths:
            try:
                reader = pa.ipc.open_file(pa.memory_map(str(path)))
                batches += [reader.get_batch(number) for number in range(reader.num_record_batches)]
            except (OSError, pa.ArrowInvalid) as error:
                raise DataError(
                    f"{path}: damaged or missing ({error}); prepare the data again"
                ) from error
        return batches

    @cached_property
    def _starts(self) -> np.ndarray:
        return np.cumsum([0, *(batch.num_rows for batch in self._batches)])

    def take(self, rows: np.ndarray, columns: Sequence[str] | None = None) -> pa.Table:
        """The rows (int [n], repeats allowed) in that order; all columns by default."""
        rows = np.asarray(rows, dtype=np.int64)
        known = self._batches[0].schema if self._batches else SCHEMA
        columns = known.names if columns is None else list(columns)
        home = np.searchsorted(self._starts, rows, side="right") - 1
        order = np.argsort(home, kind="stable")
        bounds = np.searchsorted(home[order], np.arange(len(self._batches) + 1))
        pieces = []
        for number in np.flatnonzero(np.diff(bounds)):
            local = rows[order[bounds[number] : bounds[number + 1]]] - self._starts[number]
            pieces.append(self._batches[number].select(columns).take(pa.array(local)))
        schema = pa.schema([known.field(name) for name in columns])
        table = pa.Table.from_batches(pieces, schema).combine_chunks()
        back = np.empty(len(rows), np.int64)
        back[order] = np.arange(len(rows))
        return table.take(pa.array(back))

    def columns(self, names: Sequence[str]) -> pa.Table:
        """Whole columns, memory-mapped: nothing is read before it is asked for."""
        fields = [SCHEMA.field(name) for name in names]
        batches = [batch.select(list(names)) for batch in self._batches]
        return pa.Table.from_batches(batches, pa.schema(fields))

    def blocks(
        self, rows: np.ndarray, size: int = BLOCK_ROWS, columns: Sequence[str] | None = None
    ) -> Iterator[pa.Table]:
        """`take` in pieces of `size` rows, with `release` after each."""
        for start in range(0, len(rows), size):
            yield self.take(rows[start : start + size], columns)
            self.release()

    def release(self) -> None:
        """Unmap what was read, so that it does not count as memory; it is mapped again when it is
        needed.
        """
        self.__dict__.pop("_batches", None)


def write_shards(
    folder: Path,
    split: str,
    blocks: Iterator[pa.Table],
    shard_rows: int,
    digest: "ContentDigest",
    bar: Bar,
) -> list[dict[str, Any]]:
    """Write ``SPLIT-00000.arrow`` ... of about `shard_rows` rows each; returns their entries for
    the manifest.
    """
    entries: list[dict[str, Any]] = []
    block = next(blocks, None)
    while block is not None:
        path, rows = folder / f"{split}-{len(entries):05}.arrow", 0
        with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, block.schema) as writer:
            while block is not None and (rows == 0 or rows + len(block) <= shard_rows):
                digest.update(block)
                writer.write_table(block)
                rows += len(block)
                bar.advance(len(block))
                block = next(blocks, None)
        entries.append({"split": split, "rows": rows, **file_entry(path, folder)})
    return entries


def file_entry(path: Path, folder: Path) -> dict[str, Any]:
    """Name, size and checksum of a file, as the manifest keeps them."""
    return {
        "file": path.relative_to(folder).as_posix(),
        "bytes": path.stat().st_size,
        "sha256": sha256_file(path),
    }


class ContentDigest:
    """sha256 of rows in order, the same however they are cut into blocks: each column is hashed as
    one long stream.
    """

    def __init__(self) -> None:
        self._streams = {name: (hashlib.sha256(), hashlib.sha256()) for name in SCHEMA.names}
        self._counts = hashlib.sha256()

    def update(self, table: pa.Table) -> None:
        """Add rows."""
        for name in table.schema.names:
            lengths, text = self._streams.setdefault(name, (hashlib.sha256(), hashlib.sha256()))
            column = table.column(name).combine_chunks()
            if isinstance(column, pa.ChunkedArray):
                column = pa.concat_arrays(column.chunks)
            if pa.types.is_list(column.type):
                self._counts.update(_lengths(column))
                column = column.flatten()
            lengths.update(_lengths(column))
            text.update(_text(column))

    def hexdigest(self) -> str:
        """64 hex digits."""
        parts = [self._counts, *(digest for pair in self._streams.values() for digest in pair)]
        return hashlib.sha256(b"".join(part.digest() for part in parts)).hexdigest()


def _lengths(column: pa.Array) -> bytes:
    """Length of every value, -1 where it is missing, as little-endian int64."""
    if pa.types.is_large_string(column.type):
        lengths = pc.binary_length(column)
    else:
        lengths = pc.list_value_length(column)
    return (
        lengths.cast(pa.int64())
        .fill_null(-1)
        .to_numpy(zero_copy_only=False)
        .astype("<i8")
        .tobytes()
    )


def _text(column: pa.Array) -> memoryview:
    """The UTF-8 bytes of all values, one after the other."""
    _, offsets, data = column.buffers()
    if data is None or len(column) == 0:
        return memoryview(b"")
    bounds = np.frombuffer(offsets, np.int64)[column.offset : column.offset + len(column) + 1]
    return memoryview(data)[bounds[0] : bounds[-1]]
