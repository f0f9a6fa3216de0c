"""Ranks of some passages among all, from their scores: three ways with the same result.

The rank of a passage is 1 + the number of greater scores + the number of equal scores of passages
that precede it. The number of passages, and of relevant passages, decides which way is fast. For
few relevant passages the greater scores are counted. For many passages a histogram is made
(`ranks_in_row`). Otherwise all scores are sorted. `benchmarks/bench_scoring.py` measures whole
grids.
"""

import numpy as np
import torch
from torch import Tensor

from hybridbatch.search.order import array_sort_keys, sort_rows

COUNTED = 3  # relevant passages of a ranking: up to here counting is fastest
HISTOGRAM_PASSAGES = 4096  # from here on a histogram beats sorting
# Buckets of a histogram: as many as fit into a core's second cache beside a row of scores.
BUCKETS = 1 << 14
# If no more than this share of a row reaches the least relevant passage, these are sorted directly.
NEAR = 1 / 32


def ranks_by_sort(values: Tensor, own: Tensor) -> tuple[Tensor, Tensor]:
    """1 + the number of greater values per row, and whether `own` occurs there more than once.

    Args:
        values: [n, P].
        own: [n, R], each one of its row's values.

    Returns:
        int64 and bool [n, R].
    """
    ordered = sort_rows(values)
    after = torch.searchsorted(ordered, own, right=True)
    return values.shape[1] - after + 1, after - torch.searchsorted(ordered, own) > 1


def ranks_by_count(scores: np.ndarray, own: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """As `ranks_by_sort`, for few relevant passages.

    Args:
        scores: float32 [n, P].
        own: float32 [n, R].
    """
    ranks = np.empty(own.shape, np.int64)
    ties = np.empty(own.shape, bool)
    for m in range(own.shape[1]):
        one = own[:, m, None]
        greater = np.count_nonzero(scores > one, axis=1)
        ranks[:, m] = greater + 1
        ties[:, m] = np.count_nonzero(scores >= one, axis=1) - greater > 1
    return ranks, ties


def ranks_in_row(scores: np.ndarray, columns: np.ndarray, places: np.ndarray) -> np.ndarray:
    """The ranks of some passages of one ranking, ties in the order of `places`.

    Args:
        scores: float32 [P].
        columns: int64 [R], the passages; may be empty.
        places: int64 [P], precedences.

    Returns:
        int64 [R].
    """
    # Only passages with scores close to that of a relevant passage need an exact comparison. If few
    # passages reach the least relevant passage (a good model), only these are compared.
    # Otherwise a monotone function puts scores into buckets, so a greater bucket means a greater
    # score. Passages in the buckets of relevant passages are compared, and all others are counted.
    if not len(columns):
        return np.zeros(0, np.int64)
    own = scores[columns]
    reaches = scores >= own.min()
    above = np.zeros(len(columns), np.int64)
    buckets = None
    if np.count_nonzero(reaches) > NEAR * len(scores):
        buckets = _buckets(scores)
    if buckets is None:
        near = np.flatnonzero(reaches)
    else:
        near, above = _level(buckets, columns)
    keys = np.sort(array_sort_keys(scores[near], places[near]))
    after = np.searchsorted(keys, array_sort_keys(own, places[columns]), side="right")
    return 1 + above + len(keys) - after


def _buckets(scores: np.ndarray) -> np.ndarray | None:
    """int64 [P]: numbers of buckets, 0 .. `BUCKETS`; a greater score never has a smaller number.

    None if the range of the scores is too small or too large for float32 to divide it.
    """
    least, most = scores.min(), scores.max()
    with np.errstate(over="ignore", divide="ignore", invalid="ignore"):
        scale = np.float32(BUCKETS - 1) / (most - least)
    if not np.isfinite(scale) or scale == 0:
        return None
    # subtraction, multiplication and truncation of floats all keep the order
    return ((scores - least) * scale).astype(np.int64)


def _level(buckets: np.ndarray, columns: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The passages in the buckets of the passages in `columns`: int64 [n].

    Also, for each passage in `columns`, the number of other passages in greater buckets: int64 [R].
    """
    own = buckets[columns]
    level = np.zeros(BUCKETS + 1, bool)
    level[own] = True
    counts = np.bincount(buckets, minlength=BUCKETS + 1)
    counts[own] = 0
    below = np.cumsum(counts)
    return np.flatnonzero(level[buckets]), below[-1] - below[own]
