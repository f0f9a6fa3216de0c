"""The command that trains an encoder."""

from hybridbatch.cli import console
from hybridbatch.cli.base import TRAINING, DryRun, command, reporter
from hybridbatch.training.settings import TrainConfig


@command(
    TRAINING,
    TrainConfig,
    examples=[
        "hybridbatch train --mix 50% --steps 200",
        "hybridbatch train --config run.yaml --data data/mine --out experiments/mine",
        "hybridbatch train --data data/mine --dry-run",
    ],
)
def train(config: TrainConfig, dry_run: DryRun = False) -> None:
    """Fine-tune one encoder with hybrid batches."""
    if dry_run:
        from hybridbatch.training.train import plan

        return console.document(plan(config, reporter()))
    from hybridbatch.training.train import train as run

    console.path(run(config, reporter()))
