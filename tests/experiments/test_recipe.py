"""Experiment E on small data: a search that goes on, a choice, and the plan's rule."""

import importlib
import json
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from hybridbatch.common.files import read_json
from tests.helpers.tiny import write_tiny_model

STUDY = Path(__file__).parents[2] / "experiments" / "study2"
SPOKEN = {"eng": "s", "por": "os"}


@pytest.fixture
def recipe(monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(str(STUDY))
    module = importlib.import_module("recipe")
    monkeypatch.setattr(module, "START", str(write_tiny_model(tmp_path / "tiny")))
    monkeypatch.setattr(module, "GRID", (module.Training(1e-3), module.Training(1e-2)))
    monkeypatch.setattr(module, "SHARES", (0.0, 0.5))
    monkeypatch.setattr(module, "LENGTHS", {"max_query_tokens": 16, "max_passage_tokens": 16})
    monkeypatch.setenv("HYBRIDBATCH_CACHE", str(tmp_path / "cache"))
    yield module
    for name in (
        "recipe",
        "crossfit",
        "measuring",
        "report_A",
        "contrasts",
        "findings",
        "answer",
        "settings_on_other_text",
    ):
        sys.modules.pop(name, None)


def write_data(folder: Path, records: int = 20) -> Path:
    """As `translate_squadshifts.py` writes it."""
    (folder / "validation").mkdir(parents=True)
    rows = []
    for number in range(records):
        for language, end in SPOKEN.items():
            rows.append({"record_id": f"r{number}", "language": language,
                         "query": f"da{end} {number} ko", "passage": f"mi{end} {number} su"})  # fmt: skip
    (folder / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    for language, end in SPOKEN.items():
        place = folder / "validation" / language
        (place / "qrels").mkdir(parents=True)
        for name, word in (("corpus", "mi"), ("queries", "da")):
            side = name[0] if name == "corpus" else "q"
            lines = [{"_id": f"{side}{n}-0", "text": f"{word}{end} {n} be"} for n in range(12)]
            (place / f"{name}.jsonl").write_text("".join(json.dumps(x) + "\n" for x in lines))
        judged = "".join(f"q{n}-0\tc{n}-0\t1\n" for n in range(12))
        (place / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\n" + judged)
    return folder


def run(module, *arguments: str) -> int | str | None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["recipe.py", *arguments])
        try:
            module.main()
        except SystemExit as end:
            return end.code
    return 0


def test_a_search_goes_on_and_chooses_the_largest_smallest_gain(recipe, tmp_path):
    data, out = write_data(tmp_path / "data"), tmp_path / "E"
    assert run(recipe, "search", str(data), "--points", "1", "--out", str(out)) == 0
    first = read_json(out / "recipe.json")
    assert (first["done"], first["planned"]) == (2, 4)
    kept = {path: path.stat().st_mtime_ns for path in out.glob("rate-*")}
    assert run(recipe, "search", str(data), "--out", str(out)) == 0
    whole = read_json(out / "recipe.json")
    assert whole["done"] == 4
    assert {path: path.stat().st_mtime_ns for path in kept} == kept, "done once"
    start = read_json(out / "untrained.json")["means"]
    for row in whole["points"]:
        ways = []
        for variant in ("raw", "collection"):
            own = row["means"]
            ways.append(min(
                own[f"{variant}/mono"] - start["raw/mono"],
                own[f"{variant}/cross"] - start["raw/cross"],
                own[f"{variant}/pool"] - start["collection/pool"],
            ))  # fmt: skip
        assert row["least"] == pytest.approx(max(ways))
    assert whole["chosen"]["least"] == max(row["least"] for row in whole["points"])
    assert whole["accepted"] is None


ARTICLE = {f"q{n}": f"a{n % 10}" for n in range(60)}


def table(gain: float, seed: int) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    index = pd.MultiIndex.from_product(
        [["eng", "por"], ARTICLE], names=["query_language", "query_id"]
    )
    columns = {}
    for variant in ("raw", "collection"):
        for setting in ("mono", "cross", "pool"):
            columns[f"{variant}/{setting}"] = 0.5 + gain + 0.01 * rng.normal(size=len(index))
    return pd.DataFrame(columns, index=index)


@pytest.mark.parametrize(
    ("gain", "official", "accepted"),
    [
        (0.05, 0.02, True),
        (0.05, -0.05, False),
        (-0.05, 0.02, False),
        (0.05, "no network", False),
    ],
)
def test_the_rule_of_the_plan(recipe, tmp_path, gain, official, accepted):
    best = {"name": "point", "used": "debiased"}
    scores = {None: {"en": 0.9, "de": 0.8}}
    for seed in recipe.SEEDS:
        scores[seed] = official
        if not isinstance(official, str):
            scores[seed] = {"en": 0.9 + official, "de": 0.8 + official + 1e-4 * (seed - 14)}
    tables = [table(gain, seed) for seed in recipe.SEEDS]
    start = table(0.0, 0)
    (tmp_path / "untrained.json").write_text(json.dumps({"means": {}}))
    recipe.judge(best, start, tables, scores, SimpleNamespace(article=ARTICLE), tmp_path)
    found = read_json(tmp_path / "acceptance.json")
    assert found["accepted"] is accepted
    assert len(found["rows"]) == 5
    mono = found["rows"][0]
    exact = np.mean([each["collection/mono"] - start["raw/mono"] for each in tables])
    assert mono["difference"] == pytest.approx(exact)
    assert mono["passed"] is (mono["low"] > -0.005)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["search", "NOWHERE"], "translate_squadshifts.py"),
        (["search", "NOWHERE", "--points", "0"], "must be at least 1"),
        (["accept", "NOWHERE"], "run `recipe.py search` first"),
    ],
)
def test_bad_input_is_one_line(recipe, tmp_path, capsys, arguments, words):
    given = [each.replace("NOWHERE", str(tmp_path / "nowhere")) for each in arguments]
    capsys.readouterr()
    assert run(recipe, *given, "--out", str(tmp_path / "E")) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert words in error
    assert error.count("\n") == 1
