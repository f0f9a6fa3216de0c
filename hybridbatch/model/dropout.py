"""Dropout with a cheap random source on the CPU.

torch's own dropout takes a fifth of a packed bf16 training step. It draws one Bernoulli variable
per element (5 ns each). Here one 64-bit draw serves four elements, and integer arithmetic makes and
applies the mask at the speed of memory. So the dropout probability is a multiple of 2^-15. The
scale is computed from this rounded probability, so the mean stays exact.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

LEVELS = 1 << 15
BITS = {2: torch.int16, 4: torch.int32, 8: torch.int64}  # by the size of an element


def dropout(values: Tensor, p: float) -> Tensor:
    """`values` with each element set to zero with probability `p` (0 <= p < 1).

    The other elements are divided by the probability to stay. Random numbers come from torch's
    current generator of the device, so restoring its state repeats the mask.
    """
    if values.device.type != "cpu" or torch.compiler.is_compiling():
        return F.dropout(values, p)
    return _Dropout.apply(values, round(p * LEVELS)) if p else values


class _Dropout(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor, dropped: int) -> Tensor:
        draws = torch.empty((values.numel() + 3) // 4, dtype=torch.int64).random_(
            -(1 << 63), None
        )
        mask = draws.view(torch.int16)[: values.numel()].view(values.shape)
        # A draw d of 15 bits, -LEVELS / 2 to LEVELS / 2 - 1, stays if it is at least dropped -
        # LEVELS / 2: all bits of its mask are then the sign of -1 - d + dropped - LEVELS / 2, which
        # is negative.
        mask.bitwise_right_shift_(1).bitwise_not_().add_(
            dropped - LEVELS // 2
        ).bitwise_right_shift_(15)
        ctx.save_for_backward(mask)
        ctx.scale = LEVELS / (LEVELS - dropped)
        return _apply(values, mask, ctx.scale)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return _apply(gradients[0], ctx.saved_tensors[0], ctx.scale), None


def _apply(values: Tensor, mask: Tensor, scale: float) -> Tensor:
    """`values` x `scale` where `mask` (int16) is -1, zero where it is 0."""
    bits = BITS[values.element_size()]
    return torch.bitwise_and(values.view(bits), mask.to(bits)).view(values.dtype).mul_(scale)


class Dropout(nn.Dropout):
    """`torch.nn.Dropout`, computed by `dropout`."""

    def forward(self, input: Tensor) -> Tensor:
        """A tensor of the shape of `input`."""
        return dropout(input, self.p) if self.training else input


def use_cheap_dropout(model: nn.Module) -> None:
    """Replace every `torch.nn.Dropout` inside `model` by `Dropout`.

    Weights and settings stay as they are.
    """
    for parent in list(model.modules()):
        for name, child in parent.named_children():
            if type(child) is nn.Dropout:
                setattr(parent, name, Dropout(child.p).train(child.training))
