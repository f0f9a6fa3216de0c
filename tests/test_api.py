"""The Python face: the stages of the command line as functions."""

import subprocess
import sys
from pathlib import Path

import pytest

import hybridbatch as hb
from hybridbatch.common.errors import ConfigError

ROWS = [
    {"id": str(number), "language": language, "query": f"{word} {number}?", "passage": f"{word} {number}."}
    for number in range(12)
    for language, word in (("en", "tower"), ("sw", "mnara"), ("yo", "ilé"))
]  # fmt: skip
SMALL = {"steps": 2, "batch_size": 4, "precision": "fp32", "log_to": "none"}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> hb.PreparedData:
    import json

    folder = tmp_path_factory.mktemp("api")
    file = folder / "towers.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    return hb.prepare(file, out=folder / "data", validation_share=0.25)


@pytest.fixture(scope="module")
def evaluations(
    data: hb.PreparedData, tiny_model: Path, tmp_path_factory: pytest.TempPathFactory
) -> list[hb.Evaluation]:
    folder = tmp_path_factory.mktemp("runs")
    run = hb.train(data=data, model=tiny_model, out=folder / "run", mix=0.5, **SMALL)
    assert run.model.is_dir()
    assert run.facts["trained_languages"] == ["eng", "swh", "yor"]
    assert run.encoder().dimension == 32
    return [
        hb.evaluate(model, tasks="atlas", languages="eng,swh", out=folder / name)
        for model, name in ((tiny_model, "start"), (run, "trained"))
    ]


def test_prepared_data_says_what_it_is(data: hb.PreparedData) -> None:
    assert data.languages == ("eng", "swh", "yor")
    assert len(data.fingerprint) == 64


def test_an_evaluation_has_a_table_and_the_score_of_every_query(
    evaluations: list[hb.Evaluation],
) -> None:
    start, trained = evaluations
    assert "rank distance" in start.table().columns
    assert set(trained.table()["languages"]) >= {"all"}
    scores = trained.per_query("mAP")
    monolingual = scores[scores["setting"] == "monolingual"]
    mean = monolingual.groupby("query_language")["value"].mean().mean()
    assert trained.table()["monolingual"][0] == pytest.approx(mean)


def test_evaluations_are_compared(evaluations: list[hb.Evaluation]) -> None:
    comparison = hb.compare(*evaluations)
    assert set(comparison.table()["setting"]) == {
        "monolingual",
        "cross-lingual",
        "multilingual",
    }
    assert all(comparison.sentences)


def test_settings_are_checked_as_on_the_command_line() -> None:
    with pytest.raises(ConfigError, match="unknown setting 'mixx' \\(did you mean mix"):
        hb.train(mixx=0.5)
    with pytest.raises(ConfigError, match="mix = 2"):
        hb.train(mix=2)


def test_a_schedule_of_ones_own_rows() -> None:
    index = hb.RecordIndex.from_rows(ROWS)
    schedule = hb.plan_schedule(index, mix=0, batch_size=4, steps=3, seed=1)
    assert isinstance(schedule, hb.Schedule)
    queries = index.language[schedule.query_row]
    assert (queries != index.language[schedule.passage_row]).all()


def test_import_costs_nothing_until_a_name_is_used() -> None:
    code = (
        "import sys, hybridbatch as hb; hb.train, hb.plan_schedule, hb.RecordIndex;"
        "print('torch' in sys.modules, 'pandas' in sys.modules, 'Encoder' in dir(hb))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["False", "False", "True"]
