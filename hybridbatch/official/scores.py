"""All scores that mteb writes for a retrieval subset, from arrays instead of dictionaries.

mteb 2.26 turns each subset into dictionaries of up to 1,000 passages per query and walks them in Python (about 1.5 s a
Belebele subset). The same 148 numbers need only the ranks of the relevant passages and three statistics of the scores.
Source of every definition: mteb/_evaluators/retrieval_metrics.py (trec_eval through pytrec_eval; nAUC of
arXiv:2402.12997); equality with it is tested.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

ABSTENTION_RATES = np.linspace(0, 1, 11)[:-1]
CORPUS_CHUNK = (
    50_000  # stock mteb multiplies chunks of this many passages; the same shapes give the same float32 scores
)


@dataclass(frozen=True)
class Retrieved:
    """What a search says about each of Q queries.

    ranks: int64 [Q, M], rank from 1 of each relevant passage among the top k, 0 where not retrieved or padding.
    grades: int64 [Q, M], relevance of those passages, 0 for padding; ideal gains come from here too.
    confidence: float64 [3, Q]: highest score, standard deviation, and lead over the second, of the top k.
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
    chunk: int = 256,
) -> Retrieved:
    """Score all passages for each query and keep what `score_dict` needs.

    Args:
        queries, passages: [Q, D] and [P, D] unit rows, float32.
        id_rank: [P] place of each passage in descending order of id: ties are broken by it, as trec_eval does.
        relevant: [Q, M] column numbers of judged passages, -1 for padding.
        grades: [Q, M] their relevance, 0 for padding; a judged passage that the corpus lacks has a grade but no column.
        top_k: passages kept per query (1,000 in mteb).
        excluded: [Q] column of the passage that a query must not retrieve (its own copy), -1 for none.
        candidates: for each query the columns it may retrieve (reranking tasks); None: all.
        chunk: queries scored at a time.
    """
    order = torch.from_numpy(id_rank)
    ranks, confidence = np.zeros(relevant.shape, np.int64), np.zeros((3, len(queries)))
    for start in range(0, len(queries), chunk):
        part = slice(start, start + chunk)
        scores = torch.cat(
            [queries[part] @ passages[i : i + CORPUS_CHUNK].T for i in range(0, len(passages), CORPUS_CHUNK)], 1
        )
        if excluded is not None:
            rows = np.flatnonzero(excluded[part] >= 0)
            scores[rows, excluded[part][rows]] = -torch.inf
        if candidates is not None:
            allowed = torch.full_like(scores, -torch.inf)
            for row, wanted in enumerate(candidates[part]):
                allowed[row, wanted] = 0
            scores += allowed
        columns = torch.from_numpy(relevant[part])
        present = columns >= 0
        own = scores.gather(1, columns.clamp(min=0))
        place = order[columns.clamp(min=0)]
        above = torch.empty_like(columns)
        for m in range(columns.shape[1]):
            threshold = own[:, m : m + 1]
            tied = (scores == threshold) & (order < place[:, m : m + 1])
            above[:, m] = (scores > threshold).sum(1) + tied.sum(1)
        rank = above + 1
        kept = present & (rank <= top_k) & torch.isfinite(own)
        ranks[part] = torch.where(kept, rank, 0).numpy()
        top = torch.topk(scores, min(top_k, scores.shape[1]), sorted=True).values.double().numpy()
        confidence[:, part] = _confidence(top)
    return Retrieved(ranks, grades, confidence)


def _confidence(top: np.ndarray) -> np.ndarray:
    """[3, n] of descending score lists [n, k]; excluded passages sit at the end as -inf."""
    if top.shape[1] == 0:
        return np.zeros((3, len(top)))
    valid = np.isfinite(top)
    spread = (
        top.std(axis=1)
        if valid.all()
        else np.array([row[ok].std() if ok.any() else 0.0 for row, ok in zip(top, valid, strict=True)])
    )
    second = top[:, 1] if top.shape[1] > 1 else top[:, 0]
    second = np.where(np.isfinite(second), second, top[:, 0])
    best = np.where(valid[:, 0], top[:, 0], 0.0)
    return np.stack([best, spread, np.where(valid[:, 0], top[:, 0] - second, 0.0)])


def per_query(found: Retrieved, k_values: tuple[int, ...]) -> dict[str, np.ndarray]:
    """`ndcg`, `map`, `recall`, `precision`, `mrr`, `hit_rate`: arrays [k, Q], as trec_eval defines them (linear gains)."""
    relevant = found.grades > 0
    count = relevant.sum(1)
    ranks = np.where(relevant & (found.ranks > 0), found.ranks, np.iinfo(np.int64).max)
    by_rank = np.argsort(ranks, axis=1, kind="stable")
    ranks = np.take_along_axis(ranks, by_rank, 1)
    gains = np.take_along_axis(np.maximum(found.grades, 0), by_rank, 1).astype(float)
    discounts = np.where(ranks < np.iinfo(np.int64).max, 1 / np.log2(ranks.astype(float) + 1), 0.0)
    precision_at_hit = np.arange(1, ranks.shape[1] + 1) / ranks
    ideal = -np.sort(-np.maximum(found.grades, 0), axis=1).astype(float)
    ideal_gain = np.cumsum(ideal / np.log2(np.arange(2, ideal.shape[1] + 2)), axis=1)
    safe = np.maximum(count, 1)
    out: dict[str, list[np.ndarray]] = {name: [] for name in ("ndcg", "map", "recall", "precision", "mrr", "hit_rate")}
    for k in k_values:
        inside = ranks <= k
        hits = inside.sum(1)
        best = ideal_gain[:, min(k, ideal.shape[1]) - 1]
        out["ndcg"].append(
            np.divide((gains * discounts * inside).sum(1), best, out=np.zeros(len(best)), where=best > 0)
        )
        out["map"].append((precision_at_hit * inside).sum(1) / safe)
        out["recall"].append(hits / safe)
        out["precision"].append(hits / k)
        out["mrr"].append(np.where(inside[:, 0], 1 / ranks[:, 0], 0.0))
        out["hit_rate"].append((hits > 0).astype(float))
    return {name: np.stack(values) for name, values in out.items()}


def score_dict(found: Retrieved, k_values: tuple[int, ...]) -> dict[str, float]:
    """The scores of one subset under mteb's names, rounded as mteb rounds them."""
    values = per_query(found, k_values)
    scores: dict[str, float] = {}
    for name in ("ndcg", "map", "recall"):
        scores |= _means(name, values[name], k_values)
    scores["accuracy"] = scores["recall_at_1"]
    scores |= _means("precision", values["precision"], k_values)
    scores |= {f"mrr_at_{k}": float(row.mean()) for k, row in zip(k_values, values["mrr"], strict=True)}
    for name in ("ndcg", "map", "recall", "precision", "mrr"):
        curves = _nauc(found.confidence, values[name])
        for k, row in zip(k_values, curves, strict=True):
            scores |= {
                f"nauc_{name}_at_{k}_{kind}": float(value)
                for kind, value in zip(("max", "std", "diff1"), row, strict=True)
            }
    return scores | _means("hit_rate", values["hit_rate"], k_values)


def _means(name: str, values: np.ndarray, k_values: tuple[int, ...]) -> dict[str, float]:
    # a sum in the order of the queries, as mteb's, so that halves round the same way
    return {f"{name}_at_{k}": round(sum(row.tolist()) / len(row), 5) for k, row in zip(k_values, values, strict=True)}


def _nauc(confidence: np.ndarray, metrics: np.ndarray) -> np.ndarray:
    """Normalised area under the abstention curve: confidence [C, Q], metrics [M, Q] -> [M, C]; NaN where flat."""
    oracle = np.stack([_abstention_curve(row, row[None])[0] for row in metrics])
    oracle_area = np.trapezoid(oracle, ABSTENTION_RATES, axis=1)
    flat_area = oracle[:, 0] * (ABSTENTION_RATES[-1] - ABSTENTION_RATES[0])
    out = np.empty((len(metrics), len(confidence)))
    for c, scores in enumerate(confidence):
        area = np.trapezoid(_abstention_curve(scores, metrics), ABSTENTION_RATES, axis=1)
        with np.errstate(divide="ignore", invalid="ignore"):
            out[:, c] = np.where(oracle_area == flat_area, np.nan, (area - flat_area) / (oracle_area - flat_area))
    return out


def _abstention_curve(scores: np.ndarray, metrics: np.ndarray) -> np.ndarray:
    """[M, rates]: mean of each metric over the queries kept when the least confident share is dropped."""
    order = np.argsort(scores, stable=True)
    ranked = scores[order]
    starts = np.flatnonzero(np.r_[True, ranked[1:] != ranked[:-1]])
    sizes = np.diff(np.r_[starts, len(ranked)])
    tied = np.repeat(np.add.reduceat(metrics[:, order], starts, axis=1) / sizes, sizes, axis=1)
    dropped = [min(round(rate * len(ranked)), len(ranked) - 1) for rate in ABSTENTION_RATES]
    return np.stack([tied[:, n:].mean(axis=1) for n in dropped], axis=1)
