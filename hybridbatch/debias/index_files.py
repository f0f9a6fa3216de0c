"""Files of stored vectors: numpy arrays, raw memory maps, Parquet, FAISS.

`open_index` gives an `IndexFile`. It reads rows in blocks, and writes a file of the same kind with
other vectors in the same places.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tokenize import TokenError
from typing import Any, Literal

import numpy as np

from hybridbatch.common.errors import ConfigError, DataError, first_line
from hybridbatch.common.files import atomic_path

FORMATS = (
    ".npy, .parquet, a FAISS index (.faiss, .index, .ivf), or a raw memory map with --dimension"
)
FAISS_ENDS = (".faiss", ".index", ".ivf", ".idx")
ROWS_AT_ONCE = 16_384
FLOATS = ("float16", "float32", "float64")
Kind = Literal["npy", "raw", "parquet", "FAISS"]


@dataclass(frozen=True)
class IndexFile:
    """One file of P stored vectors.

    Attributes:
        path: path of the file.
        kind: name of the file format, for people.
        shape: (P, D).
        dtype: type of the stored vectors.
        read: (start, stop) -> [stop - start, D].
        write: (path, vectors [P, D]) -> writes a file of the same kind. None for a plain array,
            whose file is the vectors themselves, with a header (`npy`) or without (`raw`).
        languages: the language of each row, if the file holds it.
    """

    path: Path
    kind: Kind
    shape: tuple[int, int]
    dtype: np.dtype
    read: Callable[[int, int], np.ndarray]
    write: Callable[[Path, np.ndarray], None] | None = None
    languages: Callable[[], list[str]] | None = None


def kind_of(path: Path) -> Kind:
    """The format that the end of a file's name tells; raw if it tells none."""
    end = path.suffix.lower()
    if end == ".npy":
        return "npy"
    if end == ".parquet":
        return "parquet"
    return "FAISS" if end in FAISS_ENDS else "raw"


def open_index(
    path: Path,
    *,
    dimension: int | None = None,
    dtype: Literal["float16", "float32"] = "float16",
    column: str = "vector",
    language_column: str | None = None,
) -> IndexFile:
    """Open a file of stored vectors; the end of its name tells its format.

    Args:
        dimension, dtype: of a raw memory map, which states neither.
        column: column of a Parquet file with the vectors as lists of numbers.
        language_column: column of a Parquet file with the languages.

    Raises:
        DataError: a file that is missing, damaged, or of a kind that does not keep its vectors.
        ConfigError: an unknown format.
    """
    if not path.is_file():
        raise DataError(f"{path}: does not exist; name a file of vectors: {FORMATS}")
    if dimension is not None:
        return _open_raw(path, dimension, np.dtype(dtype))
    kind = kind_of(path)
    if kind == "npy":
        return _open_npy(path)
    if kind == "parquet":
        return _open_parquet(path, column, language_column)
    if kind == "FAISS":
        return _open_faiss(path)
    raise ConfigError(
        f"{path}: the name does not show what the file holds; known files are {FORMATS}"
    )


def _open_npy(path: Path) -> IndexFile:
    try:
        # private: torch takes writable arrays only, and nothing written would reach the file
        vectors = np.load(path, mmap_mode="c", allow_pickle=False)
    except (OSError, ValueError, EOFError, SyntaxError, TokenError) as error:
        raise DataError(f"{path}: is damaged, or not a numpy array ({error})") from error
    _check_array(path, vectors.shape, vectors.dtype)
    dtype = vectors.dtype.newbyteorder("=")
    return IndexFile(
        path,
        "npy",
        vectors.shape,
        dtype,
        # copies only rows in another order of numbers or bytes than torch can read
        lambda start, stop: np.ascontiguousarray(vectors[start:stop], dtype),
    )


def _open_raw(path: Path, dimension: int, dtype: np.dtype) -> IndexFile:
    size, row = path.stat().st_size, dimension * dtype.itemsize
    if size % row or not size:
        raise DataError(
            f"{path}: has {size:,} bytes, which is no whole number of vectors of {dimension}"
            f" {dtype} numbers ({row} bytes); check --dimension and --dtype"
        )
    vectors = np.memmap(path, dtype, mode="c", shape=(size // row, dimension))
    return IndexFile(path, "raw", vectors.shape, dtype, lambda start, stop: vectors[start:stop])


def _check_array(path: Path, shape: Sequence[int], dtype: np.dtype) -> None:
    if len(shape) != 2 or not all(shape):
        raise DataError(f"{path}: holds an array of shape {tuple(shape)}, not vectors [P, D]")
    if dtype.name not in FLOATS:
        raise DataError(f"{path}: holds {dtype} numbers; vectors must be {', '.join(FLOATS)}")


@contextmanager
def _parquet_errors(path: Path) -> Iterator[None]:
    """Turn what Arrow says of a damaged file into a `DataError`."""
    import pyarrow as pa

    try:
        yield
    except (OSError, ValueError, OverflowError, SystemError, pa.ArrowException) as error:
        raise DataError(
            f"{path}: is damaged, or not a Parquet file ({first_line(error)}); write it again"
        ) from error


def _open_parquet(path: Path, column: str, language_column: str | None) -> IndexFile:
    import pyarrow as pa
    import pyarrow.parquet as pq

    with _parquet_errors(path):
        file = pq.ParquetFile(path, memory_map=True)
    schema = file.schema_arrow
    for name, flag in ((column, "--column"), (language_column, "--languages")):
        if name is not None and name not in schema.names:
            raise DataError(
                f"{path}: has no column {name!r}; its columns are {', '.join(schema.names)};"
                f" name one with {flag}"
            )
    kind = schema.field(column).type
    lists = (
        pa.types.is_list(kind)
        or pa.types.is_fixed_size_list(kind)
        or pa.types.is_large_list(kind)
    )
    if not lists or not pa.types.is_floating(kind.value_type):
        raise DataError(f"{path}: column {column!r} is {kind}, not lists of floats")
    total = file.metadata.num_rows
    if not total:
        raise DataError(f"{path}: holds no rows")
    rows = _ParquetRows(path, file, column)
    width = rows.width()
    dtype = np.dtype(kind.value_type.to_pandas_dtype())
    return IndexFile(
        path,
        "parquet",
        (total, width),
        dtype,
        rows.read,
        lambda out, vectors: _write_parquet(path, out, column, vectors),
        (lambda: _parquet_languages(path, language_column)) if language_column else None,
    )


class _ParquetRows:
    """The vectors of a Parquet file, read row group by row group.

    A read continues where the last read ended, or starts at the row group that has its first row.
    """

    def __init__(self, path: Path, file: Any, column: str) -> None:
        self.path, self.file, self.column = path, file, column
        sizes = [file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)]
        self.ends = np.cumsum(sizes)
        self.group = -1
        self.held: np.ndarray | None = None
        self.dimension: int | None = None

    def width(self) -> int:
        """D, taken from the first row."""
        return self.read(0, 1).shape[1]

    def read(self, start: int, stop: int) -> np.ndarray:
        """[stop - start, D]."""
        parts = []
        while start < stop:
            group = int(np.searchsorted(self.ends, start, side="right"))
            first = int(self.ends[group - 1]) if group else 0
            end = min(stop, int(self.ends[group]))
            parts.append(self._load(group)[start - first : end - first])
            start = end
        return np.concatenate(parts)

    def _load(self, group: int) -> np.ndarray:
        if group != self.group or self.held is None:
            self.held = self._vectors(group)
            self.group = group
        return self.held

    def _vectors(self, group: int) -> np.ndarray:
        with _parquet_errors(self.path):
            table = self.file.read_row_group(group, columns=[self.column])
        lists = table.column(0).combine_chunks()
        first = int(self.ends[group - 1]) if group else 0
        if lists.null_count:
            row = first + int(np.flatnonzero(lists.is_null().to_numpy(zero_copy_only=False))[0])
            raise DataError(
                f"{self.path}: row {row} has no {self.column!r}; remove the row first"
            )
        lengths = np.asarray(lists.value_lengths())
        if self.dimension is None:
            self.dimension = int(lengths[0])
        wrong = np.flatnonzero((lengths != self.dimension) | (lengths == 0))
        if len(wrong):
            raise DataError(
                f"{self.path}: row {first + wrong[0]} has {lengths[wrong[0]]} numbers; every row"
                f" must have as many as the first ({self.dimension}), at least 1"
            )
        return lists.flatten().to_numpy(zero_copy_only=False).reshape(len(lists), -1)


def _parquet_languages(path: Path, column: str) -> list[str]:
    import pyarrow.parquet as pq

    with _parquet_errors(path):
        values = pq.read_table(path, columns=[column]).column(0).to_pylist()
    return ["" if value is None else str(value) for value in values]


def _write_parquet(path: Path, out: Path, column: str, vectors: np.ndarray) -> None:
    """Write the file with other vectors; other columns, their order and the metadata stay."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    file = pq.ParquetFile(path, memory_map=True)
    schema = file.schema_arrow
    kind, place = schema.field(column).type, schema.get_field_index(column)
    codec = file.metadata.row_group(0).column(0).compression.lower()
    start = 0
    with (
        atomic_path(out) as temporary,
        pq.ParquetWriter(
            temporary, schema, compression="none" if codec == "uncompressed" else codec
        ) as writer,
    ):
        for group in range(file.num_row_groups):
            with _parquet_errors(path):
                table = file.read_row_group(group)
            own = np.ascontiguousarray(vectors[start : start + len(table)])
            values = pa.array(own.reshape(-1), kind.value_type)
            if pa.types.is_fixed_size_list(kind):
                lists = pa.FixedSizeListArray.from_arrays(values, own.shape[1])
            else:
                ends = np.arange(0, len(values) + 1, own.shape[1])
                maker = pa.LargeListArray if pa.types.is_large_list(kind) else pa.ListArray
                lists = maker.from_arrays(pa.array(ends, _offset_type(kind)), values)
            table = table.set_column(place, schema.field(column), lists.cast(kind))
            writer.write_table(table, row_group_size=max(len(table), 1))
            start += len(table)


def _offset_type(kind: Any) -> Any:
    import pyarrow as pa

    return pa.int64() if pa.types.is_large_list(kind) else pa.int32()


def _open_faiss(path: Path) -> IndexFile:
    import faiss

    try:
        index = faiss.read_index(str(path))
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[-1]
        raise DataError(f"{path}: is damaged, or not a FAISS index ({reason})") from error
    if not index.ntotal:
        raise DataError(f"{path}: holds no vectors")
    inner = faiss.downcast_index(index.index) if isinstance(index, faiss.IndexIDMap) else index
    rows: Any = inner
    if isinstance(inner, faiss.IndexIVFFlat):
        _check_ids(path, inner)
        inner.make_direct_map(True)
    elif not isinstance(inner, faiss.IndexFlat):
        raise DataError(
            f"{path}: a {type(inner).__name__} does not keep its vectors exactly, and only"
            " flat and IVF-flat indexes can be rewritten; build the index again from"
            " debiased vectors"
        )
    return IndexFile(
        path,
        "FAISS",
        (index.ntotal, index.d),
        np.dtype(np.float32),
        lambda start, stop: rows.reconstruct_n(start, stop - start),
        lambda out, vectors: _write_faiss(index, out, vectors),
    )


def _check_ids(path: Path, index: Any) -> None:
    """Raise `DataError` unless the ids of an IVF index are 0 .. P - 1, which identify the rows."""
    import faiss

    lists = index.invlists
    parts = [
        faiss.rev_swig_ptr(lists.get_ids(number), lists.list_size(number)).copy()
        for number in range(index.nlist)
        if lists.list_size(number)
    ]
    ids = np.sort(np.concatenate(parts))
    if not np.array_equal(ids, np.arange(index.ntotal)):
        raise DataError(
            f"{path}: its vectors have their own ids, not 0 to {index.ntotal - 1}, so the"
            " lines of --languages cannot be matched to them; rewrite the vectors from which"
            " the index was built"
        )


def _write_faiss(index: Any, out: Path, vectors: np.ndarray) -> None:
    """Write an index of the same kind, lists and metric.

    An IVF index is trained anew, because its lists were cut along languages. With fewer vectors than
    lists, it cannot be, and keeps the lists that it has.
    """
    import faiss

    fresh = faiss.clone_index(index)
    inner: Any = (
        faiss.downcast_index(fresh.index) if isinstance(fresh, faiss.IndexIDMap) else fresh
    )
    inner.reset()
    if isinstance(inner, faiss.IndexIVFFlat):
        inner.set_direct_map_type(0)  # no map: it was made only to read the vectors
        if len(vectors) >= inner.nlist:
            inner.quantizer.reset()
            inner.is_trained = False
            step = max(1, len(vectors) // (256 * inner.nlist))
            inner.train(np.ascontiguousarray(vectors[::step], dtype=np.float32))
    for start in range(0, len(vectors), ROWS_AT_ONCE):
        inner.add(np.ascontiguousarray(vectors[start : start + ROWS_AT_ONCE], dtype=np.float32))
    fresh.ntotal = inner.ntotal
    with atomic_path(out) as temporary:
        faiss.write_index(fresh, str(temporary))
