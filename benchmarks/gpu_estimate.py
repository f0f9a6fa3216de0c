"""An estimate of training on a GPU, from counts: no GPU is needed, and none is measured.

Counted on the pretended device of the tests, in training steps of real widths: kernels, operations
of matrix products, and bytes that all other kernels read and write. They are linear in tokens and
layers, so steps of one and three layers and of two sizes give all others. Assumed (`CARDS` and the
constants): what a card computes and moves in a second, and what a kernel costs the host. A step
takes the longer of the host's time for its launches and the device's time for its work.

The comparison is with the same packed step as transformers and autocast compute it, in which each
weight is cast by a kernel of its own and the whole word table has gradients and moments: what
sentence-transformers with flash attention 2 does, without its time for tokenising and collating.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

SHAPES = {"e5-small": (384, 21.3e6), "xlmr-base": (768, 85.1e6)}  # width, weights of the layers
LAYERS, PAIRS = (1, 3), (8, 16)  # of the counted steps
BATCHES = (64, 256, 1024)  # pairs of the estimated ones
TOKENS_OF_A_PAIR = 72  # as in `bench_train`: queries of about 12, passages of about 60
WORDS = {"ours": 50_000, "plain": 250_037}  # rows of the word table that are trained
# Bytes moved for a number of the table in a step: gradient cleared, added to, measured, clipped;
# AdamW.
TABLE_BYTES = 48
HOST_SECONDS = (
    6e-6  # of a kernel in eager torch, forward and backward; 4 to 10 on common machines
)
# bf16 operations/s and bytes/s of the data sheets, and the shares that kernels reach: products of
# these widths (large square ones: 0.7 to 0.8), and streaming.
CARDS = {"A100 80 GB": (312e12, 2.0e12), "H100 SXM": (989e12, 3.35e12)}
PRODUCT_SHARE = {384: 0.45, 768: 0.6}
STREAM_SHARE = 0.8
# With --compile: of the bytes of a BERT layer, where one kernel does all between two products.
# Counted by hand, in bytes for each number of the width: 65 instead of 117.
FUSED_SHARE = 0.56
FUSED_KERNELS = 0.6  # of the kernels of a layer


def main() -> None:
    """Count in a process on the pretended device, then estimate and print."""
    made = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    made.add_argument("--out", type=Path)
    made.add_argument("--count", action="store_true", help=argparse.SUPPRESS)
    options = made.parse_args()
    if options.count:
        count()
        return
    from common import finish

    from tests.helpers import pretend_cuda

    with tempfile.TemporaryDirectory() as folder:
        library = pretend_cuda.build(Path(folder))
        if library is None:
            sys.exit("no C++ compiler for the pretended GPU (g++ or clang++)")
        found = subprocess.run(
            [sys.executable, __file__, "--count"],
            env=pretend_cuda.environment(library), stdout=subprocess.PIPE, text=True, check=True,
        )  # fmt: skip
    counts = json.loads(found.stdout.splitlines()[-1])
    rows = [
        estimate(counts, shape, batch, card)
        for shape in SHAPES
        for batch in BATCHES
        for card in CARDS
    ]
    assumed = {
        "host_seconds_of_a_kernel": HOST_SECONDS, "cards": CARDS, "product_share": PRODUCT_SHARE,
        "stream_share": STREAM_SHARE, "fused_share": FUSED_SHARE, "fused_kernels": FUSED_KERNELS, "words": WORDS, "tokens_of_a_pair": TOKENS_OF_A_PAIR,
    }  # fmt: skip
    figures = {"kind": "estimate, not a measurement", "counts": counts, "estimates": rows}
    finish("gpu-estimate", {"assumed": assumed}, figures, options.out)


def estimate(counts: dict[str, Any], shape: str, batch: int, card: str) -> dict[str, Any]:
    """What a step of 12 layers takes: ours, ours compiled, and the plain one."""
    width, weights = SHAPES[shape]
    tokens = batch * TOKENS_OF_A_PAIR
    operations, stream = CARDS[card]
    work = 6 * weights * tokens
    row: dict[str, Any] = {"shape": shape, "pairs": batch, "card": card}
    for side in ("ours", "compiled", "plain"):
        counted = counts[shape]["plain" if side == "plain" else "ours"]
        of_step = {name: at(fit, tokens, 12) for name, fit in counted.items()}
        words = WORDS["plain" if side == "plain" else "ours"]
        if side == "compiled":
            of_step["moved"] -= (1 - FUSED_SHARE) * 12 * tokens * counted["moved"][3]
            of_step["kernels"] -= (1 - FUSED_KERNELS) * 12 * counted["kernels"][2]
        moved = of_step["moved"] + words * width * TABLE_BYTES
        device = of_step["multiplied"] / (operations * PRODUCT_SHARE[width])
        device += moved / (stream * STREAM_SHARE)
        host = of_step["kernels"] * HOST_SECONDS
        seconds = max(host, device)
        row[side] = {
            "kernels": round(of_step["kernels"]), "host_seconds": host, "device_seconds": device,
            "pairs_per_second": batch / seconds, "share_of_peak": work / seconds / operations,
        }  # fmt: skip
    for side in ("ours", "compiled"):
        row[side]["ratio"] = row[side]["pairs_per_second"] / row["plain"]["pairs_per_second"]
    return row


def at(fit: list[float], tokens: float, layers: int) -> float:
    """The value for so many tokens and layers."""
    fixed, of_token, of_layer, of_both = fit
    return fixed + of_token * tokens + of_layer * layers + of_both * tokens * layers


def count() -> None:
    """Print the fitted counts of a step, by shape and side."""
    from tests.helpers import pretend_cuda

    pretend_cuda.install()

    import torch

    from hybridbatch.model import Encoder

    torch.set_num_threads(1)
    found: dict[str, Any] = {}
    with pretend_cuda.PretendCuda():
        for shape in SHAPES:
            found[shape] = {"ours": fitted(shape)}
            halves = Encoder._halves
            Encoder._halves = lambda self, precision: False  # type: ignore[method-assign]
            found[shape]["plain"] = fitted(shape)
            Encoder._halves = halves  # type: ignore[method-assign]
    print(json.dumps(found))


def fitted(shape: str) -> dict[str, list[float]]:
    """Each count as fixed + a x tokens + b x layers + c x tokens x layers."""
    import numpy as np

    rows, counted = [], []
    for layers in LAYERS:
        for pairs in PAIRS:
            tokens, values = step(shape, layers, pairs)
            rows.append([1.0, tokens, layers, tokens * layers])
            counted.append(values)
    names = ("kernels", "multiplied", "moved", "kept")
    columns = np.linalg.solve(np.array(rows), np.array(counted, np.float64)).T
    return dict(zip(names, columns.tolist(), strict=True))


def step(shape: str, layers: int, pairs: int) -> tuple[int, tuple[int, ...]]:
    """Tokens, and counts of the second step of a random model: kernels, operations, bytes that are
    moved, and bytes that are kept between the forward and the backward pass.
    """
    from bench_train import Ours, make_texts, write_model

    from tests.helpers.pretend_cuda import DEVICE, WATCH

    with tempfile.TemporaryDirectory() as folder:
        options = argparse.Namespace(
            shape=shape, layers=layers, vocabulary=1000, batch=pairs, device=str(DEVICE), start=Path(folder) / "start",
        )  # fmt: skip
        write_model(options)
        texts = make_texts(options, 3 * pairs, "mixed")
        ours = Ours(options, texts, pairs, "bf16", "mixed", 1 << 40)
        ours.step()
        WATCH.reset()
        tokens = len(ours.trainer.batches[1].tokens.ids)
        ours.step()
    return tokens, (WATCH.kernels, WATCH.multiplied, WATCH.moved, kept(ours))


def kept(ours: Any) -> int:
    """Bytes that a forward pass keeps for its backward pass."""
    import torch

    saved: dict[int, int] = {}
    alive = []

    def keep(tensor: Any) -> Any:
        held = getattr(tensor, "held", tensor).untyped_storage()
        alive.append(held)
        saved[held.data_ptr()] = held.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        ours.trainer.cache.embed(ours.trainer.batches[1].tokens)
    return sum(saved.values())


if __name__ == "__main__":
    main()
