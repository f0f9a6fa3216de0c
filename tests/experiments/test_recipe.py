"""Experiment E on small data: a search that goes on, a choice, and the plan's rule."""

import importlib
import json
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from hybridbatch.common.files import read_json
from tests.helpers.scripts import exit_code
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
    return exit_code(module.main, *arguments)


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
    second = read_json(out / "recipe-2.json")
    assert {row["used"] for row in second["points"]} == {"debiased in the pool"}
    raw, debiased, in_pool = ("raw", "raw"), ("collection", "collection"), ("raw", "collection")
    for found, uses in ((whole, (raw, debiased)), (second, (in_pool,))):
        for row in found["points"]:
            own = row["means"]
            ways = []
            for alone, pool in uses:
                ways.append(min(
                    own[f"{alone}/mono"] - start["raw/mono"],
                    own[f"{alone}/cross"] - start["raw/cross"],
                    own[f"{pool}/pool"] - start["collection/pool"],
                ))  # fmt: skip
            assert row["least"] == pytest.approx(max(ways))
        assert found["chosen"]["least"] == max(row["least"] for row in found["points"])
        assert found["accepted"] is None


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
    for attempt, used, name in zip(
        recipe.ATTEMPTS,
        ("debiased", "debiased in the pool"),
        ("acceptance.json", "acceptance-2.json"),
        strict=True,
    ):
        best = {"name": "point", "used": used}
        scores = {None: {"en": 0.9, "de": 0.8}}
        for seed in attempt.seeds:
            scores[seed] = official
            if not isinstance(official, str):
                scores[seed] = {"en": 0.9 + official, "de": 0.8 + official + 1e-4 * (seed - 14)}
        tables = {seed: table(gain, seed) for seed in attempt.seeds}
        start = table(0.0, 0)
        (tmp_path / "untrained.json").write_text(json.dumps({"means": {}}))
        collection = SimpleNamespace(article=ARTICLE)
        recipe.judge(attempt, best, start, tables, scores, collection, tmp_path)
        found = read_json(tmp_path / name)
        assert found["accepted"] is accepted
        assert len(found["rows"]) == (5 if used == "debiased" else 6)
        mono, _, pool = found["rows"][:3]
        own = {"debiased": "collection", "debiased in the pool": "raw"}[used]
        for row, ours, theirs in (
            (mono, f"{own}/mono", "raw/mono"),
            (pool, "collection/pool", "raw/pool"),
        ):
            exact = np.mean([each[ours] - start[theirs] for each in tables.values()])
            assert row["difference"] == pytest.approx(exact)
        assert mono["passed"] is (mono["low"] > -0.005)


def test_the_committed_acceptance_comes_back(recipe, tmp_path):
    home = STUDY / "E"
    for attempt in recipe.ATTEMPTS:
        kept = attempt.file(home, "acceptance")
        if not kept.exists():
            continue
        best = read_json(attempt.file(home, "recipe"))["chosen"]
        shutil.copy(home / "untrained.json", tmp_path)
        start, before = recipe.trial(best, None, None, None, home)
        trained = {s: recipe.trial(best, s, None, None, home) for s in attempt.seeds}
        tables = {seed: found for seed, (found, _) in trained.items()}
        official = {None: before} | {seed: found for seed, (_, found) in trained.items()}
        articles = SimpleNamespace(article=read_json(STUDY / "articles.json"))
        recipe.judge(attempt, best, start, tables, official, articles, tmp_path)
        again = read_json(attempt.file(tmp_path, "acceptance"))
        assert again["verdict"] == read_json(kept)["verdict"]
        for row, stored in zip(again["rows"], read_json(kept)["rows"], strict=True):
            assert row["low"] == pytest.approx(stored["low"], abs=1e-12)


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
