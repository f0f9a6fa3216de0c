"""`--temperature auto`: the temperature that suits the encoder that training starts from.

A temperature sets which differences of cosines matter. Encoders spread their cosines differently:
all cosines of multilingual-e5 lie between 0.7 and 1, the cosines of LaBSE between 0 and 1. A
temperature that is far too large for the starting encoder flattens what the encoder has learnt, and
training then undoes it.

The rule: take the temperature that minimises the InfoNCE of the untrained encoder on the run's own
first batches. At this temperature the encoder's softmax over a batch is calibrated (temperature
scaling, Guo et al. 2017, arXiv:1706.04599), so training starts neither over- nor under-confident.
An encoder whose cosines do not yet tell pairs apart has no such temperature: its InfoNCE falls all
the way to a uniform softmax. It gets `FALLBACK`, and the run says so.
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
FALLBACK = 0.05  # the fixed default before this rule existed
PAIRS = 512  # enough to find the temperature to within about 5 %
STEPS = 93  # temperatures tried; neighbours differ by 5 %
# The share of the loss of a uniform softmax that the best temperature must save. Less is chance.
LEAST_GAIN = 0.1

# queries [B, D] and passages [P, D] of unit length, keys [P] as `InfoNCE.forward` takes them
Embedded = tuple[Tensor, Tensor, Tensor]


@dataclass(frozen=True)
class Found:
    """The temperature for a starting encoder."""

    temperature: float
    loss: float  # InfoNCE at this temperature, nats, mean over the pairs
    uniform: float  # InfoNCE of a uniform softmax: mean log of the number of candidates
    pairs: int
    known: bool  # False: the encoder cannot tell pairs apart; the fallback is used

    @property
    def about(self) -> str:
        """The finding as a sentence."""
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
    """The first batches of a run, embedded by the untrained encoder.

    Args:
        batches: the batches of the run.
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
        batches: embeddings by the untrained encoder; read until there are `PAIRS` pairs.
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
    # Two digits, so that machines that round differently find the same number.
    temperature = float(f"{candidates[best]:.2g}") if known else FALLBACK
    return Found(temperature, losses[best], uniform, pairs, known)


def _loss(scores: list[tuple[Tensor, Tensor]], temperature: float) -> float:
    """Mean InfoNCE over all pairs, in nats."""
    total, pairs = 0.0, 0
    for cosines, masked in scores:
        logits = (cosines / temperature).masked_fill(masked, -torch.inf)
        target = torch.arange(len(cosines), device=cosines.device)
        total += float(functional.cross_entropy(logits, target, reduction="sum"))
        pairs += len(cosines)
    return total / pairs
