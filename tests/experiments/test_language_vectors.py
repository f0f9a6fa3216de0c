"""The texts behind the debiased table: from copies or from public homes, whole or not at all."""

import gzip
import importlib
import json
import sys
from pathlib import Path

import pytest

from hybridbatch.common.errors import DataError
from hybridbatch.data.homes.home import Home
from tests.helpers.scripts import run_script

SCRIPTS = Path(__file__).parents[2] / "experiments" / "language_vectors"
LONG = "a line that is long enough to be taken"


def packed(path: Path, *records: dict) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with gzip.open(path, "wt", encoding="utf-8") as file:
        file.writelines(json.dumps(record) + "\n" for record in records)


def write_sources(folder: Path, *, ids: bool) -> Path:
    """A text or two of each source; public homes give TICO-19 and the stories no ids."""
    for language in ("eng", "swa"):
        texts = [{"id": n, "lang": language, "text": f"{LONG} {n}"} for n in range(3)]
        packed(
            folder / f"ntrex/{language}.jsonl.gz",
            *texts,
            {"id": 3, "lang": language, "text": "short"},
        )
        packed(
            folder / f"bible/{language}.jsonl.gz",
            {"id": "MAT.1.1", "lang": language, "text": LONG},
        )
        unit = {"lang": language, "doc": "CMU_1", "pos": 1, "text": LONG}
        packed(
            folder / f"tico19/{language}.jsonl.gz", {"id": "CMU_1:1", **unit} if ids else unit
        )
    page = {"lang": "sw", "doc": "asp-0001", "pos": 1, "text": LONG}
    packed(folder / "stories/pages.jsonl.gz", {"id": "asp-0001-sw-1", **page} if ids else page)
    packed(
        folder / "stories/docs.jsonl.gz", {"doc": "asp-0001", "lang": "sw", "aligned_en": None}
    )
    return folder


def run(script: str, *arguments: object) -> int | str | None:
    try:
        return run_script(SCRIPTS / script, *arguments)
    finally:
        sys.modules.pop("compare", None)


def told(capsys: pytest.CaptureFixture) -> str:
    """The one line of an error."""
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    return error


def test_copies_and_public_homes_give_the_same_texts(tmp_path, monkeypatch):
    homes = write_sources(tmp_path / "homes", ids=False)
    monkeypatch.setattr(Home, "obtain", lambda self, root=None: homes / self.folder)
    copies = write_sources(tmp_path / "copies", ids=True)
    (tmp_path / "empty").mkdir()
    assert run("collect.py", tmp_path / "a", "--data-root", copies) == 0
    assert run("collect.py", tmp_path / "b") == 0
    assert run("collect.py", tmp_path / "c", "--data-root", tmp_path / "empty") == 0
    found = [
        {path.relative_to(out): path.read_text() for path in out.rglob("*.jsonl")}
        for out in (tmp_path / "a", tmp_path / "b", tmp_path / "c")
    ]
    assert found[0] == found[1] == found[2]
    assert len(found[0]) == 7
    assert '"CMU_1:1"' in found[0][Path("tico19/swh.jsonl")]
    assert "short" not in found[0][Path("ntrex/eng.jsonl")]


@pytest.mark.parametrize("name", ["ntrex", "stories"])
def test_a_source_out_of_reach_is_one_line_and_leaves_nothing(
    tmp_path, monkeypatch, capsys, name
):
    copies = write_sources(tmp_path / "copies", ids=True)
    (copies / name).rename(tmp_path / "elsewhere")

    def unreachable(self, root=None):
        raise DataError(f"{self.folder}: cannot be reached; check the network")

    monkeypatch.setattr(Home, "obtain", unreachable)
    assert run("collect.py", tmp_path / "out", "--data-root", copies) == 2
    assert f"{name}: cannot be reached; check the network" in told(capsys)
    (copies / name).mkdir()
    assert run("collect.py", tmp_path / "out", "--data-root", copies) == 2
    assert f"copies/{name}: no file" in told(capsys)
    assert not (tmp_path / "out").exists()


def test_bad_lines_and_a_folder_in_the_way_are_one_line(tmp_path, capsys):
    copies = write_sources(tmp_path / "copies", ids=True)
    assert run("collect.py", copies, "--data-root", copies) == 2
    assert "is there already" in told(capsys)
    packed(copies / "bible/eng.jsonl.gz", {"id": "MAT.1.1", "lang": "eng"})
    assert run("collect.py", tmp_path / "out", "--data-root", copies) == 2
    assert "eng.jsonl.gz:1: needs lang and text" in told(capsys)
    assert not (tmp_path / "out").exists()


def test_texts_that_were_not_collected_are_named(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(SCRIPTS))
    compare = importlib.import_module("compare")
    try:
        with pytest.raises(
            DataError, match=r"ntrex: has no LANG.jsonl; collect.py writes them"
        ):
            compare.source_vectors(tmp_path, None)
    finally:
        sys.modules.pop("compare")
