"""Ranks of the relevant passages, for every corpus language and every pool of languages.

Metrics of a judged ranking depend only on the ranks of the relevant passages, so no ranking is
made. For a block of queries, one matrix product gives the scores of all passages. In these scores
the relevant passages of every language and every pool are ranked (`hybridbatch.scoring.counting`).
Ties follow trec_eval's rule by integer keys (`search.order.sort_keys`).

Cost for Q queries and P passages: one Q x P x D product, and for every language and every pool a
few passes over all scores, but no sort (benchmarks/bench_scoring.py). If numba is installed (extra
`compiled`), large evaluations use its functions (`hybridbatch.scoring.compiled_ranks`), with the
same results.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cache
from importlib.util import find_spec
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hybridbatch.common.errors import DataError
from hybridbatch.common.records import Qrels
from hybridbatch.scoring.counting import (
    COUNTED,
    HISTOGRAM_PASSAGES,
    ranks_by_count,
    ranks_by_sort,
    ranks_in_row,
)
from hybridbatch.search.order import (
    inner_products,
    key_places,
    precedence,
    sort_keys,
    top_keys,
)
from hybridbatch.search.vectors import as_float32, require_finite, require_width

# Scores of one block of queries. Measured on 59,536 passages x 384: a product of 504 queries runs at
# 91 GFLOP/s on a core, one of 126 queries at 72.
BLOCK_SCORES = 30_000_000
BLOCK_QUERIES = 64
JOB_SCORES = 1 << 19  # scores that one thread ranks at a time: they fit into its caches
# Scores of a call from which on compiled functions are worth numba's import, half a second.
COMPILED_SCORES = 1 << 25
COMPILED_TOP = 100  # passages up to which the compiled list is faster
# the rank of a relevant passage that is not listed, or not in the corpus: below every cutoff
NOT_RETRIEVED = 1 << 62


@dataclass(frozen=True)
class Relevance:
    """The relevant passages of Q queries in one corpus language, at most R for a query."""

    # int64 [Q, R]: row of the passage in its corpus; -1 fills up. With a grade, -1 means a relevant
    # passage that can never be found
    columns: np.ndarray
    grades: np.ndarray  # int64 [Q, R]: relevance, >= 1; 0 fills up

    @classmethod
    def of(
        cls,
        query_ids: Sequence[str],
        passage_ids: Sequence[str],
        qrels: Qrels,
        *,
        ignore_identical: bool = False,
    ) -> "Relevance":
        """Look up judgements; a relevance of 0 or less is not relevant, as in trec_eval.

        Relevant passages that are not among `passage_ids` count and are never found, as in
        trec_eval.

        Args:
            ignore_identical: a passage with the id of its query is never found either.
        """
        wanted = {passage for query in query_ids for passage in qrels.get(query, {})}
        row = {
            passage: column for column, passage in enumerate(passage_ids) if passage in wanted
        }
        found: list[list[tuple[int, int]]] = []
        for query in query_ids:
            pairs = []
            for passage, grade in qrels.get(query, {}).items():
                if grade > 0:
                    ignored = ignore_identical and passage == query
                    pairs.append((-1 if ignored else row.get(passage, -1), grade))
            found.append(pairs)
        width = max(map(len, found), default=0)
        columns = np.full((len(found), width), -1, dtype=np.int64)
        grades = np.zeros((len(found), width), dtype=np.int64)
        for i, pairs in enumerate(found):
            if pairs:
                columns[i, : len(pairs)], grades[i, : len(pairs)] = zip(*pairs, strict=True)
        return cls(columns, grades)


class Passages:
    """The order of the P passages of one or several languages.

    It says which rows each language has, and which passage wins a tie.
    """

    def __init__(
        self, ids: Mapping[str, Sequence[str]], device: str | torch.device = "cpu"
    ) -> None:
        """Lay the languages side by side.

        Args:
            ids: by language, the P_l passage ids, distinct within the language. Languages may share
                ids. In a pool, ties between passages of one id go to the language whose code sorts
                last.
            device: where the passages are scored.

        Raises:
            DataError: there are no passages, or an id occurs twice.
        """
        self.languages = tuple(ids)
        for language, block in ids.items():
            if not len(block):
                raise DataError(f"the {language} corpus has no passages")
        self.ids = tuple(tuple(block) for block in ids.values())
        # int64 [L + 1]: first row of each language
        self.start = np.cumsum([0, *map(len, self.ids)])
        pooled: list[tuple[str, str]] = []
        for name, block in zip(self.languages, self.ids, strict=True):
            pooled += [(id_, name) for id_ in block]
        # int64 [P]: precedence among equal scores
        self.places = torch.from_numpy(precedence(pooled)).to(device)
        self.by_place = (
            self.places.argsort()
        )  # int64 [P]: row of the corpus that has a precedence
        # int64 [P]: number of the language
        self.language = np.repeat(np.arange(len(self.ids)), np.diff(self.start))
        self._buffers: list[Tensor] = []

    @contextmanager
    def buffer(self, scores: int) -> Iterator[Tensor]:
        """A float32 buffer for so many scores, of a former call if there is one.

        New memory from the system would cost page faults, a twentieth of the time of a product.
        """
        buffer = torch.empty(0)
        with suppress(IndexError):  # another thread may have it
            buffer = self._buffers.pop()
        if len(buffer) < scores:
            buffer = torch.empty(scores, device=self.places.device)
        yield buffer
        self._buffers = [buffer]

    def __len__(self) -> int:
        """P."""
        return len(self.language)

    def number(self, language: str) -> int:
        """The number of a language. Raises `DataError` if it has no corpus here."""
        if language not in self.languages:
            raise DataError(
                f"no corpus in language {language!r} (there are {', '.join(self.languages)})"
            )
        return self.languages.index(language)

    def with_ids(self, query_ids: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """Numbers of queries, ascending, and the rows of the passages that have their ids.

        The passages may be in any language.
        """
        number = {query: place for place, query in enumerate(query_ids)}
        queries: list[int] = []
        rows: list[int] = []
        for first, block in zip(self.start.tolist(), self.ids, strict=False):
            for place, passage in enumerate(block):
                if passage in number:
                    queries.append(number[passage])
                    rows.append(first + place)
        order = np.argsort(queries, kind="stable")
        return np.array(queries, np.int64)[order], np.array(rows, np.int64)[order]

    def translations(self) -> np.ndarray | None:
        """int32 [P, L]: row of the passage with the same id in every language, -1 if there is none.

        None if all ids differ.
        """
        numbers: dict[str, int] = {}
        of_row = [numbers.setdefault(id_, len(numbers)) for block in self.ids for id_ in block]
        if len(numbers) == len(of_row):
            return None
        rows = np.full((len(numbers), len(self.languages)), -1, dtype=np.int32)
        rows[of_row, self.language] = np.arange(len(self))
        return rows[of_row]


class Corpus(Passages):
    """Embedded passages, ready to be scored. Memory: P x D x 4 bytes.

    For larger corpora see `top_k.py`.
    """

    def __init__(
        self,
        embeddings: Mapping[str, np.ndarray | Tensor],
        ids: Mapping[str, Sequence[str]],
        device: str | torch.device = "cpu",
    ) -> None:
        """Lay the languages side by side.

        Args:
            embeddings: by language, [P_l, D] of any float type.
            ids: as in `Passages`.
            device: where to score.

        Raises:
            DataError: as `Passages`; for different numbers of ids and embeddings, or different
                widths; for NaN or infinite numbers, naming language and passage.
        """
        languages = tuple(embeddings)
        blocks = [as_float32(block, device) for block in embeddings.values()]
        for language, block in zip(languages, blocks, strict=True):
            if len(block) == 0:
                raise DataError(f"the {language} corpus has no passages")
            if len(block) != len(ids[language]):
                raise DataError(
                    f"the {language} corpus has {len(ids[language])} ids for {len(block)}"
                    " embeddings"
                )
            if block.shape[1] != blocks[0].shape[1]:
                raise DataError(
                    f"{language} embeddings have {block.shape[1]} dimensions, {languages[0]}'s have"
                    f" {blocks[0].shape[1]}; encode all languages with the same model"
                )
            require_finite(block, f"{language} passage", ids[language])
        super().__init__({language: ids[language] for language in languages}, device)
        self.embeddings = torch.cat(blocks)  # float32 [P, D]


@dataclass(frozen=True)
class Ranks:
    """Ranks of the relevant passages of Q queries in one language or pool."""

    # int64 [Q, R]: from 1; `NOT_RETRIEVED` if never found; 0 fills up
    ranks: np.ndarray
    grades: np.ndarray  # int64 [Q, R]: relevance; 0 fills up
    # int64 [R]: number of the language (in Corpus.languages) that a column's passages are in
    language: np.ndarray
    # int64 [Q, k]: rows of the corpus of the first k passages, where asked
    top: np.ndarray | None = None
    # float32 [Q, k, L]: scores of their translations, where asked; NaN: has none
    translated: np.ndarray | None = None

    @property
    def judged(self) -> np.ndarray:
        """bool [Q]: queries that have a relevant passage here; metrics take only these."""
        return self.ranks.max(axis=1, initial=0) > 0


@dataclass(frozen=True)
class GridRanks:
    """Ranks of the relevant passages of one query language, in every corpus language and pool."""

    languages: dict[str, Ranks]  # by corpus language: monolingual and cross-lingual settings
    pools: dict[str, Ranks]  # by name of the pool: multilingual settings


# rows of queries, float32 buffer of their size -> float32 [rows, P]
Scores = Callable[[slice, Tensor], Tensor]


@dataclass(frozen=True)
class Wanted:
    """What a scoring computes beside the ranks of the relevant passages in every language."""

    # by name, the languages whose corpora make one ranking
    pools: Mapping[str, Sequence[str]] = field(default_factory=dict)
    languages: bool = True  # rank each language's corpus alone; else pools only
    top_k: int = 0  # if positive, also list the first k passages of every pool
    top_of_languages: bool = False  # also list the first k passages of every language
    # `Passages.translations`: also give the scores of the translations of the pools' first k
    translations: np.ndarray | None = None
    # scores held at a time, if these are 64 queries or more
    block_scores: int = BLOCK_SCORES
    # numbers of queries, ascending, and rows of passages that are left out of their rankings
    left_out: tuple[np.ndarray, np.ndarray] | None = None


def relevant_ranks(
    queries: np.ndarray | Tensor,
    corpus: Corpus,
    relevance: Mapping[str, Relevance],
    wanted: Wanted | None = None,
) -> GridRanks:
    """The rank of every relevant passage, in its language's corpus and in every pool with it.

    rank = 1 + #(greater scores) + #(equal scores of passages that precede), ties by descending id
    as in trec_eval.

    Args:
        queries: [Q, D], any float type, scored by inner product in float32.
        relevance: by corpus language. A language that is left out is searched in pools, but has
            nothing relevant.
        wanted: pools and lists; None: no pool.

    Raises:
        DataError: a width other than that of the corpus, or NaN in a query (naming its row).
    """
    vectors = as_float32(queries, corpus.embeddings.device)
    require_width(vectors, corpus.embeddings.shape[1])
    require_finite(vectors, "query", range(len(vectors)))

    def score(rows: slice, buffer: Tensor) -> Tensor:
        return inner_products(vectors[rows], corpus.embeddings, buffer)

    return ranks_by_score(score, len(vectors), corpus, relevance, wanted)


def ranks_by_score(
    score: Scores,
    queries: int,
    corpus: Passages,
    relevance: Mapping[str, Relevance],
    wanted: Wanted | None = None,
) -> GridRanks:
    """As `relevant_ranks`, for any way to score `queries` queries, such as BM25."""
    wanted = wanted or Wanted()
    device = corpus.places.device
    large = device.type == "cpu" and queries * len(corpus) >= COMPILED_SCORES
    compiled = _compiled() if large else None
    single = _single_rankings(corpus, relevance, queries, compiled) if wanted.languages else []
    pooled = {
        name: _Rankings(corpus, [members], relevance, queries, compiled)
        for name, members in wanted.pools.items()
    }
    every = [*single, *pooled.values()]
    listed: list[_Rankings] = []
    if wanted.top_k:
        listed = every if wanted.top_of_languages else [*pooled.values()]
    table = None
    if wanted.translations is not None:
        table = torch.from_numpy(wanted.translations).to(device)

    # The scores of a block of queries are computed once, by all threads. Then each thread takes some
    # queries at a time through all rankings, while their scores are in its caches.
    step = min(max(BLOCK_QUERIES, wanted.block_scores // len(corpus)), max(2, queries))
    few = max(1, JOB_SCORES // len(corpus))

    def rank(first: int) -> None:
        block = scores[first : first + few]
        for rankings in every:
            rankings.rank(block, start + first)
        for rankings in listed:
            pool = len(rankings.pools[0]) > 1
            rankings.list_top(block, start + first, wanted.top_k, table if pool else None)

    with (
        corpus.buffer(step * len(corpus)) as buffer,
        ThreadPoolExecutor(torch.get_num_threads() if device.type == "cpu" else 1) as threads,
    ):
        for start in range(0, queries, step):
            scores = score(slice(start, start + step), buffer)
            _leave_out(scores, start, wanted.left_out)
            for _ in threads.map(rank, range(0, len(scores), few)):
                pass

    found: dict[str, Ranks] = {}
    for rankings in single:
        for (name,), ranks in zip(rankings.pools, rankings.results(), strict=True):
            found[name] = ranks
    return GridRanks(
        {name: found[name] for name in relevance if name in found},
        {name: rankings.results()[0] for name, rankings in pooled.items()},
    )


def _leave_out(
    scores: Tensor, start: int, left_out: tuple[np.ndarray, np.ndarray] | None
) -> None:
    """Put passages that are left out below all others, for the queries from `start` on."""
    if left_out is None:
        return
    queries, rows = left_out
    here = slice(*np.searchsorted(queries, [start, start + len(scores)]))
    if len(queries[here]):
        places = torch.from_numpy(queries[here] - start), torch.from_numpy(rows[here])
        scores[places[0].to(scores.device), places[1].to(scores.device)] = -torch.inf


def _single_rankings(
    corpus: Passages, relevance: Mapping[str, Relevance], queries: int, compiled: Any
) -> list["_Rankings"]:
    """The rankings of each language's corpus alone; rankings of one length are together."""
    same_size: dict[int, list[list[str]]] = {}
    for name in relevance:
        size = len(corpus.ids[corpus.number(name)])
        same_size.setdefault(size, []).append([name])
    return [
        _Rankings(corpus, pools, relevance, queries, compiled) for pools in same_size.values()
    ]


@cache
def _compiled() -> Any:
    """The module of compiled functions; None without numba, or if numba cannot be used here.

    numba refuses versions of numpy that it does not know, and folders where it cannot keep its
    code. If the code that it has kept is damaged, calls of the functions fail. Nothing but time is
    lost in either case.
    """
    if find_spec("numba") is None:
        return None
    try:
        from hybridbatch.scoring import compiled_ranks
    except (ImportError, RuntimeError):
        return None
    return compiled_ranks


class _Rankings:
    """G rankings of equal length P, each over the passages of some languages.

    It also holds the ranks found in them so far.

    Args:
        compiled: `hybridbatch.scoring.compiled_ranks`, or None.
    """

    def __init__(
        self,
        corpus: Passages,
        pools: Sequence[Sequence[str]],
        relevance: Mapping[str, Relevance],
        queries: int,
        compiled: Any = None,
    ) -> None:
        self.pools = pools
        numbers = [corpus.number(language) for pool in pools for language in pool]
        self.slices = _merged(
            [(int(corpus.start[n]), int(corpus.start[n + 1])) for n in numbers]
        )
        self.places = self._cut(corpus.places[None])  # int64 [G, P]
        self.by_place = corpus.by_place
        gathered = [_gather(corpus, pool, relevance, queries) for pool in pools]
        self.grades = [grades for _, grades, _ in gathered]
        self.owners = [owners for _, _, owners in gathered]
        width = max(columns.shape[1] for columns, _, _ in gathered)
        padded = np.full((queries, len(pools), width), -1, dtype=np.int64)
        for number, (columns, _, _) in enumerate(gathered):
            padded[:, number, : columns.shape[1]] = columns
        # int64 [Q, G, R], -1 fills up
        self.columns = torch.from_numpy(padded).to(corpus.places.device)
        self.ranks = np.zeros(self.columns.shape, dtype=np.int64)
        # for each ranking, blocks by their first query
        self.top: list[dict[int, np.ndarray]] = [{} for _ in pools]
        self.translated: dict[int, np.ndarray] = {}
        self.compiled = compiled

    def _cut(self, scores: Tensor) -> Tensor:
        """The rankings' columns of [Q, all passages], as [Q * G, P].

        Columns that adjoin are not copied.
        """
        pieces = [scores[:, start:stop] for start, stop in self.slices]
        joined = pieces[0] if len(pieces) == 1 else torch.cat(pieces, dim=1)
        return joined.reshape(len(scores) * len(self.pools), -1)

    def rank(self, block: Tensor, start: int) -> None:
        """Fill in the ranks of the queries from `start` on.

        Args:
            block: float32 [their number, all passages].
        """
        scores = self._cut(block)
        columns = self.columns[start : start + len(block)].flatten(0, 1)
        if scores.device.type == "cpu":
            ranks = self._rank_on_cpu(scores.numpy(), columns.numpy())
        else:
            own = columns.clamp(min=0)
            ranks, ties = ranks_by_sort(scores, scores.gather(1, own))
            tied = (ties & (columns >= 0)).any(dim=1).nonzero().squeeze(1)
            if len(tied):
                keys = sort_keys(scores[tied], self.places[tied % len(self.places)])
                ranks[tied], _ = ranks_by_sort(keys, keys.gather(1, own[tied]))
            ranks = ranks.masked_fill_(columns < 0, 0).cpu().numpy()
        self.ranks[start : start + len(block)] = ranks.reshape(
            len(block), *self.columns.shape[1:]
        )

    def _rank_on_cpu(self, scores: np.ndarray, columns: np.ndarray) -> np.ndarray:
        """int64 [n, R]: ranks of the passages in `columns`; 0 where there is none."""
        if self.compiled:
            try:
                return self._rank_compiled(scores, columns)
            except Exception:  # numba raises anything when it reads damaged code
                self.compiled = None
        # Counting reads all scores twice for every relevant passage, so it suits few of them. The
        # histogram reads the scores four times for all of them, but takes rows one by one.
        few = columns.shape[1] <= COUNTED
        if few or scores.shape[1] < HISTOGRAM_PASSAGES:
            own = np.take_along_axis(scores, columns.clip(0), axis=1)
            if few:
                ranks, ties = ranks_by_count(scores, own)
            else:
                found = ranks_by_sort(torch.from_numpy(scores), torch.from_numpy(own))
                ranks, ties = (values.numpy() for values in found)
            again = np.flatnonzero((ties & (columns >= 0)).any(axis=1))
        else:
            ranks = np.zeros(columns.shape, np.int64)
            again = np.arange(len(scores))
        self._rank_rows(again, scores, columns, ranks)
        ranks[columns < 0] = 0
        return ranks

    def _rank_compiled(self, scores: np.ndarray, columns: np.ndarray) -> np.ndarray:
        """As `_rank_on_cpu`."""
        ranks = np.zeros(columns.shape, np.int64)
        arguments = scores, columns, self.places.numpy(), ranks
        if columns.shape[1] <= COUNTED:
            self.compiled.ranks_of_few(*arguments)
        else:
            done = self.compiled.ranks_of_many(*arguments)
            self._rank_rows(np.flatnonzero(~done), scores, columns, ranks)
        return ranks

    def _rank_rows(
        self, rows: np.ndarray, scores: np.ndarray, columns: np.ndarray, ranks: np.ndarray
    ) -> None:
        """Fill in `ranks` of some rows, one by one, where there is a passage."""
        places = self.places.numpy()
        for row in rows.tolist():
            asked = columns[row] >= 0
            ranks[row, asked] = ranks_in_row(
                scores[row], columns[row, asked], places[row % len(places)]
            )

    def list_top(self, block: Tensor, start: int, k: int, translations: Tensor | None) -> None:
        """List the first k passages of the queries from `start` on.

        For a single ranking, also keep the scores of their translations.

        Args:
            block: float32 [number of queries, all passages].
            translations: int [all passages, L], as `Passages.translations`.
        """
        rankings = self._cut(block).view(len(block), len(self.pools), -1)
        for group in range(len(self.pools)):
            rows = self._first(rankings[:, group], group, k)
            self.top[group][start] = rows.cpu().numpy()
            if translations is not None:
                translated = translations[rows].long()  # [Q, k, L]
                found = block.gather(1, translated.clamp(min=0).flatten(1)).view_as(translated)
                self.translated[start] = (
                    found.masked_fill_(translated < 0, torch.nan).cpu().numpy()
                )

    def _first(self, scores: Tensor, group: int, k: int) -> Tensor:
        """int64 [Q, k]: rows of the corpus of the first k passages, of one ranking a query."""
        places = self.places[group]
        if self.compiled and k <= COMPILED_TOP:
            columns = np.empty((len(scores), min(k, len(places))), np.int64)
            try:
                self.compiled.first_columns(
                    scores.contiguous().numpy(), places[None].numpy(), columns
                )
                return self.by_place[places[torch.from_numpy(columns)]]
            except Exception:  # as in `_rank_on_cpu`
                self.compiled = None
        return self.by_place[key_places(top_keys(scores, places, k).flip(1))]

    def results(self) -> list[Ranks]:
        """One for each ranking, once all queries are done."""
        found = []
        translated = _joined(self.translated)
        for group, (grades, owner) in enumerate(zip(self.grades, self.owners, strict=True)):
            ranks = self.ranks[:, group, : len(owner)]
            ranks = np.where((grades > 0) & (ranks == 0), NOT_RETRIEVED, ranks)
            found.append(Ranks(ranks, grades, owner, _joined(self.top[group]), translated))
        return found


def _joined(blocks: dict[int, np.ndarray]) -> np.ndarray | None:
    """Blocks of queries, in the order of their first queries; None if there are none."""
    return np.concatenate([blocks[start] for start in sorted(blocks)]) if blocks else None


def _merged(ranges: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """The ranges in their order; ranges that adjoin become one."""
    merged: list[tuple[int, int]] = []
    for start, stop in ranges:
        if merged and merged[-1][1] == start:
            start = merged.pop()[0]
        merged.append((start, stop))
    return merged


def _gather(
    corpus: Passages, pool: Sequence[str], relevance: Mapping[str, Relevance], queries: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The relevant passages of a pool: columns [Q, R], grades [Q, R], language numbers [R]."""
    columns, grades = [np.empty((queries, 0), np.int64)], [np.empty((queries, 0), np.int64)]
    owner: list[int] = []
    offset = 0
    for language in pool:
        if found := relevance.get(language):
            columns.append(np.where(found.columns < 0, -1, found.columns + offset))
            grades.append(found.grades)
            owner += [corpus.number(language)] * found.columns.shape[1]
        offset += len(corpus.ids[corpus.number(language)])
    return (
        np.concatenate(columns, axis=1),
        np.concatenate(grades, axis=1),
        np.array(owner, dtype=np.int64),
    )
