"""What the command line tells users of GPUs that cannot do what they ask for."""

import contextlib
import io
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import torch

from hybridbatch.cli.app import main
from hybridbatch.data.store.writer import write_store
from tests.helpers.parallel import rows
from tests.helpers.pretend_cuda import CARD


def called(*arguments: object) -> tuple[int, str]:
    """Exit code and standard error of ``hybridbatch`` with these arguments."""
    said = io.StringIO()
    with (
        mock.patch.object(sys, "argv", ["hybridbatch", *map(str, arguments)]),
        contextlib.redirect_stderr(said),
        contextlib.redirect_stdout(io.StringIO()),
    ):
        try:
            main()
        except SystemExit as end:
            return int(end.code or 0), said.getvalue()
    return 0, said.getvalue()


@contextlib.contextmanager
def card(**changes: Any) -> Iterator[None]:
    """Another GPU."""
    with mock.patch.multiple(CARD, **changes):
        yield


@contextlib.contextmanager
def without_gpu(build: str | None) -> Iterator[None]:
    """A machine on which torch finds no GPU."""

    def init() -> None:
        raise RuntimeError(
            "Found no NVIDIA driver on your system. Please check that you have one."
        )

    with (
        mock.patch.object(torch.cuda, "is_available", return_value=False),
        mock.patch.object(torch.cuda, "init", init),
        mock.patch.object(torch.version, "cuda", build),
    ):
        yield


def process(rank: int, size: int, **others: str) -> Any:
    """The environment of a process of torchrun."""
    own = {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(size)}
    return mock.patch.dict(os.environ, own | {"MASTER_ADDR": "x", "MASTER_PORT": "1"} | others)


def told(root: Path, model: Path) -> dict[str, tuple[int, str]]:
    """Exit code and message of each mistake; training must leave nothing behind."""
    data, run = root / "told-data", root / "told-run"
    write_store(data, [*rows(24), *rows(9, "validation")], provenance={})
    train = ["train", "--data", data, "--model", model, "--out", run, "--batch-size", 6]
    train += ["--steps", 2, "--log-to", "none", "--device"]
    cases: dict[str, tuple[Any, list[object]]] = {
        "a GPU that is too small": (card(total_memory=1 << 30), [*train, "cuda"]),
        "a precision it lacks": (
            card(major=7, minor=5, name="Tesla T4"),
            [*train, "cuda", "--precision", "bf16"],
        ),
        "fp16 on a CPU": (contextlib.nullcontext(), [*train, "cpu", "--precision", "fp16"]),
        "no driver": (without_gpu("13.0"), [*train, "cuda"]),
        "no CUDA": (without_gpu(None), [*train, "cuda"]),
        "no CUDA, eval": (without_gpu(None), ["eval", model, "--device", "cuda"]),
        "no such GPU": (contextlib.nullcontext(), [*train, "cuda:7"]),
        "one GPU for all": (process(0, 2), [*train, "cuda:0"]),
        "more processes than GPUs": (process(1, 2), [*train, "cuda"]),
        "NCCL is missing": (process(0, 2), [*train, "cuda"]),
        "an unknown backend": (process(0, 2, HYBRIDBATCH_BACKEND="mpi"), [*train, "cuda"]),
        "a bad share": (
            mock.patch.dict(os.environ, {"HYBRIDBATCH_GPU_FRACTION": "1.5"}),
            [*train, "cuda"],
        ),
    }
    found = {}
    # The pretended device has no generator to measure its speed with.
    peak = mock.patch("hybridbatch.training.train.measured_peak", return_value=1e12)
    for name, (circumstances, arguments) in cases.items():
        with circumstances, peak:
            found[name] = called(*arguments)
            assert not run.exists(), name
    return found
