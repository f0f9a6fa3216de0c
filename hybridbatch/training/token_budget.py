"""How many tokens one forward and backward pass may hold, estimated from the model's shape and the
machine's memory.
"""

import math

import torch

from hybridbatch.common.memory import main_memory

# Activations kept for the backward pass, in units of 4 bytes per token and layer. Measured in
# packed fp32 training with dropout (torch 2.13, sizes of the saved tensors): a BERT layer keeps 6
# hidden and 3 inner widths and 2.25 score-sized arrays per head and key, a ModernBERT layer
# somewhat more; rounded up for both. In bf16 it is two thirds of that.
HIDDEN_WIDTHS, INNER_WIDTHS, SCORE_ARRAYS = 12, 4, 3
SHARE_OF_CPU_MEMORY = 0.3  # of the whole: two runs on one machine split alike ...
SHARE_OF_FREE_MEMORY = 0.8  # ... unless this much of what is free is less
# of what is free after weights and optimizer; the gradient cache halves if it was too much
SHARE_OF_GPU_MEMORY = 0.6
LEAST = 1024


def bytes_per_token(config: object, length: int) -> int:
    """Memory of one token between the forward and the backward pass, in fp32.

    Args:
        config: a transformers configuration.
        length: tokens of the longest sequence, which bounds the attention scores of a token.
    """
    hidden = int(getattr(config, "hidden_size", 768))
    layers = int(getattr(config, "num_hidden_layers", 12))
    heads = int(getattr(config, "num_attention_heads", 12))
    inner = int(getattr(config, "intermediate_size", None) or 4 * hidden)
    return (
        4 * layers * (HIDDEN_WIDTHS * hidden + INNER_WIDTHS * inner + SCORE_ARRAYS * heads * length)
    )


def token_budget(
    config: object, length: int, device: torch.device, processes: int = 1, limit: int | None = None
) -> int:
    """Tokens per micro-batch that fit in memory: bf16 is counted as fp32, to be on the safe side.

    Args:
        length: tokens of the longest sequence.
        processes: how many share this machine's memory (each has a GPU of its own).
        limit: bytes that each process may count on at most, on its GPU or else in main memory.
    """
    most = math.inf if limit is None else limit
    if device.type == "cuda":
        memory = SHARE_OF_GPU_MEMORY * min(torch.cuda.mem_get_info(device)[0], most)
    else:
        found = main_memory()
        memory = min(
            SHARE_OF_CPU_MEMORY * min(found.total / processes, most),
            SHARE_OF_FREE_MEMORY * found.free / processes,
        )
    return max(LEAST, int(memory / bytes_per_token(config, length)))
