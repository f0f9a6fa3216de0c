"""Corpora too large for memory, as memory-mapped Arrow files of ids and texts.

A file reads like two sequences of text.
"""

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar, overload

import numpy as np

from hybridbatch.common.documents import Shape, read_document
from hybridbatch.common.errors import DataError
from hybridbatch.common.files import atomic_path, write_json
from hybridbatch.common.integrity import check_file, damage, file_checksum
from hybridbatch.common.records import Texts

BATCH_TEXTS = 16_384


class StoredStrings(Sequence[str]):
    """A column of text in an Arrow file."""

    def __init__(self, column: Any) -> None:
        self.column = column  # pyarrow.ChunkedArray of string
        self.ends = np.cumsum([0, *(len(chunk) for chunk in column.chunks)])

    def __len__(self) -> int:
        return int(self.ends[-1])

    @overload
    def __getitem__(self, place: int) -> str: ...
    @overload
    def __getitem__(self, place: slice) -> list[str]: ...
    def __getitem__(self, place: int | slice) -> str | list[str]:
        if isinstance(place, slice):
            start, stop, step = place.indices(len(self))
            return self.column.slice(start, max(0, stop - start)).to_pylist()[::step]
        if not -len(self) <= place < len(self):
            raise IndexError(place)
        return self.column[place % len(self)].as_py()

    def __iter__(self) -> Iterator[str]:
        for chunk in self.column.chunks:
            yield from chunk.to_pylist()


def write_texts(path: Path, rows: Iterable[tuple[str, str]]) -> None:
    """Write (id, text) rows.

    The file appears when all rows are written, with the hash of its content beside it. Errors of
    `rows` pass through.

    Raises:
        OutputError: The file cannot be written.
    """
    import pyarrow as pa

    schema = pa.schema(
        [
            pa.field("id", pa.string(), nullable=False),
            pa.field("text", pa.string(), nullable=False),
        ]
    )
    digest = hashlib.sha256()
    with atomic_path(path) as temporary:
        with pa.OSFile(str(temporary), "wb") as sink:
            writer = pa.ipc.new_file(sink, schema)
            batch: list[tuple[str, str]] = []

            def flush() -> None:
                ids, texts = (list(column) for column in zip(*batch, strict=True))
                for value in (*ids, *texts):
                    digest.update(value.encode() + b"\0")
                writer.write_batch(pa.record_batch([ids, texts], schema=schema))
                batch.clear()

            for row in rows:
                batch.append(row)
                if len(batch) == BATCH_TEXTS:
                    flush()
            if batch:
                flush()
            writer.close()
        sha256_path(path).write_text(digest.hexdigest())
        sums = {"sha256": digest.hexdigest(), "xxh3": file_checksum(temporary)}
        write_json(sums_path(path), sums, sealed=True)


def sha256_path(path: Path) -> Path:
    """The path of the hash of a file's content."""
    return path.with_suffix(".sha256")


def sums_path(path: Path) -> Path:
    """The path of a file's checksums; files of earlier versions have none."""
    return path.with_suffix(".sums.json")


class Sums(Shape):
    """The hash of a file's content, and the checksum of its bytes."""

    what: ClassVar[str] = "checksums of a stored corpus"

    sha256: str
    xxh3: str


def open_texts(path: Path) -> Texts:
    """The rows of a file that `write_texts` wrote; all of it is compared, once per process.

    Raises:
        DataError: The file is damaged or empty.
    """
    import pyarrow as pa

    mend = f"delete {path} and run the command again, which writes it anew"
    sums: dict[str, Any] = {}
    if sums_path(path).is_file():
        sums = read_document(sums_path(path), Sums, mend)
        check_file(path, sums["xxh3"], mend)
    try:
        table = pa.ipc.open_file(pa.memory_map(str(path))).read_all()
        fingerprint = sha256_path(path).read_text()
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise damage(path, str(error), mend) from error
    if fingerprint != sums.get("sha256", fingerprint):
        raise damage(sha256_path(path), "it holds another hash than the checksums", mend)
    if not len(table):
        raise DataError(f"{path}: holds no text; an empty corpus cannot be scored")
    return Texts(StoredStrings(table["id"]), StoredStrings(table["text"]), fingerprint)
