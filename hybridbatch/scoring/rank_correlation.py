"""MRC@k of a task: how alike the rankings of one question in different languages are."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from hybridbatch.common.records import Task
from hybridbatch.scoring.columns import K
from hybridbatch.scoring.language_bias import rank_correlation

BLOCK_SCORES = 1 << 24


def mean_rank_correlation(
    task: Task, queries: Mapping[str, np.ndarray], passages: np.ndarray, k: int = K
) -> dict[str, Any] | None:
    """MRC@k over the pool of all corpora; None where no question is in two languages.

    Args:
        queries: float32 [Q, D] by language, in the order of the task's queries.
        passages: float32 [P, D], of all languages.

    Returns:
        ``mean`` over query languages, ``by_query_language``, from -1 to 1.
    """
    versions: dict[str, list[tuple[str, int]]] = {}
    for language, texts in task.queries.items():
        for row, name in enumerate(texts.ids):
            versions.setdefault(name, []).append((language, row))
    shared = {name: pairs for name, pairs in versions.items() if len(pairs) > 1}
    if not shared or len(passages) < 2:
        return None
    first = {language: _first(rows, passages, k) for language, rows in queries.items()}
    found: dict[str, list[float]] = {language: [] for language in task.queries}
    for pairs in shared.values():
        tops = [first[language][row] for language, row in pairs]
        union = np.unique(np.concatenate(tops))
        own = np.stack([queries[language][row] for language, row in pairs])
        among = np.stack([np.isin(union, top) for top in tops])
        correlations = rank_correlation(own @ passages[union].T, among)
        for (language, _), value in zip(pairs, correlations.tolist(), strict=True):
            found[language].append(value)
    means = {
        language: float(np.nanmean(values))
        for language, values in found.items()
        if values and not np.isnan(values).all()
    }
    if not means:
        return None
    return {"mean": float(np.mean(list(means.values()))), "by_query_language": means}


def _first(queries: np.ndarray, passages: np.ndarray, k: int) -> np.ndarray:
    """int [Q, k]: the first passages of each query, in any order."""
    count = min(k, len(passages))
    step = max(1, BLOCK_SCORES // len(passages))
    parts = []
    for start in range(0, len(queries), step):
        scores = queries[start : start + step] @ passages.T
        parts.append(np.argpartition(-scores, count - 1, axis=1)[:, :count])
    return np.concatenate(parts)
