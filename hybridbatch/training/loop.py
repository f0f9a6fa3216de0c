"""The training loop: steps, validation, checkpoints, and a clean stop on request."""

import math
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hybridbatch.common.device import upload
from hybridbatch.common.distributed import GradientSum, Workers
from hybridbatch.common.errors import DataError, Interrupted
from hybridbatch.common.files import write_json
from hybridbatch.common.memory import freed_memory_kept
from hybridbatch.common.progress import SILENT, Bar, Reporter
from hybridbatch.common.seeding import stream
from hybridbatch.common.stopping import stop_requests
from hybridbatch.common.tokens import TokenArrays
from hybridbatch.model import Encoder
from hybridbatch.sampling.streams import KIND_NAMES
from hybridbatch.training import checkpoint
from hybridbatch.training.alignment import alignment
from hybridbatch.training.batches import Batch, Batches
from hybridbatch.training.checkpoint import Progress
from hybridbatch.training.distillation import Teacher
from hybridbatch.training.flops import Work
from hybridbatch.training.gradient_cache import GradientCache, dropout_seed
from hybridbatch.training.logs import Log, open_log
from hybridbatch.training.lora import Adapters
from hybridbatch.training.loss import InfoNCE
from hybridbatch.training.loss_scale import LossScale
from hybridbatch.training.optimizer import Optimizer, freeze_embeddings, parameter_groups
from hybridbatch.training.settings import TrainConfig
from hybridbatch.training.used_vocabulary import CutEmbedding
from hybridbatch.training.validation import Validation

# number of steps in a row with a loss or gradient that is not finite, after which a run stops
MAX_SKIPPED = 5
TRIED_TEXTS = 8  # to see whether compiled layers work


@dataclass(frozen=True)
class Machine:
    """The hardware that a run computes on, and how it computes.

    Args:
        workers: this process and the other processes of the run.
        precision: precision of the matrix products.
        token_budget: tokens per micro-batch at the start.
        peak: best rate of all processes together, in operations per second; the rate of training is
            compared with it.
    """

    workers: Workers = field(default_factory=Workers)
    precision: Any = "fp32"
    token_budget: int = 1 << 20
    peak: float | None = None


class Trainer:
    """A run in memory: the encoder in training, its optimizer, and the progress.

    Args:
        encoder: on its device. Until `finish`, its word embedding is cut to the touched rows, or it
            has low-rank updates.
        batches: global batches, the same on every process.
        validation: fixed batches; may be empty.
        config: validated settings.
        run: folder of the run.
        machine: hardware to compute on.
        teacher: teacher to distil from, if any.
    """

    def __init__(
        self,
        encoder: Encoder,
        batches: Batches,
        validation: Validation,
        config: TrainConfig,
        run: Path,
        machine: Machine,
        *,
        teacher: Teacher | None = None,
        report: Reporter = SILENT,
    ) -> None:
        self.encoder, self.config = encoder, config
        self.batches, self.validation = batches, validation
        self.run, self.report = run, report
        self.workers, self.peak = machine.workers, machine.peak
        self.precision, token_budget = machine.precision, machine.token_budget
        self.teacher = teacher
        self.progress = Progress(token_budget=token_budget)
        self.scale = LossScale.of(self.precision)
        self.losses: list[float] = []
        self.gradient_norms: list[float] = []
        objective = build_objective(config, encoder.dimension)
        self.objective = objective.to(next(encoder.parameters()))
        if config.dropout is not None:
            set_dropout(encoder, config.dropout)
        self.adapters: Adapters | None = None
        if config.lora_rank is not None:
            alpha = config.lora_alpha or 2 * config.lora_rank
            self.adapters = Adapters(encoder, config.lora_rank, alpha, config.seed)
        if config.compile:
            encoder.compile_layers()
        if config.freeze_embeddings:
            freeze_embeddings(encoder)
        self.cut: CutEmbedding | None = None
        if CutEmbedding.possible(encoder.model):
            self.cut = CutEmbedding(encoder.model, self._words())
        self.work = Work(encoder.model)
        self.optimizer = Optimizer(parameter_groups(encoder, self.objective, config), config)
        self.sums = GradientSum(self.workers, encoder.parameters())
        self.cache = GradientCache(
            lambda tokens: encoder.embed(tokens, self.precision),
            list(self.optimizer.named.values()),
            token_budget,
            device=self.workers.device,
            on_halved=self._halved,
            anywhere=self.workers.anywhere,
            sums=self.sums,
        )
        if encoder.compiled is not None:
            self._try_compiled_layers()

    def use_budget(self, tokens: int) -> None:
        """Set the tokens per micro-batch."""
        self.cache.budget = self.progress.token_budget = tokens

    @property
    def done(self) -> bool:
        """Whether all steps are taken."""
        return self.progress.stopped_early or self.progress.step >= self.config.steps

    def resume(self, step: int) -> None:
        """Restore the checkpoint after `step` steps.

        Raises: `DataError` if it is damaged.
        """
        self.progress, tensors = checkpoint.load(self.run, step)
        self.losses, self.gradient_norms = (
            tensors["losses"].tolist(),
            tensors["gradient_norms"].tolist(),
        )
        self.cache.budget = self.progress.token_budget
        if self.progress.loss_scale is not None:
            self.scale = LossScale(self.progress.loss_scale, self.progress.finite_steps)
        self.optimizer.load(tensors)
        self._compare_threads()

    def _compare_threads(self) -> None:
        """Warn if the run goes on with another number of threads, which changes its last bits."""
        before, now = self.progress.threads, torch.get_num_threads()
        if self.workers.device.type == "cpu" and before not in (0, now):
            self.report.warn(
                f"{self.run}: was trained with {before} CPU threads until here and goes on with"
                f" {now}, so its last bits will not be those of an uninterrupted run"
                f" (OMP_NUM_THREADS={before} keeps them)"
            )

    def train(self) -> None:
        """Take all remaining steps.

        Raises:
            Interrupted: the user stopped the run (SIGINT, SIGTERM); a checkpoint is written.
            DataError: too many losses in a row were not finite; ``bad_batch.json`` names the
                records.
            OutputError: a checkpoint cannot be written.
        """
        config, progress = self.config, self.progress
        progress.threads = torch.get_num_threads()
        log_folder = (
            open_log(self.run, config, progress.step)
            if self.workers.leads
            else open_log_nowhere()
        )
        with (
            log_folder as log,
            freed_memory_kept(),
            stop_requests() as stop_requested,
            self.report.bar("training", config.steps, "steps", progress.step) as bar,
        ):
            if progress.step == 0 and not progress.validations:
                self._validate(log)
            while not self.done:
                self._step(log, bar)
                stop = self.workers.anywhere(stop_requested())
                better = self._due(config.validation_interval) and self._validate(log)
                if (
                    better
                    or stop
                    or self.done
                    or self._due(config.checkpoint_every or config.validation_interval)
                ):
                    self._save()
                if stop:
                    # also after the last step: the stop may be meant for a sweep with more to do
                    raise Interrupted(
                        f"{self.run}: stopped after step {progress.step} of {config.steps}; the"
                        " same command goes on from there"
                    )

    def finish(self) -> Encoder:
        """The trained encoder, with the best weights and the full word embedding.

        Without validation the last weights count as the best. If there is a moving average, its
        weights are used. The trainer cannot take further steps.
        """
        best = self.progress.best
        if best is not None and best != self.progress.step:
            _, tensors = checkpoint.load(self.run, best)
            self.optimizer.load(tensors)
        self.encoder.restore_layers()
        self.optimizer.use_average()
        if self.cut is not None:
            self.cut.restore(
                self.optimizer.decay_factors(self.cut.rows.weight), self.config.ema
            )
        if self.adapters is not None:
            self.adapters.merge()
        return self.encoder.eval()

    def _try_compiled_layers(self) -> None:
        """Raises: `ConfigError` if compiled layers do not work here, before any step is taken."""
        assert self.encoder.compiled is not None
        tokens = self.batches[0].tokens
        few = tokens.take(np.arange(min(TRIED_TEXTS, len(tokens))))
        self.report.note("compiling the layers takes a minute or so")
        self.encoder.train()

        def embed(seed: int) -> Tensor:
            with dropout_seed(seed, self.workers.device):
                return self.encoder.embed(few, self.precision)

        self.encoder.compiled.trial(embed)
        self.encoder.zero_grad()

    def curve(self) -> list[dict[str, Any]]:
        """Kind and language of the batch, loss, gradient norm and learning rate of every step."""
        return [self._entry(step) for step in range(self.progress.step)]

    def _entry(self, step: int) -> dict[str, Any]:
        schedule = self.batches.schedule
        language = int(schedule.language[step])
        return {
            "step": step + 1,
            "kind": KIND_NAMES[int(schedule.kind[step])],
            "language": self.batches.rows.languages[language] if language >= 0 else None,
            "loss": finite_or_none(self.losses[step]),
            "grad_norm": finite_or_none(self.gradient_norms[step]),
            "learning_rate": self.optimizer.learning_rate(step),
        }

    def _words(self) -> np.ndarray:
        """The token ids that occur in any batch, and the ids that padding may use."""
        size = self.encoder.model.get_input_embeddings().num_embeddings
        seen = self.batches.words(size)
        seen |= self.validation.words(size)
        seen[[0, self.encoder.tokenizer.pad_token_id or 0]] = True
        return np.flatnonzero(seen)

    def _due(self, every: int) -> bool:
        """Whether the step just taken is the last one or a multiple of `every`."""
        step = self.progress.step
        return step == self.config.steps or step % every == 0

    def _halved(self, budget: int) -> None:
        self.progress.token_budget = budget
        self.report.note(f"out of memory: continuing with {budget} tokens per forward pass")

    def _step(self, log: Log, bar: Bar) -> None:
        started = time.perf_counter()
        step, progress = self.progress.step, self.progress
        batch = self.batches[step]
        shares = batch.shares(self.workers.size)
        self.encoder.train()
        self.cache.scale = self.optimizer.scale = self.scale.factor
        with self.encoder.weights_fixed(self.precision):
            device_loss = self.cache.backward(
                batch.tokens.take(shares[self.workers.rank]),
                lambda embeddings: self._loss(step, batch, embeddings, shares),
                lambda number: self._dropout_seed(step, number),
            )
        self.sums.finish()
        # The only wait for the device in a step fetches both numbers at once.
        numbers = torch.stack([device_loss.double(), self.optimizer.total_norm().double()])
        loss, norm = numbers.cpu().tolist()
        norm /= self.scale.factor
        if math.isfinite(loss) and math.isfinite(norm):
            self.optimizer.step(step, norm)
            self.scale.stepped(self.precision)
            progress.streak = []
        elif not math.isfinite(loss) or not self.scale.overflowed():
            progress.streak.append(step)
        self.losses.append(loss)
        self.gradient_norms.append(norm)
        progress.loss_scale, progress.finite_steps = self.scale.factor, self.scale.finite_steps
        progress.step += 1
        progress.tokens += len(batch.tokens.ids)
        progress.padded_tokens += batch.padded_tokens()
        work = self.work.of(batch.tokens.lengths)
        progress.work += work
        seconds = time.perf_counter() - started
        progress.seconds += seconds
        rates = {"pairs/s": batch.pairs / seconds, "tokens/s": len(batch.tokens.ids) / seconds}
        if self.peak:
            rates["of peak"] = work / seconds / self.peak
        log(self._entry(step) | rates)
        bar.advance(1, loss=loss, **rates)
        if len(progress.streak) >= MAX_SKIPPED:
            self._give_up()
        if progress.streak:
            self.report.warn(
                f"step {step + 1}: the loss is {loss} and the gradient norm is {norm}; this"
                " step is skipped"
            )

    def _dropout_seed(self, step: int, number: int) -> int:
        return int(
            stream(self.config.seed, "dropout", step, self.workers.rank, number).integers(2**63)
        )

    def _loss(
        self, step: int, batch: Batch, embeddings: Tensor, shares: list[np.ndarray]
    ) -> Tensor:
        """The loss of the global batch.

        It is (1 - distill_weight) InfoNCE + distill_weight KD + align_weight alignment.
        """
        queries, passages, keys, translations = self._sides(batch, embeddings, shares)
        positives = passages[: batch.pairs]
        loss = self.objective(queries, passages, keys)
        if self.teacher is not None:
            weight, temperature = self.config.distill_weight, self.objective.temperature
            taught = self.teacher.loss(
                step, queries, positives, keys[: batch.pairs], temperature
            )
            loss = (1 - weight) * loss + weight * taught
        if self.config.align_weight:
            texts = torch.cat([queries, positives])
            translated = texts[upload(batch.translates, queries.device)]
            loss = loss + self.config.align_weight * alignment(translated, translations)
        return loss

    def _sides(
        self, batch: Batch, embeddings: Tensor, shares: list[np.ndarray]
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Queries, passages, keys and translations of the global batch.

        They come from the embeddings of this process's share.
        """
        gathered = self.workers.gather(embeddings, [len(share) for share in shares])
        if len(shares) > 1:
            order = upload(np.argsort(np.concatenate(shares)), gathered.device)
            gathered = gathered.index_select(0, order)
        keys = upload(batch.keys, gathered.device)
        queries, passages, translations = gathered.tensor_split(
            [batch.pairs, batch.pairs + len(keys)]
        )
        return queries, passages, keys, translations

    def _validate(self, log: Log) -> bool:
        """Measure the current weights, and start early stopping if it is due.

        The untrained encoder is measured too, for the curve, but is never the best.

        Returns: whether the weights are the best so far.
        """
        if not self.validation:
            return False
        self.encoder.eval()

        def embed(batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
            shares = batch.shares(self.workers.size)
            mine = self.cache.embed_all(batch.tokens.take(shares[self.workers.rank]))
            return self._sides(batch, mine, shares)[:3]

        def embed_tokens(tokens: TokenArrays) -> Tensor:
            shares = np.array_split(np.arange(len(tokens)), self.workers.size)
            mine = self.cache.embed_all(tokens.take(shares[self.workers.rank]))
            return self.workers.gather(mine, [len(share) for share in shares])

        with self.optimizer.averaged(), self.encoder.weights_fixed(self.precision):
            measured = self.validation.measure(
                embed, self.objective, embed_tokens, self.workers.anywhere
            )
        progress, metric = self.progress, self.config.validation_metric
        best = progress.best_value(metric)
        progress.validations.append(
            {"step": progress.step, **{k: finite_or_none(v) for k, v in measured.items()}}
        )
        log(
            {"step": progress.step}
            | {f"validation/{name}": finite_or_none(v) for name, v in measured.items()}
        )
        if progress.step == 0 or not math.isfinite(measured[metric]):
            return False
        sign = -1 if metric == "loss" else 1
        better = best is None or sign * measured[metric] > sign * best
        if better:
            progress.best = progress.step
        elif self.config.patience is not None:
            worse = sum(entry["step"] > (progress.best or 0) for entry in progress.validations)
            progress.stopped_early = worse >= self.config.patience
        self.report.note(f"step {progress.step}: validation {_shown(measured)}")
        return better

    def _save(self) -> None:
        # One process may have halved its budget alone, in a pass that fitted on the others.
        self.use_budget(self.workers.least(self.progress.token_budget))
        if self.workers.leads:
            history = {
                "losses": torch.tensor(self.losses, dtype=torch.float64),
                "gradient_norms": torch.tensor(self.gradient_norms, dtype=torch.float64),
            }
            checkpoint.save(self.run, self.progress, self.optimizer.state() | history)

    def _give_up(self) -> None:
        path = self.run / "bad_batch.json"
        steps = self.progress.streak
        if self.workers.leads:
            bad = [
                self._entry(step) | {"record_ids": self.batches.pair_ids(step)}
                for step in steps
            ]
            write_json(path, {"schema_version": 1, "kind": "bad_batch", "batches": bad})
        raise DataError(
            f"{path}: {len(steps)} steps in a row had a loss or gradient that is not finite (steps"
            f" {steps[0] + 1} to {steps[-1] + 1}); the file names their records. Lower"
            " --learning-rate, use --precision fp32, or mend the records"
        )


def _shown(measured: Mapping[str, float]) -> str:
    """The means of a validation in words."""
    names = {"loss": "loss", "mrr": "MRR", "map": "mAP"}
    parts = [
        f"{words} {measured[name]:.4f}" for name, words in names.items() if name in measured
    ]
    return ", ".join(parts)


def build_objective(config: TrainConfig, dimension: int) -> InfoNCE:
    """The loss that `config` specifies, for embeddings of `dimension`.

    Args:
        config: its temperature is a number, not ``auto``.
    Raises: `ConfigError` for a Matryoshka dimension that does not fit.
    """
    assert isinstance(config.temperature, float)
    objective = InfoNCE(
        config.temperature,
        learn_temperature=config.learn_temperature,
        symmetric=config.symmetric,
        margin=config.margin,
        dims=config.matryoshka_dims,
    )
    objective.check_dims(dimension)
    return objective


def finite_or_none(value: float) -> float | None:
    """`value`, or None if it is not finite, because JSON has no NaN."""
    return value if math.isfinite(value) else None


def set_dropout(module: torch.nn.Module, probability: float) -> None:
    """Set every dropout probability of a transformer.

    This includes probabilities that attention keeps as numbers (ModernBERT).
    """
    for part in module.modules():
        if isinstance(part, torch.nn.Dropout):
            part.p = probability
        elif isinstance(getattr(part, "attention_dropout", None), float):
            part.attention_dropout = probability


@contextmanager
def open_log_nowhere() -> Iterator[Log]:
    """A log that drops its records, for the processes that do not log."""
    yield lambda record: None
