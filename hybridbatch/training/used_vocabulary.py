"""Big vocabularies cost nothing: only embedding rows that training touches have gradients.

Optimizer state, too, exists for touched rows only. A word that no batch holds never gets a
gradient. Dense AdamW would leave the moments of its row at zero and multiply the row by ``1 - lr *
weight_decay`` in every step. So the embedding table is cut to the touched rows during training.
When the model is saved, the other rows get the same multiplications, in the same order and
precision. On the CPU the result is equal to the last bit, because every version of torch's AdamW
(fused, foreach and plain) applies its decay as exactly this product.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from hybridbatch.training.optimizer import average_decay

# A block of this size is assumed to stay in a core's cache while the factors of all steps
# are applied to it.
BLOCK_BYTES = 1 << 18


class TouchedRows(nn.Module):
    """Replaces an embedding table: takes the original token ids but holds only some rows.

    Args:
        full: the table to cut.
        ids: int [T], distinct and ascending: the rows to hold, with or without `full.padding_idx`.
    """

    def __init__(self, full: nn.Embedding, ids: np.ndarray) -> None:
        super().__init__()
        device = full.weight.device
        rows = torch.from_numpy(np.asarray(ids, np.int64))
        self.num_embeddings, self.embedding_dim, self.padding_idx = (
            full.weight.shape[0],
            full.weight.shape[1],
            None,
        )
        self.weight = nn.Parameter(full.weight.detach()[rows.to(device)].clone())
        # -1: an id that must not occur in training
        lookup = torch.full((self.num_embeddings,), -1, dtype=torch.int64)
        lookup[rows] = torch.arange(len(rows))
        self.register_buffer("lookup", lookup.to(device), persistent=False)
        if full.padding_idx is not None and lookup[full.padding_idx] >= 0:
            # index in the cut table; its row gets no gradient
            self.padding_idx = int(lookup[full.padding_idx])

    def forward(self, ids: Tensor) -> Tensor:
        """[...] original token ids -> [..., D]."""
        return functional.embedding(self.lookup[ids], self.weight, self.padding_idx)


class CutEmbedding:
    """A model's word embedding, cut to `ids` until `restore` puts the full table back."""

    def __init__(self, model: nn.Module, ids: np.ndarray) -> None:
        self.model = model
        self.full: nn.Embedding = model.get_input_embeddings()
        self.ids = np.unique(np.asarray(ids, np.int64))
        self.rows = TouchedRows(self.full, self.ids)
        # The table stays on the CPU, with its values from the start. It is not copied there: to
        # copy a table of 250,000 words three times took a second of every training.
        self.start = self.full.weight.detach().cpu()
        self.full.weight = nn.Parameter(torch.empty(0), requires_grad=False)
        model.set_input_embeddings(self.rows)

    @staticmethod
    def possible(model: nn.Module) -> bool:
        """Whether the word embedding is a plain table that trains.

        A table with renormalisation, or of a subclass with its own forward, is not plain.
        """
        full = model.get_input_embeddings()
        return (
            type(full) is nn.Embedding
            and full.weight.requires_grad
            and full.max_norm is None
            and (not full.scale_grad_by_freq)
        )

    @property
    def bytes_saved(self) -> int:
        """Memory that gradients and both moments of the untouched rows would take."""
        untouched = self.start.numel() - self.rows.weight.numel()
        return 3 * untouched * self.start.element_size()

    def restore(self, decay: Sequence[float], ema: float | None = None) -> None:
        """Put the full table back, with the touched rows as trained and the others decayed.

        Args:
            decay: 1 - learning rate x weight decay of every optimizer step taken.
            ema: decay of the moving average, if the touched rows hold the moving average (inside
                `Optimizer.averaged`).
        """
        touched = self.rows.weight.detach()
        decay_rows(self.start, decay, ema)
        weight = self.start.to(touched.device)
        weight[torch.from_numpy(self.ids).to(weight.device)] = touched
        self.full.weight = nn.Parameter(weight)
        self.model.set_input_embeddings(self.full)


def decay_rows(rows: Tensor, decay: Sequence[float], ema: float | None = None) -> None:
    """Replace `rows` [n, D] by AdamW's result if they never get a gradient, or its moving average.

    Args:
        rows: the rows at the start.
        decay: the factor of every step, in order.
        ema: decay of the moving average; None: no average.
    """
    block = max(1, BLOCK_BYTES // max(1, rows.shape[1] * rows.element_size()))
    for part in rows.split(block):
        if ema is None:
            for factor in decay:
                part.mul_(factor)
            continue
        moving = part.clone()
        for count, factor in enumerate(decay):
            moving.mul_(factor)
            part.lerp_(moving, 1 - average_decay(ema, count))
