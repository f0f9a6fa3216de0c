"""Approximate search with FAISS indexes."""

import math
from typing import Any

import numpy as np

from hybridbatch.common.errors import DataError
from hybridbatch.common.progress import SILENT, Reporter
from hybridbatch.common.seeding import stream
from hybridbatch.search.exact import CHUNK, Found, IndexKind
from hybridbatch.search.vectors import Vectors, as_float32, require_finite


class FaissIndex:
    """A FAISS index of inner products over P passages: approximate search in memory, except for
    "flat".

    The sizes follow FAISS's guidelines for an index of P vectors: about 4 * sqrt(P) lists of which
    1 in 32 is visited (ivf, ivfpq), 8 dimensions a byte (ivfpq), 32 neighbours (hnsw). What that
    loses is to be measured: `recall_lost`.
    """

    def __init__(
        self, corpus: Vectors, kind: IndexKind, *, seed: int = 13, report: Reporter = SILENT
    ) -> None:
        """Train and fill the index.

        Args:
            corpus: [P, D], any float type, possibly a memory map; read in blocks.
            seed: of the sample that ivf and ivfpq are trained on.
        Raises: DataError for an empty corpus, or NaN, naming the row.
        """
        total, dimension = corpus.shape
        if not total:
            raise DataError("the corpus has no passages")
        lists = _lists(total)
        self.index: Any = _faiss_index(kind, total, dimension, lists)
        if not self.index.is_trained:
            self.index.nprobe = math.ceil(lists / 32)
            self.index.cp.seed = seed
            sample = stream(seed, "index").choice(total, min(total, _sample(lists)), replace=False)
            self.index.train(np.ascontiguousarray(corpus[np.sort(sample)], dtype=np.float32))
        with report.bar("index", total, "passages") as bar:
            for start in range(0, total, CHUNK):
                block = as_float32(corpus[start : start + CHUNK], "cpu")
                require_finite(block, "corpus row", range(start, start + len(block)))
                self.index.add(np.ascontiguousarray(block.numpy()))
                bar.advance(len(block))

    def search(self, queries: np.ndarray, k: int) -> Found:
        """The first passages that the index finds; ties are in the index's order."""
        scores, rows = self.index.search(
            np.ascontiguousarray(queries, dtype=np.float32), min(k, self.index.ntotal)
        )
        return Found(rows, np.where(rows < 0, -np.inf, scores).astype(np.float32))


def index_bytes(kind: IndexKind, passages: int, dimension: int) -> int:
    """Bytes that a `FaissIndex` holds at most: what to say before one is made."""
    lists = _lists(passages)
    sample = 4 * dimension * min(passages, _sample(lists))  # and FAISS's copy of it
    own = {
        "flat": 4 * dimension,
        "ivf": 4 * dimension + 8,
        "hnsw": 4 * dimension + 4 * 2 * 32 + 16,
        "ivfpq": _codes(dimension) + 8,
    }[kind]
    trained = kind in ("ivf", "ivfpq")
    return (
        passages * own
        + 4 * dimension * CHUNK
        + (2 * sample + 4 * dimension * lists if trained else 0)
    )


def _faiss_index(kind: IndexKind, total: int, dimension: int, lists: int) -> Any:
    import faiss

    codes = _codes(dimension)
    # 39 training vectors per code word, too
    bits = min(8, max(1, int(math.log2(max(2, total / 39)))))
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


def _lists(total: int) -> int:
    """Of ivf and ivfpq; FAISS asks for 39 training vectors per list."""
    return max(1, min(int(4 * math.sqrt(total)), total // 39))


def _sample(lists: int) -> int:
    """Vectors that ivf and ivfpq are trained on."""
    return max(64 * lists, 39 * 256)


def _codes(dimension: int) -> int:
    """Bytes of an ivfpq code."""
    return next(size for size in range(max(1, dimension // 8), 0, -1) if dimension % size == 0)
