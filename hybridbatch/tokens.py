"""Token arrays: tokenised texts as flat integers, in memory or memory-mapped, so that no padding is ever stored."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


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
        ids = np.fromiter((token for sequence in sequences for token in sequence), np.int32, int(offsets[-1]))
        return TokenArrays(ids, offsets)


def _offsets(lengths: np.ndarray) -> np.ndarray:
    return np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths, dtype=np.int64)])
