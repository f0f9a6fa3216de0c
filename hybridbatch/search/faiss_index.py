"""Approximate search with FAISS indexes."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from hybridbatch.common.errors import DataError
from hybridbatch.common.progress import SILENT, Reporter
from hybridbatch.common.seeding import stream
from hybridbatch.search.exact import CHUNK, Found, IndexKind, recalls
from hybridbatch.search.vectors import Vectors, as_float32, require_finite

TRAINED = ("ivf", "ivfpq")  # kinds whose lists are trained
CANDIDATES, MOST_CANDIDATES = 10, 80  # of ivfpq, for each passage wanted
NEIGHBOURS, MOST_NEIGHBOURS = 256, 8192  # that hnsw keeps while it searches
HALVINGS = 3  # steps of the search for the least effort
# standard errors between the mean of a sample and the recall that other queries reach in 95 of 100
MARGIN = 1.645
PER_CENTROID = 39  # training vectors that FAISS asks for
SCORED_NUMBERS = 1 << 23  # of candidates' vectors that are held at a time (32 MiB)


class FaissIndex:
    """A FAISS index of inner products over P passages, in memory.

    Search is approximate, except for the kind "flat". The sizes follow FAISS's guidelines for P
    vectors. ivf and ivfpq have about 4 * sqrt(P) lists, of which 1 in 32 is visited, and more if
    these hold too few passages for k. ivfpq has 8 dimensions a byte, and hnsw 32 neighbours. Codes
    only choose candidates: the first `CANDIDATES` * k of ivfpq are scored exactly. `tune` finds how
    much must be visited for a wanted recall, and how many candidates are needed. Fewer passages
    than two lists need are searched exactly, as by the kind "flat".
    """

    def __init__(
        self, corpus: Vectors, kind: IndexKind, *, seed: int = 13, report: Reporter = SILENT
    ) -> None:
        """Train and fill the index.

        Args:
            corpus: [P, D], any float type, possibly a memory map; read in blocks.
            seed: of the sample that ivf and ivfpq are trained on.

        Raises:
            DataError: an empty corpus, or NaN, naming the row.
        """
        total, dimension = corpus.shape
        if not total:
            raise DataError("the corpus has no passages")
        lists = _lists(total)
        if kind in TRAINED and total < 2 * PER_CENTROID:
            kind = "flat"
        self.corpus = corpus
        self.kind: IndexKind = kind
        self.lists = lists
        self.effort = 0  # lists visited, or neighbours kept; 0: as it follows from k
        self.candidates = CANDIDATES if kind == "ivfpq" else 1  # for each passage wanted
        self.index: Any = _faiss_index(kind, total, dimension, lists)
        if not self.index.is_trained:
            self.index.cp.seed = seed
            sample = stream(seed, "index").choice(
                total, min(total, _sample(lists)), replace=False
            )
            self.index.train(np.ascontiguousarray(corpus[np.sort(sample)], dtype=np.float32))
        with report.bar("index", total, "passages") as bar:
            for start in range(0, total, CHUNK):
                block = as_float32(corpus[start : start + CHUNK], "cpu")
                require_finite(block, "corpus row", range(start, start + len(block)))
                self.index.add(np.ascontiguousarray(block.numpy()))
                bar.advance(len(block))

    def search(self, queries: np.ndarray, k: int) -> Found:
        """The first passages that the index finds; ties are in the index's order."""
        k = min(k, self.index.ntotal)
        asked = np.ascontiguousarray(queries, dtype=np.float32)
        effort = self.effort or self._least_effort(k)
        if self.kind == "hnsw":
            self.index.hnsw.efSearch = effort
        elif self.kind != "flat":
            self.index.nprobe = effort
        scores, rows = self.index.search(asked, min(self.candidates * k, self.index.ntotal))
        found = Found(rows, np.where(rows < 0, -np.inf, scores).astype(np.float32))
        return self._scored_exactly(asked, found, k) if self.kind == "ivfpq" else found

    def tune(self, queries: np.ndarray, exact: Found, wanted: float) -> "Tuning":
        """Set how much a search visits to about the least that finds `wanted` of the true first k.

        If all lists of ivfpq are too little, its candidates are doubled, up to `MOST_CANDIDATES`.

        The sample must show it with 95 % confidence: the lower bound of its mean recall reaches
        `wanted`. So other queries of the same kind reach it, too.

        Args:
            queries: [Q, D], a sample of the queries to come.
            exact: the true first k passages of this sample.
            wanted: recall, 0 .. 1.

        Returns:
            The setting and its measured recall, which may be below `wanted` if the index cannot
            reach it.
        """
        k = exact.rows.shape[1]
        most = {"hnsw": max(4 * k, MOST_NEIGHBOURS), "flat": 1}.get(self.kind, self.lists)
        most = min(most, self.index.ntotal)

        def recall(effort: int) -> tuple[float, bool]:
            """The mean recall, and whether it is enough."""
            self.effort = effort
            found = recalls(self.search(queries, k), exact)
            error = found.std(ddof=1) / math.sqrt(len(found)) if len(found) > 1 else 0.0
            return float(found.mean()), bool(found.mean() - MARGIN * error >= wanted)

        below, effort = 0, min(most, self._least_effort(k))
        reached, enough = recall(effort)
        while not enough and effort < most:
            below, effort = effort, min(most, 2 * effort)
            reached, enough = recall(effort)
        while self.kind == "ivfpq" and not enough and self.candidates < MOST_CANDIDATES:
            self.candidates *= 2
            below = 0
            reached, enough = recall(effort)
        # The least effort lies between the last that was too little and the first that was enough.
        for _ in range(HALVINGS if enough else 0):
            middle = (below + effort) // 2
            if middle in (below, effort, 0):
                break
            found, is_enough = recall(middle)
            if is_enough:
                effort, reached = middle, found
            else:
                below = middle
        self.effort = effort
        candidates = self.candidates if self.kind == "ivfpq" else None
        return Tuning(self.kind, effort, most, wanted, reached, len(queries), candidates)

    def _least_effort(self, k: int) -> int:
        """The least that is visited: 1 list in 32, and enough lists for 2 k passages on average."""
        if self.kind == "flat":
            return 1
        if self.kind == "hnsw":
            return max(NEIGHBOURS, 2 * k)
        needed = math.ceil(2 * k * self.lists / self.index.ntotal)
        return min(self.lists, max(math.ceil(self.lists / 32), needed))

    def _scored_exactly(self, queries: np.ndarray, found: Found, k: int) -> Found:
        """Score the candidates of the codes by the vectors themselves, and keep the first k.

        Blocks of queries are scored at a time. Each passage that several of them share is read
        once.
        """
        rows = np.empty((len(queries), k), np.int64)
        scores = np.empty((len(queries), k), np.float32)
        width = found.rows.shape[1]
        step = max(1, SCORED_NUMBERS // (width * queries.shape[1]))
        for start in range(0, len(queries), step):
            some = slice(start, start + step)
            known, place = np.unique(found.rows[some], return_inverse=True)
            place = place.reshape(-1, width)
            vectors = as_float32(self.corpus[known[known >= 0]], "cpu").numpy()
            if known[0] < 0:  # fewer candidates were found than wanted
                vectors = np.concatenate([np.zeros((1, queries.shape[1]), np.float32), vectors])
            exact = np.matmul(vectors[place], queries[some, :, None])[:, :, 0]
            exact[found.rows[some] < 0] = -np.inf
            # the lower row first among equal scores
            best = np.lexsort((found.rows[some], -exact))[:, :k]
            rows[some] = np.take_along_axis(found.rows[some], best, 1)
            scores[some] = np.take_along_axis(exact, best, 1)
        return Found(rows, scores)


@dataclass(frozen=True)
class Tuning:
    """How much an index visits, and the recall measured with it."""

    kind: IndexKind
    effort: int  # lists visited (ivf, ivfpq), neighbours kept (hnsw)
    most: int  # that it could visit
    wanted: float  # recall
    recall: float  # of the true first k, mean over the sample
    queries: int  # of the sample
    candidates: int | None = None  # of ivfpq, scored exactly for each passage wanted

    def sentence(self) -> str:
        """The result of the tuning, for people."""
        what = "neighbours" if self.kind == "hnsw" else "lists"
        scored = f" and scores {self.candidates} x k passages" if self.candidates else ""
        visited = f"{self.effort:,} of {self.most:,} {what}{scored}"
        if self.kind == "flat":
            visited = "all passages"
        told = f"{self.kind} visits {visited}: recall {self.recall:.3f} on {self.queries:,} queries"
        return (
            told if self.recall >= self.wanted else f"{told}, less than {self.wanted:g} wanted"
        )


def index_bytes(kind: IndexKind, passages: int, dimension: int) -> int:
    """Bytes that a `FaissIndex` holds at most; the user is told before one is built."""
    lists = _lists(passages)
    sample = 4 * dimension * min(passages, _sample(lists))  # and FAISS's copy of it
    own = {
        "flat": 4 * dimension,
        "ivf": 4 * dimension + 8,
        "hnsw": 4 * dimension + 4 * 2 * 32 + 16,
        "ivfpq": _codes(dimension) + 8,
    }[kind]
    return (
        passages * own
        + 4 * dimension * CHUNK
        + (2 * sample + 4 * dimension * lists if kind in TRAINED else 0)
    )


def _faiss_index(kind: IndexKind, total: int, dimension: int, lists: int) -> Any:
    import faiss

    codes = _codes(dimension)
    # a code word is a centroid, too
    bits = min(8, max(1, int(math.log2(total / PER_CENTROID))))
    factory = {
        "flat": "Flat",
        "ivf": f"IVF{lists},Flat",
        "hnsw": "HNSW32,Flat",
        # np: without an order of the code words for polysemous codes, which no search here uses
        # and which takes minutes
        "ivfpq": f"IVF{lists},PQ{codes}x{bits}np",
    }[kind]
    index: Any = faiss.index_factory(dimension, factory, faiss.METRIC_INNER_PRODUCT)
    if kind == "hnsw":
        index.hnsw.efConstruction = 200
    return index


def _lists(total: int) -> int:
    """Number of lists of ivf and ivfpq, at most one for `PER_CENTROID` passages."""
    return max(1, min(int(4 * math.sqrt(total)), total // PER_CENTROID))


def _sample(lists: int) -> int:
    """Number of vectors that ivf and ivfpq are trained on."""
    return max(64 * lists, PER_CENTROID * 256)


def _codes(dimension: int) -> int:
    """Bytes of an ivfpq code."""
    return next(size for size in range(max(1, dimension // 8), 0, -1) if dimension % size == 0)
