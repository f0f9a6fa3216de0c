"""Where every step is logged besides the terminal: a function per target, chosen by `--log-to`."""

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

from hybridbatch.common.errors import ConfigError
from hybridbatch.common.files import atomic_path, output_errors
from hybridbatch.training.settings import TrainConfig

# "step" and numbers by name; names such as "validation/loss" for the rarer ones
Record = Mapping[str, Any]
Log = Callable[[Record], None]


@contextmanager
def _nothing(run: Path, config: TrainConfig, done: int) -> Iterator[Log]:
    yield lambda record: None


@contextmanager
def _jsonl(run: Path, config: TrainConfig, done: int) -> Iterator[Log]:
    """``steps.jsonl``, one line per record; on resume, lines after the checkpoint are dropped."""
    path = run / "steps.jsonl"
    kept = [line for line in _lines(path) if json.loads(line)["step"] <= done]
    with atomic_path(path) as temporary:
        temporary.write_text("".join(kept), encoding="utf-8")
    with output_errors(path):
        file = path.open("a", encoding="utf-8")

    def log(record: Record) -> None:
        with output_errors(path):
            file.write(json.dumps(record) + "\n")
            file.flush()

    with file:
        yield log


def _lines(path: Path) -> list[str]:
    """Whole lines; a process killed while writing leaves half of one at the end."""
    if not path.exists():
        return []
    return [
        line
        for line in path.read_text(encoding="utf-8").splitlines(keepends=True)
        if line.endswith("}\n")
    ]


@contextmanager
def _tensorboard(run: Path, config: TrainConfig, done: int) -> Iterator[Log]:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise ConfigError(
            "log_to = 'tensorboard': not installed; `pip install tensorboard`"
        ) from error
    writer = SummaryWriter(run / "tensorboard", purge_step=done + 1)

    def log(record: Record) -> None:
        for name, value in record.items():
            if isinstance(value, int | float) and name != "step":
                writer.add_scalar(name, value, record["step"])

    try:
        yield log
    finally:
        writer.close()


@contextmanager
def _wandb(run: Path, config: TrainConfig, done: int) -> Iterator[Log]:
    try:
        import wandb  # type: ignore[import-not-found,unused-ignore]
    except ImportError as error:
        raise ConfigError("log_to = 'wandb': not installed; `pip install wandb`") from error
    session = wandb.init(
        project="hybridbatch",
        name=run.name,
        id=run.name,
        resume="allow",
        dir=run,
        config=config.as_json(),
    )
    try:
        yield lambda record: session.log(dict(record), step=record["step"])
    finally:
        session.finish()


TARGETS: dict[str, Callable[[Path, TrainConfig, int], AbstractContextManager[Log]]] = {
    "none": _nothing,
    "jsonl": _jsonl,
    "tensorboard": _tensorboard,
    "wandb": _wandb,
}


def open_log(run: Path, config: TrainConfig, done: int) -> AbstractContextManager[Log]:
    """A function that takes one record per step. Raises `ConfigError` if the target's package is
    not installed.

    Args:
        done: steps already done and logged by an earlier session.
    """
    return TARGETS[config.log_to](run, config, done)
