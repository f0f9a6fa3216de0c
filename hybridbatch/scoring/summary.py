"""The part of a task in eval.json, and the tables for the terminal."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from hybridbatch.common.languages import resource_class
from hybridbatch.common.records import Task, Texts
from hybridbatch.scoring.averages import SETTINGS, language_matrices, pair_matrix, summarise

TRAINED, ZERO_SHOT = "trained", "zero-shot"


def describe(
    task: Task,
    cells: Mapping[tuple[str, str], Mapping[str, float]],
    trained: Sequence[str],
    by_language: Mapping[tuple[str, str], Mapping[str, Mapping[str, float]]] | None = None,
) -> dict[str, Any]:
    """The part of a task in eval.json.

    It has a description, macro-averages (`hybridbatch.scoring.averages`) and all language pairs.

    Args:
        cells: means of every cell.
        by_language: for every cell of a pool, means of measures by language of the pool.
    """
    groups = {
        "training": lambda language: TRAINED if language in trained else ZERO_SHOT,
        "resource_class": resource_class,
    }
    sizes = {language: len(texts.ids) for language, texts in task.corpus.items()}
    return {
        "name": task.name,
        "about": task.about,
        **({"notes": list(task.notes)} if task.notes else {}),
        "provenance": dict(task.provenance),
        "parallel": task.parallel,
        "counts": {
            "queries": {language: len(texts.ids) for language, texts in task.queries.items()},
            "passages": {language: len(texts.ids) for language, texts in task.corpus.items()},
            "distinct_texts": _distinct(task.queries) + _distinct(task.corpus),
        },
        "settings": summarise(cells, groups),
        "pairs": pair_matrix(cells),
        "bias": language_matrices(by_language or {}, sizes, groups),
    }


def _distinct(side: Mapping[str, Texts]) -> int:
    """The number of distinct texts over all languages."""
    parts: list[np.ndarray] = []
    for texts in side.values():
        parts += _keys(texts)
    return len(np.unique(np.concatenate(parts))) if parts else 0


def _keys(texts: Texts) -> Iterator[np.ndarray]:
    """Yield hashes of texts in blocks, because a corpus may be larger than the memory."""
    from hybridbatch.search.embeddings import SHARD_TEXTS, text_keys

    for start in range(0, len(texts.texts), SHARD_TEXTS):
        yield text_keys(texts.texts[start : start + SHARD_TEXTS])


def summary_rows(evaluation: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The table for the terminal: a row for each task and each part of its languages.

    Args:
        evaluation: the content of eval.json.

    Returns:
        Rows of task (with the depth, if it was searched), languages ("all", then the groups by
        training if the model was trained), mAP of the three settings and of the pools of groups,
        and rank distance. A value is None if a task or group has no such setting.
    """
    settings = dict.fromkeys(SETTINGS)
    for task in evaluation["tasks"]:
        settings |= dict.fromkeys(task["settings"])
    rows = []
    for task in evaluation["tasks"]:
        rows.append(_summary_row(task, settings, None))
        if evaluation["model"]["trained_languages"]:
            labels: set[str] = set()
            for part in task["settings"].values():
                labels |= part["groups"]["training"].keys()
            rows += [_summary_row(task, settings, label) for label in sorted(labels)]
    return rows


def _summary_row(
    task: Mapping[str, Any], settings: Iterable[str], label: str | None
) -> dict[str, Any]:
    """A row of `summary_rows`.

    Args:
        label: the group by training; None: all languages.
    """
    mean_ap, name = "mAP", task["name"]
    if "search" in task:
        depth = task["search"]["depth"]
        mean_ap, name = f"mAP@{depth}", f"{name} (first {depth})"
    found: dict[str, Mapping[str, float]] = {}
    for setting in settings:
        part = task["settings"].get(setting, {})
        if label is not None:
            part = part.get("groups", {}).get("training", {}).get(label, {})
        found[setting] = part.get("metrics", {})
    row: dict[str, Any] = {"task": name, "languages": label or "all"}
    for setting, means in found.items():
        row[setting] = means.get(mean_ap)
    row["rank distance"] = found["multilingual"].get("rank_distance")
    return row


def official_rows(evaluation: Mapping[str, Any]) -> list[dict[str, Any]]:
    """A row for each mteb task of an eval.json: main metric, subsets, their mean, result file."""
    return [
        {name: row[name] for name in ("task", "metric", "subsets", "mean", "file")}
        | {"verified": len(row["verified"])}
        for row in evaluation["official"]
    ]
