"""Chooses the learning rate on English-Portuguese SQuADShifts, before experiment A.

    python experiments/study2/settings_on_other_text.py DATA

DATA is the folder that `translate_squadshifts.py` wrote. Every run is at mix 0.5 with the sizes of
experiment A: 600 records, 37 steps of 16 pairs (one pass). What is there already is not done again. The
results go into ``experiments/study2/settings/``.
"""

import argparse
import hashlib
import tempfile
from pathlib import Path

from measuring import means, measure, write_table

from hybridbatch.common.files import make_folder, write_json
from hybridbatch.common.settings import build
from hybridbatch.data.prepare import prepare
from hybridbatch.data.settings import PrepareConfig
from hybridbatch.data.tasks.registry import load_task
from hybridbatch.model import Encoder
from hybridbatch.training.settings import TrainConfig
from hybridbatch.training.train import train

LENGTHS = {"max_query_tokens": 64, "max_passage_tokens": 128}
HERE = Path(__file__).parent
# The first two choose the learning rate; the others only check the temperature.
GRID = [(0.01, 3e-5), (0.01, 1e-5), (0.02, 3e-5), (0.05, 3e-5)]


def fold_of(name: str) -> int:
    """The fold of a question or a sentence; sentences of a paragraph share one."""
    paragraph = name.rpartition("-")[0] or name
    return hashlib.sha256(paragraph.encode()).digest()[0] % 2


def main() -> None:
    """Run what is missing."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("--runs", type=int, default=len(GRID), help="only so many of the grid")
    arguments = parser.parse_args()
    folder = arguments.data
    task = load_task(str(folder / "validation"))
    store = prepare(
        build(PrepareConfig, None, {
            "sources": [str(folder / "train.jsonl")], "out": folder / "prepared",
            "decontaminate": ["none"], "validation_share": 0,
        })
    )  # fmt: skip
    out = make_folder(HERE / "settings")
    points = [
        ("untrained", None, None),
        *(("trained", *point) for point in GRID[: arguments.runs]),
    ]
    for kind, temperature, rate in points:
        name = kind if kind == "untrained" else f"temperature-{temperature:g}-rate-{rate:g}"
        if (out / f"{name}.json").exists():
            continue
        with tempfile.TemporaryDirectory() as scratch:
            start = "e5-small-q4"
            if temperature is not None:
                run = train(
                    build(TrainConfig, None, {
                        "data": str(store), "out": Path(scratch) / "run", "mix": 0.5,
                        "same_records": True, "batch_size": 16, "steps": 37, "seed": 13,
                        "temperature": temperature, "learning_rate": rate, "average_start": 0.0, **LENGTHS,
                        "validate_every": 1000, "log_to": "none",
                    })
                )  # fmt: skip
                start = str(run)
            encoder = Encoder.load(start, **LENGTHS)
            table = measure(task, encoder.encode, fold_of, None)
        write_table(table, out / f"{name}.parquet")
        result = {"temperature": temperature, "learning_rate": rate}
        write_json(out / f"{name}.json", result | {"means": means(table, ("eng", "por"))})


if __name__ == "__main__":
    main()
