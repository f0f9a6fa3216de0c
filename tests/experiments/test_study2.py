"""The report of the study's experiment A on made-up runs, and its recomputation by other code."""

import json
import runpy
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from hybridbatch.scaling.cells.folder import QUERIES
from hybridbatch.scaling.cells.grid import Cell
from hybridbatch.scaling.sweep import run_sweep
from tests.helpers import synthetic
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
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", [script, str(folder)])
        patch.syspath_prepend(str(STUDY))
        try:
            runpy.run_path(str(STUDY / script), run_name="__main__")
        except SystemExit as end:
            return end.code
    return 0


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


def with_debiased(cell: Cell, work: Path) -> dict:
    """A runner of both tasks, raw and debiased: debiasing halves every score."""
    result = synthetic.run(cell, work)
    (atlas,) = result["eval"]["tasks"]
    raw = pd.read_parquet(work / QUERIES)
    measures = ["mAP", "rank_distance"]
    tables, result["eval"]["tasks"] = [], []
    for name in ("atlas", "belebele-sib"):
        for task, scale in ((name, 1), (f"{name} (debiased)", 0.5)):
            tables.append(raw.assign(task=task))
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


@pytest.mark.parametrize(("seeds", "final"), [("13,14", False), ("13,14,15,16,17", True)])
def test_the_grid_is_reported_at_its_largest_size_and_recomputed(tmp_path, seeds, final):
    write_runs(tmp_path, range(13, 15))
    tasks = {"atlas": "t1", "belebele-sib": "t2"}
    config = sweep_config(
        languages="swh,zul", tasks="atlas,belebele-sib", seeds=seeds, out=tmp_path / "B"
    )
    run_sweep(config, runner=with_debiased, facts=facts(tasks=tasks))
    assert run("report_B.py", tmp_path / "B") in (0, None)
    report = json.loads((tmp_path / "B" / "report.json").read_text())
    assert (report["largest"], report["final"]) == (200, final)
    assert len(report["families"]) == 6
    rows = report["families"]["B1 hybrid against pure kinds, raw, atlas"]
    assert len(rows) == 8
    assert all(("verdict" in row) is final for row in rows)
    pool = next(row for row in rows if row["setting"] == "multilingual")
    assert pool["difference"] == pytest.approx(0.05, abs=0.006)
    halved = report["families"]["B2 the same, debiased, atlas"]
    for raw, after in zip(rows, halved, strict=True):
        if raw["metric"] == "mAP":
            assert after["difference"] == pytest.approx(raw["difference"] / 2)
    reported(tmp_path)
    page = tmp_path / "FINDINGS.md"
    assert "With 200 records, the largest size" in page.read_text()
    assert run("recompute.py", tmp_path) == 0
    text = page.read_text()
    at = text.index("| 0.5 - 0 | monolingual mAP | +") + len("| 0.5 - 0 | monolingual mAP | +")
    page.write_text(text[:at] + str((int(text[at]) + 1) % 10) + text[at + 1 :])
    assert run("recompute.py", tmp_path) == 1


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
    for mark in ("| mix 0.5 | raw | ", "Against monolingual batches within a language "):
        at = text.index(mark) + len(mark)
        digit = next(n for n in range(at, at + 9) if text[n].isdigit() and text[n] != "9")
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
