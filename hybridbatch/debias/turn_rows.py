"""Turns many stored vectors at once: the same map as `Debiasing.apply`, at the speed of memory.

Rows go through in *tiles* that fit the processor's cache, so that every step but the first reads
from there. torch converts float16 several times faster than numpy.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hybridbatch.debias.methods import BLOCK_ROWS, EVERY, Debiasing, Moments

TILE_BYTES = 1 << 20  # of float32 rows; measured on an AMD EPYC with 1 MiB of L2 cache a core


def tiles(vectors: np.ndarray) -> Iterator[tuple[int, Tensor]]:
    """Cut vectors [n, D] into tiles: yields the first row and the rows of each."""
    step = max(1, TILE_BYTES // (4 * vectors.shape[1]))
    for start in range(0, len(vectors), step):
        yield start, torch.from_numpy(vectors[start : start + step])


class NotFinite(ValueError):
    """A row holds NaN or infinite numbers. Attributes: row."""

    def __init__(self, row: int) -> None:
        super().__init__(f"row {row} is not finite")
        self.row = row


def _all_fit(lengths: Tensor, rows: Tensor, start: int) -> bool:
    """Whether float32 holds the lengths of rows. Raises `NotFinite`."""
    if bool(torch.isfinite(lengths).all()):
        return True
    bad = torch.nonzero(~torch.isfinite(rows).all(dim=1))
    if len(bad):
        raise NotFinite(start + int(bad[0]))
    return False


def add_rows(moments: Moments, vectors: np.ndarray, numbers: np.ndarray) -> None:
    """Add vectors to moments as `Moments.add` does; the sums of a tile are float32.

    Raises:
        NotFinite: a row holds NaN or infinite numbers.
    """
    if moments.products is not None:
        for start, rows in tiles(vectors):
            _all_fit(rows.sum(dim=1, dtype=torch.float32), rows, start)
        for start in range(0, len(vectors), BLOCK_ROWS):
            rows = torch.from_numpy(vectors[start : start + BLOCK_ROWS]).float().numpy()
            moments.add(rows, numbers[start : start + BLOCK_ROWS])
        return
    sums, squares = torch.from_numpy(moments.sums), torch.from_numpy(moments.squares)
    for start, rows in tiles(vectors):
        own = torch.from_numpy(numbers[start : start + len(rows)])
        single = rows.float()
        lengths = torch.linalg.vector_norm(single, dim=1)
        if not _all_fit(lengths, rows, start):
            single = rows.double()
            lengths = torch.linalg.vector_norm(single, dim=1)
        of_tile = torch.zeros(sums.shape, dtype=single.dtype)
        sums += of_tile.index_add_(0, own, single)
        squares.index_add_(0, own, lengths.double().square())
    moments.counts[:] += np.bincount(numbers, minlength=len(moments.counts))


@dataclass(frozen=True)
class RowTurner:
    """A map whose languages are numbers.

    Attributes:
        offsets: float32 [N, D], for each of N languages.
        directions: float32 [r, D] if all languages share them, else [N, r, D]; None for none.
        matrix: float32 [D, D], or None.
    """

    offsets: Tensor
    directions: Tensor | None
    matrix: Tensor | None

    @classmethod
    def of(cls, turn: Debiasing, names: Sequence[str]) -> "RowTurner":
        """The map of `turn` for the languages `names`, in this order."""
        known = [name if name in turn.offsets else EVERY for name in names]
        offsets = torch.from_numpy(np.stack([turn.offsets[name] for name in known]))
        directions = None
        if turn.directions:
            stacked = np.stack([turn.directions[name] for name in known])
            shared = bool((stacked == stacked[0]).all())
            directions = torch.from_numpy(stacked[0] if shared else stacked)
        matrix = None if turn.matrix is None else torch.from_numpy(turn.matrix)
        return cls(offsets, directions, matrix)

    def turn(
        self, vectors: np.ndarray, numbers: np.ndarray
    ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yield turned rows [t, D], in order, of the type of `vectors`, and their lengths before.

        The lengths are float32 [t].

        Rows that are zero stay zero.

        Args:
            vectors: [n, D].
            numbers: int [n], the language of each row.

        Raises:
            NotFinite: a row holds NaN or infinite numbers.
        """
        for start, rows in tiles(vectors):
            own = torch.from_numpy(numbers[start : start + len(rows)])
            single = rows.to(torch.float32)
            lengths = torch.linalg.vector_norm(single, dim=1)
            yield self._turn(rows, single, own, start).numpy(), lengths.numpy()

    def _turn(self, rows: Tensor, single: Tensor, numbers: Tensor, start: int) -> Tensor:
        turned = single - self.offsets.index_select(0, numbers)
        if self.directions is not None:
            turned -= self._along_directions(turned, numbers)
        if self.matrix is not None:
            turned = turned @ self.matrix.T
        lengths = torch.linalg.vector_norm(turned, dim=1, keepdim=True)
        if not _all_fit(lengths, rows, start):
            # squares so large that float32 cannot hold them
            turned = turned.double() / turned.abs().amax(dim=1, keepdim=True).double()
            lengths = torch.linalg.vector_norm(turned, dim=1, keepdim=True)
        lengths[lengths == 0] = 1
        turned /= lengths
        starts_with_zero = torch.nonzero(single[:, 0] == 0).flatten()
        if len(starts_with_zero):
            empty = ~single[starts_with_zero].any(dim=1)
            turned[starts_with_zero[empty]] = 0
        return turned.to(rows.dtype)

    def _along_directions(self, rows: Tensor, numbers: Tensor) -> Any:
        assert self.directions is not None
        if self.directions.ndim == 2:
            return (rows @ self.directions.T) @ self.directions
        own = self.directions.index_select(0, numbers)
        return torch.einsum("nr,nrd->nd", torch.einsum("nd,nrd->nr", rows, own), own)
