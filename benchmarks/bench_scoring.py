"""Scoring a full language grid and its pool, after encoding: ranks, metrics per query, and the
pool's language bias.

The shape is Belebele's: 122 languages, 900 questions each against 488 passages, 14,884 language
pairs and a pool of 59,536 passages with 122 relevant ones per question. The vectors are random
around shared passage vectors, with an offset per language, so that ranks are neither perfect nor
random. Some pairs and pool queries are also given to pytrec_eval, which must agree, to compare the
time.
"""

import resource
import time

import numpy as np
from common import finish, parser, timed

from hybridbatch.scoring import metrics
from hybridbatch.scoring.columns import K
from hybridbatch.scoring.pool_bias import pool_bias
from hybridbatch.scoring.ranks import Corpus, Relevance, Wanted, relevant_ranks

CUTOFFS = (1, 10, 100)


def main() -> None:
    """Score the grid; compare with pytrec_eval where asked."""
    arguments = parser(__doc__ or "")
    arguments.add_argument("--languages", type=int, default=122)
    arguments.add_argument("--passages", type=int, default=488)
    arguments.add_argument("--queries", type=int, default=900)
    arguments.add_argument("--dimension", type=int, default=384)
    arguments.add_argument(
        "--query-languages", type=int, help="score only so many query languages (default: all)"
    )
    arguments.add_argument(
        "--trec-eval-pairs", type=int, default=0, help="pairs that pytrec_eval scores too"
    )
    options = arguments.parse_args()
    names = [f"l{number:03d}" for number in range(options.languages)]
    ids = [f"p{number}" for number in range(options.passages)]
    rng = np.random.default_rng(0)
    meanings = rng.standard_normal((options.passages, options.dimension), np.float32)
    offsets = 0.7 * rng.standard_normal((options.languages, options.dimension), np.float32)
    passages = {
        name: unit(meanings + offset + noise(rng, meanings))
        for name, offset in zip(names, offsets, strict=True)
    }
    answers = rng.integers(0, options.passages, options.queries)
    asked = names[: options.query_languages]
    queries = {
        name: unit(meanings[answers] + offsets[i] + 3 * noise(rng, meanings[answers]))
        for i, name in enumerate(asked)
    }

    started = time.perf_counter(), time.process_time()
    corpus = Corpus(passages, dict.fromkeys(names, ids))
    translations = corpus.translations()
    relevance = {
        name: Relevance(answers[:, None], np.ones((options.queries, 1), np.int64)) for name in names
    }
    wanted = Wanted({"all": names}, top_k=K, translations=translations)
    kept: dict[str, dict[str, dict[str, np.ndarray]]] = {}
    seconds = {"ranks": 0.0, "metrics": 0.0, "bias": 0.0}
    for name, vectors in queries.items():
        clock = time.perf_counter()
        ranked = relevant_ranks(vectors, corpus, relevance, wanted)
        seconds["ranks"] += time.perf_counter() - clock
        clock = time.perf_counter()
        kept[name] = {
            setting: metrics.all_metrics(ranks, CUTOFFS)
            for setting, ranks in (ranked.languages | ranked.pools).items()
        }
        seconds["metrics"] += time.perf_counter() - clock
        clock = time.perf_counter()
        kept[name]["all"] |= pool_bias(ranked.pools["all"], corpus, name, CUTOFFS, names).per_query
        seconds["bias"] += time.perf_counter() - clock
    figures = {
        "pairs": len(asked) * len(names),
        "pool_passages": len(corpus.language),
        "wall_seconds": time.perf_counter() - started[0],
        "cpu_seconds": time.process_time() - started[1],
        "wall_seconds_of": seconds,
        "peak_memory_gib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,
        "pool_mAP": float(
            np.mean([kept[name]["all"]["average_precision"].mean() for name in asked])
        ),
        "product_gflops": 2e-9
        * len(asked)
        * options.queries
        * len(corpus.language)
        * options.dimension,
    }
    if options.trec_eval_pairs:
        pairs = [
            (asked[i % len(asked)], names[7 * i % len(names)])
            for i in range(options.trec_eval_pairs)
        ]
        figures["trec_eval"] = compare(pairs, queries, passages, ids, answers, kept)
    settings = {key: value for key, value in vars(options).items() if key != "out"}
    if options.trec_eval_pairs:
        settings["peer"] = "pytrec_eval"
    finish("scoring-grid", settings, figures, options.out)


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
                differences.append(np.abs(values - kept[asked][searched][ours]).max())

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
