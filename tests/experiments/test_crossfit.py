"""A stranger runs experiment A from the public homes of its data: here small files in their layout."""

import json
from pathlib import Path

import pandas as pd
import pytest

from hybridbatch.common.files import read_json
from hybridbatch.data.homes import aligned, home
from hybridbatch.data.homes.registry import HOMES
from hybridbatch.data.tasks import catalogue, lareqa
from tests.helpers.scripts import run_script
from tests.helpers.tiny import write_tiny_model

STUDY = Path(__file__).parents[2] / "experiments" / "study2"
ARTICLES, PARAGRAPHS = 4, 5
CODES = ("ar", "de", "en")
NEWS = ("arb", "deu", "eng")


def squad(code: str) -> str:
    """A file of XQuAD-R: SQuAD with sentence breaks; two questions for each paragraph."""
    articles = []
    for article in range(ARTICLES):
        paragraphs = []
        for number in range(PARAGRAPHS):
            name = f"{article}{number}"
            sentences = [f"da {code} {name} be.", f"ko {code} {name} mi.", f"su {code} {name}."]
            text, breaks = "", []
            for sentence in sentences:
                breaks.append([len(text), len(text) + len(sentence)])
                text += sentence + " "
            qas = [
                {"id": f"q{name}{which}", "question": f"{word} {code} {name}?",
                 "answers": [{"answer_start": breaks[which][0]}]}
                for which, word in enumerate(("da", "ko"))
            ]  # fmt: skip
            paragraphs.append({"context": text, "sentence_breaks": breaks, "qas": qas})
        articles.append({"title": f"t{article}", "paragraphs": paragraphs})
    return json.dumps({"data": articles})


@pytest.fixture
def homes(tmp_path, monkeypatch):
    """The public homes, answered by small files in their layout."""
    asked = []

    def lareqa_file(address, digest, path):
        asked.append(address)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(squad(path.stem))
        return path

    def news_file(address):
        asked.append(address)
        path = tmp_path / "web" / address.rpartition("/")[2]
        path.parent.mkdir(exist_ok=True)
        lines = [f"line {n} of {path.stem.rpartition('.')[2]}" for n in range(140)]
        if path.name == "DOCUMENT_IDS.tsv":
            lines = [f"bbc.{n // 2}" for n in range(140)]
        path.write_text("\n".join(lines) + "\n")
        return path

    for code in [code for code in lareqa.XQUAD_R.sha256 if code not in CODES]:
        monkeypatch.delitem(lareqa.XQUAD_R.sha256, code)
    monkeypatch.setattr(lareqa, "web_file", lareqa_file)
    monkeypatch.setattr(home, "web_file", news_file)
    monkeypatch.setattr(aligned, "NTREX_LANGUAGES", NEWS)
    # The files are small, so counts and checksums of the whole collections do not hold.
    monkeypatch.setattr(catalogue, "_check_counts", lambda *about: None)
    monkeypatch.setattr(home, "content_hash", lambda folder: HOMES["ntrex"].sha256)
    monkeypatch.setenv("HYBRIDBATCH_CACHE", str(tmp_path / "cache"))
    return asked


def settings(folder: Path, **changes) -> Path:
    model = write_tiny_model(folder / "tiny")
    values = {
        "seeds": [13], "mixes": [0.5], "languages": ["deu", "eng"],
        "train": {
            "model": str(model), "same_records": True, "batch_size": 4, "steps": 1,
            "temperature": 0.1, "max_query_tokens": 16, "max_passage_tokens": 16,
            "validate_every": 1000, "log_to": "none",
        },
    } | changes  # fmt: skip
    path = folder / "small.yaml"
    path.write_text(json.dumps(values))  # JSON is YAML
    return path


def run(*arguments: str) -> int | str | None:
    return run_script(STUDY / "crossfit.py", *arguments)


def test_a_stranger_runs_it_without_naming_data(homes, tmp_path, capsys):
    chosen = settings(tmp_path)
    assert run("--settings", str(chosen)) == 0
    out = tmp_path / "small"
    names = {path.stem for path in out.glob("*.json")}
    assert names == {
        f"seed-13-half-{half}-{kind}"
        for half in (0, 1)
        for kind in ("mix-0.5", "untrained", "bm25")
    }
    assert sum("xquad-r" in address for address in homes) == len(CODES)
    assert any("NTREX" in address for address in homes)
    assert len(set(read_json(tmp_path / "articles.json").values())) == ARTICLES
    one = read_json(out / "seed-13-half-0-mix-0.5.json")
    trained = set(one["articles"]["trained on"])
    assert len(trained) == ARTICLES // 2
    table = pd.read_parquet(out / "seed-13-half-0-mix-0.5.parquet")
    of = read_json(tmp_path / "articles.json")
    assert not {of[q] for q in table["query_id"]} & trained, "scored on the other half"
    assert table["query_language"].nunique() == len(CODES)
    assert {c.partition("/")[0] for c in table.columns if "/" in c} == {
        "raw",
        "collection",
        "news",
    }
    words = pd.read_parquet(out / "seed-13-half-0-bm25.parquet")
    assert [*words.columns] == [c for c in table.columns if not c.startswith(("coll", "news"))]
    assert words["query_id"].equals(table["query_id"]), "asked the same"
    assert words["raw/mono"].mean() > 0.9, "every question has a word of its sentence alone"
    assert read_json(out / "seed-13-half-0-bm25.json")["articles"] == one["articles"]
    before = {path: path.stat().st_mtime_ns for path in out.iterdir()}
    capsys.readouterr()
    assert run("--settings", str(chosen)) == 0
    assert {path: path.stat().st_mtime_ns for path in out.iterdir()} == before, "done once"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--news", "EMPTY"], "has no LANG.jsonl.gz of"),
        (["--until", "soon"], "is not a time"),
        (["--settings", "EMPTY/none.yaml"], "none.yaml"),
        (["--settings", "short.yaml"], "lacks seeds"),
    ],
)
def test_bad_input_is_one_line(homes, tmp_path, capsys, arguments, words):
    chosen = settings(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "short.yaml").write_text("mixes: [0]\n")
    given = [
        each.replace("EMPTY", str(tmp_path / "empty")).replace("short", str(tmp_path / "short"))
        for each in arguments
    ]
    if "--settings" not in given:
        given += ["--settings", str(chosen)]
    capsys.readouterr()
    assert run(*given) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert words in error
    assert error.count("\n") == 1


def test_two_settings_with_other_seeds_share_a_folder(homes, tmp_path):
    out = tmp_path / "shared"
    for seed in (13, 14):
        chosen = settings(tmp_path, seeds=[seed])
        assert run("--settings", str(chosen), "--out", str(out)) == 0
    names = {path.stem.partition("-half")[0] for path in out.glob("*.json")}
    assert names == {"seed-13", "seed-14"}
