"""`hybridbatch reproduce`: train one start with several mixes, and compare before and after.

All other settings are equal, the temperature too: if it is to be found, it is found once, before
any training, and every mix gets it. The command runs `prepare`, `train` and `eval`, resumes as they
do, and writes a report.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, TypeAlias

import numpy as np
from pydantic import Field

import hybridbatch
from hybridbatch.common.documents import Shape, read_document, read_training
from hybridbatch.common.errors import ConfigError
from hybridbatch.common.files import make_folder, write_json, write_text
from hybridbatch.common.progress import SILENT, Reporter
from hybridbatch.common.provenance import hardware, versions
from hybridbatch.common.settings import build
from hybridbatch.common.tables import markdown_table
from hybridbatch.data.settings import PrepareConfig
from hybridbatch.data.sources.registry import source
from hybridbatch.data.store.reader import Store
from hybridbatch.scaling.experiment_cost import Cost, cost_of
from hybridbatch.scaling.published import MEASURES as PUBLISHED
from hybridbatch.scaling.published import (
    gap_rows,
    has_measure,
    metrics_of,
    shown,
    unknown_names,
    value_rows,
)
from hybridbatch.scaling.settings import ReproduceConfig
from hybridbatch.scoring.averages import SETTINGS
from hybridbatch.scoring.documents import read_evaluation
from hybridbatch.scoring.drawing import STYLE, write_figure
from hybridbatch.scoring.settings import EvalConfig
from hybridbatch.training.settings import AUTO, TrainConfig

SCHEMA_VERSION = 1
LEAST_STEPS = 20  # of a run at a smaller scale
UNTRAINED = "untrained"
READ_MIX = 0.5  # of the batches on which the temperature of all mixes is found
# of the language pairs; see hybridbatch.averages
PARTS = ("all", "trained", "trained-to-zero-shot", "zero-shot")
MEASURES = dict.fromkeys(SETTINGS, "mAP") | {"rank distance": "rank_distance"}


class ArmTask(Shape):
    """The scores of an arm on a task."""

    name: str
    settings: dict[str, dict[str, Any]]


class ArmResult(Shape):
    """An arm in ``results.json``."""

    name: str
    batches: str
    train: dict[str, Any]
    tasks: list[ArmTask]


class Reproduced(Shape):
    """``results.json``."""

    kind_name: ClassVar[str] = "reproduce"
    versions: ClassVar[tuple[int, ...]] = (SCHEMA_VERSION,)
    what: ClassVar[str] = "result of `hybridbatch reproduce`"

    config: dict[str, Any]
    arms: list[ArmResult] = Field(min_length=1)
    comparisons: list[dict[str, Any]]
    temperature: float | None = None  # of every arm; older results do not name it
    temperature_found_on: str | None = None  # None: the settings name the temperature


class FoundOnce(Shape):
    """``runs/temperature.json``."""

    kind_name: ClassVar[str] = "temperature"
    versions: ClassVar[tuple[int, ...]] = (SCHEMA_VERSION,)
    what: ClassVar[str] = "temperature of an experiment"

    temperature: float = Field(gt=0)


@dataclass(frozen=True)
class Arm:
    """One training run of the experiment, or the untrained start."""

    mix: float | None = None
    seed: int | None = None

    @property
    def name(self) -> str:
        """The name of the arm's folders."""
        return UNTRAINED if self.mix is None else f"mix-{self.mix:g}-seed-{self.seed}"

    @property
    def batches(self) -> str:
        """The name of the arm's kind of batches."""
        return UNTRAINED if self.mix is None else batches_of(self.mix)


# All arms with their settings, in the order in which they run; no training for the untrained start.
Plans: TypeAlias = dict[Arm, tuple[TrainConfig | None, EvalConfig]]


def batches_of(mix: float) -> str:
    """The name of a mix: monolingual (X-X), cross-lingual (X-Y) or hybrid."""
    return {1.0: "monolingual", 0.0: "cross-lingual"}.get(mix, f"hybrid {mix:g}")


def reproduce(config: ReproduceConfig, report: Reporter = SILENT) -> Path:
    """Run the experiment and write ``results.json``, ``report.md`` and ``figure.svg``.

    Returns:
        The folder of the experiment.

    Raises:
        HybridBatchError: a stage failed. Finished parts are kept, and the same command goes on from
            there.
    """
    from hybridbatch.data.prepare import prepare
    from hybridbatch.scoring.evaluate import evaluate
    from hybridbatch.training.train import train

    asked, config = config, scaled(config)
    plans = plan(config)  # every setting is checked before any work
    for name, told in forecast(config).lines(folder_of(config)).items():
        report.note(f"{name}: {told}")
    folder = make_folder(folder_of(config))
    data = prepare(preparation(config), report)
    report.note(f"data: {data}")
    if config.proportions:
        plans = plan(config, source_weights(config, data))
    found_on = where_found(plans)
    if found_on:
        plans = at_one_temperature(plans, folder, report)
    outcomes, trained_on = {}, None
    # the untrained start comes last
    for number, arm in enumerate(sorted(plans, key=lambda arm: arm.mix is None), 1):
        training, evaluation = plans[arm]
        report.note(f"{number}/{len(plans)} {arm.name}")
        facts = {}
        if training:
            facts = read_training(train(training, report))
            trained_on = ",".join(facts["trained_languages"])
        else:  # scored in the same groups of languages as the others
            evaluation = build(
                EvalConfig, overrides={**evaluation.as_json(), "trained_languages": trained_on}
            )
        outcomes[arm] = outcome(arm, facts, read_evaluation(evaluate(evaluation, report)))
    result = {
        "schema_version": SCHEMA_VERSION,
        "kind": "reproduce",
        "hybridbatch": hybridbatch.__version__,
        "config": asked.as_json(),
        "versions": versions(),
        "hardware": hardware(),
        "temperature": next(t.temperature for t, _ in plans.values() if t),
        "temperature_found_on": found_on,
        "arms": [outcomes[arm] for arm in plans],
        "comparisons": comparisons(config, folder),
    }
    write_json(folder / "results.json", result, sealed=True)
    draw(result, folder / "figure.svg")
    write_text(folder / "report.md", report_text(result))
    return folder


def scaled(config: ReproduceConfig) -> ReproduceConfig:
    """The experiment at its scale, with a name and a folder of its own.

    Fewer records of each source, fewer steps, and fewer passages of large corpora. Everything else
    is as at full scale.
    """
    if config.scale == 1:
        return config
    share, train = config.scale, dict(config.train)
    steps = build(TrainConfig, overrides=train).steps
    train["steps"] = max(LEAST_STEPS, round(steps * share))
    for name in ("validate_every", "checkpoint_every", "warmup_steps"):
        if train.get(name):
            train[name] = max(1, round(int(train[name]) * train["steps"] / steps))
    given = config.model_fields_set | {"preparation", "train", "evaluation"}
    name = f"{config.name}-scale-{share:g}"
    changed = {
        "name": name,
        "out": folder_of(config).with_name(f"{folder_of(config).name}-scale-{share:g}"),
        "preparation": {"record_share": share, **config.preparation},
        "train": train,
        "evaluation": {"passage_share": share, **config.evaluation},
        "scale": 1.0,
    }
    values = {one: getattr(config, one) for one in given if one in type(config).model_fields}
    return build(ReproduceConfig, overrides={**values, **changed})


def forecast(config: ReproduceConfig) -> Cost:
    """What the experiment takes; nothing is downloaded."""
    plans = plan(config)
    trainings = [training for training, _ in plans.values() if training]
    prepared = preparation(config)
    is_prepared = prepared.out is not None and (prepared.out / "manifest.json").is_file()
    (untrained,) = [evaluation for training, evaluation in plans.values() if not training]
    return cost_of(prepared, trainings, untrained, is_prepared)


def dry_run(config: ReproduceConfig) -> dict[str, Any]:
    """What `reproduce` would do and take: the cost, and the settings of every stage.

    Raises:
        ConfigError: a setting is bad.
    """
    config = scaled(config)
    plans = plan(config)
    told: dict[str, Any] = {"cost": forecast(config).lines(folder_of(config))}
    if found_on := where_found(plans):
        told["temperature"] = f"to be found once for every mix, on {found_on}"
    told["prepare"] = preparation(config).as_json()
    for arm, (training, evaluation) in plans.items():
        told[arm.name] = {
            "train": training.as_json() if training else None,
            "eval": evaluation.as_json(),
        }
    return told


def source_weights(config: ReproduceConfig, data: Path) -> dict[str, float]:
    """Factors that let each source count for as many pairs as `proportions` says.

    Sources that the data lacks are left out.

    Raises:
        ConfigError: a name is no source.
    """
    index = Store.open(data).index("train")
    records = np.bincount(index.source, minlength=len(index.sources)).tolist()
    counts = dict(zip(index.sources, records, strict=True))
    weights = {}
    for name, pairs in config.proportions.items():
        own = name if name in counts else source(name).name
        if counts.get(own):
            weights[own] = pairs / counts[own]
    return weights


def folder_of(config: ReproduceConfig) -> Path:
    """The folder of an experiment."""
    return config.out or Path("experiments") / config.name


def plan(config: ReproduceConfig, weights: Mapping[str, float] | None = None) -> Plans:
    """All arms with their settings, in the order in which they run.

    Args:
        weights: see `source_weights`.

    Raises:
        ConfigError: a setting is bad.
    """
    unknown = unknown_names(config.published, [UNTRAINED, *map(batches_of, config.mixes)])
    if unknown:
        raise ConfigError(
            f"published: {', '.join(unknown)}: is neither a measure ({', '.join(PUBLISHED)}) nor"
            " the batches of a mix"
        )
    if weights:
        train = {"source_weights": dict(weights), **config.train}
        config = config.model_copy(update={"train": train})
    arms = [Arm(), *(Arm(mix, seed) for seed in config.seeds for mix in config.mixes)]
    return {arm: settings_of(config, arm, folder_of(config)) for arm in arms}


def where_found(plans: Plans) -> str | None:
    """The batches on which the temperature is found, in words; None if the settings name it."""
    training = _read_for_temperature(plans)
    if training.temperature != AUTO:
        return None
    return f"the first batches of mix {training.mix:g}, seed {training.seed}"


def _read_for_temperature(plans: Plans) -> TrainConfig:
    """The training whose first batches give the temperature. It need not be one of the arms."""
    trainings = [training for training, _ in plans.values() if training]
    if len({training.mix for training in trainings}) == 1:
        return trainings[0]
    return trainings[0].model_copy(update={"mix": READ_MIX})


def at_one_temperature(plans: Plans, folder: Path, report: Reporter) -> Plans:
    """The arms with the temperature that `where_found` tells of, the same for all.

    A run with ``--temperature auto`` reads its own batches, so each mix would get another. The
    folder keeps the temperature, so that a resumed experiment continues with it.
    """
    from hybridbatch.training.checkpoint import RUN
    from hybridbatch.training.train import start_temperature

    runs = folder / "runs"
    kept = runs / "temperature.json"
    if kept.exists() and list(runs.glob(f"*/{RUN}")):
        mend = f"remove {runs} to train again"
        temperature = read_document(kept, FoundOnce, mend)["temperature"]
    else:
        found = start_temperature(_read_for_temperature(plans), report)
        temperature = found.temperature
        (report.note if found.known else report.warn)(found.about)
        record = {"schema_version": SCHEMA_VERSION, "kind": "temperature"}
        write_json(kept, record | {"temperature": temperature}, sealed=True)
    report.note(f"temperature {temperature:g} for every mix, found on {where_found(plans)}")
    return {
        arm: (training and training.at_temperature(temperature), evaluation)
        for arm, (training, evaluation) in plans.items()
    }


def preparation(config: ReproduceConfig) -> PrepareConfig:
    """The settings of the preparation."""
    fixed: dict[str, Any] = {
        "sources": config.sources,
        "data_root": config.data_root,
        "out": Path("data") / config.name,
    }
    if config.sources == ("atlas",):
        # The published results are of batches in which territories with one description could meet.
        fixed["equal_queries"] = "together"
    return build(PrepareConfig, overrides={**fixed, **config.preparation})


def settings_of(
    config: ReproduceConfig, arm: Arm, folder: Path
) -> tuple[TrainConfig | None, EvalConfig]:
    """The training settings of an arm (None for the untrained start) and its scoring settings."""
    run = folder / "runs" / arm.name
    training = None
    shared = {"model": config.model} if config.model else {}
    if arm.mix is not None:
        fixed = {
            "data": str(preparation(config).out),
            "mix": arm.mix,
            "seed": arm.seed,
            "out": run,
        }
        clash = sorted(set(fixed) & set(config.train))
        if clash:
            raise ConfigError(
                f"train: the experiment itself sets {', '.join(clash)}; leave it out"
            )
        training = build(TrainConfig, overrides={**shared, **config.train, **fixed})
    evaluation = build(
        EvalConfig,
        overrides={
            **shared,
            "tasks": config.tasks,
            "languages": config.languages or default_languages(config.tasks),
            "data_root": config.data_root,
            **config.evaluation,
            **({"model": str(run)} if training else {}),
            "out": folder / "evals" / arm.name,
        },
    )
    return training, evaluation


def default_languages(tasks: Sequence[str]) -> str:
    """The evaluation languages if none are named: a choice of the atlas's languages, else all."""
    from hybridbatch.data.atlas.source import DEFAULT_EVALUATION

    return ",".join(DEFAULT_EVALUATION) if tuple(tasks) == ("atlas",) else "all"


def outcome(arm: Arm, facts: Mapping[str, Any], scores: Mapping[str, Any]) -> dict[str, Any]:
    """The part of an arm that results.json keeps."""
    kept = (
        "trained_languages",
        "steps",
        "temperature",
        "data",
        "schedule",
        "throughput",
        "seconds",
        "validation",
    )
    tasks = []
    for task in scores["tasks"]:
        settings = {name: _setting_facts(part) for name, part in task["settings"].items()}
        tasks.append({"name": task["name"], "about": task["about"], "settings": settings})
    return {
        "name": arm.name,
        "batches": arm.batches,
        "mix": arm.mix,
        "seed": arm.seed,
        "model_fingerprint": scores["model"]["fingerprint"],
        "train": {name: facts[name] for name in kept if name in facts},
        "tasks": tasks,
    }


def _setting_facts(part: Mapping[str, Any]) -> dict[str, Any]:
    return {name: part[name] for name in ("query_languages", "cells", "metrics", "groups")}


def table_rows(result: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The rows of the table: one for each task, part of the languages and kind of batches.

    Values are means over seeds. The parts are all languages, the languages of the training, the
    other languages (zero-shot), and queries in languages of the training against passages in the
    other languages. The untrained start has the same parts.
    """
    arms = result["arms"]
    kinds = dict.fromkeys(arm["batches"] for arm in arms)
    rows = []
    for number, task in enumerate(arms[0]["tasks"]):
        for part in PARTS:
            for batches in kinds:
                chosen = [arm for arm in arms if arm["batches"] == batches]
                settings = [arm["tasks"][number]["settings"] for arm in chosen]
                values = {}
                for name in MEASURES:
                    values[name] = _mean(_measure(each, name, part) for each in settings)
                if any(value is not None for value in values.values()):
                    about = {"task": task["name"], "languages": part, "batches": batches}
                    rows.append({**about, **values})
    return rows


def _measure(settings: Mapping[str, Any], name: str, part: str) -> float | None:
    setting = settings.get("multilingual" if name == "rank distance" else name, {})
    if part != "all":
        setting = setting.get("groups", {}).get("training", {}).get(part, {})
    return setting.get("metrics", {}).get(MEASURES[name])


def _mean(values: Iterable[float | None]) -> float | None:
    found = [value for value in values if value is not None]
    return sum(found) / len(found) if found else None


def comparisons(config: ReproduceConfig, folder: Path) -> list[dict[str, Any]]:
    """Compare every hybrid mix with both pure mixes, in each setting of each task, over all seeds.

    Returns:
        The rows of `hybridbatch.scoring.compare` with verdict and metric. There are none if the
        experiment has no pure mix or no hybrid mix.
    """
    from hybridbatch.scoring.compare import compare

    pure = [mix for mix in (1.0, 0.0) if mix in config.mixes]
    hybrid = [mix for mix in config.mixes if mix not in pure]
    if not pure or not hybrid:
        return []
    mixes = [*hybrid, *pure]
    runs = []
    for mix in mixes:
        runs.append([folder / "evals" / Arm(mix, seed).name for seed in config.seeds])
    pairs = [(mixes.index(a), mixes.index(b)) for a in hybrid for b in pure]
    rows = []
    for metric in ("mAP", "rank_distance", *metrics_of(config.published)):
        found = compare(runs, metric, names=[batches_of(mix) for mix in mixes], pairs=pairs)
        for row, verdict in zip(found["rows"], found["verdicts"], strict=True):
            if has_measure(config.published, row["task"], row["setting"], metric):
                rows.append({"metric": metric, **row, "verdict": verdict})
    return rows


def report_text(result: Mapping[str, Any]) -> str:
    """The report as Markdown: the experiment, the table, the tests and the command."""
    arms, config = result["arms"], result["config"]
    rows = table_rows(result)
    measures = {name: name if name == "rank distance" else f"{name} mAP" for name in MEASURES}
    table = []
    for row in rows:
        line = {name: row[name] for name in ("task", "languages", "batches")}
        for name, title in measures.items():
            line[title] = _shown(row[name], 0 if name == "rank distance" else 3)
        table.append(line)
    trained: dict[str, Any] = next((arm["train"] for arm in arms if arm["train"]), {})
    caveats = dict.fromkeys(f"- {task['name']}: {task['about']}" for task in arms[0]["tasks"])
    machine = result["hardware"]
    seconds = [arm["train"]["throughput"]["seconds"] for arm in arms if arm["train"]]
    done = [
        f"- training data: {', '.join(config['sources'])}; languages:"
        f" {', '.join(trained.get('trained_languages', []))}",
        f"- start: {config['model'] or 'e5-small-q4'}; {trained.get('steps')} steps; seeds"
        f" {', '.join(map(str, config['seeds']))}",
        "- the same start, data, order of draws and settings for every mix: "
        + ", ".join(f"{name} {value}" for name, value in _train_settings(result).items()),
        f"- {machine['cpu']}, {machine['cores']} cores; {sum(seconds) / 60:.1f} minutes of training"
        " in all",
    ]
    verdicts = [f"- {row['verdict']}" for row in result["comparisons"]]
    return "\n".join(
        [
            f"# {config['name']}: what hybrid batches do",
            "",
            *done,
            "",
            "mAP is mean average precision, macro-averaged over languages (docs/evaluation.md)."
            " Rank distance is in ranks, and lower is better. Zero-shot means that training had no"
            " language of the setting. Trained-to-zero-shot means that training had the language of"
            " the query only.",
            "",
            markdown_table(table, right=list(measures.values())),
            "",
            "![mAP and rank distance by kind of batches](figure.svg)",
            "",
            *_published_text(result),
            "## Differences",
            "",
            *verdicts,
            "",
            "## Facts about the tasks",
            "",
            *caveats,
            "",
            "## Run it again",
            "",
            "`hybridbatch reproduce` with the settings under `config` of results.json (a `--config`"
            " file may hold them) gives these numbers on this kind of machine. It does not repeat"
            " finished parts.",
            "",
        ]
    )


def _train_settings(result: Mapping[str, Any]) -> dict[str, Any]:
    """The training settings of an experiment, as they are at its scale, and its temperature."""
    settings = dict(scaled(build(ReproduceConfig, overrides=result["config"])).train)
    if "temperature" in result:
        found_on = result["temperature_found_on"]
        how = f" (found before training on {found_on})" if found_on else ""
        settings["temperature"] = f"{result['temperature']:g}{how}"
    return settings


def _published_text(result: Mapping[str, Any]) -> list[str]:
    """The part of the report about published values; empty if there are none."""
    rows = value_rows(result)
    if not rows:
        return []
    scale = result["config"].get("scale", 1.0)
    caveat = []
    if scale < 1:
        caveat = [
            f"**This run is {scale:g} of the experiment, so its values are not a reproduction.**",
            "",
        ]
    gaps = gap_rows(result)
    tests: list[str] = []
    if gaps:
        tests = [
            "Differences between kinds of batches, with 95 % intervals over questions and p values"
            " after Holm's correction. The published values have no intervals.",
            "",
            markdown_table(list(shown(gaps)), right=["published", "ours", "low", "high", "p"]),
            "",
        ]
    return [
        "## Published values and ours",
        "",
        *caveat,
        markdown_table(list(shown(rows)), right=["published", "ours", "difference"]),
        "",
        *tests,
    ]


def _shown(value: float | None, digits: int) -> str:
    return "–" if value is None else f"{value:.{digits}f}"


def draw(result: Mapping[str, Any], path: Path) -> None:
    """Draw mAP in the three settings and rank distance of each task, with a mark for each arm."""
    import matplotlib
    from matplotlib.figure import Figure

    arms = result["arms"]
    kinds = list(dict.fromkeys(arm["batches"] for arm in arms))
    tasks = [task["name"] for task in arms[0]["tasks"]]
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(8, 2.8 * len(tasks)), layout="constrained")
        grid = figure.subplots(len(tasks), 2, squeeze=False, width_ratios=(3, 1))
        for number, (task, (left, right)) in enumerate(zip(tasks, grid, strict=True)):
            for arm in arms:
                _mark_arm(arm, number, kinds, left, right)
            left.set_xticks(range(len(SETTINGS)), SETTINGS)
            left.set_ylabel("mAP")
            left.set_title(task, loc="left")
            right.set_xticks([])
            right.set_xlim(-0.6, 0.6)
            right.set_title("rank distance", loc="left")
            for axes in (left, right):
                axes.set_ylim(bottom=0)
                axes.grid(axis="y", alpha=0.3)
        handles, labels = grid[0][0].get_legend_handles_labels()
        named = dict(zip(labels, handles, strict=True))
        figure.legend(
            named.values(),
            named.keys(),
            loc="outside lower center",
            ncols=len(named),
            frameon=False,
        )
    write_figure(figure, path)


def _mark_arm(
    arm: Mapping[str, Any], task: int, kinds: list[str], left: Any, right: Any
) -> None:
    """Draw the marks of an arm beside the marks of the other kinds of batches."""
    kind = kinds.index(arm["batches"])
    offset = (kind - (len(kinds) - 1) / 2) * 0.16
    mark = {"color": f"C{kind}", "marker": "o", "linestyle": "none", "markersize": 5}
    settings = arm["tasks"][task]["settings"]
    values = [_measure(settings, name, "all") for name in SETTINGS]
    places = [place + offset for place in range(len(SETTINGS))]
    left.plot(places, values, label=arm["batches"], **mark)
    right.plot([offset], [_measure(settings, "rank distance", "all")], **mark)
