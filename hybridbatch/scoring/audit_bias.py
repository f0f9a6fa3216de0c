"""`hybridbatch audit-bias`: which languages does a model hide, and does centring mend it?

The passages of all languages of a task are one pool. The audit compares the model as it is, the
model without its language vectors, and BM25. Unless language vectors are given, they are the means
of the task's own texts, cross-fitted. The texts are split into halves by the passage that they
belong to, and each half is turned by the means of the other half. So no text takes part in its own
estimate.

The audit looks at queries in other languages. A language is *hidden* if these queries find its
relevant passages among the first 20 less often than those of the other languages, and the whole
interval of the difference is below -`MARGIN`. Intervals draw questions, with all their languages,
with replacement. In a task of two languages, no query has two other languages to compare. The audit
then says so, and names no language.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

import hybridbatch
from hybridbatch.common.errors import ConfigError, DataError
from hybridbatch.common.files import make_folder, plain_name, write_json, write_text
from hybridbatch.common.languages import language
from hybridbatch.common.progress import SILENT, Reporter
from hybridbatch.common.records import Task
from hybridbatch.common.seeding import stream
from hybridbatch.data.tasks.registry import load_task
from hybridbatch.debias.cross_fit import cross_fit
from hybridbatch.debias.methods import centre
from hybridbatch.scoring import metrics
from hybridbatch.scoring.audit_page import page
from hybridbatch.scoring.audit_settings import AuditConfig
from hybridbatch.scoring.averages import POOL
from hybridbatch.scoring.columns import K
from hybridbatch.scoring.full_ranking import pools_of
from hybridbatch.scoring.pool_bias import pool_bias
from hybridbatch.scoring.rank_correlation import mean_rank_correlation
from hybridbatch.scoring.ranks import Corpus, Passages, Relevance, Wanted, relevant_ranks
from hybridbatch.scoring.significance import bootstrap_interval

DEPTH = 20  # the k of TLR@k that its paper reports
CUTOFFS = (10, DEPTH, 100)
MARGIN = 0.02  # difference in TLR@20; a language with a smaller gap is not hidden
DRAWS = 2000
RESULT, PAGE = "audit.json", "audit.html"
AS_IS, CENTRED, LEXICAL = "as it is", "centred", "BM25"
MEASURES: Mapping[str, str] = {
    "average_precision": "mAP in the pool",
    "rank_distance": "rank distance",
    "lpr": "LPR",
    f"same_language_share@{K}": f"same-language share of the first {K}",
    "peer@100": "PEER@100",
    f"tlr@{DEPTH}": f"TLR@{DEPTH}",
}
CORRELATION = {f"mrc@{K}": f"MRC@{K}"}
Vectors = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Line:
    """The measures of one ranking of the pool.

    Attributes:
        questions: names of the n judged queries, of all query languages.
        asked_in: the language of each query.
        measures: float64 [n] by name; NaN if a query does not have the measure.
        found: float64 [n, L]: share of the query's relevant passages in each language among the
            first 20. NaN for the query's own language, and if there are no relevant passages.
        correlation: MRC@10, or None.
    """

    questions: list[str]
    asked_in: list[str]
    measures: Mapping[str, np.ndarray]
    found: np.ndarray
    correlation: Mapping[str, Any] | None


def audit(config: AuditConfig, report: Reporter = SILENT) -> tuple[Path, dict[str, Any]]:
    """Audit a model or vectors; writes ``audit.json`` and ``audit.html``.

    Returns:
        The folder of both files, and the content of the JSON.

    Raises:
        HybridBatchError: a task without a pool, or a model or vectors that cannot be used.
    """
    task = load_task(config.task, data_root=config.data_root, languages=config.languages)
    if not pools_of(task, (), ()) or len(task.corpus) < 2:
        raise ConfigError(
            f"task = {config.task}: has no pool of languages that hold the same answers; an"
            " audit needs parallel corpora in two languages or more"
        )
    queries, passages, model = _vectors(config, task, report)
    turned_queries, turned_passages, how = _turned(
        config, task, queries, passages, model, report
    )
    lines = {
        AS_IS: _line(task, queries, passages),
        CENTRED: _line(task, turned_queries, turned_passages),
        LEXICAL: _lexical_line(task),
    }
    result = {
        "schema_version": 1,
        "kind": "audit-bias",
        "hybridbatch": hybridbatch.__version__,
        "config": config.as_json(),
        "model": model,
        "task": {"name": task.name, "about": task.about, "provenance": dict(task.provenance)},
        "centred": how,
        "languages": list(task.corpus),
        "query_languages": list(task.queries),
        "lines": {name: _summary(line, config.seed) for name, line in lines.items()},
        "by_language": _by_language(task, lines, config.seed),
    }
    result["answer"] = answer(result)
    name = f"audit-{Path(config.model).name}-{Path(config.task).name}"
    folder = make_folder(config.out or Path(plain_name(name)))
    write_json(folder / RESULT, result)
    write_text(folder / PAGE, page(result, {**MEASURES, **CORRELATION}))
    return folder, result


def _vectors(
    config: AuditConfig, task: Task, report: Reporter
) -> tuple[Vectors, Vectors, dict[str, Any]]:
    """Queries and passages by language, and a description of their source."""
    if config.vectors is not None:
        queries = _read_side(config.vectors, "queries", task.queries)
        passages = _read_side(config.vectors, "corpus", task.corpus)
        widths = {rows.shape[1] for rows in (*queries.values(), *passages.values())}
        if len(widths) > 1:
            raise DataError(
                f"{config.vectors}: the vectors have {' and '.join(map(str, sorted(widths)))}"
                " dimensions; encode all texts with one model"
            )
        return queries, passages, {"name": config.vectors.name, "fingerprint": None}
    from hybridbatch.scoring.debias import open_store
    from hybridbatch.scoring.forecast import tell
    from hybridbatch.scoring.rankers import embed_by_language

    queries_here = [texts.texts for texts in task.queries.values()]
    passages_here = [texts.texts for texts in task.corpus.values()]
    tell(config, queries_here, passages_here, "the audit", report)
    store = open_store(config, report)
    embed = partial(store.embed, report=report)
    facts = {
        "name": config.model,
        "fingerprint": store.fingerprint,
        "precision": store.precision,
    }
    queries = embed_by_language(task.queries, "query", embed)
    return queries, embed_by_language(task.corpus, "passage", embed), facts


def _read_side(folder: Path, name: str, side: Mapping[str, Any]) -> dict[str, np.ndarray]:
    from hybridbatch.debias.index_files import open_index

    found = {}
    for code, texts in side.items():
        path = folder / f"{name}.{code}.npy"
        index = open_index(path)
        if index.shape[0] != len(texts.ids):
            raise DataError(
                f"{path}: has {index.shape[0]} vectors, but the task has {len(texts.ids)}"
                f" {name} in {code}; write one row for each text, in the order of the task's"
                " file"
            )
        rows = index.read(0, index.shape[0]).astype(np.float32)
        if not np.isfinite(rows).all():
            bad = int(np.flatnonzero(~np.isfinite(rows).all(axis=1))[0])
            raise DataError(f"{path}: vector {bad} holds NaN or infinite numbers")
        lengths = np.linalg.norm(rows, axis=1, keepdims=True)
        found[code] = rows / np.where(lengths > 0, lengths, 1)
    return found


def _turned(
    config: AuditConfig,
    task: Task,
    queries: Vectors,
    passages: Vectors,
    model: Mapping[str, Any],
    report: Reporter,
) -> tuple[Vectors, Vectors, dict[str, Any]]:
    """Subtract the language vectors, and describe in JSON how."""
    if config.debias:
        from hybridbatch.debias.vectors_file import read_vectors

        vectors = read_vectors(config.debias)
        if model["fingerprint"] is not None:
            vectors.require_model(model["fingerprint"], model["name"])
        for sentence in vectors.tell({"query": task.queries, "passage": task.corpus}):
            report.warn(sentence)
        return (
            {name: vectors.apply(rows, "query", name) for name, rows in queries.items()},
            {name: vectors.apply(rows, "passage", name) for name, rows in passages.items()},
            vectors.summary(),
        )
    halves = _halves(task, config.seed)
    if len(halves) < 2:
        raise ConfigError(
            f"task = {config.task}: has one passage in each language, and a mean of other passages"
            " needs two; give language vectors with --debias"
        )
    of_query = _passage_of_question(task)
    query_halves = {
        name: np.array([halves.get(of_query.get(q, ""), 0) for q in texts.ids])
        for name, texts in task.queries.items()
    }
    passage_halves = {
        name: np.array([halves[p] for p in texts.ids]) for name, texts in task.corpus.items()
    }
    return (
        cross_fit(queries, query_halves, centre),
        cross_fit(passages, passage_halves, centre),
        {
            "method": {"name": "centre", "scope": "language"},
            "cross-fitted": "halves of passages",
        },
    )


def _halves(task: Task, seed: int) -> dict[str, int]:
    """The half of each passage id, 0 or 1."""
    ids: dict[str, None] = {}
    for texts in task.corpus.values():
        ids |= dict.fromkeys(texts.ids)
    order = stream(seed, "audit halves").permutation(len(ids)).tolist()
    return {name: place % 2 for name, place in zip(ids, order, strict=True)}


def _passage_of_question(task: Task) -> dict[str, str]:
    """The first relevant passage of each question."""
    found: dict[str, str] = {}
    for judged in task.qrels.values():
        for question, row in judged.items():
            relevant = [name for name, grade in row.items() if grade > 0]
            if relevant:
                found.setdefault(question, relevant[0])
    return found


def _line(task: Task, queries: Vectors, passages: Vectors) -> Line:
    ids = {name: texts.ids for name, texts in task.corpus.items()}
    corpus = Corpus(dict(passages), ids)
    wanted = _wanted(task)

    def ranked(name: str, judged: Mapping[str, Relevance]) -> Any:
        return relevant_ranks(queries[name], corpus, judged, wanted)

    joined = np.concatenate([passages[name] for name in task.corpus])
    return _measured(task, corpus, ranked, mean_rank_correlation(task, queries, joined))


def _lexical_line(task: Task) -> Line:
    from hybridbatch.scoring.baselines import LexicalRanker

    ranker, wanted = LexicalRanker(task), _wanted(task)
    return _measured(
        task, ranker.passages, lambda name, judged: ranker.ranks(name, judged, wanted), None
    )


def _wanted(task: Task) -> Wanted:
    return Wanted({POOL: tuple(task.corpus)}, languages=False, top_k=K)


def _measured(
    task: Task, corpus: Passages, ranked: Any, correlation: Mapping[str, Any] | None
) -> Line:
    """The measures of every judged query in the pool of all languages."""
    questions: list[str] = []
    asked_in: list[str] = []
    parts: list[Mapping[str, np.ndarray]] = []
    found = []
    for name, texts in task.queries.items():
        judged = {
            code: Relevance.of(tuple(texts.ids), corpus_texts.ids, task.qrels[code])
            for code, corpus_texts in task.corpus.items()
            if code in task.qrels
        }
        ranks = ranked(name, judged).pools[POOL]
        kept = np.flatnonzero(ranks.judged)
        if not len(kept):
            continue
        bias = pool_bias(ranks, corpus, name, CUTOFFS, tuple(task.corpus)).per_query
        precision = metrics.average_precision(ranks.ranks[kept])
        parts.append({"average_precision": precision, **bias})
        questions += [texts.ids[row] for row in kept.tolist()]
        asked_in += [name] * len(kept)
        found.append(_found(ranks.ranks[kept], ranks.language, corpus, name))
    if not parts:
        raise DataError(f"{task.name}: no query has a relevant passage")
    measures = {}
    for measure in MEASURES:
        columns = [
            part.get(measure, np.full(len(part["average_precision"]), np.nan)) for part in parts
        ]
        measures[measure] = np.concatenate(columns)
    return Line(questions, asked_in, measures, np.concatenate(found), correlation)


def _found(ranks: np.ndarray, columns: np.ndarray, corpus: Passages, own: str) -> np.ndarray:
    """float64 [n, L]: share of the relevant passages in each language among the first 20."""
    out = np.full((len(ranks), len(corpus.languages)), np.nan)
    for number, name in enumerate(corpus.languages):
        if name == own:
            continue
        inside = ranks[:, columns == number]
        relevant = (inside > 0).sum(axis=1)
        hits = ((inside > 0) & (inside <= DEPTH)).sum(axis=1)
        able = relevant > 0
        out[able, number] = hits[able] / relevant[able]
    return out


def _summary(line: Line, seed: int) -> dict[str, Any]:
    """Means over query languages of each measure, with intervals over questions."""
    rows: dict[str, Any] = {}
    for name, values in line.measures.items():
        if not np.isnan(values).all():
            rows[name] = _interval(line.questions, values, seed)
    if line.correlation:
        rows[f"mrc@{K}"] = {"mean": line.correlation["mean"]}
    return rows


def _interval(questions: Sequence[str], values: np.ndarray, seed: int) -> dict[str, float]:
    """Mean of the values that are not NaN, and its interval over resampled questions."""
    there = ~np.isnan(values)
    clusters = np.unique(
        np.asarray(questions, dtype=object)[there].astype(str), return_inverse=True
    )
    sums = np.bincount(clusters[1], values[there])[:, None]
    counts = np.bincount(clusters[1]).astype(np.float64)[:, None]
    low, high = bootstrap_interval(sums, counts, seed=seed, draws=DRAWS)
    mean = float(values[there].mean())
    return {"mean": mean, "low": float(low[0]), "high": float(high[0])}


def _by_language(task: Task, lines: Mapping[str, Line], seed: int) -> list[dict[str, Any]]:
    """A row for each passage language: how well queries in other languages find its passages.

    The row has the difference from the other languages, which is negative for a hidden language.
    It lacks the difference if no query has relevant passages in two languages besides its own.
    """
    rows = []
    for number, name in enumerate(task.corpus):
        row: dict[str, Any] = {"language": name, "name": language(name).name}
        for label, line in lines.items():
            own = line.found[:, number]
            if np.isnan(own).all():
                continue
            row[label] = {f"tlr@{DEPTH}": _interval(line.questions, own, seed)}
            rest = np.delete(line.found, number, axis=1)
            able = ~np.isnan(own) & ~np.isnan(rest).all(axis=1)
            if not able.any():
                continue
            gap = own[able] - np.nanmean(rest[able], axis=1)
            asked = np.asarray(line.questions, dtype=object)[able].tolist()
            row[label]["gap"] = _interval(asked, gap, seed)
            row[label]["hidden"] = row[label]["gap"]["high"] < -MARGIN
        rows.append(row)
    return rows


def answer(result: Mapping[str, Any]) -> str:
    """One sentence: which languages does the model hide, and does centring mend it?"""
    hidden = list(_hidden(result, AS_IS))
    pool = result["lines"][AS_IS]["average_precision"]["mean"]
    mended = result["lines"][CENTRED]["average_precision"]["mean"]
    change = f"mAP in the pool {pool:.3f} -> {mended:.3f}"
    if not any("gap" in row.get(AS_IS, {}) for row in result["by_language"]):
        found = [result["lines"][label][f"tlr@{DEPTH}"]["mean"] for label in (AS_IS, CENTRED)]
        return (
            f"{result['model']['name']} on {result['task']['name']}: which of"
            f" {len(result['languages'])} languages is hidden cannot be told, because no query has"
            " relevant passages in two languages besides its own; centring:"
            f" TLR@{DEPTH} {found[0]:.3f} -> {found[1]:.3f}, {change}."
        )
    if not hidden:
        return (
            f"{result['model']['name']} hides none of {len(result['languages'])} languages on"
            f" {result['task']['name']}; centring: {change}."
        )
    still = set(_hidden(result, CENTRED))
    gone = [name for name in hidden if name not in still]
    shown = ", ".join(hidden[:12]) + (
        f" and {len(hidden) - 12} more" if len(hidden) > 12 else ""
    )
    rows = {row["language"]: row for row in result["by_language"]}
    found = [
        float(np.mean([rows[name][label][f"tlr@{DEPTH}"]["mean"] for name in hidden]))
        for label in (AS_IS, CENTRED)
    ]
    change = f"their TLR@{DEPTH} {found[0]:.3f} -> {found[1]:.3f}, {change}"
    if not gone:
        rises = "raises them all the same, but they stay behind the others"
        mends = (
            f"centring {rises}" if found[1] > found[0] + MARGIN else "centring does not mend it"
        )
    elif len(gone) == len(hidden):
        mends = "centring mends it"
    else:
        mends = f"centring mends {len(gone)} of {len(hidden)}"
    if mended < pool:
        mends += ", but costs precision"
    return (
        f"{result['model']['name']} hides {len(hidden)} of {len(result['languages'])} languages on"
        f" {result['task']['name']}: {shown}; {mends} ({change})."
    )


def _hidden(result: Mapping[str, Any], label: str) -> Iterator[str]:
    """The hidden languages, the most hidden first."""
    rows = [row for row in result["by_language"] if row.get(label, {}).get("hidden")]
    for row in sorted(rows, key=lambda row: row[label]["gap"]["mean"]):
        yield row["language"]
