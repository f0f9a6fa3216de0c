"""Encoding against `SentenceTransformer.encode`: the same model, texts and precision, taking turns
in one process.

Texts are random words of mixed lengths (queries about 12 tokens, passages about 60, up to 180) and
of equal ones (64). The model is random in the shape of multilingual-e5-small, or `--model`. The
peer has its defaults: sorted by length, padded, 32 texts a batch; `--peer-batch` gives others. In
bf16 both run under autocast. The vectors must agree.
"""

import argparse
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from bench_train import MOST, SHAPES, make_texts, write_model
from common import finish, parser, spread, timed

from hybridbatch.model import Encoder

AGREEMENT = {"fp32": 1e-4, "bf16": 0.05}  # largest difference of a component


def main() -> None:
    """Encode with both, in turn."""
    arguments = parser(__doc__ or "")
    arguments.add_argument(
        "--model", help="built-in name, folder or hub id; default: random, of --shape"
    )
    arguments.add_argument("--shape", choices=list(SHAPES), default="e5-small")
    arguments.add_argument("--layers", type=int, default=12)
    arguments.add_argument("--vocabulary", type=int, default=250_037)
    arguments.add_argument("--texts", type=int, default=1000, help="queries, and as many passages")
    arguments.add_argument("--precisions", default="fp32,bf16")
    arguments.add_argument("--peer-batch", type=int, nargs="*", default=[32])
    arguments.add_argument("--rounds", type=int, default=3, help="counted, after one that is not")
    arguments.add_argument("--threads", type=int, default=torch.get_num_threads())
    arguments.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    options = arguments.parse_args()
    torch.set_num_threads(options.threads)
    with tempfile.TemporaryDirectory() as folder:
        options.start = Path(folder) / "start"
        if options.model:
            Encoder.load(options.model, max_passage_tokens=MOST).save(
                options.start, "start of a benchmark"
            )
        else:
            write_model(options)
        rows = [
            compare(options, lengths, precision)
            for lengths in ("mixed", "equal")
            for precision in options.precisions.split(",")
        ]
    settings = {
        name: value for name, value in vars(options).items() if name not in ("out", "start")
    }
    finish(
        "encode",
        settings | {"peer": "SentenceTransformer.encode"},
        {"runs": rows},
        options.out,
        options.device,
    )


def compare(options: argparse.Namespace, lengths: str, precision: str) -> dict[str, Any]:
    """Texts per second of both, on queries and passages together."""
    from sentence_transformers import SentenceTransformer

    queries, passages = make_texts(options, options.texts, lengths)
    ours = Encoder.load(str(options.start), max_query_tokens=MOST, max_passage_tokens=MOST).to(
        options.device
    )
    peer = SentenceTransformer(str(options.start), device=options.device)
    peer.max_seq_length = MOST
    found: dict[str, np.ndarray] = {}

    def run_ours() -> None:
        sides = (("query", queries), ("passage", passages))
        found["ours"] = np.concatenate(
            [ours.encode(texts, side, precision=precision) for side, texts in sides]
        )

    def run_peer(batch: int) -> None:
        with torch.autocast(
            options.device.partition(":")[0], torch.bfloat16, enabled=precision == "bf16"
        ):
            found["peer"] = np.concatenate(
                [
                    peer.encode(texts, prompt_name=side, batch_size=batch, convert_to_tensor=True)
                    .float()
                    .cpu()
                    .numpy()
                    for side, texts in (("query", queries), ("passage", passages))
                ]
            )

    seconds: dict[str, list[dict[str, float]]] = {"hybridbatch": []} | {
        f"peer-{b}": [] for b in options.peer_batch
    }
    for _ in range(options.rounds + 1):
        seconds["hybridbatch"].append(timed(run_ours))
        for batch in options.peer_batch:
            seconds[f"peer-{batch}"].append(timed(lambda batch=batch: run_peer(batch)))
    count = len(queries) + len(passages)
    difference = float(np.abs(found["ours"] - found["peer"]).max())
    if difference > AGREEMENT[precision]:
        raise SystemExit(f"{lengths}, {precision}: vectors differ by {difference}")
    speed = {
        name: spread([count / one["wall_seconds"] for one in runs[1:]])
        for name, runs in seconds.items()
    }
    best = max(speed[name]["median"] for name in speed if name != "hybridbatch")
    return {
        "lengths": lengths,
        "precision": precision,
        "texts": count,
        "texts_per_second": speed,
        "cpu_seconds": {
            name: spread([one["cpu_seconds"] for one in runs[1:]]) for name, runs in seconds.items()
        },
        "ratio": speed["hybridbatch"]["median"] / best,
        "largest_difference": difference,
    }


if __name__ == "__main__":
    main()
