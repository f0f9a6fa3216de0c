"""`hybridbatch train`: from settings to a trained encoder in a run folder."""

import contextlib
import tempfile
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from hybridbatch.common.device import resolve_device, resolve_precision
from hybridbatch.common.distributed import CPU, Workers, join
from hybridbatch.common.errors import ConfigError
from hybridbatch.common.files import write_json
from hybridbatch.common.peak import measured_peak
from hybridbatch.common.progress import LONG, SILENT, Reporter
from hybridbatch.common.provenance import versions
from hybridbatch.common.settings import ResolvedPrecision
from hybridbatch.common.sizes import duration, memory_bytes
from hybridbatch.data.prepare import ensure_prepared, unprepared
from hybridbatch.data.store.reader import Store
from hybridbatch.model import Encoder
from hybridbatch.model.layout import Side
from hybridbatch.model.reckoning import SHARE
from hybridbatch.model.shared import SharedEncoder
from hybridbatch.sampling.strategies import MIXING
from hybridbatch.sampling.streams import KIND_NAMES
from hybridbatch.training import checkpoint
from hybridbatch.training.batches import Batches
from hybridbatch.training.distillation import (
    Teacher,
    check_dimensions,
    read_vectors,
    write_vectors,
)
from hybridbatch.training.gradient_cache import dropout_seed
from hybridbatch.training.inputs import Inputs
from hybridbatch.training.logs import check_log
from hybridbatch.training.loop import Machine, Trainer, build_objective
from hybridbatch.training.loss import WHOLE_SCORES
from hybridbatch.training.model_card import (
    batches_in_words,
    model_card,
    start_peak_memory,
    train_json,
)
from hybridbatch.training.settings import AUTO, TrainConfig
from hybridbatch.training.temperature import FALLBACK, Found, embedded, find_temperature
from hybridbatch.training.token_budget import (
    GpuMemory,
    gpu_token_budget,
    kept_bytes,
    token_budget,
)

RUN_SCHEMA = 1
READ_AT_ONCE = 8192  # tokens of a forward pass without gradients
MICRO = 1_000_000  # unit of a temperature, as processes agree on whole numbers
ANY_STEP = 1 << 60  # value of a process that leaves the choice to the first process


def train(config: TrainConfig, report: Reporter = SILENT) -> Path:
    """Fine-tune an encoder by `config`, or continue an unfinished run of equal settings and data.

    Under `torchrun` every process calls this function.

    Returns: the run folder, with ``model/`` (an encoder that sentence-transformers and transformers
        load) and ``train.json``.
    Raises: `ConfigError`, `DataError` and `ModelError` for what cannot work, as far as this can be
        known before the first step; `OutputError` if the folder cannot be written or holds
        something else; `Interrupted` on SIGINT or SIGTERM.
    """
    run = run_folder(config)
    with join(resolve_device(config.device)) as workers:
        inputs = _inputs(config, run, workers, report)
        if checkpoint.is_finished(run):
            checkpoint.require_same(run, inputs.identity(config))
            report.note(
                f"{run}: is already finished; to train again, choose another --name or remove"
                " the folder"
            )
            if workers.leads:
                checkpoint.clear(run)
        else:
            _train(config, inputs, run, workers, report, keep=_save)
    return run


def _inputs(config: TrainConfig, run: Path, workers: Workers, report: Reporter) -> Inputs:
    """What every process reads for a run; the first process prepares the data if need be."""
    check_log(config)
    if workers.leads:
        checkpoint.require_own_folder(run)
        ensure_prepared(config.data, config.data_root, report)
    else:
        report = SILENT
    workers.wait()
    store = Store.open(ensure_prepared(config.data, config.data_root, report))
    inputs = Inputs.plan(config, store, report)
    workers.require_same(versions() | inputs.identity(config))
    return inputs


def _save(run: Path, trained: Encoder, record: Mapping[str, Any]) -> None:
    """Write the model and, last, the record of the run; the checkpoints are no longer needed."""
    trained.save(run / "model", model_card(record, str(run / "model")))
    write_json(run / checkpoint.TRAINED, record, sealed=True)
    checkpoint.clear(run)


def _keep_record(run: Path, trained: Encoder, record: Mapping[str, Any]) -> None:
    write_json(run / checkpoint.TRAINED, record, sealed=True)


def train_in_memory(config: TrainConfig, report: Reporter = SILENT) -> tuple[Path, Encoder]:
    """As `train`, but the trained encoder is returned and not saved.

    Returns: the run folder, and the encoder in evaluation mode on the device of the training. The
        folder holds ``train.json`` and the last checkpoints. From these a repeated call takes the
        encoder without further steps.
    Raises: as `train`.
    """
    run = run_folder(config)
    if checkpoint.is_finished(run):
        return train(config, report), Encoder.load(str(run), report=report)
    with join(resolve_device(config.device)) as workers:
        inputs = _inputs(config, run, workers, report)
        return run, _train(config, inputs, run, workers, report, keep=_keep_record)


def start_temperature(config: TrainConfig, report: Reporter = SILENT) -> Found:
    """The temperature that a run of `config` would find with ``--temperature auto``.

    No run folder is made or read.
    """
    with join(resolve_device(config.device)) as workers:
        store = Store.open(ensure_prepared(config.data, config.data_root, report))
        encoder = Encoder.load(config.model, **config.encoder_options, report=report)
        batches = Inputs.plan(config, store, SILENT).batches(encoder, config, SILENT)
        encoder.to(workers.device)
        precision = resolve_precision(config.precision, workers.device)
        return _found_temperature(encoder, batches, precision)


def plan(config: TrainConfig, report: Reporter = SILENT) -> dict[str, Any]:
    """Describe what `train` would do: schedule, first batches, validation.

    It loads no weights, downloads nothing and leaves no files behind. Of data that is not here it
    tells only what is to be downloaded.
    """
    if missing := unprepared(config.data, config.data_root):
        return {
            "run": str(run_folder(config)),
            "model": config.model,
            "data": config.data,
            "training languages": config.languages or "all",
            "batches": batches_in_words(config.as_json()),
            "to prepare first": missing.sentence(),
        }
    with tempfile.TemporaryDirectory() as temporary:
        inputs = Inputs.plan(
            config,
            Store.open(
                ensure_prepared(config.data, config.data_root, report, Path(temporary) / "data")
            ),
            report,
        )
        schedule, index = inputs.schedule, inputs.index
        first = []
        for step in range(min(5, schedule.steps)):
            rows = schedule.query_row[step], schedule.passage_row[step]
            ids = inputs.store.record_ids("train", index.store_rows(rows[0]))
            met = sorted(
                {index.languages[number] for side in rows for number in index.language[side]}
            )
            first.append(
                {
                    "step": step + 1,
                    "kind": KIND_NAMES[int(schedule.kind[step])],
                    "source": index.sources[int(schedule.source[step])],
                    "languages": ", ".join(met),
                    "records": ", ".join(list(dict.fromkeys(ids))[:3]) + ", ...",
                }
            )
        return {
            "run": str(run_folder(config)),
            "model": config.model,
            "data": config.data,
            "training languages": ", ".join(inputs.languages),
            "batches": batches_in_words(config.as_json()),
            "schedule": schedule.summary(index),
            "first batches": first,
            "validation": {
                kind: f"{planned.steps} batches of {planned.batch_size} pairs"
                for kind, planned in inputs.held_out.items()
            },
        }


def run_folder(config: TrainConfig) -> Path:
    """The folder of the run of `config`."""
    batches: str = config.strategy
    if config.strategy in MIXING:
        order = "" if config.strategy == "hybrid" else f"-{config.strategy}"
        batches = f"mix-{config.mix:g}{order}"
    default = f"{Path(config.data).name}-{batches}-seed-{config.seed}"
    return config.out or Path("experiments") / (config.name or default)


def _train(
    config: TrainConfig,
    inputs: Inputs,
    run: Path,
    workers: Workers,
    report: Reporter,
    *,
    keep: Callable[[Path, Encoder, Mapping[str, Any]], None],
) -> Encoder:
    """Train, or continue.

    Args:
        keep: writes files of the run folder, the encoder and the content of ``train.json``; only
            the first process calls it.
    """
    if not workers.leads:
        report = SILENT
    if config.batch_size < workers.size:
        raise ConfigError(
            f"batch_size = {config.batch_size} is less than the {workers.size} processes;"
            " every process needs at least one pair"
        )
    encoder = Encoder.load(config.model, **config.encoder_options, report=report)
    # Refuses impossible settings before anything is read.
    build_objective(config.at_temperature(FALLBACK), encoder.dimension)
    precision = resolve_precision(config.precision, workers.device)
    identity = inputs.identity(config) | {
        "model_fingerprint": encoder.fingerprint(),
        "resolved_device": workers.device.type,
        "resolved_precision": precision,
        "processes": workers.size,
    }
    reader = None
    if inputs.targets:
        reader = _load_teacher(config, encoder.dimension, report)
        identity["teacher_fingerprint"] = reader.fingerprint()
    workers.require_same(identity)
    if workers.leads and (run / checkpoint.RUN).exists():
        checkpoint.require_same(run, identity)
    # Before anything is written, because a text may be refused.
    batches = inputs.batches(encoder, config, report)
    validation = inputs.validation(encoder, config, report)
    with checkpoint.locked(run) if workers.leads else contextlib.nullcontext():
        with checkpoint.taken_back(run) if workers.leads else contextlib.nullcontext():
            done = _claim(run, identity, workers, report)
            start_peak_memory(workers.device)
            encoder.to(workers.device)
            machine = Machine(
                workers,
                precision,
                peak=workers.size
                * measured_peak(workers.device, precision, torch.get_num_threads()),
            )
            if config.temperature == AUTO:
                config = config.at_temperature(
                    _temperature(encoder, batches, run, machine, report)
                )
            teacher = _teacher(config, inputs, reader, run, machine, report)
            trainer = Trainer(
                encoder,
                batches,
                validation,
                config,
                run,
                machine,
                teacher=teacher,
                report=report,
            )
            trainer.use_budget(_budget(config, trainer, report))
        if trainer.cut:
            report.note(
                f"{len(trainer.cut.ids):,} of {trainer.cut.full.num_embeddings:,} word"
                " embeddings are trained, so gradients and optimizer need"
                f" {trainer.cut.bytes_saved / 2**20:,.0f} MiB less"
            )
        if done:
            trainer.resume(done)
            report.note(f"{run}: continuing after step {done} of {config.steps}")
        _tell_length(trainer, report)
        trainer.train()
        trained = trainer.finish()
        average_with_start(trained, config)
        if workers.leads:
            keep(run, trained, train_json(trainer, trained, inputs.facts(), identity))
        return trained


def average_with_start(trained: Encoder, config: TrainConfig) -> None:
    """Replace the weights w of a trained encoder by ``(1 - a) w + a w_0``.

    w_0 are the weights of the start and a is `average_start`. Nothing changes at 0. Validation and
    checkpoints are of the trained weights.

    Source: Wortsman et al., "Robust fine-tuning of zero-shot models" (WiSE-FT), CVPR 2022,
        arXiv:2109.01903, section 3.
    """
    share = config.average_start
    if not share:
        return
    start = Encoder.load(config.model, **config.encoder_options)
    of_start = dict(start.named_parameters())
    with torch.no_grad():
        for name, own in trained.named_parameters():
            own.lerp_(of_start[name].to(own.device, own.dtype), share)


def _tell_length(trainer: Trainer, report: Reporter) -> None:
    """Tell about how long steps and validations take, before they begin, if it is over a minute."""
    first, device = trainer.progress.step, trainer.workers.device
    steps = trainer.config.steps - first
    rate = (trainer.peak or 0.0) * SHARE.get(device.type, SHARE["cuda"])
    validations = steps // trainer.config.validation_interval + (first == 0)
    validated = trainer.validation.tokens * validations
    # a forward pass is a third of the work of a training step
    operations = trainer.work.per_token * (trainer.batches.tokens_left(first) + validated / 3)
    if rate and operations > LONG * rate:
        report.note(f"training takes about {duration(operations / rate)} ({steps:,} steps)")


def _load_teacher(config: TrainConfig, dimension: int, report: Reporter) -> Encoder:
    """Load the encoder to distil from, for a student of `dimension`.

    Raises: `ConfigError` if the student cannot learn from it; `ModelError` if it cannot be loaded.
    """
    assert config.teacher is not None
    reader = Encoder.load(
        config.teacher,
        max_query_tokens=config.max_query_tokens,
        max_passage_tokens=config.max_passage_tokens,
        report=report,
    )
    check_dimensions(config.distill_from, reader, dimension)
    return reader


def _teacher(
    config: TrainConfig,
    inputs: Inputs,
    reader: Encoder | None,
    run: Path,
    machine: Machine,
    report: Reporter,
) -> Teacher | None:
    """The teacher, with its embeddings of all texts.

    All processes together compute the embeddings once for the run and keep them in its folder.
    """
    if inputs.targets is None or reader is None:
        return None
    path, store, workers = run / checkpoint.TEACHER, inputs.store, machine.workers
    if not workers.anywhere(workers.leads and path.exists()):
        texts: dict[Side, Callable[[np.ndarray], list[str]]]
        texts = {
            "query": partial(store.queries, "train"),
            "passage": partial(store.passages, "train"),
        }
        reader.to(workers.device)
        reading = SharedEncoder(reader, workers, machine.precision)
        write_vectors(path, reading, inputs.targets, texts, report)
        reader.to(CPU)
    workers.wait()
    temperature = config.teacher_temperature or config.temperature
    assert isinstance(temperature, float)
    return Teacher(inputs.targets, read_vectors(path), config.distill_from, temperature)


def _budget(config: TrainConfig, trainer: Trainer, report: Reporter) -> int:
    """Tokens per forward pass, the same on every process.

    ``run.json`` keeps the number, because dropout masks depend on it.
    """
    workers, run = trainer.workers, trainer.run
    budget = config.micro_tokens or workers.least(found_budget(config, trainer, report))
    if workers.leads:
        known = checkpoint.read_run(run)
        budget = known.get("token_budget", budget)
        if "token_budget" not in known:
            write_json(run / checkpoint.RUN, known | {"token_budget": budget}, sealed=True)
    return workers.least(budget)


def found_budget(config: TrainConfig, trainer: Trainer, report: Reporter) -> int:
    """The token budget that this process's memory allows."""
    workers, batches = trainer.workers, trainer.batches
    limit = None if config.memory_limit is None else memory_bytes(config.memory_limit)
    if workers.device.type != "cuda":
        shape, tokens = trainer.encoder.model.config, len(batches[0].tokens.ids) // workers.size
        return token_budget(shape, batches.longest, workers.size, limit, tokens)
    batch = batches[0]
    states, missing = trainer.optimizer.bytes_of_states()
    # Scores of all pairs, with their gradients, softmax and mask.
    loss = 16 * min(batch.pairs * len(batch.passages), WHOLE_SCORES)
    gpu = GpuMemory.of(workers.device, limit)
    trainer.encoder.train()
    with dropout_seed(0, workers.device):
        per_token = kept_bytes(trainer.cache.embed, batch.tokens)
    return gpu_token_budget(gpu, per_token, states, missing, loss, report)


def _temperature(
    encoder: Encoder, batches: Batches, run: Path, machine: Machine, report: Reporter
) -> float:
    """The temperature that suits the starting encoder, the same on every process.

    ``run.json`` keeps the temperature, so that a resumed run continues with it.
    """
    workers = machine.workers
    if not workers.leads:
        return workers.least(ANY_STEP) / MICRO
    known = checkpoint.read_run(run)
    if "temperature_found" not in known:
        found = _found_temperature(encoder, batches, machine.precision)
        known["temperature_found"] = {
            "value": found.temperature, "loss": found.loss, "loss_of_chance": found.uniform,
            "pairs": found.pairs, "found": found.known,
        }  # fmt: skip
        write_json(run / checkpoint.RUN, known, sealed=True)
        (report.note if found.known else report.warn)(found.about)
    return workers.least(round(known["temperature_found"]["value"] * MICRO)) / MICRO


def _found_temperature(
    encoder: Encoder, batches: Batches, precision: ResolvedPrecision
) -> Found:
    """Apply the rule of `hybridbatch.training.temperature` to the run's first batches."""
    training = encoder.training
    encoder.eval()
    try:
        with torch.no_grad():
            return find_temperature(
                embedded(
                    batches,
                    lambda tokens: encoder.embed(tokens, precision),
                    READ_AT_ONCE,
                )
            )
    finally:
        encoder.train(training)


def _claim(run: Path, identity: Mapping[str, Any], workers: Workers, report: Reporter) -> int:
    """Write ``run.json``, or compare it with the existing one.

    Returns: the step of the checkpoint to continue from, or 0.
    """
    if not workers.leads:
        return workers.least(ANY_STEP)
    checkpoint.remove_leftovers(run)
    if not (run / checkpoint.RUN).exists():
        write_json(
            run / checkpoint.RUN,
            {"schema_version": RUN_SCHEMA, "kind": "run", **identity, "versions": versions()},
            sealed=True,
        )
    checkpoint.require_same(run, identity)
    return workers.least(checkpoint.newest(run, report) or 0)
