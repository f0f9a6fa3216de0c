"""Data sets of the hub by their id, from a small hub on this machine."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from hybridbatch.common.errors import ConfigError
from hybridbatch.data.choice import choose_sources
from hybridbatch.data.sources.hub_sets import hub_name
from hybridbatch.data.store.reader import Store
from tests.helpers.hub_layouts import card, jsonl, parquet, write
from tests.helpers.hub_mirror import HubMirror

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("hub")
    asked = [
        {"question": f"swali la {n}", "answer": f"Jibu la {n}.", "lang": "sw"} for n in range(9)
    ]
    write(root / "datasets" / "me" / "faq", {
        "data/train-00000-of-00001.parquet": parquet(asked[:7]),
        "data/test-00000-of-00001.parquet": parquet(asked[7:]),
    })  # fmt: skip
    pairs = [{"anchor": f"question {n}", "positive": f"Answer {n}."} for n in range(3)]
    write(root / "datasets" / "me" / "pairs", {
        "README.md": card(("small", "train", "small.jsonl"), ("large", "train", "large.jsonl")),
        "small.jsonl": jsonl(pairs[:1]), "large.jsonl": jsonl(pairs),
    })  # fmt: skip
    return root


def prepare(hub: Path, out: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    cache = out.parent / "cache"
    with HubMirror(hub) as url:
        return subprocess.run(
            [sys.executable, "-m", "hybridbatch", "prepare", *arguments, "--out", str(out), "--decontaminate", "none"],
            env={**os.environ, "HF_ENDPOINT": url, "HF_HOME": str(cache), "HYBRIDBATCH_CACHE": str(cache / "own"),
                 "HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_TELEMETRY": "1"},
            cwd=REPOSITORY, text=True, capture_output=True, check=False,
        )  # fmt: skip


def test_a_data_set_by_its_id_with_named_columns(hub, tmp_path):
    columns = "query=question,passage=answer,language=lang"
    done = prepare(
        hub, tmp_path / "out", "me/faq", "--columns", columns, "--validation-share", "0"
    )
    assert done.returncode == 0, done.stderr
    store = Store.open(tmp_path / "out")
    counts = {split: made["records"] for split, made in store.manifest["splits"].items()}
    assert counts == {"train": 7, "test": 2}
    assert store.languages == ("swh",)
    (origin,) = store.manifest["provenance"]["sources"]
    assert len(origin["commit"]) == 40
    assert f"--revision faq={origin['commit']}" in done.stderr.replace("\n", " ")


def test_a_configuration_must_be_named_where_there_are_several(hub, tmp_path):
    done = prepare(hub, tmp_path / "out", "me/pairs", "--language", "en")
    assert done.returncode == 2
    assert "has the configurations" in done.stderr
    done = prepare(hub, tmp_path / "out", "me/pairs:large", "--language", "en")
    assert done.returncode == 0, done.stderr
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert manifest["sources"] == ["pairs-large"]
    assert manifest["splits"]["train"]["records"] == 3


def test_a_data_set_that_is_not_there_is_told_in_one_line(hub, tmp_path):
    done = prepare(hub, tmp_path / "out", "me/nothing")
    assert done.returncode == 2
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("error:")]
    assert "nor is there a file or folder 'me/nothing' here" in line


def test_what_is_an_id_and_what_is_a_path(tmp_path):
    assert hub_name("owner/name")
    assert hub_name("owner/name:config")[2] == "config"
    for entry in ("data/mine.jsonl", "./owner/name", "/owner/name", "a/b/c", "name"):
        assert hub_name(entry) is None
    with pytest.raises(ConfigError, match="two sources are called 'name'"):
        choose_sources(("one/name", "two/name"))
