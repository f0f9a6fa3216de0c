"""Decides once, from the settings, everything else that an evaluation needs."""

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Self

from hybridbatch.common.documents import read_training
from hybridbatch.common.errors import ConfigError
from hybridbatch.common.files import plain_name
from hybridbatch.common.languages import canonical, known_languages, resolve
from hybridbatch.common.progress import Reporter
from hybridbatch.common.records import Task
from hybridbatch.common.settings import ResolvedPrecision
from hybridbatch.common.sizes import gigabytes
from hybridbatch.data.tasks.catalogue import expected_sizes
from hybridbatch.data.tasks.registry import is_here, is_task, load_task
from hybridbatch.model.reckoning import Reckoning
from hybridbatch.scoring.forecast import (
    COLUMNS,
    download_in_words,
    forecaster,
    of_absent,
    of_stated,
    of_task,
    sentence,
    size_of_official,
)
from hybridbatch.scoring.full_ranking import pools_of
from hybridbatch.scoring.settings import BM25, EvalConfig
from hybridbatch.scoring.summary import describe

if TYPE_CHECKING:
    import torch

    from hybridbatch.data.tasks.mteb import LeftOut

FEW = 500  # passages that any machine encodes in a minute, so that nothing is reckoned


class Machine(NamedTuple):
    """Where an evaluation computes, and in which number format."""

    device: "torch.device"
    precision: ResolvedPrecision

    @classmethod
    def of(cls, config: EvalConfig) -> Self:
        """As the settings say. Raises: `ConfigError` for a device that is not there."""
        from hybridbatch.common.device import resolve_device, resolve_precision

        device = resolve_device(config.device)
        return cls(device, resolve_precision(config.precision, device))


@dataclass(frozen=True)
class Evaluation:
    """Settings of an evaluation, and what follows from them. Make one with `Evaluation.plan`.

    These are tasks, languages, pools, the folder, and the part of this process.
    """

    config: EvalConfig
    trained: tuple[str, ...]  # languages that the model was trained on
    tasks: tuple[Task, ...]  # of this project and of the user
    official: tuple[Any, ...]  # mteb's
    left_out: tuple["LeftOut", ...]  # tasks of a benchmark of mteb that cannot be scored
    folder: Path  # of the results
    part: tuple[
        int, int
    ]  # (i, n): encode the i-th of n parts of the corpora; (1, 1): all parts
    leads: bool  # whether this process scores and writes; otherwise it only helps to encode

    @classmethod
    def plan(
        cls, config: EvalConfig, tasks: Sequence[Task] | None = None, *, complete: bool = True
    ) -> Self:
        """Decide everything; loads the tasks, but no model and no mteb data.

        Args:
            tasks: the result of `load_tasks` for these settings, if it has been called already.
            complete: whether `tasks` are all tasks. If not, a named language may be in a task that
                is not among them.

        Raises:
            ConfigError: unknown tasks and languages, or settings that do not fit together.
            DataError: bad data.
        """
        from hybridbatch.scoring.mteb.stage import official_tasks, spoken

        trained = trained_languages(config)
        own, others = split_names(config)
        tasks = load_tasks(config, own, trained) if tasks is None else tasks
        official, left_out = official_tasks(config, others, trained)
        if config.several and complete:
            # each task gives the languages that it has; some task must have each named language
            codes: dict[str, None] = {}
            for task in tasks:
                codes |= dict.fromkeys([*task.queries, *task.corpus])
            for task in official:
                codes |= dict.fromkeys(spoken(task))
            resolve(config.languages, codes, trained)
        number, _, parts = (config.shards or "1/1").partition("/")
        return cls(
            config=config,
            trained=trained,
            tasks=tuple(tasks),
            official=tuple(official),
            left_out=tuple(left_out),
            folder=config.out or Path("experiments") / (config.name or default_name(config)),
            part=(int(number), int(parts)),
            leads=leads(config),
        )

    @classmethod
    def plan_of_what_is_here(cls, config: EvalConfig) -> tuple[Self, list[dict[str, Any]]]:
        """As `plan`, for the tasks whose data is on this machine; downloads nothing.

        The other tasks give rows of ``--dry-run``.
        """
        own, _ = split_names(config)
        absent = [name for name in own if not is_here(name, config.data_root)]
        if not absent:
            return cls.plan(config), []
        trained = trained_languages(config)
        tasks = load_tasks(config, [name for name in own if name not in absent], trained)
        rows: list[dict[str, Any]] = []
        model = forecaster(config)
        for name in absent:
            forecast = of_absent(name, config, trained)
            known = expected_sizes(name, config.task_languages, trained)
            rows.append(
                {
                    "task": name,
                    **known,
                    "distinct texts": None,
                    "pool": None,
                    "data": download_in_words(forecast.absent),
                    **forecast.row(model),
                }
            )
        return cls.plan(config, tasks, complete=False), rows

    @cached_property
    def machine(self) -> Machine:
        """Where the evaluation computes. Raises: `ConfigError` for a missing device."""
        return Machine.of(self.config)

    @cached_property
    def reckoning(self) -> Reckoning | None:
        """The cost of the model on this machine. Raises: `ConfigError` as `machine`."""
        return forecaster(self.config)

    def pools(self, task: Task) -> Mapping[str, tuple[str, ...]]:
        """By name, the corpus languages of a task's pools. Raises: `ConfigError` as `pools_of`."""
        return pools_of(task, self.config.pool, self.trained)

    def planned(self, task: Task) -> dict[str, Any]:
        """A row of `hybridbatch eval --dry-run`."""
        counts = describe(task, {}, self.trained)["counts"]
        row = {
            "task": task.name,
            "query languages": len(task.queries),
            "corpus languages": len(task.corpus),
            "queries": sum(counts["queries"].values()),
            "passages": sum(counts["passages"].values()),
            "distinct texts": counts["distinct_texts"],
            "pool": "yes" if task.parallel else "no",
            "data": "here",
            **of_task(task, self.config).row(self.reckoning),
        }
        if self.config.rerank:
            row["to rerank"] = self._reranked_pairs(task)
        return row

    def planned_official(self) -> list[dict[str, Any]]:
        """The rows of mteb's tasks: what mteb states of them, before their data is loaded."""
        rows: list[dict[str, Any]] = []
        names = ("query languages", "corpus languages", "queries", "passages")
        for task in self.official:
            forecast = of_stated(task)
            row: dict[str, Any] = {"task": f"mteb {task.metadata.name}"}
            row |= dict.fromkeys(names)
            row["distinct texts"] = forecast and forecast.texts
            row |= {"pool": "no", "data": self._official_data(task.metadata.dataset)}
            row |= forecast.row(self.reckoning) if forecast else dict.fromkeys(COLUMNS)
            rows.append(row)
        for one in self.left_out:
            row = dict.fromkeys(rows[0]) | {"task": f"mteb {one.task}"}
            rows.append(row | {"pool": "no", "data": f"left out: {one.reason}"})
        return rows

    def _official_data(self, dataset: Mapping[str, Any]) -> str:
        """Where the data of an mteb task is, and how much of it is not here."""
        size = size_of_official(dataset)
        known = (
            "unknown size" if size is None else f"at most {gigabytes(size.absent)} to download"
        )
        return f"hub: {dataset['path']}, {known}"

    def forecast(self) -> str | None:
        """What is told before the work starts; None if it is small."""
        stated = [found for task in self.official if (found := of_stated(task))]
        few = sum(len(texts.ids) for task in self.tasks for texts in task.corpus.values())
        if few + sum(found.texts for found in stated) < FEW or not self.leads:
            return None
        own = [of_task(task, self.config) for task in self.tasks]
        return sentence([*own, *stated], self.reckoning)

    def _reranked_pairs(self, task: Task) -> int:
        """Query-passage pairs that a second stage reads at most."""
        from hybridbatch.scoring.reranking.stage import rankings

        passages = sum(len(texts.ids) for texts in task.corpus.values())
        return rankings(task) * min(self.config.rerank_depth, passages)


def tell_downloads(config: EvalConfig, report: Reporter) -> None:
    """Report a large download of tasks before it starts."""
    own, _ = split_names(config)
    trained = trained_languages(config)
    absent = [name for name in own if not is_here(name, config.data_root)]
    told = sentence([of_absent(name, config, trained) for name in absent], None)
    if told:
        report.note(f"{', '.join(absent)}: {told}")


def leads(config: EvalConfig) -> bool:
    """Whether this process scores and writes; otherwise it only helps to encode.

    Processes with --shards, and all but the first under torchrun, only help.
    """
    return config.shards is None and os.environ.get("RANK", "0") == "0"


def split_names(config: EvalConfig) -> tuple[list[str], list[str]]:
    """The tasks of this project and of the user, and the names left for mteb.

    A benchmark without other tasks replaces the default task.
    """
    names = () if config.benchmark and "tasks" not in config.model_fields_set else config.tasks
    own = [name for name in names if is_task(name)]
    others = [name for name in names if name not in own]
    if config.model == BM25 and (others or config.benchmark):
        raise ConfigError(
            "model = bm25 has no embeddings, but mteb's tasks need them"
            f" ({', '.join(filter(None, [*others, config.benchmark]))}); evaluate bm25 on built-in"
            " tasks and folders"
        )
    return own, others


def load_tasks(config: EvalConfig, names: Sequence[str], trained: Sequence[str]) -> list[Task]:
    """The tasks of an evaluation, each in those of the languages that it has.

    Raises:
        ConfigError: unknown tasks, two tasks of one name, or a task with none of the languages.
        DataError: bad data.
    """
    languages = config.task_languages
    tasks = [
        load_task(
            name,
            data_root=config.data_root,
            languages=languages,
            trained=trained,
            parallel=config.parallel,
            passage_share=config.passage_share,
        )
        for name in names
    ]
    for name, count in Counter(task.name for task in tasks).items():
        if count > 1:
            raise ConfigError(
                f"tasks = {','.join(config.tasks)!r}: {count} tasks are called {name!r}; rename one"
            )
    return tasks


def trained_languages(config: EvalConfig) -> tuple[str, ...]:
    """The languages that the model was trained on.

    They are from the settings, else from train.json of the run folder, else there are none.

    Raises:
        ConfigError: unknown languages.
    """
    if config.trained_languages is not None:
        return resolve(config.trained_languages, known_languages())
    facts = Path(config.model) / "train.json"
    if not facts.is_file():
        return ()
    return tuple(map(canonical, read_training(Path(config.model))["trained_languages"]))


def default_name(config: EvalConfig) -> str:
    """A folder name made from model and tasks."""
    parts = [Path(config.model).name, *(Path(name).name for name in config.tasks)]
    if config.debias:
        parts.append("debiased")
    return plain_name("-".join(["eval", *parts]))
