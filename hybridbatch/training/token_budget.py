"""How many tokens one forward and backward pass may hold.

On the CPU the number is estimated from the model's shape and the machine's memory. On a GPU the
tensors that a forward pass keeps are counted. They depend on the GPU's kernels, and an estimate
would be far off.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from hybridbatch.common.device import gpu_fraction
from hybridbatch.common.errors import ConfigError
from hybridbatch.common.memory import main_memory
from hybridbatch.common.progress import SILENT, Reporter
from hybridbatch.common.tokens import TokenArrays
from hybridbatch.training.gradient_cache import MIN_BUDGET

# Activations kept for the backward pass, in units of 4 bytes per token and layer. The sizes of the
# saved tensors were measured in packed fp32 training with dropout (torch 2.13). A BERT layer keeps
# 6 hidden and 3 inner widths and 2.25 score-sized arrays per head and key; a ModernBERT layer keeps
# somewhat more. The constants are rounded up to cover both. bf16 takes two thirds of this.
HIDDEN_WIDTHS, INNER_WIDTHS, SCORE_ARRAYS = 12, 4, 3
SHARE_OF_CPU_MEMORY = 0.3  # share of the total, so that two runs on one machine split alike ...
SHARE_OF_FREE_MEMORY = 0.8  # ... unless this share of the free memory is less
# Share of a GPU's whole memory, less weights, gradients and optimizer. The rest is for tensors that
# a backward pass holds briefly. The gradient cache halves the budget if it was too large.
SHARE_OF_GPU_MEMORY = 0.8
SHARE_OF_FREE_GPU_MEMORY = 0.95  # if other processes use the GPU, too
CONTEXT_BYTES = 1 << 30  # for CUDA, its libraries and their workspaces
SAMPLE_TOKENS = 2048  # in the smaller of the two passes whose tensors are counted
# A batch of this number of passes or more gets passes of so many tokens for each thread. These take
# about as long (benchmarks/results/train-budget.json) and less memory. So does a batch of so many
# tokens (8,192 pairs of 8 tokens a text), however few passes a large memory would allow.
MANY_PASSES = 8
LARGE_BATCH = 1 << 17
TOKENS_PER_THREAD = 1024
LEAST = 1024


def bytes_per_token(config: object, length: int) -> int:
    """Memory of one token between the forward and the backward pass, in fp32.

    Args:
        config: a transformers configuration.
        length: tokens of the longest sequence, which bounds the number of attention scores of a
            token.
    """
    hidden = int(getattr(config, "hidden_size", 768))
    layers = int(getattr(config, "num_hidden_layers", 12))
    heads = int(getattr(config, "num_attention_heads", 12))
    inner = int(getattr(config, "intermediate_size", None) or 4 * hidden)
    return (
        4
        * layers
        * (HIDDEN_WIDTHS * hidden + INNER_WIDTHS * inner + SCORE_ARRAYS * heads * length)
    )


def token_budget(
    config: object,
    length: int,
    processes: int = 1,
    limit: int | None = None,
    tokens: int = 0,
) -> int:
    """Tokens per micro-batch that fit in main memory.

    bf16 counts as fp32, to be on the safe side.

    Args:
        config: a transformers configuration.
        length: tokens of the longest sequence.
        processes: number of processes that share this machine's memory.
        limit: largest number of bytes that each process may use.
        tokens: tokens of this process's share of a batch. A share that needs many passes anyway,
            or is large, gets small ones, which take less memory.
    """
    most = math.inf if limit is None else limit
    found = main_memory()
    memory = min(
        SHARE_OF_CPU_MEMORY * min(found.total / processes, most),
        SHARE_OF_FREE_MEMORY * found.free / processes,
    )
    budget = max(LEAST, int(memory / bytes_per_token(config, length)))
    if tokens >= min(MANY_PASSES * budget, LARGE_BATCH):
        budget = min(budget, TOKENS_PER_THREAD * torch.get_num_threads())
    return budget


@dataclass(frozen=True)
class GpuMemory:
    """The memory of a GPU, in bytes."""

    name: str
    total: int  # the part that this process may use
    free: int

    @classmethod
    def of(cls, device: torch.device, limit: int | None = None) -> "GpuMemory":
        """The memory of `device`.

        It is at most `limit`, and at most this process's share of a shared GPU.
        """
        properties = torch.cuda.get_device_properties(device)
        free, _ = torch.cuda.mem_get_info(device)
        most = min(
            int(properties.total_memory * gpu_fraction()), limit or properties.total_memory
        )
        return cls(properties.name, most, min(free, most))


def gpu_token_budget(
    gpu: GpuMemory,
    per_token: float,
    states: int,
    missing: int,
    loss: int,
    report: Reporter = SILENT,
) -> int:
    """Tokens per micro-batch that fit on a GPU.

    The number is a power of two, so that GPUs of one kind give the same micro-batches, and so the
    same bits.

    Args:
        gpu: memory of the GPU.
        per_token: bytes that a forward pass keeps for each token.
        states: bytes of weights, gradients and optimizer.
        missing: bytes of `states` that are not yet allocated.
        loss: bytes that the loss takes in addition to the passes.
        report: told if other processes leave too little of the GPU.
    Raises: `ConfigError` if not even the model fits.
    """
    room = SHARE_OF_GPU_MEMORY * (gpu.total - CONTEXT_BYTES - states - loss)
    if room < MIN_BUDGET * per_token:
        raise ConfigError(
            f"{gpu.name}: has {gpu.total / 1e9:.1f} GB, but weights, gradients and optimizer"
            f" need {(states + CONTEXT_BYTES) / 1e9:.1f} GB and the loss of a batch needs"
            f" {loss / 1e9:.1f} GB; use a smaller model, --lora-rank, a smaller --batch-size,"
            " or --device cpu"
        )
    wanted = 1 << int(math.log2(room / per_token))
    left = SHARE_OF_FREE_GPU_MEMORY * (gpu.free - missing - loss)
    budget = wanted
    while budget * per_token > left and budget > MIN_BUDGET:
        budget //= 2
    if budget < wanted:
        report.note(
            f"{gpu.name}: other processes use this GPU, and {gpu.free / 1e9:.1f} GB are free,"
            f" so a forward pass takes {budget:,} tokens instead of {wanted:,}"
        )
    return budget


def kept_bytes(embed: Callable[[TokenArrays], Tensor], tokens: TokenArrays) -> float:
    """Bytes of one token between its forward and its backward pass, counted over two passes.

    Memory that a pass keeps independently of its tokens, such as copies of the weights, is in both
    passes and cancels out.

    Args:
        embed: differentiable, on the device and in the precision of training.
        tokens: sequences to take a sample from, the longest first.
    """
    order = np.argsort(-tokens.lengths, kind="stable")
    before = np.cumsum(tokens.lengths[order])
    sizes, counts = [], []
    for wanted in (SAMPLE_TOKENS, 2 * SAMPLE_TOKENS):
        sample = tokens.take(order[: 1 + int(np.searchsorted(before, wanted))])
        sizes.append(len(sample.ids))
        counts.append(_kept(embed, sample))
    if sizes[0] == sizes[1]:  # a batch smaller than the sample
        return counts[0] / sizes[0]
    return (counts[1] - counts[0]) / (sizes[1] - sizes[0])


def _kept(embed: Callable[[TokenArrays], Tensor], tokens: TokenArrays) -> int:
    """Bytes of the distinct memory that one forward pass saves for its backward pass."""
    saved: dict[int, int] = {}
    alive = []  # keeps the storages, so that no address is used twice

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        alive.append(storage)
        saved[storage._cdata] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        embed(tokens)
    return sum(saved.values())
