"""Score mteb tasks from stored embeddings and write the official result files; check samples
through stock mteb.
"""

import copy
import random
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch

from hybridbatch.common.errors import DataError, HybridBatchError
from hybridbatch.common.progress import SILENT, Reporter
from hybridbatch.common.records import Texts
from hybridbatch.common.seeding import stream
from hybridbatch.data.tasks.mteb import (
    Subset,
    fenced,
    in_words,
    is_retrieval,
    load,
    parts,
    subsets,
)
from hybridbatch.scoring.mteb.published import Embed, OnDisk
from hybridbatch.scoring.mteb.scores import Retrieved, confidence_of, score_dict, search
from hybridbatch.search import exact
from hybridbatch.search.order import precedence, precedence_of_corpora
from hybridbatch.search.vectors import Vectors

PRODUCTS = ("cosine", "dot")  # similarities that are inner products, cosine of unit rows
DRAWING = ("Clustering", "MultilabelClassification")  # types of tasks with a random state
# Scores within so much of mteb's are mteb's. Two ways to compute one vector in fp32 differ by about
# 1e-7, which can swap two passages of equal worth; where a model stores half precision, mteb
# computes in it.
TOLERANCE = {True: 1e-3, False: 5e-3}  # by whether mteb computes in fp32


def score_task(task: Any, embed: Embed, meta: Any, report: Reporter = SILENT) -> Any:
    """An mteb `TaskResult` for every split and subset of `task`; each distinct text is embedded
    once, and so many subsets are in memory at a time as `parts` says.

    A task that is not scored as a plain ranking (bitext mining, classification, instruction
    following, say) runs through mteb's own evaluator on the same embeddings, which is announced;
    so do all tasks of a model that compares vectors by a distance.
    Raises `DataError` for data that cannot be loaded or scored.
    """
    from mteb.results import TaskResult

    started = time.perf_counter()
    ranked = is_retrieval(task) and not has_own_scores(task) and similarity_of(meta) in PRODUCTS
    if not ranked:
        report.note(f"{task.metadata.name} is scored by mteb's own evaluator")
        seed_afresh(task)
    scores: dict[str, dict[str, Mapping[str, Any]]] = {}
    for part in parts(task):
        if ranked:
            found = _score_part(part, embed, report)
        else:
            found = _by_subset(run_stock(part, StockModel(embed, meta)))
        for split, entries in found.items():
            scores.setdefault(split, {}).update(entries)
        if part is not task:
            part.unload_data()
    with fenced():
        return TaskResult.from_task_results(
            task, scores, evaluation_time=time.perf_counter() - started, date=datetime.now(UTC)
        )


def similarity_of(meta: Any) -> str:
    """The name of the similarity of a model, as sentence-transformers calls it."""
    return str(meta.similarity_fn_name.value)


def seed_afresh(task: Any) -> None:
    """Give a task the random state that mteb gives a new task; scoring it twice is then equal."""
    task.rng_state, task.np_rng = random.Random(task.seed), np.random.default_rng(task.seed)


def _score_part(
    task: Any, embed: Embed, report: Reporter
) -> dict[str, dict[str, Mapping[str, float]]]:
    """By split and subset, the scores of a task that is scored as a ranking."""
    load(task)
    every = list(subsets(task))
    queries = _embed_distinct(
        (text for subset in every for text in subset.queries), "query", embed
    )
    held = (text for subset in every if not subset.is_large for text in subset.passages)
    passages = _embed_distinct(held, "passage", embed)
    scores: dict[str, dict[str, Mapping[str, float]]] = {}
    with report.bar(task.metadata.name, len(every), "subsets") as bar:
        for subset in every:
            asked = queries(subset.queries)
            if subset.is_large:
                vectors = corpus_vectors(subset.passages, embed)
                found = retrieve_from_disk(task, subset, asked, vectors, report)
            else:
                found = retrieve(task, subset, asked, passages(subset.passages))
            values = score_dict(found, tuple(task.k_values))
            values["main_score"] = values[task.metadata.main_score]
            scores.setdefault(subset.split, {})[subset.name] = values
            bar.advance()
    return scores


def _by_subset(result: Any) -> dict[str, dict[str, Mapping[str, Any]]]:
    """By split and subset, the scores of a `TaskResult`."""
    by_split: dict[str, dict[str, Mapping[str, Any]]] = {}
    for split, entries in result.scores.items():
        by_split[split] = {entry["hf_subset"]: _bare(entry) for entry in entries}
    return by_split


def _bare(entry: Mapping[str, Any]) -> dict[str, Any]:
    """The scores of an entry, without what `from_task_results` adds to it."""
    return {
        name: value for name, value in entry.items() if name not in ("hf_subset", "languages")
    }


def has_own_scores(task: Any) -> bool:
    """Whether the task changes how mteb scores a retrieval subset."""
    from mteb.abstasks.retrieval import AbsTaskRetrieval

    own = ("task_specific_scores", "_evaluate_subset", "evaluate")
    return task.skip_first_result or any(
        getattr(type(task), name) is not getattr(AbsTaskRetrieval, name) for name in own
    )


def run_stock(task: Any, model: Any) -> Any:
    """The `TaskResult` of unmodified mteb for one of its models, without its result cache.

    Raises `DataError` for data that cannot be loaded.
    """
    load(task)
    with fenced(), warnings.catch_warnings():
        # mteb warns of each task that has a newer version, and of its own tensors.
        warnings.simplefilter("ignore")
        import mteb

        try:
            done = mteb.evaluate(model, task, cache=None, show_progress_bar=False)
        except (HybridBatchError, MemoryError):
            raise
        except Exception as error:  # of an evaluator: they have no common base
            raise DataError(
                f"{task.metadata.name}: mteb's evaluator cannot score it ({in_words(error)})"
            ) from error
        return done.task_results[0]


def _embed_distinct(
    texts: Any, side: str, embed: Embed
) -> Callable[[Sequence[str]], torch.Tensor]:
    place: dict[str, int] = {}
    for text in texts:
        place.setdefault(text, len(place))
    vectors = torch.from_numpy(np.ascontiguousarray(embed(list(place), side), dtype=np.float32))

    def look_up(wanted: Sequence[str]) -> torch.Tensor:
        rows = np.fromiter((place[text] for text in wanted), np.int64, len(wanted))
        # a corpus in the order it was first seen: no copy
        if len(rows) and (np.diff(rows) == 1).all():
            return vectors[rows[0] : rows[-1] + 1]
        return vectors[torch.from_numpy(rows)]

    return look_up


def retrieve(
    task: Any, subset: Subset, queries: torch.Tensor, passages: torch.Tensor
) -> Retrieved:
    """Ranks and score statistics of one subset: queries [Q, D], passages [P, D]."""
    column = {identifier: i for i, identifier in enumerate(subset.passage_ids)}
    relevant, grades = _judged(subset, column)
    excluded = candidates = None
    if task.ignore_identical_ids:
        excluded = np.array([column.get(query, -1) for query in subset.query_ids])
    if subset.candidates is not None:
        candidates = [
            np.array(
                [column[passage] for passage in subset.candidates.get(query, ())], np.int64
            )
            for query in subset.query_ids
        ]
    return search(
        queries,
        passages,
        precedence(subset.passage_ids),
        relevant,
        grades,
        top_k=task._top_k,
        excluded=excluded,
        candidates=candidates,
    )


def corpus_vectors(texts: Sequence[str], embed: Embed) -> Vectors:
    """The vectors of a large corpus, on disk: at no time are all texts or vectors in memory."""
    return embed.on_disk(texts) if isinstance(embed, OnDisk) else embed(list(texts), "passage")


def retrieve_from_disk(
    task: Any,
    subset: Subset,
    queries: torch.Tensor,
    passages: Vectors,
    report: Reporter = SILENT,
) -> Retrieved:
    """As `retrieve`, for a corpus that is searched block by block: memory holds the first passages
    of every query, the ids, and one block.

    Args:
        queries: [Q, D].
        passages: [P, D], possibly on disk.
    """
    column = _places(subset)
    relevant, grades = _judged(subset, column)
    top_k = task._top_k
    places = precedence_of_corpora({"": Texts(subset.passage_ids, subset.passages)})
    # A query may meet its own copy, which does not count.
    depth = top_k + 1 if task.ignore_identical_ids else top_k
    first = exact.search(queries, passages, depth, places=places, report=report)
    rows, scores = first.rows, first.scores.copy()
    if task.ignore_identical_ids:
        own = np.array([column.get(query, -1) for query in subset.query_ids])
        order = np.argsort(rows == own[:, None], axis=1, kind="stable")
        rows = np.take_along_axis(rows, order, 1)
        scores = np.where(rows == own[:, None], -np.inf, np.take_along_axis(scores, order, 1))
        rows, scores = rows[:, :top_k], scores[:, :top_k]
    ranks = np.zeros(relevant.shape, np.int64)
    for m, wanted in enumerate(relevant.T):
        there = (rows == wanted[:, None]) & np.isfinite(scores) & (wanted[:, None] >= 0)
        ranks[:, m] = np.where(there.any(1), there.argmax(1) + 1, 0)
    return Retrieved(ranks, grades, confidence_of(scores, top_k))


def _places(subset: Subset) -> dict[str, int]:
    """The places of those passages in a large corpus that are judged or share a query's id."""
    wanted = {passage for relevant in subset.qrels.values() for passage in relevant}
    wanted |= set(subset.query_ids)
    return {
        passage: place for place, passage in enumerate(subset.passage_ids) if passage in wanted
    }


def _judged(subset: Subset, column: Mapping[str, int]) -> tuple[np.ndarray, np.ndarray]:
    """[Q, M] columns and grades of the judged passages: -1 and 0 for padding."""
    widest = max(len(subset.qrels[query]) for query in subset.query_ids)
    shape = len(subset.query_ids), widest
    relevant, grades = np.full(shape, -1), np.zeros(shape, np.int64)
    for i, query in enumerate(subset.query_ids):
        for m, (passage, grade) in enumerate(subset.qrels[query].items()):
            grades[i, m] = grade
            relevant[i, m] = column.get(passage, -1)
    return relevant, grades


def save(result: Any, meta: Any, folder: Path) -> Path:
    """Write TaskResult and model_meta.json in the layout of mteb's results repository; returns the
    task's file.
    """
    with fenced():
        from mteb.cache import ResultCache

        cache = ResultCache(folder)
        cache.save_to_cache(result, meta)
        return Path(cache.get_task_result_path(result.task_name, meta))


class StockModel:
    """The encoder as mteb's `EncoderProtocol`: nothing shared between subsets, as stock mteb runs
    it.
    """

    def __init__(self, embed: Embed, meta: Any) -> None:
        self.embed, self.mteb_model_meta = embed, meta

    def encode(self, inputs: Any, *, prompt_type: Any = None, **_: Any) -> np.ndarray:
        """Embeddings [n, D] of all texts of a data loader."""
        texts = [text for batch in inputs for text in batch["text"]]
        sides = {"query": "query", "document": "passage"}
        return self.embed(texts, sides.get(getattr(prompt_type, "value", ""), "text"))

    def similarity(self, one: Any, other: Any) -> torch.Tensor:
        """The model's similarity of each row with each: [n, m]."""
        from sentence_transformers import SimilarityFunction

        compare = SimilarityFunction.to_similarity_fn(similarity_of(self.mteb_model_meta))
        return compare(torch.as_tensor(one), torch.as_tensor(other))

    def similarity_pairwise(self, one: Any, other: Any) -> torch.Tensor:
        """The model's similarity, row by row: [n]."""
        from sentence_transformers import SimilarityFunction

        name = similarity_of(self.mteb_model_meta)
        compare = SimilarityFunction.to_similarity_pairwise_fn(name)
        return compare(torch.as_tensor(one), torch.as_tensor(other))


def verify(
    task: Any, result: Any, model: Any, count: int, seed: int, tolerance: float = 0.5e-5
) -> list[dict[str, Any]]:
    """Send `count` random subsets through stock mteb and compare the scores.

    Of a task that draws random numbers as it goes (`DRAWING`) they are the first subsets, because
    the scores of the others hang on what was drawn before.

    Args:
        model: one of mteb's; best the model as mteb itself loads it (`Published.own_loader`).
        tolerance: of each score. With more than rounding, the scores of confidence (nAUC) are left
            out: they hang on differences of scores, not on ranks.
    Returns one row a subset: split, subset, scores compared, largest difference. Raises `DataError`
    naming the first score that differs by more.
    """
    places = [(split, entry) for split, entries in result.scores.items() for entry in entries]
    if task.metadata.type in DRAWING:
        first = next(iter(result.scores))
        places = [place for place in places if place[0] == first]
        places.sort(key=lambda place: task.hf_subsets.index(place[1]["hf_subset"]))
        chosen = [places[:count]]
    else:
        order = stream(seed, "verify").permutation(len(places))[:count]
        chosen = [[places[i]] for i in order]
    rows = []
    for together in chosen:
        split = together[0][0]
        with fenced():
            again = copy.copy(task)
            again.hf_subsets = [entry["hf_subset"] for _, entry in together]
            again._eval_splits = [split]
            again.dataset, again.data_loaded = None, False
            seed_afresh(again)
        stock = _by_subset(run_stock(again, model))[split]
        for _, entry in together:
            place = f"{result.task_name} ({split}, {entry['hf_subset']})"
            gaps = _gaps(entry, stock[entry["hf_subset"]], place, tolerance)
            rows.append(
                {
                    "task": result.task_name,
                    "split": split,
                    "subset": entry["hf_subset"],
                    "scores": len(gaps),
                    "largest difference": max(gaps, default=0.0),
                }
            )
    return rows


def _gaps(
    ours: Mapping[str, Any], theirs: Mapping[str, Any], place: str, tolerance: float
) -> list[float]:
    """The differences of all scores of a subset. Raises `DataError` for one beyond `tolerance`."""
    gaps: list[float] = []
    for name, value in theirs.items():
        if not isinstance(value, float) or (tolerance > 1e-4 and "nauc" in name):
            continue
        both_undefined = np.isnan(ours[name]) and np.isnan(value)
        gap = 0.0 if both_undefined else abs(ours[name] - value)
        if not gap <= tolerance:
            raise DataError(f"{place}: {name} is {ours[name]}, but stock mteb computes {value}")
        gaps.append(gap)
    return gaps
