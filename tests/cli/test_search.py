"""`hybridbatch search`: once, line by line, in a dialogue; JSON lines in pipes."""

import json
import os
import select
import struct
import subprocess
import sys

import pytest
from typer.testing import CliRunner

from hybridbatch.cli import console
from hybridbatch.cli import search as command
from hybridbatch.cli.app import app
from hybridbatch.common.errors import ConfigError
from hybridbatch.model.reckoning import Reckoning


@pytest.fixture
def search(tiny_model, tmp_path):
    corpus = tmp_path / "passages.jsonl"
    rows = [("a", "the city", "en"), ("b", "mji mkuu", "sw"), ("c", "die Stadt", "de")]
    corpus.write_text(
        "\n".join(json.dumps({"id": i, "text": t, "language": n}) for i, t, n in rows)
    )

    def run(*words: str, given: str | None = None):
        console.reset()
        cache = str(tmp_path / "cache")
        options = ["--cache", cache, "--device", "cpu", "--precision", "fp32", *words]
        return CliRunner().invoke(
            app, ["search", str(tiny_model), str(corpus), *options], input=given
        )

    return run


def test_a_pipe_gets_a_line_of_json_for_every_passage(search, tmp_path):
    done = search("--query", "the city", "--query", "mji", "--k", "2")
    records = [json.loads(line) for line in done.stdout.splitlines()]
    assert [record["query"] for record in records] == ["the city"] * 2 + ["mji"] * 2
    assert [record["rank"] for record in records] == [1, 2, 1, 2]
    assert set(records[0]) == {"query", "rank", "score", "language", "id", "text"}
    assert records[0]["score"] >= records[1]["score"]
    again = search("--k", "2", given="the city\n\nmji\n")
    assert again.stdout == done.stdout
    spaces = [path.name for path in (tmp_path / "cache").iterdir()]
    assert len(spaces) == 1
    assert "passage" in spaces[0]


def test_languages_are_chosen_and_json_is_one_list(search):
    done = search("--query", "city", "--language", "sw,de", "--json")
    assert {record["language"] for record in json.loads(done.stdout)} == {"swh", "deu"}


def test_no_query_and_unknown_languages_are_refused(search):
    done = search(given="\n")
    assert isinstance(done.exception, ConfigError)
    assert "no query" in str(done.exception)
    done = search("--query", "x", "--language", "fr")
    assert isinstance(done.exception, ConfigError)


def test_the_length_of_a_long_search_is_told_first(search, monkeypatch):
    slow = Reckoning(weights=10**9, parameters=10**9, width=32, rate=1e9, download=0.0)
    monkeypatch.setattr("hybridbatch.scoring.forecast.reckon", lambda *words: slow)
    monkeypatch.setattr("hybridbatch.scoring.forecast.LONG", 1.0)
    done = search("--query", "the city")
    assert "the search encodes at most 3 texts; about" in " ".join(done.stderr.split())


def test_a_dialogue_goes_on_after_a_mistake(search, monkeypatch):
    lines = iter(["the city", ":k 1", "mji", ":language fr", ":language sw", "mji", ":k ²"])

    def answer(prompt: str) -> str:
        assert not prompt  # which would stand among the records
        line = next(lines, None)
        if line is None:
            raise EOFError
        return line

    monkeypatch.setattr("builtins.input", answer)
    monkeypatch.setattr(command, "_is_dialogue", lambda query: True)
    done = search()
    assert done.exception is None, done.output
    assert "query> " in done.stderr
    records = [json.loads(line) for line in done.stdout.splitlines()]
    assert [record["query"] for record in records] == ["the city"] * 3 + ["mji", "mji"]
    assert records[-1]["language"] == "swh"


def test_a_dialogue_on_a_terminal(tiny_model, tmp_path):
    """A process of its own, whose input, output and errors are a pseudo terminal of 60 columns."""
    pty, fcntl, termios = (pytest.importorskip(name) for name in ("pty", "fcntl", "termios"))
    corpus = tmp_path / "passages.jsonl"
    corpus.write_text(json.dumps({"id": "a", "text": "the city " * 20, "language": "en"}))
    terminal, end = pty.openpty()
    fcntl.ioctl(end, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 60, 0, 0))
    options = ["--cache", str(tmp_path / "cache"), "--device", "cpu"]
    environment = {name: value for name, value in os.environ.items() if name != "COLUMNS"}
    process = subprocess.Popen(
        [sys.executable, "-m", "hybridbatch", "search", str(tiny_model), str(corpus), *options],
        stdin=end, stdout=end, stderr=end, env=environment | {"TERM": "xterm"},
    )  # fmt: skip
    os.close(end)
    shown = until(terminal, "query> ")
    assert "1 passage (eng); :k 5 shows five passages" in shown
    os.write(terminal, b"city\n")
    answer = until(terminal, "query> ")
    os.write(terminal, b":language fr\n")
    assert "error:" in until(terminal, "query> ")
    os.write(terminal, b":q\n")
    assert process.wait(60) == 0
    os.close(terminal)
    rows = [line for line in answer.splitlines() if "the city" in line]
    assert len(rows) > 1  # the passage is folded
    assert max(map(len, rows)) <= 60
    assert "rank" in answer
    assert "score" in answer


def until(terminal: int, wanted: str) -> str:
    """What a terminal shows until it shows a text."""
    shown = b""
    while wanted.encode() not in shown:
        ready, _, _ = select.select([terminal], [], [], 120)
        assert ready, shown
        shown += os.read(terminal, 65536)
    return shown.decode().replace("\r\n", "\n")
