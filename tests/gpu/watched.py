"""What is run on the pretended GPU, in a process of its own: prints one JSON line of figures."""

import json
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.helpers import pretend_cuda
from tests.helpers.pretend_cuda import CARD, DEVICE, WATCH, PretendCuda

pretend_cuda.install()

import numpy as np  # noqa: E402
import torch  # noqa: E402
from torch.nn import functional as F  # noqa: E402

from hybridbatch.common.device import resolve_device, resolve_precision, upload  # noqa: E402
from hybridbatch.common.distributed import Workers  # noqa: E402
from hybridbatch.common.errors import ConfigError  # noqa: E402
from hybridbatch.common.tokens import TokenArrays  # noqa: E402
from hybridbatch.model import Encoder  # noqa: E402
from hybridbatch.model import encoder as encoder_module  # noqa: E402
from hybridbatch.model.casts import HalfWeights  # noqa: E402
from hybridbatch.model.packed import PACKABLE  # noqa: E402
from hybridbatch.training.gradient_cache import GradientCache, dropout_seed, split  # noqa: E402
from tests.gpu.told import told  # noqa: E402
from tests.helpers.tiny import write_tiny_model  # noqa: E402
from tests.helpers.trainers import make_trainer  # noqa: E402

ROOT = Path(tempfile.mkdtemp())
RANDOM = np.random.default_rng(0)
LENGTHS = (3, 5, 5, 9, 17, 30, 41)
TOKENS = TokenArrays.of([RANDOM.integers(4, 60, length).tolist() for length in LENGTHS])
FEW_LAYERS, MORE_LAYERS = 1, 3


class NoBar:
    """A progress bar that shows nothing."""

    def advance(self, amount: int = 1, **fields: Any) -> None:
        pass


def encoder(family: str, dropout: float = 0.0, **shape: int) -> Encoder:
    """A tiny encoder on the CPU."""
    name = f"{family}-{dropout}-{'-'.join(map(str, shape.values()))}"
    if not (ROOT / name).exists():
        write_tiny_model(ROOT / name, family, dropout=dropout, **shape)
    return Encoder.load(str(ROOT / name))


def gradient(of: torch.nn.Module) -> torch.Tensor:
    """All gradients in one row, on the CPU."""
    found = [
        p.grad.detach().float().cpu().flatten() for p in of.parameters() if p.grad is not None
    ]
    return torch.cat(found)


def figures(model: Encoder, precision: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Embeddings and gradients of a fixed loss."""
    model.zero_grad()
    found = model.embed(TOKENS, precision)
    weights = upload(np.linspace(-1, 1, model.dimension, dtype=np.float32), found.device)
    (found * weights).sum().backward()
    return found.detach().cpu(), gradient(model)


def compare(model: Encoder) -> dict[str, float]:
    """How far the device is from the CPU, whether flash attention was used, and waits of a pass."""
    expected, slope = figures(model, "fp32")
    model.to(DEVICE)
    fp32, fp32_slope = figures(model, "fp32")
    WATCH.reset()
    half, half_slope = figures(model, "bf16")
    return {
        "fp32": float((fp32 - expected).abs().max()),
        "fp32_gradient": float((fp32_slope - slope).norm() / slope.norm()),
        "bf16_cosine": float((half * expected).sum(1).min()),
        "bf16_gradient": float(F.cosine_similarity(half_slope, slope, dim=0)),
        "flash": WATCH.operations["_flash_attention_forward"],
        # reading the result and the gradients, as this function does, is not counted
        "waits": sum(WATCH.waits.values()) - WATCH.waits["a copy to the host"],
    }


def numbers() -> dict[str, Any]:
    """Every packable family, and one that must be padded, against the CPU."""
    return {family: compare(encoder(family)) for family in (*sorted(PACKABLE), "mpnet")}


def head_widths() -> dict[str, Any]:
    """Heads that are no multiple of 8, and heads that flash attention cannot take."""
    return {
        str(hidden // 4): compare(encoder("bert", hidden=hidden, layers=1))
        for hidden in (24, 80, 1056)
    }


def step_counts() -> dict[str, Any]:
    """Kernels and waits of a training step: per layer, and beside the layers."""
    found: dict[str, Any] = {}
    plain: dict[str, Any] = {}
    for family, dropout, changes in (
        ("bert", 0.1, plain), ("bert", 0.0, plain), ("modernbert", 0.1, plain), ("gte", 0.1, plain),
        ("bert", 0.1, {"lora_rank": 2}),
    ):  # fmt: skip
        name = " ".join([family, str(dropout), *changes])
        counts = []
        for layers in (FEW_LAYERS, MORE_LAYERS):
            folder = ROOT / f"counted-{name}-{layers}"
            write_tiny_model(folder, family, dropout=dropout, layers=layers)
            trainer = make_trainer(
                folder, ROOT / "none", workers=Workers(device=DEVICE), precision="bf16", steps=3, validate=False,
                **changes,
            )  # fmt: skip
            trainer._step(lambda record: None, NoBar())
            WATCH.reset()
            trainer._step(lambda record: None, NoBar())
            counts.append(WATCH.kernels)
        per_layer = (counts[1] - counts[0]) / (MORE_LAYERS - FEW_LAYERS)
        found[name] = {
            "kernels_per_layer": per_layer,
            "other_kernels": counts[0] - FEW_LAYERS * per_layer,
            "waits": dict(WATCH.waits),
        }
    return found


def replay() -> dict[str, Any]:
    """Gradient caching with dropout against one graph over the same micro-batches and masks."""
    model = encoder("bert", 0.1).to(DEVICE).train()
    weights = torch.linspace(-1, 1, model.dimension).to(DEVICE)

    def loss_of(embeddings: torch.Tensor) -> torch.Tensor:
        return (embeddings @ embeddings.T).square().sum() + (embeddings * weights).sum()

    budget = 45
    cache = GradientCache(
        lambda tokens: model.embed(tokens, "bf16"),
        list(model.parameters()),
        budget,
        device=DEVICE,
    )
    cached = cache.backward(TOKENS, loss_of, lambda number: number).item()
    one = gradient(model)
    model.zero_grad()
    parts, rows = split(TOKENS.lengths, budget), []
    for number, part in enumerate(parts):
        with dropout_seed(number, DEVICE):
            rows.append(model.embed(TOKENS.take(part), "bf16"))
    order = torch.from_numpy(np.argsort(np.concatenate(parts))).to(DEVICE)
    plain = loss_of(torch.cat(rows).index_select(0, order))
    plain.backward()
    other = gradient(model)
    return {
        "parts": len(parts),
        "loss": abs(cached - plain.item()),
        "gradient": float((one - other).norm() / other.norm()),
    }


def casts() -> dict[str, Any]:
    """Copies of the weights of a step in several passes; gradients with and without sharing them;
    a layer that reads other states than its siblings.
    """
    model = encoder("gte").to(DEVICE).train()
    parts = split(TOKENS.lengths, 45)

    def passes() -> torch.Tensor:
        model.zero_grad()
        for part in parts:
            model.embed(TOKENS.take(part), "bf16")[:, 0].sum().backward()
        return gradient(model)

    apart = passes()
    WATCH.reset()
    with model.weights_fixed("bf16"):
        together = passes()
    copies = WATCH.operations["_foreach_copy_"]
    layers = model.model.get_submodule("layers.0.self_attn")
    states = torch.randn(3, 32).to(DEVICE)
    expected = layers.k_proj(states + 1)
    halves = HalfWeights(model, torch.bfloat16)
    with torch.autocast("cuda", torch.bfloat16), halves.used():
        layers.q_proj(states)
        found = layers.k_proj(states + 1)
    return {
        "passes": len(parts),
        "copies": copies,
        "same_bits": torch.equal(apart, together),
        "states_read_apart": float((found.float() - expected).abs().max()),
    }


def training() -> dict[str, Any]:
    """Whole runs with every part of the loss; one stopped half-way and resumed; losses as on the CPU."""
    folder = write_tiny_model(ROOT / "trained", "xlm-roberta", dropout=0.1, layers=1)
    everything = {"hard_negatives": 1, "symmetric": True, "ema": 0.9, "align_weight": 0.3, "dropout": 0.0}  # fmt: skip
    found: dict[str, Any] = {}
    for name, changes in {
        "everything": everything,
        "taught": {"teacher": "t", "dropout": 0.0},
        "embeddings": {"teacher": "t", "distill_from": "embeddings", "dropout": 0.0},
    }.items():
        vectors = 32 if name == "embeddings" else None
        changes |= {"steps": 2, "teacher_vectors": vectors, "validate": name == "everything"}
        cpu = make_trainer(folder, ROOT / f"cpu-{name}", **changes)
        cpu.train()
        gpu = make_trainer(
            folder, ROOT / f"gpu-{name}", workers=Workers(device=DEVICE), **changes
        )  # fmt: skip
        gpu.train()
        found[name] = max(abs(a - b) for a, b in zip(cpu.losses, gpu.losses, strict=True))
    whole, again = (
        make_trainer(
            folder, ROOT / "whole", workers=Workers(device=DEVICE), precision="fp16", steps=4, checkpoint_every=2,
            micro_tokens=60, validate=False,
        )
        for _ in range(2)
    )  # fmt: skip
    whole.train()
    again.resume(2)
    again.train()
    same = whole.losses == again.losses and whole.gradient_norms == again.gradient_norms
    return found | {"resumed": same, "fp16_scale": again.scale.factor}


def encoding() -> dict[str, Any]:
    """Embeddings for search; memory that runs out in the middle."""
    model = encoder("bert")
    texts = [f"kato {'mto ' * (number % 9)}{number}" for number in range(40)]
    expected = model.encode(texts, "passage", precision="fp32")
    model.to(DEVICE)
    near = model.encode(texts, "passage", precision="fp32")
    embed, sizes = model.embed, []

    def greedy(tokens: TokenArrays, precision: Any = "fp32") -> torch.Tensor:
        sizes.append(len(tokens))
        if len(tokens) > 10:
            raise RuntimeError(
                "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate"
            )
        return embed(tokens, precision)

    model.embed = greedy
    short = model.encode(texts, "passage", precision="fp32")
    model.embed = embed
    encoder_module.TEXTS_AHEAD = 7
    WATCH.reset()
    ahead = model.encode(texts, "passage", precision="fp32")
    return {
        "difference_ahead": float(np.abs(ahead - expected).max()),
        "waits": dict(WATCH.waits),
        "difference": float(np.abs(near - expected).max()),
        "difference_when_short": float(np.abs(short - expected).max()),
        "sizes": sizes,
    }


def refusals() -> dict[str, Any]:
    """What an old card and torchrun are told; what precision is chosen."""
    found: dict[str, Any] = {"auto": resolve_precision("auto", resolve_device("cuda"))}
    CARD.major, CARD.minor, CARD.name = 7, 5, "Tesla T4"
    found["old"] = resolve_precision("auto", DEVICE)
    model = encoder("bert")
    expected, _ = figures(model, "fp32")
    model.to(DEVICE)
    WATCH.reset()
    for precision in ("bf16", "fp16"):
        half, _ = figures(model, precision)
        found[f"old_{precision}"] = float((half * expected).sum(1).min())
    found["old_flash"] = WATCH.operations["_flash_attention_forward"]
    for name, attempt in {
        "bf16": lambda: resolve_precision("bf16", DEVICE),
        "cuda:7": lambda: resolve_device("cuda:7"),
    }.items():
        found[f"refused_{name}"] = said(attempt)
    CARD.major, CARD.minor = 9, 0
    return found


def said(attempt: Callable[[], Any]) -> str:
    """The message of the `ConfigError` that is raised."""
    try:
        attempt()
    except ConfigError as error:
        return str(error)
    return "nothing"


def mistakes() -> dict[str, Any]:
    """What users are told."""
    return told(ROOT, write_tiny_model(ROOT / "told", "bert", layers=1))


def main() -> None:
    torch.set_num_threads(1)
    found = {}
    with PretendCuda():
        for part in (
            numbers,
            head_widths,
            step_counts,
            replay,
            casts,
            training,
            encoding,
            refusals,
            mistakes,
        ):
            started = time.process_time()
            found[part.__name__] = part()
            print(part.__name__, time.process_time() - started, file=sys.stderr)
    print(json.dumps(found))


if __name__ == "__main__":
    sys.exit(main())
