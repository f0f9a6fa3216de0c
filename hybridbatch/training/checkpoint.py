"""Checkpoints: a folder appears whole or not at all, and a run continues from the newest one.

A run folder holds these files:

- ``run.json``, written first: the settings and fingerprints that identify the run;
- ``checkpoints/step-000123/`` with ``state.safetensors`` and ``state.json``;
- ``teacher.safetensors``, if there is a teacher: the teacher's vectors;
- ``model/`` and, written last, ``train.json``, when the run is finished.
"""

import contextlib
import json
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import torch
from filelock import FileLock, Timeout
from pydantic import BaseModel, ConfigDict, Field
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor
from xxhash import xxh3_64

from hybridbatch.common.documents import Shape, read_document
from hybridbatch.common.errors import ConfigError, DataError, OutputError
from hybridbatch.common.files import (
    LEFTOVER,
    atomic_folder,
    atomic_path,
    make_folder,
    output_errors,
    write_json,
)
from hybridbatch.common.integrity import damage
from hybridbatch.common.progress import Reporter
from hybridbatch.training.settings import TrainConfig

RUN, TRAINED, LOCK = "run.json", "train.json", ".lock"
TEACHER = "teacher.safetensors"  # the vectors of the teacher of a distillation
CHECKSUM = "xxh3"  # a key in the metadata of safetensors files: see `_content_checksum`
EARLIER = "remove the folder to go on from an earlier checkpoint"
KEEP = 2  # number of newest checkpoints that are kept, besides the best one
# Settings that have no effect on the weights. The data is compared by its fingerprint.
UNCOMPARED = frozenset(
    {"name", "out", "data", "data_root", "log_to", "checkpoint_every", "store_tokens"}
)


@dataclass
class Progress:
    """The state of a run, except its tensors."""

    step: int = 0  # steps done
    # tokens per micro-batch; part of the state because dropout depends on the micro-batches
    token_budget: int = 0
    # the skipped steps in a row that end at the current step
    streak: list[int] = field(default_factory=list)
    validations: list[dict[str, Any]] = field(default_factory=list)
    best: int | None = None  # step of the best validation
    stopped_early: bool = False
    seconds: float = 0.0  # spent in training steps, over all sessions
    tokens: int = 0
    padded_tokens: int = 0
    work: float = 0.0  # operations, as `training.flops` counts them
    # of fp16, with the number of finite steps since it last changed
    loss_scale: float | None = None
    finite_steps: int = 0
    threads: int = 0  # of the CPU, on whose number the bits of sums depend; 0: not known

    def best_value(self, metric: str) -> float | None:
        """The validation metric at the best step."""
        return next((v[metric] for v in self.validations if v["step"] == self.best), None)


class State(Shape):
    """``state.json``: the fields of `Progress`."""

    model_config = ConfigDict(extra="forbid")
    what: ClassVar[str] = "state of a checkpoint"

    step: int = Field(ge=0)
    token_budget: int = Field(ge=0)
    streak: list[int]
    validations: list[dict[str, float | int | None]]
    best: int | None
    stopped_early: bool
    seconds: float
    tokens: int
    padded_tokens: int
    work: float = 0.0
    loss_scale: float | None = Field(default=None, gt=0)
    finite_steps: int = Field(default=0, ge=0)
    threads: int = Field(default=0, ge=0)


class FoundTemperature(BaseModel):
    """The result of `--temperature auto`."""

    value: float = Field(gt=0, allow_inf_nan=False)


class Run(Shape):
    """``run.json``."""

    kind_name: ClassVar[str] = "run"
    versions: ClassVar[tuple[int, ...]] = (1,)
    what: ClassVar[str] = "record of a training run"

    config: dict[str, Any]
    token_budget: int | None = Field(None, gt=0)
    temperature_found: FoundTemperature | None = None


def read_run(run: Path) -> dict[str, Any]:
    """Read the run's ``run.json``.

    Raises: `DataError` if the file is missing or damaged.
    """
    return read_document(
        run / RUN, Run, "choose another --name, or remove the folder to start again"
    )


def folder_of(run: Path, step: int) -> Path:
    """The folder of the checkpoint after `step` steps."""
    return run / "checkpoints" / f"step-{step:06d}"


def save(run: Path, progress: Progress, tensors: Mapping[str, Tensor]) -> None:
    """Write a checkpoint and remove checkpoints that are no longer needed.

    Raises: `OutputError` if it cannot be written; the earlier checkpoints stay whole.
    """
    folder = folder_of(run, progress.step)
    with atomic_folder(folder) as temporary:
        _save_tensors(temporary / "state.safetensors", tensors)
        write_json(temporary / "state.json", asdict(progress), sealed=True)
    steps = found_steps(run)
    kept = {*steps[-KEEP:], progress.best}
    for step in steps:
        if step not in kept:
            shutil.rmtree(folder_of(run, step), ignore_errors=True)


def save_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write one file, whole or not at all.

    Raises: `OutputError` if it cannot be written.
    """
    with atomic_path(path) as temporary:
        _save_tensors(temporary, tensors)


def _save_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Raises `OSError`."""
    content = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    try:
        save_file(content, path, metadata={CHECKSUM: _content_checksum(content)})
    except SafetensorError as error:  # safetensors hides the system's error in its text
        number = re.search(r"os error (\d+)", str(error))
        raise OSError(int(number[1]) if number else 0, str(error)) from error


def load_tensors(path: Path, mend: str) -> dict[str, Tensor]:
    """What `save_tensors` wrote, compared with its checksum.

    Args:
        mend: what the user can do about damage.
    Raises: `DataError` if the file is damaged or missing.
    """
    try:
        with safe_open(path, "pt") as file:
            expected = (file.metadata() or {}).get(CHECKSUM)
        tensors = load_file(path)
    except (SafetensorError, OSError, ValueError) as error:
        raise damage(path, str(error)[:200], mend) from error
    if expected is not None and _content_checksum(tensors) != expected:
        raise damage(path, "its numbers have changed", mend)
    return tensors


def _content_checksum(tensors: Mapping[str, Tensor]) -> str:
    """Of names, types, shapes and numbers, whatever their order in the file."""
    digest = xxh3_64()
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}\n".encode())
        digest.update(
            tensor.reshape(-1).view(torch.uint8).numpy().data if tensor.numel() else b""
        )
    return digest.hexdigest()


def load(run: Path, step: int) -> tuple[Progress, dict[str, Tensor]]:
    """Read a checkpoint. Raises `DataError` if it is damaged."""
    folder = folder_of(run, step)
    state = read_document(folder / "state.json", State, EARLIER)
    return Progress(**state), load_tensors(folder / "state.safetensors", EARLIER)


def found_steps(run: Path) -> list[int]:
    """Steps of the checkpoints that are there, ascending."""
    names = (
        re.fullmatch(r"step-(\d{6,})", path.name)
        for path in (run / "checkpoints").glob("step-*")
    )
    return sorted(int(name[1]) for name in names if name)


def newest(run: Path, report: Reporter) -> int | None:
    """The step of the newest checkpoint that is whole."""
    for step in reversed(found_steps(run)):
        try:
            load(run, step)
        except DataError as error:
            report.warn(f"{error}. Training continues from an earlier checkpoint")
        else:
            return step
    return None


def remove_leftovers(run: Path) -> None:
    """Remove what a killed process left half-written; `files` names it ``.NAME.PID.tmp`` or
    ``.old``.
    """
    for folder in (run, run / "checkpoints"):
        for leftover in folder.glob(".*"):
            if LEFTOVER.fullmatch(leftover.name):
                if leftover.is_dir():
                    shutil.rmtree(leftover, ignore_errors=True)
                else:
                    leftover.unlink(missing_ok=True)


@contextlib.contextmanager
def locked(run: Path) -> Iterator[None]:
    """Keep other processes from training in the same folder. Raises `OutputError` if one does."""
    make_folder(run)
    lock = FileLock(run / LOCK, timeout=0)
    with output_errors(run):
        try:
            lock.acquire()
        except Timeout as error:
            raise OutputError(
                f"{run}: another process is training in this folder; wait until it ends, or"
                " choose another --name"
            ) from error
    try:
        yield
    finally:
        lock.release()
        if not (run / RUN).exists():  # nothing has begun
            (run / LOCK).unlink(missing_ok=True)
            with contextlib.suppress(OSError):
                run.rmdir()


@contextlib.contextmanager
def taken_back(run: Path) -> Iterator[None]:
    """Around the start of a run: what it has written goes if its settings turn out not to work."""
    begun = (run / RUN).exists()
    try:
        yield
    except ConfigError:
        if not begun:
            for name in (RUN, TEACHER):
                (run / name).unlink(missing_ok=True)
        raise


def require_own_folder(run: Path) -> None:
    """Refuse a folder that holds something else than a run. Raises `OutputError`."""
    with output_errors(run):
        names = sorted(path.name for path in run.iterdir()) if run.exists() else []
    strangers = [name for name in names if name != LOCK and not LEFTOVER.fullmatch(name)]
    if strangers and RUN not in strangers:
        raise OutputError(
            f"{run}: is not a training run (it holds {', '.join(strangers[:3])}); choose"
            " another folder with --name or --out"
        )


def require_same(run: Path, identity: Mapping[str, Any]) -> None:
    """Refuse to go on with other settings or data.

    Args:
        identity: ``config`` and whatever else of ``run.json`` must be equal.
    Raises: `ConfigError` that shows every difference.
    """
    old, new = _comparable(read_run(run)), _comparable(json.loads(json.dumps(identity)))
    changes = [
        f"{key}: {_show(old.get(key))} -> {_show(value)}"
        for key, value in new.items()
        if old.get(key) != value
    ]
    if changes:
        raise ConfigError(
            f"{run}: was started with other settings or data ({'; '.join(changes)}); choose another"
            " --name, or remove the folder to start again"
        )


def _comparable(identity: Mapping[str, Any]) -> dict[str, Any]:
    config = TrainConfig().as_json() | identity["config"]  # a run may be older than a setting
    settings = {key: value for key, value in config.items() if key not in UNCOMPARED}
    return settings | {key: value for key, value in identity.items() if key != "config"}


def _show(value: Any) -> str:
    return "none" if value is None else json.dumps(value, ensure_ascii=False)


def is_finished(run: Path) -> bool:
    """Whether the run's last file is there, and its model has not been taken away."""
    return (run / TRAINED).is_file() and (run / "model").is_dir()


def clear(run: Path) -> None:
    """Remove the checkpoints of a finished run: its model is saved, and optimizer state is three
    times its size.
    """
    shutil.rmtree(run / "checkpoints", ignore_errors=True)
    for name in ("bad_batch.json", TEACHER):
        with contextlib.suppress(FileNotFoundError):
            os.remove(run / name)
