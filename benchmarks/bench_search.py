"""Exact search of a million passages against FAISS flat, and the speed of its product against the
machine's.

Both search the same float32 vectors in memory with the same number of threads (set
OMP_NUM_THREADS); ours also from a float16 memory map. `--index` adds approximate FAISS indexes and
what they lose.
"""

import tempfile
from pathlib import Path

import faiss
import numpy as np
import torch
from common import finish, parser, spread, timed

from hybridbatch.search.exact import Found, recall_lost, search, search_bytes
from hybridbatch.search.faiss_index import FaissIndex


def main() -> None:
    """Search with both, in turn."""
    arguments = parser(__doc__ or "")
    arguments.add_argument("--passages", type=int, default=1_000_000)
    arguments.add_argument("--queries", type=int, default=1000)
    arguments.add_argument("--dimension", type=int, default=384)
    arguments.add_argument("--k", type=int, default=100)
    arguments.add_argument("--rounds", type=int, default=3)
    arguments.add_argument("--index", nargs="*", default=[], choices=["ivf", "hnsw", "ivfpq"])
    options = arguments.parse_args()
    rng = np.random.default_rng(0)
    corpus = unit(rng, options.passages, options.dimension)
    queries = unit(rng, options.queries, options.dimension)
    flops = 2.0 * options.passages * options.queries * options.dimension
    flat = FaissIndex(corpus, "flat")
    found: dict[str, Found] = {}
    times: dict[str, list[dict[str, float]]] = {
        "ours": [],
        "ours_float16_map": [],
        "faiss_flat": [],
    }
    with tempfile.TemporaryDirectory() as folder:
        np.save(Path(folder, "corpus.npy"), corpus.astype(np.float16))
        half = np.load(Path(folder, "corpus.npy"), mmap_mode="r")
        peak = gemm_peak(options.dimension)
        for _ in range(options.rounds):
            times["ours"].append(
                timed(lambda: found.update(ours=search(queries, corpus, options.k)))
            )
            times["ours_float16_map"].append(timed(lambda: search(queries, half, options.k)))
            times["faiss_flat"].append(
                timed(lambda: found.update(faiss=flat.search(queries, options.k)))
            )
    wall = {name: spread([one["wall_seconds"] for one in runs]) for name, runs in times.items()}
    figures = {
        "wall_seconds": wall,
        "cpu_seconds": {
            name: spread([one["cpu_seconds"] for one in runs]) for name, runs in times.items()
        },
        "faiss_over_ours": wall["faiss_flat"]["median"] / wall["ours"]["median"],
        "gflops": {name: 1e-9 * flops / one["median"] for name, one in wall.items()},
        "gemm_peak_gflops": peak,
        "share_of_peak": 1e-9 * flops / wall["ours"]["median"] / peak,
        "missed_by_faiss_flat": recall_lost(found["faiss"], found["ours"]),
        "stated_bytes": search_bytes(
            options.queries, options.passages, options.dimension, options.k
        ),
        "indexes": {
            kind: approximate(kind, corpus, queries, found["ours"]) for kind in options.index
        },
    }
    settings = {key: value for key, value in vars(options).items() if key != "out"}
    settings["peer"] = f"faiss {faiss.__version__}, IndexFlatIP"
    finish("search", settings, figures, options.out)


def approximate(
    kind, corpus: np.ndarray, queries: np.ndarray, exact: Found
) -> dict[str, float]:
    """Seconds to build and search a FAISS index, and the recall it loses."""
    made: list[FaissIndex] = []
    results: list[Found] = []
    build = timed(lambda: made.append(FaissIndex(corpus, kind)))["wall_seconds"]
    seconds = timed(lambda: results.append(made[0].search(queries, exact.rows.shape[1])))[
        "wall_seconds"
    ]
    return {
        "build_seconds": build,
        "search_seconds": seconds,
        "recall_lost": recall_lost(results[0], exact),
    }


def gemm_peak(dimension: int) -> float:
    """Best GFLOP/s of a large product with the same inner dimension, its output reused."""
    queries, passages = torch.randn(1024, dimension), torch.randn(8192, dimension)
    out = torch.empty(1024, 8192)
    seconds = [
        timed(lambda: torch.mm(queries, passages.T, out=out))["wall_seconds"] for _ in range(20)
    ]
    return 2e-9 * 1024 * 8192 * dimension / min(seconds)


def unit(rng: np.random.Generator, count: int, dimension: int) -> np.ndarray:
    """Random unit rows, float32."""
    rows = rng.standard_normal((count, dimension), np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


if __name__ == "__main__":
    main()
