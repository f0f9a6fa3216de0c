"""`hybridbatch train`: from settings to a trained encoder in a run folder."""

import contextlib
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from hybridbatch.config import PrepareConfig, TrainConfig, memory_bytes
from hybridbatch.errors import ConfigError, DataError
from hybridbatch.files import cache_folder, read_json, write_json
from hybridbatch.languages import canonical, resolve
from hybridbatch.model import Encoder, resolve_precision
from hybridbatch.model.folder import Side
from hybridbatch.prepare import prepare
from hybridbatch.provenance import versions
from hybridbatch.records import RecordIndex, Split
from hybridbatch.reporting import SILENT, Reporter
from hybridbatch.schedule import Schedule, plan_schedule
from hybridbatch.sources import source
from hybridbatch.sources.atlas import TRAINED
from hybridbatch.store import Store, count_rows
from hybridbatch.streams import KIND_NAMES
from hybridbatch.tokens import TokenArrays
from hybridbatch.training import checkpoint
from hybridbatch.training.alignment import Translations, plan_translations
from hybridbatch.training.batches import Batches
from hybridbatch.training.budget import token_budget
from hybridbatch.training.distillation import Targets, Teacher, check_dimensions, read_vectors, write_vectors
from hybridbatch.training.distributed import Workers, join, resolve_device
from hybridbatch.training.loop import Trainer, build_objective
from hybridbatch.training.recipe import batches_in_words, model_card, train_json
from hybridbatch.training.validation import Validation, plan_validation
from hybridbatch.training.work import measured_peak

RUN_SCHEMA = 1
ANY_STEP = 1 << 60  # what a process says that leaves the choice to the first one
# Training languages of data from these sources; of other data, all.
RECOMMENDED: dict[tuple[str, ...], tuple[str, ...]] = {("atlas",): TRAINED}


def train(config: TrainConfig, report: Reporter = SILENT) -> Path:
    """Fine-tune an encoder as `config` says, or go on with an unfinished run of the same settings and data.

    Under `torchrun` every process calls this. Returns: the run folder, with ``model/`` (an encoder that
    sentence-transformers and transformers load) and ``train.json``.

    Raises: `ConfigError`, `DataError` and `ModelError` for what cannot work, as far as it can be known before the first
        step; `OutputError` if the folder cannot be written or holds something else; `Interrupted` on SIGINT or SIGTERM.
    """
    run = run_folder(config)
    with join(resolve_device(config.device)) as workers:
        if workers.leads:
            checkpoint.require_own_folder(run)
            prepare_data(config, report)
        else:
            report = SILENT
        workers.wait()
        inputs = Inputs.plan(config, Store.open(prepare_data(config, report)), report)
        if checkpoint.is_finished(run):
            checkpoint.require_same(run, inputs.identity(config))
            report.note(f"{run}: already finished; choose another --name or remove the folder to train again")
            if workers.leads:
                checkpoint.clear(run)
        else:
            _train(config, inputs, run, workers, report)
    return run


def plan(config: TrainConfig, report: Reporter = SILENT) -> dict[str, Any]:
    """What `train` would do: schedule, first batches, validation. Loads no weights and leaves nothing behind."""
    with tempfile.TemporaryDirectory() as temporary:
        inputs = Inputs.plan(config, Store.open(prepare_data(config, report, Path(temporary) / "data")), report)
        schedule, index = inputs.schedule, inputs.index
        first = []
        for step in range(min(5, schedule.steps)):
            rows = schedule.query_row[step], schedule.passage_row[step]
            ids = inputs.store.record_ids("train", index.store_rows(rows[0]))
            met = sorted({index.languages[number] for side in rows for number in index.language[side]})
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
    """Where the run of `config` is kept."""
    batches = f"mix-{config.mix:g}" if config.strategy == "hybrid" else config.strategy
    default = f"{Path(config.data).name}-{batches}-seed-{config.seed}"
    return config.out or Path("experiments") / (config.name or default)


def prepare_data(config: TrainConfig, report: Reporter, elsewhere: Path | None = None) -> Path:
    """The prepared folder that `config.data` names; a built-in source is prepared into data/NAME, unless it is there.

    Args:
        elsewhere: where to prepare it instead.
    Raises: `ConfigError` if it names neither, and what `prepare` raises.
    """
    for folder in (Path(config.data), Path("data") / config.data):
        if (folder / "manifest.json").is_file():
            return folder
    if Path(config.data).is_dir():
        Store.open(Path(config.data))  # says what is wrong with it
    if Path(config.data).is_file():
        raise ConfigError(
            f"data = {config.data!r}: not prepared yet; run `hybridbatch prepare {config.data}` and give the folder it"
            " writes"
        )
    if "/" in config.data:
        raise ConfigError(
            f"data = {config.data!r}: no such folder; give one that `hybridbatch prepare` wrote, or a built-in source"
        )
    source(config.data)
    report.note(f"data {config.data}: not there yet, preparing it")
    return prepare(PrepareConfig(sources=(config.data,), out=elsewhere, data_root=config.data_root), report)


@dataclass(frozen=True)
class Inputs:
    """What is decided before any weights are loaded."""

    store: Store
    languages: tuple[str, ...]
    index: RecordIndex
    schedule: Schedule
    held_out_index: RecordIndex | None  # of the validation split, if there is one
    held_out: dict[str, Schedule]  # by kind of batch
    translations: Translations | None  # of the alignment regulariser
    targets: Targets | None  # of distillation
    notes: tuple[str, ...]

    @classmethod
    def plan(cls, config: TrainConfig, store: Store, report: Reporter) -> "Inputs":
        """Choose languages and records, plan the batches of training and validation, and tell what is left out."""
        recommended = RECOMMENDED.get(store.sources)
        if config.languages is None and recommended:
            languages = resolve(",".join(recommended), store.languages)
            report.note(f"training languages: {', '.join(languages)} (--languages all for all {len(store.languages)})")
        else:
            languages = resolve(config.languages or "all", store.languages)
        index = store.index("train", languages, max_records=config.max_records, seed=config.seed)
        schedule = plan_schedule(
            index,
            mix=config.mix,
            batch_size=config.batch_size,
            steps=config.steps,
            seed=config.seed,
            strategy=config.strategy,
            copies=config.copies,
            source_weights=config.source_weights,
        )
        held_out_index: RecordIndex | None = None
        held_out: dict[str, Schedule] = {}
        notes = ["no validation: the data has no validation split"]
        if "validation" in store.splits:
            held_out_index = store.index("validation", languages)
            held_out, notes = plan_validation(held_out_index, config.batch_size, config.validation_batches)
        notes = [*schedule.notes, *notes]
        used = config.without_unused()
        unused = [name for name in TrainConfig.model_fields if getattr(config, name) != getattr(used, name)]
        if unused:
            notes.append(f"settings without effect here: {', '.join(unused)}")
        translations = plan_translations(index, schedule, config.seed) if config.align_weight else None
        if translations:
            share = np.mean([np.mean(rows >= 0) for rows in translations])
            notes.append(f"alignment: {share:.1%} of the queries and passages have a translation to be near to")
        targets = None
        if config.distils:
            scheduled: dict[Side, np.ndarray] = {
                "query": index.store_rows(schedule.query_row),
                "passage": index.store_rows(schedule.passage_row),
            }
            language = config.teacher_language and canonical(config.teacher_language)
            targets = Targets.plan(store.index("train"), scheduled, language)
            notes.append(
                f"distillation: the teacher reads {language or 'the texts of the pairs'}; {targets.coverage:.1%} of the"
                " pairs have both texts for it"
            )
        for note in notes:
            report.note(note)
        return cls(store, languages, index, schedule, held_out_index, held_out, translations, targets, tuple(notes))

    def identity(self, config: TrainConfig) -> dict[str, Any]:
        """What two runs must share for one to go on as the other, as far as it is known without the model."""
        return {
            "config": config.as_json(),
            "data_fingerprint": self.store.fingerprint,
            "schedule_fingerprint": self.schedule.fingerprint(),
        }

    def batches(self, encoder: Encoder, config: TrainConfig, report: Reporter) -> Batches:
        """The tokenised training batches."""
        return _batches(self.store, "train", self.index, self.schedule, encoder, config, report, self.translations)

    def validation(self, encoder: Encoder, config: TrainConfig) -> Validation:
        """The tokenised validation batches."""
        kinds = {}
        for kind, schedule in self.held_out.items():
            assert self.held_out_index is not None
            kinds[kind] = _batches(self.store, "validation", self.held_out_index, schedule, encoder, config, SILENT)
        return Validation(kinds)

    def facts(self) -> dict[str, Any]:
        """Data and schedule, for ``train.json``."""
        manifest = self.store.manifest
        return {
            "trained_languages": list(self.languages),
            "data": {
                "name": self.store.folder.name,
                "fingerprint": self.store.fingerprint,
                "licences": manifest["licences"],
                "provenance": manifest["provenance"],
                "records": self.index.records,
                "rows": self.index.rows,
                "rows_by_source_and_language": count_rows(self.index),
            },
            "schedule": {"fingerprint": self.schedule.fingerprint(), **self.schedule.summary(self.index)},
            "notes": list(self.notes),
        }


def _batches(
    store: Store,
    split: Split,
    index: RecordIndex,
    schedule: Schedule,
    encoder: Encoder,
    config: TrainConfig,
    report: Reporter,
    translations: Translations | None = None,
) -> Batches:
    def stored(rows: np.ndarray, side: Side) -> TokenArrays:
        try:
            tokens = store.tokens(
                split, side, tokenise=encoder.tokenise, key=encoder.tokens_key(), cache=cache_folder() / "tokens",
                report=report,
            )  # fmt: skip
        except DataError as error:
            raise DataError(f"{store.folder}: {error}; without --store-tokens its record is named") from error
        return tokens.take(index.store_rows(rows))

    return Batches(
        schedule,
        queries=lambda rows: store.queries(split, index.store_rows(rows)),
        passages=lambda rows: store.passages(split, index.store_rows(rows)),
        negatives=lambda rows: store.negatives(split, index.store_rows(rows)),
        record_ids=lambda rows: store.record_ids(split, index.store_rows(rows)),
        records=index.record_of,
        translations=translations,
        tokenise=encoder.tokenise,
        hard_negatives=config.hard_negatives,
        negatives_language=config.negatives_language,
        groups=lambda rows: index.group[index.record_of(rows)],
        negative_groups=lambda rows: store.negative_groups(split, index.store_rows(rows)),
        stored=stored if config.store_tokens else None,
        seed=config.seed,
        report=report,
    )


def _train(config: TrainConfig, inputs: Inputs, run: Path, workers: Workers, report: Reporter) -> None:
    if config.batch_size < workers.size:
        raise ConfigError(
            f"batch_size = {config.batch_size} is less than the {workers.size} processes; each needs a pair"
        )
    encoder = Encoder.load(config.model, **config.encoder_options, report=report)
    objective = build_objective(config, encoder.dimension)
    identity = inputs.identity(config) | {
        "model_fingerprint": encoder.fingerprint(),
        "resolved_device": workers.device.type,
        "resolved_precision": resolve_precision(config.precision, workers.device),
        "processes": workers.size,
    }
    reader = None
    if inputs.targets and workers.leads:
        reader = _load_teacher(config, encoder.dimension, report)
        identity["teacher_fingerprint"] = reader.fingerprint()
    if workers.leads and (run / checkpoint.RUN).exists():
        checkpoint.require_same(run, identity)
    # Before anything is written: a text may be refused.
    batches, validation = inputs.batches(encoder, config, report), inputs.validation(encoder, config)
    with checkpoint.locked(run) if workers.leads else contextlib.nullcontext():
        done = _claim(run, identity, workers, report)
        trainer = Trainer(
            encoder.to(workers.device),
            objective,
            batches,
            validation,
            config,
            languages=inputs.index.languages,
            run=run,
            precision=identity["resolved_precision"],
            token_budget=_budget(config, encoder, batches.longest, run, workers),
            teacher=_teacher(config, inputs, reader, run, identity["resolved_precision"], workers, report),
            peak=workers.size * measured_peak(workers.device, identity["resolved_precision"], torch.get_num_threads()),
            workers=workers,
            report=report,
        )
        if trainer.cut:
            report.note(
                f"{len(trainer.cut.ids):,} of {trainer.cut.full.num_embeddings:,} words are trained: gradients and"
                f" optimizer take {trainer.cut.bytes_saved / 2**20:,.0f} MiB less"
            )
        if done:
            trainer.resume(done)
            report.note(f"{run}: going on after step {done} of {config.steps}")
        trainer.train()

        def save(trained: Encoder) -> None:
            result = train_json(trainer, trained, inputs.facts(), identity)
            trained.save(run / "model", model_card(result))
            write_json(run / checkpoint.TRAINED, result)
            checkpoint.clear(run)

        trainer.finish(save)


def _load_teacher(config: TrainConfig, dimension: int, report: Reporter) -> Encoder:
    """The encoder to distil from, into a student of `dimension`. Raises `ConfigError`, `ModelError`."""
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
    precision: Literal["fp32", "bf16"],
    workers: Workers,
    report: Reporter,
) -> Teacher | None:
    """What the teacher says of all texts: read by the first process, once for the run, and kept in its folder."""
    if inputs.targets is None:
        return None
    path, store = run / checkpoint.TEACHER, inputs.store
    if reader is not None and not path.exists():
        texts: dict[Side, Callable[[np.ndarray], list[str]]]
        texts = {"query": partial(store.queries, "train"), "passage": partial(store.passages, "train")}
        write_vectors(path, reader.to(workers.device), inputs.targets, texts, precision, report)
    workers.wait()
    temperature = config.teacher_temperature or config.temperature
    return Teacher(inputs.targets, read_vectors(path), config.distill_from, temperature)


def _budget(config: TrainConfig, encoder: Encoder, longest: int, run: Path, workers: Workers) -> int:
    """Tokens per forward pass, the same on every process; kept in ``run.json``, as dropout masks depend on them."""
    limit = None if config.memory_limit is None else memory_bytes(config.memory_limit)
    found = token_budget(encoder.model.config, longest, workers.device, workers.size, limit)
    budget = config.micro_tokens or workers.least(found)
    if workers.leads:
        known = read_json(run / checkpoint.RUN)
        budget = known.get("token_budget", budget)
        if "token_budget" not in known:
            write_json(run / checkpoint.RUN, known | {"token_budget": budget})
    return workers.least(budget)


def _claim(run: Path, identity: Mapping[str, Any], workers: Workers, report: Reporter) -> int:
    """Write ``run.json`` or compare with the one that is there; the step of the checkpoint to go on from, or 0."""
    if not workers.leads:
        return workers.least(ANY_STEP)
    checkpoint.remove_leftovers(run)
    if not (run / checkpoint.RUN).exists():
        write_json(
            run / checkpoint.RUN, {"schema_version": RUN_SCHEMA, "kind": "run", **identity, "versions": versions()}
        )
    checkpoint.require_same(run, identity)
    return workers.least(checkpoint.newest(run, report) or 0)
