"""trec_eval's order of passages: descending float32 score, ties by descending passage id.

The order is held as one integer per passage, its *precedence*: 0 for the id that sorts last, which wins ties. Score and
precedence together make a 64-bit key without ties, so that exact ranks cost one integer sort at most.
"""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from hybridbatch.errors import DataError


def precedence(ids: Sequence[str] | Sequence[tuple[str, str]]) -> np.ndarray:
    """The place of every passage among passages of equal score.

    Args:
        ids: P distinct passage ids, or (id, language) where languages share ids. Python compares text by code point,
            which is the order of the UTF-8 bytes that trec_eval's ``strcmp`` sees.
    Returns: int64 [P], a permutation of 0 .. P - 1; 0 goes to the id that sorts last.
    Raises: DataError if an id occurs twice.
    """
    descending = sorted(range(len(ids)), key=ids.__getitem__, reverse=True)
    for one, other in pairwise(descending):
        if ids[one] == ids[other]:
            raise DataError(f"passage id {ids[one]!r} occurs twice in one corpus; make the ids distinct")
    places = np.empty(len(ids), dtype=np.int64)
    places[descending] = np.arange(len(ids))
    return places


def sort_keys(scores: Tensor, places: Tensor) -> Tensor:
    """Integers that sort like (score, descending precedence): the larger key comes first in the ranking.

    Args:
        scores: float32, any shape.
        places: int64 precedences (or any tie rule, smaller first), broadcastable to `scores`, below 2 ** 32.
    Returns: int64, the shape of `scores`.
    """
    bits = (scores + 0.0).view(torch.int32)  # + 0.0 turns -0.0, which equals 0.0, into 0.0
    # IEEE 754 bit patterns sort like their values, except that the negative ones run backwards
    ascending = bits ^ ((bits >> 31) & 0x7FFFFFFF)
    return (ascending.long() << 32) | (0xFFFFFFFF - places)


def top_columns(scores: Tensor, places: Tensor, k: int) -> Tensor:
    """The columns of the `k` first passages of every row.

    Args:
        scores: float32 [Q, P].
        places: int64 [P] precedence of the columns.
        k: at least 1; cut to P.
    Returns: int64 [Q, min(k, P)], the first passage first.
    """
    passages = scores.shape[1]
    if k >= passages:
        return sort_keys(scores, places).argsort(dim=1, descending=True)
    values, columns = scores.topk(k + 1, dim=1)
    by_key = sort_keys(values, places[columns]).argsort(dim=1, descending=True)
    columns = columns.gather(1, by_key)[:, :k]
    # topk picks freely among equals, so rows with a tie across the cut are done again with keys
    cut = (values[:, k - 1] == values[:, k]).nonzero().squeeze(1)
    if len(cut):
        columns[cut] = sort_keys(scores[cut], places).topk(k, dim=1).indices
    return columns
