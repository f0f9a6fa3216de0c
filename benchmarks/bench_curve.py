"""Does training without padding learn the same? Validation loss of `hybridbatch train` and of
sentence-transformers.

Both start from the same real encoder and take the same hybrid batches of real text in the same
order (by default the built-in atlas and encoder: nothing is downloaded), with the same optimizer.
The peer pads, and its validation loss is computed here, in float64, from what its own `encode`
gives. Without dropout the curves must agree to rounding, with dropout up to its noise: the masks
differ.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from bench_train import SIDES, run_peer, standard_output
from common import finish, parser
from sentence_transformers import SentenceTransformer

from hybridbatch.common.device import resolve_precision
from hybridbatch.common.progress import SILENT
from hybridbatch.common.records import Split
from hybridbatch.data.prepare import ensure_prepared
from hybridbatch.data.store.reader import Store
from hybridbatch.model import Encoder
from hybridbatch.sampling.index import RecordIndex
from hybridbatch.sampling.schedule import Schedule
from hybridbatch.training.inputs import Inputs
from hybridbatch.training.settings import TrainConfig
from hybridbatch.training.train import train

TOKENS = 256  # of any text


def main() -> None:
    """Measure and print."""
    arguments = parser(__doc__ or "")
    arguments.add_argument("--data", default="atlas", help="prepared folder or built-in source")
    arguments.add_argument("--model", default=TrainConfig().model)
    arguments.add_argument("--mix", type=float, default=0.5)
    arguments.add_argument("--steps", type=int, default=40)
    arguments.add_argument("--batch", type=int, default=64)
    arguments.add_argument("--validate-every", type=int, default=10)
    arguments.add_argument("--dropouts", default="0,0.1")
    arguments.add_argument("--threads", type=int, default=torch.get_num_threads())
    arguments.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    # the peer's part in a process of its own, as JSON
    arguments.add_argument("--peer", help=argparse.SUPPRESS)
    options = arguments.parse_args()
    torch.set_num_threads(options.threads)
    if options.peer:
        peer(**json.loads(options.peer))
        return
    with tempfile.TemporaryDirectory() as folder:
        rows = [
            compare(options, float(p), Path(folder) / p) for p in options.dropouts.split(",")
        ]
    shared = {
        name: value for name, value in vars(options).items() if name not in ("out", "peer")
    }
    finish("curve", shared, {"curves": rows}, options.out, options.device)


def compare(options: argparse.Namespace, dropout: float, folder: Path) -> dict[str, Any]:
    """Both curves, with the seconds per step of each, one run after the other."""
    config = TrainConfig(
        data=options.data, model=options.model, mix=options.mix, steps=options.steps, batch_size=options.batch,
        warmup_steps=0, decay_all=False, temperature=0.05, dropout=dropout, validate_every=options.validate_every, validation_batches=4,
        max_query_tokens=TOKENS, max_passage_tokens=TOKENS, device=options.device, log_to="none", out=folder / "run",
        precision=resolve_precision("auto", torch.device(options.device)),
    )  # fmt: skip
    result = json.loads((train(config) / "train.json").read_text())
    peers = subprocess.run(
        [sys.executable, __file__, "--threads", str(options.threads), "--peer",
         json.dumps({"settings": config.as_json(), "start": str(folder / "start")})],
        stdout=subprocess.PIPE, text=True, check=True,
    )  # fmt: skip
    theirs = json.loads(peers.stdout)
    mine = {
        "losses": [entry["loss"] for entry in result["curve"]],
        "validation_losses": {
            str(entry["step"]): entry["loss"] for entry in result["validation"]
        },
        "seconds_per_step": result["throughput"]["seconds"] / config.steps,
    }
    apart = [
        abs(mine["validation_losses"][step] - loss)
        for step, loss in theirs["validation_losses"].items()
    ]
    return {
        "dropout": dropout,
        "precision": config.precision,
        "hybridbatch": mine,
        "sentence_transformers": theirs,
        "largest_difference_of_validation_losses": max(apart),
        "largest_difference_of_losses": max(
            abs(ours - loss)
            for ours, loss in zip(mine["losses"], theirs["losses"], strict=True)
        ),
        "ratio": theirs["seconds_per_step"] / mine["seconds_per_step"],
    }


def peer(settings: dict[str, Any], start: str) -> None:
    """Train sentence-transformers on the batches that `settings` give, and print its curve."""
    config = TrainConfig(**settings)
    encoder = Encoder.load(config.model, **config.encoder_options)
    encoder.save(Path(start), "start of a benchmark")
    store = Store.open(ensure_prepared(config.data, config.data_root, SILENT))
    inputs = Inputs.plan(config, store, SILENT)

    def texts(split: Split, index: RecordIndex, schedule: Schedule) -> list[list[str]]:
        """Queries and positives with their prompts, batch after batch."""
        rows = (
            index.store_rows(each.ravel())
            for each in (schedule.query_row, schedule.passage_row)
        )
        found = (
            read(split, each)
            for read, each in zip((store.queries, store.passages), rows, strict=True)
        )
        return [
            [encoder.prompts[side] + text for text in each]
            for side, each in zip(SIDES, found, strict=True)
        ]

    held_out = {
        kind: (schedule.query_row.shape, *texts("validation", inputs.held_out_index, schedule))
        for kind, schedule in inputs.held_out.items()
    }
    curve: dict[int, float] = {}
    step = -1

    def validate(trained: Any) -> None:
        nonlocal step
        step += 1
        if step % config.validate_every and step != config.steps:
            return
        losses = []
        for (batches, size), queries, passages in held_out.values():
            vectors = (
                trained.encode(kept, convert_to_tensor=True).double()
                for kept in (queries, passages)
            )
            parts = zip(*(each.unflatten(0, (batches, size)) for each in vectors), strict=True)
            names = np.array(passages).reshape(batches, size)
            losses.append(
                np.mean([plain_loss(*pair, names[i], config) for i, pair in enumerate(parts)])
            )
        curve[step] = float(np.mean(losses))

    queries, passages = texts("train", inputs.index, inputs.schedule)
    with standard_output() as out:
        validate(SentenceTransformer(start, device=config.device))
        seconds, losses = run_peer(
            config,
            Path(start),
            {"anchor": queries, "positive": passages},
            torch.device(config.device),
            after=validate,
        )
        print(
            json.dumps(
                {
                    "losses": losses,
                    "validation_losses": curve,
                    "seconds_per_step": np.mean(seconds),
                }
            ),
            file=out,
        )


def plain_loss(
    queries: torch.Tensor, passages: torch.Tensor, names: np.ndarray, config: TrainConfig
) -> float:
    """InfoNCE of a batch, [B, D] each; of passages with one name, [B], only the positive counts."""
    cosines = torch.nn.functional.normalize(queries) @ torch.nn.functional.normalize(passages).T
    copies = torch.from_numpy(names[:, None] == names).fill_diagonal_(False).to(cosines.device)
    scores = (cosines / config.temperature).masked_fill(copies, -torch.inf)
    return float(
        torch.nn.functional.cross_entropy(
            scores, torch.arange(len(scores), device=scores.device)
        )
    )


if __name__ == "__main__":
    main()
