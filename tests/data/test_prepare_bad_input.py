"""Bad input of `prepare` through the command line: one line, exit code 2, nothing half-written, and
a rerun that works.
"""

import errno
import gzip
import io
import json
import os
import re
import sys
import tarfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from hybridbatch.cli import app as cli
from hybridbatch.common import retries as patience
from hybridbatch.common.errors import ConfigError
from hybridbatch.common.records import Row
from hybridbatch.data.choice import at_commits
from hybridbatch.data.prepare import prepare
from hybridbatch.data.settings import PrepareConfig
from hybridbatch.data.source import Source, SourceContext
from hybridbatch.data.sources import entityquestions, mrtydi, webfaq
from hybridbatch.data.store import disk_arrays
from hybridbatch.data.store.reader import Store
from tests.helpers.hub_layouts import write, write_script_repositories
from tests.helpers.recording import RecordingReporter


@dataclass
class Outcome:
    code: int
    errors: list[str]  # lines of standard error that are errors
    warnings: list[str]


Command = Callable[..., Outcome]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """The command line in this process."""

    def command(*arguments: object) -> Outcome:
        monkeypatch.setattr(sys, "argv", ["hybridbatch", *map(str, arguments)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as stop:
            cli.main()
        lines = capsys.readouterr().err.splitlines()
        told = {
            kind: [line for line in lines if line.startswith(f"{kind}: ")]
            for kind in ("error", "warning")
        }
        return Outcome(int(stop.value.code or 0), told["error"], told["warning"])

    return command


def refused(outcome: Outcome, *parts: str) -> None:
    assert outcome.code == 2
    (line,) = outcome.errors
    for part in parts:
        assert re.search(part, line), line


def good_lines(count: int = 400) -> list[str]:
    return [
        json.dumps(
            {
                "id": f"r{number}",
                "lang": code,
                "query": f"Question {number}?",
                "passage": f"Answer {number} {code}",
            }
        )
        for number in range(count)
        for code in ("en", "sw")
    ]


GOOD = ("\n".join(good_lines()) + "\n").encode()
ROW = {"id": "x", "lang": "en", "query": "Q", "passage": "P"}


def line(**changes: object) -> bytes:
    return (json.dumps(ROW | changes) + "\n").encode()


def zst(raw: bytes) -> bytes:
    return pa.compress(raw, codec="zstd", asbytes=True)


def table(columns: dict[str, list]) -> bytes:
    buffer = io.BytesIO()
    pq.write_table(pa.table(columns), buffer)
    return buffer.getvalue()


def tree(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


STOP = [  # file, its bytes, what is told
    ("mine.jsonl.gz", gzip.compress(GOOD, mtime=0)[:-2000], [r"mine\.jsonl\.gz: is truncated or damaged after line \d+", "fetch it again"]),
    ("mine.jsonl.gz", b"no gzip at all", [r"mine\.jsonl\.gz: is truncated or damaged after line 0"]),
    ("mine.jsonl.zst", zst(GOOD)[:-200], [r"mine\.jsonl\.zst: (is truncated|cannot be read)"]),
    ("mine.jsonl.zst", b"no zstd at all", [r"mine\.jsonl\.zst: (is truncated|cannot be read)"]),
    ("mine.parquet", table({"id": ["1"], "lang": ["en"], "query": ["Q"], "passage": ["P"]})[:-20],
     [r"mine\.parquet: cannot be read as Parquet", "write the file again"]),
    ("mine.jsonl", b'{"id": "1", "lang": "en", "question": "Q", "wrong": "P"}\n', [r"mine\.jsonl: no column for passage"]),
    ("mine.tsv", b"id\tlang\tquery\n1\ten\tQ\n", [r"mine\.tsv: no column for passage"]),
    ("mine.tsv", b"id\tlang\tquery\tquery\n1\ten\tQ\tQ\n", [r"mine\.tsv:1: the header .*has one column name twice"]),
    ("mine.jsonl", GOOD + line(id="r7"), [r"mine\.jsonl:801: record 'r7' in language 'eng' is already at .*mine\.jsonl:15"]),
    ("mine.jsonl", line(query=" ", passage=" "), ["the data has no usable row, but 1 bad rows", r"mine\.jsonl:1: query"]),
    ("mine.jsonl", b"\xff\xfe\n", [r"mine\.jsonl: is not valid utf-16"]),
]  # fmt: skip


@pytest.mark.parametrize(("name", "raw", "told"), STOP)
def test_what_cannot_be_read_stops_and_the_older_data_stays(run, tmp_path, name, raw, told):
    mine, out = tmp_path / name, tmp_path / "data"
    (tmp_path / "older.jsonl").write_bytes(GOOD)
    arguments = ("prepare", mine, "--out", out, "--decontaminate", "none")
    assert run("prepare", tmp_path / "older.jsonl", *arguments[2:]).code == 0
    before = tree(out)
    mine.write_bytes(raw)
    refused(run(*arguments), *told)
    assert tree(out) == before
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(
        ["data", name, "older.jsonl"]
    )
    mended = {".gz": gzip.compress(GOOD), ".zst": zst(GOOD)}.get(mine.suffix)
    if mended:
        mine.write_bytes(mended)
        assert run(*arguments).code == 0
        assert tree(out) != before
        Store.open(out).verify()


SKIP = [  # a bad line, its field and what is told of it
    (b"{not json\n", r":801: line: malformed JSON"),
    (line(passage=[["a"], "list"]), r":801: passage: must be text, not a list"),
    (line(query=3), r":801: query: must be text, not a number"),
    (
        b'{"id": "x", "lang": "en", "query": "\xff", "passage": "P"}\n',
        r":801: line: not valid UTF-8",
    ),
    (b'["a", "list"]\n', r":801: line: must be a JSON object, not a list"),
    (b'{"id": "x", "lang": "en", "query": "Q"}\n', r":801: passage: missing"),
]


@pytest.mark.parametrize(("raw", "told"), SKIP)
def test_a_bad_line_is_counted_or_with_strict_stops(run, tmp_path, raw, told):
    mine, out = tmp_path / "mine.jsonl", tmp_path / "data"
    mine.write_bytes(GOOD + raw + line(id="after"))
    arguments = ("prepare", mine, "--out", out, "--decontaminate", "none")
    refused(run(*arguments, "--strict"), told, "mend it, or drop --strict")
    assert not out.exists()
    done = run(*arguments)
    assert (done.code, done.errors) == (0, [])
    assert any(
        "1 rows left out" in warning and re.search(told, warning) for warning in done.warnings
    )
    manifest = Store.open(out).manifest
    assert manifest["dropped"]["rows"] == 1
    assert sum(split["rows"] for split in manifest["splits"].values()) == 801
    mine.write_bytes(GOOD + line(id="after"))
    assert run(*arguments, "--strict").code == 0


# No space
# ------------------------------------------------------------------------------------------------------------


def full_arrow(monkeypatch: pytest.MonkeyPatch, nth: int) -> None:
    """The n-th Arrow file that is written meets a full disk."""
    opened, real = iter(range(100)), pa.OSFile
    monkeypatch.setattr(
        pa,
        "OSFile",
        lambda path, mode: real("/dev/full" if next(opened) == nth else path, mode),
    )


def full_numpy(monkeypatch: pytest.MonkeyPatch) -> None:
    real = disk_arrays.NpyFile.__init__
    monkeypatch.setattr(
        disk_arrays.NpyFile,
        "__init__",
        lambda file, path, *rest: real(file, Path("/dev/full"), *rest),
    )


def full_text(monkeypatch: pytest.MonkeyPatch) -> None:
    real = Path.write_text
    monkeypatch.setattr(
        Path,
        "write_text",
        lambda path, *rest, **options: real(Path("/dev/full"), *rest, **options),
    )


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
@pytest.mark.parametrize(
    "fill",
    [
        pytest.param(lambda patch: full_arrow(patch, 0), id="reading"),
        pytest.param(lambda patch: full_arrow(patch, 1), id="first shard"),
        pytest.param(lambda patch: full_arrow(patch, 2), id="second shard"),
        pytest.param(full_numpy, id="index"),
        pytest.param(full_text, id="manifest"),
    ],
)
def test_a_full_disk_is_one_line_and_a_rerun_works(run, tmp_path, fill):
    mine, out = tmp_path / "mine.jsonl", tmp_path / "data"
    mine.write_bytes(GOOD)
    arguments = ("prepare", mine, "--out", out, "--decontaminate", "none")
    expected = tree(
        prepare(
            PrepareConfig(
                sources=(str(mine),), out=tmp_path / "x" / "data", decontaminate=("none",)
            )
        )
    )
    with pytest.MonkeyPatch.context() as patch:
        fill(patch)
        refused(
            run(*arguments),
            str(tmp_path / r"\.?data"),
            "no space left",
            "run the same command again",
        )
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mine.jsonl", "x"]
    assert run(*arguments).code == 0
    assert tree(out) == expected


def test_a_full_disk_while_downloading_names_the_folders_to_move(run, tmp_path, monkeypatch):
    def full(*arguments: object, **options: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("huggingface_hub.hf_hub_download", full)
    done = run(
        "prepare",
        "mrtydi",
        "--languages",
        "en",
        "--out",
        tmp_path / "data",
        "--decontaminate",
        "none",
    )
    refused(
        done,
        "castorini/mr-tydi@3506bca",
        "No space left on device",
        "HF_HOME",
        "run the same command again",
    )
    assert not list(tmp_path.iterdir())


# The hub
# -------------------------------------------------------------------------------------------------------------


@pytest.fixture
def at_hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[str], None]:
    """Have the hub's client in this process talk to a mirror, and keep what it fetches for this
    test alone.
    """
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub-cache"))
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setenv("HYBRIDBATCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(patience, "PAUSES", (0.0, 0.0))
    monkeypatch.setattr("time.sleep", lambda seconds: None)

    def point(url: str) -> None:
        monkeypatch.setattr(constants, "ENDPOINT", url)
        monkeypatch.setattr(
            constants,
            "HUGGINGFACE_CO_URL_TEMPLATE",
            url + "/{repo_id}/resolve/{revision}/{filename}",
            raising=False,
        )
        monkeypatch.setattr(
            entityquestions, "ADDRESS", f"{url}/datasets/web/files/resolve/main/dataset.zip"
        )

    return point


FAULTS = {
    "503": "answering 503",
    "429": "answering 429",
    "truncate": "run the same command again later",
}


@pytest.mark.parametrize("name", ["mrtydi", "entityquestions"])
@pytest.mark.parametrize("fault", FAULTS)
def test_a_hub_that_keeps_failing_is_one_line_and_a_rerun_works(
    run, hub_mirror, small_hub, at_hub, tmp_path, name, fault
):
    arguments = (
        "prepare",
        name,
        "--languages",
        "en",
        "--out",
        tmp_path / "data",
        "--decontaminate",
        "none",
    )
    with hub_mirror.HubMirror(small_hub, faults={fault: 1.0}) as url:
        at_hub(url)
        refused(run(*arguments), FAULTS[fault], "mr-tydi@|dataset.zip")
    assert not (tmp_path / "data").exists()
    with hub_mirror.HubMirror(small_hub) as url:
        at_hub(url)
        assert run(*arguments).code == 0
    Store.open(tmp_path / "data").verify()


def test_a_file_that_is_gone_is_one_line_and_what_was_fetched_is_not_fetched_again(
    run, hub_mirror: ModuleType, small_hub: Path, at_hub, tmp_path: Path
):
    elsewhere = tmp_path / "mirror"
    write_script_repositories(elsewhere / "datasets")
    swahili = elsewhere / "datasets/castorini/mr-tydi/mrtydi-v1.1-swahili/train.jsonl.gz"
    kept = swahili.read_bytes()
    swahili.unlink()
    arguments = (
        "prepare",
        "mrtydi",
        "--languages",
        "en,sw",
        "--out",
        tmp_path / "data",
        "--decontaminate",
        "none",
    )
    with hub_mirror.HubMirror(elsewhere) as url:
        at_hub(url)
        refused(run(*arguments), "mrtydi-v1.1-swahili", r"no such file there \(404\)")
    english = elsewhere / "datasets/castorini/mr-tydi/mrtydi-v1.1-english/train.jsonl.gz"
    english.unlink()
    swahili.write_bytes(kept)
    with hub_mirror.HubMirror(elsewhere) as url:
        at_hub(url)
        assert run(*arguments).code == 0
    assert Store.open(tmp_path / "data").languages == ("eng", "swh")


def test_a_revision_that_is_gone_is_one_line(
    run, hub_mirror, small_hub, at_hub, tmp_path, monkeypatch
):
    monkeypatch.setattr(mrtydi, "HUB", replace(mrtydi.HUB, revision="refs/pr/9"))
    with hub_mirror.HubMirror(small_hub) as url:
        at_hub(url)
        done = run(
            "prepare",
            "mrtydi",
            "--languages",
            "en",
            "--out",
            tmp_path / "data",
            "--decontaminate",
            "none",
        )
    refused(done, "castorini/mr-tydi@refs/pr/9", "revision is gone there")


# Sources on a branch
# -------------------------------------------------------------------------------------------------


def following(commit: Callable[[SourceContext], str] | None) -> Source:
    rows = [
        Row("branched", f"r{number}", "eng", f"asked {number}", f"told {number}")
        for number in range(20)
    ]
    return Source(
        "branched", "", "", "", "", "", lambda context: iter(rows), "main", commit=commit
    )


def test_a_branch_is_read_at_one_commit_that_is_told_and_can_be_asked_for(
    tmp_path, monkeypatch
):
    now, notes = "a" * 40, RecordingReporter()
    source = following(lambda context: context.revisions.get("branched", now))
    monkeypatch.setattr("hybridbatch.data.prepare.choose_sources", lambda names, own: (source,))
    config = PrepareConfig(
        sources=("branched",), out=tmp_path / "data", decontaminate=("none",)
    )
    (made,) = Store.open(prepare(config, notes)).manifest["provenance"]["sources"]
    assert (made["revision"], made["commit"]) == ("main", now)
    (warning,) = notes.warnings
    assert f"--revision branched={now}" in warning
    pinned = PrepareConfig.model_validate(
        {**config.model_dump(), "revision": {"branched": now}}
    )
    again = RecordingReporter()
    prepare(pinned, again)
    assert again.warnings == []
    assert any("nothing to do" in note for note in again.notes)
    now = (
        "b" * 40
    )  # the branch moves on: the same command prepares anew, the pinned one does not
    assert Store.open(prepare(config)).manifest["provenance"]["sources"][0]["commit"] == now


def test_a_commit_of_a_pinned_source_or_none_at_all_is_refused(run, tmp_path):
    with pytest.raises(
        ConfigError, match=r"revision = nq=a.*follow a branch \(there is none here\)"
    ):
        at_commits(SourceContext(), [following(None)], {"nq": "a" * 40})
    refused(
        run("prepare", "webfaq", "--revision", "webfaq=main"),
        "revision",
        "40 hexadecimal digits",
    )


def test_webfaq_follows_its_branch_at_the_commit_of_the_hub(hub_mirror, small_hub, at_hub):
    (source,) = webfaq.SOURCES
    with hub_mirror.HubMirror(small_hub) as url:
        at_hub(url)
        commit = source.commit(SourceContext())
    assert re.fullmatch("[0-9a-f]{40}", commit)
    assert source.commit(SourceContext(revisions={"webfaq": "c" * 40})) == "c" * 40


# Archives
# ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "member",
    [
        "../outside.train.json",
        "{folder}/outside.train.json",
        "dataset/train/../../../P1.train.json",
    ],
)
def test_no_member_of_an_archive_is_ever_written(run, hub_mirror, at_hub, tmp_path, member):
    """Archives are read in place; what does not have the name of a data file is not even read."""
    import zipfile

    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr(
            "dataset/train/P19.train.json",
            json.dumps([{"question": "Where?", "answers": ["London"]}]),
        )
        outside = member.format(folder=tmp_path)  # absolute, where the test would see it
        archive.writestr(outside, json.dumps([{"question": "Out?", "answers": ["Escaped"]}]))
        link = zipfile.ZipInfo("dataset/train/P20.train.json")
        link.external_attr = 0o120777 << 16  # a symbolic link
        archive.writestr(link, "/etc/passwd")
    write(tmp_path / "mirror/datasets/web/files", {"dataset.zip": buffer.getvalue()})
    arguments = (
        "prepare",
        "entityquestions",
        "--out",
        tmp_path / "data",
        "--decontaminate",
        "none",
    )
    with hub_mirror.HubMirror(tmp_path / "mirror") as url:
        at_hub(url)
        # the link's text, never the file that it names
        refused(run(*arguments), "dataset.zip", "not valid JSON")
    assert not list(tmp_path.rglob("*.train.json"))
    assert not (tmp_path / "data").exists()


def test_a_tar_where_a_zip_should_be_is_refused(run, hub_mirror, at_hub, tmp_path):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        member = tarfile.TarInfo("../../dataset/train/P19.train.json")
        member.size = 2
        archive.addfile(member, io.BytesIO(b"[]"))
    write(tmp_path / "mirror/datasets/web/files", {"dataset.zip": buffer.getvalue()})
    with hub_mirror.HubMirror(tmp_path / "mirror") as url:
        at_hub(url)
        done = run(
            "prepare", "entityquestions", "--out", tmp_path / "data", "--decontaminate", "none"
        )
    refused(
        done, "dataset.zip: cannot be read as a zip", "delete it and run the same command again"
    )
    assert not list(tmp_path.rglob("*.train.json"))
