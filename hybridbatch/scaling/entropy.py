"""Contrastive entropy of a retrieval task, the loss to which scaling laws are fitted."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from hybridbatch.common.records import Task
from hybridbatch.common.seeding import stream
from hybridbatch.scaling.fits import contrastive_entropy
from hybridbatch.scoring.averages import POOL, setting_of

NEGATIVES = 256  # as in the paper


@dataclass(frozen=True)
class Entropies:
    """Contrastive entropies of n queries of one language in one setting, in nats."""

    setting: str
    query_language: str
    query_ids: tuple[str, ...]  # [n]
    values: np.ndarray  # float64 [n], mean over the corpora of the setting


def task_entropies(
    task: Task,
    queries: Mapping[str, np.ndarray],
    passages: Mapping[str, np.ndarray],
    *,
    temperature: float,
    seed: int,
) -> Iterator[Entropies]:
    """Contrastive entropy of every judged query in every corpus and in the pool of all languages.

    The negatives of a query are the first 256 passages in a random order of the corpus that are not
    relevant to the query (all such passages, if there are fewer). The order depends only on the
    seed and the corpus. So all runs have the same negatives, and the draw does not blur differences
    between runs. A query's value is the mean over its relevant passages.

    Args:
        queries, passages: [n, D] by language, rows L2-normalised, in the order of the task's ids.
        temperature: > 0; divides the cosines.
        seed: the seed of the draw.
    """
    corpora = {name: _Corpus(task, [name], passages, seed) for name in passages}
    if task.parallel and len(passages) > 1:
        corpora[POOL] = _Corpus(task, list(passages), passages, seed)
    for language, texts in task.queries.items():
        sums: dict[str, np.ndarray] = {}
        counts: dict[str, np.ndarray] = {}
        for name, corpus in corpora.items():
            if task.bitext and language == name:
                continue
            rows, values = corpus.entropies(texts.ids, queries[language], temperature)
            setting = setting_of(language, name)
            for totals, amounts in ((sums, values), (counts, np.ones(len(rows)))):
                totals.setdefault(setting, np.zeros(len(texts.ids)))[rows] += amounts
        for setting, count in counts.items():
            judged = np.flatnonzero(count)
            ids = tuple(texts.ids[row] for row in judged.tolist())
            yield Entropies(setting, language, ids, sums[setting][judged] / count[judged])


class _Corpus:
    """One corpus or pool: its vectors, its sample of negatives, and the relevant passages."""

    def __init__(
        self,
        task: Task,
        languages: Sequence[str],
        passages: Mapping[str, np.ndarray],
        seed: int,
    ) -> None:
        relevant = _relevant_rows(task, languages, passages)
        most = max(map(len, relevant.values()), default=0)
        self.number = {query: i for i, query in enumerate(relevant)}
        self.vectors = np.concatenate([passages[language] for language in languages])
        self.positive = np.array(
            [rows + [-1] * (most - len(rows)) for rows in relevant.values()]
        ).reshape(-1, most)
        order = stream(seed, "entropy negatives", len(self.vectors)).permutation(
            len(self.vectors)
        )[: NEGATIVES + most]
        self.sampled = self.vectors[order]
        wrong = np.array(
            [np.isin(order, rows, invert=True) for rows in relevant.values()]
        ).reshape(-1, len(order))
        self.negative = wrong & (np.cumsum(wrong, axis=1) <= NEGATIVES)  # [queries, sample]

    def entropies(
        self, ids: Sequence[str], queries: np.ndarray, temperature: float
    ) -> tuple[np.ndarray, np.ndarray]:
        """The rows of the queries that have judgements here, and their entropies."""
        rows = np.array(
            [row for row, query in enumerate(ids) if query in self.number], dtype=np.int64
        )
        numbers = np.array([self.number[ids[row]] for row in rows], dtype=np.int64)
        positive = self.positive[numbers]
        scores = np.where(self.negative[numbers], queries[rows] @ self.sampled.T, -np.inf)
        positives = np.einsum("qd,qrd->qr", queries[rows], self.vectors[positive])
        values = contrastive_entropy(positives, scores, temperature)
        return rows, np.where(positive >= 0, values, 0).sum(axis=1) / (positive >= 0).sum(
            axis=1
        )


def _relevant_rows(
    task: Task, languages: Sequence[str], passages: Mapping[str, np.ndarray]
) -> dict[str, list[int]]:
    """The rows of the relevant passages of every query that has some.

    Rows count through the corpora of the languages, one after the other.
    """
    found: dict[str, list[int]] = {}
    start = 0
    for language in languages:
        row_of = {passage: start + row for row, passage in enumerate(task.corpus[language].ids)}
        for query, judged in task.qrels.get(language, {}).items():
            rows = [
                row_of[passage]
                for passage, grade in judged.items()
                if grade > 0 and passage in row_of
            ]
            if rows:
                found.setdefault(query, []).extend(rows)
        start += len(passages[language])
    return found
