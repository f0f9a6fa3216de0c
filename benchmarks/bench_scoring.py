"""Scoring a full language grid and its pool, after encoding: ranks, metrics per query, and the
pool's language bias.

The shape is Belebele's: 122 languages, 900 questions each against 488 passages, 14,884 language
pairs and a pool of 59,536 passages with 122 relevant ones per question. The passages are random
around shared meanings, with an offset per language. Two kinds of queries are scored in one run:
near the right meanings (good answers), and anywhere (random answers, as an untrained model gives).
numba's functions are used if numba is installed (extra `compiled`).
The matrix products alone are timed, too: no exact scoring can be faster. Some pairs are also
given to pytrec_eval, which must agree, to compare the time.
"""

import resource
from importlib.metadata import version
from importlib.util import find_spec
from typing import Any

import numpy as np
import torch
from common import finish, parser, timed

from hybridbatch.common.records import Task, Texts
from hybridbatch.scoring.averages import POOL
from hybridbatch.scoring.full_ranking import score_task
from hybridbatch.scoring.ranks import BLOCK_SCORES
from hybridbatch.search.order import inner_products

CUTOFFS = (1, 10, 100)


def main() -> None:
    """Score the grid with good and with random answers; compare with pytrec_eval where asked."""
    arguments = parser(__doc__ or "")
    arguments.add_argument("--languages", type=int, default=122)
    arguments.add_argument("--passages", type=int, default=488)
    arguments.add_argument("--queries", type=int, default=900)
    arguments.add_argument("--dimension", type=int, default=384)
    arguments.add_argument(
        "--query-languages", type=int, help="score only so many query languages (default: all)"
    )
    arguments.add_argument("--answers", nargs="*", default=["random", "good"])
    arguments.add_argument(
        "--trec-eval-pairs", type=int, default=0, help="pairs that pytrec_eval scores too"
    )
    options = arguments.parse_args()
    rng = np.random.default_rng(0)
    names = [f"l{number:03d}" for number in range(options.languages)]
    ids = tuple(f"p{number}" for number in range(options.passages))
    meanings = rng.standard_normal((options.passages, options.dimension), np.float32)
    offsets = 0.7 * rng.standard_normal((options.languages, options.dimension), np.float32)
    passages = {
        name: unit(meanings + offset + noise(rng, meanings))
        for name, offset in zip(names, offsets, strict=True)
    }
    answers = rng.integers(0, options.passages, options.queries)
    asked = names[: options.query_languages]
    good = {
        name: unit(meanings[answers] + offsets[i] + 3 * noise(rng, meanings[answers]))
        for i, name in enumerate(asked)
    }
    random = {name: unit(noise(rng, meanings[answers])) for name in asked}

    figures: dict[str, Any] = {
        "pairs": len(asked) * len(names),
        "pool_passages": len(names) * options.passages,
        "product_gflops": 2e-9
        * len(asked)
        * options.queries
        * len(names)
        * options.passages
        * options.dimension,
    }
    pairs = [
        (asked[i % len(asked)], names[7 * i % len(names)])
        for i in range(options.trec_eval_pairs)
    ]
    settings = {key: value for key, value in vars(options).items() if key != "out"}
    settings["numba"] = version("numba") if find_spec("numba") else None
    if options.trec_eval_pairs:
        settings["peer"] = "pytrec_eval"

    def write() -> None:
        """Write what is done, so that a stopped benchmark keeps it."""
        finish("scoring-grid", settings, figures, options.out)

    figures["product"] = timed(lambda: multiply(good, passages))
    kept: dict[tuple[str, str], dict[str, np.ndarray]] = {}
    for answer in options.answers:
        title, queries = f"{answer}_answers", {"random": random, "good": good}[answer]
        measured, kept = score(passages, ids, queries, answers, set(pairs))
        for clock in ("wall", "cpu"):
            seconds = f"{clock}_seconds"
            measured[f"{clock}_over_product"] = measured[seconds] / figures["product"][seconds]
        figures[title] = measured
        write()
    figures["peak_memory_gib"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    if options.trec_eval_pairs:
        figures["trec_eval"] = compare(pairs, queries, passages, ids, answers, kept)
    write()


def score(passages, ids, queries, answers, wanted):
    """Seconds of the whole grid; scores per query of some pairs."""
    texts = {name: Texts(ids, ids) for name in passages}
    asked = Texts(tuple(f"q{row}" for row in range(len(answers))), ids[:1] * len(answers))
    qrels = {query: {ids[answer]: 1} for query, answer in zip(asked.ids, answers, strict=True)}
    task = Task(
        name="grid",
        about="benchmark",
        queries=dict.fromkeys(queries, asked),
        corpus=texts,
        qrels=dict.fromkeys(passages, qrels),
        parallel=True,
    )
    vectors = {"query": np.concatenate([*queries.values()])}
    vectors["passage"] = np.concatenate([*passages.values()])

    kept, pools = {}, []

    def run() -> None:
        for scores in score_task(task, lambda _, side: vectors[side], cutoffs=CUTOFFS):
            pair = scores.query_language, scores.corpus_language
            if pair in wanted:
                kept[pair] = scores.metrics
            if pair[1] == POOL:
                pools.append(scores.metrics["average_precision"].mean())

    return timed(run) | {"pool_mAP": float(np.mean(pools))}, kept


def multiply(queries, passages) -> None:
    """The matrix products alone, in the blocks of the scoring."""
    corpus = torch.from_numpy(np.concatenate([*passages.values()]))
    step = max(64, BLOCK_SCORES // len(corpus))
    buffer = torch.empty(step * len(corpus))
    for asked in queries.values():
        for rows in torch.from_numpy(asked).split(step):
            inner_products(rows, corpus, buffer)


def compare(pairs, queries, passages, ids, answers, kept) -> dict[str, float]:
    """Time pytrec_eval per pair, from the same vectors, and the largest difference from our
    per-query values.
    """
    import pytrec_eval

    qrels = {f"q{row}": {ids[answer]: 1} for row, answer in enumerate(answers)}
    differences = []

    def run() -> None:
        evaluator = pytrec_eval.RelevanceEvaluator(
            qrels, {"map", "recip_rank", "ndcg_cut.10", "recall.1,10,100"}
        )
        for asked, searched in pairs:
            scores = queries[asked] @ passages[searched].T
            found = evaluator.evaluate(
                {
                    f"q{row}": dict(zip(ids, line, strict=True))
                    for row, line in enumerate(scores.tolist())
                }
            )
            for theirs, ours in {"map": "average_precision", "recip_rank": "reciprocal_rank", "recall_10": "recall@10",
                                 "ndcg_cut_10": "ndcg@10"}.items():  # fmt: skip
                values = np.array([found[query][theirs] for query in qrels])
                differences.append(np.abs(values - kept[asked, searched][ours]).max())

    measured = timed(run)
    return {
        "pairs": len(pairs),
        "largest_difference": float(max(differences)),
        **{f"{name}_per_pair": value / len(pairs) for name, value in measured.items()},
    }


def unit(rows: np.ndarray) -> np.ndarray:
    """Rows of length 1."""
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


def noise(rng: np.random.Generator, like: np.ndarray) -> np.ndarray:
    """Gaussian noise of 0.7 standard deviations."""
    return 0.7 * rng.standard_normal(like.shape, np.float32)


if __name__ == "__main__":
    main()
