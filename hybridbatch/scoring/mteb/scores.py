"""All scores that mteb writes for a retrieval subset, from arrays instead of dictionaries.

mteb 2.26 turns each subset into dictionaries of up to 1,000 passages per query and walks them in
Python (measured: 0.9 s a Belebele subset, all beside encoding). The same 148 numbers need only the
ranks of the relevant passages and three statistics of the scores. Source of every definition:
mteb/_evaluators/retrieval_metrics.py (trec_eval through pytrec_eval; nAUC of arXiv:2402.12997);
equality with it is tested. Where two queries have the very same scores in another order, nAUC by
standard deviation can differ: mteb then tells them apart by rounding.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from hybridbatch.scoring import metrics

ABSTENTION_RATES = np.linspace(0, 1, 11)[:-1]
SCORES_AT_ONCE = 1 << 26  # bounds the memory, not the result
CORPUS_CHUNK = (
    # stock mteb multiplies chunks of this many passages; the same shapes give the same float32
    # scores
    50_000
)


@dataclass(frozen=True)
class Retrieved:
    """What a search says about each of Q queries.

    ranks: int64 [Q, M], rank from 1 of each relevant passage among the top k, 0 where not retrieved
    or padding. grades: int64 [Q, M], relevance of those passages, 0 for padding; ideal gains come
    from here too. confidence: float64 [3, Q]: highest score, standard deviation, and lead over the
    second, of the top k.
    """

    ranks: np.ndarray
    grades: np.ndarray
    confidence: np.ndarray


def search(
    queries: torch.Tensor,
    passages: torch.Tensor,
    id_rank: np.ndarray,
    relevant: np.ndarray,
    grades: np.ndarray,
    *,
    top_k: int,
    excluded: np.ndarray | None = None,
    candidates: Sequence[np.ndarray] | None = None,
) -> Retrieved:
    """Score all passages for each query and keep what `score_dict` needs.

    Args:
        queries, passages: [Q, D] and [P, D] float32; unit rows, if the model compares by cosine.
        id_rank: [P] place of each passage among equal scores (`search.order.precedence`).
        relevant: [Q, M] column numbers of judged passages, -1 for padding.
        grades: [Q, M] their relevance, 0 for padding; a judged passage that the corpus lacks has a
            grade but no column.
        top_k: passages kept per query (1,000 in mteb).
        excluded: [Q] column of the passage that a query must not retrieve (its own copy), -1 for
            none.
        candidates: for each query the columns it may retrieve (reranking tasks); None: all.
    """
    ranks, confidence = np.zeros(relevant.shape, np.int64), np.zeros((3, len(queries)))
    chunk = max(1, SCORES_AT_ONCE // max(1, len(passages)))
    for start in range(0, len(queries), chunk):
        part = slice(start, start + chunk)
        scores = _multiply(queries[part], passages)
        if excluded is not None:
            rows = np.flatnonzero(excluded[part] >= 0)
            scores[rows, excluded[part][rows]] = -np.inf
        if candidates is not None:
            allowed = np.full_like(scores, -np.inf)
            for row, wanted in enumerate(candidates[part]):
                allowed[row, wanted] = 0
            scores += allowed
        ranks[part] = _ranks(scores, relevant[part], id_rank, top_k)
        confidence[:, part] = confidence_of(scores, top_k)
    return Retrieved(ranks, grades, confidence)


def _multiply(queries: torch.Tensor, passages: torch.Tensor) -> np.ndarray:
    if len(passages) <= CORPUS_CHUNK:
        return (queries @ passages.T).numpy()
    scores = torch.empty(len(queries), len(passages))
    for i in range(0, len(passages), CORPUS_CHUNK):
        block = slice(i, i + CORPUS_CHUNK)
        scores[:, block] = queries @ passages[block].T
    return scores.numpy()


def _ranks(
    scores: np.ndarray, relevant: np.ndarray, id_rank: np.ndarray, top_k: int
) -> np.ndarray:
    """[n, M] from scores [n, P]: one more than the passages with a higher score, or the same and a
    later id.
    """
    rows = np.arange(len(scores))
    ranks = np.zeros(relevant.shape, np.int64)
    for m, columns in enumerate(relevant.T):
        own = scores[rows, columns]
        above = np.count_nonzero(scores > own[:, None], axis=1)
        for row in np.flatnonzero(np.count_nonzero(scores == own[:, None], axis=1) > 1):
            above[row] += np.count_nonzero(
                (scores[row] == own[row]) & (id_rank < id_rank[columns[row]])
            )
        found = (columns >= 0) & (above < top_k) & np.isfinite(own)
        ranks[:, m] = np.where(found, above + 1, 0)
    return ranks


def confidence_of(scores: np.ndarray, top_k: int) -> np.ndarray:
    """[3, n] from scores [n, P]: highest, standard deviation and lead of the best over the second,
    among the top k.
    """
    if scores.shape[1] > top_k:
        scores = torch.topk(torch.from_numpy(scores), top_k).values.numpy()
    valid = np.isfinite(scores)
    if valid.all():
        spread = scores.std(axis=1, dtype=np.float64)
    else:
        spread = np.array(
            [
                row[ok].std(dtype=np.float64) if ok.any() else 0.0
                for row, ok in zip(scores, valid, strict=True)
            ]
        )
    if scores.shape[1] == 1:
        scores = np.repeat(scores, 2, axis=1)
    best, second = torch.topk(torch.from_numpy(scores), 2).values.numpy().T.astype(np.float64)
    second = np.where(np.isfinite(second), second, best)
    return np.where(np.isfinite(best), np.stack([best, spread, best - second]), 0.0)


def per_query(found: Retrieved, k_values: tuple[int, ...]) -> dict[str, np.ndarray]:
    """`ndcg`, `map`, `recall`, `precision`, `mrr`, `hit_rate`: [k, Q]. A query without a relevant
    passage scores 0.
    """
    relevant = found.grades > 0
    judged = np.count_nonzero(relevant, axis=1) > 0
    placed = np.where(found.ranks > 0, found.ranks, metrics.NOT_RETRIEVED)
    ranks = np.where(relevant, placed, 0)[judged]
    grades = np.where(relevant, found.grades, 0)[judged]
    first = metrics.reciprocal_rank(ranks) if judged.any() else np.zeros(0)

    def at_each_k(metric: Callable[[int], np.ndarray]) -> np.ndarray:
        values = np.zeros((len(k_values), len(judged)))
        if judged.any():
            values[:, judged] = [metric(k) for k in k_values]
        return values

    return {
        "ndcg": at_each_k(lambda k: metrics.ndcg(ranks, grades, k)),
        "map": at_each_k(lambda k: metrics.average_precision(ranks, k)),
        "recall": at_each_k(lambda k: metrics.recall(ranks, k)),
        "precision": at_each_k(lambda k: metrics.precision(ranks, k)),
        "mrr": at_each_k(lambda k: first * metrics.success(ranks, k)),
        "hit_rate": at_each_k(lambda k: metrics.success(ranks, k)),
    }


def score_dict(found: Retrieved, k_values: tuple[int, ...]) -> dict[str, float]:
    """The scores of one subset under mteb's names, rounded as mteb rounds them."""
    values = per_query(found, k_values)
    scores: dict[str, float] = {}
    for name in ("ndcg", "map", "recall"):
        scores |= _means(name, values[name], k_values)
    scores["accuracy"] = scores["recall_at_1"]
    scores |= _means("precision", values["precision"], k_values)
    scores |= {
        f"mrr_at_{k}": float(row.mean()) for k, row in zip(k_values, values["mrr"], strict=True)
    }
    curved = ("ndcg", "map", "recall", "precision", "mrr")
    areas = _nauc(found.confidence, np.concatenate([values[name] for name in curved])).reshape(
        len(curved), len(k_values), 3
    )
    for name, rows in zip(curved, areas, strict=True):
        for k, row in zip(k_values, rows, strict=True):
            scores |= {
                f"nauc_{name}_at_{k}_{kind}": float(v)
                for kind, v in zip(("max", "std", "diff1"), row, strict=True)
            }
    return scores | _means("hit_rate", values["hit_rate"], k_values)


def _means(name: str, values: np.ndarray, k_values: tuple[int, ...]) -> dict[str, float]:
    # a sum in the order of the queries, as mteb's, so that halves round the same way
    return {
        f"{name}_at_{k}": round(sum(row.tolist()) / len(row), 5)
        for k, row in zip(k_values, values, strict=True)
    }


def _nauc(confidence: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Normalised area under the abstention curve: confidence [C, Q], values [M, Q] -> [M, C]; NaN
    where flat.
    """
    by_confidence = [_abstention(_order(row[None]), values) for row in confidence]
    areas, starts = (
        np.stack(part)
        for part in zip(*by_confidence, _abstention(_order(values), values), strict=True)
    )
    oracle = areas[-1]
    flat = starts[-1] * (ABSTENTION_RATES[-1] - ABSTENTION_RATES[0])
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(oracle == flat, np.nan, (areas[:-1] - flat) / (oracle - flat)).T


def _order(scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """For each row [N, Q], the least confident query first: the order [N, Q], and where another
    score begins [N, Q].
    """
    order = np.argsort(scores, axis=1, stable=True)
    ranked = np.take_along_axis(scores, order, 1)
    new = np.ones(scores.shape, bool)
    new[:, 1:] = ranked[:, 1:] != ranked[:, :-1]
    return order, new


def _abstention(
    ordered: tuple[np.ndarray, np.ndarray], values: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Area under each row's abstention curve, and the curve's first point: values [M, Q] -> [M],
    [M].

    The curve is the mean metric over the queries kept when the least confident share is dropped;
    queries of equal confidence stand for each other. The order of operations is mteb's, so that the
    float64 results are the same.

    Args:
        ordered: `_order` of one confidence for all rows, or of one for each.
    """
    count = values.shape[1]
    order, new = (np.broadcast_to(part, values.shape) for part in ordered)
    sorted_values = np.take_along_axis(values, order, 1)
    if new.all():
        tied = sorted_values
    else:
        starts = np.flatnonzero(new)
        sizes = np.diff(np.r_[starts, new.size])
        means = np.add.reduceat(sorted_values.reshape(-1), starts) / sizes
        tied = np.repeat(means, sizes).reshape(values.shape)
    dropped = [min(round(rate * count), count - 1) for rate in ABSTENTION_RATES]
    curve = np.stack([tied[:, k:].mean(axis=1) for k in dropped], axis=1)
    return np.trapezoid(curve, ABSTENTION_RATES, axis=1), curve[:, 0]
