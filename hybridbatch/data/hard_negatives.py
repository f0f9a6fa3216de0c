"""Hard negatives of one corpus: highly ranked passages without those that may be answers."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Protocol

import numpy as np

from hybridbatch.common.files import output_errors
from hybridbatch.common.progress import SILENT, Bar, Reporter
from hybridbatch.common.records import Split
from hybridbatch.common.seeding import stream
from hybridbatch.data.filters.near_duplicates import normal_form
from hybridbatch.data.settings import MineConfig
from hybridbatch.data.store.reader import Store
from hybridbatch.debias.vectors_file import LanguageVectors
from hybridbatch.sampling.index import HAS_PASSAGE, HAS_QUERY, shared_passage_groups
from hybridbatch.search.bm25 import BM25
from hybridbatch.search.embeddings import EmbeddingStore
from hybridbatch.search.exact import search
from hybridbatch.search.faiss_index import FaissIndex, Tuning

READ = 1 << 15  # texts read or embedded at a time
TUNED = 200  # number of queries to tune an approximate index on
# Why a found passage is not a negative, in the order in which the reasons apply.
KEPT = 0
REASONS = (
    "kept",
    "same record or passage",
    "same question",
    "among the first ranks",
    "no word in common",
    "too close to the positive (share)",
    "too close to the positive (margin)",
    "above the greatest score",
    "no positive to compare with",
)
SAME_TEXT, SAME_QUESTION, FIRST, NO_WORD, SHARE, MARGIN, ABOVE, NO_POSITIVE = range(
    1, len(REASONS)
)
Texts = Callable[[np.ndarray], list[str]]  # numbers from 0 -> passages


class Corpus(Protocol):
    """The passages of one language (and source) as a searchable corpus."""

    def tune(
        self, queries: Sequence[str], k: int, languages: Sequence[str] = ()
    ) -> Tuning | None:
        """Tune an approximate index for the first k passages; None: the search is exact.

        Args:
            queries: a sample of the queries to come.
            languages: their languages; only language vectors need them.
        """

    def search(
        self,
        queries: Sequence[str],
        k: int,
        positives: np.ndarray,
        languages: Sequence[str] = (),
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Search the first k passages of each query, and score one more passage per query.

        Args:
            languages: languages of the queries; only language vectors need them.
            positives: int64 [Q]: number of the passage to score; -1: none.

        Returns:
            Numbers (int64 [Q, k], -1 if an index found fewer) and scores (float32 [Q, k]), best
                first, with equal scores in the order of numbers unless the search is approximate;
                the scores of `positives` (float32 [Q], NaN: none); and the score of a passage that
                is unrelated to the query (float32 [Q]).
        """


class LexicalCorpus:
    """Passages that BM25 searches."""

    def __init__(self, texts: Sequence[str]) -> None:
        self._index = BM25.build(texts)

    def tune(self, queries: Sequence[str], k: int, languages: Sequence[str] = ()) -> None:
        """See `Corpus.tune`."""

    def search(
        self,
        queries: Sequence[str],
        k: int,
        positives: np.ndarray,
        languages: Sequence[str] = (),
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """See `Corpus.search`."""
        scores = np.full(len(queries), np.nan, np.float32)
        there = np.flatnonzero(positives >= 0)
        scores[there] = self._index.of([queries[i] for i in there.tolist()], positives[there])
        return *self._index.top(queries, k), scores, np.zeros_like(scores)


@dataclass(frozen=True)
class Turn:
    """Language vectors to subtract from a corpus and its queries."""

    vectors: LanguageVectors
    language: str  # language of the corpus


class DenseCorpus:
    """Passages scored by the inner product of passage and query embeddings.

    The embeddings are on disk and memory-mapped.
    """

    def __init__(
        self,
        store: EmbeddingStore,
        texts: Texts,
        size: int,
        work: Path,
        config: MineConfig,
        device: str,
        turn: Turn | None = None,
    ) -> None:
        self._store, self._device, self._turn = store, device, turn
        self._recall = config.recall
        path = work / "vectors.npy"
        with output_errors(path):
            self._vectors = np.lib.format.open_memmap(
                path, "w+", np.float32, (size, store.encoder.dimension)
            )
        for start in range(0, size, READ):
            numbers = np.arange(start, min(start + READ, size))
            embedded = store.embed(texts(numbers), "passage")
            if turn:
                embedded = turn.vectors.apply(embedded, "passage", turn.language)
            self._vectors[numbers] = embedded
        self._mean = self._vectors.mean(axis=0, dtype=np.float64).astype(np.float32)
        self._index = None
        if config.index != "exact":
            self._index = FaissIndex(self._vectors, config.index, seed=config.seed)

    def tune(
        self, queries: Sequence[str], k: int, languages: Sequence[str] = ()
    ) -> Tuning | None:
        """See `Corpus.tune`."""
        if self._index is None:
            return None
        vectors = self._embedded(queries, languages)
        exact = search(vectors, self._vectors, k, device=self._device)
        return self._index.tune(vectors, exact, self._recall)

    def search(
        self,
        queries: Sequence[str],
        k: int,
        positives: np.ndarray,
        languages: Sequence[str] = (),
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """See `Corpus.search`."""
        vectors = self._embedded(queries, languages)
        if self._index is None:
            found = search(vectors, self._vectors, k, device=self._device)
        else:
            found = self._index.search(vectors, k)
        scores = np.einsum("qd,qd->q", vectors, self._vectors[positives])
        return (
            found.rows,
            found.scores,
            np.where(positives >= 0, scores, np.float32(np.nan)),
            vectors @ self._mean,
        )

    def _embedded(self, queries: Sequence[str], languages: Sequence[str]) -> np.ndarray:
        vectors = self._store.embed(queries, "query")
        if self._turn:
            vectors = self._turn.vectors.apply(vectors, "query", languages)
        return vectors


@dataclass(frozen=True)
class KnownAnswers:
    """Which passages of a split are known to answer the questions of which rows.

    There are R rows and N records. Texts are compared in their normal form (`overlap.normal_form`).
    Records that share a passage in any language, directly or through other records, form a *group*.
    So copies and translations of a row's passage are known, across sources too.
    """

    owner: np.ndarray  # int64 [R]: record of each row
    group: np.ndarray  # int32 [N]
    passage: np.ndarray  # uint64 [R]: hash of the passage; 0 if the row has none
    question: np.ndarray  # int64 [R]: equal for rows with equal queries; -1 if the row has none
    # int64, ascending: question * N + group, for questions in several groups
    answered: np.ndarray

    @classmethod
    def read(cls, store: Store, split: Split, report: Reporter = SILENT) -> "KnownAnswers":
        """Read all texts of a split."""
        index = store.index(split)
        owner = np.repeat(np.arange(index.records), np.diff(index.record_start))
        with report.bar(f"comparing texts of {split}", 2 * index.rows, "texts") as bar:
            passage = _hashes(
                (index.has & HAS_PASSAGE) > 0, lambda rows: store.passages(split, rows), bar
            )
            query = _hashes(
                (index.has & HAS_QUERY) > 0, lambda rows: store.queries(split, rows), bar
            )
        group = shared_passage_groups(owner, passage, index.records)
        question = np.unique(query, return_inverse=True)[1] - int(not query.all())
        asked = query > 0
        question = np.where(asked, question, -1)
        answered = np.unique(question[asked] * index.records + group[owner[asked]])
        which = answered // max(1, index.records)
        answered = answered[np.bincount(which, minlength=1)[which] > 1]
        return cls(owner, group, passage, question, answered)

    def same_group(self, rows: np.ndarray, others: np.ndarray) -> np.ndarray:
        """bool: whether the records of rows and of other rows (broadcast) are in one group."""
        return self.group[self.owner[rows]] == self.group[self.owner[others]]

    def same_question(self, rows: np.ndarray, others: np.ndarray) -> np.ndarray:
        """bool: whether a record in the group of `others` has the query of `rows`.

        `rows` and `others` broadcast, and all `rows` have a query.
        """
        codes = self.question[rows] * len(self.group) + self.group[self.owner[others]]
        if not len(self.answered):
            return np.zeros(codes.shape, bool)
        at = np.minimum(np.searchsorted(self.answered, codes), len(self.answered) - 1)
        return self.answered[at] == codes


def _hashes(
    present: np.ndarray, texts: Callable[[np.ndarray], list[str]], bar: Bar
) -> np.ndarray:
    """uint64 [R]: a hash of the normal form of each text, 0 if there is no text."""
    hashes = np.zeros(len(present), np.uint64)
    for start in range(0, len(present), READ):
        rows = start + np.flatnonzero(present[start : start + READ])
        digests = [
            blake2b((normal_form(text) or text).encode(), digest_size=8).digest()
            for text in texts(rows)
        ]
        hashes[rows] = np.maximum(np.frombuffer(b"".join(digests), "<u8"), 1)
        bar.advance(min(READ, len(present) - start))
    return hashes


class Mining:
    """Searches one corpus, and judges the passages found."""

    def __init__(
        self,
        config: MineConfig,
        store: Store,
        split: Split,
        known: KnownAnswers,
        corpus: Corpus,
        passages: np.ndarray,
        words: bool,
    ) -> None:
        self._config, self._store, self._split = config, store, split
        self._known, self._corpus, self._passages, self._words = known, corpus, passages, words
        order = np.argsort(known.passage[passages])
        self._order, self._sorted = order, known.passage[passages][order]

    def tune(self, questions: np.ndarray) -> Tuning | None:
        """Tune an approximate index on a random sample of the questions.

        Args:
            questions: int64 [Q], at least one: the rows whose queries are the questions.

        Returns:
            The setting and its recall; None: the search is exact.
        """
        order = stream(self._config.seed, "recall").permutation(len(questions))
        texts, languages = self._queries(questions[np.sort(order[:TUNED])])
        return self._corpus.tune(texts, self._config.depth, languages)

    def negatives(
        self, targets: np.ndarray, questions: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The negatives of some rows, and counts by reason.

        Args:
            targets: int64 [Q], ascending: the row that each question searches negatives for.
            questions: int64 [Q]: the row whose query is the question.

        Returns:
            (row, row of the negative), by row and hardness; counts by reason.
        """
        found = self._find(targets, questions)
        reasons = self._judge(found)
        kept = reasons == KEPT
        rows, numbers = found.row[kept], found.number[kept]
        most = _places(rows) < self._config.negatives
        return (
            rows[most],
            self._passages[numbers[most]],
            np.bincount(reasons, minlength=len(REASONS)),
        )

    def _find(self, targets: np.ndarray, questions: np.ndarray) -> "_Found":
        texts, languages = self._queries(questions)
        numbers, scores, positives, bases = self._corpus.search(
            texts, self._config.depth, self._positives(targets), languages
        )
        if self._config.share_of == "score":
            bases = np.zeros_like(bases)
        there = numbers >= 0
        row = np.broadcast_to(targets[:, None], numbers.shape)[there]
        same_question = self._known.same_question(questions[:, None], self._passages[numbers])[
            there
        ]
        height = (scores - bases[:, None].astype(np.float64))[there]
        number, score = numbers[there], scores[there]
        order = np.lexsort((number, row))
        row, number, score, height = row[order], number[order], score[order], height[order]
        starts = _first(row, number)
        best = np.maximum.reduceat(height, starts)
        rows, first = np.unique(targets, return_index=True)
        # NaN if a row has none
        positive = np.maximum.reduceat(positives - bases.astype(np.float64), first)
        row, number = row[starts], number[starts]
        ranked = np.lexsort((number, -best, row))
        return _Found(
            row[ranked],
            number[ranked],
            np.maximum.reduceat(score, starts)[ranked],
            best[ranked],
            positive[np.searchsorted(rows, row)][ranked],
            np.logical_or.reduceat(same_question[order], starts)[ranked],
        )

    def _queries(self, rows: np.ndarray) -> tuple[list[str], list[str]]:
        """The queries of rows; also their languages, if these are needed."""
        languages: list[str] = []
        if self._config.debias:
            index = self._store.index(self._split)
            languages = [index.languages[number] for number in index.language[rows].tolist()]
        return self._store.queries(self._split, rows), languages

    def _judge(self, found: "_Found") -> np.ndarray:
        """int64 [n]: the first reason against each passage found."""
        config = self._config
        reasons = np.full(len(found.row), KEPT)

        def remove(against: np.ndarray, reason: int) -> None:
            reasons[(reasons == KEPT) & against] = reason

        remove(self._known.same_group(found.row, self._passages[found.number]), SAME_TEXT)
        remove(found.same_question, SAME_QUESTION)
        unknown = np.flatnonzero(reasons == KEPT)
        reasons[unknown[_places(found.row[unknown]) < config.skip_first]] = FIRST
        if self._words:
            remove(found.score <= 0, NO_WORD)
        if config.positive_share is not None:
            limit = np.minimum(config.positive_share * found.positive, found.positive)
            remove(found.height >= limit, SHARE)
        if config.positive_margin is not None:
            remove(found.height >= found.positive - config.positive_margin, MARGIN)
        if config.positive_share is not None or config.positive_margin is not None:
            remove(np.isnan(found.positive), NO_POSITIVE)
        if config.max_score is not None:
            remove(found.score >= config.max_score, ABOVE)
        return reasons

    def _positives(self, targets: np.ndarray) -> np.ndarray:
        """int64 [Q]: the number of the rows' own passages, -1 if they have none."""
        wanted = self._known.passage[targets]
        return np.where(
            wanted > 0,
            self._order[np.searchsorted(self._sorted, np.maximum(wanted, self._sorted[0]))],
            -1,
        )


@dataclass(frozen=True)
class _Found:
    """The passages found for some rows: n pairs of row and passage, by row, highest score first.

    If several questions find a passage for a row, its scores are the best ones.
    """

    row: np.ndarray  # int64 [n]
    number: np.ndarray  # int64 [n]: of the passage
    score: np.ndarray  # float32 [n]
    height: np.ndarray  # float64 [n]: score above the base of the question
    positive: np.ndarray  # float64 [n]: height of the row's own passage; NaN if it has none
    # bool [n]: whether a record with the passage has one of the questions
    same_question: np.ndarray


def _first(*keys: np.ndarray) -> np.ndarray:
    """Positions where sorted keys differ from the keys before them."""
    differs = np.ones(len(keys[0]), bool)
    differs[1:] = np.any([key[1:] != key[:-1] for key in keys], axis=0)
    return np.flatnonzero(differs)


def _places(rows: np.ndarray) -> np.ndarray:
    """The place of each entry among the entries of its row, from 0; `rows` ascend."""
    return np.arange(len(rows)) - np.searchsorted(rows, rows)
