"""Several processes under torchrun speak as one: a mistake is one line of one of them, and exit
code 2 of all.
"""

import contextlib
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch.distributed as dist
from safetensors.torch import load_file, save_file

from hybridbatch.cli.app import main
from hybridbatch.common.files import read_json
from hybridbatch.data.store.writer import write_store
from tests.helpers.parallel import rows
from tests.helpers.trainers import child_processes


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("torchrun") / "toy"
    write_store(folder, [*rows(24), *rows(9, "validation")], provenance={})
    return folder


def torchrun(logs: Path, *arguments: object) -> subprocess.Popen:
    """``hybridbatch train`` in two processes, the output of each in a file of its own."""
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--nproc-per-node",
        "2",
        "--rdzv-backend",
        "c10d",
    ]
    command += ["--rdzv-endpoint", "localhost:0", "--redirects", "3", "--log-dir", str(logs)]
    command += [
        "-m",
        "hybridbatch",
        "train",
        "--device",
        "cpu",
        "--precision",
        "fp32",
        *map(str, arguments),
    ]
    env = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env=env
    )


def said(logs: Path, name: str) -> list[str]:
    """What each process wrote to stdout or stderr."""
    files = sorted(logs.rglob(f"{name}.log"), key=lambda path: path.parent.name)
    assert [path.parent.name for path in files] == ["0", "1"]
    return [path.read_text() for path in files]


SLOW = pytest.mark.slow


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "not a training run"),  # only the first process looks
        pytest.param(["--temperature", "0"], "temperature = 0", marks=SLOW),
        pytest.param(["--languages", "klingon"], "klingon", marks=SLOW),
        pytest.param(["--batch-size", "1000"], "--batch-size", marks=SLOW),
        pytest.param(["--tempreature", "0"], "No such option", marks=SLOW),
    ],
)
def test_a_mistake_is_told_once_whichever_process_has_it(
    data, tiny_model, tmp_path, arguments, message
):
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign" / "letter.txt").write_text("dear")
    out = tmp_path / ("new" if arguments else "foreign")
    process = torchrun(
        tmp_path / "logs",
        "--data",
        data,
        "--model",
        tiny_model,
        "--batch-size",
        "6",
        "--out",
        out,
        *arguments,
    )
    summary = process.communicate(timeout=200)[1]
    errors = [text for text in said(tmp_path / "logs", "stderr") if text]
    assert len(errors) == 1, errors
    assert message in errors[0]
    if message != "No such option":  # to which the option's parser adds a hint
        assert errors[0].startswith("error: ")
        assert errors[0].count("\n") == 1, errors
    assert "exitcode  : 2" in summary
    assert said(tmp_path / "logs", "stdout") == ["", ""]
    assert not (tmp_path / "new").exists()


@SLOW
def test_a_run_of_two_processes_names_its_folder_once(data, tiny_model, tmp_path):
    settings = [
        "--data",
        data,
        "--model",
        tiny_model,
        "--batch-size",
        "6",
        "--steps",
        "3",
        "--out",
        tmp_path / "run",
    ]
    process = torchrun(tmp_path / "logs", *settings)
    assert process.wait(200) == 0
    assert said(tmp_path / "logs", "stdout") == [f"{tmp_path / 'run'}\n", ""]
    assert read_json(tmp_path / "run" / "train.json")["processes"] == 2


def trains(rank: int, port: int, folder: Path, arguments: list[str], out: Path) -> None:
    """``hybridbatch train`` as one of two processes, in a folder."""
    os.chdir(folder)
    os.environ |= {
        "RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port), "TORCHELASTIC_USE_AGENT_STORE": "True",
    }  # fmt: skip
    sys.argv = ["hybridbatch", "train", "--out", str(out / "run"), "--device", "cpu"]
    sys.argv += ["--batch-size", "6", "--steps", "1", *arguments]
    with (out / f"{rank}.txt").open("w") as told, contextlib.redirect_stderr(told):
        main()


@pytest.mark.parametrize("other", [pytest.param("config", marks=SLOW), "model_fingerprint"])
def test_processes_that_disagree_are_told_of_the_difference(data, tiny_model, tmp_path, other):
    folders = [tmp_path / "a", tmp_path / "b"]  # as on two machines
    for folder in folders:
        shutil.copytree(tiny_model, folder / "model")
    arguments = [["--data", str(data), "--model", "model"] for _ in folders]
    if other == "config":
        arguments[1] += ["--seed", "1"]
    else:
        weights = folders[1] / "model" / "model.safetensors"
        save_file({name: 2 * value for name, value in load_file(weights).items()}, weights)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    # Torchrun's own store, in which processes agree on who tells of an error.
    store = dist.TCPStore("127.0.0.1", port, is_master=True, wait_for_workers=False)
    context = child_processes()
    places = [(rank, store.port, folders[rank], arguments[rank], tmp_path) for rank in range(2)]
    processes = [context.Process(target=trains, args=place) for place in places]
    for process in processes:
        process.start()
    for process in processes:
        process.join(120)
    assert [process.exitcode for process in processes] == [2, 2]
    errors = [(tmp_path / f"{rank}.txt").read_text() for rank in range(2)]
    told = [line for text in errors for line in text.splitlines() if line.startswith("error: ")]
    assert len(told) == 1, errors
    assert f"the processes disagree: {other} is" in told[0]
    assert not (tmp_path / "run").exists()
