"""What every experiment of the second edition measures of a model, raw and with means taken off.

A model encodes all questions and all passages of a task once. They are ranked three times: as they
are (``raw``), with the mean vector of each language taken off where the means come from other
articles of the same collection (``collection``), and with means from news (``news``). Queries and
passages have means of their own. No mean comes from a text that it is taken off.

BM25 ranks the same task by words. It has no vectors, so it has ``raw`` alone.
"""

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from hybridbatch.common.files import atomic_path
from hybridbatch.common.records import Task
from hybridbatch.debias.cross_fit import cross_fit
from hybridbatch.debias.methods import centre
from hybridbatch.scoring.averages import POOL
from hybridbatch.scoring.baselines import LexicalRanker
from hybridbatch.scoring.full_ranking import score_rankings
from hybridbatch.scoring.rankers import EmbeddingRanker, Ranker

Vectors = Mapping[str, np.ndarray]  # by language, [n, D], rows of unit length
Embed = Callable[[list[str], str], np.ndarray]
VARIANTS = ("raw", "collection", "news")
SETTINGS = ("mono", "cross", "pool")
# The variant that counts in each setting, by the way a model is used.
USES = {
    "raw": dict.fromkeys(SETTINGS, "raw"),
    "debiased": dict.fromkeys(SETTINGS, "collection"),
    "debiased in the pool": dict.fromkeys(SETTINGS, "raw") | {"pool": "collection"},
}


def attempt_file(folder: Path, name: str, attempt: int) -> Path:
    """``recipe`` or ``acceptance`` of an attempt at experiment E."""
    return folder / (f"{name}.json" if attempt == 1 else f"{name}-{attempt}.json")


KEYS = ["query_language", "query_id"]


def embed_task(task: Task, embed: Embed) -> dict[str, dict[str, np.ndarray]]:
    """The vectors of a task by side and language."""
    found: dict[str, dict[str, np.ndarray]] = {}
    for side, texts in (("query", task.queries), ("passage", task.corpus)):
        vectors = embed([text for one in texts.values() for text in one.texts], side)
        ends = np.cumsum([len(one.ids) for one in texts.values()])[:-1]
        found[side] = dict(zip(texts, np.split(vectors, ends), strict=True))
    return found


def scores(task: Task, ranker: Ranker) -> pd.DataFrame:
    """A row per question and query language: average precision in each setting, pool bias.

    ``mono`` is the language's own corpus, ``cross`` the mean over all other corpora, ``pool`` the
    pool of all.
    """
    parts = []
    for one in score_rankings(task, ranker, cutoffs=(10,)):
        known = {"AP": one.metrics["average_precision"]}
        setting = "mono" if one.corpus_language == one.query_language else "cross"
        if one.corpus_language == POOL:
            setting = "pool"
            known["rank_distance"] = one.metrics["rank_distance"]
            known["same_language"] = one.metrics["same_language_share@10"]
        frame = pd.DataFrame({"query_id": one.query_ids, **known})
        parts.append(frame.assign(query_language=one.query_language, setting=setting))
    table = pd.concat(parts)
    wide = table.pivot_table(index=KEYS, columns="setting", values="AP", aggfunc="mean")
    bias = table[table["setting"] == "pool"].set_index(KEYS)[["rank_distance", "same_language"]]
    return wide.join(bias).sort_index()


def measure(
    task: Task,
    embed: Embed,
    fold_of: Callable[[str], int],
    news: Mapping[str, list[str]] | None,
) -> pd.DataFrame:
    """All variants side by side: columns such as ``raw/pool`` and ``collection/rank_distance``.

    Args:
        fold_of: the fold of the collection, 0 or 1, that an id of a query or passage belongs to.
        news: texts by language; None: without the variant ``news``.
    """
    vectors = embed_task(task, embed)
    texts = {"query": task.queries, "passage": task.corpus}
    variants: dict[str, dict[str, Vectors]] = {"raw": {}, "collection": {}, "news": {}}
    for side, rows in vectors.items():
        folds = {
            language: np.array([fold_of(name) for name in texts[side][language].ids])
            for language in rows
        }
        variants["raw"][side] = rows
        variants["collection"][side] = cross_fit(rows, folds, centre)
        if news is not None:
            turn = centre({language: embed(lines, side) for language, lines in news.items()})
            variants["news"][side] = {
                name: turn.apply(part, name) for name, part in rows.items()
            }
    frames = [
        scores(task, EmbeddingRanker.of_vectors(task, found["query"], found["passage"]))
        .add_prefix(f"{name}/") for name, found in variants.items() if found
    ]  # fmt: skip
    return pd.concat(frames, axis=1)


def measure_bm25(task: Task) -> pd.DataFrame:
    """The same columns of BM25, ``raw`` alone."""
    return scores(task, LexicalRanker(task)).add_prefix("raw/")


def means(table: pd.DataFrame, languages: Iterable[str]) -> dict[str, float]:
    """Macro-averages over query languages: the mean of each language, then their mean."""
    by_language = table.groupby(level="query_language").mean()
    return {
        name: float(value) for name, value in by_language.loc[list(languages)].mean().items()
    }


def write_table(table: pd.DataFrame, path: Path) -> None:
    """Parquet, in single precision."""
    with atomic_path(path) as temporary:
        table.astype("float32").reset_index().to_parquet(
            temporary, index=False, compression="zstd"
        )
