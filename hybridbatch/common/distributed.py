"""Several processes on one task, started by `torchrun`: how they meet, share, and lose each other.

In training the batch is global and every process computes its share of the embeddings. These are
gathered; each process then computes the loss of the whole batch and takes the gradient of its own
rows, so the *sum* of the parameter gradients over the processes is the gradient of one process that
had the whole batch. Gradients are summed by hand: DistributedDataParallel would average, and hook
into a backward pass that the gradient cache runs several times.

Every process must make the same calls in the same order. Where one may fail alone, as when its
memory runs out, all agree on it before the next call.
"""

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from hybridbatch.common.errors import ConfigError, HybridBatchError, PeerStopped, first_line
from hybridbatch.common.lifeline import Lifeline
from hybridbatch.common.machine import BACKEND, of_torchrun
from hybridbatch.common.memory import is_out_of_memory

CPU = torch.device("cpu")
BUCKET_BYTES = 32 << 20  # gradients travel in pieces of about this size
# Processes wait for one that prepares data or reads texts. A lost one is not found by waiting: see
# `Lifeline`.
PATIENCE = timedelta(hours=24)
LOST = (
    "another process of this run has stopped; if nothing else says why, see torchrun's summary. The"
    " same command goes on from the last checkpoint"
)


@dataclass(frozen=True)
class Workers:
    """This process among those of the run; alone by default.

    Args:
        rank: number of this process.
        size: number of processes.
        device: on which this process computes.
        meeting: where the tensors are that processes exchange: the device, or the CPU where GPUs
            meet over gloo.
    """

    rank: int = 0
    size: int = 1
    device: torch.device = CPU
    meeting: torch.device = CPU
    _buffers: dict[Any, Tensor] = field(default_factory=dict, compare=False, repr=False)

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
        Raises: `RuntimeError` on all processes where one has no memory for it.
        """
        return rows if self.size == 1 else _Gather.apply(rows, list(counts), self)

    def anywhere(self, flag: bool) -> bool:
        """Whether `flag` is up on any process."""
        return bool(self._reduced(int(flag), dist.ReduceOp.MAX))

    def least(self, number: int) -> int:
        """The smallest `number` of any process."""
        return self._reduced(number, dist.ReduceOp.MIN)

    def most(self, number: int) -> int:
        """The largest `number` of any process."""
        return self._reduced(number, dist.ReduceOp.MAX)

    def _reduced(self, number: int, operation: Any) -> int:
        if self.size == 1:
            return number
        numbers = torch.tensor(number, device=self.meeting)
        with _together():
            dist.all_reduce(numbers, operation)
        return int(numbers.item())

    def wait(self) -> None:
        """Wait until every process has made this call."""
        self.anywhere(False)

    def texts(self, text: str) -> list[str]:
        """Return the texts of all processes, by rank."""
        if self.size == 1:
            return [text]
        data = text.encode()
        rows = torch.zeros(self.most(len(data)), dtype=torch.uint8)
        rows[: len(data)] = torch.frombuffer(bytearray(data), dtype=torch.uint8)
        rows = rows.to(self.meeting)
        everywhere = [torch.empty_like(rows) for _ in range(self.size)]
        with _together():
            dist.all_gather(everywhere, rows)
        return [bytes(each.tolist()).rstrip(b"\0").decode() for each in everywhere]

    def require_same(self, facts: Mapping[str, Any]) -> None:
        """Refuse to continue if processes differ, such as machines with other data or versions.

        Args:
            facts: as JSON; the same names on every process.
        Raises: `ConfigError` on all processes, with the names and values that differ.
        """
        mine = {name: json.dumps(value, sort_keys=True) for name, value in facts.items()}
        found = [json.loads(text) for text in self.texts(json.dumps(mine))]
        differences = []
        for name in found[0]:
            values = [each.get(name) for each in found]
            other = next(
                (rank for rank, value in enumerate(values) if value != values[0]), None
            )
            if other is not None:
                differences.append(
                    f"{name} is {values[0]:.60} on process 0 and {values[other]:.60} on process"
                    f" {other}"
                )
        if differences:
            raise ConfigError(
                f"the processes disagree: {'; '.join(differences)}. Give every machine the same"
                " versions, data and settings"
            )

    def _room(self, rows: Tensor, longest: int) -> Tensor:
        """[size + 1, longest, D] to gather into, kept from step to step.

        All processes ask for the same shape, so all need a new one in the same step, and can agree
        whether each has got it.
        """
        wanted = (self.size + 1) * longest * rows.shape[1]
        buffer = self._buffers.get(rows.dtype)
        if buffer is None or len(buffer) < wanted:
            failed = False
            try:
                self._buffers[rows.dtype] = rows.new_empty(wanted, device=self.meeting)
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                failed = True
            if self.anywhere(failed):
                self._buffers.pop(rows.dtype, None)
                raise RuntimeError("out of memory for the embeddings of all processes")
        return self._buffers[rows.dtype][:wanted].view(self.size + 1, longest, rows.shape[1])


@contextmanager
def _together() -> Iterator[None]:
    """Around a call that every process must make: a lost peer becomes `PeerStopped`."""
    try:
        yield
    except RuntimeError as error:  # gloo raises plain ones
        if isinstance(error, dist.DistError) or "onnection" in str(error):
            raise PeerStopped(LOST) from error
        raise


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx, rows: Tensor, counts: list[int], workers: Workers) -> Tensor:
        rank = workers.rank
        ctx.begin, ctx.end = sum(counts[:rank]), sum(counts[: rank + 1])
        room = workers._room(rows, max(counts))
        mine, everywhere = room[-1], list(room[:-1].unbind())
        mine[: len(rows)].copy_(rows)
        with _together():
            dist.all_gather(everywhere, mine)
        parts = [part[:count] for part, count in zip(everywhere, counts, strict=True)]
        return torch.cat(parts).to(rows.device)

    @staticmethod
    def backward(ctx, gradient: Tensor):
        return gradient[ctx.begin : ctx.end], None, None


class GradientSum:
    """Replaces every gradient by its sum over the processes; all hold the same bits afterwards.

    Gradients travel in buckets. From the second step on, when it is known which parameters have
    gradients, a bucket leaves as soon as its gradients are there, while the backward pass goes on
    with the layers below. The buckets leave in one order on every process, from the last to the
    first.

    Args:
        workers: the processes.
        parameters: in an order that is the same on every process.
    """

    def __init__(self, workers: Workers, parameters: Iterable[Tensor]) -> None:
        self._workers = workers
        self._parameters = list(parameters)
        self._buckets: list[_Bucket] | None = None
        self._next = -1  # the bucket that leaves next

    @contextmanager
    def overlapped(self) -> Iterator[None]:
        """Around the backward pass after which all gradients of this step are whole."""
        if self._buckets is None:
            yield
            return
        hooks = []
        for number, bucket in enumerate(self._buckets):
            for place, parameter in enumerate(bucket.parameters):
                arrived = self._arrival(number, place)
                hooks.append(parameter.register_post_accumulate_grad_hook(arrived))
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()

    def _arrival(self, number: int, place: int) -> Callable[[Tensor], None]:
        def arrived(parameter: Tensor) -> None:
            assert self._buckets is not None
            self._buckets[number].take(place)
            while self._next >= 0 and self._buckets[self._next].complete:
                self._send()

        return arrived

    def start(self) -> None:
        """Before the first pass of a step."""
        if self._buckets is not None:
            self._next = len(self._buckets) - 1
            for bucket in self._buckets:
                bucket.reset()

    def settle(self) -> None:
        """Send what has not left, whole or not: after a pass that failed here, the other processes
        still wait for it. Every process calls this at the end of a step's passes.
        """
        if self._buckets is None:
            return
        while self._next >= 0:
            bucket = self._buckets[self._next]
            for place, parameter in enumerate(bucket.parameters):
                if parameter.grad is not None:
                    bucket.take(place)
            self._send()
        for bucket in self._buckets:
            with _together():
                bucket.wait()

    def _send(self) -> None:
        assert self._buckets is not None
        with _together():
            self._buckets[self._next].send()
        self._next -= 1

    def finish(self) -> None:
        """Put the sums in place of the gradients, after passes that all processes have done."""
        if self._workers.size == 1:
            return
        if self._buckets is None:
            self._plan()
            self.start()
            self.settle()
        assert self._buckets is not None
        for bucket in self._buckets:
            bucket.give_back()

    def _plan(self) -> None:
        """Make the buckets. Raises: `ConfigError` on all processes where one has no memory."""
        present = [each for each in self._parameters if each.grad is not None]
        failed = False
        buckets = []
        try:
            buckets = [_Bucket(part, self._workers.meeting) for part in _parts(present)]
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            failed = True
        if self._workers.anywhere(failed):
            raise ConfigError(
                "out of memory for the gradients that processes exchange; use a smaller model,"
                " --lora-rank or --freeze-embeddings"
            )
        self._buckets = buckets


class _Bucket:
    """Gradients that travel together, in one row of memory that is taken once."""

    def __init__(self, parameters: list[Tensor], meeting: torch.device) -> None:
        self.parameters = parameters
        sizes = [parameter.numel() for parameter in parameters]
        self._row = torch.zeros(sum(sizes), dtype=parameters[0].dtype, device=meeting)
        self._places = [
            part.view_as(parameter)
            for part, parameter in zip(self._row.split(sizes), parameters, strict=True)
        ]
        self._arrived = [False] * len(parameters)
        self._sent: Any = None

    @property
    def complete(self) -> bool:
        """Whether all gradients are in the row."""
        return all(self._arrived)

    def reset(self) -> None:
        """For a new step."""
        self._arrived = [False] * len(self.parameters)
        self._sent = None

    def take(self, place: int) -> None:
        """Copy a gradient into the row."""
        if not self._arrived[place]:
            self._places[place].copy_(self.parameters[place].grad)
            self._arrived[place] = True

    def send(self) -> None:
        """Start to sum the row."""
        self._sent = dist.all_reduce(self._row, async_op=True)

    def wait(self) -> None:
        """Until the row is summed."""
        if self._sent is not None:
            self._sent.wait()
            self._sent = None

    def give_back(self) -> None:
        """Copy the sums into the gradients."""
        gradients = [parameter.grad for parameter in self.parameters]
        places = self._places
        device = self.parameters[0].device
        if self._row.device != device:  # GPUs that meet over gloo
            row = self._row.to(device)
            sizes = [parameter.numel() for parameter in self.parameters]
            parts = zip(row.split(sizes), self.parameters, strict=True)
            places = [part.view_as(parameter) for part, parameter in parts]
        torch._foreach_copy_(gradients, places)


def _parts(parameters: list[Tensor]) -> Iterator[list[Tensor]]:
    """Parameters of one type in parts of about `BUCKET_BYTES`, in their order."""
    part: list[Tensor] = []
    size = 0
    for parameter in parameters:
        if part and parameter.dtype != part[0].dtype:
            yield part
            part, size = [], 0
        part.append(parameter)
        size += parameter.numel() * parameter.element_size()
        if size >= BUCKET_BYTES:
            yield part
            part, size = [], 0
    if part:
        yield part


@contextmanager
def join(device: torch.device) -> Iterator[Workers]:
    """This process among those that `torchrun` started, for the time of the block; alone without
    torchrun.

    Processes meet over NCCL on GPUs and over gloo elsewhere; the environment variable
    ``HYBRIDBATCH_BACKEND=gloo`` has GPUs meet over gloo too, so that several processes can share
    one.

    Raises: `ConfigError` where the library to meet over is not there, or the processes do not meet.
    """
    size = of_torchrun("WORLD_SIZE", 1)
    if size == 1:
        yield Workers(device=device, meeting=device)
        return
    backend = os.environ.get(BACKEND) or ("nccl" if device.type == "cuda" else "gloo")
    _require(backend)
    if device.type == "cuda":
        torch.cuda.set_device(device)
    # NCCL connects here, so that what is wrong with it is seen before any work.
    eager = device if backend == "nccl" else None
    try:
        dist.init_process_group(backend, timeout=PATIENCE, device_id=eager)
    except (ValueError, RuntimeError) as error:
        raise ConfigError(
            f"{size} processes cannot meet over {backend} ({first_line(error)}); start them with"
            " torchrun, which sets MASTER_ADDR, MASTER_PORT, RANK and WORLD_SIZE"
        ) from error
    meeting = device if backend == "nccl" else CPU
    workers = Workers(dist.get_rank(), dist.get_world_size(), device, meeting)
    lifeline = Lifeline.between(workers.rank, workers.size, workers.most, _lost)
    yield workers
    # Not after an error: the others would lose this process before it has told of the error
    # (`tells`).
    lifeline.leave()
    dist.destroy_process_group()


def _require(backend: str) -> None:
    """Raises: `ConfigError` if this torch cannot meet over `backend`."""
    if backend not in ("nccl", "gloo"):
        raise ConfigError(
            f"{BACKEND} = {backend!r}: is no backend for communication between processes; use"
            " nccl or gloo"
        )
    if backend == "nccl" and not dist.is_nccl_available():
        raise ConfigError(
            f"this torch ({torch.__version__}) has no NCCL, which processes on GPUs use to"
            f" communicate; set {BACKEND}=gloo, or install a torch that has NCCL"
        )


def _lost() -> str | None:
    """The error that this process raises when another process has ended."""
    return LOST if tells(PeerStopped(LOST)) else None


def tells(error: HybridBatchError) -> bool:
    """Whether this process reports `error` to the user; the first process that asks does.

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
    except (KeyError, ValueError, RuntimeError):  # not torchrun, or it is gone
        return True
