"""Training steps of this checkout against those of another one, such as an older commit.

    git worktree add ../before COMMIT
    python benchmarks/bench_before.py --before ../before

Each side runs in a process of its own and reads the same random model and the same texts. The two
take turns, step by step, and each begins every other turn. The model has the shape of
multilingual-e5-small. The ratio is the other's seconds over ours: above 1, this checkout is faster.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
from bench_train import make_texts, write_model
from common import finish, parser, spread

from hybridbatch.common.device import resolve_precision

HERE = Path(__file__).parents[1]
KINDS = (("fp32", 1), ("fp32", 4), ("bf16", 1))  # precision and micro-batches
# Both sides' `bench_train.Ours` take these arguments. It prints the seconds of each step.
SIDE = """
import argparse, json, sys, time
from contextlib import ExitStack
from pathlib import Path
import torch
from bench_train import Ours
what = json.loads(Path(sys.argv[1]).read_text())
torch.set_num_threads(what["threads"])
options = argparse.Namespace(start=Path(what["start"]), device="cpu")
ours = Ours(options, what["texts"], what["batch"], what["precision"], "mixed", 1 << 40)
with ExitStack() as block:
    try:
        from hybridbatch.common.memory import freed_memory_kept
    except ImportError:
        from hybridbatch.training.memory import freed_memory_kept
    block.enter_context(freed_memory_kept())
    tokens = int(ours.trainer.batches[0].tokens.lengths.sum())
    ours.trainer.cache.budget = -(-tokens // what["micro_batches"])
    for line in sys.stdin:
        started = time.process_time()
        ours.step()
        taken = [ours.seconds[-1], time.process_time() - started]
        print(json.dumps([taken, ours.trainer.losses[-1]]), flush=True)
"""


def main() -> None:
    """Measure and print."""
    made = parser(__doc__ or "")
    made.add_argument("--before", type=Path, required=True, help="the other checkout")
    made.add_argument("--layers", type=int, default=6)
    made.add_argument("--vocabulary", type=int, default=20_000)
    made.add_argument("--batch", type=int, default=32)
    made.add_argument(
        "--steps", type=int, default=8, help="counted steps, after one that is not"
    )
    made.add_argument("--threads", type=int, default=torch.get_num_threads())
    options = made.parse_args()
    options.shape = "e5-small"
    able = resolve_precision("auto", torch.device("cpu"))
    with tempfile.TemporaryDirectory() as folder:
        options.start = Path(folder) / "start"
        write_model(options)
        rows = [
            compare(options, precision, parts)
            for precision, parts in KINDS
            if precision in ("fp32", able)
        ]
    settings = {
        name: getattr(options, name) for name in ("layers", "vocabulary", "batch", "steps")
    }
    commit = subprocess.run(
        ["git", "-C", str(options.before), "rev-parse", "--short", "HEAD"],
        capture_output=True, text=True, check=False,
    ).stdout.strip()  # fmt: skip
    finish(
        "before",
        settings | {"threads": options.threads, "before": commit},
        {"rows": rows},
        options.out,
    )


def compare(options: argparse.Namespace, precision: str, parts: int) -> dict[str, Any]:
    """Seconds of each step of both sides, taking turns."""
    count = (options.steps + 1) * options.batch
    what = {
        "start": str(options.start), "texts": make_texts(options, count, "mixed"), "batch": options.batch,
        "precision": precision, "threads": options.threads, "micro_batches": parts,
    }  # fmt: skip
    sides = {"before": start(options.before, what), "now": start(HERE, what)}
    seconds: dict[str, list[list[float]]] = {name: [] for name in sides}
    losses: dict[str, list[float]] = {name: [] for name in sides}
    for turn in range(options.steps + 1):
        for name in sorted(sides, reverse=bool(turn % 2)):
            taken, loss = step(sides[name])
            seconds[name].append(taken)
            losses[name].append(loss)
    for side in sides.values():
        side.communicate()
    row: dict[str, Any] = {"precision": precision, "micro_batches": parts}
    for kind, name in enumerate(("clock", "processor")):
        before, now = ([turn[kind] for turn in seconds[side][1:]] for side in ("before", "now"))
        ratios = [a / b for a, b in zip(before, now, strict=True)]
        row[name] = {"before": spread(before), "now": spread(now), "ratio": spread(ratios)}
    row["ratio"] = row["processor"]["ratio"]["median"]
    return row | {"same_losses": losses["before"] == losses["now"]}


def start(checkout: Path, what: dict[str, Any]) -> subprocess.Popen[str]:
    """A process that takes a step for each line that it reads."""
    folders = [str(checkout), str(checkout / "benchmarks")]
    settings = Path(f"{what['start']}.json")
    settings.write_text(json.dumps(what))
    env = os.environ | {"PYTHONPATH": os.pathsep.join(folders), "OMP_NUM_THREADS": str(what["threads"])}  # fmt: skip
    return subprocess.Popen(
        [sys.executable, "-c", SIDE, str(settings)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env, cwd=checkout,
    )  # fmt: skip


def step(side: subprocess.Popen[str]) -> tuple[list[float], float]:
    """Have one side take a step: its seconds, of clock and processor, and its loss."""
    assert side.stdin
    assert side.stdout
    side.stdin.write("\n")
    side.stdin.flush()
    seconds, loss = json.loads(side.stdout.readline())
    return seconds, loss


if __name__ == "__main__":
    main()
