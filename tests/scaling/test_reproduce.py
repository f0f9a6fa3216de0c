"""Several mixes from one start: the same data and settings, one report, and the same numbers again."""

import shutil
from pathlib import Path

import pytest

from hybridbatch.common.documents import read_document
from hybridbatch.common.errors import ConfigError
from hybridbatch.common.files import read_json
from hybridbatch.common.progress import Reporter
from hybridbatch.common.settings import build
from hybridbatch.scaling.reproduce import (
    Reproduced,
    at_one_temperature,
    batches_of,
    dry_run,
    plan,
    report_text,
    reproduce,
    table_rows,
    where_found,
)
from hybridbatch.scaling.settings import ReproduceConfig
from hybridbatch.training import train as training
from hybridbatch.training.settings import TrainConfig
from hybridbatch.training.temperature import Found
from tests.helpers.recording import RecordingReporter


@pytest.fixture
def config(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> ReproduceConfig:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HYBRIDBATCH_CACHE", str(tmp_path / "cache"))
    overrides = {
        "model": str(tiny_model),
        "seeds": (1, 2),
        "languages": "eng,deu,swh,yor",
        "train": {"steps": 2, "batch_size": 8, "languages": "eng,deu,fra", "validate_every": 2},
    }
    return build(ReproduceConfig, overrides=overrides)


def test_report_and_results_of_all_arms(config: ReproduceConfig) -> None:
    folder = reproduce(config)
    result = read_json(folder / "results.json")
    assert [arm["name"] for arm in result["arms"]] == [
        "untrained",
        *(f"mix-{mix}-seed-{seed}" for seed in (1, 2) for mix in ("1", "0", "0.5")),
    ]
    trained = result["arms"][1:]
    assert len({arm["train"]["data"]["fingerprint"] for arm in trained}) == 1
    # in two steps a hybrid may equal a pure mix
    assert len({arm["model_fingerprint"] for arm in result["arms"]}) >= 5
    rows = table_rows(result)
    assert {row["languages"] for row in rows} == {
        "all",
        "trained",
        "trained-to-zero-shot",
        "zero-shot",
    }
    assert {row["batches"] for row in rows} == {
        "untrained",
        "monolingual",
        "cross-lingual",
        "hybrid 0.5",
    }
    one = next(
        row for row in rows if row["batches"] == "hybrid 0.5" and row["languages"] == "all"
    )
    seeds = [
        arm["tasks"][0]["settings"]["multilingual"]["metrics"]["mAP"]
        for arm in trained
        if arm["mix"] == 0.5
    ]
    assert one["multilingual"] == pytest.approx(sum(seeds) / 2)
    # two pure mixes, in the three settings by mAP and in the pool by rank distance
    assert len(result["comparisons"]) == 2 * (3 + 1)
    text = (folder / "report.md").read_text()
    assert all(row["verdict"] in text for row in result["comparisons"])
    assert "not general retrieval" in text
    assert (folder / "figure.svg").read_text().startswith("<svg")


def test_the_same_command_gives_the_same_numbers(
    config: ReproduceConfig, tmp_path: Path
) -> None:
    first = read_json(reproduce(config) / "results.json")
    again = read_json(reproduce(config) / "results.json")
    elsewhere = read_json(
        reproduce(config.model_copy(update={"out": tmp_path / "elsewhere"})) / "results.json"
    )
    for result in (again, elsewhere):
        assert result["comparisons"] == first["comparisons"]
        assert [arm["tasks"] for arm in result["arms"]] == [
            arm["tasks"] for arm in first["arms"]
        ]


def test_every_mix_gets_the_temperature_that_is_found_once(
    config: ReproduceConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = config.model_copy(update={"seeds": (1,)})
    asked = []

    def find(one: TrainConfig, report: Reporter) -> Found:
        asked.append((one.mix, one.seed))
        return Found(0.031 * len(asked), 1.0, 2.0, 512, known=True)

    monkeypatch.setattr(training, "start_temperature", find)
    on = "the first batches of mix 0.5, seed 1"
    assert dry_run(config)["temperature"] == f"to be found once for every mix, on {on}"
    folder = reproduce(config)
    first = read_json(folder / "results.json")
    assert (first["temperature"], first["temperature_found_on"]) == (0.031, on)
    assert [arm["train"]["temperature"] for arm in first["arms"][1:]] == [0.031] * 3
    report = (folder / "report.md").read_text()
    assert f", temperature 0.031 (found before training on {on})\n" in report
    shutil.rmtree(folder / "runs" / "mix-0-seed-1")  # as if it was stopped before
    shutil.rmtree(folder / "evals" / "mix-0-seed-1")
    again = read_json(reproduce(config) / "results.json")
    assert asked == [(0.5, 1)]
    assert [arm["model_fingerprint"] for arm in again["arms"]] == [
        arm["model_fingerprint"] for arm in first["arms"]
    ]
    shutil.rmtree(folder / "runs")
    plans = at_one_temperature(plan(config), folder, RecordingReporter())
    assert {one.temperature for one, _ in plans.values() if one} == {0.062}


def test_a_named_temperature_is_not_looked_for(config: ReproduceConfig) -> None:
    named = config.model_copy(update={"train": {**config.train, "temperature": 0.02}})
    assert where_found(plan(named)) is None
    assert "temperature" not in dry_run(named)
    one_mix = config.model_copy(update={"mixes": (1.0,)})
    assert where_found(plan(one_mix)) == "the first batches of mix 1, seed 1"


def test_results_from_before_a_temperature_was_named_are_still_read() -> None:
    path = Path(__file__).parents[2] / "experiments" / "reproduce" / "results.json"
    result = read_document(path, Reproduced)
    for name in ("temperature", "temperature_found_on"):
        result.pop(name, None)
    assert "temperature" not in report_text(result)


def test_every_setting_is_checked_before_any_work(
    config: ReproduceConfig, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match="learning_rat"):
        plan(config.model_copy(update={"train": {"learning_rat": 1e-5}}))
    with pytest.raises(ConfigError, match="mix"):
        plan(config.model_copy(update={"train": {"mix": 0.3}}))
    assert not (tmp_path / "experiments").exists()


def test_mixes_and_seeds_must_differ() -> None:
    with pytest.raises(ConfigError, match="seeds"):
        build(ReproduceConfig, overrides={"seeds": "13,13"})


def test_a_mix_is_called_by_what_its_batches_are() -> None:
    assert [batches_of(mix) for mix in (1.0, 0.0, 0.25)] == [
        "monolingual",
        "cross-lingual",
        "hybrid 0.25",
    ]
