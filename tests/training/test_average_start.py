"""`train --average-start` saves an average of the trained weights and of the start's."""

import pytest
import torch

from hybridbatch.common.errors import ConfigError
from hybridbatch.common.files import read_json
from hybridbatch.common.settings import build
from hybridbatch.data.store.writer import write_store
from hybridbatch.model import Encoder
from hybridbatch.training.settings import TrainConfig
from hybridbatch.training.train import train
from tests.helpers.parallel import rows
from tests.helpers.tiny import write_tiny_model


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("average")
    write_store(
        folder / "toy",
        rows(24),
        provenance={"sources": [{"name": "toy", "licence": "CC0-1.0"}]},
    )
    write_tiny_model(folder / "tiny")
    return folder


def weights(place, run=None, **changes):
    if run is None:
        return dict(Encoder.load(str(place / "tiny")).named_parameters())
    config = build(TrainConfig, None, {
        "data": str(place / "toy"), "model": str(place / "tiny"), "out": place / run,
        "steps": 3, "batch_size": 6, "learning_rate": 1e-2, "temperature": 0.1,
        "precision": "fp32", "log_to": "none", **changes,
    })  # fmt: skip
    return dict(Encoder.load(str(train(config))).named_parameters())


@pytest.mark.parametrize("changes", [{}, {"lora_rank": 2}])
def test_every_weight_is_the_average(place, changes):
    kind = "-".join(["run", *changes])
    start = weights(place)
    plain = weights(place, f"{kind}-0", **changes)
    averaged = weights(place, f"{kind}-25", average_start=0.25, **changes)
    moved = 0
    for name, own in averaged.items():
        expected = 0.75 * plain[name].double() + 0.25 * start[name].double()
        torch.testing.assert_close(own.double(), expected, rtol=1e-5, atol=1e-7)
        moved += not torch.equal(plain[name], start[name])
    assert moved > 3


def test_the_card_and_the_record_say_so(place):
    weights(place, "told", average_start=0.5)
    assert "50% of the start's" in (place / "told" / "model" / "README.md").read_text()
    assert read_json(place / "told" / "train.json")["config"]["average_start"] == 0.5


@pytest.mark.parametrize("share", [-0.1, 1, "much"])
def test_a_share_out_of_bounds_is_refused(share):
    with pytest.raises(ConfigError, match="average_start"):
        build(TrainConfig, None, {"average_start": share})
