"""Lines of big files found by number, without holding the text: ``id<TAB>text`` in 20 bytes a line."""

import os
from array import array
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

import numpy as np

from hybridbatch.errors import DataError
from hybridbatch.records import BadRow


class NumberedLines:
    """The texts of a tab-separated file of whole numbers and texts, read from the disk when asked for."""

    def __init__(self, path: Path, name: str) -> None:
        """Reads the file once. `name`: how `bad` rows call it. Raises: `DataError` if it cannot be read."""
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
        self._file = os.open(path, os.O_RDONLY)

    def __enter__(self) -> "NumberedLines":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._file)

    def texts(self, ids: np.ndarray) -> Iterator[str | None]:
        """The text of each id of an int array; None where the file has none (or a bad line). Of two, the first."""
        if not len(self._ids):
            yield from (None for _ in ids)
            return
        places = np.searchsorted(self._ids, ids)
        places[places == len(self._ids)] = 0
        found = self._ids[places] == ids
        for here, start, length in zip(
            found.tolist(), self._starts[places].tolist(), self._lengths[places].tolist(), strict=True
        ):
            yield os.pread(self._file, length, start).decode() if here else None


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
