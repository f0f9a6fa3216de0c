"""Checks embeddings before they are scored: float32 tensors on one device, finite."""

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from hybridbatch.common.errors import DataError


class Vectors(Protocol):
    """[P, D] of any float type: an array, a memory map, or a reader of rows from several files."""

    @property
    def shape(self) -> Sequence[int]:
        """(P, D)."""

    def __len__(self) -> int:
        """P."""

    def __getitem__(self, rows: Any, /) -> Any:
        """[n, D] of a slice, or of ascending row numbers."""


def as_float32(
    vectors: np.ndarray | Tensor, device: str | torch.device, buffer: Tensor | None = None
) -> Tensor:
    """Convert [N, D] of any float type to a float32 tensor on `device`.

    The memory of `vectors` is never written to.

    Args:
        buffer: float32 [at least N, D] on the device, used if `vectors` must be converted from
            another type or device. New memory would cost 4 times as much as the conversion.
    """
    if isinstance(vectors, np.ndarray):
        # torch cannot hold a read-only array, such as a memory map
        vectors = torch.from_numpy(vectors if vectors.flags.writeable else vectors.copy())
    if buffer is None or (vectors.dtype == torch.float32 and vectors.device == buffer.device):
        return vectors.to(device, torch.float32)
    return buffer[: len(vectors)].copy_(vectors)


def require_finite(vectors: Tensor, what: str, names: Sequence[object]) -> None:
    """Raise `DataError` naming the first of `vectors` [N, D] with a NaN or infinite number."""
    # a sum is NaN or infinite if any number is: 10 times as fast as checking each number
    bad = (~vectors.sum(dim=1).isfinite()).nonzero()
    if len(bad):
        raise DataError(
            f"the embedding of {what} {names[int(bad[0])]!r} holds NaN or infinite numbers"
            f" ({len(bad)} embeddings do); check the model and its precision"
        )


def require_width(queries: Tensor, width: int) -> None:
    """Raise `DataError` unless `queries` [Q, D] have the width of the corpus."""
    if queries.shape[1] != width:
        raise DataError(
            f"queries have {queries.shape[1]} dimensions, the corpus has {width}; encode both with"
            " the same model"
        )
