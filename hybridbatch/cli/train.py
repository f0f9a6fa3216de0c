"""The command that trains an encoder."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hybridbatch.cli import console
from hybridbatch.cli.base import TRAINING, DryRun, command, reporter
from hybridbatch.training.settings import TrainConfig

if TYPE_CHECKING:
    from hybridbatch.scoring.debias_settings import DebiasConfig


@command(
    TRAINING,
    TrainConfig,
    examples=[
        "hybridbatch train --mix 50% --steps 200",
        "hybridbatch train --config run.yaml --data data/mine --out experiments/mine",
        "hybridbatch train --data data/mine --dry-run",
    ],
)
def train(
    config: TrainConfig,
    dry_run: DryRun = False,
    debias_text: Annotated[
        str | None,
        typer.Option(
            help="After training, estimate language vectors of the trained model from this text"
            " by language (as `hybridbatch debias --text` does) and write them to"
            " RUN/language_vectors."
        ),
    ] = None,
) -> None:
    """Fine-tune one encoder with hybrid batches."""
    if dry_run:
        from hybridbatch.training.train import plan

        return console.document(plan(config, reporter()))
    from hybridbatch.training.train import train as run

    if debias_text:
        after = _debias_config(config, debias_text)
    folder = run(config, reporter())
    if debias_text and os.environ.get("RANK", "0") == "0":
        from hybridbatch.scoring.debias import estimate

        out = folder / "language_vectors"
        console.path(
            estimate(after.model_copy(update={"model": str(folder), "out": out}), reporter())
        )
    console.path(folder)


def _debias_config(config: TrainConfig, text: str) -> "DebiasConfig":
    """The settings of the estimate after training; a missing text is reported before training."""
    from hybridbatch.common.errors import ConfigError
    from hybridbatch.data.tasks.registry import TASKS
    from hybridbatch.scoring.debias_settings import DebiasConfig

    texts = tuple(part.strip() for part in text.split(",") if part.strip())
    for name in texts:
        if not Path(name).exists() and name.partition(":")[0] not in TASKS:
            raise ConfigError(
                f"debias-text = {name!r}: is neither a folder or file nor a built-in task;"
                " check the path, or name a task"
            )
    return DebiasConfig(
        text=texts,
        max_query_tokens=config.max_query_tokens,
        max_passage_tokens=config.max_passage_tokens,
        device=config.device,
    )
