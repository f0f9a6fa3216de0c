"""The rows of a store on disk: Arrow IPC files, memory-mapped.

Training and negatives need rows in random order, so the files are uncompressed Arrow and not
Parquet. A memory-mapped batch gives a row by its offset, while Parquet must decompress a whole row
group for it. Opening a file reads only the footer.
"""

import hashlib
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from hybridbatch.common.files import sha256_file
from hybridbatch.common.integrity import (
    BLOCK,
    Blocks,
    block_sums,
    check_file,
    damage,
    file_checksum,
)
from hybridbatch.common.progress import Bar
from hybridbatch.data.store.disk_arrays import DiskArray

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
# For data with translated rows. Other data has no such column, so that it is equal to data of
# versions without translation.
TRANSLATED_SCHEMA = SCHEMA.append(pa.field("translated_from", pa.large_string()))
BLOCK_ROWS = 1 << 15  # rows of an Arrow record batch


PREPARE_AGAIN = (
    "run the `hybridbatch prepare` or `mine` command that made it again, which mends it"
)


class FileSums:
    """The checksums of the blocks of a store's files, read from one file on demand."""

    def __init__(self, folder: Path, manifest: Mapping[str, Any]) -> None:
        """Set the folder; without the manifest's entry ``checksums``, no file has any."""
        self._folder = folder
        self._entry = manifest.get("checksums")
        self._places: dict[str, tuple[int, int]] = {}
        end = 0
        for entry in [*manifest.get("shards", ()), *manifest.get("index", ())]:
            start, end = end, end + -(-entry["bytes"] // BLOCK)
            self._places[entry["file"]] = (start, end)
        self._number = end

    @cached_property
    def _sums(self) -> np.ndarray | None:
        if self._entry is None:
            return None
        path = self._folder / self._entry["file"]
        check_file(path, self._entry["xxh3"], PREPARE_AGAIN)
        sums = np.fromfile(path, "<u8")
        if len(sums) != self._number or self._entry["block"] != BLOCK:
            raise damage(path, "it does not fit the manifest", PREPARE_AGAIN)
        return sums

    def blocks(self, name: str) -> Blocks:
        """The blocks of a file, by its name in the manifest.

        Raises:
            DataError: The checksums are damaged.
        """
        path, sums = self._folder / name, self._sums
        if sums is not None:
            start, end = self._places[name]
            sums = sums[start:end]
        try:
            return Blocks(path, sums, PREPARE_AGAIN)
        except OSError as error:
            raise damage(path, error.strerror or str(error), PREPARE_AGAIN) from error


def write_sums(folder: Path, entries: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Write the checksums of the files of `entries`, in order; returns their manifest entry."""
    path = folder / "checksums"
    parts = [np.empty(0, "<u8"), *(block_sums(folder / entry["file"]) for entry in entries)]
    path.write_bytes(np.concatenate(parts).tobytes())
    return {"file": path.name, "block": BLOCK, "xxh3": file_checksum(path)}


class _RowFile:
    """One memory-mapped Arrow file whose bytes are compared with their checksums when read."""

    def __init__(self, path: Path, sums: FileSums | None) -> None:
        self.blocks = sums.blocks(path.name) if sums else None
        # without checksums, Arrow checks the offsets and the UTF-8 of a batch
        self._valid: set[int] | None = None
        if self.blocks is not None and self.blocks.sums is None:
            self._valid = set()
        self.path = path
        try:
            mapped = pa.memory_map(os.fsencode(path))
            self.content = mapped.read_buffer(mapped.size())
            self._check_descriptions(path)
            reader = pa.ipc.open_file(self.content)
            if reader.schema not in (SCHEMA, TRANSLATED_SCHEMA):
                raise damage(path, "its columns are not those of prepared data", PREPARE_AGAIN)
            numbers = range(reader.num_record_batches)
            self.batches = [reader.get_batch(number) for number in numbers]
        except (OSError, pa.ArrowException) as error:
            raise damage(path, f"{str(error)[:200]}", PREPARE_AGAIN) from error

    def _check_descriptions(self, path: Path) -> None:
        """Compare everything that Arrow reads to open a file.

        This is the footer, and the message before each batch that describes it.
        """
        if self.blocks is None:
            return
        content, size = memoryview(self.content), self.content.size
        self._check_range(max(0, size - 10), size)
        footer = int.from_bytes(content[-10:-6], "little")
        if not 0 < footer <= size - 10:
            raise damage(path, "it has no footer", PREPARE_AGAIN)
        self._check_range(size - 10 - footer, size)
        place = 8  # after the name of the format
        while place + 8 <= size - 10 - footer:
            self._check_range(place, place + 8)
            length = int.from_bytes(content[place + 4 : place + 8], "little")
            if length == 0:  # the end of the messages
                break
            self._check_range(place + 8, place + 8 + length)
            body = pa.ipc.read_message(self.content.slice(place)).body
            place += 8 + length + (body.size if body else 0)

    def _check_range(self, start: int, stop: int) -> None:
        self.check(np.array([start]), np.array([stop]))

    def check(self, starts: np.ndarray, stops: np.ndarray) -> None:
        """Compare the blocks of some ranges of bytes.

        Raises:
            DataError: A block is damaged.
        """
        if self.blocks is not None:
            self.blocks.check(memoryview(self.content), starts, stops)

    def validate(self, batch: pa.RecordBatch, number: int) -> None:
        """Without checksums, check once that the batch is whole.

        Raises:
            DataError: The batch is damaged.
        """
        if self._valid is None or number in self._valid:
            return
        try:
            batch.validate(full=True)
        except pa.ArrowException as error:
            raise damage(self.path, str(error)[:200], PREPARE_AGAIN) from error
        self._valid.add(number)

    def check_rows(self, batch: pa.RecordBatch, rows: np.ndarray) -> None:
        """Compare the bytes that `rows` (int64 [n]) of a batch are read from.

        Raises:
            DataError: A block is damaged.
        """
        if self.blocks is None or self.blocks.sums is None or not len(rows):
            return
        for column in batch.columns:
            self._check_values(column, rows, rows + 1)

    def _check_values(self, column: pa.Array, starts: np.ndarray, stops: np.ndarray) -> None:
        """Compare the values ``starts[i]`` to ``stops[i]`` of a column: validity, offsets, content."""
        starts, stops = starts + column.offset, stops + column.offset
        validity, offsets, *rest = column.buffers()[:3]
        if validity is not None:
            place = validity.address - self.content.address
            self.check(place + starts // 8, place + (stops + 7) // 8)
        width = 4 if pa.types.is_list(column.type) else 8
        place = offsets.address - self.content.address
        self.check(place + starts * width, place + (stops + 1) * width)
        # only verified offsets show where the content is
        ends = np.frombuffer(offsets, np.int32 if width == 4 else np.int64)
        first, last = ends[starts].astype(np.int64), ends[stops].astype(np.int64)
        if pa.types.is_list(column.type):
            filled = last > first
            self._check_values(column.values, first[filled], last[filled])
        elif rest and rest[0] is not None:
            place = rest[0].address - self.content.address
            filled = last > first
            self.check(place + first[filled], place + last[filled])


class Shards:
    """Rows 0 to R - 1 of some Arrow files, one after the other; reads only on demand."""

    def __init__(
        self, paths: Sequence[Path], sums: FileSums | None = None, rows: int | None = None
    ) -> None:
        """Set the files.

        Args:
            sums: checksums of the files; None: they were just written, and are trusted.
            rows: required number of rows; None: any number.
        """
        self._paths, self._sums, self._rows = tuple(paths), sums, rows

    @cached_property
    def _batches(self) -> list[tuple[_RowFile, pa.RecordBatch]]:
        batches = []
        for path in self._paths:
            file = _RowFile(path, self._sums)
            batches += [(file, batch) for batch in file.batches]
        found = sum(batch.num_rows for _, batch in batches)
        if self._rows is not None and found != self._rows:
            problem = f"the files hold {found:,} rows, the manifest says {self._rows:,}"
            raise damage(self._paths[0].parent, problem, PREPARE_AGAIN)
        return batches

    @cached_property
    def _starts(self) -> np.ndarray:
        return np.cumsum([0, *(batch.num_rows for _, batch in self._batches)])

    def take(self, rows: np.ndarray, columns: Sequence[str] | None = None) -> pa.Table:
        """The rows (int [n], repeats allowed) in that order; all columns by default."""
        rows = np.asarray(rows, dtype=np.int64)
        known = self._batches[0][1].schema if self._batches else SCHEMA
        columns = known.names if columns is None else list(columns)
        home = np.searchsorted(self._starts, rows, side="right") - 1
        order = np.argsort(home, kind="stable")
        bounds = np.searchsorted(home[order], np.arange(len(self._batches) + 1))
        pieces = []
        for number in np.flatnonzero(np.diff(bounds)):
            local = rows[order[bounds[number] : bounds[number + 1]]] - self._starts[number]
            file, batch = self._batches[number]
            chosen = batch.select(columns)
            file.validate(batch, int(number))
            file.check_rows(chosen, local)
            pieces.append(chosen.take(pa.array(local)))
        schema = pa.schema([known.field(name) for name in columns])
        table = pa.Table.from_batches(pieces, schema).combine_chunks()
        back = np.empty(len(rows), np.int64)
        back[order] = np.arange(len(rows))
        return table.take(pa.array(back))

    def columns(self, names: Sequence[str]) -> pa.Table:
        """Whole columns, memory-mapped.

        The files are compared with their checksums first, because later reads are not checked.
        """
        fields = [SCHEMA.field(name) for name in names]
        for number, (file, batch) in enumerate(self._batches):
            file.validate(batch, number)
            if file.blocks is not None:
                file.blocks.check_all()
        batches = [batch.select(list(names)) for _, batch in self._batches]
        return pa.Table.from_batches(batches, pa.schema(fields))

    def blocks(
        self,
        rows: np.ndarray | DiskArray,
        size: int = BLOCK_ROWS,
        columns: Sequence[str] | None = None,
    ) -> Iterator[pa.Table]:
        """`take` in pieces of `size` rows, with `release` after each."""
        for start in range(0, len(rows), size):
            yield self.take(rows[start : start + size], columns)
            self.release()

    def release(self) -> None:
        """Unmap what was read, so that it does not count as memory; it is mapped again on demand."""
        self.__dict__.pop("_batches", None)


def write_shards(
    folder: Path,
    split: str,
    blocks: Iterator[pa.Table],
    shard_rows: int,
    digest: "ContentDigest",
    bar: Bar,
) -> list[dict[str, Any]]:
    """Write ``SPLIT-00000.arrow`` ... of about `shard_rows` rows each.

    Returns:
        Their entries for the manifest.
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
    """Name, size and checksum of a file, in the form of the manifest."""
    return {
        "file": path.relative_to(folder).as_posix(),
        "bytes": path.stat().st_size,
        "sha256": sha256_file(path),
    }


class ContentDigest:
    """sha256 of rows in order, independent of how they are cut into blocks.

    Each column is hashed as one long stream.
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
    """The length of every value as little-endian int64, -1 if the value is missing."""
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
