"""The part of `hybridbatch eval` that scores mteb's own tasks and writes official result files."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hybridbatch.common.documents import read_training
from hybridbatch.common.errors import ConfigError, nearest
from hybridbatch.common.languages import canonical, resolve
from hybridbatch.common.progress import Reporter
from hybridbatch.data.tasks.mteb import find_tasks, keep_languages, languages_of
from hybridbatch.data.tasks.registry import TASKS
from hybridbatch.scoring.mteb.results import Embed, model_meta, save, score_task, verify
from hybridbatch.scoring.settings import EvalConfig

FOLDER = "mteb"  # within the evaluation's folder; also the run-local result cache
# recorded in mteb's experiment_kwargs
ABLATION = ("mix", "seed", "strategy", "batch_size", "steps", "learning_rate")


def official_tasks(config: EvalConfig, names: Sequence[str], trained: Sequence[str]) -> list[Any]:
    """mteb's tasks of these names and of the benchmark asked for, restricted to the wanted
    languages.

    Raises: `ConfigError` for unknown names, with the nearest ones of this project and of mteb.
    """
    if not names and not config.benchmark:
        return []
    try:
        tasks = find_tasks(names, config.benchmark)
    except ConfigError as error:
        unknown = next((name for name in names if name in str(error)), "")
        raise ConfigError(
            f"{error}; the project's own tasks: {', '.join(TASKS)}{nearest(unknown, TASKS)}"
        ) from None
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"tasks {', '.join(names)}: not built in, and {error.name} is not installed"
        ) from None
    if config.languages != "all":
        for task in tasks:
            keep_languages(task, resolve(config.task_languages, spoken(task), trained))
    return tasks


def spoken(task: Any) -> list[str]:
    """The languages that mteb lists for a task."""
    listed = task.metadata.eval_langs
    every = list(listed.values()) if isinstance(listed, Mapping) else [listed]
    return list(dict.fromkeys(canonical(code) for codes in every for code in codes))


def score_official(
    config: EvalConfig,
    tasks: Sequence[Any],
    embed: Embed,
    fingerprint: str,
    dimension: int,
    folder: Path,
    report: Reporter,
) -> list[dict[str, Any]]:
    """Score tasks, write mteb's result files under ``folder/mteb``, verify samples; the
    ``official`` part of eval.json.
    """
    meta = model_meta(Path(config.model).name, fingerprint, dimension, _ablation(config))
    rows = []
    for task in tasks:
        result = score_task(task, embed, meta, report)
        path = save(result, meta, folder / FOLDER)
        checked = (
            verify(task, result, embed, meta, config.verify, config.seed) if config.verify else []
        )
        every = [entry for entries in result.scores.values() for entry in entries]
        rows.append(
            {
                "task": result.task_name,
                "revision": result.dataset_revision,
                "metric": task.metadata.main_score,
                "subsets": len(every),
                "mean": sum(entry["main_score"] for entry in every) / len(every),
                "by_subset": [
                    {
                        "split": split,
                        "subset": entry["hf_subset"],
                        **_direction(task, entry["hf_subset"]),
                        "main_score": entry["main_score"],
                    }
                    for split, entries in result.scores.items()
                    for entry in entries
                ],
                "file": str(path.relative_to(folder)),
                "verified": checked,
            }
        )
    return rows


def _direction(task: Any, subset: str) -> dict[str, str | None]:
    query, corpus = languages_of(task, subset) or (None, None)
    return {"query_language": query, "corpus_language": corpus}


def _ablation(config: EvalConfig) -> dict[str, Any] | None:
    facts = Path(config.model) / "train.json"
    if not facts.is_file():
        return None
    settings = read_training(facts.parent)["config"]
    return {name: settings[name] for name in ABLATION if name in settings}
