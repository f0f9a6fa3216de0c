"""Data parallelism with `torchrun`: the batch is global, every process computes its share of the
embeddings.

The embeddings of all processes are gathered; each process then computes the loss of the whole batch
and takes the gradient of its own rows, so the *sum* of the parameter gradients over the processes
is the gradient of one process that had the whole batch. Gradients are summed by hand:
DistributedDataParallel would average, and hook into a backward pass that the gradient cache runs
several times.
"""

import hashlib
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor

from hybridbatch.common.errors import HybridBatchError, PeerStopped

CPU = torch.device("cpu")
BUCKET_BYTES = 32 << 20  # gradients travel in pieces of about this size


@dataclass(frozen=True)
class Workers:
    """This process among those of the run; alone by default."""

    rank: int = 0
    size: int = 1
    device: torch.device = CPU

    @property
    def leads(self) -> bool:
        """Whether this process reports and writes."""
        return self.rank == 0

    def gather(self, rows: Tensor, counts: Sequence[int]) -> Tensor:
        """The rows of all processes, rank after rank; the gradient of this process's rows flows
        back.

        Args:
            rows: [counts[rank], D].
            counts: rows of every process.
        Returns: [sum(counts), D].
        """
        return rows if self.size == 1 else _Gather.apply(rows, list(counts), self.rank)

    def sum_gradients(self, parameters: Iterable[Tensor]) -> None:
        """Replace every gradient by its sum over the processes; all hold the same bits afterwards."""
        if self.size == 1:
            return
        for bucket in _buckets([p.grad for p in parameters if p.grad is not None]):
            flat = torch.cat([gradient.reshape(-1) for gradient in bucket])
            with _together():
                dist.all_reduce(flat)
            for gradient, summed in zip(
                bucket, flat.split([g.numel() for g in bucket]), strict=True
            ):
                gradient.copy_(summed.view_as(gradient))

    def anywhere(self, flag: bool) -> bool:
        """Whether `flag` is up on any process."""
        if self.size == 1:
            return flag
        flags = torch.tensor(int(flag), device=self.device)
        with _together():
            dist.all_reduce(flags, dist.ReduceOp.MAX)
        return bool(flags.item())

    def least(self, number: int) -> int:
        """The smallest `number` of any process."""
        if self.size == 1:
            return number
        numbers = torch.tensor(number, device=self.device)
        with _together():
            dist.all_reduce(numbers, dist.ReduceOp.MIN)
        return int(numbers.item())

    def wait(self) -> None:
        """Go on when every process has come here."""
        self.anywhere(False)


@contextmanager
def _together() -> Iterator[None]:
    """Around a call that every process must make: a lost peer becomes `PeerStopped`."""
    try:
        yield
    except RuntimeError as error:  # gloo raises plain ones
        if isinstance(error, dist.DistError) or "onnection" in str(error):
            raise PeerStopped(
                "another process of this run has stopped; if nothing else says why, see torchrun's"
                " summary. The same"
                " command goes on from the last checkpoint"
            ) from error
        raise


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx, rows: Tensor, counts: list[int], rank: int) -> Tensor:
        ctx.begin, ctx.end = sum(counts[:rank]), sum(counts[: rank + 1])
        longest = rows.new_zeros(max(counts), rows.shape[1])
        longest[: len(rows)] = rows
        everywhere = [torch.empty_like(longest) for _ in counts]
        with _together():
            dist.all_gather(everywhere, longest)
        return torch.cat([part[:count] for part, count in zip(everywhere, counts, strict=True)])

    @staticmethod
    def backward(ctx, gradient: Tensor):
        return gradient[ctx.begin : ctx.end], None, None


def _buckets(gradients: list[Tensor]) -> Iterator[list[Tensor]]:
    bucket: list[Tensor] = []
    size = 0
    for gradient in gradients:
        bucket.append(gradient)
        size += gradient.numel() * gradient.element_size()
        if size >= BUCKET_BYTES:
            yield bucket
            bucket, size = [], 0
    if bucket:
        yield bucket


@contextmanager
def join(device: torch.device) -> Iterator[Workers]:
    """This process among those that `torchrun` started, for the time of the block; alone without
    torchrun.
    """
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        yield Workers(device=device)
        return
    if device.type == "cuda":
        torch.cuda.set_device(device)
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    yield Workers(dist.get_rank(), dist.get_world_size(), device)
    # Not after an error: the others would lose this process before it has told of the error
    # (`tells`).
    dist.destroy_process_group()


def tells(error: HybridBatchError) -> bool:
    """Whether this process of several is the one to tell the user of `error`: the first that asks.

    Processes meet in torchrun's own store, which outlives them. A `PeerStopped` is told only if
    nothing else was.
    """
    try:
        address = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
        store = dist.TCPStore(*address, is_master=False, timeout=timedelta(seconds=5))
        told = f"hybridbatch/{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}/"
        if isinstance(error, PeerStopped):
            return store.add(told, 1) == 1
        store.add(told, 1)
        return store.add(told + hashlib.sha256(str(error).encode()).hexdigest(), 1) == 1
    except (KeyError, RuntimeError):  # not torchrun, or it is gone
        return True
