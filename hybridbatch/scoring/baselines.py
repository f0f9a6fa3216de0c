"""Baselines that `eval` takes in place of a model: BM25 and a random order."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import chain
from typing import Any, Literal

import numpy as np

from hybridbatch.common.files import fingerprint
from hybridbatch.common.progress import SILENT, Reporter
from hybridbatch.common.records import Task
from hybridbatch.common.settings import Precision
from hybridbatch.scoring.ranks import GridRanks, Passages, Relevance, Wanted, ranks_by_score
from hybridbatch.scoring.settings import RANDOM
from hybridbatch.search import bm25 as lexical

# width of random vectors; passages are independent, so a rank is uniform at any width
RANDOM_WIDTH = 64


class RandomEncoder:
    """Gives every text a random direction; equal texts tie, and everything else is chance.

    A store uses it like an `Encoder`.
    """

    def __init__(self, seed: int) -> None:
        self.name = RANDOM
        self.seed = seed
        self.dimension = RANDOM_WIDTH

    def fingerprint(self) -> str:
        """A hash of seed and width."""
        return fingerprint([RANDOM, self.seed, RANDOM_WIDTH], 64)

    def encode(
        self,
        texts: Sequence[str],
        side: Literal["query", "passage"],
        *,
        precision: Precision = "auto",
        report: Reporter = SILENT,
    ) -> np.ndarray:
        """float32 [n, D], rows L2-normalised."""
        keys = (
            hashlib.sha256(f"{self.seed} {side} {text}".encode()).digest() for text in texts
        )
        rows = [
            np.random.default_rng(int.from_bytes(key)).standard_normal(RANDOM_WIDTH)
            for key in keys
        ]
        vectors = np.array(rows, dtype=np.float32).reshape(-1, RANDOM_WIDTH)
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


class LexicalRanker:
    """BM25 rankings of a task.

    The corpus of each language has its own index, and each pool has one index over all its
    passages. Across languages, query and passage share only names, numbers and loan words. Passages
    without a shared term score 0 and are ordered by id.
    """

    def __init__(self, task: Task) -> None:
        self.passages = Passages(
            {language: texts.ids for language, texts in task.corpus.items()}
        )
        self._texts = {language: texts.texts for language, texts in task.corpus.items()}
        self._queries = {language: texts.texts for language, texts in task.queries.items()}
        self._single = _Index(
            [(self._texts[language], self._rows(language)) for language in self._texts]
        )
        self._pools: dict[tuple[str, ...], _Index] = {}

    def ranks(
        self,
        language: str,
        relevance: Mapping[str, Relevance],
        wanted: Wanted | None = None,
    ) -> GridRanks:
        """The ranks for the queries of a language; arguments as `scoring.ranks.ranks_by_score`."""
        wanted = wanted or Wanted()
        texts = self._queries[language]
        found = self._score(self._single, texts, relevance, replace(wanted, pools={}))
        for name, members in wanted.pools.items():
            pool = replace(wanted, pools={name: members}, languages=False)
            found.pools.update(self._score(self._pool(members), texts, relevance, pool).pools)
        return found

    def _pool(self, members: Sequence[str]) -> "_Index":
        """The index of all passages of some languages."""
        index = self._pools.get(tuple(members))
        if index is None:
            joined: list[str] = []
            for member in members:
                joined += self._texts[member]
            rows = np.concatenate([self._rows(member) for member in members])
            index = self._pools[tuple(members)] = _Index([(joined, rows)])
        return index

    def _score(
        self,
        index: "_Index",
        texts: Sequence[str],
        relevance: Mapping[str, Relevance],
        wanted: Wanted,
    ) -> GridRanks:
        import torch

        queries = index.queries(texts)
        width = len(self.passages)

        def score(rows: slice, _: torch.Tensor) -> torch.Tensor:
            return torch.from_numpy(index.scores(queries[rows], width))

        return ranks_by_score(score, len(texts), self.passages, relevance, wanted)

    def _rows(self, language: str) -> np.ndarray:
        number = self.passages.number(language)
        return np.arange(self.passages.start[number], self.passages.start[number + 1])


class _Index:
    """The parts of the BM25 scores of several corpora, as one sparse matrix.

    So the scores of many queries are one product.
    """

    def __init__(self, corpora: Sequence[tuple[Sequence[str], np.ndarray]]) -> None:
        """Index corpora, each with its own statistics.

        Args:
            corpora: texts, and their columns in the scores.
        """
        from scipy.sparse import csr_array

        self.vocabulary: dict[str, int] = {}
        terms, columns, values = [], [], []
        for texts, places in corpora:
            vocabulary, parts = lexical.BM25.build(texts).parts()
            known = np.array(
                [self.vocabulary.setdefault(term, len(self.vocabulary)) for term in vocabulary],
                np.int64,
            )
            terms.append(np.repeat(known, np.diff(parts.indptr)))
            columns.append(places[parts.indices])
            values.append(parts.data)
        self.columns = 1 + max(int(places.max()) for _, places in corpora)
        place = np.concatenate(terms), np.concatenate(columns)
        self.parts = csr_array(
            (np.concatenate(values), place), shape=(len(self.vocabulary), self.columns)
        )

    def queries(self, texts: Sequence[str]) -> Any:
        """csr [Q, V]: how often each query has each term of the vocabulary."""
        from scipy.sparse import csr_array

        known = []
        for text in texts:
            terms = lexical.terms(text)
            known.append([self.vocabulary[term] for term in terms if term in self.vocabulary])
        rows = np.repeat(np.arange(len(texts)), [len(each) for each in known])
        columns = np.array([*chain.from_iterable(known)], np.int64)
        shape = (len(texts), len(self.vocabulary))
        return csr_array((np.ones(len(rows), np.float32), (rows, columns)), shape=shape)

    def scores(self, queries: Any, width: int) -> np.ndarray:
        """float32 [Q, width]: BM25 of all passages for some rows of `queries`.

        Columns that are not indexed are 0.
        """
        found = np.zeros((queries.shape[0], width), np.float32)
        found[:, : self.columns] = (queries @ self.parts).toarray()
        return found
