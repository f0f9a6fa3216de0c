"""A report says what the data say, links every number to its cell, and needs no network."""

import base64
import csv
import gzip
import html
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from hybridbatch.common.errors import DataError
from hybridbatch.common.records import Task, Texts
from hybridbatch.scaling.analysis import Measure, Sweep, groups_of
from hybridbatch.scaling.entropy import task_entropies
from hybridbatch.scaling.findings import find
from hybridbatch.scaling.report.report import report, rerun
from hybridbatch.scaling.report.sentences import sentences
from hybridbatch.scaling.sweep import run_sweep
from tests.helpers import synthetic


def make(out, runner=synthetic.run, **changes):
    return run_sweep(
        synthetic.sweep_config(out=out, **changes), runner=runner, facts=synthetic.facts()
    )


@pytest.fixture(scope="module", autouse=True)
def _few_resamples():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("hybridbatch.scaling.findings.LAW_RESAMPLES", 40)
        yield


@pytest.fixture(scope="module")
def swept(tmp_path_factory):
    return make(tmp_path_factory.mktemp("swept") / "sweep", pairs="100,200,400,800,1600")


@pytest.fixture(scope="module")
def findings(swept):
    return find(Sweep.open(swept))


@pytest.fixture(scope="module")
def reported(swept):
    return report(swept).parent


def test_the_frame_holds_every_value_of_every_cell(swept):
    frame = Sweep.open(swept).frame()
    for key, part in frame.groupby("key"):
        cell = json.loads((swept / "cells" / f"{key}.json").read_text())
        settings = cell["eval"]["tasks"][0]["settings"]
        values = [
            v
            for languages in settings.values()
            for metrics in languages.values()
            for v in metrics.values()
        ]
        assert sorted(part["value"]) == sorted(values)


def test_responses_are_the_cells_by_mix_size_seed_and_question(swept):
    sweep = Sweep.open(swept)
    (part,) = sweep.responses(Measure("atlas", "cross-lingual", "mAP"))
    assert part.values.shape == (3, 5, 2, synthetic.QUESTIONS)
    for point in np.ndindex(part.keys.shape):
        cell = json.loads((swept / "cells" / f"{part.keys[point]}.json").read_text())
        by_language = cell["eval"]["tasks"][0]["settings"]["cross-lingual"].values()
        assert part.values[point].mean() == pytest.approx(
            np.mean([metrics["mAP"] for metrics in by_language])
        )
        axes = cell["axes"]
        assert (axes["mix"], axes["pairs"], axes["seed"]) == tuple(
            values[i]
            for values, i in zip((part.mixes, part.sizes, part.seeds), point, strict=True)
        )


def test_questions_are_those_of_the_columns_of_the_matrix(swept):
    sweep = Sweep.open(swept)
    measure = Measure("atlas", "cross-lingual", "mAP")
    keys = [cell["key"] for cell in sweep.trained[:2]]
    names, values = sweep.by_question(keys, measure)
    np.testing.assert_array_equal(values, sweep.matrix(keys, measure))
    for key, row in zip(keys, values, strict=True):
        table = pd.read_parquet(swept / "cells" / f"{key}.parquet")
        chosen = table[table["setting"] == "cross-lingual"]
        means = chosen.groupby("query_id")["mAP"].mean()
        np.testing.assert_allclose(row, means[list(names)])


def test_a_sweep_without_its_parquet_files_has_one_question_without_an_id(tmp_path):
    path = make(tmp_path / "s")
    for table in (path / "cells").glob("*.parquet"):
        table.unlink()
    sweep = Sweep.open(path)
    keys, measure = [sweep.cells[0]["key"]], Measure("atlas", "cross-lingual", "mAP")
    assert sweep.by_question(keys, measure)[0] == ("",)
    assert sweep.matrix(keys, measure).shape == (1, 1)


def test_means_hold_the_truth_of_the_simulation(findings):
    rows = [
        row
        for row in findings.means
        if row["metric"] == "mAP" and row["setting"] == "monolingual"
    ]
    held = [
        row["low"] <= 1 - synthetic.error(row["mix"], row["pairs"]) <= row["high"]
        for row in rows
    ]
    assert np.mean(held) > 0.9


def test_the_better_strategy_is_found_and_no_other(tmp_path):
    swept = make(tmp_path / "s", pairs="100,1600", seeds="1,2,3,4,5")
    main = main_rows(find(Sweep.open(swept)))
    assert {row["verdict"] for row in main if row["mix"] == 0.5} == {"better"}
    assert all(row["p_holm"] >= row["p"] for row in main)
    assert {row["pairs"] for row in main} == {1600}


def test_equal_strategies_are_not_told_apart(tmp_path):
    def flat(cell, work):
        same = cell.train and cell.train.model_copy(update={"mix": 0.5})
        return synthetic.run(type(cell)(cell.axes, same, cell.evaluation, cell.key), work)

    sweep = Sweep.open(make(tmp_path / "s", flat, seeds="1,2,3,4"))
    found = find(sweep)
    verdicts = {row["verdict"] for row in found.comparisons if "verdict" in row}
    assert verdicts <= {"equivalent within the margin", "undecided"}
    tally = (
        "At mix 0.5 with 200 training records, hybrid batches are better than {} in 0 of 4 tests,"
        " worse in 0, equivalent within the margin in"
    )
    for told, rival in zip(
        sentences(sweep, found), ("cross-lingual batches", "monolingual batches"), strict=False
    ):
        assert told.startswith(tally.format(rival))


def test_optimum_and_laws_are_those_of_the_simulation(findings):
    for row in findings.optima:
        if row["metric"] == "mAP" and row["pairs"] == "all":
            assert row["best_mix"] == pytest.approx(synthetic.BEST_MIX, abs=0.05)
            assert row["gain_low"] > 0
    laws = [
        row
        for row in findings.laws
        if row["setting"] == "monolingual" and row["mix"] == 0.5 and row["of"] == "1 - mAP"
    ]
    for row in laws:
        assert row["b_low"] <= synthetic.B <= row["b_high"]
        assert row["E_low"] <= synthetic.E <= row["E_high"]
        assert row["extrapolation_error"] < 0.1


def test_too_few_sizes_are_refused_in_the_report(tmp_path):
    sweep = Sweep.open(make(tmp_path / "s"))
    found = find(sweep)
    assert all("refused" in row for row in found.laws)
    assert any("not fitted to 2 sizes" in text for text in sentences(sweep, found))


def test_missing_cells_cost_no_more_than_they_must_and_are_named(tmp_path):
    def some_fail(cell, work):
        if (
            cell.train
            and cell.train.mix == 0.5
            and cell.train.max_records == 100
            and cell.train.seed == 14
        ):
            raise RuntimeError("lost")
        return synthetic.run(cell, work)

    sweep = Sweep.open(make(tmp_path / "s", some_fail, pairs="100,200,400"))
    (part,) = sweep.responses(Measure("atlas", "monolingual", "mAP"))
    assert (part.sizes, part.seeds) == ((200, 400), (13, 14))
    assert any(
        text.startswith(
            "The number of cells without a result is 1; the sweep set 1 of them aside"
        )
        for text in sentences(sweep, find(sweep))
    )


def test_other_axes_make_parts_of_their_own(tmp_path):
    sweep = Sweep.open(make(tmp_path / "s", train_languages="2,3", seeds="1"))
    assert [part.fixed for part in sweep.responses(Measure("atlas", "monolingual", "mAP"))] == [
        {"train_languages": 2}, {"train_languages": 3}
    ]  # fmt: skip


def test_sets_of_training_languages_are_a_scale_if_they_are_nested(tmp_path):
    nested = Sweep.open(
        make(tmp_path / "a", train_languages="eng,deu;eng,deu,fin", seeds="1", pairs="100")
    )
    assert nested.scales == ("train_languages",)
    (part,) = nested.responses(Measure("atlas", "monolingual", "mAP"), "train_languages")
    assert part.sizes == (2, 3)
    assert (
        Sweep.open(
            make(tmp_path / "b", train_languages="eng,deu;eng,fin", seeds="1", pairs="100")
        ).scales
        == ()
    )


@pytest.fixture(scope="module")
def star(tmp_path_factory):
    """Arms around a centre, swept one after the other into one folder; the last one with a strategy
    that knows no mix.
    """
    folder = tmp_path_factory.mktemp("star") / "sweep"
    for arm in ({"pairs": "100,200"}, {"mix": "0,0.25,0.5,0.75,1", "pairs": "200"}, {"batch_size": "8", "pairs": "200"},
                {"set": "strategy=mixed", "mix": "0.5", "pairs": "200"}):  # fmt: skip
        make(folder, **arm)
    sweep = Sweep.open(folder)
    return sweep, find(sweep)


def test_a_grid_in_the_form_of_a_star_is_reported_whole(star):
    sweep, found = star
    assert len(sweep.trained) == 12 + 4 + 6 + 2
    assert found.centre == {"batch_size": 4, "strategy": "hybrid"}
    shown = [(row["batch_size"], row["strategy"], row["mix"], row["pairs"]) for row in found.means
             if (row["setting"], row["metric"], row["group"]) == ("monolingual", "mAP", "all")]  # fmt: skip
    hybrid = [(4, "hybrid", mix, 200) for mix in (0.0, 0.25, 0.5, 0.75, 1.0)]
    expected = [*hybrid, *((4, "hybrid", mix, 100) for mix in (0.0, 0.5, 1.0)),
                *((8, "hybrid", mix, 200) for mix in (0.0, 0.5, 1.0)), (4, "mixed", None, 200)]  # fmt: skip
    assert sorted(map(str, shown)) == sorted(map(str, expected))
    assert any(row["over"] == "batch_size" for row in found.interactions)


def test_hybrid_batches_are_compared_with_a_strategy_that_knows_no_mix(star):
    sweep, found = star
    rows = [
        row
        for row in found.comparisons
        if row["against"] == "mixed batches" and row["group"] == "all"
    ]
    assert {(row["mix"], row["pairs"], row["batch_size"]) for row in rows} == {
        (m, 200, 4) for m in (0.25, 0.5, 0.75)
    }
    cells = {cell["key"]: cell["axes"] for cell in sweep.trained}
    for row in rows:
        assert {cells[key]["strategy"] for key in row["keys"]} == {"hybrid", "mixed"}
        assert row["difference"] == pytest.approx(row["mean"] - row["mean_against"])


def test_hybrid_batches_are_compared_with_translate_train_and_with_a_teacher(tmp_path):
    folder = tmp_path / "sweep"
    for arm in ("strategy=hybrid", "strategy=mtt; copies=4", "teacher=e5-small-q4"):
        make(folder, set=arm, pairs="100", seeds="13")
    found = find(Sweep.open(folder))
    shown = {
        (row["mix"], row["against"], row["teacher"])
        for row in found.comparisons
        if row["group"] == "all" and isinstance(row["against"], str)
    }
    assert shown == {(0.5, "mtt batches, copies 4", None), (0.5, "teacher e5-small-q4", None)}


def test_several_folders_are_reported_as_one_and_other_targets_are_refused(tmp_path):
    one = make(tmp_path / "one", pairs="100", seeds="13")
    two = make(tmp_path / "two", pairs="100,200", seeds="13")
    both = Sweep.open(one, two)
    assert len(both.trained) == 6
    assert {both.homes[cell["key"]].path for cell in both.trained} == {one, two}
    page = report(one, two)
    packed = re.search(r'id="data">(.*?)</script>', page.read_text()).group(1)
    links = json.loads(gzip.decompress(base64.b64decode(packed)))["links"]
    assert all((page.parent / target).resolve().is_file() for target in links.values())
    other = make(tmp_path / "other", languages="zul")
    with pytest.raises(DataError, match="has other languages, tasks or language vectors"):
        Sweep.open(one, other)


def test_targets_are_grouped_by_whether_training_saw_them(tmp_path):
    sweep = Sweep.open(
        make(
            tmp_path / "s", allow_seen=True, train_languages="eng,deu;eng,deu,swh", pairs="100"
        )
    )
    assert sweep.groups_of("swh")[-1] == "partly seen"
    assert sweep.groups_of("zul")[-1] == "unseen in training"
    assert sweep.groups_of("eng")[-1] == "seen in training"


def test_gains_of_few_languages_are_not_regressed(findings):
    assert findings.traits
    assert all("refused" in row and "slope" not in row for row in findings.traits)


def test_the_interaction_with_scale_is_not_found_where_there_is_none(findings):
    assert {row["of"] for row in findings.interactions} == {"best mix", "difference"}
    assert not any(row["settled"] for row in findings.interactions if "settled" in row)


@pytest.mark.slow
def test_a_law_over_two_axes_is_fitted_where_both_have_five_sizes(tmp_path):
    sweep = make(
        tmp_path / "s", mix="1", seeds="1", pairs="100,200,400,800,1600", steps="2,4,8,16,32"
    )
    rows = [row for row in find(Sweep.open(sweep)).laws if row["over"] == "pairs and steps"]
    assert rows
    assert all(row["b_1_low"] <= synthetic.B <= row["b_1_high"] for row in rows)


def test_a_sweep_copied_without_its_questions_is_reported_without_tests(tmp_path):
    folder = make(tmp_path / "s")
    for path in (folder / "cells").glob("*.parquet"):
        path.unlink()
    sweep = Sweep.open(folder)
    found = find(sweep)
    assert all(row["p"] is None for row in found.comparisons)
    assert any("not tested" in text for text in sentences(sweep, found))


def test_a_sweep_without_results_is_one_line(tmp_path):
    folder = make(tmp_path / "s")
    for path in (folder / "cells").iterdir():
        path.unlink()
    with pytest.raises(DataError, match="no trained cell is finished"):
        report(folder)
    with pytest.raises(DataError, match="not the folder of a sweep"):
        report(tmp_path)


class Links(HTMLParser):
    def __init__(self):
        super().__init__()
        self.targets = []
        self.open = []
        self.data = ""

    def handle_starttag(self, tag, attributes):
        self.targets += [
            value for name, value in attributes if name in ("href", "src") and tag != "use"
        ]
        if tag not in ("meta", "input", "br", "img"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open[-1:] == ["script"] and not self.data:
            self.data = data


def test_the_page_links_to_cells_only_and_loads_nothing(reported):
    text = (reported / "index.html").read_text()
    page = Links()
    page.feed(text)
    assert page.open == []
    assert page.targets
    data = json.loads(gzip.decompress(base64.b64decode(page.data)))
    linked = [
        *(target for target in page.targets if not target.startswith("#")),
        *data["links"].values(),
    ]
    assert all((reported / target).resolve().is_file() for target in linked)
    assert not re.search(r"(src|href)\s*=\s*[\"']?https?:|@import|url\(\s*['\"]?http", text)


def test_the_page_says_what_the_sentences_say(reported, swept, findings):
    text = html.unescape((reported / "index.html").read_text())
    assert all(sentence in text for sentence in sentences(Sweep.open(swept), findings))


def test_figures_and_tables_are_files_of_their_own(reported, findings):
    names = {path.stem for path in (reported / "figures").iterdir()}
    assert {
        "atlas-mix-mAP",
        "atlas-pairs-mAP",
        "atlas-mix-rank_distance",
        "atlas-languages",
    } <= names
    assert all(
        (reported / "figures" / f"{name}.{kind}").stat().st_size
        for name in names
        for kind in ("svg", "png")
    )
    rows = list(csv.DictReader((reported / "tables" / "means.csv").open()))
    assert len(rows) == len(findings.means)
    tex = (reported / "tables" / "main.tex").read_text()
    best = next(
        r
        for r in findings.means
        if (r["mix"], r["pairs"], r["setting"], r["metric"])
        == (0.5, 1600, "monolingual", "mAP")
    )
    assert f"${100 * best['mean']:.1f} \\pm" in tex


def test_the_same_sweep_gives_the_same_report(reported, swept):
    before = {
        path.relative_to(reported): path.read_bytes()
        for path in reported.rglob("*")
        if path.is_file()
    }
    report(swept)
    assert before == {
        path.relative_to(reported): path.read_bytes()
        for path in reported.rglob("*")
        if path.is_file()
    }


def test_the_command_to_run_it_again_gives_the_same_settings():
    import shlex

    from hybridbatch.common.settings import build
    from hybridbatch.scaling.settings import SweepConfig

    config = synthetic.sweep_config(
        train_languages="ar,zh;4", set="margin=0.1,0.2; dropout=0.1", pairs="10,all", name="x"
    )
    words = shlex.split(rerun([config.as_json()])[0])[2:]
    again = dict(
        zip([word[2:].replace("-", "_") for word in words[::2]], words[1::2], strict=True)
    )
    assert build(SweepConfig, None, again).as_json() == config.as_json()


def test_groups_of_languages():
    assert groups_of("swh") == ("all", "low-resource", "script:Latn", "pretrained:xlm-r")


def test_contrastive_entropy_of_a_task_is_that_of_each_query_alone():
    rng = np.random.default_rng(0)

    def unit(n):
        vectors = rng.normal(size=(n, 8)).astype(np.float32)
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)

    ids, asked = tuple(f"p{i}" for i in range(12)), ("q0", "q1", "q2")
    qrels = {"q0": {"p3": 1}, "q1": {"p5": 1, "p6": 1, "p7": 0}}  # q2 is not judged
    texts = {code: Texts(ids, ids) for code in ("swh", "yor")}
    task = Task(
        "t", {code: Texts(asked, asked) for code in texts}, texts, dict.fromkeys(texts, qrels)
    )
    queries, passages = ({code: unit(n) for code in texts} for n in (3, 12))
    found = {
        (e.setting, e.query_language): e
        for e in task_entropies(task, queries, passages, temperature=0.1, seed=1)
    }
    assert set(found) == {(s, c) for s in synthetic.SETTINGS for c in texts}

    def alone(query, relevant, corpus):
        scores = np.exp(corpus @ query / 0.1)
        wrong = np.delete(scores, relevant).sum()
        return np.mean([-np.log(scores[i] / (scores[i] + wrong)) for i in relevant])

    both = np.concatenate([passages["swh"], passages["yor"]])
    for row, relevant in enumerate([[3], [5, 6]]):
        query = queries["swh"][row]
        expected = {
            "monolingual": alone(query, relevant, passages["swh"]),
            "cross-lingual": alone(query, relevant, passages["yor"]),
            "multilingual": alone(query, [*relevant, *(12 + i for i in relevant)], both),
        }
        for setting, value in expected.items():
            entropies = found[setting, "swh"]
            assert entropies.query_ids == ("q0", "q1")
            np.testing.assert_allclose(entropies.values[row], value, rtol=1e-5)


def main_rows(findings):
    return [row for row in findings.comparisons if "verdict" in row]


def test_every_test_states_its_degrees_of_freedom_and_its_family(findings):
    for row in main_rows(findings):
        assert row["degrees"] >= row["seeds"] - 1
        assert row["family"] == f"hybrid against {row['against']} on {row['task']}"
        assert row["detectable"] > 0
    for family in {row["family"] for row in main_rows(findings)}:
        members = [row for row in main_rows(findings) if row["family"] == family]
        assert {row["family_size"] for row in members} == {len(members)}


def test_families_are_corrected_apart(findings):
    """A further rival is another question: it does not cost this one its significance."""
    for row in main_rows(findings):
        members = [r["p"] for r in main_rows(findings) if r["family"] == row["family"]]
        assert row["p_holm"] <= min(1.0, row["p"] * len(members)) + 1e-12


def test_a_difference_and_its_interval_say_the_same_before_correction(findings):
    for row in findings.comparisons:
        if row["p"] is not None:
            assert (row["p"] < 0.05) == (not row["low"] <= 0 <= row["high"])


def test_the_margin_is_the_sweeps_own_and_equivalence_needs_it(tmp_path):
    def flat(cell, work):
        same = cell.train and cell.train.model_copy(update={"mix": 0.5})
        return synthetic.run(type(cell)(cell.axes, same, cell.evaluation, cell.key), work)

    wide = find(Sweep.open(make(tmp_path / "wide", flat, seeds="1,2,3,4,5,6", margin="0.1")))
    narrow = find(
        Sweep.open(make(tmp_path / "narrow", flat, seeds="1,2,3,4,5,6", margin="0.00001"))
    )
    of_map = [row for row in main_rows(wide) if row["metric"] == "mAP"]
    assert {row["verdict"] for row in of_map} == {"equivalent within the margin"}
    assert {row["margin"] for row in of_map} == {0.1}
    assert "equivalent within the margin" not in {
        row["verdict"] for row in main_rows(narrow) if row["metric"] == "mAP"
    }
    told = " ".join(sentences(Sweep.open(tmp_path / "narrow"), narrow))
    assert "would have been found with a chance of 80 %" in told
    told = " ".join(sentences(Sweep.open(tmp_path / "wide"), wide))
    assert "The difference is smaller than 10.0 points" in told


def test_languages_are_the_units_of_a_second_interval(findings, swept):
    sweep = Sweep.open(swept)
    row = next(row for row in main_rows(findings) if row["setting"] == "cross-lingual")
    half = len(row["keys"]) // 2
    _, means = sweep.by_language(row["keys"], row["task"], row["setting"], row["metric"])
    by_language = means[:half].mean(axis=0) - means[half:].mean(axis=0)
    assert row["languages"] == len(by_language) == 2
    assert row["languages_low"] <= by_language.mean() <= row["languages_high"]


@pytest.mark.parametrize("name", ["grid", "wide"])
def test_the_pages_of_the_study_are_under_a_megabyte(name):
    page = Path(__file__).parents[2] / "experiments" / "study" / name / "report" / "index.html"
    if not page.is_file():
        pytest.skip("the study is not in this distribution")
    assert page.stat().st_size < 1_000_000
    assert 'type="application/gzip"' in page.read_text(encoding="utf-8")
