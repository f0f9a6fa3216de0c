"""InfoNCE over cosine similarities, with in-batch and hard negatives, and its common variations."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from hybridbatch.common.errors import ConfigError

# The scores of more query-passage pairs than this are computed in blocks of so many, which are
# computed once more for the backward pass.
WHOLE_SCORES, BLOCK_SCORES = 1 << 24, 1 << 22


def false_negatives(keys: Tensor, pairs: int) -> Tensor:
    """Which candidates are copies of a query's own positive, and so must not be its negatives.

    Args:
        keys: int64 [P], equal for equal passages; the first `pairs` keys belong to the positives,
            in the order of the queries.
        pairs: B, the number of queries.
    Returns: bool [B, P], False on the diagonal (the positives themselves).
    """
    same = keys[:pairs, None] == keys[None, :]
    return same.fill_diagonal_(False)


class InfoNCE(nn.Module):
    """The negative log-likelihood of each query's positive among all passages of the batch.

    It is measured in nats and averaged over the B queries. For unit vectors q_i and p_j,
    temperature t and margin m (both unitless)::

        loss = mean_i -log( exp((q_i.p_i - m) / t) / (exp((q_i.p_i - m) / t) + sum_{j != i}
        exp(q_i.p_j / t)) )

    The sum leaves out copies of p_i. Sources and options:

    - InfoNCE: van den Oord et al. 2018 (arXiv:1807.03748);
    - the additive margin: Yang et al. 2019 (arXiv:1902.08564);
    - `symmetric` averages with the loss of the positives against the queries (Radford et al. 2021,
      arXiv:2103.00020, which also learns log t);
    - `dims` adds the losses of the renormalised prefixes and averages (Kusupati et al. 2022,
      arXiv:2205.13147).
    """

    def __init__(
        self,
        temperature: float,
        *,
        learn_temperature: bool = False,
        symmetric: bool = False,
        margin: float = 0.0,
        dims: Sequence[int] = (),
    ) -> None:
        super().__init__()
        self.log_temperature = nn.Parameter(
            torch.tensor(temperature).log(), requires_grad=learn_temperature
        )
        self.fixed_temperature = None if learn_temperature else temperature
        self.symmetric = symmetric
        self.margin = margin
        self.dims = tuple(dims)

    @property
    def temperature(self) -> float:
        """The current value of the temperature."""
        return self.fixed_temperature or self.log_temperature.exp().item()

    def check_dims(self, dimension: int) -> None:
        """Remove the whole dimension from `dims`, because it is trained anyway.

        Raises: `ConfigError` if a Matryoshka dimension is not a prefix of an embedding of
            `dimension`.
        """
        for size in self.dims:
            if not 0 < size <= dimension:
                raise ConfigError(
                    f"matryoshka_dims = {size}: must be between 1 and {dimension}, because"
                    f" the embedding has {dimension} dimensions"
                )
        self.dims = tuple(size for size in self.dims if size < dimension)

    def forward(self, queries: Tensor, passages: Tensor, keys: Tensor) -> Tensor:
        """The loss of one batch.

        Args:
            queries: [B, D], rows L2-normalised.
            passages: [P, D], rows L2-normalised; the B positives in the queries' order, then the
                hard negatives.
            keys: int64 [P], equal for equal passages.
        Returns: scalar, nats.
        """
        one_prefix = self._full
        if len(queries) * len(passages) > WHOLE_SCORES:
            one_prefix = self._in_blocks
        losses = [one_prefix(queries, passages, keys)]
        for size in self.dims:
            prefix_queries, prefix_passages = (
                functional.normalize(v[:, :size], dim=1) for v in (queries, passages)
            )
            losses.append(one_prefix(prefix_queries, prefix_passages, keys))
        return torch.stack(losses).mean()

    def _full(self, queries: Tensor, passages: Tensor, keys: Tensor) -> Tensor:
        pairs = len(queries)
        masked = false_negatives(keys, pairs)
        scores = queries @ passages.T
        if self.margin:
            scores = scores.diagonal_scatter(scores.diagonal() - self.margin)
        temperature = self.fixed_temperature or self.log_temperature.exp()
        logits = (scores / temperature).masked_fill(masked, -torch.inf)
        target = torch.arange(pairs, device=logits.device)
        loss = functional.cross_entropy(logits, target)
        if self.symmetric:
            loss = (loss + functional.cross_entropy(logits[:, :pairs].T, target)) / 2
        return loss

    def _in_blocks(self, queries: Tensor, passages: Tensor, keys: Tensor) -> Tensor:
        """The result of `_full`, with the scores of a few anchors in memory at a time."""
        pairs = len(queries)
        loss = self._sum_of_blocks(queries, passages, keys) / pairs
        if self.symmetric:
            positives = passages[:pairs]
            back = self._sum_of_blocks(positives, queries, keys[:pairs]) / pairs
            loss = (loss + back) / 2
        return loss

    def _sum_of_blocks(self, anchors: Tensor, candidates: Tensor, keys: Tensor) -> Tensor:
        rows = max(1, BLOCK_SCORES // len(candidates))
        sums = []
        for number, block in enumerate(anchors.split(rows)):
            sums.append(
                checkpoint(
                    self._sum, block, number * rows, candidates, keys,
                    use_reentrant=False, preserve_rng_state=False,
                )
            )  # fmt: skip
        return torch.stack(sums).sum()

    def _sum(self, anchors: Tensor, first: int, candidates: Tensor, keys: Tensor) -> Tensor:
        """The loss of anchors, from number `first` on, summed."""
        end = first + len(anchors)
        target = torch.arange(first, end, device=keys.device)
        own = target[:, None] == torch.arange(len(candidates), device=keys.device)
        masked = (keys[first:end, None] == keys) & ~own
        scores = anchors @ candidates.T
        if self.margin:
            scores = scores - self.margin * own.to(scores.dtype)
        temperature = self.fixed_temperature or self.log_temperature.exp()
        logits = (scores / temperature).masked_fill(masked, -torch.inf)
        return functional.cross_entropy(logits, target, reduction="sum")


def reciprocal_ranks(queries: Tensor, passages: Tensor, keys: Tensor) -> Tensor:
    """1 / rank of each query's positive among the passages of its batch.

    A tie counts against the positive.

    Args: as in `InfoNCE.forward`.
    Returns: float [B].
    """
    masked = false_negatives(keys, len(queries))
    ranks = []
    rows = max(1, WHOLE_SCORES // len(passages))
    for start, block in zip(range(0, len(queries), rows), queries.split(rows), strict=True):
        scores = block @ passages.T
        own = scores.diagonal(start)[: len(block), None]
        above = (scores >= own) & ~masked[start : start + len(block)]
        ranks.append(1.0 / above.sum(1))
    return torch.cat(ranks)
