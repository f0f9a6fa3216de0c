"""Time of the cells of a sweep in one process against as many separate `hybridbatch train` and
`hybridbatch eval` runs.

Both train and score the same models on the atlas with settings so small that what surrounds the
training weighs: starting Python, reading model, data and tasks. A cell computes contrastive entropy
besides. The two take turns in blocks.
"""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from time import perf_counter

import numpy as np
from common import finish, parser, spread

from hybridbatch.common.settings import build
from hybridbatch.scaling.cells.grid import Cell, plan_cells
from hybridbatch.scaling.cells.runner import gather_facts
from hybridbatch.scaling.settings import SweepConfig
from hybridbatch.training.settings import TrainConfig

MIXES = (0.0, 0.5, 1.0)


def main() -> None:
    """Measure and print."""
    arguments = parser(__doc__ or "")
    arguments.add_argument(
        "--cells", type=int, default=60, help="trained cells, a multiple of 3"
    )
    arguments.add_argument("--steps", type=int, default=2)
    arguments.add_argument("--batch-size", type=int, default=8)
    arguments.add_argument("--languages", default="swh,yor,amh,tir")
    arguments.add_argument("--blocks", type=int, default=2, help="turns of each side")
    options = arguments.parse_args()
    if options.cells % (3 * options.blocks):
        arguments.error(f"--cells must be a multiple of {3 * options.blocks}")

    with tempfile.TemporaryDirectory(prefix="hybridbatch-") as temporary:
        here = Path(temporary)
        seeds = [13 + number for number in range(options.cells // len(MIXES))]
        each = len(seeds) // options.blocks
        sweeps, separate, cells = [], [], []
        for block in range(options.blocks):
            config = sweep_config(
                options, seeds[block * each : (block + 1) * each], here / f"sweep-{block}"
            )
            planned = [cell for cell in plan_cells(config, gather_facts(config)) if cell.train]
            cells += planned
            sweeps.append(run_sweep(config))
            separate.append(sum(run_alone(cell, here / "alone" / cell.key) for cell in planned))
        equal = sum(same_scores(cell, here) for cell in cells)
    figures = {
        name: {
            "sweep": sum(sweeps)[number],
            "separate": sum(separate)[number],
            "ratio": spread(
                [float(b[number] / a[number]) for a, b in zip(sweeps, separate, strict=True)]
            ),
        }
        for number, name in enumerate(("wall_seconds", "cpu_seconds"))
    } | {"cells_with_equal_scores": equal}
    settings = {name: value for name, value in vars(options).items() if name != "out"}
    finish("sweep", settings, figures, options.out)


def sweep_config(options, seeds: list[int], out: Path) -> SweepConfig:
    """The grid of one block."""
    return build(
        SweepConfig, None,
        {"languages": options.languages, "pairs": "60", "mix": list(MIXES), "seeds": seeds, "steps": [options.steps],
         "batch_size": [options.batch_size], "out": out},
    )  # fmt: skip


def run_sweep(config: SweepConfig) -> np.ndarray:
    """Seconds of `hybridbatch scale-sweep`, its start and the untrained model's evaluation
    included.
    """
    values = {
        name: getattr(config, name)
        for name in ("languages", "pairs", "mix", "seeds", "steps", "batch_size", "out")
    }
    words = [
        word
        for name, value in values.items()
        for word in ("--" + name.replace("_", "-"), written(value))
    ]
    return seconds("scale-sweep", *words)


def run_alone(cell: Cell, folder: Path) -> np.ndarray:
    """Seconds of `hybridbatch train` and `hybridbatch eval` of one cell."""
    assert cell.train
    defaults = TrainConfig().as_json()
    changed = {n: v for n, v in cell.train.as_json().items() if v != defaults[n]} | {
        "out": folder / "run"
    }
    words = [
        word
        for name, value in changed.items()
        for word in ("--" + name.replace("_", "-"), written(value))
    ]
    evaluation = ["--tasks", ",".join(cell.evaluation.tasks), "--languages", cell.evaluation.languages,
                  "--out", str(folder / "eval"), "--cache", str(folder / "embeddings")]  # fmt: skip
    return seconds("train", *words) + seconds("eval", str(folder / "run"), *evaluation)


def written(value) -> str:
    """A setting as the command line takes it."""
    return ",".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def seconds(*words: str) -> np.ndarray:
    """Wall seconds, and CPU seconds of all threads, of a hybridbatch command."""
    wall, before = perf_counter(), os.times()
    subprocess.run(
        [sys.executable, "-m", "hybridbatch", *words], check=True, stdout=subprocess.DEVNULL
    )
    after = os.times()
    cpu = (
        after.children_user
        + after.children_system
        - before.children_user
        - before.children_system
    )
    return np.array([perf_counter() - wall, cpu])


def same_scores(cell: Cell, here: Path) -> bool:
    """Whether both ways gave the same mAP in every setting and query language, to the last bits of
    its sums.
    """
    (result,) = here.glob(f"sweep-*/cells/{cell.key}.json")
    ours = json.loads(result.read_text())["eval"]["tasks"][0]["settings"]
    alone = json.loads((here / "alone" / cell.key / "eval" / "eval.json").read_text())["tasks"][
        0
    ]["settings"]
    return all(
        abs(metrics["mAP"] - alone[setting]["by_query_language"][language]["mAP"]) < 1e-9
        for setting, languages in ours.items()
        for language, metrics in languages.items()
    )


if __name__ == "__main__":
    main()
