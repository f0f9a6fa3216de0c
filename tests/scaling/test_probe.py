"""The expected cost of cells that have not run: counts of tokens times the speed of the model."""

from dataclasses import replace
from pathlib import Path

import pytest

from hybridbatch.model import Encoder
from hybridbatch.scaling.cells import probe
from hybridbatch.scaling.cells.grid import plan_cells
from hybridbatch.scaling.cells.probe import SETUP, Estimate, Speed
from tests.helpers import synthetic


def test_the_estimate_is_tokens_times_speed() -> None:
    cells = plan_cells(synthetic.sweep_config(seeds="13", pairs="100"), synthetic.facts())
    untrained, trained = cells[0], cells[1]
    languages = trained.evaluation.languages
    speed = Speed(train=0.01, encode=0.001)
    found = Estimate(
        {"e5-small-q4": speed}, {"e5-small-q4": 50}, {("e5-small-q4", languages): 9000}
    )
    assert found.of(untrained) == pytest.approx(SETUP + 9)
    # 2 steps of 4 pairs; 3 validations of 2 x 2 batches
    expected = SETUP + 9 + 8 * 50 * 0.01 + 3 * 2 * 2 * 4 * 50 * 0.001
    assert found.of(trained) == pytest.approx(expected)
    longer = replace(trained, train=trained.train.model_copy(update={"steps": 40}))
    assert found.of(longer) > found.of(trained)


def test_the_speed_is_measured_once_on_a_machine(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HYBRIDBATCH_CACHE", str(tmp_path))
    encoder = Encoder.load(str(tiny_model))
    texts = ["baden 12", "lokus", "dera ba ba"]
    first = probe._speed(encoder, texts, "m1", probe.SILENT)
    assert 0 < first.encode < 1
    assert 0 < first.train < 1
    monkeypatch.setattr(probe, "_measured", lambda *_: pytest.fail("measured again"))
    assert probe._speed(encoder, texts, "m1", probe.SILENT) == first
    (kept,) = (tmp_path / "probes").iterdir()
    kept.write_text("{")
    monkeypatch.setattr(probe, "_measured", lambda *_: Speed(0.5, 0.25))
    assert probe._speed(encoder, texts, "m1", probe.SILENT) == Speed(0.5, 0.25)
