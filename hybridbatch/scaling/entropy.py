"""Contrastive entropy of a retrieval task: the loss on which laws of dense retrieval are fitted."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from hybridbatch.averages import POOL, setting_of
from hybridbatch.records import Task
from hybridbatch.scaling.fits import contrastive_entropy
from hybridbatch.seeding import stream

NEGATIVES = 256  # as in the paper


@dataclass(frozen=True)
class Entropies:
    """Contrastive entropies of n queries of one language in one setting, in nats."""

    setting: str
    query_language: str
    query_ids: tuple[str, ...]  # [n]
    values: np.ndarray  # float64 [n]


def task_entropies(
    task: Task,
    queries: Mapping[str, np.ndarray],
    passages: Mapping[str, np.ndarray],
    *,
    temperature: float,
    seed: int,
) -> Iterator[Entropies]:
    """Contrastive entropy of every judged query, in its own language, in each other one, and in the pool of all.

    The negatives of a query are the first 256 of a random order of the corpus that are not relevant to it (all, in a
    smaller corpus). The order depends on the seed and the corpus alone, so all runs meet the same negatives and
    differences between them are not blurred by the draw. A query's value is the mean over its relevant passages.

    Args:
        queries, passages: [n, D] by language, rows L2-normalised, in the order of the task's ids.
        temperature: > 0; divides the cosines.
        seed: of the draw.
    """
    corpora = {language: [(language, row) for row in range(len(vectors))] for language, vectors in passages.items()}
    if task.parallel and len(corpora) > 1:
        corpora[POOL] = [place for places in corpora.values() for place in places]
    for name, places in corpora.items():
        languages = [name] if name != POOL else list(passages)
        relevant = _relevant_places(task, languages)
        most = max(map(len, relevant.values()), default=0)
        order = stream(seed, "entropy negatives", len(places)).permutation(len(places))[: NEGATIVES + most]
        sample = [places[row] for row in order]
        sampled = np.array([passages[language][row] for language, row in sample])
        for language, texts in task.queries.items():
            if task.bitext and language == name:
                continue
            rows = [row for row, query in enumerate(texts.ids) if query in relevant]
            if rows:
                ids = tuple(texts.ids[row] for row in rows)
                values = _values(queries[language][rows], ids, relevant, sample, sampled, passages, temperature)
                yield Entropies(setting_of(language, name), language, ids, values)


def _relevant_places(task: Task, languages: Sequence[str]) -> dict[str, list[tuple[str, int]]]:
    """(language, row) of the relevant passages of every query that has some in these languages' corpora."""
    found: dict[str, list[tuple[str, int]]] = {}
    for language in languages:
        row_of = {passage: row for row, passage in enumerate(task.corpus[language].ids)}
        for query, judged in task.qrels.get(language, {}).items():
            rows = [row_of[passage] for passage, grade in judged.items() if grade > 0 and passage in row_of]
            if rows:
                found.setdefault(query, []).extend((language, row) for row in rows)
    return found


def _values(
    queries: np.ndarray,
    ids: Sequence[str],
    relevant: Mapping[str, list[tuple[str, int]]],
    sample: Sequence[tuple[str, int]],
    sampled: np.ndarray,
    passages: Mapping[str, np.ndarray],
    temperature: float,
) -> np.ndarray:
    column_of = {place: column for column, place in enumerate(sample)}
    scores = (queries @ sampled.T).astype(np.float64)
    for row, query in enumerate(ids):
        scores[row, [column_of[place] for place in relevant[query] if place in column_of]] = -np.inf
    scores[np.cumsum(np.isfinite(scores), axis=1) > NEGATIVES] = -np.inf
    values = np.empty(len(ids))
    for row, query in enumerate(ids):
        positives = np.array([passages[language][place] for language, place in relevant[query]]) @ queries[row]
        negatives = np.broadcast_to(scores[row], (len(positives), scores.shape[1]))
        values[row] = contrastive_entropy(positives, negatives, temperature).mean()
    return values
