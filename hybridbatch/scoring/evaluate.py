"""`hybridbatch eval`: every language pair and the multilingual pool of each task, each distinct
text encoded once.
"""

import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hybridbatch
from hybridbatch.common.errors import ConfigError, DataError, Interrupted
from hybridbatch.common.files import make_folder, output_errors, plain_name, read_json, write_json
from hybridbatch.common.languages import canonical, known_languages, resolve
from hybridbatch.common.progress import SILENT, Reporter
from hybridbatch.common.provenance import hardware, versions
from hybridbatch.common.records import Task
from hybridbatch.common.settings import memory_bytes
from hybridbatch.data.tasks.registry import TASKS, load_task
from hybridbatch.scoring.full_ranking import metric_names, pools_of, score_rankings
from hybridbatch.scoring.per_query import FILE, Writer, writing
from hybridbatch.scoring.settings import BM25, RANDOM, EvalConfig
from hybridbatch.scoring.summary import describe

if TYPE_CHECKING:
    from hybridbatch.scoring.rankers import Ranker
    from hybridbatch.scoring.reranking.stage import SecondStage
    from hybridbatch.scoring.top_k import Search
    from hybridbatch.search.embeddings import EmbeddingStore

RESULT = "eval.json"
SECOND = "reranked"  # folder, within the evaluation's, of the scores after the second stage
SCHEMA_VERSION = 1


def evaluate(
    config: EvalConfig,
    report: Reporter = SILENT,
    *,
    tasks: Sequence[Task] | None = None,
    store: "EmbeddingStore | None" = None,
) -> Path:
    """Score an encoder and write ``per_query.parquet`` and, last, ``eval.json``; returns their
    folder.

    Args:
        tasks: what `load_tasks` gives for these settings, where it has been called already.
        store: what `open_store` gives for them.
    Raises: `HybridBatchError` for tasks, languages, models or files that cannot be used,
        `Interrupted` when stopped; an earlier evaluation in the folder is then as it was.
    """
    trained = trained_languages(config)
    tasks, official = _chosen_tasks(config, trained, tasks)
    from hybridbatch.common.device import resolve_device
    from hybridbatch.scoring.mteb.stage import score_official

    device = str(resolve_device(config.device))
    scorer = open_scorer(config, device, store, report)
    second_stage = None
    if config.rerank:
        from hybridbatch.scoring.reranking.stage import SecondStage

        second_stage = SecondStage.load(config, report)
        second_stage.announce(tasks)
    folder = make_folder(config.out or Path("experiments") / (config.name or default_name(config)))
    searches = open_searches(config, tasks, trained, scorer.store, device, report)
    if not leads(config):
        for search in searches.values():
            search.encode(part_of(config))
        return folder
    model = {"name": config.model, **scorer.facts, "trained_languages": list(trained)}
    try:
        with writing(folder / FILE, _columns(config, tasks, searches)) as writer:
            summaries = [
                _searched(searches[task.name], trained, writer)
                if task.name in searches
                else _summary(config, task, scorer.ranker(task), trained, writer, report)
                for task in tasks
            ]
            scored = []
            if scorer.store:
                dimension = scorer.store.encoder.dimension
                embed = partial(scorer.store.embed, report=report)
                scored = score_official(
                    config, official, embed, scorer.store.fingerprint, dimension, folder, report
                )
            with output_errors(folder / RESULT):
                # so that it never stands beside another run's scores
                (folder / RESULT).unlink(missing_ok=True)
        _write(folder, config, device, model, summaries, scored)
        if second_stage:
            second = make_folder(folder / SECOND)
            with writing(second / FILE, metric_names(config.cutoffs)) as writer:
                summaries = [
                    _summary(
                        config, task, scorer.ranker(task), trained, writer, report, second_stage
                    )
                    for task in tasks
                ]
                with output_errors(second / RESULT):
                    (second / RESULT).unlink(missing_ok=True)
            _write(
                second, config, device, {**model, "reranker": second_stage.facts()}, summaries, []
            )
    except KeyboardInterrupt:
        kept = f"; the embeddings so far are kept in {scorer.store.folder}" if scorer.store else ""
        raise Interrupted(f"{folder}: stopped{kept}, run the same command to go on") from None
    return folder


@dataclass(frozen=True)
class Scorer:
    """The model of an evaluation, ready to rank tasks."""

    ranker: "Callable[[Task], Ranker]"
    facts: Mapping[str, Any]  # fingerprint and precision, for eval.json
    store: "EmbeddingStore | None"  # None: it has no embeddings


def open_scorer(
    config: EvalConfig,
    device: str,
    store: "EmbeddingStore | None" = None,
    report: Reporter = SILENT,
) -> Scorer:
    """The model or baseline of the settings. Raises: `ModelError`, `ConfigError`."""
    if config.model == BM25:
        from hybridbatch.scoring.baselines import LexicalRanker, bm25_fingerprint

        return Scorer(LexicalRanker, {"fingerprint": bm25_fingerprint(), "precision": None}, None)
    from hybridbatch.scoring.rankers import EmbeddingRanker

    opened = open_store(config, report) if store is None else store
    embed = partial(opened.embed, report=report)
    return Scorer(
        lambda task: EmbeddingRanker(task, embed, device),
        {"fingerprint": opened.fingerprint, "precision": opened.precision},
        opened,
    )


def _summary(
    config: EvalConfig,
    task: Task,
    ranker: "Ranker",
    trained: Sequence[str],
    writer: Writer,
    report: Reporter,
    second_stage: "SecondStage | None" = None,
) -> dict[str, Any]:
    """Score a task, write the scores of its queries, and describe it."""
    cells, by_language = {}, {}
    pools = pools_of(task, config.pool, trained)
    for scores in score_rankings(
        task, ranker, cutoffs=config.cutoffs, pools=pools, second_stage=second_stage, report=report
    ):
        writer.add(task.name, scores)
        cells[scores.query_language, scores.corpus_language] = scores.means()
        by_language[scores.query_language, scores.corpus_language] = scores.by_language
    return describe(task, cells, trained, by_language)


def _searched(search: "Search", trained: Sequence[str], writer: Writer) -> dict[str, Any]:
    """As `_summary`, by searching; ``search`` says how."""
    cells = {}
    for scores in search.scores():
        writer.add(search.task.name, scores)
        cells[scores.query_language, scores.corpus_language] = scores.means()
    return {**describe(search.task, cells, trained), "search": search.facts()}


def open_searches(
    config: EvalConfig,
    tasks: Sequence[Task],
    trained: Sequence[str],
    store: "EmbeddingStore | None",
    device: str,
    report: Reporter = SILENT,
) -> "dict[str, Search]":
    """By name, the tasks that are searched instead of ranked whole; announces what each needs.

    Raises: `ConfigError` for settings that do not go together.
    """
    if store is None:
        if config.index != "auto":
            raise ConfigError(
                f"index = {config.index}: {config.model} has no embeddings to search; leave --index"
                " out"
            )
        return {}
    from hybridbatch.scoring.top_k import Search, index_for

    searches = {}
    for task in tasks:
        if index := index_for(config, task, store.encoder.dimension):
            pools = pools_of(task, config.pool, trained)
            search = Search(
                task, store, index, config.depth, config.cutoffs, pools, device, config.seed, report
            )
            report.note(search.announcement())
            searches[task.name] = search
    if searches and config.rerank:
        raise ConfigError(
            f"rerank: {', '.join(searches)} is searched, not ranked; a second stage needs rankings"
            " in memory"
        )
    if config.shards and not searches:
        raise ConfigError(
            f"shards = {config.shards}: no task is searched, so there is nothing to share; add"
            " --index exact"
        )
    return searches


def part_of(config: EvalConfig) -> tuple[int, int]:
    """(i, n): the part of the corpora that this process is to encode; (1, 1): all."""
    number, _, parts = (config.shards or "1/1").partition("/")
    return int(number), int(parts)


def leads(config: EvalConfig) -> bool:
    """Whether this process scores and writes; else it only helps to encode: --shards, and
    torchrun's further ones.
    """
    return config.shards is None and os.environ.get("RANK", "0") == "0"


def _columns(
    config: EvalConfig, tasks: Sequence[Task], searches: "Mapping[str, Search]"
) -> tuple[str, ...]:
    """Of the scores per query, for tasks of which some are searched."""
    from hybridbatch.scoring import top_k as large

    ranked = metric_names(config.cutoffs) if len(searches) < len(tasks) or not tasks else ()
    searched = large.metric_names(config.cutoffs, config.depth) if searches else ()
    return tuple(dict.fromkeys([*ranked, *searched]))


def _write(
    folder: Path,
    config: EvalConfig,
    device: str,
    model: Mapping[str, Any],
    tasks: Sequence[Mapping[str, Any]],
    official: Sequence[Mapping[str, Any]],
) -> None:
    write_json(
        folder / RESULT,
        {
            "schema_version": SCHEMA_VERSION,
            "kind": "eval",
            "hybridbatch": hybridbatch.__version__,
            "config": config.as_json(),
            "model": model,
            "versions": versions(),
            "hardware": hardware(device),
            "tasks": tasks,
            "official": official,
        },
    )


def plan(config: EvalConfig) -> list[dict[str, Any]]:
    """What `evaluate` would score: a row for each task. Loads no model and no mteb data, and writes
    nothing.

    Raises: as `evaluate`, for tasks and languages.
    """
    trained = trained_languages(config)
    tasks, official = _chosen_tasks(config, trained)
    rows = []
    for task in tasks:
        summary = describe(task, {}, trained)
        rows.append(
            {
                "task": task.name,
                "query languages": len(task.queries),
                "corpus languages": len(task.corpus),
                "queries": sum(summary["counts"]["queries"].values()),
                "passages": sum(summary["counts"]["passages"].values()),
                "distinct texts": summary["counts"]["distinct_texts"],
                "pool": "yes" if task.parallel else "no",
                **({"to rerank": _reranked_pairs(task, config)} if config.rerank else {}),
            }
        )
    return rows + [
        {"task": f"mteb {task.metadata.name}", "query languages": None, "corpus languages": None, "queries": None,
         "passages": None, "distinct texts": None, "pool": "no"}
        for task in official
    ]  # fmt: skip


def _reranked_pairs(task: Task, config: EvalConfig) -> int:
    """Query-passage pairs that a second stage reads at most."""
    from hybridbatch.scoring.reranking.stage import rankings

    return rankings(task) * min(
        config.rerank_depth, sum(len(texts.ids) for texts in task.corpus.values())
    )


def split_names(config: EvalConfig) -> tuple[list[str], list[str]]:
    """The tasks that are ours or the user's, and the names left for mteb; a benchmark alone
    replaces the default task.
    """
    names = () if config.benchmark and "tasks" not in config.model_fields_set else config.tasks
    own = [name for name in names if name.partition(":")[0] in TASKS or Path(name).is_dir()]
    others = [name for name in names if name not in own]
    if config.model == BM25 and (others or config.benchmark):
        raise ConfigError(
            "model = bm25 has no embeddings, which mteb's tasks"
            f" ({', '.join(filter(None, [*others, config.benchmark]))}) are"
            " scored with; evaluate built-in tasks and folders with it"
        )
    return own, others


def open_store(config: EvalConfig, report: Reporter = SILENT) -> "EmbeddingStore":
    """The stored embeddings of the settings' model, which is loaded. Raises: `ModelError`,
    `ConfigError`.
    """
    from hybridbatch.common.device import resolve_device, resolve_precision
    from hybridbatch.model import Encoder
    from hybridbatch.search.embeddings import EmbeddingStore

    device = resolve_device(config.device)
    limit = None if config.cache_limit is None else memory_bytes(config.cache_limit)
    if config.model == RANDOM:
        from hybridbatch.scoring.baselines import RandomEncoder

        return EmbeddingStore(
            RandomEncoder(config.seed), config.cache, dtype=config.stored_as, max_bytes=limit
        )
    encoder = Encoder.load(config.model, **config.encoder_options, report=report).to(device)
    precision = resolve_precision(config.precision, device)
    return EmbeddingStore(
        encoder, config.cache, precision=precision, dtype=config.stored_as, max_bytes=limit
    )


def _chosen_tasks(
    config: EvalConfig, trained: Sequence[str], tasks: Sequence[Task] | None = None
) -> tuple[Sequence[Task], list[Any]]:
    """The project's tasks (`tasks`, if given) and mteb's. Raises as `evaluate`, for tasks and
    languages.
    """
    from hybridbatch.scoring.mteb.stage import official_tasks, spoken

    own, others = split_names(config)
    tasks = load_tasks(config, own, trained) if tasks is None else tasks
    official = official_tasks(config, others, trained)
    # each task was asked for the languages that it has; every named one must be in some task
    if config.several:
        codes = [code for task in tasks for code in [*task.queries, *task.corpus]]
        resolve(
            config.languages,
            dict.fromkeys(codes + [code for task in official for code in spoken(task)]),
            trained,
        )
    return tasks, official


def load_tasks(config: EvalConfig, names: Sequence[str], trained: Sequence[str]) -> list[Task]:
    """The tasks of an evaluation, each in those of the languages that it has.

    Raises: `ConfigError` for unknown tasks, two of one name, and one with none of the languages;
    `DataError` for bad data.
    """
    languages = config.task_languages
    tasks = [
        load_task(name, data_root=config.data_root, languages=languages, trained=trained)
        for name in names
    ]
    for name, count in Counter(task.name for task in tasks).items():
        if count > 1:
            raise ConfigError(
                f"tasks = {','.join(config.tasks)!r}: {count} tasks are called {name!r}; rename one"
            )
    return tasks


def trained_languages(config: EvalConfig) -> tuple[str, ...]:
    """The languages the model was trained on: as the settings say, else as the run folder's
    train.json says, else none.

    Raises: `ConfigError` for unknown languages.
    """
    if config.trained_languages is not None:
        return resolve(config.trained_languages, known_languages())
    facts = Path(config.model) / "train.json"
    if not facts.is_file():
        return ()
    try:
        return tuple(canonical(code) for code in read_json(facts)["trained_languages"])
    except (KeyError, TypeError) as error:
        raise DataError(
            f"{facts}: does not say the languages of the training; give them with"
            " --trained-languages"
        ) from error


def default_name(config: EvalConfig) -> str:
    """A folder name made from model and tasks."""
    parts = [Path(config.model).name, *(Path(name).name for name in config.tasks)]
    return plain_name("-".join(["eval", *parts]))
