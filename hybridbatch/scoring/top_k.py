"""Scoring by search, for corpora too large to rank whole: vectors on disk or FAISS indexes.

A corpus is encoded in blocks (`hybridbatch.search.blocked_vectors`). The queries of all languages
search one corpus at a time, and the first passages of a pool are merged from those of its corpora.
A passage below the first `depth` has no known rank and counts as not retrieved. Metrics that need
these ranks have the depth in their names (``average_precision@1000``).
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import torch

from hybridbatch.common.errors import ConfigError
from hybridbatch.common.memory import main_memory
from hybridbatch.common.progress import SILENT, Reporter
from hybridbatch.common.records import Task, Texts
from hybridbatch.common.seeding import stream
from hybridbatch.debias.vectors_file import LanguageVectors
from hybridbatch.scoring import metrics
from hybridbatch.scoring.columns import SHARE, K
from hybridbatch.scoring.language_bias import same_language_share
from hybridbatch.scoring.per_query import QueryScores
from hybridbatch.scoring.ranks import BLOCK_QUERIES, BLOCK_SCORES, Ranks, Relevance
from hybridbatch.scoring.settings import EvalConfig
from hybridbatch.search.blocked_vectors import encode_blocks
from hybridbatch.search.embeddings import EmbeddingStore
from hybridbatch.search.exact import (
    LEAST_KEY,
    Found,
    SearchKind,
    recall_lost,
    search,
    search_bytes,
)
from hybridbatch.search.faiss_index import FaissIndex, Tuning, index_bytes
from hybridbatch.search.order import key_places, precedence_of_corpora, sort_keys
from hybridbatch.search.passages import DebiasedVectors
from hybridbatch.search.vectors import Vectors

SEARCHED_BYTES = 1 << 30  # size of the lists of the queries that are searched at a time
SAMPLE = 1000  # queries on which an approximate index is compared with exact search
TUNED = 200  # queries of this sample on which the index is tuned


def index_for(config: EvalConfig, task: Task, dimension: int) -> SearchKind | None:
    """How a task is searched; None: it is ranked whole, in memory.

    Raises:
        ConfigError: a cutoff is greater than the depth of the search.
    """
    if config.index == "auto" and ranked_bytes(task, dimension) <= main_memory().total / 2:
        return None
    if max(config.cutoffs) > config.depth:
        raise ConfigError(
            f"cutoffs go to {max(config.cutoffs)}, but only {config.depth} passages of {task.name}"
            " are listed; raise --depth"
        )
    return "exact" if config.index == "auto" else config.index


def ranked_bytes(task: Task, dimension: int) -> int:
    """Bytes that it takes to rank a whole task in memory.

    These are its vectors, twice while they are gathered, a block of scores, and what ranking them
    needs.
    """
    passages = sum(len(texts.ids) for texts in task.corpus.values())
    return 3 * 4 * dimension * passages + 30 * max(BLOCK_SCORES // 4, BLOCK_QUERIES * passages)


@dataclass
class Search:
    """The search of one task."""

    task: Task
    store: EmbeddingStore
    index: SearchKind
    depth: int
    cutoffs: Sequence[int]
    pools: Mapping[str, Sequence[str]] = field(default_factory=dict)
    device: str = "cpu"
    seed: int = 13
    report: Reporter = SILENT
    debias: LanguageVectors | None = None  # subtracted from the stored vectors as they are read
    recall: float = 0.95  # an approximate index is tuned to it
    ignore_identical: bool = False  # leave the passage with a query's own id out of its list
    # by corpus language: recall lost at each cutoff
    lost: dict[str, dict[str, float]] = field(default_factory=dict)
    tuned: dict[str, Tuning] = field(default_factory=dict)  # by corpus language

    def memory(self) -> int:
        """Bytes that `scores` holds at most.

        The texts, the model and file pages that the system may drop are not counted.
        """
        dimension = self.store.encoder.dimension
        queries = sum(len(texts.ids) for texts in self.task.queries.values())
        passages = max(len(texts.ids) for texts in self.task.corpus.values())
        at_a_time = min(queries, self._queries_at_a_time())
        need = (
            search_bytes(at_a_time, passages, dimension, self.depth) + 4 * dimension * queries
        )
        need += 12 * self.depth * queries  # what was found
        for members in self.pools.values():
            pooled = sum(len(self.task.corpus[name].ids) for name in members)
            need += 8 * self.depth * queries * 3 + 24 * pooled
        if self.index != "exact":
            need += index_bytes(self.index, passages, dimension)
        return need

    def disk(self) -> int:
        """Bytes of the vectors of all corpora."""
        passages = sum(len(texts.ids) for texts in self.task.corpus.values())
        return passages * (self.store.encoder.dimension * self.store.dtype.itemsize + 16)

    def announcement(self) -> str:
        """A sentence about what will be done, and what it needs."""
        largest = max(len(texts.ids) for texts in self.task.corpus.values())
        return (
            f"{self.task.name}: listing the first {self.depth:,} passages by {self.index} search,"
            f" corpora of up to {largest:,}; at most {self.memory() / 1e9:,.1f} GB of memory beside"
            f" texts and model, and {self.disk() / 1e9:,.1f} GB on disk in {self.store.folder}"
        )

    def facts(self) -> dict[str, Any]:
        """The entry about the search in eval.json."""
        found: dict[str, Any] = {
            "index": self.index,
            "depth": self.depth,
            "stored_as": str(self.store.dtype),
        }
        if self.index != "exact":
            means: dict[str, float] = {}
            for k in next(iter(self.lost.values()), {}):
                means[k] = float(np.mean([lost[k] for lost in self.lost.values()]))
            queries = sum(len(texts.ids) for texts in self.task.queries.values())
            found["recall_lost"] = {
                "mean": means,
                "by_corpus_language": self.lost,
                "queries": min(SAMPLE, queries),
            }
            found["tuning"] = {name: asdict(tuning) for name, tuning in self.tuned.items()}
        return found

    def encode(self, part: tuple[int, int] = (1, 1)) -> None:
        """Encode all corpora, or a part of their blocks, without waiting for other processes."""
        for texts in self.task.corpus.values():
            encode_blocks(
                self.store, texts.texts, "passage", part=part, wait=False, report=self.report
            )

    def scores(self) -> Iterator[QueryScores]:
        """The scores of every query in each corpus language with judgements for it, and in pools."""
        # One corpus is read at a time, by the queries of all languages that need it. These are the
        # queries with judgements in it or, if it belongs to a pool, all queries. Their results are
        # scored and merged into the pools before the next corpus is read.
        rows, vectors = self._queries()
        pools = {
            name: _Pool(self.task, members, len(vectors), self.depth, self.ignore_identical)
            for name, members in self.pools.items()
        }
        for name, texts in self.task.corpus.items():
            joined = [pool for pool in pools.values() if name in pool.offset]
            judged = self._judged(name)
            asked = list(rows) if joined else judged
            if not asked:
                continue
            wanted = np.concatenate(
                [np.arange(rows[language].start, rows[language].stop) for language in asked]
            )
            found = self._search(name, texts, vectors[wanted])
            if self.ignore_identical:
                found = _without(found, self._own_rows(asked, texts), self.depth)
            for pool in joined:
                pool.take(name, wanted, found)
            first = 0
            for language in asked:
                size = len(self.task.queries[language].ids)
                if language in judged:
                    yield from self._cell(language, name, found.rows[first : first + size])
                first += size
        for name, pool in pools.items():
            for language in rows:
                yield from self._pool_cell(language, name, pool, rows[language])

    def _queries(self) -> tuple[dict[str, slice], np.ndarray]:
        """Rows of every query language in the vectors of all queries, and these vectors."""
        rows: dict[str, slice] = {}
        joined: list[str] = []
        for language, texts in self.task.queries.items():
            rows[language] = slice(len(joined), len(joined) + len(texts.ids))
            joined += texts.texts
        vectors = self.store.embed(joined, "query", self.report)
        if self.debias:
            parts = [
                self.debias.apply(vectors[own], "query", language)
                for language, own in rows.items()
            ]
            vectors = np.concatenate(parts)
        return rows, vectors

    def _judged(self, corpus: str) -> list[str]:
        """The query languages that have judgements in a corpus language."""
        if corpus not in self.task.qrels:
            return []
        return [
            language
            for language in self.task.queries
            if not (self.task.bitext and language == corpus)
        ]

    def _cell(self, language: str, name: str, listed: np.ndarray) -> Iterator[QueryScores]:
        """The scores of a query language in a corpus language; none where no query is judged."""
        task = self.task
        texts, passages = task.queries[language], task.corpus[name].ids
        relevance = Relevance.of(
            texts.ids, passages, task.qrels[name], ignore_identical=self.ignore_identical
        )
        ranks = _ranks(listed, relevance.columns, relevance.grades)
        if ranks.judged.any():
            found = metrics.listed_metrics(ranks, self.cutoffs, self.depth)
            yield QueryScores(language, name, _judged_ids(texts, ranks), found)

    def _pool_cell(
        self, language: str, name: str, pool: "_Pool", rows: slice
    ) -> Iterator[QueryScores]:
        """The scores of a query language in a pool; none where no query is judged."""
        texts = self.task.queries[language]
        ranks = pool.ranks(texts, rows)
        if not ranks.judged.any():
            return
        found = metrics.listed_metrics(ranks, self.cutoffs, self.depth)
        if language in pool.members and ranks.top is not None:
            first = pool.language[ranks.top[ranks.judged][:, :K]]
            found[SHARE] = same_language_share(first, pool.members.index(language))
        yield QueryScores(language, name, _judged_ids(texts, ranks), found)

    @property
    def listed(self) -> int:
        """Number of passages to search for: one more than the depth if one may be left out."""
        return self.depth + self.ignore_identical

    def _own_rows(self, asked: Sequence[str], texts: Texts) -> np.ndarray:
        """int64 [queries of the languages]: the row of the passage with the query's id; -2: none."""
        ids: list[str] = []
        for language in asked:
            ids += self.task.queries[language].ids
        wanted = set(ids)
        row = {passage: place for place, passage in enumerate(texts.ids) if passage in wanted}
        return np.array([row.get(query, -2) for query in ids], np.int64)

    def _queries_at_a_time(self) -> int:
        return max(BLOCK_QUERIES, SEARCHED_BYTES // (64 * self.depth))

    def _search(self, language: str, texts: Texts, queries: np.ndarray) -> Found:
        vectors: Vectors = encode_blocks(self.store, texts.texts, "passage", report=self.report)
        if self.debias:
            vectors = DebiasedVectors(vectors, self.debias, language)
        places = precedence_of_corpora({language: texts})
        if self.index == "exact":
            return self._exact(vectors, queries, places, self.listed)
        # The exact first passages of the sample have two uses: a part of the sample tunes the index
        # before the search, and the whole sample shows afterwards what the search has missed.
        order = stream(self.seed, "recall").permutation(len(queries))[:SAMPLE]
        sample = np.sort(order)
        exact = self._exact(vectors, queries[sample], places, self.listed)
        index = FaissIndex(vectors, self.index, seed=self.seed, report=self.report)
        few = np.searchsorted(sample, np.sort(order[:TUNED]))
        tuning = index.tune(queries[sample[few]], exact.of(few, self.listed), self.recall)
        self.tuned[language] = tuning
        tell = self.report.note if tuning.recall >= self.recall else self.report.warn
        tell(f"{self.task.name} in {language}: {tuning.sentence()}")
        step = self._queries_at_a_time()
        parts = [
            index.search(queries[i : i + step], self.listed)
            for i in range(0, len(queries), step)
        ]
        found = _in_order(_joined(parts), places)
        self.lost[language] = {
            f"@{k}": recall_lost(found.of(sample, k), exact.of(slice(None), k))
            for k in sorted({*self.cutoffs, self.depth})
        }
        worst = ", ".join(
            f"{100 * lost:.2f} % of the first {k[1:]}"
            for k, lost in self.lost[language].items()
        )
        self.report.note(
            f"{self.task.name} in {language}: {self.index} misses {worst} ({len(sample)} queries)"
        )
        return found

    def _exact(
        self, vectors: Vectors, queries: np.ndarray, places: np.ndarray, k: int
    ) -> Found:
        step = self._queries_at_a_time()
        parts = []
        for start in range(0, len(queries), step):
            some = queries[start : start + step]
            parts.append(
                search(some, vectors, k, places=places, device=self.device, report=self.report)
            )
        return _joined(parts)


def _joined(parts: Sequence[Found]) -> Found:
    """Join the results of successive queries."""
    return Found(
        np.concatenate([part.rows for part in parts]),
        np.concatenate([part.scores for part in parts]),
    )


def _without(found: Found, rows: np.ndarray, depth: int) -> Found:
    """The first `depth` passages found, without one row for each query (int64 [Q])."""
    order = np.argsort(found.rows == rows[:, None], axis=1, kind="stable")[:, :depth]
    return Found(
        np.take_along_axis(found.rows, order, 1), np.take_along_axis(found.scores, order, 1)
    )


class _Pool:
    """The first passages of several corpora as one, merged as the corpora are searched."""

    def __init__(
        self,
        task: Task,
        members: Sequence[str],
        queries: int,
        depth: int,
        ignore_identical: bool = False,
    ) -> None:
        self.task, self.members, self.depth = task, tuple(members), depth
        self.ignore_identical = ignore_identical
        sizes = [len(task.corpus[name].ids) for name in members]
        self.offset = dict(zip(members, np.cumsum([0, *sizes[:-1]]).tolist(), strict=True))
        self.places = precedence_of_corpora({name: task.corpus[name] for name in members})
        # [P]: number of each passage's language
        self.language = np.repeat(np.arange(len(members)), sizes)
        self.rows = np.argsort(self.places)  # [P]: the passage of each place
        self.keys = torch.full((queries, min(depth, sum(sizes))), LEAST_KEY)

    def take(self, name: str, queries: np.ndarray, found: Found) -> None:
        """Merge the passages that these queries found in a corpus."""
        places = torch.from_numpy(self.places[self.offset[name] + found.rows])
        keys = sort_keys(torch.from_numpy(found.scores), places).masked_fill_(
            torch.from_numpy(found.rows < 0), LEAST_KEY
        )
        rows = torch.from_numpy(queries)
        self.keys[rows] = (
            torch.cat([self.keys[rows], keys], dim=1).topk(self.keys.shape[1], dim=1).values
        )

    def ranks(self, texts: Texts, rows: slice) -> Ranks:
        """Ranks of the relevant passages of some queries; `top` holds rows of the pool."""
        keys = self.keys[rows]
        listed = np.where(
            (keys == LEAST_KEY).numpy(),
            -1,
            self.rows[key_places(keys).numpy() % len(self.rows)],
        )
        nothing = np.empty((len(keys), 0), np.int64)
        columns, grades = [nothing], [nothing]
        for name in self.members:
            if name in self.task.qrels:
                one = Relevance.of(
                    texts.ids,
                    self.task.corpus[name].ids,
                    self.task.qrels[name],
                    ignore_identical=self.ignore_identical,
                )
                columns.append(np.where(one.columns < 0, -1, one.columns + self.offset[name]))
                grades.append(one.grades)
        return _ranks(listed, np.concatenate(columns, axis=1), np.concatenate(grades, axis=1))


def _in_order(found: Found, places: np.ndarray) -> Found:
    """The same passages; those of equal score are in the order of `places`."""
    keys = sort_keys(torch.from_numpy(found.scores), torch.from_numpy(places[found.rows]))
    keys = keys.masked_fill_(torch.from_numpy(found.rows < 0), LEAST_KEY)
    order = keys.argsort(dim=1, descending=True).numpy()
    return Found(
        np.take_along_axis(found.rows, order, 1), np.take_along_axis(found.scores, order, 1)
    )


def _ranks(listed: np.ndarray, columns: np.ndarray, grades: np.ndarray) -> Ranks:
    """Ranks of the relevant `columns` [Q, R] in the `listed` rows [Q, k].

    A passage that is not listed has the rank `NOT_RETRIEVED`.
    """
    ranks = np.zeros(columns.shape, np.int64)
    for m, wanted in enumerate(columns.T):
        hits = listed == wanted[:, None]
        placed = np.where(hits.any(axis=1), hits.argmax(axis=1) + 1, metrics.NOT_RETRIEVED)
        absent = np.where(grades[:, m] > 0, metrics.NOT_RETRIEVED, 0)
        ranks[:, m] = np.where(wanted < 0, absent, placed)
    return Ranks(ranks, grades, np.zeros(columns.shape[1], np.int64), listed)


def _judged_ids(texts: Texts, ranks: Ranks) -> tuple[str, ...]:
    """Ids of the queries that have a relevant passage."""
    return tuple(np.array(texts.ids, dtype=object)[ranks.judged])
