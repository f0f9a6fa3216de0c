"""Any batch size on any memory: the gradient of a loss over all embeddings, a part at a time.

The method is from Gao et al. 2021 (arXiv:2101.06983). Embed every micro-batch without a graph.
Compute the loss of all embeddings and its gradient with respect to them. Then embed each
micro-batch once more with a graph, and push its rows of the gradient through. The result is the
gradient of the plain computation, at the price of one more forward pass.

Here the last micro-batch has its graph from the start, which saves its second pass. So k - 1 of k
equal micro-batches are embedded twice, and a batch of one micro-batch is computed plainly.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext

import numpy as np
import torch
from torch import Tensor

from hybridbatch.common.device import upload
from hybridbatch.common.distributed import GradientSum, Workers
from hybridbatch.common.errors import ConfigError
from hybridbatch.common.memory import is_out_of_memory, return_freed_memory
from hybridbatch.common.tokens import TokenArrays

Embed = Callable[[TokenArrays], Tensor]
MIN_BUDGET = 16  # tokens; below it the model itself does not fit
SMALL_BUDGET = 1024  # tokens; a graph of so few tokens takes little memory from the loss


def split(lengths: np.ndarray, budget: int) -> list[np.ndarray]:
    """Cut sequences into micro-batches of at most `budget` tokens, similar lengths together.

    A sequence longer than `budget` is a micro-batch of its own. The result depends on the lengths
    and the budget alone, so that dropout can be replayed and a run can be resumed.

    Args:
        lengths: int64 [n], tokens of each sequence.
        budget: tokens per micro-batch.
    Returns: positions of the sequences, one array per micro-batch. The longest sequences come last,
        and the micro-batch with the remainder comes first. A single micro-batch keeps the given
        order.
    """
    if lengths.sum() <= budget:
        return [np.arange(len(lengths))]
    order = np.argsort(-lengths, kind="stable")
    parts, start, tokens = [], 0, 0
    for end, length in enumerate(lengths[order]):
        if tokens + length > budget and end > start:
            parts.append(order[start:end])
            start, tokens = end, 0
        tokens += length
    return [*parts, order[start:]][::-1]


@contextmanager
def dropout_seed(seed: int, device: torch.device) -> Iterator[None]:
    """Make dropout inside the block a function of `seed`.

    torch's global generators are left as they were.
    """
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices):
        torch.manual_seed(seed)
        yield


class GradientCache:
    """Accumulates exact gradients of batches of any size within a token budget per forward pass.

    Args:
        embed: tokens of n sequences -> [n, D], differentiable.
        parameters: all parameters whose gradients a step fills; the gradients are cleared when a
            step starts.
        budget: tokens per micro-batch; halved, for good, whenever memory runs out.
        on_halved: called with the new budget.
        anywhere: whether a flag is set on any process; every process halves its budget when one
            must.
        sums: sums the gradients over all processes; told which pass completes them.
    """

    def __init__(
        self,
        embed: Embed,
        parameters: Sequence[Tensor],
        budget: int,
        *,
        device: torch.device | None = None,
        on_halved: Callable[[int], None] = lambda budget: None,
        anywhere: Callable[[bool], bool] = lambda flag: flag,
        sums: GradientSum | None = None,
    ) -> None:
        self.embed = embed
        self.parameters = list(parameters)
        self.budget = budget
        self.device = device or torch.device("cpu")
        self.on_halved = on_halved
        self.anywhere = anywhere
        self.sums = sums or GradientSum(Workers(), [])
        self.scale = 1.0  # gradients are multiplied by it; above 1 in fp16

    def backward(
        self,
        tokens: TokenArrays,
        objective: Callable[[Tensor], Tensor],
        seeds: Callable[[int], int],
    ) -> Tensor:
        """Compute the gradients of `objective(embeddings of tokens)`, multiplied by `scale`.

        Args:
            tokens: n sequences.
            objective: [n, D] -> scalar loss.
            seeds: number of a micro-batch -> its dropout seed.
        Returns: the loss, detached.
        Raises: `ConfigError` if the smallest micro-batch or the loss does not fit in memory.
        """
        while True:
            loss = self._attempt(tokens, objective, seeds)
            self.sums.settle()
            if not self.anywhere(loss is None):
                assert loss is not None
                return loss
            self._halve(tokens)

    def embed_all(self, tokens: TokenArrays) -> Tensor:
        """Embeddings [n, D] within the same token budget, without gradients."""
        with torch.no_grad():
            return self._in_order(*self._forward(tokens, lambda number: number))

    def _attempt(
        self,
        tokens: TokenArrays,
        objective: Callable[[Tensor], Tensor],
        seeds: Callable[[int], int],
    ) -> Tensor | None:
        """Try to compute all gradients with the current budget.

        Returns: the loss; None if memory ran out and smaller micro-batches may help.
        """
        for parameter in self.parameters:
            parameter.grad = None
        self.sums.start()
        parts, rows = self._forward(tokens, seeds)
        leaf = self._in_order(parts, rows).detach().requires_grad_()
        last = rows[-1]
        del rows
        try:
            loss = objective(leaf)
            (loss * self.scale if self.scale != 1 else loss).backward()
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            # a smaller graph leaves more memory for the loss
            if len(parts) == 1 or self.budget > SMALL_BUDGET:
                return None
            raise ConfigError(
                f"out of memory in the loss of {len(leaf)} embeddings; lower --batch-size or"
                " --hard-negatives"
            ) from error
        gradient = leaf.grad
        assert gradient is not None

        def push(embeddings: Tensor, part: np.ndarray) -> None:
            embeddings.backward(gradient.index_select(0, upload(part, self.device)))

        again = parts[:-1]
        try:
            with nullcontext() if again else self.sums.overlapped():
                push(last, parts[-1])
            del last
            for number, part in enumerate(again):
                embeddings = self._embed(tokens, part, seeds(number))
                with nullcontext() if part is not again[-1] else self.sums.overlapped():
                    push(embeddings, part)
                del embeddings
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            return None
        return loss.detach()

    def _forward(
        self, tokens: TokenArrays, seeds: Callable[[int], int]
    ) -> tuple[list[np.ndarray], list[Tensor]]:
        """The micro-batches, and the embeddings of each.

        If graphs are wanted at all, the last micro-batch has a graph.
        """
        graph = torch.is_grad_enabled()
        while True:
            parts = split(tokens.lengths, self.budget)
            try:
                rows = []
                for number, part in enumerate(parts):
                    with torch.set_grad_enabled(graph and number == len(parts) - 1):
                        rows.append(self._embed(tokens, part, seeds(number)))
                return parts, rows
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
            self._halve(tokens)  # by now the tensors of the failed attempt are freed

    def _in_order(self, parts: list[np.ndarray], rows: list[Tensor]) -> Tensor:
        """Embeddings [n, D] in the order of the tokens, from the rows of all micro-batches."""
        order = upload(np.argsort(np.concatenate(parts)), self.device)
        return torch.cat(rows).index_select(0, order)

    def _embed(self, tokens: TokenArrays, part: np.ndarray, seed: int) -> Tensor:
        with dropout_seed(seed, self.device):
            return self.embed(tokens.take(part))

    def _halve(self, tokens: TokenArrays) -> None:
        used = min(self.budget, len(tokens.ids))
        if used < 2 * MIN_BUDGET:
            raise ConfigError(
                f"out of memory with {used} tokens per forward pass; use a smaller model or shorter"
                " --max-passage-tokens"
            )
        self.budget = used // 2
        return_freed_memory()
        self.on_halved(self.budget)
