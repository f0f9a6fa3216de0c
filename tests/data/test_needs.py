"""What a preparation takes is told before, and asking for it downloads nothing."""

import json
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from hybridbatch.data import prepare as preparing
from hybridbatch.data.download import sizes
from hybridbatch.data.needs import needs_table
from hybridbatch.data.prepare import plan, prepare
from hybridbatch.data.settings import PrepareConfig
from hybridbatch.data.sources.mmarco import HUB, TRIPLES
from hybridbatch.data.sources.registry import catalogue, sources
from tests.helpers.recording import RecordingReporter

ASK = """
import json, sys
from hybridbatch.data.prepare import plan
from hybridbatch.data.settings import PrepareConfig

names, languages = sys.argv[1].split(","), sys.argv[2]
needs = plan(PrepareConfig(sources=tuple(names), languages=languages))
print(json.dumps({one.source: one.absent for one in needs.sources}))
"""


def test_the_hub_is_asked_for_sizes_and_nothing_is_fetched(
    hub_mirror: ModuleType, small_hub: Path, tmp_path: Path
):
    names = (
        "mmarco,mrtydi,mfaq,nq,duorc,wikiqa,yahoo,miracl,tydiqa,webfaq,swim-ir,swim-ir-cross"
    )
    with hub_mirror.HubMirror(small_hub) as url:
        environment = {"HF_ENDPOINT": url, "HF_HOME": str(tmp_path), "HF_HUB_DISABLE_XET": "1"}
        done = subprocess.run(
            [sys.executable, "-c", ASK, names, "eng,swh,deu"],
            env={**os.environ, **environment},
            capture_output=True,
            text=True,
            check=True,
        )
    told = json.loads(done.stdout)
    assert all(told.values()), told
    folder = small_hub / "datasets" / "unicamp-dl" / "mmarco" / "data"
    wanted = [folder / "triples.train.ids.small.tsv"]
    for language in ("english", "german"):
        wanted += list(folder.rglob(f"{language}*.tsv"))
    assert told["mmarco"] == sum(path.stat().st_size for path in wanted)
    assert not [
        path for path in tmp_path.rglob("*") if path.suffix in (".tsv", ".gz", ".parquet")
    ]


def test_without_a_hub_large_sources_are_told_roughly(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sizes, "_listing", lambda name, revision: None)
    needs = plan(PrepareConfig(sources=("mmarco", "wikiqa"), languages="eng,hin"))
    rows = {row["source"]: row for row in needs_table(needs)}
    assert rows["mmarco"]["to download"] == "12 GB"
    assert rows["wikiqa"]["to download"] == "unknown"
    assert "(of wikiqa: unknown)" in needs.sentence()
    triples = plan(PrepareConfig(sources=("mmarco-triples",), languages="eng,hin"))
    assert triples.stored > 20 * needs.stored
    small = plan(PrepareConfig(sources=("mmarco",), languages="eng,hin", record_share=0.01))
    assert small.stored == pytest.approx(needs.stored / 100, rel=0.01)


def test_own_files_count_and_a_small_disk_is_warned_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    mine = tmp_path / "mine.jsonl"
    row = {"id": "a", "lang": "en", "query": "What is it?", "passage": "It is a passage. " * 50}
    mine.write_text("".join(json.dumps(row | {"id": str(n)}) + "\n" for n in range(100)))
    settings = PrepareConfig(
        sources=(str(mine),), out=tmp_path / "data", decontaminate=("none",)
    )
    assert (plan(settings).absent, plan(settings).stored) == (0, mine.stat().st_size)
    assert not (tmp_path / "data").exists()
    monkeypatch.setattr(preparing.Needs, "free", 100_000)
    told = RecordingReporter()
    prepare(settings, told)
    (warning,) = [one for one in told.warnings if "are needed there" in one]
    assert "0.2 MB are needed" in warning
    assert "--record-share" in warning


def test_every_source_that_downloads_says_what():
    context = preparing.SourceContext()
    made_by_hand = {"atlas", "newsqa", "parallel-documents", "parallel-sentences"}
    silent = {one.name for one in sources() if not one.files(context)}
    assert silent == made_by_hand


def test_files_of_an_earlier_download_are_told_of_without_a_hub(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(sizes, "_listing", lambda name, revision: None)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    place = tmp_path / "datasets--unicamp-dl--mmarco" / "snapshots" / HUB.revision
    for name, size in ((TRIPLES, 30), ("data/google/collections/english_collection.tsv", 70)):
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).write_bytes(b"x" * size)
    needs = plan(PrepareConfig(sources=("mmarco-triples",), languages="eng"))
    assert (needs.absent, needs.stored) == (0, 800)


def test_the_list_tells_the_megabytes_that_a_server_tells(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    listed = {"microsoft/wiki_qa": (("data/train-00000-of-00001.parquet", 2_100_000),)}
    monkeypatch.setattr(sizes, "_listing", lambda name, revision: listed.get(name))
    monkeypatch.setattr(sizes, "_content_length", lambda address: None)
    monkeypatch.setenv("HYBRIDBATCH_CACHE", str(tmp_path))
    rows = {row["source"]: row for row in catalogue()}
    assert rows["wikiqa"]["data"] == "to download: 2.1 MB"
    assert rows["ntrex"]["data"] == "to download: 35 MB"
    assert rows["mmarco"]["data"] == "to download: 57 GB"
    assert rows["nq"]["data"] == "to download: the server does not tell how much"
    for name in ("newsqa", "parallel-documents"):
        assert rows[name]["data"] == "to get by hand, and to name with --data-root"


def test_memory_that_grows_with_the_rows_is_told(tmp_path: Path):
    mine = tmp_path / "mine.jsonl"
    row = {"lang": "en", "query": "What is it?", "passage": "It is a passage. " * 50}
    mine.write_text("".join(json.dumps(row | {"id": str(n)}) + "\n" for n in range(100)))
    plain = plan(PrepareConfig(sources=(str(mine),)))
    distinct = plan(PrepareConfig(sources=(str(mine),), duplicates="remove"))
    built_in = plan(PrepareConfig(sources=("atlas",)))
    assert built_in.memory < plain.memory < distinct.memory
    assert "less than 4.0 GB of memory" in built_in.sentence()
