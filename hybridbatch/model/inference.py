"""Faster forward passes on a CPU without gradients: packed weights and fused attention.

Torch converts the weights of a linear layer to another layout for every product. Here oneDNN
converts them once for many products (`torch.ops.mkldnn`, which torch's own compiler uses).
Attention in fp32 is torch's fused kernel, whose backward pass is slow but not needed here. Sums are
taken in another order than in the plain modules, so vectors differ from theirs by about 1e-7. Code
that stores vectors must keep the two kinds apart, as `hybridbatch.search.embeddings` does. Training
never uses these kernels.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hybridbatch.common.device import ResolvedPrecision

# "packed1": of this file; a change of what it computes must change the name.
Kernels = Literal["plain", "packed1"]
PLAIN: Kernels = "plain"
PACKED: Kernels = "packed1"
TOLERANCE = 1e-4  # of the self test, relative to products of 384 terms around 1

_fused: ContextVar[bool] = ContextVar("fused", default=False)


def resolve_kernels(wanted: Literal["auto", "plain", "packed"], device: torch.device) -> Kernels:
    """The kernels to encode with.

    Args:
        wanted: auto is packed where it was measured to be faster: on CPUs of AMD (1.17 times the
            linear layers' speed on Zen 4). packed is plain, too, where this torch has no packed
            weights.
    """
    if wanted == "plain" or device.type != "cpu" or not packs_weights():
        return PLAIN
    if wanted == "auto" and not _is_amd():
        return PLAIN
    return PACKED


@cache
def packs_weights() -> bool:
    """Whether this torch has packed weights that compute the result of a linear layer."""
    if not torch.backends.mkldnn.is_available():
        return False
    generator = torch.Generator().manual_seed(0)
    states = torch.randn(7, 384, generator=generator)
    layer = nn.Linear(384, 96)
    try:
        with torch.no_grad():
            found = _PackedLinear(layer, torch.float32)(states)
            expected = F.linear(states, layer.weight, layer.bias)
    except (AttributeError, RuntimeError):  # another version of torch
        return False
    return bool(torch.allclose(found, expected, rtol=TOLERANCE, atol=TOLERANCE))


@cache
def _is_amd() -> bool:
    try:
        return "AuthenticAMD" in Path("/proc/cpuinfo").read_text()
    except OSError:
        return False


def fused_attention() -> bool:
    """Whether attention on the CPU uses torch's fused kernel."""
    return _fused.get()


@contextmanager
def inference_kernels(
    module: nn.Module, kernels: Kernels, precision: ResolvedPrecision
) -> Iterator[None]:
    """Make `module` compute with these kernels inside the block.

    Nothing changes for `PLAIN`, and in fp16. The block must not compute gradients, and the weights
    must not change inside it.
    """
    if kernels == PLAIN or precision == "fp16":
        yield
        return
    dtype = torch.float32 if precision == "fp32" else torch.bfloat16
    layers = [each for each in module.modules() if type(each) is nn.Linear]
    token = _fused.set(precision == "fp32")
    try:
        for layer in layers:
            layer.forward = _PackedLinear(layer, dtype)
        yield
    finally:
        _fused.reset(token)
        for layer in layers:
            vars(layer).pop("forward", None)


class _PackedLinear:
    """Computes the result of a linear layer from weights in oneDNN's layout."""

    def __init__(self, layer: nn.Linear, dtype: torch.dtype) -> None:
        self.dtype = dtype
        self.bias = None if layer.bias is None else layer.bias.detach().to(dtype)
        operators: Any = torch.ops.mkldnn
        self.weight = operators._reorder_linear_weight(layer.weight.detach().to(dtype))
        self.multiply = operators._linear_pointwise

    def __call__(self, states: Tensor) -> Tensor:
        return self.multiply(states.to(self.dtype), self.weight, self.bias, "none", [], "")
