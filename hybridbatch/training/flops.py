"""How much of the machine's rate of matrix products training reaches, counting real tokens only.

The work of a step, in floating-point operations (a multiplication and an addition are two)::

    (4 N + 2 N') T + 12 sum over layers, sequences of D L min(L, W)

for T tokens, N weights of the linear layers that work on every token, N' of them trained (all,
without LoRA: 6 N T), and scores between each of L tokens of a sequence and the at most W that it
sees (L where there is no window), D being the width. Forward and backward pass once: what gradient
caching computes twice, dropout, norms, softmax, padding inside attention groups, embeddings,
pooling, loss and optimizer are time without work.
"""

import numpy as np
from torch import nn

from hybridbatch.training.lora import linear_layers


class Work:
    """The work of an encoder's training steps; made once its trained weights are settled."""

    def __init__(self, model: nn.Module) -> None:
        layers = [model.get_submodule(name).weight for name in linear_layers(model)]
        self.per_token = sum(
            weight.numel() * (6 if weight.requires_grad else 4) for weight in layers
        )
        config = model.config
        self.width = config.hidden_size
        kinds = (
            getattr(config, "layer_types", None)
            or ["full_attention"] * config.num_hidden_layers
        )
        seen = 2 * (getattr(config, "sliding_window", None) or 0) + 1
        self.windows = [seen if kind == "sliding_attention" else None for kind in kinds]

    def of(self, lengths: np.ndarray) -> float:
        """Operations of one step on sequences of `lengths` tokens (int64 [n])."""
        pairs = sum(
            float((lengths * np.minimum(lengths, window or lengths)).sum())
            for window in self.windows
        )
        return float(self.per_token * lengths.sum()) + 12 * self.width * pairs
