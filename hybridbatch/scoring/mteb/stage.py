"""The part of `hybridbatch eval` that scores mteb's own tasks and writes official result files."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hybridbatch.common.documents import read_training
from hybridbatch.common.errors import ConfigError, DataError, nearest
from hybridbatch.common.languages import canonical, resolve
from hybridbatch.common.progress import SILENT, Reporter
from hybridbatch.common.retries import is_connection_error
from hybridbatch.data.tasks.mteb import (
    LeftOut,
    find_benchmark,
    find_tasks,
    keep_languages,
    languages_of,
)
from hybridbatch.data.tasks.registry import TASKS
from hybridbatch.scoring.mteb.meta import facts_of, model_meta
from hybridbatch.scoring.mteb.published import Published
from hybridbatch.scoring.mteb.results import TOLERANCE, StockModel, save, score_task, verify
from hybridbatch.scoring.settings import EvalConfig
from hybridbatch.search.embeddings import EmbeddingStore

PATIENCE = 2  # tasks of a benchmark that may fail because the hub cannot be reached
FOLDER = "mteb"  # within the evaluation's folder; also the run-local result cache
# recorded in mteb's experiment_kwargs
ABLATION = ("mix", "seed", "strategy", "batch_size", "steps", "learning_rate")


def official_tasks(
    config: EvalConfig, names: Sequence[str], trained: Sequence[str]
) -> tuple[list[Any], list[LeftOut]]:
    """mteb's tasks of these names and of the benchmark asked for, restricted to the wanted
    languages, and the tasks of the benchmark that cannot be scored.

    Raises: `ConfigError` for unknown names, with the nearest ones of this project and of mteb.
    """
    if not names and not config.benchmark:
        return [], []
    try:
        found, left_out = find_benchmark(config.benchmark) if config.benchmark else ([], [])
        named = find_tasks(names)
    except ConfigError as error:
        unknown = next((name for name in names if name in str(error)), "")
        raise ConfigError(
            f"{error}; the built-in tasks are {', '.join(TASKS)}{nearest(unknown, TASKS)}"
        ) from None
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"tasks {', '.join(names)}: are not built in, and {error.name} is not installed;"
            " install it, or name built-in tasks"
        ) from None
    if config.languages == "all":
        return found + named, left_out
    for task in named:
        keep_languages(task, resolve(config.task_languages, spoken(task), trained))
    kept = []
    for task in found:
        try:
            keep_languages(task, resolve(config.task_languages, spoken(task), trained))
            kept.append(task)
        except ConfigError:
            left_out.append(LeftOut.of(task, "has none of the languages asked for"))
    return kept + named, left_out


def spoken(task: Any) -> list[str]:
    """The languages that mteb lists for a task."""
    listed = task.metadata.eval_langs
    every = list(listed.values()) if isinstance(listed, Mapping) else [listed]
    return list(dict.fromkeys(canonical(code) for codes in every for code in codes))


def score_official(
    config: EvalConfig,
    tasks: Sequence[Any],
    store: EmbeddingStore,
    folder: Path,
    report: Reporter,
) -> tuple[list[dict[str, Any]], list[LeftOut]]:
    """Score tasks, write mteb's result files under ``folder/mteb``, verify samples.

    Args:
        store: of the model; for mteb's tasks it is used as its own files say (`Published`).

    Returns:
        The ``official`` part of eval.json, and the tasks of a benchmark whose data cannot be
        loaded or scored.

    Raises:
        DataError: A task that was named cannot be loaded or scored, or no task of the benchmark.
    """
    if not tasks:
        return [], []
    model = Published(config, store, report)
    meta = _meta(config, model, store)
    entries: list[dict[str, Any]] = []
    left_out: list[LeftOut] = []
    unreached = 0
    with report.bar("mteb tasks", len(tasks), "tasks") as bar:
        for task in tasks:
            try:
                result = score_task(task, model.embed_for(task), meta, report)
            except DataError as error:
                if not _may_fail(config, task):
                    raise
                report.warn(f"{task.metadata.name} has no score: {error}")
                left_out.append(LeftOut.of(task, str(error)))
                unreached += error.__cause__ is not None and is_connection_error(
                    error.__cause__
                )
                if unreached == PATIENCE and not entries:
                    break  # each further task would wait for the hub in vain
            else:
                entries.append(_entry(config, task, result, model, meta, folder))
            if task.data_loaded:
                task.unload_data()
            bar.advance()
    if not entries:
        raise DataError(
            f"no task of {config.benchmark} can be scored; the first: {left_out[0].reason}"
        )
    return entries, left_out


def _may_fail(config: EvalConfig, task: Any) -> bool:
    """Whether the evaluation goes on without a task: one of a benchmark that was not named."""
    return config.benchmark is not None and task.metadata.name not in config.tasks


def encode_official(config: EvalConfig, tasks: Sequence[Any], store: EmbeddingStore) -> None:
    """Put the vectors that `score_official` takes for these tasks into the store."""
    if tasks:
        model = Published(config, store, SILENT)
        meta = _meta(config, model, store)
        for task in tasks:
            try:
                score_task(task, model.embed_for(task), meta)
            except DataError:
                if not _may_fail(config, task):
                    raise  # else the process that scores tells it


def _meta(config: EvalConfig, model: Published, store: EmbeddingStore) -> Any:
    here = {name: both["here"] for name, both in model.departures.items()}
    return model_meta(
        Path(config.model).name,
        model.fingerprint,
        store.encoder.dimension,
        {**(_ablation(config) or {}), **here},
        facts_of(model.encoder) if model.encoder else None,
    )


def _entry(
    config: EvalConfig, task: Any, result: Any, model: Published, meta: Any, folder: Path
) -> dict[str, Any]:
    """One task's entry of eval.json; writes its result file and verifies samples of it."""
    path = save(result, meta, folder / FOLDER)
    main: list[dict[str, Any]] = []
    for split, entries in result.scores.items():
        for entry in entries:
            subset = {"split": split, "subset": entry["hf_subset"]}
            subset |= _direction(task, entry["hf_subset"])
            main.append({**subset, "main_score": entry["main_score"]})
    return {
        "task": result.task_name,
        "type": task.metadata.type,
        "revision": result.dataset_revision,
        "metric": task.metadata.main_score,
        "subsets": len(main),
        "mean": sum(entry["main_score"] for entry in main) / len(main),
        "by_subset": main,
        "file": str(path.relative_to(folder)),
        "precision": model.precision,
        "departures": model.departures,
        "verified": _verified(config, task, result, model, meta),
    }


def _verified(
    config: EvalConfig, task: Any, result: Any, model: Published, meta: Any
) -> list[dict[str, Any]]:
    """Samples of a result compared with stock mteb: on its own loader of the model, or on our
    vectors where that loader cannot be told the user's settings.
    """
    if not config.verify:
        return []
    theirs = model.own_loader(meta)
    if theirs is None:
        stock = StockModel(model.embed_for(task), meta)
        rows = verify(task, result, stock, config.verify, config.seed)
        return [{**row, "loader": "our vectors"} for row in rows]
    weights = next(theirs.model.parameters())
    computed_alike = weights.element_size() >= 4 and model.precision == "fp32"
    rows = verify(task, result, theirs, config.verify, config.seed, TOLERANCE[computed_alike])
    return [{**row, "loader": "sentence-transformers"} for row in rows]


def _direction(task: Any, subset: str) -> dict[str, str | None]:
    query, corpus = languages_of(task, subset) or (None, None)
    return {"query_language": query, "corpus_language": corpus}


def _ablation(config: EvalConfig) -> dict[str, Any] | None:
    facts = Path(config.model) / "train.json"
    if not facts.is_file():
        return None
    settings = read_training(facts.parent)["config"]
    return {name: settings[name] for name in ABLATION if name in settings}
