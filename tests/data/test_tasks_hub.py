"""Tasks whose data is on the hub: the real readers and the unmodified client, on a mirror in the
true layouts.
"""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from hybridbatch.common.errors import ConfigError, DataError
from hybridbatch.common.languages import canonical
from hybridbatch.data.tasks import belebele, catalogue, miracl
from hybridbatch.data.tasks.corpus_file import StoredStrings, open_texts, write_texts
from hybridbatch.data.tasks.registry import load_task
from tests.helpers.hub_layouts import (
    jsonl,
    packed,
    passage,
    write,
    write_belebele,
    write_script_repositories,
)

CODE = """
import json, sys
from dataclasses import replace
from hybridbatch.data.tasks import catalogue
from hybridbatch.data.tasks.registry import load_task
sizes = {name: replace(one, queries=None, passages=None) for name, one in catalogue.CATALOGUE.items()}
catalogue.CATALOGUE = sizes
made = {}
for name, languages in json.loads(sys.argv[1]).items():
    task = load_task(name, languages=languages)
    made[name] = {
        "queries": {k: dict(zip(v.ids, v.texts)) for k, v in task.queries.items()},
        "corpus": {k: dict(zip(v.ids, v.texts)) for k, v in task.corpus.items()},
        "qrels": task.qrels, "parallel": task.parallel, "provenance": task.provenance,
    }
print(json.dumps(made))
"""


@pytest.fixture
def uncounted(monkeypatch):
    """Small data may pass for a benchmark."""
    small = {
        name: replace(one, queries=None, passages=None)
        for name, one in catalogue.CATALOGUE.items()
    }
    monkeypatch.setattr(catalogue, "CATALOGUE", small)


def test_tasks_come_from_the_hub_language_by_language(hub_mirror, tmp_path):
    write_belebele(tmp_path / "root" / "datasets")
    write_script_repositories(tmp_path / "root" / "datasets")
    wanted = {"belebele": "en,sw", "miracl": "sw,te"}
    with hub_mirror.HubMirror(tmp_path / "root") as url:
        done = subprocess.run(
            [sys.executable, "-c", CODE, json.dumps(wanted)],
            env={**os.environ, "HF_ENDPOINT": url, "HF_HOME": str(tmp_path / "home"), "HF_HUB_DISABLE_XET": "1",
                 "HYBRIDBATCH_CACHE": str(tmp_path / "own"), "HF_HUB_DISABLE_PROGRESS_BARS": "1"},
            text=True, capture_output=True, check=False,
        )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    made = json.loads(done.stdout)
    questions = made["belebele"]
    assert set(questions["queries"]) == set(questions["corpus"]) == {"eng", "swh"}
    assert questions["corpus"]["swh"] == {
        f"https://a.example/{n}": f"swh_Latn text {n}" for n in (1, 2, 3)
    }
    assert questions["queries"]["eng"]["https://a.example/1#2"] == "eng_Latn question 1 2"
    assert questions["qrels"]["eng"]["https://a.example/1#2"] == {"https://a.example/1": 1}
    assert questions["parallel"]
    wikipedia = made["miracl"]
    assert wikipedia["queries"] == {
        "swh": {"swh-3": "development"},
        "tel": {"tel-3": "development"},
    }
    assert wikipedia["corpus"]["tel"] == {f"{n}#0": f"Title {n} Text of {n}." for n in "axbc"}
    assert wikipedia["qrels"]["tel"] == {"tel-3": {"b#0": 1, "x#0": 0}}
    assert not wikipedia["parallel"]
    assert wikipedia["provenance"]["fingerprint"]


@pytest.fixture
def copies(tmp_path: Path, monkeypatch) -> Path:
    monkeypatch.setenv("HYBRIDBATCH_CACHE", str(tmp_path / "own"))
    for code in ("sw", "yo"):
        folder = f"miracl-v1.0-{code}"
        files = {
            f"miracl/{folder}/topics/topics.{folder}-dev.tsv": "1\tswali\n2\tlingine\n",
            f"miracl/{folder}/qrels/qrels.{folder}-dev.tsv": "1\tQ0\td2#0\t1\n2\tQ0\td11#0\t1\n",
        }
        for shard in range(12):
            files[f"miracl-corpus/miracl-corpus-v1.0-{code}/docs-{shard}.jsonl.gz"] = packed(
                jsonl([passage(f"d{shard}")])
            )
        write(tmp_path / "data", files)
    return tmp_path / "data"


def test_miracl_reads_local_copies_once(copies, uncounted):
    task = load_task("miracl", data_root=copies, languages="sw")
    assert set(task.corpus) == {"swh"}
    assert sorted(task.corpus["swh"].ids) == sorted(f"d{n}#0" for n in range(12))
    fingerprint = task.provenance["fingerprint"]
    (stored,) = (copies.parent / "own" / "corpora").glob("*.arrow")
    before = stored.stat().st_mtime_ns
    assert (
        load_task("miracl", data_root=copies, languages="sw").provenance["fingerprint"]
        == fingerprint
    )
    assert stored.stat().st_mtime_ns == before
    write(
        copies,
        {
            "miracl-corpus/miracl-corpus-v1.0-sw/docs-0.jsonl.gz": packed(
                jsonl([passage("d0"), passage("e")])
            )
        },
    )
    assert (
        load_task("miracl", data_root=copies, languages="sw").provenance["fingerprint"]
        != fingerprint
    )


def test_a_part_of_miracl_does_not_pass_for_it(copies):
    with pytest.raises(DataError, match="miracl has 482 queries in swh, not 2"):
        load_task("miracl", data_root=copies, languages="sw")
    with pytest.raises(ConfigError, match="'vi'"):
        load_task("miracl", data_root=copies, languages="vi")


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        (
            "miracl/miracl-v1.0-sw/qrels/qrels.miracl-v1.0-sw-dev.tsv",
            "1\tQ0\tgone#0\t1\n2\tQ0\td1#0\t1\n",
            "'gone#0'",
        ),
        (
            "miracl/miracl-v1.0-sw/qrels/qrels.miracl-v1.0-sw-dev.tsv",
            "1\tQ0\td1#0\t7\n",
            r"dev.tsv:1: grade.*'7'",
        ),
        (
            "miracl/miracl-v1.0-sw/qrels/qrels.miracl-v1.0-sw-dev.tsv",
            "1\tQ0\td1#0\t1\n",
            "'swh-2'",
        ),
        (
            "miracl/miracl-v1.0-sw/topics/topics.miracl-v1.0-sw-dev.tsv",
            "1\tx\n1\ty\n",
            r"dev.tsv:2: the id 'swh-1'",
        ),
        (
            "miracl-corpus/miracl-corpus-v1.0-sw/docs-3.jsonl.gz",
            packed('{"docid": "x"}\n'),
            r"docs-3.jsonl.gz:1: text",
        ),
    ],
)
def test_faulty_files_are_named(copies, file, content, message):
    write(copies, {file: content})
    with pytest.raises(DataError, match=message):
        load_task("miracl", data_root=copies, languages="sw")
    assert not list((copies.parent / "own").rglob("*.tmp"))


def test_published_sizes_and_languages():
    assert sum(miracl.QUERIES.values()) == 13_495  # of mteb's MIRACLRetrieval, dev
    assert sum(miracl.PASSAGES.values()) == 106_332_152
    assert len({canonical(code) for code in belebele.CODES}) == 122


def test_stored_texts_read_like_tuples(tmp_path):
    rows = [(f"d{i}", f"text {i} é" * (i % 3)) for i in range(40_000)]
    write_texts(tmp_path / "x.arrow", iter(rows))
    texts = open_texts(tmp_path / "x.arrow")
    assert isinstance(texts.ids, StoredStrings)
    assert len(texts.ids) == len(texts.texts) == 40_000
    assert texts.ids[39_999] == texts.ids[-1] == "d39999"
    assert texts.texts[16_380:16_390] == [text for _, text in rows[16_380:16_390]]
    assert list(zip(texts.ids, texts.texts, strict=True)) == rows
    with pytest.raises(IndexError):
        texts.ids[40_000]
    (tmp_path / "x.arrow").write_bytes((tmp_path / "x.arrow").read_bytes()[:1000])
    with pytest.raises(DataError, match="damaged"):
        open_texts(tmp_path / "x.arrow")
