"""The grid of a sweep: turn settings and facts into a list of content-addressed cells. Pure."""

import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hybridbatch.common import languages
from hybridbatch.common.errors import ConfigError, HybridBatchError, nearest
from hybridbatch.common.files import fingerprint
from hybridbatch.common.settings import build
from hybridbatch.sampling.strategies import MIXING
from hybridbatch.scaling.settings import BM25, CROSS_FIT, SweepConfig
from hybridbatch.scoring.settings import EvalConfig
from hybridbatch.training.settings import TrainConfig

CELL_SCHEMA = 1
# First defaults of settings whose default has changed since the first keys. A key leaves out a
# setting that has its first default, so the cells of older sweeps keep their keys.
FIRST_DEFAULTS = {"temperature": 0.05, "learning_rate": 3e-5}
PLACES = {"data_root", "out", "cache"}  # places on one machine, which are not written to files
# Settings that name places or machines, or trade memory for time; a cell's result does not depend
# on them.
TRAIN_BOOKKEEPING = {
    "name",
    "out",
    "data",
    "data_root",
    "model",
    "device",
    "micro_tokens",
    "memory_limit",
    "store_tokens",
    "checkpoint_every",
    "log_to",
}
LENGTHS = ("max_query_tokens", "max_passage_tokens")
# A cell does not depend on `kernels`, because it is always computed with the plain kernels.
EVAL_BOOKKEEPING = {"name", "out", "data_root", "model", "tasks", "device", "cache", "kernels"}
# Training settings that an axis, a target or the sweep itself sets.
DECIDED = {
    "mix": "--mix",
    "max_records": "--pairs",
    "languages": "--train-languages",
    "batch_size": "--batch-size",
    "model": "--model",
    "steps": "--steps",
    "seed": "--seeds",
    "data": "--data",
    "data_root": "--data-root",
    "name": "--name",
    "out": "--out",
}


@dataclass(frozen=True)
class Facts:
    """Facts about data, tasks and models that a grid needs: contents, not places."""

    data: str  # fingerprint of the prepared data
    training_languages: tuple[str, ...]  # of the prepared data
    # the number of training records that exist in any of the given languages
    records: Callable[[Sequence[str]], int]
    tasks: Mapping[str, str]  # fingerprint by task name
    task_languages: tuple[str, ...]  # languages with evaluation data, over all tasks
    models: Mapping[str, str]  # fingerprint by name of a model, teacher or lexical baseline
    debias: str | None = None  # fingerprint of the text for language vectors, if it is named


@dataclass(frozen=True)
class Cell:
    """One training and its evaluation. Without `train`, it evaluates the untrained model."""

    axes: Mapping[str, Any]  # value on every axis, for tables
    train: TrainConfig | None
    evaluation: EvalConfig
    key: str  # hash of everything that determines the result
    debias: str | None = None  # where the language vectors come from; None: raw scores alone
    baseline: str | None = None  # what replaces the raw scores of an untrained model
    pivot: str | None = None  # of the baseline shift

    def settings(self) -> dict[str, Any]:
        """All settings except places on one machine, as JSON types."""
        further = {"debias": self.debias, "baseline": self.baseline, "pivot": self.pivot}
        return {
            "train": self.train and self.train.model_dump(mode="json", exclude=PLACES),
            "eval": self.evaluation.model_dump(mode="json", exclude=PLACES),
            **{name: value for name, value in further.items() if value is not None},
        }

    @property
    def label(self) -> str:
        """The cell in words."""
        return in_words(self.axes)

    @property
    def drawn_pairs(self) -> int:
        """The number of pairs that training draws, which determines its cost."""
        return self.train.steps * self.train.batch_size if self.train else 0


def in_words(axes: Mapping[str, Any]) -> str:
    """Axes with their values, without those that a cell does not have."""
    return ", ".join(f"{name} {value}" for name, value in axes.items() if value is not None)


def plan_cells(config: SweepConfig, facts: Facts) -> list[Cell]:
    """All cells of the grid: first the untrained models, then the trained ones seed by seed.

    With this order, an interrupted sweep is balanced.

    Raises:
        ConfigError: axes that contradict each other, the data or the targets; settings out of
            bounds; a named target without evaluation data.
    """
    targets = languages.resolve(config.languages, facts.task_languages)
    evaluation = {
        "tasks": config.tasks,
        "data_root": config.data_root,
        "languages": ",".join(targets),
        "parallel": config.parallel,
    }
    sets = {
        spec: _training_set(spec, config, facts, targets) for spec in config.train_languages
    }
    _check_pivot(config, targets)
    untrained: list[Cell] = []
    baselines: list[Cell] = []
    trained_cells: list[Cell] = []
    for axes, extra in _points(config):
        trained = sets[axes["train_languages"]]
        train = _train_settings(config, axes, extra, trained, facts)
        extra = {name: value for name, value in train.as_json().items() if name in extra}
        mix = axes["mix"] if train.strategy in MIXING else None
        axes = {**axes, "mix": mix, "pairs": train.max_records, **extra}
        # A trained model is scored at the lengths it was trained with, and so is its start.
        encoder = {"model": axes["model"]} | {name: getattr(train, name) for name in LENGTHS}
        scored = build(EvalConfig, None, {**evaluation, **encoder, "kernels": "plain"})
        start = {"model": axes["model"], "pairs": 0}
        untrained.append(_cell(start, None, scored, facts, config.debias))
        baselines += _baselines(config, start, scored, facts)
        trained_cells.append(_cell(axes, train, scored, facts, config.debias))
    return list({cell.key: cell for cell in [*untrained, *baselines, *trained_cells]}.values())


def _check_pivot(config: SweepConfig, targets: Sequence[str]) -> None:
    """Refuse a pivot that the baseline shift would look for in vain, before anything runs."""
    own = config.debias in (None, CROSS_FIT)
    if "shift" in config.baselines and own and config.pivot not in targets:
        raise ConfigError(
            f"pivot = {config.pivot!r}: is not among the evaluated languages, so the baseline shift"
            " has no passages to move the others to; name another --pivot, evaluate the language,"
            " or name text with --debias"
        )


def _baselines(
    config: SweepConfig, start: Mapping[str, Any], scored: EvalConfig, facts: Facts
) -> Iterator[Cell]:
    """The lines without training that belong to one starting model."""
    for name in config.baselines:
        axes = {**start, "baseline": name}
        if name == BM25:
            # BM25 has no model, no lengths and no vectors, so it is one cell whatever the start.
            lexical = EvalConfig(
                model=BM25,
                tasks=scored.tasks,
                data_root=scored.data_root,
                languages=scored.languages,
                kernels="plain",
            )
            yield _cell({**axes, "model": BM25}, None, lexical, facts, None, name)
        else:
            pivot = config.pivot if name == "shift" else None
            yield _cell(axes, None, scored, facts, config.debias or CROSS_FIT, name, pivot)


def nested_order(codes: Sequence[str]) -> list[str]:
    """Languages from the best resourced to the least resourced.

    The order is by the class of Joshi et al. 2020, then by id. Unlisted languages are last.
    """
    return sorted(codes, key=lambda code: (-_class(code), code))


def _class(code: str) -> int:
    value = languages.language(code).joshi_class
    return -1 if value is None else value


def spread(cells: Sequence[Cell]) -> list[Cell]:
    """The cells in a space-filling order: each cell is the farthest from all cells before it.

    Distances are Euclidean over the axes, each scaled to 0..1 by the order of its values (greedy
    maximin design; Johnson, Moore and Ylvisaker 1990). Any prefix covers the grid about evenly,
    which suits a limited budget.
    """
    import numpy as np

    names = list(dict.fromkeys(name for cell in cells for name in cell.axes))
    columns = []
    for name in names:
        values = [cell.axes.get(name) for cell in cells]
        distinct = {str(value): value for value in values}  # some are lists
        ranks = {
            text: rank
            for rank, text in enumerate(
                sorted(distinct, key=lambda text: _sortable(distinct[text]))
            )
        }
        columns.append([ranks[str(value)] / max(1, len(ranks) - 1) for value in values])
    points = np.array(columns, dtype=float).T
    distance = np.full(len(cells), np.inf)
    order: list[int] = []
    for _ in cells:
        chosen = int(np.argmax(distance))
        order.append(chosen)
        distance = np.minimum(distance, np.linalg.norm(points - points[chosen], axis=1))
        distance[order] = -1
    return [cells[i] for i in order]


def _sortable(value: Any) -> tuple[int, float, str]:
    if value is None:
        return (0, 0, "")
    return (1, value, "") if isinstance(value, int | float) else (2, 0, str(value))


def _points(config: SweepConfig) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """(axes of the grid, other training settings) of every trained cell."""
    for name in config.set:
        if name in DECIDED:
            raise ConfigError(f"set: {name} has its own option; use {DECIDED[name]}")
        if name not in TrainConfig.model_fields:
            raise ConfigError(
                "set: unknown training setting"
                f" {name!r}{nearest(name, list(TrainConfig.model_fields))}"
            )
    axes = {
        "seed": config.seeds,
        "model": config.model,
        "train_languages": config.train_languages,
        "batch_size": config.batch_size,
        "epochs" if config.epochs else "steps": config.epochs or config.steps,
        "pairs": config.pairs,
    }
    grid = [*axes.values(), *config.set.values(), config.mix]
    for values in itertools.product(*grid):
        *known, mix = values
        point = dict(zip(axes, known, strict=False)) | {"mix": mix}
        yield point, dict(zip(config.set, known[len(axes) :], strict=True))


def _training_set(
    spec: int | str, config: SweepConfig, facts: Facts, targets: Sequence[str]
) -> list[str]:
    """The training languages that one value of the axis means, without the targets."""
    unseen = [
        code for code in facts.training_languages if config.allow_seen or code not in targets
    ]
    if isinstance(spec, int):
        if not 1 <= spec <= len(unseen):
            raise ConfigError(
                f"train_languages = {spec}: the data has {len(unseen)}"
                f" languages{'' if config.allow_seen else ' beside the targets'}; ask for 1 to"
                f" {len(unseen)}"
            )
        return nested_order(unseen)[:spec]
    clash = [] if config.allow_seen else [code for code in _named(spec) if code in targets]
    if clash:
        raise ConfigError(
            f"train_languages = {spec!r} names targets of the evaluation ({', '.join(clash)}); "
            "remove them from train_languages or from languages, or give --allow-seen"
        )
    chosen = [
        code for code in languages.resolve(spec, facts.training_languages) if code in unseen
    ]
    if not chosen:
        raise ConfigError(
            f"train_languages = {spec!r}: no language is left beside the targets; give --allow-seen"
        )
    return chosen


def _named(spec: str) -> list[str]:
    """The ids that a language spec names one by one, without its groups and exclusions."""
    named = []
    for part in spec.split(","):
        try:
            named.append(languages.canonical(part.strip()))
        except HybridBatchError:
            continue
    return named


def _train_settings(
    config: SweepConfig,
    axes: Mapping[str, Any],
    extra: Mapping[str, Any],
    trained: Sequence[str],
    facts: Facts,
) -> TrainConfig:
    available = facts.records(trained)
    pairs = axes["pairs"] or available
    where = f"train_languages = {axes['train_languages']!r}"
    if pairs > available:
        raise ConfigError(
            f"pairs = {pairs}: {where} has {available} training records; ask for at most that"
            " many, or for 'all'"
        )
    if axes["batch_size"] > pairs:
        raise ConfigError(
            f"batch_size = {axes['batch_size']} is more than pairs = {pairs}; every pair of a"
            " batch needs another record"
        )
    hybrid = extra.get("strategy", "hybrid") in MIXING
    if hybrid and axes["mix"] < 1 and len(trained) < 2:
        raise ConfigError(
            f"mix = {axes['mix']:g} needs cross-lingual batches, but {where} has one language only"
        )
    steps = (
        axes["steps"]
        if "steps" in axes
        else max(1, math.ceil(axes["epochs"] * pairs / axes["batch_size"]))
    )
    return build(
        TrainConfig,
        None,
        {
            "data": config.data,
            "data_root": config.data_root,
            "languages": ",".join(trained),
            "max_records": pairs,
            "mix": axes["mix"],
            "batch_size": axes["batch_size"],
            "model": axes["model"],
            "steps": steps,
            "seed": axes["seed"],
            "log_to": "none",
            **extra,
        },
    ).without_unused()


def _cell(
    axes: Mapping[str, Any],
    train: TrainConfig | None,
    evaluation: EvalConfig,
    facts: Facts,
    debias: str | None,
    baseline: str | None = None,
    pivot: str | None = None,
) -> Cell:
    model = str(axes["model"])
    teacher = {"teacher": facts.models[train.teacher]} if train and train.teacher else {}
    determined = {
        "schema": CELL_SCHEMA,
        "model": facts.models[model],
        "tasks": {name: facts.tasks[name] for name in evaluation.tasks},
        "eval": _counted(evaluation, EVAL_BOOKKEEPING),
        "train": train
        and {"data": facts.data, **_counted(train, TRAIN_BOOKKEEPING), **teacher},
    }
    if debias is not None:
        determined["debias"] = CROSS_FIT if debias == CROSS_FIT else facts.debias
    if baseline is not None:
        determined["baseline"] = [baseline, pivot]
    return Cell(axes, train, evaluation, fingerprint(determined), debias, baseline, pivot)


def _counted(settings: TrainConfig | EvalConfig, bookkeeping: set[str]) -> dict[str, Any]:
    """The settings that make up a cell's key, as JSON types.

    Settings at their defaults are left out, so a new setting does not change the keys of old cells.
    If you change a default, add the old default to `FIRST_DEFAULTS`. If you change the effect of a
    setting, raise `CELL_SCHEMA`.
    """
    counted = settings.model_dump(mode="json", exclude=bookkeeping, exclude_defaults=True)
    for name, first in FIRST_DEFAULTS.items():
        if name in type(settings).model_fields:
            counted[name] = getattr(settings, name)
            if counted[name] == first:
                del counted[name]
    return counted
