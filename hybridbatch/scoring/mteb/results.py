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
from hybridbatch.common.files import plain_name
from hybridbatch.common.progress import SILENT, Reporter
from hybridbatch.common.seeding import stream
from hybridbatch.data.tasks.mteb import Subset, fenced, load, subsets
from hybridbatch.scoring.mteb.scores import Retrieved, score_dict, search
from hybridbatch.search.order import precedence

# texts, "query" | "passage" -> float32 [n, D], unit rows
Embed = Callable[[Sequence[str], str], np.ndarray]


def score_task(task: Any, embed: Embed, meta: Any, report: Reporter = SILENT) -> Any:
    """An mteb `TaskResult` for every split and subset of `task`; each distinct text is embedded
    once.

    A task with scores of its own (instruction following, say) runs through stock mteb on the same
    embeddings; that is slower and is announced. Raises `DataError` for data that cannot be loaded.
    """
    load(task)
    if has_own_scores(task):
        report.note(f"{task.metadata.name} has scores of its own: running it through stock mteb")
        return run_stock(task, embed, meta)
    from mteb.results import TaskResult

    started = time.perf_counter()
    every = list(subsets(task))
    queries = _embed_distinct((text for subset in every for text in subset.queries), "query", embed)
    passages = _embed_distinct(
        (text for subset in every for text in subset.passages), "passage", embed
    )
    scores: dict[str, dict[str, dict[str, float]]] = {}
    with report.bar(task.metadata.name, len(every), "subsets") as bar:
        for subset in every:
            found = retrieve(task, subset, queries(subset.queries), passages(subset.passages))
            values = score_dict(found, tuple(task.k_values))
            values["main_score"] = values[task.metadata.main_score]
            scores.setdefault(subset.split, {})[subset.name] = values
            bar.advance()
    with fenced():
        return TaskResult.from_task_results(
            task, scores, evaluation_time=time.perf_counter() - started, date=datetime.now(UTC)
        )


def has_own_scores(task: Any) -> bool:
    """Whether the task changes how mteb scores a retrieval subset."""
    from mteb.abstasks.retrieval import AbsTaskRetrieval

    own = ("task_specific_scores", "_evaluate_subset", "evaluate")
    return task.skip_first_result or any(
        getattr(type(task), name) is not getattr(AbsTaskRetrieval, name) for name in own
    )


def run_stock(task: Any, embed: Embed, meta: Any) -> Any:
    """The `TaskResult` of unmodified mteb, without its result cache."""
    with fenced():
        import mteb

        return mteb.evaluate(
            StockModel(embed, meta), task, cache=None, show_progress_bar=False
        ).task_results[0]


def _embed_distinct(texts: Any, side: str, embed: Embed) -> Callable[[Sequence[str]], torch.Tensor]:
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


def retrieve(task: Any, subset: Subset, queries: torch.Tensor, passages: torch.Tensor) -> Retrieved:
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
            np.array([column[passage] for passage in subset.candidates.get(query, ())], np.int64)
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


def model_meta(
    name: str, fingerprint: str, dimension: int, experiment: Mapping[str, Any] | None = None
) -> Any:
    """mteb's description of a model: a name and the hash of its content, so that no two checkpoints
    are taken for one.
    """
    with fenced():
        from mteb.models import ModelMeta
        from mteb.models.model_meta import ScoringFunction

        plain = plain_name(name).strip("-") or "model"
        return ModelMeta.create_empty(
            overwrites={
                "name": f"hybridbatch/{plain}",
                "revision": fingerprint,
                "embed_dim": dimension,
                "framework": ["PyTorch"],
                "similarity_fn_name": ScoringFunction.COSINE,
                "use_instructions": True,
                "open_weights": True,
                "experiment_kwargs": dict(experiment) if experiment else None,
            }
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
        return self.embed(
            texts, "passage" if getattr(prompt_type, "value", None) == "document" else "query"
        )

    def similarity(self, one: Any, other: Any) -> torch.Tensor:
        """Cosine of unit rows: [n, m]."""
        return torch.as_tensor(one) @ torch.as_tensor(other).T

    def similarity_pairwise(self, one: Any, other: Any) -> torch.Tensor:
        """Cosine of unit rows, row by row: [n]."""
        return (torch.as_tensor(one) * torch.as_tensor(other)).sum(-1)


def verify(
    task: Any, result: Any, embed: Embed, meta: Any, count: int, seed: int
) -> list[dict[str, Any]]:
    """Send `count` random subsets through stock mteb and compare every score.

    Returns one row a subset: split, subset, scores compared, largest difference. Raises `DataError`
    naming the first score that differs by more than 0.5e-5.
    """
    places = [(split, entry) for split, entries in result.scores.items() for entry in entries]
    chosen = stream(seed, "verify").permutation(len(places))[:count]
    rows = []
    for split, entry in (places[i] for i in chosen):
        with fenced():
            again = copy.copy(task)
            again.hf_subsets, again._eval_splits = [entry["hf_subset"]], [split]
        theirs = run_stock(again, embed, meta).scores[split][0]
        worst = 0.0
        for name, value in theirs.items():
            if not isinstance(value, float):
                continue
            ours = entry[name]
            gap = 0.0 if np.isnan(ours) and np.isnan(value) else abs(ours - value)
            if not gap <= 0.5e-5:
                raise DataError(
                    f"{result.task_name} ({split}, {entry['hf_subset']}): {name} is {ours}, stock"
                    f" mteb says {value}"
                )
            worst = max(worst, gap)
        rows.append({"task": result.task_name, "split": split, "subset": entry["hf_subset"],
                     "scores": sum(isinstance(v, float) for v in theirs.values()), "largest difference": worst})  # fmt: skip
    return rows
