"""The cost of a model before its weights are read, and before it is there."""

from pathlib import Path

import pytest
from transformers import AutoModel

from hybridbatch.model import reckoning
from hybridbatch.model.reckoning import absent_bytes, reckon


@pytest.fixture(autouse=True)
def known_rate(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reckoning, "measured_peak", lambda *machine: 1e12)


def test_weights_and_parameters_are_those_of_the_model(tiny_model: Path):
    found = reckon(str(tiny_model), "cpu", "fp32")
    assert found is not None
    model = AutoModel.from_pretrained(tiny_model)
    linear = [
        one.weight.numel()
        for name, one in model.named_modules()
        if name.startswith("encoder") and type(one).__name__ == "Linear"
    ]
    assert found.weights == sum(linear)
    assert found.width == model.config.hidden_size
    total = sum(one.numel() for one in model.parameters())
    assert found.parameters == pytest.approx(total, rel=0.25)
    assert found.download == 0
    assert found.encode_seconds(1e6) == pytest.approx(2 * sum(linear) * 1e6 / (1e12 * 0.5))
    assert found.train_seconds(1e6) == 3 * found.encode_seconds(1e6)


def test_models_that_people_name_are_known_before_they_are_downloaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(reckoning, "_cached_config", lambda model: [])
    labse = reckon("sentence-transformers/LaBSE", "cpu", "fp32")
    assert labse is not None
    assert labse.weights == 84_934_656  # 12 layers of 4 x 768^2 + 2 x 768 x 3072
    assert labse.download == 1.9e9
    assert reckon("acme/unknown", "cpu", "fp32") is None
    assert absent_bytes("acme/unknown") is None
    assert absent_bytes("FacebookAI/xlm-roberta-base") == 1.1e9
    assert absent_bytes("e5-small-q4") == absent_bytes(str(tmp_path)) == 0
