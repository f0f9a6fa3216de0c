"""Rankers of the passages of a task, for `hybridbatch.scoring.evaluate`.

The rankers of baselines are in `hybridbatch.scoring.baselines`.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol, Self

import numpy as np

from hybridbatch.common.records import Task, Texts
from hybridbatch.debias.vectors_file import LanguageVectors
from hybridbatch.scoring.ranks import (
    Corpus,
    GridRanks,
    Passages,
    Relevance,
    Wanted,
    relevant_ranks,
)

# texts, "query" or "passage" -> [n, D], rows L2-normalised
Embed = Callable[[Sequence[str], str], np.ndarray]


class Ranker(Protocol):
    """Ranks the passages of a task, by embeddings or by BM25."""

    @property
    def passages(self) -> Passages:
        """All passages of the task."""

    def ranks(
        self, language: str, relevance: Mapping[str, Relevance], wanted: Wanted | None = None
    ) -> GridRanks:
        """The ranks for the queries of a language; arguments as `scoring.ranks.relevant_ranks`."""


class EmbeddingRanker:
    """Ranks by inner products; all queries and all passages are embedded in one call each."""

    def __init__(
        self,
        task: Task,
        embed: Embed,
        device: str = "cpu",
        debias: LanguageVectors | None = None,
    ) -> None:
        """Embed the texts of a task, and subtract the language vectors, if there are any."""
        passages = embed_by_language(task.corpus, "passage", embed)
        self.queries = embed_by_language(task.queries, "query", embed)
        if debias:
            passages = {
                language: debias.apply(vectors, "passage", language)
                for language, vectors in passages.items()
            }
            self.queries = {
                language: debias.apply(vectors, "query", language)
                for language, vectors in self.queries.items()
            }
        self.passages = _corpus(task, passages, device)

    @classmethod
    def of_vectors(
        cls,
        task: Task,
        queries: Mapping[str, np.ndarray],
        passages: Mapping[str, np.ndarray],
        device: str = "cpu",
    ) -> Self:
        """A ranker of vectors that are there already: [n, D] by language, rows of length 1."""
        ranker = cls.__new__(cls)
        ranker.queries = dict(queries)
        ranker.passages = _corpus(task, dict(passages), device)
        return ranker

    def ranks(
        self, language: str, relevance: Mapping[str, Relevance], wanted: Wanted | None = None
    ) -> GridRanks:
        """As `Ranker`."""
        return relevant_ranks(self.queries[language], self.passages, relevance, wanted)


def _corpus(task: Task, passages: dict[str, np.ndarray], device: str) -> Corpus:
    ids = {language: texts.ids for language, texts in task.corpus.items()}
    return Corpus(passages, ids, device)


def embed_by_language(
    side: Mapping[str, Texts], kind: str, embed: Embed
) -> dict[str, np.ndarray]:
    """[n, D] for each language, from one call for the texts of all languages."""
    joined: list[str] = []
    for texts in side.values():
        joined += texts.texts
    vectors = embed(joined, kind)
    ends = np.cumsum([len(texts.ids) for texts in side.values()])
    return dict(zip(side, np.split(vectors, ends[:-1]), strict=True))
