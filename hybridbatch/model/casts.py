"""Half-precision copies of the weights, made all at once instead of one by one.

Autocast makes the same copies and casts their gradients back, but with one kernel for each weight
and each forward pass. Here one kernel makes all copies, once for all passes between two changes of
the weights. Linear layers that read the same states, such as those of query, key and value, are
computed as one product.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

# Number of weights that are cast together; the gradients of a part are complete together.
PART = 1 << 24
# Names of layers that read the same states, in the families of `hybridbatch.model.packed`.
SIBLINGS = (
    ("query", "key", "value"),
    ("q_lin", "k_lin", "v_lin"),
    ("q_proj", "k_proj", "v_proj"),
    ("gate_proj", "up_proj"),
)
Own = list[Tensor]  # weights whose copies lie behind one another in one tensor


class HalfWeights:
    """Copies of the fp32 weights of all linear layers in another type.

    Values and gradients are those of autocast, to the last bit but for the sums inside products
    that are computed together.

    Args:
        module: its `torch.nn.Linear` layers are used only inside autocast to `dtype`. Its weights
            must not change while the copies are in use.
        dtype: type of the copies.
    """

    def __init__(self, module: nn.Module, dtype: torch.dtype) -> None:
        joined = list(_siblings(module))
        together = {id(layer) for layers in joined for layer in layers}
        self._joints = [_Joint(layers) for layers in joined]
        self._places: list[tuple[dict[str, Any], str]] = []
        self._own: list[Own] = []
        for joint in self._joints:
            self._own += joint.own
        for part in module.modules():
            if isinstance(part, nn.Linear) and id(part) not in together:
                for name, weight in part._parameters.items():
                    if weight is not None and weight.dtype == torch.float32:
                        self._places.append((part._parameters, name))
                        self._own.append([weight])
        self._copies = _copies(self._own, dtype)

    @contextmanager
    def used(self) -> Iterator[None]:
        """Let the layers compute with the copies inside the block, which is one forward pass."""
        copies = iter(self._differentiable())
        for joint in self._joints:
            joint.install(*(next(copies) for _ in joint.own))
        weights = [held[name] for held, name in self._places]
        for held, name in self._places:
            held[name] = next(copies)
        try:
            yield
        finally:
            for (held, name), weight in zip(self._places, weights, strict=True):
                held[name] = weight
            for joint in self._joints:
                joint.remove()

    def _differentiable(self) -> Iterator[Tensor]:
        """The copies, whose gradients flow to the weights if these are trained."""
        for part in _parts(self._own):
            copies = self._copies[part.start : part.stop]
            own = self._own[part.start : part.stop]
            if any(weight.requires_grad for weight in chain(*own)):
                yield from _Cast.apply(own, copies, *chain(*own))
            else:
                yield from copies


class _Cast(torch.autograd.Function):
    """Passes copies of weights on, and their gradients back to the weights."""

    @staticmethod
    def forward(
        ctx: Any, own: Sequence[Own], copies: Sequence[Tensor], *weights: Tensor
    ) -> tuple[Tensor, ...]:
        ctx.set_materialize_grads(False)  # an unused weight gets no gradient
        ctx.rows = [[len(weight) for weight in joined] for joined in own]
        ctx.dtype = weights[0].dtype
        return tuple(copy.detach() for copy in copies)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor | None, ...]:
        found: list[Tensor | None] = []
        for gradient, rows in zip(gradients, ctx.rows, strict=True):
            found += [None] * len(rows) if gradient is None else gradient.split(rows)
        trained = ctx.needs_input_grad[2:]
        wanted = [g if needed else None for g, needed in zip(found, trained, strict=True)]
        full = iter(_copies([[g] for g in wanted if g is not None], ctx.dtype))
        return None, None, *(None if gradient is None else next(full) for gradient in wanted)


@torch.no_grad()
def _copies(own: Sequence[Sequence[Tensor]], dtype: torch.dtype) -> list[Tensor]:
    """A copy of each row of tensors, which lie behind one another in it along dimension 0."""
    copies: list[Tensor] = []
    places: list[Tensor] = []
    for joined in own:
        rows = [len(tensor) for tensor in joined]
        copy = torch.empty(
            (sum(rows), *joined[0].shape[1:]), dtype=dtype, device=joined[0].device
        )
        copies.append(copy)
        places += [copy] if len(rows) == 1 else copy.split(rows)
    if places:
        torch._foreach_copy_(places, list(chain(*own)))
    return copies


def _parts(own: Sequence[Own]) -> Iterator[range]:
    """The weights in parts of about `PART` numbers, in their order."""
    start, size = 0, 0
    for end, joined in enumerate(own, start=1):
        size += sum(weight.numel() for weight in joined)
        if size >= PART or end == len(own):
            yield range(start, end)
            start, size = end, 0


def _siblings(module: nn.Module) -> Iterator[list[nn.Linear]]:
    """Layers that read the same states, as far as their names tell; `_Joint` makes sure."""
    for part in module.modules():
        for names in SIBLINGS:
            layers = [part._modules.get(name) for name in names]
            if all(type(layer) is nn.Linear for layer in layers) and _alike(layers):
                yield layers


def _alike(layers: Sequence[Any]) -> bool:
    """Whether the layers can be one product."""
    kinds = {
        (layer.in_features, layer.bias is None, layer.weight.dtype, layer.weight.requires_grad)
        for layer in layers
    }
    return len(kinds) == 1 and layers[0].weight.dtype == torch.float32


class _Joint:
    """Linear layers of one module that read the same states, computed as one product.

    The first layer that is called computes the results of all. A layer that is called with other
    states computes its own result alone.
    """

    def __init__(self, layers: Sequence[nn.Linear]) -> None:
        self.layers = layers
        self.rows = [layer.out_features for layer in layers]
        self.own: list[Own] = [[layer.weight for layer in layers]]
        if layers[0].bias is not None:
            self.own.append([layer.bias for layer in layers])
        self._weight: Tensor | None = None
        self._bias: Tensor | None = None
        self._states: Tensor | None = None
        self._results: dict[int, Tensor] = {}

    def install(self, weight: Tensor, bias: Tensor | None = None) -> None:
        """Compute with these weights from now on."""
        self._weight, self._bias = weight, bias
        for number, layer in enumerate(self.layers):
            layer.forward = _Part(self, number)

    def remove(self) -> None:
        """Let the layers compute by themselves again."""
        self._weight = self._bias = self._states = None
        self._results = {}
        for layer in self.layers:
            vars(layer).pop("forward", None)

    def result(self, number: int, states: Tensor) -> Tensor:
        """The result of layer `number`."""
        assert self._weight is not None
        if self._states is states and number in self._results:
            found = self._results.pop(number)
            if not self._results:
                self._states = None
            return found
        if self._states is None:
            parts = F.linear(states, self._weight, self._bias).split(self.rows, -1)
            self._states = states
            self._results = {each: part for each, part in enumerate(parts) if each != number}
            return parts[number]
        bias = None if self._bias is None else self._bias.split(self.rows)[number]
        return F.linear(states, self._weight.split(self.rows)[number], bias)


@dataclass(frozen=True)
class _Part:
    """Computes the result of one layer of a joint."""

    joint: _Joint
    number: int

    def __call__(self, states: Tensor) -> Tensor:
        return self.joint.result(self.number, states)
