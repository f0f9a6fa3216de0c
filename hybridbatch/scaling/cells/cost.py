"""What cells cost in seconds, from measurements only."""

import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from hybridbatch.scaling.cells.folder import Runner
from hybridbatch.scaling.cells.grid import Cell
from hybridbatch.training.settings import TrainConfig

CALIBRATION_STEPS = 3


@dataclass(frozen=True)
class Cost:
    """Seconds per drawn training pair, of the rest of a training, and of an evaluation.

    The rest of a training is its start, validation and saving.
    """

    pair_seconds: float
    train_seconds: float
    eval_seconds: float

    def of(self, cell: Cell) -> float:
        """The expected seconds of a cell."""
        around = self.train_seconds if cell.train else 0.0
        return self.pair_seconds * cell.drawn_pairs + around + self.eval_seconds


def measured(finished: Iterable[tuple[Cell, Mapping[str, Any]]]) -> Cost | None:
    """The cost of finished cells, or None if no trained cell is among them.

    Args:
        finished: cells with their JSON.
    """
    trained = [(cell.drawn_pairs, result) for cell, result in finished if cell.train]
    if not trained:
        return None
    steps = sum(result["train"]["throughput"]["seconds"] for _, result in trained)
    training = sum(result["seconds"]["train"] for _, result in trained)
    evaluation = sum(result["seconds"]["eval"] for _, result in trained)
    return Cost(
        pair_seconds=steps / sum(drawn for drawn, _ in trained),
        train_seconds=(training - steps) / len(trained),
        eval_seconds=evaluation / len(trained),
    )


def calibrate(cell: Cell, train: TrainConfig, runner: Runner) -> Cost:
    """The cost as measured by `CALIBRATION_STEPS` of a cell's training, in a temporary folder."""
    short = replace(
        cell, train=train.model_copy(update={"steps": CALIBRATION_STEPS, "warmup_steps": None})
    )
    with tempfile.TemporaryDirectory(prefix="hybridbatch-") as folder:
        cost = measured([(short, runner(short, Path(folder)))])
    assert cost
    return cost
