"""A `Trainer` on made-up data and a tiny encoder, and child processes that start quickly."""

import multiprocessing
import os
import signal
from pathlib import Path

import torch

from hybridbatch.common.distributed import Workers
from hybridbatch.common.progress import SILENT, Reporter
from hybridbatch.model import Encoder
from hybridbatch.sampling.plan import plan_schedule
from hybridbatch.training.alignment import plan_translations
from hybridbatch.training.batches import Batches
from hybridbatch.training.distillation import Targets, Teacher
from hybridbatch.training.loop import Machine, Trainer
from hybridbatch.training.settings import TrainConfig
from hybridbatch.training.validation import Validation, plan_validation
from tests.helpers.parallel import Table, rows

SETTINGS = {
    "steps": 8, "batch_size": 6, "learning_rate": 1e-3, "warmup_steps": 2, "log_to": "none",
    "temperature": 0.05,
}  # fmt: skip


def make_trainer(
    model: Path,
    run: Path,
    *,
    double: bool = False,
    validate: bool = True,
    workers: Workers = Workers(),  # noqa: B008  (immutable)
    report: Reporter = SILENT,
    teacher_vectors: int | None = None,
    precision: str = "fp32",
    **changes,
) -> Trainer:
    """A trainer of `model` in the folder `run`; `changes` override `SETTINGS`; `double`: everything
    in float64.

    Args:
        teacher_vectors: size of the random vectors of a teacher that reads the first language, if
            there is to be one.
    """
    config = TrainConfig(model=str(model), **(SETTINGS | changes))
    encoder = Encoder.load(str(model))
    if double:
        encoder.double()
    training, held_out = Table(rows(24)), Table(rows(9, "validation"))
    schedule = plan_schedule(
        training.index, mix=config.mix, batch_size=config.batch_size, steps=config.steps, seed=config.seed,
        strategy=config.strategy, copies=config.copies,
    )  # fmt: skip
    teacher = None
    if config.distils:
        scheduled = {"query": schedule.query_row, "passage": schedule.passage_row}
        targets = Targets.plan(training.index, scheduled, training.index.languages[0])
        random = torch.Generator().manual_seed(5)
        vectors = {
            side: torch.nn.functional.normalize(
                torch.randn(
                    len(targets.distinct(side)), teacher_vectors or 8, generator=random
                ),
                dim=1,
            )
            for side in scheduled
        }
        temperature = config.teacher_temperature or config.temperature
        teacher = Teacher(targets, vectors, config.distill_from, temperature)
    planned, _ = plan_validation(held_out.index, config.batch_size, config.validation_batches)
    translations = None
    if config.align_weight:
        translations = plan_translations(training.index, schedule, config.seed)
    batches = Batches(
        schedule,
        training,
        encoder.tokenise,
        translations=translations,
        hard_negatives=config.hard_negatives,
        seed=config.seed,
    )
    kinds = {}
    if validate:
        for kind, each in planned.items():
            kinds[kind] = Batches(each, held_out, encoder.tokenise)
    machine = Machine(workers, precision, config.micro_tokens or 1 << 20)
    return Trainer(
        encoder.to(workers.device),
        batches,
        Validation(kinds),
        config,
        run,
        machine,
        teacher=teacher,
        report=report,
    )


def weights(trainer: Trainer) -> dict[str, torch.Tensor]:
    """Copies of the full encoder's weights after `finish`."""
    return {name: value.clone() for name, value in trainer.finish().state_dict().items()}


def equal(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    """Whether two sets of weights have the same bits."""
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def interrupt_in(trainer, step, number=signal.SIGTERM):
    """Send this process a signal in the middle of `step` (from 1)."""
    take_step = trainer._step

    def interrupted(*arguments):
        if trainer.progress.step == step - 1:
            os.kill(os.getpid(), number)
        take_step(*arguments)

    trainer._step = interrupted


def child_processes() -> multiprocessing.context.ForkServerContext:
    """Children fork from one server that has torch and transformers imported, but has not used
    them.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.helpers.trainers", "hybridbatch.training.train"])
    return context
