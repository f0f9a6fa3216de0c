"""What the rule of `--temperature auto` finds, on small data: the rows, and that they are kept."""

import importlib
import json
import sys
from pathlib import Path

import pytest
import torch

from hybridbatch.common.files import read_json
from hybridbatch.common.settings import build
from hybridbatch.data.prepare import prepare
from hybridbatch.data.settings import PrepareConfig
from tests.helpers.scripts import exit_code
from tests.helpers.tiny import write_tiny_model

STUDY = Path(__file__).parents[2] / "experiments" / "study2"


@pytest.fixture
def script(monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(str(STUDY))
    module = importlib.import_module("temperature_rule")
    monkeypatch.setattr(module, "START", str(write_tiny_model(tmp_path / "tiny")))
    monkeypatch.setattr(module, "RESET", str(write_tiny_model(tmp_path / "reset", seed=1)))
    monkeypatch.setattr(module, "MIXES", (module.Kind(0.0, "eng,por"),))
    monkeypatch.setattr(module, "SEEDS", (13,))
    monkeypatch.setattr(module, "PAIRS", 16)
    monkeypatch.setattr(module, "BATCH", 8)
    monkeypatch.setattr(module, "JOINED", (16,))
    monkeypatch.setenv("HYBRIDBATCH_CACHE", str(tmp_path / "cache"))
    yield module
    sys.modules.pop("temperature_rule")


def prepared(folder: Path) -> Path:
    rows = [
        {"record_id": f"r{n}", "language": language, "query": f"da{n} ko{end}",
         "passage": f"da{n} mi{end}"}
        for n in range(40)
        for language, end in (("eng", "s"), ("por", "os"))
    ]  # fmt: skip
    path = folder / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    settings = {"sources": [str(path)], "out": folder / "data", "decontaminate": ["none"],
                "validation_share": 0}  # fmt: skip
    return prepare(build(PrepareConfig, None, settings))


def run(script, *arguments: object) -> int | str | None:
    return exit_code(script.main, *arguments)


def test_every_start_has_its_rows_and_what_is_there_is_kept(script, tmp_path, capsys):
    data, out = prepared(tmp_path), tmp_path / "rule.json"
    assert run(script, data, "--out", out) == 0
    whole = read_json(out)
    rows = whole["rows"]
    found = [(row["start"], row["mix"], row["batch_size"]) for row in rows]
    e5, reset = script.START, script.RESET
    assert found == [
        (reset, 0.0, 8),
        (e5, 0.0, 8), (f"{e5}, centred", 0.0, 8), ("random vectors", 0.0, 8),
        (e5, 1.0, 8), (f"{e5}, centred", 1.0, 8), ("random vectors", 1.0, 8), (e5, 1.0, 16),
    ]  # fmt: skip
    assert all(row["pairs"] == 16 for row in rows)
    assert all(row["temperature"] == 0.05 for row in rows if not row["found"])
    out.write_text(json.dumps(whole | {"rows": rows[1:]}))
    capsys.readouterr()
    assert run(script, data, "--out", out) == 0
    assert capsys.readouterr().out.count("seed 13") == 1
    assert read_json(out)["rows"] == [*rows[1:], rows[0]]
    out.write_text(json.dumps(whole | {"data": "other"}))
    for folder in (data, tmp_path / "nothing"):
        assert run(script, folder, "--out", out) == 2
        assert capsys.readouterr().err.count("\n") == 1


def test_joined_batches_have_no_keys_in_common(script, monkeypatch):
    monkeypatch.setattr(script, "BATCH", 2)
    batch = (torch.eye(2), torch.eye(2), torch.tensor([0, 1]))
    (queries, passages, keys) = script.joined([batch, batch], 2)[0]
    assert (len(queries), len(passages), keys.tolist()) == (4, 4, [0, 1, 2, 3])
