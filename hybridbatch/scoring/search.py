"""The first k passages of corpora of any size: exact, in blocks of bounded memory, or from a FAISS index.

The corpus is read once, from beginning to end (a memory map streams from disk). For every block, scores are computed
for a block of queries, those that reach a query's present k-th score are kept, and merged as 64-bit keys of score and
precedence (`order.sort_keys`), so that ties follow the passage ids exactly, whatever the blocks.
"""

import math
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from hybridbatch.errors import DataError
from hybridbatch.reporting import SILENT, Reporter
from hybridbatch.scoring.order import LAST_PLACE, inner_products, key_places, key_scores, sort_keys, sort_rows, top_keys
from hybridbatch.scoring.vectors import as_float32, require_finite, require_width
from hybridbatch.seeding import stream

PASSAGES = 1 << 15  # scored at a time; with QUERIES, 32 MB of scores: see BLOCK_SCORES in ranks.py
QUERIES = 256
CROWDED = 4  # a block in which more than CROWDED * k scores per query reach the k-th is reduced row by row
IndexKind = Literal["flat", "ivf", "hnsw", "ivfpq"]


@dataclass(frozen=True)
class Found:
    """The first k passages of each query, the best first."""

    rows: np.ndarray  # int64 [Q, k]: rows of the corpus; -1 fills up where an index found fewer
    scores: np.ndarray  # float32 [Q, k]; -inf fills up


def search(
    queries: np.ndarray | Tensor,
    corpus: np.ndarray | Tensor,
    k: int,
    *,
    places: np.ndarray | None = None,
    device: str | torch.device = "cpu",
    report: Reporter = SILENT,
) -> Found:
    """Exact search by inner product in float32. For the memory it needs see `search_bytes`.

    Args:
        queries: [Q, D], any float type.
        corpus: [P, D], any float type, possibly a memory map; P < 2 ** 32.
        k: at least 1; cut to P.
        places: int64 [P], precedence of the passages among equal scores (`order.precedence` of their ids); None: in
            the order of rows.
        device: where to compute; blocks of the corpus are copied there.
    Raises: DataError for an empty corpus, another width than the queries', or NaN, naming the row.
    """
    total = len(corpus)
    if not total:
        raise DataError("the corpus has no passages")
    vectors = as_float32(queries, device)
    require_width(vectors, corpus.shape[1])
    require_finite(vectors, "query row", range(len(vectors)))
    order = torch.arange(total, device=device) if places is None else torch.from_numpy(places).to(device)
    k = min(k, total)
    worst = sort_keys(torch.tensor(-math.inf), torch.tensor(LAST_PLACE))
    best = torch.full((len(vectors), k), int(worst), device=device)  # ascending: column 0 is the k-th
    with report.bar("search", total, "passages") as bar:
        for start in range(0, total, PASSAGES):
            block = as_float32(corpus[start : start + PASSAGES], device)
            require_finite(block, "corpus row", range(start, start + len(block)))
            for first in range(0, len(vectors), QUERIES):
                rows = slice(first, first + QUERIES)
                scores = inner_products(vectors[rows], block)
                best[rows] = _merge(best[rows], scores, order[start : start + len(block)])
            bar.advance(len(block))
    best = best.flip(1)
    return Found(order.argsort()[key_places(best)].cpu().numpy(), key_scores(best).cpu().numpy())


def search_bytes(queries: int, passages: int, dimension: int, k: int) -> int:
    """Bytes that `search` holds at most, beside the corpus on disk: what to say before a long search."""
    block = min(passages, PASSAGES) * (dimension + 8 * min(queries, QUERIES)) * 4
    return block + queries * (4 * dimension + 24 * min(k, passages)) + 24 * passages


def _merge(best: Tensor, scores: Tensor, places: Tensor) -> Tensor:
    """The k greatest keys of each row of `best` [Q, k] and a new block [Q, P], ascending."""
    k = best.shape[1]
    reaching = scores >= key_scores(best[:, :1])
    count = reaching.sum(dim=1)
    if int(count.sum()) > CROWDED * k * len(best):
        return sort_rows(torch.cat([best, top_keys(scores, places, k)], dim=1))[:, -k:]
    row, column = reaching.nonzero(as_tuple=True)
    fresh = best[:, :1].repeat(1, int(count.max()))  # filled up with keys that cannot displace one of `best`
    fresh[row, torch.arange(len(row), device=row.device) - (count.cumsum(0) - count)[row]] = sort_keys(
        scores[row, column], places[column]
    )
    return sort_rows(torch.cat([best, fresh], dim=1))[:, -k:]


class FaissIndex:
    """A FAISS index of inner products over P passages: approximate search in memory, except for "flat".

    The sizes follow FAISS's guidelines for an index of P vectors: about 4 * sqrt(P) lists of which 1 in 32 is visited
    (ivf, ivfpq), 8 dimensions a byte (ivfpq), 32 neighbours (hnsw). What that loses is to be measured: `recall_lost`.
    """

    def __init__(self, corpus: np.ndarray, kind: IndexKind, *, seed: int = 13, report: Reporter = SILENT) -> None:
        """Train and fill the index.

        Args:
            corpus: [P, D], any float type, possibly a memory map; read in blocks.
            seed: of the sample that ivf and ivfpq are trained on.
        Raises: DataError for an empty corpus, or NaN, naming the row.
        """
        total, dimension = corpus.shape
        if not total:
            raise DataError("the corpus has no passages")
        lists = max(1, min(int(4 * math.sqrt(total)), total // 39))  # FAISS asks for 39 training vectors per list
        self.index: Any = _faiss_index(kind, total, dimension, lists)
        if not self.index.is_trained:
            self.index.nprobe = math.ceil(lists / 32)
            self.index.cp.seed = seed
            sample = stream(seed, "index").choice(total, min(total, max(64 * lists, 39 * 256)), replace=False)
            self.index.train(np.ascontiguousarray(corpus[np.sort(sample)], dtype=np.float32))
        with report.bar("index", total, "passages") as bar:
            for start in range(0, total, PASSAGES):
                block = np.ascontiguousarray(corpus[start : start + PASSAGES], dtype=np.float32)
                require_finite(torch.from_numpy(block), "corpus row", range(start, start + len(block)))
                self.index.add(block)
                bar.advance(len(block))

    def search(self, queries: np.ndarray, k: int) -> Found:
        """The first passages that the index finds; ties are in the index's order."""
        scores, rows = self.index.search(np.ascontiguousarray(queries, dtype=np.float32), min(k, self.index.ntotal))
        return Found(rows, np.where(rows < 0, -np.inf, scores).astype(np.float32))


def recall_lost(found: Found, exact: Found) -> float:
    """Share of the exact first k passages that an approximate search of the same k missed, mean over queries.

    Returns: 0 .. 1; 0 is exact. Where passages tie across the cut, another choice among them counts as a miss.
    """
    hits = [len(np.intersect1d(one, other)) for one, other in zip(found.rows, exact.rows, strict=True)]
    return 1.0 - float(np.mean(hits)) / exact.rows.shape[1]


def _faiss_index(kind: IndexKind, total: int, dimension: int, lists: int) -> Any:
    import faiss

    codes = next(size for size in range(max(1, dimension // 8), 0, -1) if dimension % size == 0)
    bits = min(8, max(1, int(math.log2(max(2, total / 39)))))  # 39 training vectors per code word, too
    factory = {
        "flat": "Flat",
        "ivf": f"IVF{lists},Flat",
        "hnsw": "HNSW32,Flat",
        "ivfpq": f"IVF{lists},PQ{codes}x{bits}",
    }[kind]
    index: Any = faiss.index_factory(dimension, factory, faiss.METRIC_INNER_PRODUCT)
    if kind == "hnsw":
        index.hnsw.efConstruction, index.hnsw.efSearch = 200, 256
    return index
