"""What cells cost in seconds, from measurements only."""

import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from hybridbatch.config import TrainConfig
from hybridbatch.scaling.cells import Runner
from hybridbatch.scaling.grid import Cell

CALIBRATION_STEPS = 3


@dataclass(frozen=True)
class Cost:
    """Seconds per drawn training pair, and per evaluation."""

    pair_seconds: float
    eval_seconds: float

    def of(self, cell: Cell) -> float:
        """Seconds that a cell should take."""
        return self.pair_seconds * cell.drawn_pairs + self.eval_seconds


def measured(finished: Iterable[tuple[Cell, Mapping[str, Any]]]) -> Cost | None:
    """The cost that finished cells had, or None where there is no trained one. `finished`: cells with their JSON."""
    trained = [(cell.drawn_pairs, result["seconds"]) for cell, result in finished if cell.train]
    if not trained:
        return None
    pairs = sum(drawn for drawn, _ in trained)
    return Cost(
        pair_seconds=sum(seconds["train"] for _, seconds in trained) / pairs,
        eval_seconds=sum(seconds["eval"] for _, seconds in trained) / len(trained),
    )


def calibrate(cell: Cell, train: TrainConfig, runner: Runner) -> Cost:
    """The cost measured by a run of `CALIBRATION_STEPS` of a cell's training, in a folder that is thrown away."""
    short = replace(cell, train=train.model_copy(update={"steps": CALIBRATION_STEPS, "warmup_steps": None}))
    with tempfile.TemporaryDirectory(prefix="hybridbatch-") as folder:
        seconds = runner(short, Path(folder))["seconds"]
    return Cost(seconds["train"] / short.drawn_pairs, seconds["eval"])
