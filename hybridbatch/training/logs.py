"""Logs of every step besides the terminal: one function per target, chosen by `--log-to`."""

import json
import re
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

from hybridbatch.common.errors import ConfigError, DataError
from hybridbatch.common.files import (
    atomic_path,
    output_errors,
    parse_json,
    read_bytes,
    write_text,
)
from hybridbatch.common.integrity import checksum
from hybridbatch.training.settings import TrainConfig

# "step" and numbers by name; numbers that not every step has are named like "validation/loss"
Record = Mapping[str, Any]
Log = Callable[[Record], None]
PACKAGES = {"tensorboard": "torch.utils.tensorboard", "wandb": "wandb"}
_MORE_THAN_A_LINE = re.compile('"xxh3": "[0-9a-f]{16}"}.+$')
HEADLINES = ("loss/all batches", "validation/loss", "validation/mrr")  # beside hyperparameters


@contextmanager
def _nothing(run: Path, config: TrainConfig, done: int) -> Iterator[Log]:
    yield lambda record: None


@contextmanager
def _jsonl(run: Path, config: TrainConfig, done: int) -> Iterator[Log]:
    """``steps.jsonl``, one line per record; on resume, lines after the checkpoint are dropped.

    Every line ends with the checksum of what stands before it.

    Raises:
        DataError: A line is damaged.
    """
    path = run / "steps.jsonl"
    kept = [
        line for number, line in enumerate(_lines(path), 1) if _step(path, number, line) <= done
    ]
    with atomic_path(path) as temporary:
        temporary.write_text("".join(kept), encoding="utf-8")
    with output_errors(path):
        file = path.open("a", encoding="utf-8")

    def log(record: Record) -> None:
        with output_errors(path):
            file.write(_sealed(json.dumps(record)[:-1]))
            file.flush()

    with file:
        yield log


def _lines(path: Path) -> list[str]:
    """The whole lines of a file; a process killed while writing leaves half a line at the end."""
    if not path.exists():
        return []
    text = read_bytes(path).decode("utf-8", "surrogateescape")
    *lines, last = text.split("\n")
    if _MORE_THAN_A_LINE.search(last):  # not cut, but its line feed is another character
        last += "}"
    return [f"{line}\n" for line in [*lines, *([last] if last.endswith("}") else [])]]


def _sealed(body: str) -> str:
    """A line of JSON with the checksum of its entries as the last one."""
    return f'{body}, "xxh3": "{checksum(body.encode("utf-8", "surrogateescape"))}"}}\n'


def _step(path: Path, number: int, line: str) -> int:
    """The step of a line, which is compared with its checksum if it has one."""
    mend = "delete the line or the file, which only records how the training went, and go on"
    record = parse_json(line, f"{path}:{number}", mend)
    step = record.get("step") if isinstance(record, dict) else None
    # by its key or by its form, of which damage leaves at least one
    has_checksum = '"xxh3": "' in line[-40:] or line[-20:-19] == line[-3:-2] == '"'
    if type(step) is not int or (has_checksum and line != _sealed(line[:-30])):
        raise DataError(f"{path}:{number}: is damaged; {mend}")
    return step


def grouped(record: Record) -> dict[str, float]:
    """The numbers of a record, under names that dashboards group by.

    The names are ``loss/...`` (of all batches, and of the batch's kind), ``optimisation/...``,
    ``rates/...`` and ``validation/...``.
    """
    found = {}
    for name, value in record.items():
        if name == "step" or isinstance(value, bool) or not isinstance(value, int | float):
            continue
        if name == "loss":
            found["loss/all batches"] = value
            if record.get("kind"):
                found[f"loss/{record['kind']}"] = value
        elif "/s" in name or name == "of peak":
            found[f"rates/{name.replace('/s', ' per second')}"] = value
        elif "/" in name:
            found[name] = value
        else:
            found[f"optimisation/{name}"] = value
    return found


@contextmanager
def _tensorboard(run: Path, config: TrainConfig, done: int) -> Iterator[Log]:
    _require(config.log_to)
    from torch.utils.tensorboard import SummaryWriter
    from torch.utils.tensorboard.summary import hparams

    writer = SummaryWriter(run / "tensorboard", purge_step=done + 1)
    settings = {name: _plain(value) for name, value in config.as_json().items()}
    for summary in hparams(settings, dict.fromkeys(HEADLINES, 0.0)):
        writer.file_writer.add_summary(summary)

    def log(record: Record) -> None:
        for name, value in grouped(record).items():
            writer.add_scalar(name, value, record["step"])

    try:
        yield log
    finally:
        writer.close()


def _plain(value: Any) -> Any:
    """`value` as a hyperparameter of TensorBoard: a number, a text or a truth value."""
    return value if isinstance(value, bool | int | float | str) else str(value)


@contextmanager
def _wandb(run: Path, config: TrainConfig, done: int) -> Iterator[Log]:
    _require(config.log_to)
    import wandb  # type: ignore[import-not-found,unused-ignore]

    session = wandb.init(
        project="hybridbatch",
        name=run.name,
        id=_wandb_id(run, done),
        resume="allow",
        dir=run,
        config=config.as_json(),
    )
    try:
        yield lambda record: session.log(grouped(record), step=record["step"])
    finally:
        session.finish()


def _wandb_id(run: Path, done: int) -> str:
    """The id of a run in its W&B project, of which the folder keeps a note; a resumed run has its
    old one. The name of the folder would not do: folders in different places may share it.
    """
    path = run / "wandb-id.txt"
    if done and path.is_file():
        return read_bytes(path).decode("utf-8", "replace").strip()
    made = uuid.uuid4().hex
    write_text(path, made + "\n")
    return made


def check_log(config: TrainConfig) -> None:
    """Refuse a log whose package is not installed, before any work. Raises `ConfigError`."""
    _require(config.log_to)


def _require(target: str) -> None:
    module = PACKAGES.get(target)
    if module is None:
        return
    try:
        import_module(module)
    except ImportError as error:
        raise ConfigError(
            f"log_to = {target!r}: the package is not installed; run `pip install {target}`"
            " or `pip install 'hybridbatch[logs]'`"
        ) from error


TARGETS: dict[str, Callable[[Path, TrainConfig, int], AbstractContextManager[Log]]] = {
    "none": _nothing,
    "jsonl": _jsonl,
    "tensorboard": _tensorboard,
    "wandb": _wandb,
}


def open_log(run: Path, config: TrainConfig, done: int) -> AbstractContextManager[Log]:
    """A function that takes one record per step.

    Args:
        run: folder of the run.
        config: settings, with the target.
        done: number of steps that an earlier session has taken and logged.
    Raises: `ConfigError` if the package of the target is not installed.
    """
    return TARGETS[config.log_to](run, config, done)
