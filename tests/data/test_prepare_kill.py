"""SIGKILL in the middle of any stage of `prepare`, then the same command: the bytes are those of an
uninterrupted run.
"""

import gzip
import json
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from hybridbatch.common import tokens
from hybridbatch.common.files import atomic_folder
from hybridbatch.data import prepare
from hybridbatch.data.filters import decontamination as decontaminate
from hybridbatch.data.settings import PrepareConfig
from hybridbatch.data.store import disk_arrays
from hybridbatch.data.store import intake as ingest
from hybridbatch.data.store import row_files as shards
from hybridbatch.data.store import writer as store
from hybridbatch.data.store.reader import Store
from tests.helpers.hub_layouts import write_script_repositories, write_web

POINTS = {  # what a stage is made of; a process is killed just before the n-th call
    "reading": (ingest, "clean_row"),
    "spilling": (ingest.Ingest, "_spill"),
    "decontamination": (decontaminate.LeakFinder, "leaks"),
    "arranging": (store, "arrange"),
    "shards": (shards.ContentDigest, "update"),
    "checksums": (shards, "file_entry"),
    "index": (disk_arrays.NpyFile, "append"),
    "manifest": (store, "write_json"),
    "flushing": (os, "fsync"),
    "replacing": (os, "replace"),
    "clearing": (shutil, "rmtree"),
}
LEAK = "A sentence of the exam that no training set may have in it, not even once."
Files = dict[str, bytes]


def run_child(target: Callable[..., None], *arguments: object) -> int | None:
    """Exit code of ``target(*arguments)`` in a process of its own."""
    process = child(target, *arguments)
    process.join(120)
    return process.exitcode


def child(
    target: Callable[..., None], *arguments: object
) -> multiprocessing.process.BaseProcess:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(
        ["tests.data.test_prepare_kill", "pandas", "scipy.sparse.csgraph"]
    )
    process = context.Process(target=target, args=arguments)
    process.start()
    return process


def call_before(owner: object, name: str, action: Callable[[], None]) -> None:
    """Have `action` done before every call of a function."""
    function = getattr(owner, name)

    def called(*arguments: Any, **options: Any) -> Any:
        action()
        return function(*arguments, **options)

    setattr(owner, name, called)


def make_small() -> None:
    """Several batches, runs, blocks and shards of few rows."""
    decontaminate.BATCH_ROWS, ingest._RUN_ROWS, store.BLOCK_ROWS = 24, 50, 16
    prepare.write_store = partial(store.write_store, shard_rows=48)


def prepare_and_die(
    config: PrepareConfig, point: str | None, nth: int, counts: Path | None = None
) -> None:
    """Prepare; die before the n-th call of a point, if one is named."""
    done: Counter[str] = Counter()

    def count(name: str) -> None:
        if name == point and done[name] == nth:
            os.kill(os.getpid(), signal.SIGKILL)
        done[name] += 1

    make_small()
    for name, (owner, function) in POINTS.items():
        call_before(owner, function, partial(count, name))
    prepare.prepare(config)
    if counts is not None:
        counts.write_text(json.dumps(done))


def files(folder: Path) -> Files:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def lines(records: int, first: int = 0) -> Iterable[str]:
    for number in range(first, first + records):
        for code in ("en", "sw", "am"):
            passage = (
                LEAK if number % 10 == 3 and code == "en" else f"Answer {number // 2} in {code}"
            )
            yield json.dumps(
                {
                    "id": f"r{number}",
                    "lang": code,
                    "query": f"Question {number} {code}?",
                    "passage": passage,
                }
            )


@pytest.fixture(scope="module")
def job(
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[PrepareConfig, Files, dict[str, int]]:
    """(settings, the files of an uninterrupted run, how often it calls each point)."""
    folder = tmp_path_factory.mktemp("prepare-kill")
    (folder / "plain.jsonl").write_text("\n".join(lines(40)) + "\nnot json\n")
    (folder / "packed.jsonl.gz").write_bytes(
        gzip.compress("\n".join(lines(30, 100)).encode(), mtime=0)
    )
    task = folder / "exam"
    task.mkdir()
    for name, record in {
        "corpus.en": {"id": "d", "text": LEAK},
        "queries.en": {"id": "q", "text": "Which sentence may not be in a training set?"},
        "qrels": {"query_id": "q", "doc_id": "d", "rel": 1},
    }.items():
        (task / f"{name}.jsonl").write_text(json.dumps(record))
    config = PrepareConfig(
        sources=(str(folder / "plain.jsonl"), str(folder / "packed.jsonl.gz")),
        out=folder / "whole",
        decontaminate=(str(task),),
        validation_share=0.3,
    )
    assert (
        run_child(
            prepare_and_die, elsewhere(config, folder / "counted"), None, 0, folder / "counts"
        )
        == 0
    )
    assert run_child(prepare_and_die, config, None, 0) == 0
    assert (
        json.loads((folder / "whole" / "manifest.json").read_text())["provenance"]["removed"][
            "records"
        ]
        == 7
    )
    return config, files(folder / "whole"), json.loads((folder / "counts").read_text())


def elsewhere(config: PrepareConfig, folder: Path) -> PrepareConfig:
    return config.model_copy(update={"out": folder})


def check(
    job: tuple[PrepareConfig, Files, dict[str, int]],
    out: Path,
    point: str,
    nth: int,
    older: bool,
) -> None:
    """Kill there, then run to the end; an `older` store of other settings is there before."""
    config, expected, _ = job
    config = elsewhere(config, out)
    before = None
    if older:
        assert run_child(prepare_and_die, config.model_copy(update={"seed": 99}), None, 0) == 0
        before = files(out)
    assert run_child(prepare_and_die, config, point, nth) == -signal.SIGKILL
    if out.exists():  # never anything but a whole store
        assert files(out) in (before, expected)
        Store.open(out).verify()
    else:
        assert not older or point in ("replacing", "clearing")
    assert run_child(prepare_and_die, config, None, 0) == 0
    assert files(out) == expected, (point, nth)
    assert [path.name for path in out.parent.iterdir()] == [out.name]
    shutil.rmtree(out)


def test_every_point_is_reached_several_times_or_is_one_step(job):
    counts = job[2]
    assert set(counts) == set(POINTS)
    assert (
        min(
            counts[name]
            for name in (
                "reading",
                "spilling",
                "decontamination",
                "shards",
                "checksums",
                "index",
            )
        )
        >= 4
    )


@pytest.mark.parametrize("point", POINTS)
def test_killed_in_a_stage(job, tmp_path, point):
    nth = int(np.random.default_rng(len(point)).integers(job[2][point]))
    check(job, tmp_path / "data", point, nth, older=False)


def test_killed_while_an_older_store_is_replaced(job, tmp_path):
    # one more than without an older store, which is moved aside first
    for nth in (0, job[2]["replacing"]):  # all of them: test_killed_at_many_points
        check(job, tmp_path / "data", "replacing", nth, older=True)
    # the new one is there, the older one aside
    check(job, tmp_path / "data", "clearing", 0, older=True)


@pytest.mark.slow
@pytest.mark.parametrize("point", POINTS)
@pytest.mark.parametrize("older", [False, True])
def test_killed_at_many_points(job, tmp_path, point, older):
    calls = job[2][point]
    chosen = {
        0,
        1,
        calls // 2,
        calls - 2,
        calls - 1,
        *np.random.default_rng(5).integers(calls, size=5).tolist(),
    }
    for nth in sorted(chosen & set(range(calls))):
        check(job, tmp_path / "data", point, nth, older)


def kill_again_and_again(job, out: Path, kills: int, seed: int) -> None:
    config, expected, _ = job
    config, rng = elsewhere(config, out), np.random.default_rng(seed)
    for _ in range(kills):
        process = child(prepare_and_die, config, None, 0)
        time.sleep(float(rng.uniform(0, 0.4)))
        process.kill()
        process.join()
    assert run_child(prepare_and_die, config, None, 0) == 0
    assert files(out) == expected
    assert [path.name for path in out.parent.iterdir()] == [out.name]


def test_killed_at_random_times(job, tmp_path):
    kill_again_and_again(job, tmp_path / "data", kills=4, seed=0)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(5))
def test_killed_at_more_random_times(job, tmp_path, seed):
    kill_again_and_again(job, tmp_path / "data", kills=12, seed=10 + seed)


# Living processes
# ----------------------------------------------------------------------------------------------------


def prepare_and_wait(config: PrepareConfig, at: Path, until: Path) -> None:
    """Prepare; when the shards are written, say so at `at`, and go on once `until` is there."""

    def wait() -> None:
        at.touch()
        while not until.exists():
            time.sleep(0.02)

    make_small()
    call_before(store, "write_json", wait)
    prepare.prepare(config)


def test_what_a_living_process_is_writing_stays(job, tmp_path):
    config, expected, _ = job
    at, until, out = tmp_path / "at", tmp_path / "until", tmp_path / "out" / "data"
    (out.parent / ".data.999999.tmp").mkdir(parents=True)  # of a dead one
    slow = child(prepare_and_wait, elsewhere(config, out), at, until)
    while not at.exists():
        assert slow.is_alive()
        time.sleep(0.02)
    (living,) = out.parent.iterdir()
    assert run_child(prepare_and_die, elsewhere(config, out), None, 0) == 0
    assert files(out) == expected
    assert living.is_dir()
    until.touch()
    slow.join(60)
    assert slow.exitcode == 0
    assert files(out) == expected
    assert [path.name for path in out.parent.iterdir()] == ["data"]


def test_an_older_folder_that_was_moved_aside_comes_back(tmp_path):
    (tmp_path / ".data.999999.old").mkdir()
    (tmp_path / ".data.999999.old" / "kept").write_text("years of work")
    with pytest.raises(ValueError, match="new data is bad"), atomic_folder(tmp_path / "data"):
        raise ValueError("new data is bad")
    assert files(tmp_path) == {"data/kept": b"years of work"}


# Tokens
# --------------------------------------------------------------------------------------------------------------


def tokenise_and_die(folder: Path, nth: int | None, torn: bool = False) -> None:
    """Make token arrays; die before the n-th write, or after its first half."""
    append, done = tokens._append, 0

    def dying(file: Any, values: np.ndarray) -> None:
        nonlocal done
        if done == nth:
            if torn:
                raw = np.ascontiguousarray(values).tobytes()
                file.write(raw[: len(raw) // 2 + 1])
                file.flush()
            os.kill(os.getpid(), signal.SIGKILL)
        done += 1
        append(file, values)

    tokens._append, tokens.CHUNK = dying, 16
    Store.open(folder).tokens("train", "passage", tokenise=code_points, key="toy")


def code_points(texts: list[str], side: str) -> tokens.TokenArrays:
    return tokens.TokenArrays.of([[ord(letter) for letter in text] for text in texts])


@pytest.mark.parametrize("torn", [False, True])
def test_killed_while_texts_are_tokenised(job, tmp_path, torn):
    config, _, _ = job
    shutil.copytree(config.out, tmp_path / "whole")
    assert run_child(tokenise_and_die, tmp_path / "whole", None) == 0
    shutil.copytree(config.out, tmp_path / "data")
    for nth in (1, 5):  # each further than the last, from where that one stopped
        assert run_child(tokenise_and_die, tmp_path / "data", nth, torn) == -signal.SIGKILL
        Store.open(tmp_path / "data").verify()
    assert run_child(tokenise_and_die, tmp_path / "data", None) == 0
    assert files(tmp_path / "data") == files(tmp_path / "whole")


# Downloads
# -----------------------------------------------------------------------------------------------------------

DOWNLOADED = ("mrtydi", "entityquestions")  # of the hub and of the web
DOWNLOAD = """
import json, os, signal, sys
from importlib import import_module
from pathlib import Path
from huggingface_hub import file_download
from hybridbatch.data.settings import PrepareConfig
from hybridbatch.data.prepare import prepare

job = json.load(sys.stdin)
import_module("hybridbatch.data.sources.entityquestions").ADDRESS = job["web"] + "/dataset.zip"
http_get, done = file_download.http_get, 0

class Torn:
    def __init__(self, file): self.file = file
    def __getattr__(self, name): return getattr(self.file, name)
    def write(self, data):
        global done
        if done == job["nth"]:
            self.file.write(data[: len(data) // 2])
            self.file.flush()
            os.kill(os.getpid(), signal.SIGKILL)
        done += 1
        return self.file.write(data)

file_download.http_get = lambda address, file, **options: http_get(address, Torn(file), **options)
prepare(PrepareConfig(sources=job["sources"], out=Path(job["out"]), languages="eng,swh", decontaminate=("none",)))
print(done)
"""


def download(
    url: str, cache: Path, out: Path, nth: int | None
) -> subprocess.CompletedProcess[str]:
    """Prepare sources of the hub and the web in a process of its own; die in the middle of the n-th
    write of a download.
    """
    job = {
        "sources": DOWNLOADED,
        "web": f"{url}/datasets/web/files/resolve/main",
        "out": str(out),
        "nth": nth,
    }
    environment = {"HF_ENDPOINT": url, "HF_HOME": str(cache), "HYBRIDBATCH_CACHE": str(cache / "own"),
                   "HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_TELEMETRY": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1"}  # fmt: skip
    return subprocess.run(
        [sys.executable, "-c", DOWNLOAD], input=json.dumps(job), env={**os.environ, **environment}, text=True,
        capture_output=True, check=False,
    )  # fmt: skip


@pytest.fixture(scope="module")
def downloads(hub_mirror: ModuleType, tmp_path_factory: pytest.TempPathFactory):
    """(address of a hub, the files of an uninterrupted run, how many writes its downloads take)."""
    root = tmp_path_factory.mktemp("hub")
    for write_some in (write_script_repositories, write_web):
        write_some(root / "datasets")
    with hub_mirror.HubMirror(root) as url:
        folder = tmp_path_factory.mktemp("downloads")
        done = download(url, folder / "cache", folder / "data", None)
        assert done.returncode == 0, done.stderr[-3000:]
        yield url, files(folder / "data"), int(done.stdout)


def check_download(downloads, folder: Path, points: Iterable[int]) -> None:
    url, expected, _ = downloads
    for nth in points:
        killed = download(url, folder / "cache", folder / "data", nth)
        assert killed.returncode == -signal.SIGKILL, killed.stderr[-3000:]
        assert not (folder / "data").exists()
    done = download(url, folder / "cache", folder / "data", None)
    assert done.returncode == 0, done.stderr[-3000:]
    assert files(folder / "data") == expected
    assert not list((folder / "cache" / "own").rglob(".*"))


def test_killed_in_the_middle_of_downloads(downloads, tmp_path):
    assert downloads[2] >= 3
    check_download(downloads, tmp_path, [1, 1])  # in one run, and in the next a little further


@pytest.mark.slow
def test_killed_in_the_middle_of_each_download(downloads, tmp_path):
    for nth in range(downloads[2]):
        check_download(downloads, tmp_path / str(nth), [nth])
