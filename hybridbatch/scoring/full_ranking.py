"""Scores a task by ranking every passage of every corpus and pool."""

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from hybridbatch.common.errors import ConfigError
from hybridbatch.common.languages import resolve
from hybridbatch.common.progress import SILENT, Reporter
from hybridbatch.common.records import Task, Texts
from hybridbatch.scoring.averages import POOL
from hybridbatch.scoring.per_query import QueryScores

if TYPE_CHECKING:
    from hybridbatch.scoring.rankers import Embed, Ranker
    from hybridbatch.scoring.ranks import GridRanks, Relevance, Wanted
    from hybridbatch.scoring.reranking.stage import SecondStage


def pools_of(
    task: Task, groups: Sequence[str], trained: Sequence[str]
) -> dict[str, tuple[str, ...]]:
    """By name, the corpus languages of a task's pools: the pool of all, and of each group.

    Only a parallel task has pools.

    Raises:
        ConfigError: an unknown group, or a group with fewer than two corpus languages.
    """
    if not task.parallel:
        return {}
    pools = {POOL: tuple(task.corpus)}
    for group in groups:
        members = resolve(group, tuple(task.corpus), trained)
        if len(members) < 2:
            raise ConfigError(
                f"pool = {group!r}: matches only {members[0]} in {task.name}; a pool needs"
                " two languages"
            )
        pools[f"{POOL}:{group}"] = members
    return pools


def score_task(
    task: Task,
    embed: "Embed",
    *,
    cutoffs: Sequence[int],
    device: str = "cpu",
    report: Reporter = SILENT,
) -> Iterator[QueryScores]:
    """`score_rankings` by embeddings.

    Args:
        embed: called once for all queries and once for all passages.
    """
    from hybridbatch.scoring.rankers import EmbeddingRanker

    return score_rankings(
        task, EmbeddingRanker(task, embed, device), cutoffs=cutoffs, report=report
    )


def score_rankings(
    task: Task,
    ranker: "Ranker",
    *,
    cutoffs: Sequence[int],
    pools: Mapping[str, Sequence[str]] | None = None,
    second_stage: "SecondStage | None" = None,
    ignore_identical: bool = False,
    report: Reporter = SILENT,
) -> Iterator[QueryScores]:
    """The scores of every query of a task.

    A query is scored in every corpus language that has judgements for it, and in the pools. The
    pool of all is the union of all corpora of the task, and all language versions of the answer are
    relevant in it. Only parallel tasks have pools. In bitext tasks a language is not searched with
    its own queries.

    Args:
        pools: by name, the corpus languages of a pool; default: the pool of all.
        second_stage: reorders the first passages of all rankings before they are scored.
        ignore_identical: leave the passage with the id of the query out of its rankings, as BEIR
            does.
    """
    from hybridbatch.scoring.columns import K
    from hybridbatch.scoring.ranks import Wanted

    corpus = ranker.passages
    pools = pools_of(task, (), ()) if pools is None else pools
    if second_stage:
        wanted = Wanted(pools, top_k=second_stage.depth, top_of_languages=True)
    else:
        wanted = Wanted(pools, top_k=K, translations=corpus.translations() if pools else None)
    with report.bar(f"score {task.name}", len(task.queries), "query languages") as bar:
        for language, ranked in _ranked_ahead(task, ranker, wanted, ignore_identical):
            texts = task.queries[language]
            if second_stage:
                ranked = second_stage.rerank(task, language, ranked)
            for name, ranks in ranked.languages.items():
                if ranks.judged.any():
                    yield _scores(language, name, texts, ranks, cutoffs)
            for name, ranks in ranked.pools.items():
                if ranks.judged.any():
                    yield _scores(language, name, texts, ranks, cutoffs, corpus, pools[name])
            bar.advance()


def _ranked_ahead(
    task: Task, ranker: "Ranker", wanted: "Wanted", ignore_identical: bool = False
) -> "Iterator[tuple[str, GridRanks]]":
    """Yield the ranks of every query language in turn.

    The ranks of the next language are computed while the caller works, because metrics use numpy on
    one thread, which leaves the other cores to the matrix product.
    """
    judgements = _Judgements(task, ignore_identical)
    passages = ranker.passages
    with ThreadPoolExecutor(1) as ahead:
        waiting: deque[tuple[str, Future[GridRanks]]] = deque()
        for language in task.queries:
            judged = judgements.of(language)
            if ignore_identical:
                same = passages.with_ids(task.queries[language].ids)
                wanted = replace(wanted, left_out=same)
            waiting.append((language, ahead.submit(ranker.ranks, language, judged, wanted)))
            if len(waiting) > 1:
                first, ranked = waiting.popleft()
                yield first, ranked.result()
        for last, ranked in waiting:
            yield last, ranked.result()


class _Judgements:
    """The relevant passages of a task, looked up once for all query languages of the same ids."""

    def __init__(self, task: Task, ignore_identical: bool) -> None:
        self.task, self.ignore_identical = task, ignore_identical
        self.found: dict[tuple[str, tuple[str, ...]], Relevance] = {}

    def of(self, language: str) -> dict[str, "Relevance"]:
        """By corpus language, the relevant passages for the queries of a language."""
        from hybridbatch.scoring.ranks import Relevance

        task, judged = self.task, {}
        ids = tuple(task.queries[language].ids)
        for name in task.corpus:
            if name not in task.qrels or (task.bitext and name == language):
                continue
            if (name, ids) not in self.found:
                passages = task.corpus[name].ids
                self.found[name, ids] = Relevance.of(
                    ids, passages, task.qrels[name], ignore_identical=self.ignore_identical
                )
            judged[name] = self.found[name, ids]
        return judged


def _scores(
    language: str,
    name: str,
    texts: Texts,
    ranks: Any,
    cutoffs: Sequence[int],
    corpus: Any = None,
    members: Sequence[str] = (),
) -> QueryScores:
    """The scores of one cell; for a pool of the languages `members` also its language bias."""
    from hybridbatch.scoring.metrics import all_metrics
    from hybridbatch.scoring.pool_bias import pool_bias

    metrics = all_metrics(ranks, cutoffs)
    ids = tuple(np.array(texts.ids, dtype=object)[ranks.judged])
    if corpus is None:
        return QueryScores(language, name, ids, metrics)
    bias = pool_bias(ranks, corpus, language, cutoffs, members)
    return QueryScores(language, name, ids, metrics | bias.per_query, bias.by_language)
