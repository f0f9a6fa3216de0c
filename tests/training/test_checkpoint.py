"""Checkpoints appear whole or not at all, and a run is never continued as another."""

import os
import resource
import signal
from pathlib import Path

import pytest
import torch

from hybridbatch.common.errors import ConfigError, DataError, OutputError
from hybridbatch.common.files import write_json
from hybridbatch.common.progress import SILENT
from hybridbatch.training import checkpoint
from hybridbatch.training.checkpoint import Progress

TENSORS = {"weight.a": torch.arange(6.0).reshape(2, 3), "applied": torch.tensor([0, 1])}


class Warnings:
    def __init__(self) -> None:
        self.texts: list[str] = []

    def warn(self, text: str) -> None:
        self.texts.append(text)


def write(run: Path, *steps: int, best: int | None = None) -> None:
    for step in steps:
        checkpoint.save(
            run,
            Progress(step=step, best=best if best in (None, *range(step + 1)) else None),
            TENSORS,
        )


def test_what_is_saved_is_loaded(tmp_path):
    progress = Progress(
        step=7,
        token_budget=100,
        streak=[6],
        validations=[{"step": 7, "loss": 0.5}],
        best=7,
        seconds=1.5,
        tokens=9,
    )
    checkpoint.save(tmp_path, progress, TENSORS)
    loaded, tensors = checkpoint.load(tmp_path, 7)
    assert loaded == progress
    assert loaded.best_value("loss") == 0.5
    assert all(torch.equal(tensors[name], value) for name, value in TENSORS.items())


def test_the_last_two_and_the_best_are_kept(tmp_path):
    write(tmp_path, 10, 20, 30, 40, 50, best=20)
    assert checkpoint.found_steps(tmp_path) == [20, 40, 50]


def test_steps_beyond_six_digits_stay_in_order(tmp_path):
    write(tmp_path, 999_999, 1_000_000)
    assert checkpoint.newest(tmp_path, SILENT) == 1_000_000


def test_the_newest_is_found(tmp_path):
    assert checkpoint.newest(tmp_path, SILENT) is None
    write(tmp_path, 10, 20)
    (tmp_path / "checkpoints" / ".step-000030.123.tmp").mkdir()
    assert checkpoint.newest(tmp_path, SILENT) == 20


def test_leftovers_of_killed_processes_are_removed_and_nothing_else(tmp_path):
    write(tmp_path, 10)
    for name in (".run.json.12.tmp", ".mine", ".lock"):
        (tmp_path / name).write_text("{}")
    for name in ("checkpoints/.step-000030.123.tmp", ".model.123.old"):
        (tmp_path / name).mkdir()
    checkpoint.remove_leftovers(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [".lock", ".mine", "checkpoints"]
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["step-000010"]


@pytest.mark.parametrize("name", ["state.safetensors", "state.json"])
@pytest.mark.parametrize("damage", ["cut", "missing", "flipped"])
def test_a_damaged_checkpoint_is_passed_over_with_a_warning(tmp_path, name, damage):
    write(tmp_path, 10, 20)
    file = checkpoint.folder_of(tmp_path, 20) / name
    if damage == "cut":
        file.write_bytes(file.read_bytes()[:-9])
    elif damage == "flipped":  # another number, in a file that can be read
        content = bytearray(file.read_bytes())
        place = content.index(b"20") if name == "state.json" else len(content) - 3
        content[place] ^= 1
        file.write_bytes(content)
    else:
        file.unlink()
    warnings = Warnings()
    assert checkpoint.newest(tmp_path, warnings) == 10
    assert "step-000020" in warnings.texts[0]
    with pytest.raises(DataError, match="step-000020"):
        checkpoint.load(tmp_path, 20)


def test_a_full_disk_leaves_the_earlier_checkpoint(tmp_path):
    write(tmp_path, 10)
    child = os.fork()
    if not child:  # the file size limit holds for a whole process
        outcome = 1
        try:
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))
            checkpoint.save(tmp_path, Progress(step=20), {"weight": torch.zeros(10_000)})
        except OutputError as error:
            outcome = 0 if "step-000020" in str(error) else 2
        finally:
            os._exit(outcome)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert checkpoint.found_steps(tmp_path) == [10]
    assert checkpoint.newest(tmp_path, SILENT) == 10
    assert not list((tmp_path / "checkpoints").glob(".*"))


def test_a_foreign_folder_is_refused(tmp_path):
    checkpoint.require_own_folder(tmp_path / "new")
    checkpoint.require_own_folder(tmp_path)
    (tmp_path / ".run.json.12.tmp").write_text("killed before its first file was there")
    checkpoint.require_own_folder(tmp_path)
    (tmp_path / "thesis.tex").write_text("...")
    with pytest.raises(OutputError, match=r"not a training run.*thesis\.tex"):
        checkpoint.require_own_folder(tmp_path)


def test_another_configuration_is_refused_and_shown(tmp_path):
    write_json(
        tmp_path / "run.json",
        {
            "schema_version": 1,
            "kind": "run",
            "config": {"mix": 0.5, "name": "a", "log_to": "jsonl"},
            "data": "f00",
        },
    )
    checkpoint.require_same(
        tmp_path, {"config": {"mix": 0.5, "name": "b", "log_to": "none"}, "data": "f00"}
    )
    with pytest.raises(
        ConfigError, match=r"mix: 0\.5 -> 0\.3; data: \"f00\" -> \"ba5\".*--name"
    ):
        checkpoint.require_same(tmp_path, {"config": {"mix": 0.3}, "data": "ba5"})
    # a younger setting
    checkpoint.require_same(
        tmp_path, {"config": {"mix": 0.5, "lora_rank": None}, "data": "f00"}
    )


def test_two_processes_cannot_train_in_one_folder(tmp_path):
    refused = pytest.raises(OutputError, match="another process")
    with checkpoint.locked(tmp_path / "run"), refused, checkpoint.locked(tmp_path / "run"):
        pass
    with checkpoint.locked(tmp_path / "run"):
        pass
