"""Score mteb tasks from stored embeddings and write the official result files; check samples
through stock mteb.
"""

import copy
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch

from hybridbatch.common.errors import DataError
from hybridbatch.common.progress import SILENT, Reporter
from hybridbatch.common.seeding import stream
from hybridbatch.data.tasks.mteb import Subset, fenced, is_retrieval, load, parts, subsets
from hybridbatch.scoring.mteb.published import Embed
from hybridbatch.scoring.mteb.scores import Retrieved, score_dict, search
from hybridbatch.search.order import precedence

# Scores within so much of mteb's are mteb's. Two ways to compute one vector in fp32 differ by about
# 1e-7, which can swap two passages of equal worth; where a model stores half precision, mteb
# computes in it.
TOLERANCE = {True: 1e-3, False: 5e-3}  # by whether mteb computes in fp32


def score_task(task: Any, embed: Embed, meta: Any, report: Reporter = SILENT) -> Any:
    """An mteb `TaskResult` for every split and subset of `task`; each distinct text is embedded
    once, and so many subsets are in memory at a time as `parts` says.

    A task that is not scored as a plain ranking (bitext mining, classification, instruction
    following, say) runs through mteb's own evaluator on the same embeddings, which is announced.
    Raises `DataError` for data that cannot be loaded.
    """
    from mteb.results import TaskResult

    started = time.perf_counter()
    ranked = is_retrieval(task) and not has_own_scores(task)
    if not ranked:
        report.note(f"{task.metadata.name} is scored by mteb's own evaluator")
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


def _score_part(
    task: Any, embed: Embed, report: Reporter
) -> dict[str, dict[str, Mapping[str, float]]]:
    """By split and subset, the scores of a task that is scored as a ranking."""
    load(task)
    every = list(subsets(task))
    queries = _embed_distinct(
        (text for subset in every for text in subset.queries), "query", embed
    )
    passages = _embed_distinct(
        (text for subset in every for text in subset.passages), "passage", embed
    )
    scores: dict[str, dict[str, Mapping[str, float]]] = {}
    with report.bar(task.metadata.name, len(every), "subsets") as bar:
        for subset in every:
            found = retrieve(task, subset, queries(subset.queries), passages(subset.passages))
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
    with fenced():
        import mteb

        done = mteb.evaluate(model, task, cache=None, show_progress_bar=False)
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
    widest = max(len(subset.qrels[query]) for query in subset.query_ids)
    relevant, grades = (
        np.full((len(queries), widest), -1),
        np.zeros((len(queries), widest), np.int64),
    )
    for i, query in enumerate(subset.query_ids):
        for m, (passage, grade) in enumerate(subset.qrels[query].items()):
            grades[i, m] = grade
            relevant[i, m] = column.get(passage, -1)
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
        """Cosine of unit rows: [n, m]."""
        return torch.as_tensor(one) @ torch.as_tensor(other).T

    def similarity_pairwise(self, one: Any, other: Any) -> torch.Tensor:
        """Cosine of unit rows, row by row: [n]."""
        return (torch.as_tensor(one) * torch.as_tensor(other)).sum(-1)


def verify(
    task: Any, result: Any, model: Any, count: int, seed: int, tolerance: float = 0.5e-5
) -> list[dict[str, Any]]:
    """Send `count` random subsets through stock mteb and compare the scores.

    Args:
        model: one of mteb's; best the model as mteb itself loads it (`Published.own_loader`).
        tolerance: of each score. With more than rounding, the scores of confidence (nAUC) are left
            out: they hang on differences of scores, not on ranks.
    Returns one row a subset: split, subset, scores compared, largest difference. Raises `DataError`
    naming the first score that differs by more.
    """
    places = [(split, entry) for split, entries in result.scores.items() for entry in entries]
    chosen = stream(seed, "verify").permutation(len(places))[:count]
    rows = []
    for split, entry in (places[i] for i in chosen):
        with fenced():
            again = copy.copy(task)
            again.hf_subsets, again._eval_splits = [entry["hf_subset"]], [split]
            again.dataset, again.data_loaded = None, False
        theirs = run_stock(again, model).scores[split][0]
        place = f"{result.task_name} ({split}, {entry['hf_subset']})"
        gaps = _gaps(entry, theirs, place, tolerance)
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
