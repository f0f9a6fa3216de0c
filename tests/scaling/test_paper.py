"""The configurations of the paper's experiment stay ones that the stages take."""

from pathlib import Path

import pytest

from hybridbatch.common.settings import build
from hybridbatch.data.settings import PrepareConfig
from hybridbatch.data.sources.registry import source
from hybridbatch.data.tasks.registry import is_task
from hybridbatch.scaling.settings import ReproduceConfig
from hybridbatch.training.settings import TrainConfig

FOLDER = Path(__file__).parents[2] / "experiments" / "paper"


@pytest.mark.parametrize("name", ["xlm-r", "labse"])
def test_the_papers_settings_are_understood_by_every_stage(name: str):
    config = build(ReproduceConfig, FOLDER / f"{name}.yaml")
    assert [source(entry).name for entry in config.sources][1] == "mrtydi"
    assert all(map(is_task, config.tasks))
    preparation = build(PrepareConfig, None, {"sources": config.sources, **config.preparation})
    assert len(preparation.translate_to) == 9
    train = build(TrainConfig, None, config.train)
    assert (train.batch_size, train.learning_rate, train.weight_decay) == (100, 3e-5, 0.01)
