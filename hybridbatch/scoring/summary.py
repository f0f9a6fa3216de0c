"""What eval.json and the terminal say about the scores of a task."""

from collections.abc import Iterator, Mapping, Sequence
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
    """A task's part of eval.json: what it is, its macro-averages (`hybridbatch.scoring.averages`),
    and all language pairs.

    Args:
        cells: means of every cell.
        by_language: of every cell of a pool, means of measures by language of the pool.
    """
    groups = {
        "training": lambda language: TRAINED if language in trained else ZERO_SHOT,
        "resource_class": resource_class,
    }
    sizes = {language: len(texts.ids) for language, texts in task.corpus.items()}
    return {
        "name": task.name,
        "about": task.about,
        "provenance": dict(task.provenance),
        "parallel": task.parallel,
        "counts": {
            "queries": {language: len(texts.ids) for language, texts in task.queries.items()},
            "passages": {language: len(texts.ids) for language, texts in task.corpus.items()},
            "distinct_texts": sum(
                len(
                    np.unique(
                        np.concatenate([keys for texts in side.values() for keys in _keys(texts)])
                    )
                )
                for side in (task.queries, task.corpus)
            ),
        },
        "settings": summarise(cells, groups),
        "pairs": pair_matrix(cells),
        "bias": language_matrices(by_language or {}, sizes, groups),
    }


def _keys(texts: Texts) -> Iterator[np.ndarray]:
    """Hashes of texts, some at a time: a corpus may be larger than the memory."""
    from hybridbatch.search.embeddings import SHARD_TEXTS, text_keys

    for start in range(0, len(texts.texts), SHARD_TEXTS):
        yield text_keys(texts.texts[start : start + SHARD_TEXTS])


def summary_rows(evaluation: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The table for the terminal: a row for each task, and within it for each part of the
    languages.

    Args:
        evaluation: the content of eval.json.
    Returns: rows of task (and the depth, where it was searched), languages ("all", then the groups
        by training if the model was trained), mAP of the three settings, of the pools of groups,
        and rank distance; None where a task or group has no such setting.
    """
    rows = []
    settings = dict.fromkeys(
        [*SETTINGS, *(setting for task in evaluation["tasks"] for setting in task["settings"])]
    )
    for task in evaluation["tasks"]:
        labels = [None]
        if evaluation["model"]["trained_languages"]:
            labels += sorted(
                {label for s in task["settings"].values() for label in s["groups"]["training"]}
            )
        for label in labels:
            cut = f"@{task['search']['depth']}" if "search" in task else ""
            row: dict[str, Any] = {"task": task["name"] + (f" (first {cut[1:]})" if cut else "")}
            row["languages"] = label or "all"
            found = {}
            for setting in settings:
                part = task["settings"].get(setting, {})
                part = (
                    part
                    if label is None
                    else part.get("groups", {}).get("training", {}).get(label, {})
                )
                found[setting] = part.get("metrics", {})
                row[setting] = found[setting].get(f"mAP{cut}")
            row["rank distance"] = found["multilingual"].get("rank_distance")
            rows.append(row)
    return rows


def official_rows(evaluation: Mapping[str, Any]) -> list[dict[str, Any]]:
    """A row for each mteb task of an eval.json: its main metric, subsets, mean over them, result
    file.
    """
    return [
        {name: row[name] for name in ("task", "metric", "subsets", "mean", "file")}
        | {"verified": len(row["verified"])}
        for row in evaluation["official"]
    ]
