"""trec_eval's order of passages: descending float32 score, ties by descending passage id.

The order is held as one integer per passage, its *precedence*: 0 for the id that sorts last, which
wins ties. Score and precedence together make a 64-bit key without ties, so that exact ranks cost
one integer sort at most.
"""

from collections.abc import Mapping, Sequence
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from hybridbatch.common.errors import DataError
from hybridbatch.common.records import Texts

DUPLICATE_ROWS = 1 << 20  # ids compared at a time


def precedence_of_corpora(corpora: Mapping[str, Texts]) -> np.ndarray:
    """As `scoring.order.precedence` of (id, language), for any number of passages.

    Returns: int64 [P], for the passages of all corpora in turn.
    Raises: `DataError` if an id occurs twice in one corpus.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    number = {name: rank for rank, name in enumerate(sorted(corpora))}
    chunks = [
        chunk
        for texts in corpora.values()
        for chunk in (
            getattr(texts.ids, "column", None)
            or pa.chunked_array([pa.array(texts.ids, pa.string())])
        ).chunks
    ]
    ids = pa.chunked_array(chunks, pa.string())
    languages = np.repeat(
        [number[name] for name in corpora], [len(texts.ids) for texts in corpora.values()]
    )
    table = pa.table({"id": ids, "language": languages.astype(np.int32)})
    order = pc.sort_indices(
        table, sort_keys=[("id", "descending"), ("language", "descending")]
    ).to_numpy()
    for start in range(0, len(order), DUPLICATE_ROWS):
        part = table.take(order[start : start + DUPLICATE_ROWS + 1])
        same = pc.and_(*(pc.equal(part[name][1:], part[name][:-1]) for name in ("id", "language")))
        if pc.any(same).as_py():
            repeated = part["id"][pc.index(same, True).as_py()].as_py()
            raise DataError(
                f"passage id {repeated!r} occurs twice in one corpus; make the ids distinct"
            )
    places = np.empty(len(order), dtype=np.int64)
    places[order] = np.arange(len(order))
    return places


LAST_PLACE = 0xFFFFFFFF  # precedences have 32 bits of a key


def precedence(ids: Sequence[str] | Sequence[tuple[str, str]]) -> np.ndarray:
    """The place of every passage among passages of equal score.

    Args:
        ids: P distinct passage ids, or (id, language) where languages share ids. Python compares
            text by code point, which is the order of the UTF-8 bytes that trec_eval's ``strcmp``
            sees.
    Returns: int64 [P], a permutation of 0 .. P - 1; 0 goes to the id that sorts last.
    Raises: DataError if an id occurs twice.
    """
    descending = sorted(range(len(ids)), key=ids.__getitem__, reverse=True)
    for one, other in pairwise(descending):
        if ids[one] == ids[other]:
            raise DataError(
                f"passage id {ids[one]!r} occurs twice in one corpus; make the ids distinct"
            )
    places = np.empty(len(ids), dtype=np.int64)
    places[descending] = np.arange(len(ids))
    return places


def inner_products(queries: Tensor, passages: Tensor, buffer: Tensor | None = None) -> Tensor:
    """float32 scores [Q, P] of [Q, D] queries and [P, D] passages, equal passages getting equal
    scores.

    A single query would go to BLAS's matrix-vector kernel, whose sums differ in the last bit with
    the place of a passage (measured: 4 of 13,699 equal passages), and ties would be lost; so it is
    scored twice. With 2 or more queries no such difference was found.

    Args:
        buffer: float32 [at least max(Q, 2) * P], to hold the scores. Without it, memory that the
            allocator takes anew from the system costs up to a third of the product's time in page
            faults.
    """
    if len(queries) == 1:
        return inner_products(queries.expand(2, -1), passages, buffer)[:1]
    if buffer is None:
        return queries @ passages.T
    return torch.mm(
        queries,
        passages.T,
        out=buffer[: len(queries) * len(passages)].view(len(queries), len(passages)),
    )


def sort_keys(scores: Tensor, places: Tensor) -> Tensor:
    """Integers that sort like (score, descending precedence): the larger key comes first in the
    ranking.

    Args:
        scores: float32, any shape.
        places: int64 precedences (or any tie rule, smaller first), broadcastable to `scores`, below
            2 ** 32.
    Returns: int64, the shape of `scores`; `key_scores` and `key_places` take them apart.
    """
    bits = (scores + 0.0).view(torch.int32)  # + 0.0 turns -0.0, which equals 0.0, into 0.0
    return (_monotone(bits).long() << 32) | (LAST_PLACE - places)


def array_sort_keys(scores: np.ndarray, places: np.ndarray) -> np.ndarray:
    """As `sort_keys`, for arrays: several times as fast where there are few."""
    bits = (scores + np.float32(0.0)).view(np.int32)
    bits = bits ^ ((bits >> 31) & 0x7FFFFFFF)
    return (bits.astype(np.int64) << 32) | (LAST_PLACE - places)


def key_scores(keys: Tensor) -> Tensor:
    """The float32 scores in keys."""
    return _monotone((keys >> 32).int()).view(torch.float32)


def key_places(keys: Tensor) -> Tensor:
    """The precedences in keys."""
    return LAST_PLACE - (keys & LAST_PLACE)


def _monotone(bits: Tensor) -> Tensor:
    """IEEE 754 bit patterns sort like their values, but the negative ones run backwards; its own
    inverse.
    """
    return bits ^ ((bits >> 31) & 0x7FFFFFFF)


def top_keys(scores: Tensor, places: Tensor, k: int) -> Tensor:
    """The keys of the `k` first passages of every row.

    Args:
        scores: float32 [Q, P].
        places: int64 [P] precedence of the columns.
        k: at least 1; cut to P.
    Returns: int64 [Q, min(k, P)], ascending: the first passage comes last.
    """
    if k >= scores.shape[1]:
        return sort_rows(sort_keys(scores, places))
    values, columns = scores.topk(k + 1, dim=1)
    keys = sort_rows(sort_keys(values, places[columns]))[:, 1:]
    # topk picks freely among equals, so rows with a tie across the cut are done again with keys
    cut = (values[:, k - 1] == values[:, k]).nonzero().squeeze(1)
    if len(cut):
        keys[cut] = sort_rows(sort_keys(scores[cut], places))[:, -k:]
    return keys


def sort_rows(values: Tensor) -> Tensor:
    """Every row of [Q, P] in ascending order, as a new tensor."""
    if values.device.type == "cpu":
        # measured: 30 times as fast as torch's on a CPU
        return torch.from_numpy(np.sort(values.numpy(), axis=1))
    return values.sort(dim=1).values
