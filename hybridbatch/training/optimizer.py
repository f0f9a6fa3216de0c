"""AdamW with parameter groups, learning-rate schedules, clipping and an average of the weights."""

import math
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from hybridbatch.training.settings import TrainConfig

LAYER = re.compile(r"(?:^|\.)(?:layers?|blocks?|h)\.(\d+)\.")
# An assumption: the learning rates of encoders (1e-5 to 1e-4) would hardly move log t in a few
# hundred steps.
TEMPERATURE_FACTOR = 100.0


def learning_rate_factor(step: int, config: TrainConfig) -> float:
    """The learning rate of `step` (from 0), as a factor on the peak.

    A linear warm-up from 1 / warm-up comes first, then the chosen course. The linear and the cosine
    course would reach 0 one step after the last.
    """
    if step < config.warmup:
        return (step + 1) / config.warmup
    share = (step - config.warmup) / max(1, config.steps - config.warmup)
    if config.lr_schedule == "linear":
        return 1 - share
    if config.lr_schedule == "cosine":
        return (1 + math.cos(math.pi * share)) / 2
    return 1.0


def freeze_embeddings(model: nn.Module) -> None:
    """Exclude every embedding table (words, positions, types) from training."""
    for module in model.modules():
        if isinstance(module, nn.Embedding):
            module.weight.requires_grad_(False)


def parameter_groups(model: nn.Module, objective: nn.Module, config: TrainConfig) -> list[dict]:
    """Parameter groups for AdamW.

    Each group has a ``factor`` (on the learning rate), ``weight_decay``, ``params`` and ``names``.
    Of L layers, layer i has the factor ``layer_lr_decay ** (L - 1 - i)`` and the embeddings have
    ``layer_lr_decay ** L``. The top layer and everything above the layers have the factor 1.
    Without `decay_all`, biases and norms (one-dimensional parameters) do not decay. The objective's
    own parameters (a learned temperature) never decay.
    """
    named = [
        (name, parameter)
        for name, parameter in model.named_parameters()
        if parameter.requires_grad
    ]
    layers = 1 + max(
        (int(match[1]) for name, _ in named if (match := LAYER.search(name))), default=-1
    )
    groups: dict[tuple[float, float], dict] = {}

    def add(name: str, parameter: Tensor, factor: float, decay: float) -> None:
        group = groups.setdefault(
            (factor, decay),
            {"params": [], "names": [], "factor": factor, "weight_decay": decay, "lr": 0.0},
        )
        group["params"].append(parameter)
        group["names"].append(name)

    for name, parameter in named:
        if match := LAYER.search(name):
            depth = layers - 1 - int(match[1])
        else:
            depth = layers if "embed" in name else 0
        decays = config.decay_all or parameter.ndim > 1
        add(
            name,
            parameter,
            config.layer_lr_decay**depth,
            config.weight_decay if decays else 0.0,
        )
    for name, parameter in objective.named_parameters():
        if parameter.requires_grad:
            add(f"objective.{name}", parameter, TEMPERATURE_FACTOR, 0.0)
    return list(groups.values())


def average_decay(decay: float, count: int) -> float:
    """The decay of a moving average that has seen `count` values.

    It is min(decay, (1 + count) / (10 + count)), as in TensorFlow's ExponentialMovingAverage with
    `num_updates`. The decay is smaller at first, so that the average forgets the start.
    """
    return min(decay, (1 + count) / (10 + count))


class Optimizer:
    """AdamW (Loshchilov and Hutter 2019, arXiv:1711.05101) in torch's fused form, with named state.

    Args:
        groups: the result of `parameter_groups`.
        config: gives the learning rate, its course, clipping and the moving average.
    """

    def __init__(self, groups: list[dict], config: TrainConfig) -> None:
        self.config = config
        self.adamw = torch.optim.AdamW(groups, lr=config.learning_rate, fused=True)
        self.named: dict[str, nn.Parameter] = {
            name: parameter
            for group in self.adamw.param_groups
            for name, parameter in zip(group["names"], group["params"], strict=True)
        }
        self.scale = 1.0  # gradients are multiplied by it; above 1 in fp16
        self.applied: list[int] = []  # the steps that were not skipped
        self.average: dict[str, Tensor] = {}  # exponential moving average of weights, if any
        if config.ema is not None:
            self.average = {
                name: parameter.detach().clone() for name, parameter in self.named.items()
            }

    def learning_rate(self, step: int) -> float:
        """The learning rate of `step` (from 0), before the factors of the groups."""
        return self.config.learning_rate * learning_rate_factor(step, self.config)

    def _gradients(self) -> list[Tensor]:
        return [
            parameter.grad for parameter in self.named.values() if parameter.grad is not None
        ]

    def total_norm(self) -> Tensor:
        """The Euclidean norm of all gradients together, a scalar on their device."""
        return torch.nn.utils.get_total_norm(self._gradients())

    def gradient_norm(self) -> float:
        """The result of `total_norm` as a number; the host waits for the device."""
        return float(self.total_norm())

    def step(self, step: int, gradient_norm: float) -> None:
        """Clip the gradients, then update the weights and their moving average.

        Args:
            step: number of the step, from 0.
            gradient_norm: norm of the gradients without their `scale`.
        """
        limit, factor = self.config.max_grad_norm, 1 / self.scale
        if limit is not None and gradient_norm > limit:
            factor *= limit / gradient_norm
        if factor != 1:
            torch._foreach_mul_(self._gradients(), factor)
        for group in self.adamw.param_groups:
            group["lr"] = self.learning_rate(step) * group["factor"]
        self.adamw.step()
        if self.config.ema is not None:
            share = 1 - average_decay(self.config.ema, len(self.applied))
            torch._foreach_lerp_(list(self.average.values()), list(self.named.values()), share)
        self.applied.append(step)

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """Replace the weights by their moving average, if there is one, inside the block."""
        if not self.average:
            yield
            return
        with torch.no_grad():
            own = {name: parameter.detach().clone() for name, parameter in self.named.items()}
            self._put(self.average)
            try:
                yield
            finally:
                self._put(own)

    def use_average(self) -> None:
        """Replace the weights by their moving average, if there is one, for good."""
        if self.average:
            self._put(self.average)

    @torch.no_grad()
    def _put(self, weights: Mapping[str, Tensor]) -> None:
        for name, parameter in self.named.items():
            parameter.copy_(weights[name])

    def decay_factors(self, parameter: Tensor) -> list[float]:
        """The factors by which AdamW's decay has multiplied `parameter`, one for each step taken.

        A factor is 1 - learning rate x decay.
        """
        (group,) = (
            group
            for group in self.adamw.param_groups
            if any(parameter is member for member in group["params"])
        )
        return [
            1 - self.learning_rate(step) * group["factor"] * group["weight_decay"]
            for step in self.applied
        ]

    def bytes_of_states(self) -> tuple[int, int]:
        """Memory of all trained weights with their states.

        Returns: bytes of weights, gradients, moments, moving average and a half-precision copy; and
            the part of them that the first step allocates.
        """
        weights = sum(weight.numel() * weight.element_size() for weight in self.named.values())
        missing = 3 * weights + weights // 2  # gradient, two moments, half-precision copy
        return weights + missing + (weights if self.average else 0), missing

    def state(self) -> dict[str, Tensor]:
        """Everything that a resumed run needs, by name.

        These are weights, moments, step counts and the moving average.
        """
        tensors = {"applied": torch.tensor(self.applied, dtype=torch.int64)}
        for name, parameter in self.named.items():
            tensors[f"weight.{name}"] = parameter.detach()
            tensors |= {
                f"{key}.{name}": value for key, value in self.adamw.state[parameter].items()
            }
        return tensors | {f"average.{name}": value for name, value in self.average.items()}

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Restore, in place, what `state` returned."""
        self.applied = tensors["applied"].tolist()
        self._put({name: tensors[f"weight.{name}"] for name in self.named})
        for name, value in self.average.items():
            value.copy_(tensors[f"average.{name}"])
        for name, parameter in self.named.items():
            keys = [
                key for key in ("step", "exp_avg", "exp_avg_sq") if f"{key}.{name}" in tensors
            ]
            if keys:  # empty for a parameter without gradients, such as an unused pooler
                self.adamw.state[parameter] = {
                    key: tensors[f"{key}.{name}"].to(parameter.device, copy=True)
                    for key in keys
                }
