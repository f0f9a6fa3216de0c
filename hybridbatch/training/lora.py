"""LoRA (Hu et al. 2021, arXiv:2106.09685): train low-rank updates of the weights, then merge.

Every linear layer W of the transformer computes (W + alpha / rank * B A) x. Only A [rank, in] and B
[out, rank] train. B starts at zero. `peft` inserts the updates and merges them.
"""

import torch
from torch import nn

from hybridbatch.common.errors import ConfigError
from hybridbatch.common.seeding import stream
from hybridbatch.model import Encoder

UNUSED = "pooler"  # a layer of transformers' encoders that retrieval does not use


def linear_layers(model: nn.Module) -> list[str]:
    """Names of the linear layers that work on every token."""
    return [
        name
        for name, part in model.named_modules()
        if isinstance(part, nn.Linear) and UNUSED not in name
    ]


class Adapters:
    """The low-rank updates of an encoder's transformer; the rest of the encoder stops training.

    Args:
        encoder: changed in place.
        rank: rank of every update.
        alpha: the factor of an update is alpha / rank.
        seed: seed of A, which is drawn as in `peft`: uniform with bound 1 / sqrt(in).
    Raises: `ConfigError` if `peft` is not installed.
    """

    def __init__(self, encoder: Encoder, rank: int, alpha: float, seed: int) -> None:
        try:
            from peft import LoraConfig
            from peft.tuners.lora import LoraModel
        except ImportError as error:
            raise ConfigError(
                f"lora_rank = {rank}: the package peft is not installed; run `pip install"
                " 'hybridbatch[lora]'`"
            ) from error
        config = LoraConfig(
            r=rank, lora_alpha=alpha, target_modules=linear_layers(encoder.model)
        )
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(int(stream(seed, "lora").integers(2**63)))
            self._wrapped = LoraModel(encoder.model, config, "default")
        encoder.head.requires_grad_(False)

    def merge(self) -> None:
        """Add the updates to the weights, so that the encoder is an ordinary one again."""
        self._wrapped.merge_and_unload()
