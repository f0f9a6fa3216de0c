"""Validation: the training loss and the reciprocal rank on fixed batches.

The batches are monolingual and cross-lingual, from the validation split.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from hybridbatch.common.errors import ConfigError, DataError
from hybridbatch.common.memory import is_out_of_memory
from hybridbatch.common.tokens import TokenArrays
from hybridbatch.sampling.index import RecordIndex
from hybridbatch.sampling.plan import plan_schedule
from hybridbatch.sampling.schedule import Schedule
from hybridbatch.sampling.streams import (
    CROSS_LINGUAL,
    KIND_NAMES,
    MONOLINGUAL,
    find_streams,
    groups_of,
)
from hybridbatch.training.batches import Batch, Batches
from hybridbatch.training.loss import InfoNCE, reciprocal_ranks
from hybridbatch.training.retrieval_validation import RetrievalSet

SEED = 0  # the same batches for every seed and mix of a data set, so that runs can be compared


def plan_validation(
    index: RecordIndex, batch_size: int, batches: int
) -> tuple[dict[str, Schedule], list[str]]:
    """Plan `batches` monolingual and as many cross-lingual validation batches.

    If the split is too small for `batch_size`, a kind gets the largest batches that fit, and more
    of them, for the same number of pairs. A kind that is not possible at all is left out, with a
    note.

    Returns: the schedules by the name of the kind, and notes.
    """
    schedules, notes = {}, []
    for kind, mix in ((MONOLINGUAL, 1.0), (CROSS_LINGUAL, 0.0)):
        name = KIND_NAMES[kind]
        streams = find_streams(index, {kind}).items()
        size = min(
            batch_size,
            max((len(np.unique(groups_of(index, *stream))) for stream in streams), default=0),
        )
        if size < 2:
            notes.append(
                f"no {name} validation: the validation split has too few records for it"
            )
            continue
        try:
            steps = -(-batches * batch_size // size)
            schedules[name] = plan_schedule(
                index, mix=mix, batch_size=size, steps=steps, seed=SEED
            )
        except DataError as error:
            notes.append(f"no {name} validation: {error}")
            continue
        if size < batch_size:
            notes.append(
                f"{name} validation has batches of {size} pairs, the most that its split can fill"
            )
    return schedules, notes


@dataclass(frozen=True)
class Validation:
    """Fixed validation batches by kind, and texts to retrieve; empty if there is no validation."""

    kinds: dict[str, Batches]
    retrieval: RetrievalSet | None = None

    def __bool__(self) -> bool:
        """Whether there is anything to measure."""
        return bool(self.kinds) or self.retrieval is not None

    @property
    def tokens(self) -> float:
        """About how many tokens one validation embeds."""
        total = sum(batches.tokens_left(0) for batches in self.kinds.values())
        texts = self.retrieval
        return total + (len(texts.queries.ids) + len(texts.passages.ids) if texts else 0)

    def words(self, size: int) -> np.ndarray:
        """bool [size]: which of `size` token ids occur in any text."""
        seen = np.zeros(size, bool)
        for batches in self.kinds.values():
            seen |= batches.words(size)
        return seen if self.retrieval is None else seen | self.retrieval.words(size)

    def measure(
        self,
        embed: Callable[[Batch], tuple[Tensor, Tensor, Tensor]],
        objective: InfoNCE,
        embed_tokens: Callable[[TokenArrays], Tensor] | None = None,
        anywhere: Callable[[bool], bool] = lambda flag: flag,
    ) -> dict[str, float]:
        """Measure ``loss`` (nats) and ``mrr``, and ``map`` if there are texts to retrieve.

        Both are given for each kind, as ``loss/monolingual`` ..., and as the plain mean over the
        kinds.

        Args:
            embed: a batch -> its queries, passages and keys as `objective` takes them.
            embed_tokens: tokens of n sequences -> [n, D]; needed if there are texts to retrieve.
            anywhere: whether a flag is set on any process.
        Raises: `ConfigError` on all processes where one has no memory for the loss of a batch.
        """
        found: dict[str, float] = {}
        with torch.no_grad():
            for kind, batches in self.kinds.items():
                losses, ranks = [], []
                for step in range(len(batches)):
                    of_batch = _of_batch(objective, *embed(batches[step]))
                    if anywhere(of_batch is None):
                        raise ConfigError(
                            "out of memory in the validation loss of"
                            f" {batches[step].pairs} pairs; lower --batch-size"
                        )
                    assert of_batch is not None
                    losses.append(of_batch[0])
                    ranks.append(of_batch[1])
                found[f"loss/{kind}"], found[f"mrr/{kind}"] = (
                    float(np.mean(losses)),
                    float(np.mean(ranks)),
                )
        means = {}
        for metric in ("loss", "mrr") if self.kinds else ():
            values = [value for name, value in found.items() if name.startswith(f"{metric}/")]
            means[metric] = float(np.mean(values))
        if self.retrieval is not None and embed_tokens is not None:
            found |= self.retrieval.measure(embed_tokens)
        return means | found


def _of_batch(
    objective: InfoNCE, queries: Tensor, passages: Tensor, keys: Tensor
) -> tuple[float, float] | None:
    """The loss of a batch and the mean reciprocal rank; None where memory runs out."""
    try:
        loss = float(objective(queries, passages, keys))
        return loss, float(reciprocal_ranks(queries, passages, keys).mean())
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        return None
