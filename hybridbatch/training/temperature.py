"""`--temperature auto`: the temperature that suits the encoder that training starts from.

A temperature says what difference of cosines counts. Encoders differ in that by an order of
magnitude: all cosines of multilingual-e5 lie between 0.7 and 1, those of LaBSE between 0 and 1. A
temperature that is far too large for the start flattens what it has learnt; training then undoes
it.

The rule: of all temperatures, the one at which InfoNCE of the untrained encoder is least, on the
run's own first batches. This is the temperature at which the encoder's softmax over a batch is
calibrated (temperature scaling, Guo et al. 2017, arXiv:1706.04599), so training starts neither
over- nor under-confident. An encoder whose cosines do not tell pairs apart yet has no such
temperature: its InfoNCE falls all the way to a uniform softmax. It gets `FALLBACK`, and the run
says so.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from hybridbatch.common.tokens import TokenArrays
from hybridbatch.training.batches import Batches
from hybridbatch.training.gradient_cache import split
from hybridbatch.training.loss import false_negatives

LOWEST, HIGHEST = 0.005, 0.5
FALLBACK = 0.05  # the product's fixed default until there was a rule
PAIRS = 512  # enough to know the temperature to about 5 %
STEPS = 93  # of the search: 5 % between neighbours
# What the best temperature must save of the loss of a uniform softmax; less is chance.
LEAST_GAIN = 0.1

# queries [B, D] and passages [P, D] of unit length, keys [P] as `InfoNCE.forward` takes them
Embedded = tuple[Tensor, Tensor, Tensor]


@dataclass(frozen=True)
class Found:
    """The temperature for a start."""

    temperature: float
    loss: float  # InfoNCE there, nats, mean over the pairs
    uniform: float  # of a softmax that knows nothing: the mean log of the number of candidates
    pairs: int
    known: bool  # False: the encoder does not tell pairs apart, and the fallback was taken

    @property
    def about(self) -> str:
        """The finding in words."""
        how = f"InfoNCE {self.loss:.3f} of {self.uniform:.3f} on {self.pairs} pairs before training"
        if self.known:
            return f"temperature {self.temperature:g}, found from the start ({how})"
        return (
            f"temperature {self.temperature:g}: the start does not tell pairs apart yet ({how}),"
            " so none can be found; name one with --temperature if you know better"
        )


def embedded(
    batches: Batches, embed: Callable[[TokenArrays], Tensor], token_budget: int
) -> Iterator[Embedded]:
    """The first batches of a run, embedded by the encoder as it is.

    Args:
        embed: tokens of n sequences -> [n, D], rows of unit length.
        token_budget: tokens per forward pass.
    """
    for step in range(len(batches)):
        batch = batches[step]
        sides = []
        for tokens in (batch.queries, batch.passages):
            parts = split(tokens.lengths, token_budget)
            vectors = torch.cat([embed(tokens.take(part)) for part in parts]).float()
            order = torch.from_numpy(np.argsort(np.concatenate(parts), kind="stable"))
            sides.append(vectors[order.to(vectors.device)])
        keys = torch.from_numpy(batch.keys).to(sides[0].device)
        yield sides[0], sides[1], keys


def find_temperature(batches: Iterable[Embedded]) -> Found:
    """The temperature that minimises InfoNCE of given embeddings.

    Args:
        batches: of the untrained encoder; read until `PAIRS` pairs are there.
    """
    scores: list[tuple[Tensor, Tensor]] = []
    pairs = 0
    for queries, passages, keys in batches:
        masked = false_negatives(keys, len(queries))
        scores.append(((queries @ passages.T).double(), masked))
        pairs += len(queries)
        if pairs >= PAIRS:
            break
    candidates = np.geomspace(LOWEST, HIGHEST, STEPS)
    losses = [_loss(scores, temperature) for temperature in candidates.tolist()]
    best = int(np.argmin(losses))
    uniform = _loss(scores, float("inf"))
    known = losses[best] < (1 - LEAST_GAIN) * uniform
    # Two digits: the same number comes back on a machine that rounds otherwise.
    temperature = float(f"{candidates[best]:.2g}") if known else FALLBACK
    return Found(temperature, losses[best], uniform, pairs, known)


def _loss(scores: list[tuple[Tensor, Tensor]], temperature: float) -> float:
    """Mean InfoNCE over all pairs, nats."""
    total, pairs = 0.0, 0
    for cosines, masked in scores:
        logits = (cosines / temperature).masked_fill(masked, -torch.inf)
        target = torch.arange(len(cosines), device=cosines.device)
        total += float(functional.cross_entropy(logits, target, reduction="sum"))
        pairs += len(cosines)
    return total / pairs
