"""Cells are scored raw and debiased, baselines stand beside them, and old keys stay."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from hybridbatch.common.errors import ConfigError, DataError, HybridBatchError
from hybridbatch.common.records import Task, Texts
from hybridbatch.common.settings import build
from hybridbatch.data.store.writer import write_store
from hybridbatch.debias.methods import centre
from hybridbatch.scaling.analysis import Measure, Sweep
from hybridbatch.scaling.cells.grid import plan_cells
from hybridbatch.scaling.check import check_cells
from hybridbatch.scaling.findings import find
from hybridbatch.scaling.report.sentences import sentences
from hybridbatch.scaling.settings import SweepConfig
from hybridbatch.scaling.sweep import dry_run, run_sweep
from hybridbatch.scoring import cross_fitted
from tests.helpers import synthetic
from tests.helpers.parallel import rows
from tests.helpers.synthetic import facts, sweep_config
from tests.helpers.tiny import write_tiny_model

LANGUAGES = ("deu", "eng")


def write_task(folder: Path, questions: int = 16) -> Path:
    rng = np.random.default_rng(5)
    words = [" ".join(rng.choice(list("abcdefgh"), 3)) for _ in range(questions)]
    for language, end in zip(LANGUAGES, ("en", "s"), strict=True):
        place = folder / language
        (place / "qrels").mkdir(parents=True)
        corpus = [
            {"_id": f"d{n}", "text": f"{word}{end} da{end}"} for n, word in enumerate(words)
        ]
        queries = [{"_id": f"q{n}", "text": f"{word}{end}"} for n, word in enumerate(words)]
        for name, lines in (("corpus", corpus), ("queries", queries)):
            text = "".join(json.dumps(line) + "\n" for line in lines)
            (place / f"{name}.jsonl").write_text(text)
        judged = "".join(f"q{n}\td{n}\t1\n" for n in range(questions))
        (place / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\n" + judged)
    return folder


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("debiased")
    write_store(
        folder / "toy",
        rows(24),
        provenance={"sources": [{"name": "toy", "licence": "CC0-1.0"}]},
    )
    write_tiny_model(folder / "tiny")
    write_task(folder / "task")
    return folder


def config(place: Path, **changes) -> SweepConfig:
    values = {
        "data": str(place / "toy"),
        "tasks": [str(place / "task")],
        "model": [str(place / "tiny")],
        "languages": "deu,eng",
        "allow_seen": True,
        "mix": [0, 0.5, 1],
        "pairs": [12],
        "batch_size": [4],
        "steps": [1],
        "seeds": [13, 14],
        "set": {"temperature": [0.1]},
    }
    return build(SweepConfig, None, values | changes)


@pytest.fixture(scope="module")
def swept(place) -> Path:
    chosen = config(place, debias="cross-fit", baselines="bm25,shift", out=place / "swept")
    return run_sweep(chosen)


def test_keys_without_debiasing_stay_and_with_it_are_others():
    plain = [cell.key for cell in plan_cells(sweep_config(), facts())]
    assert plain == [cell.key for cell in plan_cells(sweep_config(debias="none"), facts())]
    crossed = [cell.key for cell in plan_cells(sweep_config(debias="cross-fit"), facts())]
    one = [cell.key for cell in plan_cells(sweep_config(debias="news"), facts(debias="t1"))]
    other = [cell.key for cell in plan_cells(sweep_config(debias="news"), facts(debias="t2"))]
    moved = [cell.key for cell in plan_cells(sweep_config(debias="moved"), facts(debias="t1"))]
    assert one == moved, "the text counts, not its place"
    assert len({*plain, *crossed, *one, *other}) == 4 * len(plain)


def test_baselines_are_cells_beside_the_untrained_models():
    models = facts().models | {"bm25": "b"}
    known = facts(models=models, task_languages=("eng", "swh", "zul"))
    chosen = sweep_config(
        languages="eng,swh,zul", baselines="bm25,shift,lir", model="e5-small-q4,labse"
    )
    cells = [cell for cell in plan_cells(chosen, known) if cell.train is None]
    found = [(cell.axes["model"], cell.axes.get("baseline")) for cell in cells]
    assert sorted(found, key=str) == sorted(
        [
            ("bm25", "bm25"),
            *(
                (name, line)
                for name in ("e5-small-q4", "labse")
                for line in (None, "shift", "lir")
            ),
        ],
        key=str,
    )
    assert len({cell.key for cell in cells}) == len(cells)


def test_orders_are_baselines_of_the_same_mix(tmp_path):
    chosen = sweep_config(
        set="strategy=hybrid,monolingual-first,cross-lingual-first",
        pairs="100",
        out=tmp_path / "s",
    )
    cells = [cell for cell in plan_cells(chosen, facts()) if cell.train]
    found = [
        (cell.axes["mix"], cell.axes["strategy"]) for cell in cells if cell.axes["seed"] == 13
    ]
    assert sorted(found) == [
        (0.0, "hybrid"), (0.5, "cross-lingual-first"), (0.5, "hybrid"), (0.5, "monolingual-first"),
        (1.0, "hybrid"),
    ]  # fmt: skip
    folder = run_sweep(chosen, runner=synthetic.run, facts=facts())
    rivals = {row["against"] for row in find(Sweep.open(folder)).comparisons}
    assert rivals == {0.0, 1.0, "monolingual-first batches", "cross-lingual-first batches"}


def test_mimo_is_a_baseline_of_every_inner_mix(tmp_path):
    grid = sweep_config(set="temperature=0.01", pairs="100", out=tmp_path / "grid")
    mimo = sweep_config(
        set="teacher=labse; distill_from=cosines; distill_weight=0.8; temperature=0.01,0.05",
        mix="0", pairs="100", out=tmp_path / "mimo",
    )  # fmt: skip
    folders = [run_sweep(one, runner=synthetic.run, facts=facts()) for one in (grid, mimo)]
    rows = find(Sweep.open(*folders)).comparisons
    assert {row["against"] for row in rows if row["mix"] == 0.5} == {
        0.0, 1.0, "MIMO", "MIMO at temperature 0.05",
    }  # fmt: skip


def test_a_pivot_that_is_not_evaluated_is_refused_before_anything_runs():
    with pytest.raises(
        ConfigError, match="pivot = 'eng': is not among the evaluated languages"
    ):
        plan_cells(sweep_config(baselines="shift"), facts())
    with pytest.raises(ConfigError, match="pivot"):
        sweep_config(pivot="no such language")
    with pytest.raises(ConfigError, match="baselines"):
        sweep_config(baselines="magic")


def test_text_that_is_not_there_is_refused_before_anything_runs(place, tmp_path):
    with pytest.raises(HybridBatchError, match="nowhere"):
        run_sweep(config(place, debias=str(tmp_path / "nowhere"), out=tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_texts_that_judgements_connect_are_in_one_half():
    ids = [f"q{n}" for n in range(40)]
    own = {code: Texts(tuple(f"{code}-p{n // 2}" for n in range(0, 40, 2)), ("x",) * 20) for code in LANGUAGES}  # fmt: skip
    judged = {
        code: {f"q{n}": {f"{code}-p{n // 2}": 1} for n in range(40)} for code in LANGUAGES
    }
    queries = dict.fromkeys(LANGUAGES, Texts(tuple(ids), ("x",) * 40))
    task = Task(name="t", queries=queries, corpus=own, qrels=judged)
    half = cross_fitted.halves(task, 13)
    for n in range(40):
        sides = {
            half["query"][f"q{n}"],
            *(half["passage"][f"{c}-p{n // 2}"] for c in LANGUAGES),
        }
        assert len(sides) == 1, (
            "a question, its passages in all languages, their other questions"
        )
    assert sum(half["query"].values()) == 20
    chained = {"deu": {f"q{n}": {"p0": 1} for n in range(40)}}
    one = Task(name="t", queries={"deu": queries["deu"]}, corpus={"deu": Texts(("p0",), ("x",))}, qrels=chained)  # fmt: skip
    with pytest.raises(DataError, match="judgements connect all"):
        cross_fitted.halves(one, 13)


def test_a_vector_is_turned_by_the_mean_of_the_other_half():
    rng = np.random.default_rng(2)
    ids = tuple(f"q{n}" for n in range(20))
    passages = tuple(f"p{n}" for n in range(20))
    task = Task(
        name="t",
        queries={"deu": Texts(ids, ("x",) * 20)},
        corpus={"deu": Texts(passages, ("x",) * 20)},
        qrels={"deu": {f"q{n}": {f"p{n}": 1} for n in range(20)}},
    )
    vectors = rng.normal(size=(20, 6)).astype(np.float32)
    queries, found = cross_fitted.turned(
        task, {"deu": vectors}, {"deu": vectors}, {"passage": centre}, 13
    )
    np.testing.assert_array_equal(queries["deu"], vectors)
    half = cross_fitted.halves(task, 13)["passage"]
    folds = np.array([half[name] for name in passages])
    for n in range(20):
        moved = vectors[n] - vectors[folds != folds[n]].mean(axis=0)
        np.testing.assert_allclose(found["deu"][n], moved / np.linalg.norm(moved), rtol=1e-5)


def test_a_dry_run_tells_the_cost_of_baselines_too(place, tmp_path):
    told = dry_run(config(place, baselines="bm25,lir", out=tmp_path / "out"))
    assert told["total"] == 3 + 6
    assert all(row["seconds"] > 0 for row in told["cells"])


def test_a_cell_keeps_both_scores_and_is_the_same_again(place, swept):
    sweep = Sweep.open(swept)
    assert sweep.debiased == {"task": "task (debiased)"}
    cell = sweep.trained[0]
    table = pd.read_parquet(swept / "cells" / f"{cell['key']}.parquet")
    assert set(table["task"]) == {"task", "task (debiased)"}
    values = {}
    for name in ("task", "task (debiased)"):
        values[name] = sweep.matrix([cell["key"]], Measure(name, "multilingual", "mAP"))
    assert values["task"].shape == values["task (debiased)"].shape
    assert not np.allclose(values["task"], values["task (debiased)"])
    plain = run_sweep(config(place, out=place / "plain", mix=[0], seeds=[13]))
    raw = Sweep.open(plain).trained[0]
    assert raw["eval"]["tasks"] == [cell["eval"]["tasks"][0]], "raw scores do not change"
    (again,) = check_cells(swept, 1, seed=3)
    assert again.identical


def test_the_report_tells_the_gaps_and_the_lines_without_training(swept):
    sweep = Sweep.open(swept)
    findings = find(sweep)
    assert {row["setting"] for row in findings.gaps} >= {"monolingual", "cross-lingual"}
    for row in findings.gaps:
        keys = row["keys"]
        of = {}
        for name in ("task", "task (debiased)"):
            values = sweep.matrix(keys, Measure(name, row["setting"], row["metric"]))
            of[name] = values[:2].mean() - values[2:].mean()
        assert row["gap_raw"] == pytest.approx(of["task"])
        assert row["closed"] == pytest.approx(of["task"] - of["task (debiased)"])
        assert row["low"] <= row["closed"] <= row["high"]
    known = {(row["task"], row["line"]) for row in findings.lines}
    assert known == {
        ("task", "untrained"), ("task", "bm25"), ("task", "shift"), ("task (debiased)", "untrained"),
    }  # fmt: skip
    families = {row["family"] for row in findings.comparisons if "family" in row}
    assert families == {
        f"hybrid against {rival} on task{suffix}" for rival in (0.0, 1.0) for suffix in ("", " (debiased)")
    }  # fmt: skip
    told = " ".join(sentences(sweep, findings))
    assert "Without training, monolingual mAP on task is: " in told
    assert "debiasing" in told.lower()
    assert {"gaps", "lines"} <= set(findings.tables())


def test_stated_text_gives_what_debias_and_eval_give(place, tmp_path):
    from hybridbatch.scoring.debias import estimate
    from hybridbatch.scoring.debias_settings import DebiasConfig
    from hybridbatch.scoring.documents import read_evaluation
    from hybridbatch.scoring.evaluate import evaluate
    from hybridbatch.scoring.settings import EvalConfig
    from hybridbatch.scoring.summary import summary_rows

    news = tmp_path / "news"
    news.mkdir()
    for language, end in zip(LANGUAGES, ("en", "s"), strict=True):
        lines = [f"{'abcdef'[n % 6]}o{end} {n}" for n in range(30)]
        (news / f"{language}.txt").write_text("\n".join(lines))
    folder = run_sweep(
        config(place, debias=str(news), out=tmp_path / "swept", mix=[0], seeds=[13])
    )
    start = Sweep.open(folder).starts[0]
    settings = {"model": str(place / "tiny"), "cache": tmp_path / "cache"}
    vectors = estimate(
        build(DebiasConfig, None, {**settings, "text": str(news), "out": tmp_path / "vectors"})
    )
    out = evaluate(
        build(EvalConfig, None, {
            **settings, "debias": vectors, "tasks": [str(place / "task")],
            "languages": "deu,eng", "out": tmp_path / "eval", "kernels": "plain",
        })
    )  # fmt: skip
    (scored,) = summary_rows(read_evaluation(out))
    kept = start["eval"]["tasks"][1]["settings"]
    for setting in ("monolingual", "cross-lingual", "multilingual"):
        mean = np.mean([values["mAP"] for values in kept[setting].values()])
        assert mean == pytest.approx(scored[setting], abs=1e-6)


def test_sweeps_with_and_without_debiasing_are_not_one_report(place, swept, tmp_path):
    plain = run_sweep(config(place, out=tmp_path / "plain", mix=[0], seeds=[13]))
    with pytest.raises(DataError, match="--debias"):
        Sweep.open(swept, plain)


def test_a_made_up_sweep_without_debiased_scores_has_no_gaps(tmp_path):
    folder = run_sweep(sweep_config(out=tmp_path / "s"), runner=synthetic.run, facts=facts())
    findings = find(Sweep.open(folder))
    assert findings.gaps == []
    assert {row["line"] for row in findings.lines} == {"untrained"}
