"""Half-precision copies of the weights, made all at once instead of one by one."""

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn


class _Cast(torch.autograd.Function):
    """Casts weights to another type, and gradients of the copies to gradients of the weights."""

    @staticmethod
    def forward(ctx: Any, dtype: torch.dtype, *weights: Tensor) -> tuple[Tensor, ...]:
        ctx.set_materialize_grads(False)  # an unused weight gets no gradient
        ctx.types = [weight.dtype for weight in weights]
        return tuple(_copies(weights, dtype))

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor | None, ...]:
        found = [gradient for gradient in gradients if gradient is not None]
        full = iter(_copies(found, ctx.types[0]))
        return None, *(None if gradient is None else next(full) for gradient in gradients)


def _copies(tensors: Any, dtype: torch.dtype) -> list[Tensor]:
    copies = [torch.empty_like(tensor, dtype=dtype) for tensor in tensors]
    if copies:
        torch._foreach_copy_(copies, list(tensors))
    return copies


# Number of weights that are cast together; the gradients of a part are complete together.
PART = 1 << 24


def _parts(weights: list[Tensor]) -> Iterator[list[Tensor]]:
    """The weights in parts of about `PART` numbers, in their order."""
    part: list[Tensor] = []
    for weight in weights:
        part.append(weight)
        if sum(each.numel() for each in part) >= PART:
            yield part
            part = []
    if part:
        yield part


@contextmanager
def cast_weights(module: nn.Module, dtype: torch.dtype) -> Iterator[None]:
    """Let the linear layers of `module` use copies of their fp32 weights in `dtype` in the block.

    Autocast makes the same copies and casts their gradients back, but with one kernel for each: 24
    of the 81 kernels of a BERT layer in training. Values and gradients are equal to the last bit.

    Args:
        module: its `torch.nn.Linear` layers are used only inside autocast to `dtype`.
        dtype: type of the copies.
    """
    places: list[tuple[dict[str, Any], str]] = []
    for part in module.modules():
        if isinstance(part, nn.Linear):
            for name, weight in part._parameters.items():
                if weight is not None and weight.dtype == torch.float32:
                    places.append((part._parameters, name))
    own = [held[name] for held, name in places]
    trained = [weight for weight in own if weight.requires_grad]
    frozen = [weight.detach() for weight in own if not weight.requires_grad]
    new_trained = chain.from_iterable(_Cast.apply(dtype, *part) for part in _parts(trained))
    new_frozen = iter(_copies(frozen, dtype))
    for (held, name), weight in zip(places, own, strict=True):
        held[name] = next(new_trained if weight.requires_grad else new_frozen)
    try:
        yield
    finally:
        for (held, name), weight in zip(places, own, strict=True):
            held[name] = weight
