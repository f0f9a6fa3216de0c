"""Faster forward passes on a CPU without gradients: packed weights, fused attention, fused GELU.

Torch converts the weights of a linear layer to another layout for every product. Here oneDNN
converts them once (`torch.ops.mkldnn`, which torch's own compiler uses), and they are kept as long
as the encoder and its weights. Attention in fp32 is torch's fused kernel, whose backward pass is
slow but not needed here. In fp32 the product before an exact GELU applies the GELU, too, which
saves a pass over memory. Sums are taken in another order than in the plain modules, so vectors
differ from theirs by about 1e-7. In fp32 each sequence is padded to a length that depends on its own
length alone. So, on CPUs where oneDNN's products do not depend on the number of rows (measured on
AMD), the bits of a vector do not depend on its batch. Code that stores vectors must keep the two kinds apart, as
`hybridbatch.search.embeddings` does. Training never uses these kernels.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers.activations import GELUActivation
from xxhash import xxh3_64

from hybridbatch.common.device import ResolvedPrecision

# "packed3": of this file; a change of what it computes must change the name.
Kernels = Literal["plain", "packed3"]
PLAIN: Kernels = "plain"
PACKED: Kernels = "packed3"
TOLERANCE = 1e-4  # of the self test, relative to products of 384 terms around 1

_fused: ContextVar[bool] = ContextVar("fused", default=False)


def resolve_kernels(
    wanted: Literal["auto", "plain", "packed"], device: torch.device
) -> Kernels:
    """The kernels to encode with.

    Args:
        wanted: auto is packed where it was measured to be faster: on CPUs of AMD (docs/speed.md).
            packed is plain, too, where this torch has no packed weights.
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
            curved = _PackedLinear(layer, torch.float32, gelu=True)(states)
            expected = F.linear(states, layer.weight, layer.bias)
    except (AttributeError, RuntimeError):  # another version of torch
        return False
    pairs = ((found, expected), (curved, F.gelu(expected)))
    return all(torch.allclose(*pair, rtol=TOLERANCE, atol=TOLERANCE) for pair in pairs)


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
    packed = _packed(module, torch.float32 if precision == "fp32" else torch.bfloat16)
    token = _fused.set(precision == "fp32")
    try:
        for part, forward in packed:
            part.forward = forward
        yield
    finally:
        _fused.reset(token)
        for part, _ in packed:
            vars(part).pop("forward", None)


@dataclass(frozen=True)
class _Kept:
    """The packed weights of a module, and the checksum of the weights that they were made of."""

    checksum: str
    packed: "list[tuple[nn.Module, _PackedLinear]]"


# by module and type; an entry is gone when its module is
_kept: "WeakKeyDictionary[nn.Module, dict[torch.dtype, _Kept]]" = WeakKeyDictionary()


def _packed(module: nn.Module, dtype: torch.dtype) -> "list[tuple[nn.Module, _PackedLinear]]":
    """The parts of `module` that compute with packed weights, and their new forward functions.

    The weights are packed again if any bit of them has changed. To compare a checksum takes a
    thirtieth of the time that packing takes.
    """
    layers = [each for each in module.modules() if type(each) is nn.Linear]
    digest = xxh3_64()
    for layer in layers:
        for weight in (layer.weight, layer.bias):
            if weight is not None:
                digest.update(f"{weight.dtype} {tuple(weight.shape)}".encode())
                values = weight.detach().contiguous().reshape(-1)
                digest.update(values.view(torch.uint8).numpy().data)
    checksum = digest.hexdigest()
    kept = _kept.setdefault(module, {})
    if dtype not in kept or kept[dtype].checksum != checksum:
        parts: list[tuple[nn.Module, _PackedLinear]] = []
        for each in module.modules():
            if type(each) is nn.Linear:
                parts.append((each, _PackedLinear(each, dtype)))
            elif dtype == torch.float32 and _ends_in_gelu(each):
                dense: Any = each.dense
                parts.append((each, _PackedLinear(dense, dtype, gelu=True)))
        kept[dtype] = _Kept(checksum, parts)
    return kept[dtype].packed


def _ends_in_gelu(module: nn.Module) -> bool:
    """Whether `module` is the first half of a BERT layer's feed-forward part, with exact GELU.

    This class of transformers, and its copies for BERT's descendants, computes
    ``intermediate_act_fn(dense(states))`` and nothing else.
    """
    activation = getattr(module, "intermediate_act_fn", None)
    return (
        type(module).__name__.endswith("Intermediate")
        and isinstance(activation, GELUActivation)
        and activation.act is F.gelu
        and type(getattr(module, "dense", None)) is nn.Linear
        and len(list(module.children())) == 2
    )


class _PackedLinear:
    """Computes the result of a linear layer from weights in oneDNN's layout.

    Args:
        layer: the layer.
        dtype: type of the product.
        gelu: apply an exact GELU to the result.
    """

    def __init__(self, layer: nn.Linear, dtype: torch.dtype, *, gelu: bool = False) -> None:
        self.dtype = dtype
        self.bias = None if layer.bias is None else layer.bias.detach().to(dtype)
        operators: Any = torch.ops.mkldnn
        self.weight = operators._reorder_linear_weight(layer.weight.detach().to(dtype))
        self.multiply = operators._linear_pointwise
        self.after: tuple[str, list[Any], str] = ("none", [], "")
        if gelu:
            self.after = ("gelu", [], "none")

    def __call__(self, states: Tensor) -> Tensor:
        return self.multiply(states.to(self.dtype), self.weight, self.bias, *self.after)
