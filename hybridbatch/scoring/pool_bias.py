"""Every measure of language bias that a pool of languages allows, per query; the formulas are
`scoring.bias`.

A measure is there only for queries for which it means something, and NaN for the others:

- rank distance, Max@R and Complete@k ask for two relevant passages or more; Complete@k for no more
  than k;
- PEER asks for relevant passages in two languages or more;
- the preference for the query's language (LPR, Lang-nDCG) asks for relevant passages in it and in
  another one; what the first passage is, for one in the query's language; the same-language share,
  for a corpus in it;
- MLRS towards a language asks that a passage of the first k have a translation into it, or all be
  in it.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from hybridbatch.scoring import language_bias as bias
from hybridbatch.scoring.ranks import Passages, Ranks

K = 10  # depth of the language distribution, Lang-nDCG and MLRS
SHARE = f"same_language_share@{K}"
DISTRIBUTION = f"language_distribution@{K}"
SHIFT = f"mlrs@{K}"
FIRST = (
    "first_relevant_same",
    "first_relevant_other",
    "first_irrelevant_same",
    "first_irrelevant_other",
)


@dataclass(frozen=True)
class PoolBias:
    """Language bias of the n judged queries of one language in a pool."""

    # float64 [n] by name of the measure; NaN for queries without it; none all NaN
    per_query: dict[str, np.ndarray]
    # mean over queries by name of the measure and language of the pool
    by_language: dict[str, dict[str, float]]


def bias_names(cutoffs: Iterable[int]) -> tuple[str, ...]:
    """The measures of single queries, in the order of the columns of their table."""
    cuts = sorted(set(cutoffs))
    return (
        "rank_distance",
        SHARE,
        "max_rank",
        *(f"complete@{k}" for k in cuts),
        "lpr",
        f"lang_ndcg@{K}",
        *FIRST,
        *(f"peer@{k}" for k in cuts if k > 1),
        SHIFT,
    )


def pool_bias(
    ranked: Ranks,
    corpus: Passages,
    query_language: str,
    cutoffs: Iterable[int],
    members: Sequence[str],
) -> PoolBias:
    """All measures of a pool.

    Args:
        ranked: of the pool, with its first `K` passages or more, and their translations where there
            are some.
        query_language: which need not have a corpus.
        cutoffs: the k of Complete@k and PEER@k; of PEER, 1 is left out, for it retrieves one
            passage at most.
        members: the languages of the pool.
    """
    ranks, grades, languages = (
        ranked.ranks[ranked.judged],
        ranked.grades[ranked.judged],
        ranked.language,
    )
    relevant = (ranks > 0).sum(axis=1)
    member = languages[:, None] == np.unique(languages)
    found = {name: np.full(len(ranks), np.nan) for name in bias_names(cutoffs)}

    several = relevant > 1
    found["rank_distance"][several] = bias.rank_distance(ranks[several])
    found["max_rank"][several] = bias.max_rank(ranks[several])
    for k in cutoffs:
        able = several & (relevant <= k)
        found[f"complete@{k}"][able] = bias.complete(ranks[able], k)
    able = ((ranks > 0) @ member.astype(np.int64) > 0).sum(axis=1) > 1
    for k in (k for k in cutoffs if k > 1 and able.any()):
        found[f"peer@{k}"][able] = bias.peer(ranks[able], grades[able], languages, k)

    by_language: dict[str, dict[str, float]] = {}
    top = None if ranked.top is None else corpus.language[ranked.top[ranked.judged][:, :K]]
    if top is not None and len(top):
        shares = bias.language_distribution(top, len(corpus.languages)).mean(axis=0)
        by_language[DISTRIBUTION] = {name: float(shares[corpus.number(name)]) for name in members}
    if top is not None and ranked.translated is not None and top.shape[1] > 1:
        shift = _shift(ranked.translated[ranked.judged][:, :K], top)
        means = {name: shift[:, corpus.number(name)] for name in members}
        by_language[SHIFT] = {
            name: float(np.nanmean(values))
            for name, values in means.items()
            if not np.isnan(values).all()
        }
        if query_language in means:
            found[SHIFT] = means[query_language]
    if query_language in members:
        own = corpus.number(query_language)
        here = ((ranks > 0) & (languages == own)).sum(axis=1)
        if top is not None:
            found[SHARE] = bias.same_language_share(top, own)
            outcome = bias.first_outcome(ranks, top[:, 0], own)
            for number, name in enumerate(FIRST):
                found[name] = np.where(here > 0, outcome == number, np.nan)
        both = (here > 0) & (here < relevant)
        found["lpr"][both] = bias.language_preference(ranks[both], languages, own)
        found[f"lang_ndcg@{K}"][both] = bias.language_ndcg(
            ranks[both], grades[both], languages, own, K
        )
    return PoolBias(
        {name: values for name, values in found.items() if not np.isnan(values).all()}, by_language
    )


def _shift(translated: np.ndarray, top: np.ndarray) -> np.ndarray:
    """float64 [Q, L]: MLRS towards every language; NaN where no passage would be another.

    Args:
        translated: float32 [Q, k, L], scores of the translations; NaN: there is none.
        top: int [Q, k], language numbers of the first k passages.
    """
    own = np.take_along_axis(translated, top[:, :, None], axis=2)
    there = top[:, :, None] == np.arange(translated.shape[2])
    able = (~np.isnan(translated) & ~there).any(axis=1) | there.all(axis=1)
    return np.where(able, bias.rank_shift(np.where(np.isnan(translated), own, translated)), np.nan)
