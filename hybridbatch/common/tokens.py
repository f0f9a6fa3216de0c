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
from hybridbatch.common.integrity import Blocks, block_sums, damage
from hybridbatch.common.locks import lock
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
        return TokenArrays(
            np.asarray(table)[self.ids].astype(np.int32, copy=False), self.offsets
        )

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
                    for name in ("ids", "offsets"):
                        block_sums(part / name).tofile(part / f"{name}.sums")
                    os.replace(part, folder)
    return _open_stored(folder, len(present))


class StoredTokens(TokenArrays):
    """Token arrays of a folder: what is taken is compared with its checksums, once per process."""

    _ids_blocks: Blocks
    _offsets_blocks: Blocks

    def __init__(self, folder: Path, ids: np.ndarray, offsets: np.ndarray) -> None:
        super().__init__(ids, offsets)
        object.__setattr__(self, "_ids_blocks", _blocks(folder, "ids"))
        object.__setattr__(self, "_offsets_blocks", _blocks(folder, "offsets"))

    def take(self, rows: np.ndarray) -> TokenArrays:
        """As `TokenArrays.take`. Raises: `DataError` for damage."""
        rows = np.asarray(rows, dtype=np.int64)
        _check(self._offsets_blocks, self.offsets, rows, rows + 2)
        _check(self._ids_blocks, self.ids, self.offsets[rows], self.offsets[rows + 1])
        return super().take(rows)

    def __getitem__(self, index: int) -> np.ndarray:
        return self.take(np.array([range(len(self))[index]])).ids

    @property
    def lengths(self) -> np.ndarray:
        """int64 [n]: tokens of each sequence."""
        self._offsets_blocks.check_all()
        return super().lengths

    def remap(self, table: np.ndarray) -> TokenArrays:
        """As `TokenArrays.remap`."""
        self._ids_blocks.check_all()
        return super().remap(table)


def _check(blocks: Blocks, array: np.ndarray, starts: np.ndarray, stops: np.ndarray) -> None:
    """Compare the entries ``starts[i]`` to ``stops[i] - 1`` of a memory-mapped array."""
    if isinstance(array, np.memmap):
        starts, stops = np.asarray(starts), np.asarray(stops)
        filled = stops > starts
        width = array.itemsize
        content = array.view(np.uint8).data
        blocks.check(content, starts[filled] * width, stops[filled] * width)


def _blocks(folder: Path, name: str) -> Blocks:
    """The blocks of a file of tokens; those of earlier versions have no checksums."""
    sums = folder / f"{name}.sums"
    return Blocks(
        folder / name, np.fromfile(sums, "<u8") if sums.is_file() else None, _mend(folder)
    )


def _mend(folder: Path) -> str:
    return f"delete {folder} and run the same command again, which tokenises anew"


def _open_stored(folder: Path, number: int) -> StoredTokens:
    """The arrays of a finished folder. Raises `DataError` for damage."""
    path = folder / "offsets"
    try:
        offsets = np.memmap(path, np.int64, mode="r")
        if len(offsets) != number + 1:
            raise damage(
                path, f"it has {len(offsets) - 1:,} texts, not {number:,}", _mend(folder)
            )
        end = folder.joinpath("ids").stat().st_size // 4
        empty = np.empty(0, np.int32)
        ids = np.memmap(folder / "ids", np.int32, mode="r") if end else empty
        tokens = StoredTokens(folder, ids, offsets)
    except (OSError, ValueError) as error:
        raise damage(path, str(error)[:200], _mend(folder)) from error
    _check(tokens._offsets_blocks, offsets, np.array([number]), np.array([number + 1]))
    if tokens._offsets_blocks.sums is None and (
        offsets[0] != 0 or (np.diff(offsets) < 0).any()
    ):
        raise damage(path, "they do not ascend from 0", _mend(folder))
    if int(offsets[-1]) != len(ids):
        raise damage(
            folder / "ids", "it has another length than its offsets say", _mend(folder)
        )
    return tokens


@contextmanager
def _alone(folder: Path) -> Iterator[Path]:
    """Lock the folder of unfinished work on `folder` for one process at a time."""
    make_folder(folder.parent)
    with output_errors(folder), open(folder.with_name(f".{folder.name}.lock"), "wb") as handle:
        lock(handle.fileno())
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
