"""Comparison of evaluations: questions are the unit, p values are corrected, unlike data is
refused.
"""

import json
import os
from pathlib import Path

import numpy as np
import pytest

from hybridbatch.common.errors import ConfigError, DataError
from hybridbatch.common.files import read_json, write_json
from hybridbatch.scoring.averages import POOL
from hybridbatch.scoring.compare import compare, markdown, write
from hybridbatch.scoring.per_query import FILE, QueryScores, writing

LANGUAGES = ("eng", "swh")
QUESTIONS = 60
BASE = np.random.default_rng(0).uniform(0.2, 0.6, QUESTIONS)


def write_run(
    folder: Path,
    gains: dict[str, float],
    *,
    fingerprint: str = "f",
    task: str = "toy",
    order=LANGUAGES,
) -> Path:
    """An evaluation whose pairs score `BASE` plus the gain of their setting plus noise of the
    question.
    """
    noise = np.random.default_rng(len(folder.name)).normal(0, 0.02, QUESTIONS)
    ids = tuple(f"q{i}" for i in range(QUESTIONS))
    folder.mkdir()
    with writing(folder / FILE, ("average_precision", "rank_distance")) as writer:
        for query in order:
            for corpus in (*order, POOL):
                setting = (
                    "multilingual"
                    if corpus == POOL
                    else "monolingual"
                    if query == corpus
                    else "cross-lingual"
                )
                metrics = {"average_precision": BASE + gains.get(setting, 0.0) + noise}
                if corpus == POOL:
                    metrics["rank_distance"] = 100 * (1 - metrics["average_precision"])
                writer.add(task, QueryScores(query, corpus, ids, metrics))
    write_json(
        folder / "eval.json",
        {
            "schema_version": 1,
            "kind": "eval",
            "model": {"name": folder.name},
            "tasks": [{"name": task, "provenance": {"fingerprint": fingerprint}}],
        },
    )
    return folder


@pytest.fixture
def runs(tmp_path: Path) -> list[Path]:
    return [
        write_run(tmp_path / "hybrid", {"multilingual": 0.1}),
        write_run(tmp_path / "mono", {}),
    ]


def test_a_real_difference_is_found_where_it_is_and_only_there(runs):
    result = compare(runs, draws=2000)
    rows = {row["setting"]: row for row in result["rows"]}
    assert set(rows) == {"monolingual", "cross-lingual", "multilingual"}
    assert rows["multilingual"]["p_holm"] < 0.01
    assert rows["multilingual"]["low"] < 0.1 < rows["multilingual"]["high"]
    assert rows["monolingual"]["p_holm"] > 0.05
    assert {row["questions"] for row in result["rows"]} == {QUESTIONS}
    assert rows["cross-lingual"]["values"] == 2 * QUESTIONS
    sentences = dict(
        zip((row["setting"] for row in result["rows"]), result["verdicts"], strict=True)
    )
    assert sentences["multilingual"].startswith("hybrid beats mono on toy (multilingual)")
    assert sentences["monolingual"].startswith("there is no significant difference")


def test_a_folder_whose_name_is_not_utf_8_is_compared(runs):
    odd = runs[0].with_name(os.fsdecode(b"ev\xff"))
    try:
        runs[0].rename(odd)
    except OSError:
        pytest.skip("this file system takes UTF-8 only")
    assert compare([odd, runs[1]], draws=100)["rows"]


def test_the_unit_is_the_question_not_the_language_pair(tmp_path):
    """The same values in a second language must not make a difference more certain."""
    intervals = []
    for order in (("eng",), LANGUAGES):
        names = [f"{name}{len(order)}" for name in ("hybrid", "mono")]
        pair = [
            write_run(tmp_path / name, gains, order=order)
            for name, gains in zip(names, ({}, {}), strict=True)
        ]
        row = next(
            row for row in compare(pair, draws=2000)["rows"] if row["setting"] == "monolingual"
        )
        assert (row["questions"], row["values"]) == (QUESTIONS, len(order) * QUESTIONS)
        intervals.append(row["high"] - row["low"])
    assert intervals[0] > 0
    assert intervals[1] == pytest.approx(intervals[0])


def test_lower_is_better_for_rank_distance(runs):
    result = compare(runs, "rank_distance", draws=2000)
    assert [row["setting"] for row in result["rows"]] == ["multilingual"]
    assert result["verdicts"][0].startswith("hybrid beats mono on toy (multilingual) by 10.")


def test_three_runs_are_compared_in_pairs_and_corrected_together(runs, tmp_path):
    third = write_run(tmp_path / "cross", {"cross-lingual": 0.003})
    result = compare([*runs, third], draws=500)
    assert [(row["run_a"], row["run_b"]) for row in result["rows"]][::3] == [
        ("hybrid", "mono"),
        ("hybrid", "cross"),
        ("mono", "cross"),
    ]
    p = np.array([row["p"] for row in result["rows"]])
    corrected = np.array([row["p_holm"] for row in result["rows"]])
    assert corrected[p.argmin()] == pytest.approx(min(1, 9 * p.min()))
    assert (corrected >= p).all()


def test_the_same_seed_gives_the_same_numbers_and_the_order_of_languages_does_not_matter(
    runs, tmp_path
):
    other = write_run(tmp_path / "mon2", {}, order=LANGUAGES[::-1])
    mine, again = (compare([runs[0], run], draws=500)["rows"] for run in (runs[1], other))
    for row, twin in zip(
        sorted(mine, key=lambda r: r["setting"]),
        sorted(again, key=lambda r: r["setting"]),
        strict=True,
    ):
        assert row["mean_b"] == pytest.approx(twin["mean_b"])
        assert row["difference"] == pytest.approx(twin["difference"])
    assert compare(runs, draws=500) == compare(runs, draws=500)


def test_the_result_is_written_as_json_and_markdown(runs, tmp_path):
    result = compare(runs, draws=500)
    write(result, tmp_path / "c.json")
    assert read_json(tmp_path / "c.json") == json.loads(json.dumps(result))
    write(result, tmp_path / "c.md")
    text = (tmp_path / "c.md").read_text()
    assert text == markdown(result)
    assert all(sentence in text for sentence in result["summaries"])
    assert sum(line.startswith("| toy") for line in text.splitlines()) == 3


def test_what_cannot_be_compared_is_refused(runs, tmp_path):
    with pytest.raises(ConfigError, match="two"):
        compare(runs[:1])
    with pytest.raises(DataError, match="fingerprints f and g"):
        compare([runs[0], write_run(tmp_path / "b", {}, fingerprint="g")])
    with pytest.raises(DataError, match="share no task"):
        compare([runs[0], write_run(tmp_path / "c", {}, task="tax")])
    with pytest.raises(DataError, match=r"eval\.json"):
        compare([runs[0], tmp_path / "absent"])
    with pytest.raises(DataError, match="has no metric 'ndcg@10'"):
        compare(runs, "ndcg@10")
    write_json(runs[1] / "eval.json", {"kind": "train"})
    with pytest.raises(DataError, match="not the JSON of an evaluation"):
        compare(runs)
    write_json(runs[1] / "eval.json", {"kind": "eval", "schema_version": 7, "tasks": []})
    with pytest.raises(DataError, match="schema version 7"):
        compare(runs)
