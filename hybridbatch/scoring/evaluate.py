"""`hybridbatch eval`: scores every language pair and the multilingual pool of each task.

Each distinct text is encoded once.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hybridbatch
from hybridbatch.common.errors import ConfigError, Interrupted
from hybridbatch.common.files import make_folder, output_errors, write_json
from hybridbatch.common.integrity import file_checksum
from hybridbatch.common.progress import SILENT, Reporter
from hybridbatch.common.provenance import hardware, versions
from hybridbatch.common.records import Task
from hybridbatch.common.sizes import memory_bytes
from hybridbatch.scoring.columns import ranked_names, searched_names
from hybridbatch.scoring.documents import RESULT, SCHEMA_VERSION
from hybridbatch.scoring.full_ranking import score_rankings
from hybridbatch.scoring.per_query import FILE, Writer, writing
from hybridbatch.scoring.planning import Evaluation, Machine, tell_downloads
from hybridbatch.scoring.planning import leads as leads
from hybridbatch.scoring.settings import BM25, RANDOM, EvalConfig
from hybridbatch.scoring.summary import describe

if TYPE_CHECKING:
    from hybridbatch.data.tasks.mteb import LeftOut
    from hybridbatch.debias.vectors_file import LanguageVectors
    from hybridbatch.model import Encoder
    from hybridbatch.scoring.rankers import Ranker
    from hybridbatch.scoring.reranking.stage import SecondStage
    from hybridbatch.scoring.top_k import Search
    from hybridbatch.search.embeddings import EmbeddingStore

SECOND = "reranked"  # subfolder of the evaluation with the scores after the second stage


def evaluate(
    config: EvalConfig,
    report: Reporter = SILENT,
    *,
    tasks: Sequence[Task] | None = None,
    store: "EmbeddingStore | None" = None,
    ranker: "Callable[[Task], Ranker] | None" = None,
) -> Path:
    """Score an encoder and write ``per_query.parquet`` and, last, ``eval.json``.

    Args:
        tasks: the result of `load_tasks` for these settings, if it has been called already.
        store: the result of `open_store` for these settings, if it has been called already.
        ranker: ranks a task instead of the encoder's own vectors; tasks are then ranked whole.

    Returns:
        The folder of both files.

    Raises:
        HybridBatchError: tasks, languages, models or files that cannot be used.
        Interrupted: when stopped. An earlier evaluation in the folder is then unchanged.
    """
    if tasks is None:
        tell_downloads(config, report)
    evaluation = Evaluation.plan(config, tasks)
    if told := evaluation.forecast():
        report.note(told)
    for task in evaluation.tasks:
        for note in task.notes:
            report.warn(note)
    scorer = _scorer(evaluation, store, ranker, report)
    second_stage = _second_stage(evaluation, report)
    folder = make_folder(evaluation.folder)
    if scorer.debias:
        _tell_debias(scorer.debias, evaluation, report)
    searches = open_searches(evaluation, scorer.store, report, scorer.debias)
    if config.shards is None and scorer.store:
        _share_encoding(evaluation, scorer.store, searches, report)
    if not evaluation.leads:
        if config.shards is not None:
            for search in searches.values():
                search.encode(evaluation.part)
        return folder
    model = {
        "name": config.model,
        **scorer.facts,
        "trained_languages": list(evaluation.trained),
    }
    try:
        _first_stage(evaluation, scorer, searches, model, folder, report)
        if second_stage:
            _reranked(
                evaluation, scorer, second_stage, model, make_folder(folder / SECOND), report
            )
    except KeyboardInterrupt:
        kept = (
            f"; the embeddings so far are kept in {scorer.store.folder}" if scorer.store else ""
        )
        raise Interrupted(f"{folder}: stopped{kept}, run the same command to go on") from None
    return folder


def _share_encoding(
    evaluation: Evaluation,
    store: "EmbeddingStore",
    searches: "Mapping[str, Search]",
    report: Reporter,
) -> None:
    """Under torchrun, encode the texts of all tasks with all processes."""
    from hybridbatch.scoring.shared_encoding import share_encoding

    def official(chosen: slice) -> None:
        from hybridbatch.scoring.mteb.stage import encode_official

        encode_official(evaluation.config, evaluation.official[chosen], store)

    device = evaluation.machine.device
    share_encoding(store, evaluation.tasks, searches, device, official, report)


def _first_stage(
    evaluation: Evaluation,
    scorer: "Scorer",
    searches: "Mapping[str, Search]",
    model: Mapping[str, Any],
    folder: Path,
    report: Reporter,
) -> None:
    """Score all tasks by the model alone, and write both files."""
    config = evaluation.config
    with writing(folder / FILE, _columns(evaluation, searches)) as writer:
        summaries = []
        for task in evaluation.tasks:
            if task.name in searches:
                summaries.append(_searched(evaluation, searches[task.name], writer))
            else:
                summaries.append(_ranked(evaluation, task, scorer.ranker(task), writer, report))
        official: list[dict[str, Any]] = []
        left_out = list(evaluation.left_out)
        if scorer.store:
            from hybridbatch.scoring.mteb.stage import score_official

            official, failed = score_official(
                config, evaluation.official, scorer.store, folder, report
            )
            left_out += failed
        _remove_earlier(folder / RESULT)
    _write(evaluation, folder, model, summaries, official, left_out)


def _reranked(
    evaluation: Evaluation,
    scorer: "Scorer",
    second_stage: "SecondStage",
    model: Mapping[str, Any],
    folder: Path,
    report: Reporter,
) -> None:
    """Score all tasks again, after the second stage has reordered the first passages."""
    with writing(folder / FILE, ranked_names(evaluation.config.cutoffs)) as writer:
        summaries = [
            _ranked(evaluation, task, scorer.ranker(task), writer, report, second_stage)
            for task in evaluation.tasks
        ]
        _remove_earlier(folder / RESULT)
    _write(evaluation, folder, {**model, "reranker": second_stage.facts()}, summaries)


def _remove_earlier(path: Path) -> None:
    """Remove an earlier eval.json, so that it is never beside the scores of another run."""
    with output_errors(path):
        path.unlink(missing_ok=True)


@dataclass(frozen=True)
class Scorer:
    """The model of an evaluation, ready to rank tasks."""

    ranker: "Callable[[Task], Ranker]"
    facts: Mapping[str, Any]  # fingerprint and precision, for eval.json
    store: "EmbeddingStore | None"  # None for a baseline, which has no embeddings
    debias: "LanguageVectors | None" = None  # subtracted from the embeddings


def _scorer(
    evaluation: Evaluation,
    store: "EmbeddingStore | None",
    ranker: "Callable[[Task], Ranker] | None",
    report: Reporter,
) -> Scorer:
    """The scorer of the settings, or one that ranks with a given ranker."""
    scorer = open_scorer(evaluation.config, evaluation.machine, store, report)
    return scorer if ranker is None else replace(scorer, ranker=ranker, store=None)


def open_scorer(
    config: EvalConfig,
    machine: Machine,
    store: "EmbeddingStore | None" = None,
    report: Reporter = SILENT,
) -> Scorer:
    """Open the model or baseline of the settings. Raises: `ModelError`, `ConfigError`."""
    if config.model == BM25:
        if config.debias:
            raise ConfigError(
                "debias: bm25 has no embeddings to subtract language vectors from; leave"
                " --debias out"
            )
        from hybridbatch.scoring.baselines import LexicalRanker
        from hybridbatch.search.bm25 import bm25_fingerprint

        return Scorer(
            LexicalRanker, {"fingerprint": bm25_fingerprint(), "precision": None}, None
        )
    from hybridbatch.scoring.rankers import EmbeddingRanker

    opened = open_store(config, report, machine) if store is None else store
    embed = partial(opened.embed, report=report)
    facts: dict[str, Any] = {"fingerprint": opened.fingerprint, "precision": opened.precision}
    if opened.kernels != "plain":
        facts["kernels"] = opened.kernels
    debias = None
    if config.debias:
        debias = open_debias(config.debias, opened, config.model)
        facts["debias"] = debias.summary()
    return Scorer(
        lambda task: EmbeddingRanker(task, embed, str(machine.device), debias),
        facts,
        opened,
        debias,
    )


def open_debias(path: Path, store: "EmbeddingStore", model: str) -> "LanguageVectors":
    """Read language vectors for the model of a store. Raises: `DataError` for another model."""
    from hybridbatch.debias.vectors_file import read_vectors

    vectors = read_vectors(path)
    vectors.require_model(store.fingerprint, model)
    return vectors


def open_store(
    config: EvalConfig,
    report: Reporter = SILENT,
    machine: Machine | None = None,
    *,
    encoder: "Encoder | None" = None,
) -> "EmbeddingStore":
    """Load the model of the settings and open its stored embeddings.

    Args:
        machine: where the model computes; None: as the settings say.
        encoder: the model in memory, as it was before it was saved. It is not loaded then, and a
            checksum of its weights names its embeddings.

    Raises:
        `ModelError`, `ConfigError`.
    """
    from hybridbatch.search.embeddings import EmbeddingStore

    machine = machine or Machine.of(config)
    limit = None if config.cache_limit is None else memory_bytes(config.cache_limit)
    if config.model == RANDOM:
        from hybridbatch.scoring.baselines import RandomEncoder

        return EmbeddingStore(
            RandomEncoder(config.seed), config.cache, dtype=config.stored_as, max_bytes=limit
        )
    from hybridbatch.model import Encoder
    from hybridbatch.model.inference import resolve_kernels

    checksum = None
    if encoder is None:
        encoder = Encoder.load(config.model, **config.encoder_options, report=report)
    else:
        encoder = encoder.saved_and_loaded(**config.encoder_options)
        checksum = encoder.weights_checksum()
    return EmbeddingStore(
        encoder.to(machine.device),
        config.cache,
        precision=machine.precision,
        dtype=config.stored_as,
        max_bytes=limit,
        kernels=resolve_kernels(config.kernels, machine.device),
        fingerprint=checksum,
    )


def _second_stage(evaluation: Evaluation, report: Reporter) -> "SecondStage | None":
    """Open the reranker that the settings ask for, after reporting its cost."""
    config = evaluation.config
    if not config.rerank:
        return None
    from hybridbatch.scoring.reranking.stage import SecondStage

    stage = SecondStage.load(config.rerank, config.rerank_depth, *evaluation.machine, report)
    stage.announce(evaluation.tasks)
    return stage


def _ranked(
    evaluation: Evaluation,
    task: Task,
    ranker: "Ranker",
    writer: Writer,
    report: Reporter,
    second_stage: "SecondStage | None" = None,
) -> dict[str, Any]:
    """Rank all passages of a task, write the scores of its queries, and describe it."""
    cells, by_language = {}, {}
    for scores in score_rankings(
        task,
        ranker,
        cutoffs=evaluation.config.cutoffs,
        pools=evaluation.pools(task),
        second_stage=second_stage,
        ignore_identical=evaluation.config.ignore_identical_ids,
        report=report,
    ):
        writer.add(task.name, scores)
        cells[scores.query_language, scores.corpus_language] = scores.means()
        by_language[scores.query_language, scores.corpus_language] = scores.by_language
    described = describe(task, cells, evaluation.trained, by_language)
    if second_stage is None and task.parallel:
        described |= _correlation(task, ranker)
    return described


def _correlation(task: Task, ranker: "Ranker") -> dict[str, Any]:
    """MRC@k, if embeddings rank the task and its questions are in several languages; else {}."""
    from hybridbatch.scoring.columns import K
    from hybridbatch.scoring.rank_correlation import mean_rank_correlation
    from hybridbatch.scoring.rankers import EmbeddingRanker

    if not isinstance(ranker, EmbeddingRanker) or len(task.queries) < 2:
        return {}
    passages = ranker.passages.embeddings.cpu().numpy()
    found = mean_rank_correlation(task, ranker.queries, passages)
    return {} if found is None else {f"mrc@{K}": found}


def _searched(evaluation: Evaluation, search: "Search", writer: Writer) -> dict[str, Any]:
    """As `_ranked`, by search; the entry ``search`` describes the search."""
    cells = {}
    for scores in search.scores():
        writer.add(search.task.name, scores)
        cells[scores.query_language, scores.corpus_language] = scores.means()
    return {**describe(search.task, cells, evaluation.trained), "search": search.facts()}


def _tell_debias(debias: "LanguageVectors", evaluation: Evaluation, report: Reporter) -> None:
    """Report which languages are turned by vectors of another language.

    Raises:
        ConfigError: tasks of mteb, which do not give the language of a text.
    """
    if evaluation.official:
        names = ", ".join(task.metadata.name for task in evaluation.official)
        raise ConfigError(
            f"debias: cannot be used for mteb tasks ({names}), because they do not state the"
            " language of a text; use built-in tasks or your own folder"
        )
    for task in evaluation.tasks:
        for sentence in debias.tell({"query": task.queries, "passage": task.corpus}):
            report.warn(f"{task.name}: {sentence}")


def open_searches(
    evaluation: Evaluation,
    store: "EmbeddingStore | None",
    report: Reporter = SILENT,
    debias: "LanguageVectors | None" = None,
) -> "dict[str, Search]":
    """By name, the tasks that are searched instead of ranked whole; reports what each needs.

    Raises:
        ConfigError: settings that do not fit together.
    """
    config = evaluation.config
    if store is None:
        if config.index != "auto":
            raise ConfigError(
                f"index = {config.index}: {config.model} has no embeddings to search; leave --index"
                " out"
            )
        return {}
    from hybridbatch.scoring.top_k import Search, index_for

    searches = {}
    for task in evaluation.tasks:
        index = index_for(config, task, store.encoder.dimension)
        if index is None:
            continue
        searches[task.name] = search = Search(
            task,
            store,
            index,
            config.depth,
            config.cutoffs,
            evaluation.pools(task),
            str(evaluation.machine.device),
            config.seed,
            report,
            debias=debias,
            recall=config.recall,
            ignore_identical=config.ignore_identical_ids,
        )
        report.note(search.announcement())
    if searches and config.rerank:
        raise ConfigError(
            f"rerank: {', '.join(searches)} is searched, but a second stage needs full"
            " rankings in memory; leave --rerank out, or use --index auto"
        )
    if config.shards and not searches:
        raise ConfigError(
            f"shards = {config.shards}: no task is searched, so there is no corpus to divide;"
            " add --index exact"
        )
    return searches


def _columns(evaluation: Evaluation, searches: "Mapping[str, Search]") -> tuple[str, ...]:
    """The columns of the scores per query, if some of the tasks are searched."""
    config = evaluation.config
    names: list[str] = []
    if len(searches) < len(evaluation.tasks) or not evaluation.tasks:
        names += ranked_names(config.cutoffs)
    if searches:
        names += searched_names(config.cutoffs, config.depth)
    return tuple(dict.fromkeys(names))


def _write(
    evaluation: Evaluation,
    folder: Path,
    model: Mapping[str, Any],
    tasks: Sequence[Mapping[str, Any]],
    official: Sequence[Mapping[str, Any]] = (),
    left_out: "Sequence[LeftOut]" = (),
) -> None:
    without_score = [asdict(one) for one in left_out]
    write_json(
        folder / RESULT,
        {
            "schema_version": SCHEMA_VERSION,
            "kind": "eval",
            "hybridbatch": hybridbatch.__version__,
            "config": evaluation.config.as_json(),
            "model": model,
            "versions": versions(),
            "hardware": hardware(str(evaluation.machine.device)),
            "tasks": tasks,
            "official": official,
            **({"left_out": without_score} if without_score else {}),
            "files": {FILE: file_checksum(folder / FILE)},
        },
        sealed=True,
    )


def plan(config: EvalConfig) -> list[dict[str, Any]]:
    """What `evaluate` would score: one row for each task.

    It loads no model and no mteb data, downloads nothing, and writes nothing. If the data of a task
    is not on this machine, its row says what would be downloaded.

    Raises:
        As `evaluate`, for tasks and languages.
    """
    evaluation, absent = Evaluation.plan_of_what_is_here(config)
    rows = [*map(evaluation.planned, evaluation.tasks), *evaluation.planned_official()]
    return rows + absent
