"""Every measure of language bias in a pool of languages, per query.

The formulas are in `scoring.language_bias`. A query has a measure only if the measure means
something for it; otherwise the value is NaN:

- rank distance, Max@R and Complete@k need two relevant passages or more, and Complete@k no more
  than k of them;
- PEER needs relevant passages in two languages or more;
- the preference for the query's language (LPR, Lang-nDCG) needs relevant passages in this language
  and in another one;
- the outcome of the first passage needs a relevant passage in the query's language;
- the same-language share needs a corpus in the query's language;
- TLR@k needs a relevant passage in a language other than the query's;
- MLRS towards a language needs a translation into it of one of the first k passages, or first k
  passages that are all in it.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from hybridbatch.scoring import language_bias as bias
from hybridbatch.scoring.columns import (
    DISTRIBUTION,
    FIRST,
    SHARE,
    SHIFT,
    K,
    bias_names,
    tlr_cutoffs,
)
from hybridbatch.scoring.ranks import NOT_RETRIEVED, Passages, Ranks


@dataclass(frozen=True)
class PoolBias:
    """Language bias of the n judged queries of one language in a pool."""

    # float64 [n] by name of the measure; NaN for queries without it; no measure is all NaN
    per_query: dict[str, np.ndarray]
    # mean over queries by name of the measure and language of the pool
    by_language: dict[str, dict[str, float]]


def pool_bias(
    ranked: Ranks,
    corpus: Passages,
    query_language: str,
    cutoffs: Iterable[int],
    members: Sequence[str],
) -> PoolBias:
    """All measures of a pool.

    Args:
        ranked: of the pool, with its first `K` passages or more, and their translations if there
            are any.
        query_language: language of the queries; it need not have a corpus.
        cutoffs: the k of Complete@k and PEER@k. PEER@1 is left out, because it sees one passage at
            most.
        members: the languages of the pool.
    """
    pool = _Judged.of(ranked, corpus)
    found = {name: np.full(len(pool.ranks), np.nan) for name in bias_names(cutoffs)}
    by_language: dict[str, dict[str, float]] = {}
    _spread(pool, cutoffs, found)
    _targets(pool, corpus, query_language, cutoffs, found)
    _shares(pool, corpus, members, by_language)
    _shifts(pool, corpus, members, query_language, found, by_language)
    if query_language in members:
        _preference(pool, corpus.number(query_language), found)
    return PoolBias(
        {name: values for name, values in found.items() if not np.isnan(values).all()},
        by_language,
    )


@dataclass(frozen=True)
class _Judged:
    """The rankings in a pool of the n queries that have a relevant passage in it."""

    ranks: np.ndarray  # int64 [n, R]
    grades: np.ndarray  # int64 [n, R]
    languages: np.ndarray  # int64 [R]: language numbers of the columns
    relevant: np.ndarray  # int64 [n]: number of relevant passages
    top: np.ndarray | None  # int [n, k]: language numbers of the first passages
    translated: np.ndarray | None  # float32 [n, k, L]: scores of their translations

    @classmethod
    def of(cls, ranked: Ranks, corpus: Passages) -> "_Judged":
        judged = ranked.judged
        # Relevant passages that are missing from the corpora are never found: they have no rank.
        missing = ranked.ranks[judged] == NOT_RETRIEVED
        ranks = np.where(missing, 0, ranked.ranks[judged])
        grades = np.where(missing, 0, ranked.grades[judged])
        top = translated = None
        if ranked.top is not None:
            top = corpus.language[ranked.top[judged][:, :K]]
        if ranked.translated is not None:
            translated = ranked.translated[judged][:, :K]
        relevant = (ranks > 0).sum(axis=1)
        return cls(ranks, grades, ranked.language, relevant, top, translated)


def _spread(pool: _Judged, cutoffs: Iterable[int], found: dict[str, np.ndarray]) -> None:
    """How far apart the relevant passages of a query are: rank distance, Max@R, Complete@k, PEER."""
    cuts = tuple(cutoffs)
    several = pool.relevant > 1
    found["rank_distance"][several] = bias.rank_distance(pool.ranks[several])
    found["max_rank"][several] = bias.max_rank(pool.ranks[several])
    for k in cuts:
        able = several & (pool.relevant <= k)
        found[f"complete@{k}"][able] = bias.complete(pool.ranks[able], k)
    member = pool.languages[:, None] == np.unique(pool.languages)  # [R, languages]
    by_language = (pool.ranks > 0) @ member.astype(np.int64)
    able = (by_language > 0).sum(axis=1) > 1
    if not able.any():
        return
    for k in cuts:
        if k > 1:
            peer = bias.peer(pool.ranks[able], pool.grades[able], pool.languages, k)
            found[f"peer@{k}"][able] = peer


def _targets(
    pool: _Judged,
    corpus: Passages,
    query_language: str,
    cutoffs: Iterable[int],
    found: dict[str, np.ndarray],
) -> None:
    """Recall of the relevant passages in other languages: TLR@k."""
    own = corpus.number(query_language) if query_language in corpus.languages else -1
    able = ((pool.ranks > 0) & (pool.languages != own)).any(axis=1)
    if not able.any():
        return
    for k in tlr_cutoffs(cutoffs):
        recall = bias.target_recall(pool.ranks[able], pool.languages, own, k)
        found[f"tlr@{k}"][able] = recall


def _shares(
    pool: _Judged,
    corpus: Passages,
    members: Sequence[str],
    by_language: dict[str, dict[str, float]],
) -> None:
    """The languages of the first passages."""
    if pool.top is None or not len(pool.top):
        return
    shares = bias.language_distribution(pool.top, len(corpus.languages)).mean(axis=0)
    by_language[DISTRIBUTION] = {name: float(shares[corpus.number(name)]) for name in members}


def _shifts(
    pool: _Judged,
    corpus: Passages,
    members: Sequence[str],
    query_language: str,
    found: dict[str, np.ndarray],
    by_language: dict[str, dict[str, float]],
) -> None:
    """MLRS towards every language of the pool, and for single queries towards their own."""
    if pool.top is None or pool.translated is None or pool.top.shape[1] < 2:
        return
    shift = _shift(pool.translated, pool.top)
    means: dict[str, float] = {}
    for name in members:
        values = shift[:, corpus.number(name)]
        if not np.isnan(values).all():
            means[name] = float(np.nanmean(values))
        if name == query_language:
            found[SHIFT] = values
    by_language[SHIFT] = means


def _preference(pool: _Judged, own: int, found: dict[str, np.ndarray]) -> None:
    """The measures of a preference for the query's language, whose number is `own`."""
    here = ((pool.ranks > 0) & (pool.languages == own)).sum(axis=1)
    if pool.top is not None:
        found[SHARE] = bias.same_language_share(pool.top, own)
        outcome = bias.first_outcome(pool.ranks, pool.top[:, 0], own)
        for number, name in enumerate(FIRST):
            found[name] = np.where(here > 0, outcome == number, np.nan)
    both = (here > 0) & (here < pool.relevant)
    ranks, grades = pool.ranks[both], pool.grades[both]
    found["lpr"][both] = bias.language_preference(ranks, pool.languages, own)
    found[f"lang_ndcg@{K}"][both] = bias.language_ndcg(ranks, grades, pool.languages, own, K)


def _shift(translated: np.ndarray, top: np.ndarray) -> np.ndarray:
    """float64 [Q, L]: MLRS towards every language; NaN if no passage would be replaced.

    Args:
        translated: float32 [Q, k, L], scores of the translations; NaN if there is no translation.
        top: int [Q, k], language numbers of the first k passages.
    """
    own = np.take_along_axis(translated, top[:, :, None], axis=2)
    there = top[:, :, None] == np.arange(translated.shape[2])
    able = (~np.isnan(translated) & ~there).any(axis=1) | there.all(axis=1)
    return np.where(
        able, bias.rank_shift(np.where(np.isnan(translated), own, translated)), np.nan
    )
