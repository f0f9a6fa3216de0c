"""Commands in too little memory end with one line that says so, and leave nothing half-written."""

import json
import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.fuzz import targets
from tests.helpers.tiny import write_tiny_model

GB = 10**9
LIMITS = (0.25, 0.4, 0.6, 1.0, 1.5, 1.7, 2.0, 3.0)  # of address space, in GB
SECONDS = 120
OUTPUTS = (
    "out",
    "run",
    "mined",
    "sweep",
    "again",
    "home",
    "eval-1/figures",
    "compared.json",
    "out.html",
    "out.json",
    "out.onnx",
)
TINY = ("--precision", "fp32")
TRAIN = (
    "--steps",
    "2",
    "--batch-size",
    "4",
    "--micro-tokens",
    "200",
    "--log-to",
    "none",
    *TINY,
)
COMMANDS = {
    "prepare": (*targets.PREPARE, "data.jsonl"),
    "inspect": ("inspect", "data"),
    "audit": ("audit", "data", "task", "--out", "out.json"),
    "mine": ("mine", "data", "--out", "mined"),
    "mine-dense": ("mine", "data", "--out", "mined", "--method", "dense", "--model", "model"),
    "train": ("train", "--model", "model", "--data", "data", "--out", "run", *TRAIN),
    "eval": ("eval", "model", "--tasks", "task", "--out", "out", *TINY),
    "eval-bm25": ("eval", "bm25", "--tasks", "task", "--out", "out"),
    "compare": ("compare", "eval-1", "eval-2", "--out", "compared.json"),
    "figures": ("figures", "eval-1"),
    "cache": ("cache",),
    "search": ("search", "model", "corpus.jsonl", "--query", "question", *TINY),
    "debias": ("debias", "model", "--text", "texts", "--out", "out", "--languages", "eng,swh", *TINY),
    "audit-bias": ("audit-bias", "model", "--task", "task", "--out", "out.html", *TINY),
    "scale-sweep": (
        "scale-sweep", "--data", "data", "--tasks", "task", "--languages", "all", "--allow-seen", "--mix", "0.5",
        "--pairs", "all", "--steps", "2", "--batch-size", "4", "--seeds", "13", "--model", "model", "--out", "sweep",
        "--set", "micro_tokens=200;precision=fp32",
    ),
    "report": ("report", "old-sweep"),
    "export": ("export", "trained", "--onnx", "--out", "out.onnx"),
}  # fmt: skip


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("memory")
    targets._evaluations(folder)
    targets._sweep(folder)
    (folder / "sweep").rename(folder / "old-sweep")
    targets._trained(folder)
    shutil.rmtree(folder / "run")
    targets._jsonl(folder)
    write_tiny_model(folder / "trained")
    (folder / "texts").mkdir()
    for language in ("eng", "swh"):
        lines = (f"line {number} of a text in {language}" for number in range(50))
        (folder / "texts" / f"{language}.txt").write_text("\n".join(lines))
    passages = ({"_id": str(number), "text": f"text {number}"} for number in range(50))
    (folder / "corpus.jsonl").write_text("\n".join(map(json.dumps, passages)))
    return folder


def limited(limit: int) -> Callable[[], None]:
    return lambda: resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


def run(place: Path, name: str, limit: float) -> subprocess.CompletedProcess[str]:
    for output in OUTPUTS:
        path = place / output
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
    environment = os.environ | {
        "HYBRIDBATCH_CACHE": str(place / "home"),
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": str(Path(__file__).parents[2]),
    }
    command = [sys.executable, "-m", "hybridbatch", *COMMANDS[name]]
    return subprocess.run(
        command, cwd=place, env=environment, capture_output=True, text=True, timeout=SECONDS,
        preexec_fn=limited(round(limit * GB)), check=False,
    )  # fmt: skip


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="address space is limited on Linux only")
@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_in_too_little_memory(place: Path, name: str):
    for limit in LIMITS:
        ended = run(place, name, limit)
        told = f"{name} in {limit} GB: exit {ended.returncode}: {ended.stderr[-2000:]}"
        assert ended.returncode in (0, 2), told
        assert "Traceback" not in ended.stderr, told
        assert not list(place.rglob(".*.tmp")), told
        if ended.returncode == 2:
            last = ended.stderr.strip().splitlines()[-1]
            assert last.startswith("error: out of memory: `hybridbatch "), told
            assert " needed " in last, told
            assert "GiB are free" in last, told
            assert len(last) < 520, told
    assert ended.returncode == 0, told
