"""The first k passages of corpora of any size: by exact search, or from a FAISS index.

Exact search works in blocks of bounded memory. It reads the corpus once, from beginning to end (a
memory map streams from disk). From every block of scores it keeps those that reach the current k-th
score of the query. From time to time it merges them as 64-bit keys of score and precedence
(`order.sort_keys`). So ties follow the passage ids exactly, whatever the blocks.
"""

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from hybridbatch.common.errors import DataError
from hybridbatch.common.progress import SILENT, Reporter
from hybridbatch.search.order import (
    inner_products,
    key_places,
    key_scores,
    sort_keys,
    sort_rows,
    top_keys,
)
from hybridbatch.search.vectors import Vectors, as_float32, require_finite, require_width

CHUNK = 1 << 15  # passages read at a time
# queries x passages scored at a time; measured on a CPU only
BLOCK = {"cpu": (1024, 4096), "cuda": (4096, 32768)}
GROUP = 64  # scores whose maximum is compared first: 6 times as fast on a CPU as comparing each
LEAST_KEY = torch.iinfo(torch.int64).min  # less than the key of any score
IndexKind = Literal["flat", "ivf", "hnsw", "ivfpq"]
SearchKind = Literal["exact"] | IndexKind


@dataclass(frozen=True)
class Found:
    """The first k passages of each query, the best first."""

    rows: np.ndarray  # int64 [Q, k]: rows of the corpus; -1 where an index found fewer than k
    scores: np.ndarray  # float32 [Q, k]; -inf where an index found fewer than k

    def of(self, queries: np.ndarray | slice, k: int) -> "Found":
        """The first k passages of some queries."""
        return Found(self.rows[queries, :k], self.scores[queries, :k])


def search(
    queries: np.ndarray | Tensor,
    corpus: Vectors,
    k: int,
    *,
    places: np.ndarray | None = None,
    device: str | torch.device = "cpu",
    report: Reporter = SILENT,
) -> Found:
    """Search exactly by inner product in float32. `search_bytes` tells how much memory it needs.

    Args:
        queries: [Q, D], any float type.
        corpus: [P, D], any float type, possibly a memory map; P < 2 ** 32.
        k: at least 1; cut to P.
        places: int64 [P], precedence of the passages among equal scores (`precedence.precedence` of
            their ids). None: in the order of rows.
        device: where to compute; blocks of the corpus are copied to it.

    Raises:
        DataError: an empty corpus, a width other than that of the queries, or NaN; the error
            names the row.
    """
    total = len(corpus)
    if not total:
        raise DataError("the corpus has no passages")
    vectors = as_float32(queries, device)
    require_width(vectors, corpus.shape[1])
    require_finite(vectors, "query row", range(len(vectors)))
    order = (
        torch.arange(total, device=device)
        if places is None
        else torch.from_numpy(places).to(device)
    )
    high, wide = BLOCK["cpu" if vectors.device.type == "cpu" else "cuda"]
    blocks = [
        (rows, _Best(len(rows), min(k, total), rows.device)) for rows in vectors.split(high)
    ]
    buffer = torch.empty(max(2, min(high, len(vectors))) * min(wide, total), device=device)
    converted = torch.empty(min(CHUNK, total), corpus.shape[1], device=device)
    with report.bar("search", total, "passages") as bar:
        for start in range(0, total, CHUNK):
            chunk = as_float32(corpus[start : start + CHUNK], device, converted)
            require_finite(chunk, "corpus row", range(start, start + len(chunk)))
            for rows, best in blocks:
                for first in range(0, len(chunk), wide):
                    passages = chunk[first : first + wide]
                    scores = inner_products(rows, passages, buffer)
                    best.offer(scores, order[start + first : start + first + len(passages)])
            bar.advance(len(chunk))
    keys = torch.cat([best.settled() for _, best in blocks]).flip(1)
    return Found(
        order.argsort()[key_places(keys)].cpu().numpy(), key_scores(keys).cpu().numpy()
    )


def search_bytes(queries: int, passages: int, dimension: int, k: int) -> int:
    """Bytes that `search` holds at most on a CPU, beside the corpus on disk.

    The user is told this number before a long search.
    """
    high, wide = (
        min(size, count) for size, count in zip(BLOCK["cpu"], (queries, passages), strict=True)
    )
    keys = 8 * queries * max(min(k, passages), GROUP)
    chunk = 4 * dimension * min(CHUNK, passages)
    return 4 * dimension * queries + 2 * chunk + 24 * high * wide + 8 * keys + 24 * passages


class _Best:
    """The k greatest keys of each of Q queries among the scores offered so far."""

    def __init__(self, queries: int, k: int, device: torch.device) -> None:
        self.k = k
        self.seen = 0
        self.keys = torch.full(
            (queries, k), LEAST_KEY, device=device
        )  # int64 [Q, k], ascending
        self.kth = torch.full(
            (queries, 1), -math.inf, device=device
        )  # what a score has to reach
        # keys of scores that did
        self.waiting = torch.full((queries, max(k, GROUP)), LEAST_KEY, device=device)
        self.filled = torch.zeros(queries, dtype=torch.int64, device=device)  # how many wait

    def offer(self, scores: Tensor, places: Tensor) -> None:
        """Take the scores of a block [Q, P] that may be among the first k.

        Args:
            places: [P], precedences.
        """
        first = self.seen < self.k
        self.seen += scores.shape[1]
        query, column = (self.filled[:0],) * 2 if first else _reaching(scores, self.kth)
        count = query.bincount(minlength=len(scores))
        # too many to wait, as where everything ties
        if first or int(count.max()) > self.waiting.shape[1]:
            self._merge(top_keys(scores, places, self.k))
            return
        if int((self.filled + count).max()) > self.waiting.shape[1]:
            self.settled()
        slot = (
            torch.arange(len(query), device=query.device)
            - (count.cumsum(0) - count - self.filled)[query]
        )
        self.waiting[query, slot] = sort_keys(scores[query, column], places[column])
        self.filled += count

    def settled(self) -> Tensor:
        """int64 [Q, k]: the keys, ascending."""
        self._merge(self.waiting)
        self.waiting.fill_(LEAST_KEY)
        self.filled.zero_()
        return self.keys

    def _merge(self, keys: Tensor) -> None:
        self.keys = sort_rows(torch.cat([self.keys, keys], dim=1))[:, -self.k :]
        if self.seen >= self.k:
            self.kth = key_scores(self.keys[:, :1])


def _reaching(scores: Tensor, kth: Tensor) -> tuple[Tensor, Tensor]:
    """Query and column of the scores [Q, P] that are at least `kth` [Q, 1], ordered by query."""
    if short := -scores.shape[1] % GROUP:
        scores = torch.nn.functional.pad(scores, (0, short), value=-math.inf)
    groups = scores.view(len(scores), -1, GROUP)
    query, group = (groups.amax(dim=2) >= kth).nonzero(as_tuple=True)
    near, place = (groups[query, group] >= kth[query]).nonzero(as_tuple=True)
    return query[near], group[near] * GROUP + place


def recall_lost(found: Found, exact: Found) -> float:
    """Share of the exact first k passages that an approximate search missed, mean over queries.

    If passages tie across the cut, another choice among them counts as a miss.

    Returns:
        0 .. 1; 0 means that the search was exact.
    """
    return 1.0 - float(recalls(found, exact).mean())


def recalls(found: Found, exact: Found) -> np.ndarray:
    """float64 [Q]: the share of the exact first k passages that each query found."""
    hits = []
    for one, other in zip(found.rows, exact.rows, strict=True):
        hits.append(len(np.intersect1d(one, other)))
    return np.array(hits) / exact.rows.shape[1]
