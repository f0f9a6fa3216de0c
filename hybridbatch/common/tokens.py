"""Token arrays: tokenised texts as flat integers, in memory or memory-mapped, so that no padding is
ever stored.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

from hybridbatch.common.files import make_folder, output_errors
from hybridbatch.common.progress import SILENT, Reporter

CHUNK = 1 << 15  # texts tokenised at a time, and lost at most when the process is killed


@dataclass(frozen=True)
class TokenArrays:
    """n token sequences end to end: sequence i is ``ids[offsets[i]:offsets[i + 1]]``.

    A text that does not exist has length 0; every tokenised text has at least its special tokens.
    """

    ids: np.ndarray  # int32 [total]
    offsets: np.ndarray  # int64 [n + 1], from 0 to total

    def __len__(self) -> int:
        """n."""
        return len(self.offsets) - 1

    @property
    def lengths(self) -> np.ndarray:
        """int64 [n]: tokens of each sequence."""
        return np.diff(self.offsets)

    def __getitem__(self, index: int) -> np.ndarray:
        """int32 [length]: the tokens of one sequence."""
        if not -len(self) <= index < len(self):
            raise IndexError(f"sequence {index} of {len(self)}")
        index %= len(self)
        return np.asarray(self.ids[self.offsets[index] : self.offsets[index + 1]])

    def take(self, rows: np.ndarray) -> "TokenArrays":
        """The sequences `rows` (int [m], repeats allowed) in that order, copied into memory."""
        rows = np.asarray(rows, dtype=np.int64)
        starts = np.asarray(self.offsets[rows])
        offsets = _offsets(np.asarray(self.offsets[rows + 1]) - starts)
        positions = np.arange(offsets[-1]) + np.repeat(starts - offsets[:-1], np.diff(offsets))
        return TokenArrays(np.asarray(self.ids[positions]), offsets)

    def remap(self, table: np.ndarray) -> "TokenArrays":
        """The same sequences with every id replaced by ``table[id]`` (int [vocabulary])."""
        return TokenArrays(np.asarray(table)[self.ids].astype(np.int32, copy=False), self.offsets)

    @staticmethod
    def concatenate(parts: Sequence["TokenArrays"]) -> "TokenArrays":
        """All sequences of `parts`, one part after the other."""
        ids = [part.ids for part in parts] or [np.empty(0, np.int32)]
        lengths = [part.lengths for part in parts] or [np.empty(0, np.int64)]
        return TokenArrays(np.concatenate(ids), _offsets(np.concatenate(lengths)))

    @staticmethod
    def of(sequences: Sequence[Sequence[int]]) -> "TokenArrays":
        """From one list of token ids per text, as tokenizers give them."""
        lengths = np.fromiter(map(len, sequences), np.int64, len(sequences))
        offsets = _offsets(lengths)
        ids = np.fromiter(
            (token for sequence in sequences for token in sequence), np.int32, int(offsets[-1])
        )
        return TokenArrays(ids, offsets)


def _offsets(lengths: np.ndarray) -> np.ndarray:
    return np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths, dtype=np.int64)])


def stored_tokens(
    folder: Path,
    present: np.ndarray,
    texts: Callable[[np.ndarray], list[str]],
    tokenise: Callable[[Sequence[str]], TokenArrays],
    report: Reporter = SILENT,
) -> TokenArrays:
    """The tokens of n texts, memory-mapped from `folder`; made there once, in chunks.

    After a crash the next call goes on where it ended; of several processes one works and the
    others wait.

    Args:
        folder: its name must stand for everything the tokens depend on.
        present: bool [n]: which texts exist; the others have length 0.
        texts: numbers of texts that exist -> the texts.
    Raises: `OutputError` if the tokens cannot be written.
    """
    if not folder.is_dir():
        with _alone(folder) as part:
            if not folder.is_dir():
                _tokenise_rest(part, present, texts, tokenise, report)
                with output_errors(folder):
                    os.replace(part, folder)
    offsets = np.memmap(folder / "offsets", np.int64, mode="r")
    ids = np.memmap(folder / "ids", np.int32, mode="r") if offsets[-1] else np.empty(0, np.int32)
    return TokenArrays(ids, offsets)


@contextmanager
def _alone(folder: Path) -> Iterator[Path]:
    """A folder for the unfinished work on `folder`, held by one process at a time."""
    import fcntl

    make_folder(folder.parent)
    with output_errors(folder), open(folder.with_name(f".{folder.name}.lock"), "wb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield folder.with_name(f".{folder.name}.part")


def _tokenise_rest(
    part: Path,
    present: np.ndarray,
    texts: Callable[[np.ndarray], list[str]],
    tokenise: Callable[[Sequence[str]], TokenArrays],
    report: Reporter,
) -> None:
    """Complete ``ids`` (int32) and ``offsets`` (int64) in `part`, both of which only ever grow.

    Tokens reach the disk before the offsets that speak of them, so what the offsets say after a
    crash is true.
    """
    make_folder(part)
    with (
        output_errors(part),
        open(part / "ids", "ab") as ids,
        open(part / "offsets", "ab") as offsets,
    ):
        offsets.truncate(offsets.tell() // 8 * 8)
        known = np.fromfile(part / "offsets", np.int64)
        if not len(known):
            known = np.zeros(1, np.int64)
            _append(offsets, known)
        done, end = len(known) - 1, int(known[-1])
        ids.truncate(4 * end)
        with report.bar("tokenising", len(present), "texts", done) as bar:
            for start in range(done, len(present), CHUNK):
                here = present[start : start + CHUNK]
                tokens = tokenise(texts(start + np.flatnonzero(here)))
                lengths = np.zeros(len(here), np.int64)
                lengths[here] = tokens.lengths
                _append(ids, tokens.ids.astype(np.int32, copy=False))
                _append(offsets, end + np.cumsum(lengths))
                end += int(lengths.sum())
                bar.advance(len(here))


def _append(file: BinaryIO, values: np.ndarray) -> None:
    file.write(np.ascontiguousarray(values).data)
    file.flush()
    os.fsync(file.fileno())
