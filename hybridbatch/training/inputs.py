"""All decisions before weights are loaded: languages, records, schedule, validation."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from hybridbatch.common.errors import ConfigError
from hybridbatch.common.languages import canonical, resolve
from hybridbatch.common.progress import SILENT, Reporter
from hybridbatch.common.records import Split
from hybridbatch.data.atlas.source import TRAINED
from hybridbatch.data.store.reader import Store, count_rows
from hybridbatch.model import Encoder
from hybridbatch.model.layout import Side
from hybridbatch.sampling.index import RecordIndex
from hybridbatch.sampling.plan import plan_schedule
from hybridbatch.sampling.schedule import Schedule
from hybridbatch.training.alignment import Translations, plan_translations
from hybridbatch.training.batches import Batches
from hybridbatch.training.distillation import Targets
from hybridbatch.training.retrieval_validation import METRIC, RetrievalSet, plan_retrieval
from hybridbatch.training.rows import StoredRows
from hybridbatch.training.settings import TrainConfig
from hybridbatch.training.validation import Validation, plan_validation

# Training languages of data from these sources. Other data trains on all its languages.
RECOMMENDED: dict[tuple[str, ...], tuple[str, ...]] = {("atlas",): TRAINED}


SHARE = 0.05  # of the training records, to validate with where only a test split is given


def _indexes(
    config: TrainConfig, store: Store, languages: tuple[str, ...]
) -> tuple[RecordIndex, RecordIndex | None, Split]:
    """The records to train on, the records to validate with, and the split that has the latter."""
    share = config.validation_share
    if share is None:
        share = SHARE if "test" in store.splits else 0.0
    limits = (languages, config.max_records, config.seed)
    if "validation" not in store.splits and share:
        return *store.divided_index(share, *limits), "train"
    held_out = store.index("validation", languages) if "validation" in store.splits else None
    return store.index("train", *limits), held_out, "validation"


@dataclass(frozen=True)
class Inputs:
    """Everything that is decided before any weights are loaded."""

    store: Store
    languages: tuple[str, ...]
    index: RecordIndex
    schedule: Schedule
    held_out_index: RecordIndex | None  # of the validation records, if there are any
    held_out_split: Split  # the split of the store that has these records
    held_out: dict[str, Schedule]  # validation schedules by kind of batch
    translations: Translations | None  # for the alignment regulariser
    targets: Targets | None  # for distillation
    notes: tuple[str, ...]

    @classmethod
    def plan(cls, config: TrainConfig, store: Store, report: Reporter) -> "Inputs":
        """Choose languages and records, and plan the batches of training and validation.

        Notes report what is left out.
        """
        recommended = RECOMMENDED.get(store.sources)
        if config.languages is None and recommended:
            languages = resolve(",".join(recommended), store.languages)
            report.note(
                f"training languages: {', '.join(languages)} (give --languages all to train"
                f" on all {len(store.languages)})"
            )
        else:
            languages = resolve(config.languages or "all", store.languages)
        index, held_out_index, held_out_split = _indexes(config, store, languages)
        index = replace(index, same_records=config.same_records)
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
        held_out: dict[str, Schedule] = {}
        notes = ["no validation: the data has no validation split"]
        if held_out_index is not None:
            held_out, notes = plan_validation(
                held_out_index, config.batch_size, config.validation_batches
            )
            if held_out_split == "train":
                notes.append(
                    f"validation: {held_out_index.records:,} records of the training split were"
                    " set aside, because the data has no validation split (another"
                    " --validation-share takes more or fewer)"
                )
        notes = [*schedule.notes, *notes]
        used = config.without_unused()
        unused = [
            name
            for name in TrainConfig.model_fields
            if getattr(config, name) != getattr(used, name)
        ]
        if unused:
            notes.append(f"settings without effect here: {', '.join(unused)}")
        translations = (
            plan_translations(index, schedule, config.seed) if config.align_weight else None
        )
        if translations:
            share = np.mean([np.mean(rows >= 0) for rows in translations])
            notes.append(
                f"alignment: {share:.1%} of the queries and passages have a translation to be near"
                " to"
            )
        targets = None
        if config.distils:
            scheduled: dict[Side, np.ndarray] = {
                "query": index.store_rows(schedule.query_row),
                "passage": index.store_rows(schedule.passage_row),
            }
            language = config.teacher_language and canonical(config.teacher_language)
            targets = Targets.plan(store.index("train"), scheduled, language)
            notes.append(
                f"distillation: the teacher reads {language or 'the texts of the pairs'};"
                f" {targets.coverage:.1%} of the pairs have both texts for it"
            )
        for note in notes:
            report.note(note)
        enough = held_out_index is not None and held_out_index.rows >= config.validation_queries
        if held_out and enough and config.validation_metric != METRIC:
            pairs = sum(planned.steps * planned.batch_size for planned in held_out.values())
            report.note(
                f"validation by {config.validation_metric} on {pairs:,} pairs in batches, which cannot"
                f" tell close models apart; --validation-metric {METRIC} ranks"
                f" {config.validation_queries:,} queries against"
                f" {config.validation_passages:,} passages in all three settings, and costs more"
            )
        return cls(
            store,
            languages,
            index,
            schedule,
            held_out_index,
            held_out_split,
            held_out,
            translations,
            targets,
            tuple(notes),
        )

    def identity(self, config: TrainConfig) -> dict[str, Any]:
        """What two runs must share for one to continue the other.

        It holds everything that is known without the model.
        """
        return {
            "config": config.as_json(),
            "data_fingerprint": self.store.fingerprint,
            "schedule_fingerprint": self.schedule.fingerprint(),
        }

    def batches(self, encoder: Encoder, config: TrainConfig, report: Reporter) -> Batches:
        """The tokenised training batches."""
        made = self._batches("train", self.index, self.schedule, encoder, config, report)
        if config.hard_negatives and not made.hard_negatives:
            report.warn(
                f"hard_negatives = {config.hard_negatives}: no row of the schedule has hard"
                " negatives, so the batches hold none; `hybridbatch mine` finds some"
            )
        return made

    def validation(
        self, encoder: Encoder, config: TrainConfig, report: Reporter = SILENT
    ) -> Validation:
        """The tokenised validation batches, and the texts of validation by retrieval.

        Raises: `ConfigError` or `DataError` if the settings ask for retrieval in data without it.
        """
        kinds = {}
        for kind, schedule in self.held_out.items():
            assert self.held_out_index is not None
            kinds[kind] = self._batches(
                self.held_out_split, self.held_out_index, schedule, encoder, config, SILENT
            )
        retrieval = None
        if config.validation_metric == METRIC:
            retrieval = self._retrieval(encoder, config, report)
        return Validation(kinds, retrieval)

    def _retrieval(
        self, encoder: Encoder, config: TrainConfig, report: Reporter
    ) -> RetrievalSet:
        """The texts of validation by retrieval."""
        if self.held_out_index is None:
            raise ConfigError(
                "validation_metric = map: the data has no validation split; prepare the data with"
                " --validation-share, or choose loss"
            )
        wanted = {"queries": config.validation_queries, "passages": config.validation_passages}
        found = plan_retrieval(self.store, self.held_out_index, encoder, **wanted)
        report.note(found.about)
        for name, tokens in (("queries", found.queries), ("passages", found.passages)):
            if len(tokens) < wanted[name]:
                report.warn(
                    f"validation_{name} = {wanted[name]:,}: the validation split has only"
                    f" {len(tokens):,}; with few of them, small differences are chance"
                )
        return found

    def _batches(
        self,
        split: Split,
        index: RecordIndex,
        schedule: Schedule,
        encoder: Encoder,
        config: TrainConfig,
        report: Reporter,
    ) -> Batches:
        keeper = encoder if config.store_tokens else None
        return Batches(
            schedule,
            StoredRows(self.store, split, index, keeper, report),
            encoder.tokenise,
            translations=self.translations if index is self.index else None,
            hard_negatives=config.hard_negatives,
            negatives_language=config.negatives_language,
            seed=config.seed,
            report=report,
        )

    def facts(self) -> dict[str, Any]:
        """Facts about data and schedule, for ``train.json``."""
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
            "schedule": {
                "fingerprint": self.schedule.fingerprint(),
                **self.schedule.summary(self.index),
            },
            "notes": list(self.notes),
        }
