"""The command that trains an encoder."""

from hybridbatch.cli import console
from hybridbatch.cli.base import TRAINING, DryRun, command, reporter
from hybridbatch.training.settings import TrainConfig


@command(TRAINING, TrainConfig)
def train(config: TrainConfig, dry_run: DryRun = False) -> None:
    """Fine-tune one encoder with hybrid batches."""
    if dry_run:
        from hybridbatch.training.train import plan

        return console.document(plan(config, reporter()))
    from hybridbatch.training.train import train as run

    console.out.print(str(run(config, reporter())), highlight=False)
