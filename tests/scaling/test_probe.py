"""The expected cost of cells that have not run: counts of tokens times the speed of the model."""

from dataclasses import replace
from pathlib import Path

import pytest

from hybridbatch.common.records import Row
from hybridbatch.data.store.reader import Store
from hybridbatch.data.store.writer import write_store
from hybridbatch.model import Encoder
from hybridbatch.scaling.cells import probe
from hybridbatch.scaling.cells.grid import plan_cells
from hybridbatch.scaling.cells.probe import SETUP, TRAINING_SETUP, Estimate, Speed
from hybridbatch.scaling.experiment_cost import _mean_bytes
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
    expected = SETUP + TRAINING_SETUP + 9 + 8 * 50 * 0.01 + 3 * 2 * 2 * 4 * 50 * 0.001
    assert found.of(trained) == pytest.approx(expected)
    found.checkpoint_bytes = {"e5-small-q4": probe.WRITTEN / 2}
    assert found.of(trained) == pytest.approx(expected + 3 / 2)
    found.checkpoint_bytes = {}
    found.validation_tokens = {"e5-small-q4": (30, 40)}
    longer_pairs = 3 * 2 * 2 * 4 * 20 * 0.001
    assert found.of(trained) == pytest.approx(expected + longer_pairs)
    by_map = trained.train.model_copy(
        update={"validation_metric": "map", "validation_queries": 9, "validation_passages": 11}
    )
    retrieval = 3 * (9 * 30 + 11 * 40) * 0.001
    assert found.of(replace(trained, train=by_map)) == pytest.approx(
        expected + longer_pairs + retrieval
    )
    longer = replace(trained, train=trained.train.model_copy(update={"steps": 40}))
    assert found.of(longer) > found.of(trained)


def test_the_speed_is_measured_once_on_a_machine(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HYBRIDBATCH_CACHE", str(tmp_path))
    encoder = Encoder.load(str(tiny_model))
    texts = ["baden 12", "lokus", "dera ba ba"]

    def measured() -> dict[str, float]:
        found = probe._measured(encoder, texts, "fp32", "bf16")
        return {"train": found.train, "encode": found.encode}

    first = probe._speed(["m1"], measured)
    assert 0 < first.encode < 1
    assert 0 < first.train < 1
    assert probe._speed(["m1"], lambda: pytest.fail("measured again")) == first
    (kept,) = (tmp_path / "probes").iterdir()
    kept.write_text("{")
    other = {"train": 0.5, "encode": 0.25}
    assert probe._speed(["m1"], lambda: other) == Speed(0.5, 0.25)


def test_a_second_estimate_needs_no_model_and_no_texts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HYBRIDBATCH_CACHE", str(tmp_path))
    config, facts = synthetic.sweep_config(seeds="13", pairs="100"), synthetic.facts()
    cells = plan_cells(config, facts)
    languages = cells[0].evaluation.languages
    validation = {"validation query": 10.0, "validation passage": 40.0}
    counts = {"pair": 50.0, **validation, "checkpoint_bytes": 1e9, f"of {languages}": 9000.0}
    monkeypatch.setattr(probe._Probed, "counts", lambda *_: counts)
    monkeypatch.setattr(probe._Probed, "measured", lambda _: {"train": 0.01, "encode": 0.001})
    first = probe.estimate(config, cells, facts)
    assert first.pair_tokens == {"e5-small-q4": 50}
    for part in ("counts", "measured"):
        monkeypatch.setattr(probe._Probed, part, lambda *_: pytest.fail("computed again"))
    assert probe.estimate(config, cells, facts) == first
    other = replace(facts, tasks=dict.fromkeys(facts.tasks, "another"))
    monkeypatch.setattr(probe._Probed, "counts", lambda *_: {**counts, "pair": 60.0})
    assert probe.estimate(config, cells, other).pair_tokens == {"e5-small-q4": 60}


def test_the_texts_of_an_evaluation_are_counted(tiny_model: Path) -> None:
    cell = plan_cells(synthetic.sweep_config(seeds="13", pairs="100"), synthetic.facts())[0]
    encoder = Encoder.load(str(tiny_model))
    one = probe._evaluation_tokens(encoder, cell, "swh")
    two = probe._evaluation_tokens(encoder, cell, "swh,yor")
    assert 100 < one < two


def test_records_that_lack_a_query_or_a_passage_are_sampled(tmp_path: Path) -> None:
    asked = [Row("qa", f"r{n}", "swh", f"swali {n:03}", None) for n in range(200)]
    answered = [Row("qa", f"r{n}", "eng", None, f"answer {n}") for n in range(3)]
    write_store(tmp_path / "data", [*asked, *answered], provenance={"sources": []})
    store = Store.open(tmp_path / "data")
    queries, passages = probe._sampled_texts(store, "train")
    assert len(set(queries)) == probe.SAMPLE
    assert {text[:7] for text in passages} == {"answer "}
    assert _mean_bytes(store.folder) == (9, 8)
