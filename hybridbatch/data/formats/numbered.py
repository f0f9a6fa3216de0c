"""Finds lines of big files by number without holding the text: 20 bytes per ``id<TAB>text`` line."""

from array import array
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from types import TracebackType

import numpy as np

from hybridbatch.common.errors import DataError
from hybridbatch.common.records import BadRow


class NumberedLines:
    """The texts of a tab-separated file of whole numbers and texts, read from disk on demand."""

    def __init__(self, path: Path, name: str) -> None:
        """Read the file once.

        Args:
            name: the file's name in bad rows (`bad`).

        Raises:
            DataError: The file cannot be read.
        """
        self.bad: list[BadRow] = []
        ids, starts, lengths = array("q"), array("q"), array("i")
        at = 0
        try:
            with path.open("rb") as file:
                for number, raw in enumerate(file, 1):
                    key, tab, words = raw.rstrip(b"\r\n").partition(b"\t")
                    problem = _problem(key, tab, words)
                    if problem:
                        self.bad.append(BadRow(name, number, *problem))
                    else:
                        ids.append(int(key))
                        starts.append(at + len(key) + 1)
                        lengths.append(len(words))
                    at += len(raw)
        except OSError as error:
            raise DataError(f"{path}: cannot be read ({error.strerror or error})") from error
        unsorted = np.frombuffer(ids, np.int64)
        order = np.argsort(unsorted, kind="stable")
        self._ids = unsorted[order]
        self._starts = np.frombuffer(starts, np.int64)[order]
        self._lengths = np.frombuffer(lengths, np.int32)[order]
        self._file = path.open("rb")

    def __enter__(self) -> "NumberedLines":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._file.close()

    def texts(self, ids: np.ndarray) -> Iterator[str | None]:
        """The text of each id of an int array.

        None stands for an id without a text (or with a bad line). If an id has two texts, the first
        counts.
        """
        if not len(self._ids):
            yield from (None for _ in ids)
            return
        places = np.searchsorted(self._ids, ids)
        places[places == len(self._ids)] = 0
        found = self._ids[places] == ids
        for here, start, length in zip(
            found.tolist(),
            self._starts[places].tolist(),
            self._lengths[places].tolist(),
            strict=True,
        ):
            if here:
                self._file.seek(start)
            yield self._file.read(length).decode() if here else None


def _problem(key: bytes, tab: bytes, words: bytes) -> tuple[str, str] | None:
    """(field, reason) if a line cannot be used."""
    if not tab:
        return "line", "must be a number, a tab and a text"
    if not key.isdigit() or len(key) > 18:
        return "id", f"must be a whole number, not {key[:20].decode(errors='replace')!r}"
    if not words.strip():
        return "text", "empty"
    try:
        words.decode()
    except UnicodeDecodeError as error:
        return "text", f"not valid UTF-8 at byte {error.start + 1}"
    return None


_BLOCK = 1 << 22  # bytes


def integer_rows(
    path: Path, name: str, columns: tuple[str, ...]
) -> tuple[np.ndarray, list[BadRow]]:
    """The good rows of a tab-separated file without a header, and the bad rows.

    Args:
        name: the file's name in bad rows.

    Returns:
        int32 [N, C] for C columns, and the bad rows.

    Raises:
        DataError: The file cannot be read.
    """
    import pyarrow as pa
    from pyarrow import csv

    parse = csv.ParseOptions(delimiter="\t", quote_char=False)
    names = csv.ReadOptions(column_names=list(columns), use_threads=False)
    types = csv.ConvertOptions(column_types=dict.fromkeys(columns, pa.int32()), null_values=[])
    blocks: list[np.ndarray] = []
    bad: list[BadRow] = []
    for first, block in _blocks(path):
        try:
            table = csv.read_csv(BytesIO(block), names, parse, types)
            blocks.append(np.column_stack([column.to_numpy() for column in table.columns]))
        except pa.ArrowInvalid:
            blocks.append(_slowly(block, first, name, columns, bad))
    return np.concatenate(blocks) if blocks else np.empty((0, len(columns)), np.int32), bad


def _blocks(path: Path) -> Iterator[tuple[int, bytes]]:
    """(number of the first line, whole lines) until the end of the file."""
    number = 1
    try:
        with path.open("rb") as file:
            while block := file.read(_BLOCK):
                block += file.readline()
                yield number, block
                number += block.count(b"\n")
    except OSError as error:
        raise DataError(
            f"{path}: cannot be read after line {number} ({error.strerror or error})"
        ) from error


def _slowly(
    block: bytes, first: int, name: str, columns: tuple[str, ...], bad: list[BadRow]
) -> np.ndarray:
    """Read a block that has a bad line, line by line; append to `bad`."""
    good = []
    for number, raw in enumerate(block.split(b"\n"), first):
        cells = raw.rstrip(b"\r").split(b"\t")
        wrong = next(
            (at for at, cell in enumerate(cells[: len(columns)]) if not _is_int32(cell)), None
        )
        if not raw.strip():
            continue
        if len(cells) != len(columns):
            bad.append(
                BadRow(
                    name,
                    number,
                    "line",
                    f"{len(cells)} fields where there should be {len(columns)}",
                )
            )
        elif wrong is not None:
            shown = cells[wrong][:20].decode(errors="replace")
            bad.append(
                BadRow(name, number, columns[wrong], f"must be a whole number, not {shown!r}")
            )
        else:
            good.append([int(cell) for cell in cells])
    return np.array(good, np.int32).reshape(len(good), len(columns))


def _is_int32(cell: bytes) -> bool:
    return cell.isdigit() and len(cell) < 11 and int(cell) < 1 << 31
