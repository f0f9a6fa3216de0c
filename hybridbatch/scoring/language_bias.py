"""Language bias of a multilingual ranking, per query. Each function names its source.

`ranks` [Q, R] are the ranks of the relevant passages in the pool of all languages. They start at 1,
and 0 fills up rows. `languages` [R] are the numbers of the languages of its columns
(`Ranks.language`). If the full text of a source could not be read, the docstring says what the
definition was taken from.
"""

from collections.abc import Mapping

import numpy as np

from hybridbatch.common.errors import DataError
from hybridbatch.scoring.metrics import ndcg

OUTCOMES = (
    "relevant, query language",
    "relevant, other language",
    "irrelevant, query language",
    "irrelevant, other language",
)


def rank_distance(ranks: np.ndarray) -> np.ndarray:
    """Greatest minus smallest rank of a query's relevant passages in the pool; lower is better.

    The relevant passages are translations of each other, one per language. With R languages the
    least possible value is R - 1. It is reported as the mean over queries, then over query
    languages.

    Returns:
        int64 [Q].

    Source: Huang et al., "Soft Prompt Decoding for Multilingual Dense Retrieval", SIGIR 2023, as
        used by arXiv:2408.10536 (Table 2).
    """
    return max_rank(ranks) - _first(ranks)


def max_rank(ranks: np.ndarray) -> np.ndarray:
    """Max@R: the rank of the last relevant passage of a query; lower is better.

    A reader must read down to this rank to find all relevant passages.

    Returns:
        int64 [Q], at least the number of relevant passages.

    Source: arXiv:2604.05684, as described in public summaries of it (the full text was not at
        hand): "the worst rank needed to recover all parallel ground-truth documents". The summaries
        give no normalisation, so there is none here.
    """
    _first(ranks)
    return ranks.max(axis=1)


def complete(ranks: np.ndarray, k: int) -> np.ndarray:
    """Complete@k: 1 if all relevant passages are among the first k, else 0; higher is better.

    Returns:
        float64 [Q]; 0 for a query with more than k relevant passages.

    Source: arXiv:2604.05684, as described in public summaries of it (the full text was not at
        hand).
    """
    return (max_rank(ranks) <= k).astype(np.float64)


def language_distribution(languages: np.ndarray, count: int) -> np.ndarray:
    """Share of each language among the first k passages.

    Args:
        languages: int [Q, k], language numbers of the first k passages of the pool (0 .. count -
            1).
        count: number of languages, L.

    Returns:
        float64 [Q, L], rows sum to 1. For an unbiased ranking of parallel corpora all shares tend
        to 1 / L.
    """
    return np.stack([(languages == number).mean(axis=1) for number in range(count)], axis=1)


def same_language_share(languages: np.ndarray, query_language: int) -> np.ndarray:
    """float64 [Q]: share of the first k passages that are in the query's language.

    See `language_distribution`.
    """
    return (languages == query_language).mean(axis=1)


def language_preference(
    ranks: np.ndarray, languages: np.ndarray, query_language: int
) -> np.ndarray:
    """1 if the first of a query's parallel relevant passages is in its own language, else 0.

    The mean over queries is the Language Preference Rate (LPR). It measures a preference, not
    quality. A model that always prefers the query's language has 1, and a model without preference
    among R languages has 1 / R.

    Returns:
        float64 [Q].

    Raises:
        DataError: a query has no relevant passage in its own language.

    Source: MLAIRE, arXiv:2605.07249, as described in its abstract and public summaries
        ("query-language preference when equivalent translations are available"); the paper's
        formula was not at hand.
    """
    first = _first(ranks)
    own = _first(ranks[:, languages == query_language])
    return (own == first).astype(np.float64)


def language_ndcg(
    ranks: np.ndarray,
    grades: np.ndarray,
    languages: np.ndarray,
    query_language: int,
    k: int,
    other_gain: float = 0.5,
) -> np.ndarray:
    """Lang-nDCG@k: nDCG@k in which relevant passages in other languages gain less.

    The gain is the grade in the query's language, and `other_gain` times the grade in other
    languages. So an ideal ranking shows the query's language first and its translations next.

    Args:
        grades: int64 [Q, R].
        other_gain: 0 .. 1; 1 is plain nDCG, 0 counts the query's language only.

    Returns:
        float64 [Q].

    Raises:
        DataError: a query has no relevant passage in its own language.

    Source: MLAIRE, arXiv:2605.07249, as described in its abstract and public summaries (an nDCG
        that joins ranking quality and query-language preference). The paper's gains were not at
        hand; 0.5 is our choice.
    """
    _first(ranks[:, languages == query_language])
    return ndcg(ranks, grades * np.where(languages == query_language, 1.0, other_gain), k)


def first_outcome(
    ranks: np.ndarray, first_language: np.ndarray, query_language: int
) -> np.ndarray:
    """The outcome of the first passage: relevant or not, in the query's language or not.

    Args:
        first_language: int [Q], language number of the first passage of the ranking.

    Returns:
        int64 [Q], numbers of `OUTCOMES`. Their shares over queries are the four-way decomposition.

    Source: MLAIRE, arXiv:2605.07249, as described in public summaries ("according to the first
        passage"); the paper's own wording was not at hand.
    """
    return 2 * (_first(ranks) != 1).astype(np.int64) + (first_language != query_language)


def peer(
    ranks: np.ndarray,
    grades: np.ndarray,
    languages: np.ndarray,
    k: int,
    weights: Mapping[int, float] | None = None,
) -> np.ndarray:
    """PEER@k, Probability of Equal Expected Rank: p value of "languages are ranked alike".

    Each relevance level has a Kruskal-Wallis H test of the ranks of its passages, grouped by
    language. With n passages and R_ij their mid-ranks among themselves, H = (n - 1) * sum over
    languages of n_i * (mean R_i - mean R)^2 / sum of (R_ij - mean R)^2. This includes the
    correction for ties. p is the chi-square survival of H with (number of languages - 1) degrees.
    Passages below rank k count as not retrieved and share the rank after the last. A level whose
    passages are all in one language or all tied has p = 1. Higher is fairer.

    With one relevant passage per language and none beyond k, each group has one rank and p depends
    on the number of groups alone. So the measure needs several relevant passages per language, or a
    cutoff.

    Args:
        weights: of the relevance levels, summing to 1; None: equal weights on the levels that the
            query has.

    Returns:
        float64 [Q], 0 .. 1.

    Source: Yang et al., "Language Fairness in Multilingual Information Retrieval", SIGIR 2024,
        arXiv:2405.00978. Their code (hltcoe/peer_measure) differs: it uses positions in the
        ranking, not ranks among the level's passages.
    """
    _first(ranks)
    retrieved = np.where(ranks <= k, ranks, k + 1)
    levels = sorted(weights or set(np.unique(grades).tolist()) - {0})
    p = np.stack([_kruskal(retrieved, grades == level, languages) for level in levels], axis=1)
    if weights is not None:
        share = np.array([[weights[level] for level in levels]])
    else:
        share = np.stack([(grades == level).any(axis=1) for level in levels], axis=1).astype(
            np.float64
        )
    return (p * share).sum(axis=1) / share.sum(axis=1)


def target_recall(ranks: np.ndarray, languages: np.ndarray, own: int, k: int) -> np.ndarray:
    """TLR@k, Target-Languages Recall: recall of relevant passages in other languages.

    It is the share of a query's relevant passages in languages other than its own that are among
    the first k of the pool. Higher is better.

    Args:
        own: number of the query's language; -1 if this language has no corpus.

    Returns:
        float64 [Q].

    Raises:
        DataError: a query without a relevant passage in another language: it has no TLR, and the
            mean leaves it out.

    Source: Jang et al., "SHIFT", arXiv:2606.18801, section 4.3, as in the authors' code
        (yjoonjang/SHIFT, src/shift/metrics.py).
    """
    target = (ranks > 0) & (languages != own)
    wanted = target.sum(axis=1)
    if len(missing := np.flatnonzero(wanted == 0)):
        raise DataError(f"query row {missing[0]} has no relevant passage in another language")
    return (target & (ranks <= k)).sum(axis=1) / wanted


def rank_correlation(scores: np.ndarray, among: np.ndarray) -> np.ndarray:
    """RC@k, the part of one question in MRC@k: how alike its language versions rank passages.

    For two language versions a and b of a question, it is Spearman's rank correlation of their
    scores over the union of their first k passages. The value of a is the mean over all other b.
    Ties get their mean rank. A pair whose scores do not vary has no correlation and is left out.
    MRC@k of a language is the mean over questions.

    Args:
        scores: float [L, n], each version's scores of the union of all versions' first passages.
        among: bool [L, n], whether a passage is among the first k of a version.

    Returns:
        float64 [L], from -1 to 1 (the authors print 100 times this value); NaN without a pair.

    Source: Jang et al., "MIMO", arXiv:2605.31171, as in the authors' code (yjoonjang/MIMO,
        src/mimo/evaluation/metrics.py), after Yang et al., MRL 2024.
    """
    from scipy.stats import rankdata

    versions = len(scores)
    sums, counts = np.zeros(versions), np.zeros(versions)
    for a in range(versions):
        for b in range(a + 1, versions):
            union = among[a] | among[b]
            if union.sum() < 2:
                continue
            ranks = rankdata(scores[[a, b]][:, union], axis=1)
            ranks -= ranks.mean(axis=1, keepdims=True)
            spread = np.sqrt((ranks[0] ** 2).sum() * (ranks[1] ** 2).sum())
            if spread > 0:
                sums[[a, b]] += (ranks[0] * ranks[1]).sum() / spread
                counts[[a, b]] += 1
    return np.where(counts > 0, sums / np.maximum(counts, 1), np.nan)


def rank_shift(translated_scores: np.ndarray) -> np.ndarray:
    """MLRS, MultiLingualRankShift: how far the first k passages rise when translated.

    MLRS = 100 * sum of max(r - r', 0) / sum of (r - 1) over a query's first k passages. r is the
    rank before, and r' the rank after the passages are replaced by their translations into one
    language and sorted anew. The range is 0 .. 100. A language that the model prefers has a greater
    value, because passages that their own language had kept down rise.

    Args:
        translated_scores: [Q, k, L], k >= 2: score of the translation into each of L languages of
            the passage at rank 1, 2, ... k of the pool. A passage that is already in this language,
            or has no translation, keeps its own score. Ties keep the former order.

    Returns:
        float64 [Q, L].

    Source: "Investigating Language Preference of Multilingual RAG Systems", ACL Findings 2025,
        arXiv:2502.11175; formula checked with the authors' code. The authors rerank machine
        translations with a cross-encoder. Here the translations are the parallel passages, and the
        scores are those of the dual encoder.
    """
    k = translated_scores.shape[1]
    if k < 2:
        raise DataError("MultiLingualRankShift needs at least the first 2 passages")
    risen = np.zeros((len(translated_scores), translated_scores.shape[2]), dtype=np.int64)
    for place in range(k):
        own = translated_scores[:, place, None]
        before = (translated_scores[:, :place] >= own).sum(axis=1) + (
            translated_scores[:, place + 1 :] > own
        ).sum(axis=1)
        risen += np.maximum(place - before, 0)
    return 100.0 * risen / (k * (k - 1) / 2)


def _kruskal(ranks: np.ndarray, chosen: np.ndarray, languages: np.ndarray) -> np.ndarray:
    """p values [Q] of the Kruskal-Wallis H test over the `chosen` [Q, R] ranks.

    Ranks are grouped by language. All ranks of a row differ, except the greatest rank, which may be
    shared.
    """
    # the chi-square survival function; importing scipy.stats would take a second
    from scipy.special import chdtrc

    size = chosen.sum(axis=1, keepdims=True)
    order = np.argsort(np.where(chosen, ranks, np.iinfo(np.int64).max), axis=1)
    mid = np.empty(ranks.shape)
    np.put_along_axis(
        mid, order, np.broadcast_to(np.arange(1.0, ranks.shape[1] + 1), ranks.shape), axis=1
    )
    last = ranks == np.where(chosen, ranks, 0).max(axis=1, keepdims=True)
    mid[last] = np.broadcast_to(
        size - ((last & chosen).sum(axis=1, keepdims=True) - 1) / 2, ranks.shape
    )[last]
    deviation = np.where(chosen, mid - (size + 1) / 2, 0.0)
    member = (languages[:, None] == np.unique(languages)).astype(np.float64)  # [R, L]
    sizes = chosen @ member
    between = ((deviation @ member) ** 2 / np.maximum(sizes, 1)).sum(axis=1)
    total = (deviation**2).sum(axis=1)
    groups = (sizes > 0).sum(axis=1)
    tested = (groups > 1) & (total > 0)
    statistic = (size[:, 0] - 1) * between / np.where(tested, total, 1.0)
    return np.where(tested, chdtrc(np.maximum(groups - 1, 1), statistic), 1.0)


def _first(ranks: np.ndarray) -> np.ndarray:
    """int64 [Q]: the least rank of each row, which must have one."""
    first = np.where(ranks > 0, ranks, np.iinfo(np.int64).max).min(
        axis=1, initial=np.iinfo(np.int64).max
    )
    if len(missing := np.flatnonzero(first == np.iinfo(np.int64).max)):
        raise DataError(
            f"query row {missing[0]} has no relevant passage here; score judged queries only"
        )
    return first
