"""Everything that can be wrong with an evaluation's input, through the command line: one line, exit
code 2, nothing lost.
"""

import json
import os
from pathlib import Path

import numpy as np
import pytest

from hybridbatch.cli import app as cli
from hybridbatch.scoring import baselines
from hybridbatch.search import blocked_vectors as blocks
from hybridbatch.search import embeddings
from tests.scoring.test_evaluate import write_folder

QRELS = "query-id\tcorpus-id\tscore\n"


def run(monkeypatch, *arguments: object) -> int:
    """The exit code of `hybridbatch eval random ARGUMENTS`, in this process."""
    monkeypatch.setattr("sys.argv", ["hybridbatch", "eval", "random", *map(str, arguments)])
    try:
        cli.main()
    except SystemExit as stop:
        return stop.code or 0
    return 0


@pytest.fixture
def folder(tmp_path: Path, monkeypatch) -> Path:
    monkeypatch.setenv("HYBRIDBATCH_CACHE", str(tmp_path / "cache"))
    return write_folder(tmp_path / "mine")


def options(folder: Path, *more: object) -> list[object]:
    return [
        "--tasks",
        folder,
        "--out",
        folder.parent / "run",
        "--device",
        "cpu",
        "--cutoffs",
        "1,5",
        *more,
    ]


def error(capsys) -> str:
    return " ".join(capsys.readouterr().err.split())


BROKEN = {
    "unknown query": ("sw/qrels/test.tsv", QRELS + "".join(f"q{i}\td{i}\t1\n" for i in range(6)) + "q77\td1\t1\n", ["qrels of swh", "'q77'"]),
    "empty corpus": ("sw/corpus.jsonl", "", ["corpus.jsonl", "holds no text"]),
    "duplicate passage id": ("sw/corpus.jsonl", '{"_id": "d0", "text": "a"}\n{"_id": "d0", "text": "b"}\n', ["corpus.jsonl:2", "'d0'"]),
    "duplicate query id": ("sw/queries.jsonl", '{"_id": "q0", "text": "a"}\n{"_id": "q0", "text": "b"}\n', ["queries.jsonl:2", "'q0'"]),
    **{
        f"relevance {grade}": ("sw/qrels/test.tsv", QRELS + f"q0\td0\t{grade}\n", ["test.tsv:2", "relevance", problem])
        for grade, problem in (("1e308", "between"), ("-1e308", "between"), ("1_0", "integer"), ("nan", "integer"))
    },
}  # fmt: skip


@pytest.mark.parametrize(("file", "content", "told"), BROKEN.values(), ids=BROKEN)
def test_a_faulty_task_is_told_in_one_line_and_writes_nothing(
    folder, monkeypatch, capsys, file, content, told
):
    (folder / file).write_text(content)
    assert run(monkeypatch, *options(folder)) == 2
    message = error(capsys)
    assert all(part.replace(" ", "") in message.replace(" ", "") for part in told)
    assert "Traceback" not in message
    assert not (folder.parent / "run").exists()


@pytest.fixture
def faulty(monkeypatch):
    """Make the encoder give NaN for one text, or stop, after `texts` texts."""

    def break_it(nan: str | None = None, stop_after: int | None = None) -> list[str]:
        encode, seen = baselines.RandomEncoder.encode, []

        def broken(self, texts, side, **rest):
            if stop_after is not None and len(seen) + len(texts) > stop_after:
                raise KeyboardInterrupt
            seen.extend(texts)
            vectors = encode(self, texts, side, **rest)
            vectors[[text == nan for text in texts]] = np.nan
            return vectors

        monkeypatch.setattr(baselines.RandomEncoder, "encode", broken)
        return seen

    return break_it


@pytest.mark.parametrize("index", ["auto", "exact"])
def test_the_text_without_an_embedding_is_named(folder, monkeypatch, capsys, faulty, index):
    faulty(nan="sw it is 21 there")
    assert run(monkeypatch, *options(folder, "--index", index)) == 2
    assert "'sw it is 21 there'" in error(capsys)
    assert not (folder.parent / "run" / "eval.json").exists()


@pytest.mark.parametrize("index", ["auto", "exact"])
def test_stored_vectors_of_another_dimension_are_named(folder, monkeypatch, capsys, index):
    assert run(monkeypatch, *options(folder, "--index", index)) == 0
    before = (folder.parent / "run" / "eval.json").read_bytes()
    for path in (folder.parent / "cache" / "embeddings").glob("*-passage-*/*.vectors.npy"):
        np.save(path, np.zeros((len(np.load(path)), 12), np.float32))
    assert run(monkeypatch, *options(folder, "--index", index)) == 2
    message = error(capsys)
    assert "delete" in message
    assert "12" in message
    assert (folder.parent / "run" / "eval.json").read_bytes() == before


@pytest.mark.parametrize("index", ["auto", "exact"])
def test_an_interrupted_encoding_goes_on_in_the_next_run(
    folder, monkeypatch, capsys, faulty, index
):
    monkeypatch.setattr(blocks, "BLOCK_TEXTS", 4)
    monkeypatch.setattr(embeddings, "SHARD_TEXTS", 4)
    with monkeypatch.context() as during:
        during.setattr(baselines.RandomEncoder, "encode", baselines.RandomEncoder.encode)
        first = faulty(stop_after=34)
        assert run(monkeypatch, *options(folder, "--index", index)) == 130
    assert "same command" in error(capsys)
    assert not (folder.parent / "run" / "eval.json").exists()
    second = faulty()
    assert run(monkeypatch, *options(folder, "--index", index)) == 0
    assert first
    assert set(first).isdisjoint(second)
    assert len({*first, *second}) == 3 * (6 + 9)
    assert json.loads((folder.parent / "run" / "eval.json").read_text())["tasks"]


def test_settings_that_do_not_go_together(folder, monkeypatch, capsys):
    for more, told in (
        (["--index", "exact", "--depth", "10", "--cutoffs", "100"], "--depth"),
        (["--shards", "3/2"], "i/n"),
        (["--shards", "1/2"], "--index exact"),
        (["--pool", "script:Arab"], "none of the 3"),
        (["--pool", "swh"], "two languages"),
        (["--cache-limit", "20"], "20"),
    ):
        assert run(monkeypatch, *options(folder, *more)) == 2
        assert told in error(capsys)


def test_parts_are_encoded_apart_and_scored_at_the_end(folder, monkeypatch):
    """Two machines with `--shards`, then one run that finds all blocks, and gives what a run alone
    gives.
    """
    monkeypatch.setattr(blocks, "BLOCK_TEXTS", 4)
    for part in ("1/2", "2/2"):
        assert run(monkeypatch, *options(folder, "--index", "exact", "--shards", part)) == 0
    assert not (folder.parent / "run" / "eval.json").exists()
    passages = []
    encode = baselines.RandomEncoder.encode

    def spy(self, texts, side, **rest):
        if side == "passage":
            passages.extend(texts)
        return encode(self, texts, side, **rest)

    monkeypatch.setattr(baselines.RandomEncoder, "encode", spy)
    assert run(monkeypatch, *options(folder, "--index", "exact")) == 0
    assert passages == []
    task = json.loads((folder.parent / "run" / "eval.json").read_text())["tasks"][0]
    assert task["search"] == {"index": "exact", "depth": 1000, "stored_as": "float32"}
    monkeypatch.setattr(blocks, "BLOCK_TEXTS", 16_384)
    assert run(monkeypatch, *options(folder, "--out", folder.parent / "whole")) == 0
    whole = json.loads((folder.parent / "whole" / "eval.json").read_text())["tasks"][0]
    for setting, part in task["settings"].items():
        metrics = whole["settings"][setting]["metrics"]
        assert part["metrics"]["mAP@1000"] == pytest.approx(metrics["mAP"], abs=1e-12)
        assert part["metrics"]["ndcg@10"] == pytest.approx(metrics["ndcg@10"], abs=1e-12)


def test_a_further_process_of_torchrun_writes_no_result(folder, monkeypatch):
    monkeypatch.setenv("RANK", "1")
    assert run(monkeypatch, *options(folder, "--index", "exact")) == 0
    assert not (folder.parent / "run" / "eval.json").exists()


def test_pools_of_groups_stand_beside_the_pool_of_all(folder, monkeypatch):
    assert run(monkeypatch, *options(folder, "--pool", "script:Latn;deu,swh")) == 0
    settings = json.loads((folder.parent / "run" / "eval.json").read_text())["tasks"][0][
        "settings"
    ]
    assert set(settings) == {
        "monolingual",
        "cross-lingual",
        "multilingual",
        "multilingual:script:Latn",
        "multilingual:deu,swh",
    }
    assert (
        settings["multilingual:script:Latn"]["metrics"] == settings["multilingual"]["metrics"]
    )
    assert (
        settings["multilingual:deu,swh"]["metrics"]["mAP"]
        != settings["multilingual"]["metrics"]["mAP"]
    )


def test_the_store_keeps_to_its_limit(folder, monkeypatch):
    old = folder.parent / "cache" / "embeddings" / "old"
    old.mkdir(parents=True)
    facts = {"kind": "embeddings", "schema_version": 1, "model": "old", "fingerprint": "0"}
    facts |= {"side": "query", "precision": "fp32"}
    (old / "space.json").write_text(json.dumps(facts))
    (old / "big.vectors.npy").write_bytes(bytes(2_000_000))
    assert run(monkeypatch, *options(folder, "--cache-limit", "1MB")) == 0
    assert not old.exists()
    assert len(list((folder.parent / "cache" / "embeddings").iterdir())) == 2


def test_a_folder_whose_name_is_not_utf_8(folder, monkeypatch):
    odd = folder.with_name(os.fsdecode(b"t\xe9sk"))
    try:
        folder.rename(odd)
    except OSError:
        pytest.skip("this file system takes UTF-8 only")
    assert run(monkeypatch, *options(odd)) == 0
    facts = json.loads((folder.parent / "run" / "eval.json").read_text())
    assert [task["name"] for task in facts["tasks"]] == ["t?sk"]
