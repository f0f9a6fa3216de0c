"""Run one cell on this machine: train, evaluate, and keep the numbers that the analysis needs."""

import gc
import time
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, cast

from hybridbatch.common.documents import read_training
from hybridbatch.common.files import atomic_path
from hybridbatch.common.progress import SILENT, Reporter
from hybridbatch.common.records import Task
from hybridbatch.common.sizes import gigabytes
from hybridbatch.debias.fit import MethodName
from hybridbatch.scaling.cells import debiased
from hybridbatch.scaling.cells.folder import QUERIES
from hybridbatch.scaling.cells.grid import Cell, Facts
from hybridbatch.scaling.cells.known_models import model_fingerprint
from hybridbatch.scaling.settings import BM25, CROSS_FIT, SweepConfig
from hybridbatch.scoring import per_query as perquery
from hybridbatch.scoring.documents import check_scores, read_evaluation
from hybridbatch.scoring.settings import EvalConfig

if TYPE_CHECKING:
    import pandas as pd

    from hybridbatch.data.tasks.parallel import Parallel
    from hybridbatch.model import Encoder

Scores: TypeAlias = "tuple[list[dict[str, Any]], pd.DataFrame]"  # of tasks, and by question
# a question in one language; corpus languages averaged
QUESTION = ["task", "setting", "query_language", "query_id"]
METRICS = [
    "mAP",
    "MRR",
    "ndcg@10",
    "recall@10",
    "rank_distance",
    "same_language_share@10",
    "contrastive_entropy",
]
ENTROPY_SEED = 13  # the same negatives for all cells
# Entropies at different temperatures cannot be compared. So the entropies of untrained models, and
# of cells that learn their temperature, are computed at this temperature.
ENTROPY_TEMPERATURE = 0.05
TRAIN_FACTS = (
    "steps",
    "stopped_early",
    "best_step",
    "temperature",
    "validation",
    "trained_languages",
    "throughput",
    "memory",
    "precision",
    "versions",
    "hardware",
    "notes",
)


def gather_facts(config: SweepConfig, report: Reporter = SILENT) -> Facts:
    """Look up the facts for the grid, and prepare the data if they are not prepared yet.

    Raises:
        HybridBatchError: data, tasks or models cannot be used.
    """
    from hybridbatch.data.prepare import ensure_prepared
    from hybridbatch.data.store.reader import Store
    from hybridbatch.data.tasks.registry import load_task
    from hybridbatch.search.bm25 import bm25_fingerprint

    store = Store.open(ensure_prepared(config.data, config.data_root, report))
    stated = config.debias not in (None, CROSS_FIT)
    tasks = {
        name: load_task(name, data_root=config.data_root, parallel=config.parallel)
        for name in config.tasks
    }
    spoken = (language for task in tasks.values() for language in [*task.queries, *task.corpus])
    models = {
        name: model_fingerprint(name, report) for name in [*config.model, *_teachers(config)]
    }
    if BM25 in config.baselines:
        models[BM25] = bm25_fingerprint()
    return Facts(
        data=store.fingerprint,
        training_languages=store.languages,
        records=lambda languages: store.index("train", languages).records,
        tasks={name: task.provenance["fingerprint"] for name, task in tasks.items()},
        task_languages=tuple(dict.fromkeys(spoken)),
        models=models,
        debias=debiased.text_fingerprint(str(config.debias), config.data_root, report)
        if stated
        else None,
    )


def absent_inputs(config: SweepConfig) -> dict[str, str]:
    """Data, tasks and models of a grid that would have to be downloaded, with their sizes.

    Raises:
        ConfigError: a name is unknown.
    """
    from hybridbatch.data.prepare import unprepared
    from hybridbatch.data.tasks.catalogue import whereabouts
    from hybridbatch.data.tasks.registry import is_here
    from hybridbatch.model.reckoning import absent_bytes

    absent: dict[str, str] = {}
    if needs := unprepared(config.data, config.data_root):
        absent[f"data {config.data}"] = needs.sentence()
    for name in config.tasks:
        if not is_here(name, config.data_root):
            absent[f"task {name}"] = whereabouts(name.partition(":")[0], config.data_root)
    for name in [*config.model, *_teachers(config)]:
        size = absent_bytes(name)
        if size != 0:
            absent[f"model {name}"] = f"to download: {gigabytes(size)}"
    return absent


def _teachers(config: SweepConfig) -> list[str]:
    """The names of the encoders from which cells are distilled."""
    return [
        name
        for name in config.set.get("teacher", ())
        if name is not None and name.strip().lower() != "none"
    ]


def run_cell(cell: Cell, work: Path) -> dict[str, Any]:
    """Train and evaluate a cell, and reduce its scores to questions.

    The cell of an untrained model is only evaluated. A half-trained run in `work` goes on where it
    stopped. The trained encoder is evaluated as it is in memory. Checkpoints and embeddings stay in
    `work`, and the owner of `work` removes it.
    """
    import pandas as pd

    from hybridbatch.training.train import train_in_memory

    started = time.monotonic()
    # Always plain kernels: a repeated cell must give the same bits with every version.
    evaluation = cell.evaluation.model_copy(
        update={"out": work / "eval", "cache": work / "embeddings", "kernels": "plain"}
    )
    trained = encoder = None
    if cell.train:
        run, encoder = train_in_memory(cell.train.model_copy(update={"out": work / "run"}))
        gc.collect()  # the optimizer's state is in a cycle of references
        trained = read_training(run)
        evaluation = evaluation.model_copy(update={"model": str(run)})
    half_time = time.monotonic()
    parts = list(_scored(cell, evaluation, work, encoder))
    questions = pd.concat([table for _, table in parts], ignore_index=True)
    with atomic_path(work / QUERIES) as temporary:
        # a third smaller, enough for tests
        single = dict.fromkeys(questions.select_dtypes("float64"), "float32")
        questions.astype(single).to_parquet(temporary, index=False, compression="zstd")
    return {
        "train": trained and {name: trained.get(name) for name in TRAIN_FACTS},
        "eval": {"tasks": [task for summaries, _ in parts for task in summaries]},
        "seconds": {"train": half_time - started, "eval": time.monotonic() - half_time},
    }


def _scored(
    cell: Cell, evaluation: EvalConfig, work: Path, encoder: "Encoder | None"
) -> Iterator[Scores]:
    """The raw scores of a cell, then the debiased ones; of a baseline, its own scores alone.

    Args:
        encoder: the trained encoder, if it is in memory.
    """
    from hybridbatch.scoring.evaluate import evaluate, open_store
    from hybridbatch.scoring.rankers import EmbeddingRanker, embed_by_language

    tasks = _tasks(
        evaluation.tasks, evaluation.data_root, evaluation.languages, evaluation.parallel
    )
    if cell.baseline == BM25:
        yield _summed(evaluate(evaluation, tasks=tasks))
        return
    store = open_store(evaluation, encoder=encoder)
    named = cell.train.temperature if cell.train else None
    temperature = named if isinstance(named, float) else ENTROPY_TEMPERATURE
    raw: dict[str, debiased.Sides] = {}

    def vectors() -> dict[str, debiased.Sides]:
        """Queries and passages of every task, from the embeddings that are stored."""
        embed: Any = store.embed
        for task in tasks if not raw else ():
            queries = embed_by_language(task.queries, "query", embed)
            raw[task.name] = queries, embed_by_language(task.corpus, "passage", embed)
        return raw

    if cell.baseline is None:
        folder = evaluate(evaluation, tasks=tasks, store=store)
        yield _summed(folder, _entropies(tasks, vectors(), temperature))
    if cell.debias is None:
        return
    own: dict[str, debiased.Sides] = {}
    for task in tasks:
        own[task.name] = debiased.turned(
            task,
            vectors()[task.name],
            source=cell.debias,
            method=cast(MethodName, cell.baseline or "centre"),
            pivot=cell.pivot,
            store=store,
            data_root=evaluation.data_root,
        )
    folder = evaluate(
        evaluation.model_copy(update={"out": work / "debiased"}),
        tasks=tasks,
        store=store,
        ranker=lambda task: EmbeddingRanker.of_vectors(task, *own[task.name]),
    )
    summaries, table = _summed(folder, _entropies(tasks, own, temperature))
    if cell.baseline is None:
        table["task"] = table["task"].map(debiased.debiased_name)
        for summary, task in zip(summaries, tasks, strict=True):
            summary["of"], summary["name"] = task.name, debiased.debiased_name(task.name)
            summary["about"] = debiased.about(task, cell.debias)
    yield summaries, table


def _questions(folder: Path) -> "pd.DataFrame":
    """An evaluation's scores by question and query language, averaged over corpus languages."""
    import pyarrow.parquet as pq

    check_scores(folder, perquery.FILE)
    columns = {
        column: perquery.MEANS.get(column, column)
        for column in pq.read_schema(folder / perquery.FILE).names
    }
    kept = [column for column, name in columns.items() if name in METRICS]
    frame = (
        pq.read_table(folder / perquery.FILE, columns=[*QUESTION, *kept])
        .to_pandas()
        .rename(columns=columns)
    )
    return frame.groupby(QUESTION, as_index=False, sort=True).mean()


@lru_cache(maxsize=1)
def _tasks(
    names: tuple[str, ...], data_root: Path | None, languages: str, parallel: "Parallel"
) -> tuple[Task, ...]:
    """The tasks that all cells of a sweep share, read once in a process."""
    from hybridbatch.scoring.planning import load_tasks

    config = EvalConfig(
        tasks=names, data_root=data_root, languages=languages, parallel=parallel
    )
    return tuple(load_tasks(config, names, ()))


def _summed(folder: Path, entropies: "pd.DataFrame | None" = None) -> Scores:
    """The summaries of an evaluation's tasks, and its scores by question."""
    questions = _questions(folder)
    if entropies is not None:
        questions = questions.merge(entropies, how="left", on=QUESTION)
    return _summaries(read_evaluation(folder)["tasks"], questions), questions


def _entropies(
    tasks: Sequence[Task], vectors: Mapping[str, debiased.Sides], temperature: float
) -> "pd.DataFrame":
    """Contrastive entropy by question, from vectors of queries and passages by task."""
    import pandas as pd

    from hybridbatch.scaling.entropy import task_entropies

    parts = []
    for task in tasks:
        queries, passages = vectors[task.name]
        for part in task_entropies(
            task, queries, passages, temperature=temperature, seed=ENTROPY_SEED
        ):
            keys = dict(
                zip(
                    QUESTION,
                    (task.name, part.setting, part.query_language, part.query_ids),
                    strict=True,
                )
            )
            parts.append(pd.DataFrame({**keys, "contrastive_entropy": part.values}))
    return pd.concat(parts).groupby(QUESTION, as_index=False).mean()


def _summaries(tasks: list[dict[str, Any]], questions: "pd.DataFrame") -> list[dict[str, Any]]:
    """The part of eval.json that a cell keeps: tasks, and means by setting and query language."""
    means = questions.drop(columns="query_id").groupby(QUESTION[:-1]).mean()
    summaries = []
    for task in tasks:
        settings: dict[str, dict[str, dict[str, float]]] = {}
        for (setting, language), row in means.loc[task["name"]].iterrows():
            values = {
                metric: float(row[metric]) for metric in row.index if row[metric] == row[metric]
            }
            settings.setdefault(setting, {})[language] = values
        kept = {name: task[name] for name in ("name", "about", "counts", "provenance")}
        summaries.append({**kept, "settings": settings})
    return summaries
