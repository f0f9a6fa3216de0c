"""What a model costs in time, memory and download, reckoned before its weights are read.

The work of a transformer is 2 operations per weight of its linear layers and token, and 6 when it is
trained (`training.flops` counts the attention, too). The rate is a share of the machine's rate of
matrix products, which is measured. It is a forecast: half or twice the time is possible.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

from hybridbatch.common.device import resolve_device, resolve_precision
from hybridbatch.common.peak import measured_peak
from hybridbatch.common.settings import Precision
from hybridbatch.model.builtin import BUILTIN

# Share of the rate of matrix products that encoding and training reach: benchmarks/results,
# train.json and train-amx.json (share_of_peak) on CPUs; assumed on GPUs.
SHARE = {"cpu": 0.5, "cuda": 0.4}
BYTES_A_TOKEN = 4.0  # of text, about, in most scripts and with XLM-R's vocabulary
_BASE = {"num_hidden_layers": 12, "hidden_size": 768, "intermediate_size": 3072}
_SMALL = {"num_hidden_layers": 12, "hidden_size": 384, "intermediate_size": 1536}
_LARGE = {"num_hidden_layers": 24, "hidden_size": 1024, "intermediate_size": 4096}
# Shapes and bytes of models that people name before they have them.
KNOWN: Mapping[str, tuple[Mapping[str, int], float]] = {
    "FacebookAI/xlm-roberta-base": (_BASE | {"vocab_size": 250002}, 1.1e9),
    "FacebookAI/xlm-roberta-large": (_LARGE | {"vocab_size": 250002}, 2.2e9),
    "sentence-transformers/LaBSE": (_BASE | {"vocab_size": 501153}, 1.9e9),
    "intfloat/multilingual-e5-small": (_SMALL | {"vocab_size": 250037}, 0.47e9),
    "intfloat/multilingual-e5-base": (_BASE | {"vocab_size": 250002}, 1.1e9),
    "intfloat/multilingual-e5-large": (_LARGE | {"vocab_size": 250002}, 2.2e9),
    "BAAI/bge-m3": (_LARGE | {"vocab_size": 250002}, 2.3e9),
}


@dataclass(frozen=True)
class Reckoning:
    """The cost of a model on this machine.

    Attributes:
        weights: of the linear layers that every token passes.
        parameters: all of them.
        width: of the embedding.
        rate: operations a second that are expected.
        download: bytes that are not on this machine; None: unknown.
    """

    weights: int
    parameters: int
    width: int
    rate: float
    download: float | None

    def encode_seconds(self, tokens: float) -> float:
        """Seconds for embedding texts."""
        return 2 * self.weights * tokens / self.rate

    def train_seconds(self, tokens: float) -> float:
        """Seconds for training on texts."""
        return 3 * self.encode_seconds(tokens)

    @property
    def train_bytes(self) -> int:
        """Memory of weights, gradients and the two moments of AdamW, without activations."""
        return 16 * self.parameters


def reckon(model: str, device: str = "auto", precision: Precision = "auto") -> Reckoning | None:
    """The cost of a model on this machine; None if its shape is unknown before it is downloaded.

    Args:
        model: as for `Encoder.load`. Nothing is downloaded.

    Raises:
        ConfigError: The device or the precision is not there.
    """
    config, here = _local_config(model), True
    if config is None:
        here = False
        config, size = KNOWN.get(model.partition("@")[0], (None, 0.0))
    if config is None:
        return None
    try:
        layers, width = int(config["num_hidden_layers"]), int(config["hidden_size"])
        inner = int(config.get("intermediate_size", 4 * width))
        vocabulary = int(config.get("vocab_size", 0))
    except (KeyError, TypeError, ValueError):
        return None
    gated = (
        3 if "num_key_value_heads" in config or config.get("model_type") == "modernbert" else 2
    )
    weights = layers * (4 * width**2 + gated * width * inner)
    where = resolve_device(device)
    peak = measured_peak(where, resolve_precision(precision, where), torch.get_num_threads())
    return Reckoning(
        weights=weights,
        parameters=weights + vocabulary * width,
        width=width,
        rate=peak * SHARE.get(where.type, 0.4),
        download=0.0 if here else size,
    )


def absent_bytes(model: str) -> float | None:
    """Bytes of a model that are to be downloaded; None: their number is unknown."""
    if model in BUILTIN and find_spec(BUILTIN[model].package) is None:
        model = BUILTIN[model].hub or model
    no_id = "/" not in model or model.startswith(("/", ".", "~"))
    if no_id or Path(model).expanduser().exists() or _local_config(model) is not None:
        return 0.0
    known = KNOWN.get(model.partition("@")[0])
    return known[1] if known else None


def _local_config(model: str) -> Mapping[str, Any] | None:
    """The configuration of a model that is on this machine."""
    if model in BUILTIN:
        return _SMALL | {"vocab_size": 250037}
    folder = Path(model).expanduser()
    places = [folder / "config.json", folder / "model" / "config.json"]
    if "/" in model and not folder.exists():
        places = _cached_config(model)
    for place in places:
        try:
            found = json.loads(place.read_bytes())
        except (OSError, ValueError, RecursionError):
            continue
        return found if isinstance(found, dict) else None
    return None


def _cached_config(model: str) -> list[Path]:
    from huggingface_hub import try_to_load_from_cache

    repository, _, revision = model.partition("@")
    try:
        found = try_to_load_from_cache(repository, "config.json", revision=revision or None)
    except ValueError:  # no possible id
        return []
    return [Path(found)] if isinstance(found, str) else []
