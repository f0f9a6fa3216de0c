"""mteb's Belebele: our scoring of its 376 subsets against stock mteb, both with an encoder that
costs nothing.

The data are random words in the true shape (122 language variants, 488 passages, 900 questions);
what is measured is everything beside encoding. Stock mteb runs on a sample of the subsets, spread
evenly; its time per subset is compared.
"""

import numpy as np
from common import finish, parser, timed

from hybridbatch.data.tasks.mteb import fenced
from hybridbatch.scoring.mteb.meta import model_meta
from hybridbatch.scoring.mteb.results import StockModel, run_stock, score_task

PASSAGES, QUESTIONS, DIMENSION = 488, 900, 384


def main() -> None:
    """Run both and print the ratio."""
    arguments = parser(__doc__ or "")
    arguments.add_argument(
        "--stock-subsets", type=int, default=24, help="subsets that stock mteb runs on"
    )
    options = arguments.parse_args()
    with fenced():
        import mteb

        task, sample = mteb.get_task("BelebeleRetrieval"), mteb.get_task("BelebeleRetrieval")
    step = len(task.hf_subsets) // options.stock_subsets
    sample.hf_subsets = list(task.hf_subsets)[::step][: options.stock_subsets]
    fill(task), fill(sample)
    vectors = (
        np.random.default_rng(0)
        .normal(size=(122 * (PASSAGES + QUESTIONS), DIMENSION))
        .astype(np.float32)
    )
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    encoded = {"ours": 0, "stock": 0}

    def embed(who: str):
        def look_up(texts, side):
            encoded[who] += len(texts)
            return vectors[[int(text.rsplit(" ", 1)[1]) for text in texts]]

        return look_up

    meta = model_meta("zero-cost", "0" * 16, DIMENSION)
    ours = timed(lambda: score_task(task, embed("ours"), meta))
    stock = timed(lambda: run_stock(sample, StockModel(embed("stock"), meta)))
    per_subset = {
        "ours": {name: value / len(task.hf_subsets) for name, value in ours.items()},
        "stock": {name: value / len(sample.hf_subsets) for name, value in stock.items()},
    }
    figures = {
        "subsets": {"ours": len(task.hf_subsets), "stock": len(sample.hf_subsets)},
        "texts_encoded": encoded,
        "texts_stock_would_encode_on_all_subsets": len(task.hf_subsets)
        * (PASSAGES + QUESTIONS),
        "seconds": {"ours": ours, "stock": stock},
        "seconds_per_subset": per_subset,
        "stock_over_ours": {
            name: per_subset["stock"][name] / per_subset["ours"][name] for name in ours
        },
    }
    finish(
        "official-belebele",
        {
            "peer": f"mteb {mteb.__version__}, its own evaluation",
            "passages": PASSAGES,
            "questions": QUESTIONS,
            "dimension": DIMENSION,
        },
        figures,
        options.out,
    )


def fill(task) -> None:
    """Give the task random data in Belebele's shape; a text ends in the number of its vector."""
    from datasets import Dataset

    variants = sorted({code for pair in task.metadata.eval_langs.values() for code in pair})
    corpus, queries = {}, {}
    for number, variant in enumerate(variants):
        first = number * (PASSAGES + QUESTIONS)
        corpus[variant] = Dataset.from_dict(
            {
                "id": [f"C{i}" for i in range(PASSAGES)],
                "title": [""] * PASSAGES,
                "text": [f"{variant} passage {first + i}" for i in range(PASSAGES)],
            }
        )
        queries[variant] = Dataset.from_dict(
            {
                "id": [f"Q{i}" for i in range(QUESTIONS)],
                "text": [
                    f"{variant} question {first + PASSAGES + i}" for i in range(QUESTIONS)
                ],
            }
        )
    qrels = {f"Q{i}": {f"C{i % PASSAGES}": 1} for i in range(QUESTIONS)}
    task.dataset = {}
    for subset in task.hf_subsets:
        passages, questions = task.metadata.eval_langs[subset]
        task.dataset[subset] = {
            "test": {
                "corpus": corpus[passages],
                "queries": queries[questions],
                "relevant_docs": dict(qrels),
                "top_ranked": None,
            }
        }
    task.data_loaded = True


if __name__ == "__main__":
    main()
