"""The report of the study's experiment A on made-up runs, and its recomputation by other code."""

import importlib
import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from hybridbatch.scaling.cells.folder import QUERIES
from hybridbatch.scaling.cells.grid import Cell
from hybridbatch.scaling.sweep import run_sweep
from tests.helpers import synthetic
from tests.helpers.scripts import run_script
from tests.helpers.synthetic import facts, sweep_config

STUDY = Path(__file__).parents[2] / "experiments" / "study2"
LANGUAGES = ("eng", "tha", "zho")
COLUMNS = [
    f"{variant}/{measure}"
    for variant in ("raw", "collection", "news")
    for measure in ("cross", "mono", "pool", "rank_distance", "same_language")
]


def write_runs(folder: Path, seeds: range, halves=(0, 1), gain: float = 0.05) -> None:
    """Runs in which a mix adds `gain` x mix to everything, with noise of run and question."""
    article = json.loads((STUDY / "articles.json").read_text())
    questions = sorted(article)[::20]
    names = sorted(set(article.values()))
    rng = np.random.default_rng(0)
    for seed in seeds:
        half_of = dict(zip(names, rng.permutation(np.arange(len(names)) % 2), strict=True))
        for half in halves:
            asked = [q for q in questions if half_of[article[q]] != half]
            for mix in (None, 0.0, 0.5, 1.0):
                rows = [(language, q) for q in asked for language in LANGUAGES]
                table = pd.DataFrame(rows, columns=["query_language", "query_id"])
                for column in COLUMNS:
                    noise = rng.normal(0, 0.02, len(table)) + rng.normal(0, 0.005)
                    table[column] = (0.5 + gain * (mix or 0) + noise).astype("float32")
                kind = "untrained" if mix is None else f"mix-{mix:g}"
                path = folder / f"seed-{seed}-half-{half}-{kind}.parquet"
                table.to_parquet(path, index=False)
                run = {"seed": seed, "trained_on": half, "mix": mix}
                path.with_suffix(".json").write_text(json.dumps({"run": run}))


def run(script: str, folder: Path) -> int | str | None:
    """Runs a script in this process; returns what it exits with: 0 or None if all went well."""
    return run_script(STUDY / script, folder)


def reported(folder: Path) -> dict:
    assert run("report_A.py", folder) == 0
    return json.loads((folder / "report.json").read_text())


@pytest.mark.parametrize(("seeds", "final"), [(range(13, 15), False), (range(13, 23), True)])
def test_the_report_is_recomputed_by_other_code_and_has_verdicts_only_in_the_end(
    tmp_path, seeds, final
):
    write_runs(tmp_path, seeds)
    report = reported(tmp_path)
    assert report["final"] is final
    assert run("recompute.py", tmp_path) == 0
    rows = [row for family in report["families"].values() for row in family]
    assert len(rows) == 4 + 4 + 4 + 4 + 2 + 9
    assert all(("verdict" in row) is final for row in rows)
    if final:
        paper = report["families"]["A1 the paper's claims, raw"]
        assert {row["verdict"] for row in paper if row["measure"] != "rank_distance"} == {
            "difference"
        }
        mono = next(row for row in paper if row["measure"] == "mono")
        assert mono["difference"] == pytest.approx(-0.025, abs=0.006)
        assert mono["degrees"] >= 9


def asked(task: str) -> dict[str, str]:
    """The ids of made-up questions as those of a task; up to three have a unit in common."""
    names = [f"T{i // 3}-{i % 3}" for i in range(synthetic.QUESTIONS)]
    if task == "belebele-sib":
        names = [f"bel-{i // 3:03}-q{i % 3}" for i in range(synthetic.QUESTIONS)]
    if task == "xquad-r":
        names = sorted(json.loads((STUDY / "articles.json").read_text()))[::20]
    return {f"q{i}": names[i] for i in range(synthetic.QUESTIONS)}


def with_debiased(cell: Cell, work: Path) -> dict:
    """A runner of all tasks of the cell, raw and debiased: debiasing halves every score."""
    result = synthetic.run(cell, work)
    (atlas,) = result["eval"]["tasks"]
    raw = pd.read_parquet(work / QUERIES)
    measures = ["mAP", "rank_distance"]
    tables, result["eval"]["tasks"] = [], []
    for name in cell.evaluation.tasks:
        for task, scale in ((name, 1), (f"{name} (debiased)", 0.5)):
            tables.append(raw.assign(task=task, query_id=raw["query_id"].map(asked(name))))
            tables[-1][measures] *= scale
            settings = {
                setting: {
                    language: {m: scale * v for m, v in means.items() if m in measures}
                    for language, means in languages.items()
                }
                for setting, languages in atlas["settings"].items()
            }
            of = {} if scale == 1 else {"of": name}
            entry = atlas | {"name": task, "settings": settings} | of
            result["eval"]["tasks"].append(entry)
    pd.concat(tables).to_parquet(work / QUERIES)
    return result


def run_experiment(folder: Path, name: str, **changes) -> None:
    """A sweep of made-up cells in the folder of an experiment."""
    tasks = "xquad-r,afriqa" if name == "B-wide" else "atlas,belebele-sib"
    values = {"languages": "swh,zul", "tasks": tasks, "pairs": "200", "mix": "0,0.5,1"}
    config = sweep_config(**values | {"out": folder / name} | changes)
    known = facts(tasks=dict.fromkeys(tasks.split(","), "t1"))
    run_sweep(config, runner=with_debiased, facts=known)


def grid_of(folder: Path) -> tuple[dict, dict[str, dict]]:
    """What `report_grid.py` says of a folder, and its families by name."""
    assert run("report_grid.py", folder) in (0, None)
    report = json.loads((folder / "grid.json").read_text())
    return report, {family["name"]: family for family in report["families"]}


@pytest.mark.parametrize(("seeds", "final"), [("13,14", False), ("13,14,15,16,17", True)])
def test_the_grid_is_reported_at_its_largest_size_and_recomputed(tmp_path, seeds, final):
    write_runs(tmp_path, range(13, 15))
    run_experiment(tmp_path, "B", seeds=seeds, pairs="100,200")
    run_experiment(tmp_path, "B-wide", seeds=seeds)
    report, families = grid_of(tmp_path)
    assert report["sizes"] == [100, 200]
    family = families["B1 hybrid against pure kinds, raw, atlas"]
    assert family["final"] is final
    assert len(family["rows"]) == 8
    assert all(("verdict" in row) is final for row in family["rows"])
    pool = next(row for row in family["rows"] if row["setting"] == "multilingual")
    assert pool["difference"] == pytest.approx(0.05, abs=0.006)
    halved = families["B2 hybrid against pure kinds, debiased, atlas"]["rows"]
    for raw, after in zip(family["rows"], halved, strict=True):
        assert after["difference"] == pytest.approx(raw["difference"] / 2)
    assert not families["B3 the same per doubling of records, raw, atlas"]["final"]
    reported(tmp_path)
    findings = (tmp_path / "FINDINGS.md").read_text()
    assert "mix 0.5, 200 records" in findings
    assert ("On real questions" in findings) is final
    assert run("recompute.py", tmp_path) == 0
    row = r"\| 0\.5 - 0 \| monolingual mAP \| "
    for page, mark in (
        ("grid.md", rf"{row}\+"),
        ("grid.md", rf"{row}[^|]*\| "),
        ("grid.md", rf"{row}[^|]*\|[^|]*\| <?\."),
        ("FINDINGS.md", r"\| untrained \| raw \| \| \."),
    ):
        text = (tmp_path / page).read_text()
        at = re.search(mark, text).end()
        changed = text[:at] + str((int(text[at]) + 1) % 10) + text[at + 1 :]
        (tmp_path / page).write_text(changed)
        assert run("recompute.py", tmp_path) == 1, page
        (tmp_path / page).write_text(text)
    if final:  # a right number in a wrong line
        page = tmp_path / "FINDINGS.md"
        line, other = (f"| {words} | atlas | pool |" for words in (
            "hybrid - monolingual", "hybrid - cross-lingual"
        ))  # fmt: skip
        assert line in findings
        page.write_text(findings.replace(line, other))
        assert run("recompute.py", tmp_path) == 1


def test_the_units_of_the_grid_are_what_questions_are_about(tmp_path):
    write_runs(tmp_path, range(13, 15))
    run_experiment(tmp_path, "B")
    run_experiment(tmp_path, "B-wide")
    _, families = grid_of(tmp_path)
    page = (tmp_path / "grid.md").read_text()
    articles = json.loads((STUDY / "articles.json").read_text())
    for task, number, unit in (
        ("atlas", 14, "territories"),
        ("belebele-sib", 14, "passages"),
        ("xquad-r", len({articles[each] for each in asked("xquad-r").values()}), "articles"),
        ("afriqa", synthetic.QUESTIONS, "questions"),
    ):
        family = f"B1 hybrid against pure kinds, raw, {task}"
        assert {(row["units"], row["unit"]) for row in families[family]["rows"]} == {
            (number, unit)
        }
        assert f"**{family}** (seeds 13, 14; units: {number} {unit})" in page


def study_module(name: str):
    """A module of the study."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(STUDY))
        return importlib.import_module(name)


def test_a_unit_counts_by_its_questions():
    unit_table = study_module("contrasts").unit_table
    differences = pd.DataFrame([[1.0, 2.0, 6.0], [0.0, 3.0, 3.0]], columns=list("abc"))
    table = unit_table(differences, {"a": "one", "b": "one", "c": "two"})
    np.testing.assert_allclose(table, [[2.0, 4.0], [2.0, 2.0]])
    np.testing.assert_allclose(table.mean(axis=1), differences.mean(axis=1))


def test_a_difference_within_the_margin_is_told_as_such():
    contrasts, wording = study_module("contrasts"), study_module("wording")
    noise = np.random.default_rng(0).normal(0, 0.001, (5, 40))
    rows = [contrasts.contrast(noise + mean, 0.01, "articles") for mean in (0.005, 0.02, 0.0)]
    rows = contrasts.settle(rows, final=True)
    assert [wording.verdict(row) for row in rows] == [
        "difference, within the margin", "difference", "equivalent",
    ]  # fmt: skip
    (row,) = contrasts.settle(
        [contrasts.contrast(noise + 0.005, 0.01, "articles")], final=False
    )
    assert wording.verdict(row) == "none yet"


@pytest.mark.parametrize(
    ("values", "kind", "told"),
    [
        ((-0.009, -0.018, -0.0002), "difference", "-0.90 points [-1.80, -0.02]"),
        ((0.0, -0.01, 0.01), "difference", "+0.0 points [-1.0, +1.0]"),
        ((0.004, 0.001, 0.007), "difference", "+0.4 points [+0.1, +0.7]"),
        ((0.0004, 0.00002, 0.00078), "trend", "+0.040 points [+0.002, +0.078]"),
    ],
)
def test_points_that_would_read_nothing_get_a_digit_more(values, kind, told):
    row = dict(zip(("difference", "low", "high"), values, strict=True)) | {"kind": kind}
    assert study_module("wording").told(row | {"metric": "mAP"}) == told


def test_trends_and_laws_over_records_are_those_of_the_made_up_curve(tmp_path):
    write_runs(tmp_path, range(13, 15))
    sizes = [100, 200, 400, 800, 1600]
    run_experiment(tmp_path, "B", pairs=",".join(map(str, sizes)))
    _, families = grid_of(tmp_path)
    curve = [1 - synthetic.error(0.5, pairs) for pairs in sizes]
    logs = np.log2(sizes)
    rises = families["F does more text help, raw, atlas"]
    assert rises["seeds"] == [13, 14]
    (row,) = (
        row for row in rises["rows"]
        if row["contrast"] == "0.5, per doubling" and row["setting"] == "monolingual"
    )  # fmt: skip
    assert row["difference"] == pytest.approx(np.polyfit(logs, curve, 1)[0], abs=0.003)
    assert row["margin"] == pytest.approx(0.01 / 4)
    (row,) = (
        row for row in families["F does a law hold at the largest size, raw, atlas"]["rows"]
        if row["contrast"] == "0.5, less its law" and row["setting"] == "monolingual"
    )  # fmt: skip
    line = np.polyval(np.polyfit(logs[:-1], curve[:-1], 1), logs[-1])
    assert row["difference"] == pytest.approx(curve[-1] - line, abs=0.01)
    gains = families["B3 the same per doubling of records, raw, atlas"]["rows"]
    assert all(abs(r["difference"]) < 0.003 for r in gains if r["metric"] == "mAP")
    reported(tmp_path)
    assert run("recompute.py", tmp_path) == 0


def test_the_experiments_beside_the_grid_have_their_families(tmp_path):
    write_runs(tmp_path, range(13, 15))
    run_experiment(tmp_path, "B")
    run_experiment(tmp_path, "B-wide")
    run_experiment(tmp_path, "B-baselines", mix="0.5", set="strategy=mixed,mtt; copies=4")
    run_experiment(tmp_path, "B-mimo", mix="0", set="temperature=0.01,0.05")
    run_experiment(tmp_path, "C-teacher", set="teacher=labse")
    run_experiment(
        tmp_path, "C-order", mix="0.5", set="strategy=monolingual-first,cross-lingual-first"
    )
    run_experiment(tmp_path, "D", pairs="200,362", model="labse")
    run_experiment(
        tmp_path, "D-fixed", pairs="200,362", model="labse", mix="0.5,1", set="temperature=0.05"
    )
    weights = [{"mkqa": 0}, {"mkqa": 0.5}, {"mkqa": 1.5}]
    run_experiment(tmp_path, "C-mkqa", mix="0,0.5", set={"source_weights": weights})
    report, families = grid_of(tmp_path)
    trained = {each["experiment"]: each["trained"] for each in report["experiments"]}
    assert trained == {
        "B": 6, "B-baselines": 4, "B-mimo": 4, "C-mkqa": 12, "C-teacher": 6, "C-order": 4, "D": 12, "D-fixed": 8,
        "B-wide": 6,
    }  # fmt: skip
    for name in (
        "B1 hybrid against pure kinds, raw, xquad-r",
        "C1 does debiasing close the gap, atlas",
        "C2 X-X and MTT against hybrid, debiased, atlas",
        "C2 their pool, debiased, belebele-sib",
        "C3 MKQA's questions, raw, atlas",
        "C4 interleaved against monolingual first, raw, atlas",
        "C4 interleaved against cross-lingual first, raw, belebele-sib",
        "C5 a teacher against none, debiased, atlas",
        "D hybrid against pure kinds from upper layers drawn anew, 200 records, raw, atlas",
    ):
        assert not families[name]["exploratory"], name
    assert families["MIMO against mix 0, raw, atlas"]["exploratory"]
    reported(tmp_path)
    assert run("recompute.py", tmp_path) == 0


@pytest.mark.slow
def test_the_committed_page_is_recomputed(capsys):
    assert run("recompute.py", STUDY / "A") == 0, capsys.readouterr().out


def test_a_seed_counts_when_both_its_halves_are_there(tmp_path):
    write_runs(tmp_path, range(13, 15))
    (tmp_path / "seed-14-half-1-mix-0.5.json").unlink()
    assert reported(tmp_path)["halves"] == [[13, 0], [13, 1]]


def test_one_half_is_reported_while_no_seed_is_whole(tmp_path):
    write_runs(tmp_path, range(13, 14), halves=(0,))
    assert reported(tmp_path)["halves"] == [[13, 0]]
    assert run("recompute.py", tmp_path) == 0


def test_nothing_is_reported_of_a_half_that_lacks_a_mix(tmp_path):
    write_runs(tmp_path, range(13, 14), halves=(0,))
    (tmp_path / "seed-13-half-0-mix-1.json").unlink()
    assert "nothing to report" in run("report_A.py", tmp_path)
    assert not (tmp_path / "report.json").exists()


def test_a_changed_number_of_the_page_is_found(tmp_path, capsys):
    write_runs(tmp_path, range(13, 15))
    reported(tmp_path)
    page = tmp_path / "FINDINGS.md"
    text = page.read_text()
    assert run("recompute.py", tmp_path) == 0
    for mark in ("| mix 0.5 | raw | ", "| hybrid keeps up with X-Y in the pool | so far: "):
        at = text.index(mark) + len(mark)
        digit = next(n for n in range(at, at + 40) if text[n].isdigit() and text[n] != "9")
        page.write_text(text[:digit] + str(int(text[digit]) + 1) + text[digit + 1 :])
        capsys.readouterr()
        assert run("recompute.py", tmp_path) == 1, mark
        assert "is not what the runs give" in capsys.readouterr().out


def test_a_changed_figure_is_found(tmp_path):
    write_runs(tmp_path, range(13, 15))
    report = reported(tmp_path)
    report["families"]["A1 the paper's claims, raw"][0]["p"] *= 1.01
    (tmp_path / "report.json").write_text(json.dumps(report))
    assert run("recompute.py", tmp_path) == 1
