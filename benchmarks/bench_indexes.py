"""Recall and speed of approximate indexes over real vectors, as FAISS's usual settings and tuned.

The vectors are those of a task's texts (`--task`), which the store of embeddings keeps, or files
``*.vectors.npy`` in the folders `--passages` and `--queries`, such as folders of that store. Exact
search is timed beside the indexes. The queries that measure the recall are not those that the index
was tuned on.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from common import finish, parser, timed

from hybridbatch.data.tasks.registry import load_task
from hybridbatch.scoring.evaluate import open_store
from hybridbatch.scoring.settings import EvalConfig
from hybridbatch.search.exact import Found, recall_lost, search
from hybridbatch.search.faiss_index import FaissIndex

TUNED = 200
USUAL = {"hnsw": lambda _: 256, "ivf": lambda lists: -(-lists // 32)}
USUAL["ivfpq"] = USUAL["ivf"]


def main() -> None:
    """Build, search, tune and search again, for each number of passages."""
    arguments = parser(__doc__ or "")
    arguments.add_argument("--task", default="atlas", help="encode its texts with --model")
    arguments.add_argument("--data-root", type=Path, help="folder of local copies of the task")
    arguments.add_argument("--model", default="e5-small-q4")
    arguments.add_argument(
        "--passages", type=Path, help="folder of vectors, in place of --task"
    )
    arguments.add_argument("--queries", type=Path, help="folder of vectors, in place of --task")
    arguments.add_argument(
        "--about", help="what the vectors of the folders are, for the result"
    )
    arguments.add_argument("--sizes", type=int, nargs="*", default=[10_000, 100_000, 1_000_000])
    arguments.add_argument("--index", nargs="*", default=["ivf", "hnsw", "ivfpq"])
    arguments.add_argument("--k", type=int, default=100)
    arguments.add_argument(
        "--measured", type=int, default=300, help="queries, beside the tuned"
    )
    arguments.add_argument("--recall", type=float, default=0.95)
    options = arguments.parse_args()
    rng = np.random.default_rng(0)
    if options.passages:
        corpus, queries = read(options.passages), read(options.queries)
    else:
        corpus, queries = vectors_of_task(options)
    corpus = rng.permutation(corpus)
    queries = rng.permutation(queries)[: TUNED + options.measured].astype(np.float32)
    hidden = ("out", "data_root", "passages", "queries")
    settings = {name: value for name, value in vars(options).items() if name not in hidden}
    if options.passages:
        settings |= {"task": None, "model": None}
    settings |= {"passages": len(corpus), "queries": len(queries), "dimension": corpus.shape[1]}
    rows: list[dict[str, Any]] = []
    for size in options.sizes:
        if size <= len(corpus):
            # after every index, so that a stopped benchmark keeps those that are done
            some = corpus[:size].astype(np.float32)
            for _ in measure(options, some, queries, rows):
                finish("indexes", settings, {"runs": rows}, options.out)


def read(folder: Path) -> np.ndarray:
    """All vectors of a folder of the store, [P, D] of their own type."""
    return np.concatenate([np.load(path) for path in sorted(folder.glob("*.vectors.npy"))])


def vectors_of_task(options: Any) -> tuple[np.ndarray, np.ndarray]:
    """Vectors of distinct passages and queries of a task, as many as are used."""
    most = {"passage": max(options.sizes), "query": TUNED + options.measured}
    rng = np.random.default_rng(1)
    task = load_task(options.task, data_root=options.data_root)
    store = open_store(EvalConfig(model=options.model, tasks=(options.task,)))
    found = []
    for side, by_language in (("passage", task.corpus), ("query", task.queries)):
        sided: Any = side
        texts = list(dict.fromkeys(text for one in by_language.values() for text in one.texts))
        chosen = rng.permutation(len(texts))[: most[side]]
        found.append(store.embed([texts[i] for i in chosen], sided))
    return found[0], found[1]


def measure(
    options: Any, corpus: np.ndarray, queries: np.ndarray, rows: list[dict[str, Any]]
) -> Iterator[None]:
    """Add a row for exact search, and two for each index; yields after each of them."""
    some, others = queries[:TUNED], queries[TUNED:]
    found: dict[str, Found] = {}

    def milliseconds(run: Any) -> float:
        return 1000 * timed(run)["cpu_seconds"] / len(others)

    def row(index: str, setting: str, effort: int, run: Any) -> dict[str, Any]:
        spent = milliseconds(lambda: found.update(it=run()))
        return {
            "passages": len(corpus),
            "index": index,
            "setting": setting,
            "effort": effort,
            "recall": 1 - recall_lost(found["it"], exact),
            "cpu_milliseconds_a_query": spent,
        }

    exact = search(others, corpus, options.k)
    rows.append(row("exact", "", 0, lambda: search(others, corpus, options.k)))
    of_some = search(some, corpus, options.k)
    for kind in options.index:
        made: list[FaissIndex] = []
        build = timed(lambda made=made, kind=kind: made.append(FaissIndex(corpus, kind)))
        index = made[0]
        index.effort = USUAL[kind](index.lists)
        rows.append(
            row(
                kind, "usual", index.effort, lambda index=index: index.search(others, options.k)
            )
        )
        tuning = index.tune(some, of_some, options.recall)
        rows.append(
            row(
                kind,
                "tuned",
                tuning.effort,
                lambda index=index: index.search(others, options.k),
            )
        )
        rows[-1] |= {"lists": index.lists, "build_cpu_seconds": build["cpu_seconds"]}
        yield


if __name__ == "__main__":
    main()
