"""Forecasts: made before training, from traits of the language, with honest intervals."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from hybridbatch.common.errors import ConfigError, DataError
from hybridbatch.common.files import read_json
from hybridbatch.scaling.analysis import Sweep
from hybridbatch.scaling.cells.folder import SweepFolder
from hybridbatch.scaling.findings import find
from hybridbatch.scaling.forecast import (
    Example,
    cell_features,
    language_features,
    learn,
    leave_one_language_out,
    misses,
    pretraining_gib,
    tokens_per_word,
)
from hybridbatch.scaling.predict import TABLE, compared, examples_of
from hybridbatch.scaling.report.sentences import sentences
from hybridbatch.scaling.sweep import run_sweep
from tests.helpers import synthetic
from tests.helpers.synthetic import facts, sweep_config

SPOKEN = ("eng", "deu", "fra", "rus", "hin", "tha", "swh", "yor", "amh", "khm", "wol", "zul")
STUDY = Path(__file__).parents[2] / "experiments" / "study"


def made_up(trial: int, noise: float, languages=SPOKEN) -> list[Example]:
    """Languages whose gain is linear in their traits, with noise of language and of cell."""
    rng = np.random.default_rng([3, trial])
    found = []
    for code in languages:
        traits = language_features(code, ["eng", "rus"], float(rng.uniform(1, 4)))
        untrained, own = float(rng.uniform(0.2, 0.8)), noise * rng.normal()
        for pairs in (100, 400):
            for mix in (0.0, 0.5, 1.0):
                features = traits | cell_features(pairs, mix)
                gain = 0.02 * features["tokens_per_word"] + 0.01 * features["pairs"] + own
                score = untrained + gain + 0.2 * noise * rng.normal()
                key = f"{pairs}-{mix}"
                found.append(Example(key, "t", "monolingual", code, untrained, features, score))
    return found


def test_a_linear_gain_is_found():
    examples = made_up(0, 0.0)
    (learnt,) = learn(examples).values()
    assert learnt.ridge == 0.1
    for example in examples[::5]:
        found = learnt.predict(example)
        assert found.value == pytest.approx(example.score, abs=0.003)
        assert found.low < found.value < found.high


def test_the_ridge_is_the_closed_form():
    from hybridbatch.scaling.forecast import _fitted

    examples = made_up(1, 0.01)
    learnt = _fitted(examples, 10.0)
    x = np.array([[e.features[n] for n in learnt.names] for e in examples])
    z = (x - x.mean(axis=0)) / x.std(axis=0)
    y = np.array([e.score - e.untrained for e in examples])
    expected = np.linalg.solve(z.T @ z + 10.0 * np.eye(z.shape[1]), z.T @ (y - y.mean()))
    np.testing.assert_allclose(learnt.slopes, expected, rtol=1e-8)


def test_intervals_hold_languages_that_were_not_learnt_from():
    inside = total = 0
    for trial in range(8):
        for row in misses(leave_one_language_out(made_up(trial, 0.05))):
            inside += row["inside"] * row["scores"]
            total += row["scores"]
    assert 0.88 <= inside / total <= 1


def test_too_few_languages_are_refused():
    with pytest.raises(
        DataError, match="needs finished cells in 3 query languages or more, and there are 2"
    ):
        learn(made_up(0, 0.1, ("eng", "deu")))
    few = [
        replace(example, setting="multilingual") for example in made_up(0, 0.1, ("eng", "deu"))
    ]
    assert set(learn([*made_up(0, 0.1), *few])) == {("t", "monolingual")}, (
        "the rest is forecast"
    )
    with pytest.raises(DataError, match="there is none"):
        learn([])


def test_tokens_per_word_do_not_need_spaces():
    texts = {"eng": ["one two three"], "tha": ["กกกกกกกกกกกกกกก"], "deu": ["eins zwei"]}
    found = tokens_per_word(texts, {"eng": 6, "tha": 8, "deu": 2})
    assert found["eng"] == 2
    assert found["deu"] == 1
    average = (11 / 3 + 8 / 2) / 2
    assert found["tha"] == pytest.approx(8 / (15 / average))


def test_pretraining_is_the_published_table():
    table = pretraining_gib()
    assert (table["eng"], table["swh"], table["khm"], table["zho-Hant"]) == (
        300.8,
        1.6,
        1.5,
        16.6,
    )
    assert "wol" not in table
    assert language_features("wol", ["eng"], None)["pretraining"] == 0


def test_the_first_edition_is_forecast_from_its_other_languages():
    """The committed cells: eight languages forecast the ninth better than its start does."""
    if not (STUDY / "grid").is_dir():
        pytest.skip("the study is not part of this copy")
    examples = [e for e in examples_of(Sweep.open(STUDY / "grid"), {}) if e.task == "atlas"]
    rows = misses(leave_one_language_out(examples))
    for row in rows:
        assert row["languages"] == 9
        assert row["miss"] < row["miss_untrained"]
        assert row["inside"] >= 0.8


def sweep(out: Path, runner=synthetic.run, **changes) -> Path:
    spoken = "swh,zul,eng,deu"
    chosen = sweep_config(out=out, languages=spoken, allow_seen=True, **changes)
    return run_sweep(chosen, runner=runner, facts=facts(), fertility={"atlas": {"swh": 2.0}})


def test_forecasts_are_written_before_training_and_never_changed(tmp_path):
    first = sweep(tmp_path / "first")
    seen = []

    def runner(cell, work):
        written = tmp_path / "second" / "forecast.json"
        if cell.train:
            seen.append(len(read_json(written)["forecasts"]))
        return synthetic.run(cell, work)

    second = sweep(tmp_path / "second", runner, pairs="400", predict=str(first))
    count = 3 * 2 * 3 * 4  # mixes, seeds, settings, languages
    assert seen == [count] * 6
    pairs = compared(SweepFolder(second))
    assert len(pairs) == count
    assert all(example.score is not None for example, _ in pairs)
    for row in misses(pairs):
        assert row["miss"] < row["miss_untrained"]
    before = read_json(second / "forecast.json")["forecasts"]
    sweep(tmp_path / "second", pairs="400,800", predict=str(first))
    after = read_json(second / "forecast.json")["forecasts"]
    assert after[: len(before)] == before
    assert len(after) == 2 * count
    assert "scores (mAP) were forecast before training" in (second / TABLE).read_text()
    told = " ".join(sentences(Sweep.open(second), find(Sweep.open(second))))
    assert "scores of 4 languages in 12 cells were forecast for all tasks and settings" in told
    assert "predict" not in json.loads((second / "sweep.json").read_text())["settings"]


def test_a_sweep_of_other_tasks_teaches_nothing(tmp_path):
    first = sweep(tmp_path / "first")

    def other(cell, work):
        result = synthetic.run(cell, work)
        result["eval"]["tasks"][0]["name"] = "other"
        (work / "queries.parquet").unlink()
        return result

    with pytest.raises(ConfigError, match=r"no finished cell of .* scores"):
        sweep(tmp_path / "second", other, predict=str(first), tasks="other")
    with pytest.raises(DataError, match="is not the folder of a sweep"):
        sweep(tmp_path / "third", predict=str(tmp_path))
