"""The layers of an encoder, compiled by `torch.compile`.

Compiled layers fuse what lies between two matrix products (casts, bias, GELU, dropout, residual,
norm) into single kernels. Attention stays as it is. So does everything outside the layers.

Compiled code computes the same formulas with other kernels, so its bits are its own. Dropout of
compiled layers must be replayed by gradient caching, which embeds a text once without a graph and
once with one: `CompiledLayers.trial` makes sure that it is.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor, nn
from transformers import AttentionInterface, PreTrainedModel

from hybridbatch.common.errors import ConfigError
from hybridbatch.common.memory import is_out_of_memory
from hybridbatch.model.packed import IMPLEMENTATION, packed_attention

LIMIT = 64  # versions of one function, such as for the layers of a model that know their number
# Largest difference of embeddings with and without a graph, relative to their difference under
# other dropout masks. It is near 1 if masks are not repeated, and rounding makes it at most 0.5.
REPEATED = 0.8


def transformer_layers(model: PreTrainedModel) -> list[nn.Module]:
    """The layers of a transformer, from the first to the last; empty if they are not found."""
    lists = [part for part in model.modules() if isinstance(part, nn.ModuleList)]
    sizes = [sum(weight.numel() for weight in part.parameters()) for part in lists]
    return list(lists[int(np.argmax(sizes))]) if lists else []


class CompiledLayers:
    """Compiles the layers of `model`, until `remove`.

    Args:
        model: a model of transformers. Its weights and their names stay as they are.
    Raises: `ConfigError` if it has no list of layers.
    """

    def __init__(self, model: PreTrainedModel) -> None:
        self.layers = transformer_layers(model)
        if not self.layers:
            kind = model.config.model_type
            raise ConfigError(f"compile = true: a {kind} has no list of layers; leave it out")
        import torch._dynamo  # takes seconds

        self._limit = torch._dynamo.config.recompile_limit
        torch._dynamo.config.recompile_limit = max(self._limit, LIMIT)
        AttentionInterface.register(IMPLEMENTATION, torch.compiler.disable(packed_attention))
        for layer in self.layers:
            layer.compile(dynamic=True)

    def remove(self) -> None:
        """Let the layers compute as they did before."""
        for layer in self.layers:
            layer._compiled_call_impl = None
        AttentionInterface.register(IMPLEMENTATION, packed_attention)
        torch._dynamo.config.recompile_limit = self._limit

    def trial(self, embed: Callable[[int], Tensor]) -> None:
        """Compute embeddings without a graph, and with one and their gradients.

        Args:
            embed: dropout seed -> embeddings [n, D] of fixed texts.
        Raises: `ConfigError` if the layers cannot be compiled, or if dropout is not replayed.
        """
        try:
            with _explained():
                with torch.no_grad():
                    first, other = embed(0), embed(1)
                second = embed(0)
                second.sum().backward()
            difference = float((first - second.detach()).norm())
            of_masks = float((first - other).norm())  # 0 without dropout
            if of_masks and not difference < REPEATED * of_masks:
                raise ConfigError(
                    "compile = true: the compiled layers do not repeat their dropout masks"
                    f" (embeddings differ by {difference:.1e}, under other masks by"
                    f" {of_masks:.1e}); leave out --compile, or use --dropout 0"
                )
        except ConfigError:
            self.remove()
            raise


@contextmanager
def _explained() -> Iterator[None]:
    """Raises: `ConfigError` for an error of the compiler."""
    try:
        yield
    except Exception as error:  # of dynamo, inductor, triton, or a C++ compiler
        if is_out_of_memory(error) or isinstance(error, ConfigError):
            raise
        # The first line of dynamo's errors names only the backend.
        lines = [line.strip() for line in str(error).splitlines() if "raised:" not in line]
        reason = next(filter(None, lines), type(error).__name__)
        raise ConfigError(
            f"compile = true: torch.compile does not work here ({reason:.160}); leave out"
            " --compile, or install what it needs (a C++ compiler, and Triton on a GPU)"
        ) from error
