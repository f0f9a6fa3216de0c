"""Metrics of every query from the ranks of its relevant passages, as in trec_eval, in float64.

Each function takes `ranks` [Q, R] (from 1, in any order within a row; 0 fills up) and, if needed,
`grades` [Q, R], and returns float64 [Q]. The caller takes the mean over queries: mAP is the mean of
`average_precision`, and MRR is the mean of `reciprocal_rank`. All functions raise `DataError` if a
query has no relevant passage, because such a query has no score, not a score of 0.

Source: trec_eval 9 (measures map, ndcg_cut, recall, P, success, recip_rank),
    https://trec.nist.gov/trec_eval/.
"""

from collections.abc import Iterable

import numpy as np

from hybridbatch.common.errors import DataError
from hybridbatch.scoring.columns import plain_names
from hybridbatch.scoring.ranks import NOT_RETRIEVED, Ranks


def average_precision(ranks: np.ndarray, k: int | None = None) -> np.ndarray:
    """AP = 1/R * sum of i / r_i over the relevant passages, by rank r_1 < ... < r_R.

    In 0..1, higher is better. With `k` (trec_eval's map_cut) the sum is over passages of rank k or
    less; R does not change.
    """
    relevant = _relevant(ranks)
    ordered = np.sort(np.where(ranks > 0, ranks, np.iinfo(np.int64).max), axis=1)
    place = np.arange(1, ranks.shape[1] + 1)
    counted = (place <= relevant[:, None]) & (
        ordered < NOT_RETRIEVED if k is None else ordered <= k
    )
    return np.where(counted, place / ordered, 0.0).sum(axis=1) / relevant


def ndcg(ranks: np.ndarray, grades: np.ndarray, k: int) -> np.ndarray:
    """nDCG@k = DCG@k / ideal DCG@k, DCG@k = sum over ranks r <= k of grade / log2(r + 1).

    The gain is the grade itself, as in trec_eval and mteb, not 2^grade - 1. In 0..1, higher is
    better.

    Source: Järvelin and Kekäläinen 2002, ACM TOIS 20(4).
    """
    _relevant(ranks)
    ideal = np.sort(grades, axis=1)[:, ::-1][:, :k]
    ideal_gain = (ideal / np.log2(np.arange(2, ideal.shape[1] + 2))).sum(axis=1)
    found = (ranks > 0) & (ranks <= k)
    return (
        np.where(found, grades / np.log2(np.maximum(ranks, 1) + 1), 0.0).sum(axis=1)
        / ideal_gain
    )


def recall(ranks: np.ndarray, k: int) -> np.ndarray:
    """recall@k: share of the relevant passages among the first k. In 0..1, higher is better."""
    return _found(ranks, k) / _relevant(ranks)


def precision(ranks: np.ndarray, k: int) -> np.ndarray:
    """P@k: relevant passages among the first k, divided by k. In 0..1, higher is better.

    The divisor is k even if the corpus has fewer passages.
    """
    _relevant(ranks)
    return _found(ranks, k) / k


def success(ranks: np.ndarray, k: int) -> np.ndarray:
    """success@k: 1 if any relevant passage is among the first k, else 0."""
    _relevant(ranks)
    return (_found(ranks, k) > 0).astype(np.float64)


def reciprocal_rank(ranks: np.ndarray) -> np.ndarray:
    """RR = 1 / rank of the first relevant passage. In 0..1, higher is better."""
    _relevant(ranks)
    first = np.where(ranks > 0, ranks, NOT_RETRIEVED).min(axis=1)
    return np.where(first < NOT_RETRIEVED, 1.0 / first, 0.0)


def all_metrics(ranked: Ranks, cutoffs: Iterable[int]) -> dict[str, np.ndarray]:
    """Every metric of the judged queries of `ranked`, in their order.

    Args:
        cutoffs: the k of recall@k, precision@k and success@k; nDCG is taken at 10 and at these.

    Returns:
        float64 [number of judged queries] by name: average_precision, reciprocal_rank, ndcg@k,
        recall@k, precision@k, success@k.
    """
    ranks, grades = ranked.ranks[ranked.judged], ranked.grades[ranked.judged]
    of_ranks = {"recall": recall, "precision": precision, "success": success}
    found: dict[str, np.ndarray] = {}
    for column in plain_names(cutoffs):
        name, _, k = column.partition("@")
        if name == "average_precision":
            found[column] = average_precision(ranks)
        elif name == "reciprocal_rank":
            found[column] = reciprocal_rank(ranks)
        elif name == "ndcg":
            found[column] = ndcg(ranks, grades, int(k))
        else:
            found[column] = of_ranks[name](ranks, int(k))
    return found


def listed_metrics(ranked: Ranks, cutoffs: Iterable[int], depth: int) -> dict[str, np.ndarray]:
    """As `all_metrics`, for rankings of which only the first `depth` passages are known.

    Metrics that need a whole ranking are cut at the depth, and have the depth in their names.
    """
    ranks = ranked.ranks[ranked.judged]
    cut = {
        "average_precision": average_precision(ranks, depth),
        "reciprocal_rank": reciprocal_rank(ranks) * success(ranks, depth),
    }
    found: dict[str, np.ndarray] = {}
    for name, values in all_metrics(ranked, cutoffs).items():
        if name in cut:
            found[f"{name}@{depth}"] = cut[name]
        else:
            found[name] = values
    return found


def _found(ranks: np.ndarray, k: int) -> np.ndarray:
    return ((ranks > 0) & (ranks <= k)).sum(axis=1)


def _relevant(ranks: np.ndarray) -> np.ndarray:
    """int64 [Q]: the number of relevant passages, at least 1."""
    relevant = (ranks > 0).sum(axis=1)
    if not relevant.all():
        raise DataError(
            f"query row {int(relevant.argmin())} has no relevant passage; score judged queries only"
        )
    return relevant
