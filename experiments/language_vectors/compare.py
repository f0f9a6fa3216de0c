"""Every method and every source of means, on XQuAD-R and belebele-sib: which help, which hurt?

    python experiments/language_vectors/compare.py xquad-r|belebele-nine|belebele-all TEXTS
        [--data-root FOLDER] [--training PREPARED] [--only REGEX]

TEXTS is what `collect.py` wrote. PREPARED is training data that `hybridbatch prepare` made, here
from experiments/study2/data.yaml: it adds the training data as a source. The tasks come from copies
or clones under FOLDER, else from their public homes. Nothing is trained. A vector never takes part in the estimate that
it is turned by: the collection's own means come from the other half of its articles (XQuAD-R) or
passages (belebele-sib), questions going with the article that answers them. Differences from the
untouched vectors are paired by question; intervals draw articles (passages), with all their
questions and languages, with replacement.

Writes ``experiments/language_vectors/compare/TASK.json`` after every variant; `report.py` makes the
tables. The same command goes on where an earlier one stopped.
"""

import argparse
import json
import re
import sys
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch

from hybridbatch.common.device import resolve_precision
from hybridbatch.common.errors import DataError, HybridBatchError
from hybridbatch.common.files import make_folder, read_json, write_json
from hybridbatch.common.provenance import versions
from hybridbatch.common.records import Task
from hybridbatch.common.seeding import stream
from hybridbatch.data.store.reader import Store
from hybridbatch.data.tasks.registry import load_task
from hybridbatch.debias.cross_fit import fold_of_groups
from hybridbatch.debias.fit import Method, joined
from hybridbatch.debias.methods import Debiasing, Moments
from hybridbatch.model import Encoder
from hybridbatch.scoring.significance import bootstrap_interval
from hybridbatch.search.embeddings import EmbeddingStore

HERE = Path(__file__).parent
NINE = (
    "eng,amh,hau,ibo,khm,swh,tir,wol,yor"  # English and the study's eight zero-shot languages
)
FIVE = ("arb", "deu", "eng", "hin", "tha")
PARAGRAPHS = 5  # of an article of XQuAD, in order
SEED = 13
HALVINGS = {"xquad-r": 1, "belebele-nine": 10, "belebele-all": 2}  # random ones, averaged
SOURCES = ("ntrex", "tico19", "bible", "stories")
PASSAGES, QUERIES = 100, 50  # texts of each language and source
TRAINING = 50  # training pairs of each language
AS_QUERIES = 200  # passages of each language that are encoded as queries
CODE = 3  # raised when a variant's meaning changes, so that no row of an earlier run is kept
MEASURES = ("mono", "cross", "pool", "rank_distance", "tlr@20")
Vectors = Mapping[str, np.ndarray]
Sides = Mapping[str, Vectors]


@dataclass(frozen=True)
class Measured:
    """A task with its vectors, and the article of each text."""

    task: Task
    vectors: Sides
    halvings: int  # number of random halvings that a cross-fitted result is the mean of
    as_queries: Vectors  # vectors of some passages of each query language, encoded as queries
    as_queries_places: Mapping[str, np.ndarray]  # their places among the passages
    groups: Mapping[str, Mapping[str, Sequence[str]]]  # by side and language, of each text

    def halves(self, seed: int) -> dict[str, dict[str, np.ndarray]]:
        """The half, 0 or 1, of each text."""
        every = sorted({name for own in self.groups["passage"].values() for name in own})
        fold = fold_of_groups(every, 2, seed)
        return {
            side: {
                language: np.array([fold[name] for name in names])
                for language, names in by_language.items()
            }
            for side, by_language in self.groups.items()
        }


def main() -> None:
    """Score every variant and write the file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("task", choices=tuple(HALVINGS))
    parser.add_argument("texts", type=Path)
    parser.add_argument("--data-root", type=Path)
    parser.add_argument("--training", type=Path, help="prepared training data")
    parser.add_argument("--only", default="", help="a regular expression of variants")
    options = parser.parse_args()
    nine = options.task == "belebele-nine"
    name = "xquad-r" if options.task == "xquad-r" else "belebele-sib"
    task = load_task(name, data_root=options.data_root, languages=NINE if nine else "all")
    # belebele-sib at the lengths of the committed study, to be comparable with it
    lengths = {"max_query_tokens": 32, "max_passage_tokens": 96} if name != "xquad-r" else {}
    precision = resolve_precision("auto", torch.device("cpu"))
    store = EmbeddingStore(Encoder.load("e5-small-q4", **lengths), precision=precision)
    elsewhere = EmbeddingStore(Encoder.load("e5-small-q4"), precision=precision)
    if options.training:
        Store.open(options.training)  # refused before the work if it is none
    texts = source_vectors(options.texts, elsewhere)
    collection = embedded(task, store, HALVINGS[options.task])
    if options.training:
        texts["training"] = training_vectors(options.training, task.corpus, elsewhere)
    base = measured(collection, collection.vectors)
    references: dict[str, np.ndarray] = {"untrained": base}
    found = variants(collection, texts)
    made = {label: make for label, make, _ in found}

    def scores_of(label: str) -> np.ndarray:
        return np.mean([measured(collection, one) for one in made[label]()], axis=0)

    rows = earlier(options.task, store)
    for label, _, against in found:
        if label in rows or not re.search(options.only, label):
            continue
        began = time.monotonic()
        scores = base if label == "untrained" else scores_of(label)
        row = {"variant": label, **summary(collection, scores, base)}
        if against:
            if against not in references:
                references[against] = scores_of(against)
            row["against"] = {
                "variant": against, **summary(collection, scores, references[against])
            }  # fmt: skip
        rows[label] = row
        said = {name: round(row[name]["mean"], 4) for name in MEASURES}
        sys.stdout.write(f"{label}: {said} ({time.monotonic() - began:.0f} s)\n")
        sys.stdout.flush()
        write(options.task, task, store, [rows[one] for one in made if one in rows])
    if options.task == "xquad-r" and not options.only:
        write_json(HERE / "compare" / "five.json", {"rows": five(task, collection, texts)})


def earlier(name: str, store: EmbeddingStore) -> dict[str, dict[str, Any]]:
    """The rows by variant of an earlier run with the same embeddings."""
    path = HERE / "compare" / f"{name}.json"
    if not path.is_file():
        return {}
    result = read_json(path)
    same = result["model"]["fingerprint"] == store.fingerprint
    same = same and result["precision"] == store.precision and result.get("code") == CODE
    return {row["variant"]: row for row in result["rows"]} if same else {}


def write(name: str, task: Task, store: EmbeddingStore, rows: list[dict[str, Any]]) -> None:
    """The results so far."""
    facts = {
        "kind": "language vectors compared",
        "code": CODE,
        "task": task.name,
        "languages": list(task.corpus),
        "provenance": dict(task.provenance),
        "cross-fitted": "means of the collection are never of a text that they are taken off",
        "model": {"name": "e5-small-q4", "fingerprint": store.fingerprint},
        "precision": store.precision,
        "versions": versions(),
        "made": datetime.now(UTC).strftime("%Y-%m-%d"),
    }
    write_json(make_folder(HERE / "compare") / f"{name}.json", {**facts, "rows": rows})


def embedded(task: Task, store: EmbeddingStore, halvings: int) -> Measured:
    """The vectors and articles of a task."""
    vectors = {
        side: {language: store.embed(one.texts, side) for language, one in texts.items()}
        for side, texts in (("query", task.queries), ("passage", task.corpus))
    }
    answer = {}
    for judged in task.qrels.values():
        for query, row in judged.items():
            answer.setdefault(query, next(iter(row)))
    groups = {
        "query": {
            language: [article(answer[query]) for query in one.ids]
            for language, one in task.queries.items()
        },
        "passage": {
            language: [article(passage) for passage in one.ids]
            for language, one in task.corpus.items()
        },
    }
    places_ = {
        language: np.linspace(0, len(one.ids) - 1, min(AS_QUERIES, len(one.ids))).astype(int)
        for language, one in task.corpus.items()
        if language in task.queries
    }
    as_queries = {
        language: store.embed([task.corpus[language].texts[n] for n in own], "query")
        for language, own in places_.items()
    }
    return Measured(task, vectors, halvings, as_queries, places_, groups)


def article(passage: str) -> str:
    """The article of a passage of XQuAD-R (``en-p017-s2``: the fourth); else the passage itself."""
    found = re.search(r"p(\d+)-s\d+$", passage)
    return f"article-{int(found[1]) // PARAGRAPHS:02d}" if found else passage


def source_vectors(folder: Path, store: EmbeddingStore) -> dict[str, dict[str, dict[str, Any]]]:
    """By source, side and language: the vectors of its first texts."""
    found: dict[str, dict[str, dict[str, Any]]] = {}
    for source in SOURCES:
        texts: dict[str, list[str]] = {}
        for path in sorted((folder / source).glob("*.jsonl")):
            lines = path.read_text(encoding="utf-8").splitlines()[:PASSAGES]
            texts[path.stem] = [json.loads(line)["text"] for line in lines]
        if not texts:
            raise DataError(f"{folder / source}: has no LANG.jsonl; collect.py writes them")
        found[source] = {
            "passage": split(store, texts, "passage", PASSAGES),
            "query": split(store, texts, "query", QUERIES),
        }
    return found


def training_vectors(
    folder: Path, languages: Collection[str], store: EmbeddingStore
) -> dict[str, dict[str, np.ndarray]]:
    """By side and language: the vectors of some training pairs, of the same records in every
    language that has them.
    """
    data = Store.open(folder)
    table = data.columns("train", ["record_id", "language", "query", "passage"]).to_pylist()
    table = [row for row in table if row["language"] in languages]
    order = sorted({row["record_id"] for row in table})
    order = [
        order[place] for place in stream(SEED, "training").permutation(len(order)).tolist()
    ]
    rank = {name: place for place, name in enumerate(order)}
    table.sort(key=lambda row: rank[row["record_id"]])
    texts: dict[str, dict[str, list[str]]] = {"passage": {}, "query": {}}
    for side, by_language in texts.items():
        for row in table:
            by_language.setdefault(row["language"], []).append(row[side])
    return {side: split(store, own, side, TRAINING) for side, own in texts.items()}


def split(
    store: EmbeddingStore, texts: Mapping[str, list[str]], side: str, most: int
) -> dict[str, np.ndarray]:
    """The vectors of each language's first texts, from one call."""
    cut = {language: own[:most] for language, own in texts.items()}
    joined = [text for own in cut.values() for text in own]
    ends = np.cumsum([len(own) for own in cut.values()])[:-1]
    return dict(zip(cut, np.split(store.embed(joined, side), ends), strict=True))


@dataclass(frozen=True)
class Own:
    """How means of the collection itself are estimated, from the texts of the other half.

    Attributes:
        together: one estimate for both sides. copied: that of passages for queries too.
        only: queries stay as they are. most: texts of each language and half.
        among: the languages of the queries, if not all.
        asked: vectors that stand in for queries, of which none are known.
        mixed, prior: vectors of another source: means halfway between, or drawn towards it by the
            number of texts.
    """

    method: Method = field(default_factory=Method)
    together: bool = False
    copied: bool = False
    only: bool = False
    most: int | None = None
    among: Sequence[str] | None = None
    asked: Vectors | None = None
    mixed: Mapping[str, Any] | None = None
    prior: Mapping[str, Any] | None = None


Turned = Callable[[], list[Sides]]
Variant = tuple[str, Turned, str]  # name, vectors, variant to be compared with or ""


def variants(collection: Measured, texts: Mapping[str, Any]) -> list[Variant]:
    """Every variant, the untouched vectors first; each is made when it is asked for."""
    found: list[Variant] = [("untrained", lambda: [collection.vectors], "")]

    def own(
        label: str, method: Method | None = None, against: str = "", **options: Any
    ) -> None:
        how = Own(method or Method(), **options)
        found.append((label, lambda: crossed(collection, how), against))

    def other(
        label: str, method: Method | None = None, against: str = "", **options: Any
    ) -> None:
        source = pooled(texts) if label.startswith("all") else texts[label.partition(":")[0]]
        found.append(
            (label, lambda: [from_texts(collection, source, method, **options)], against)
        )

    methods = {
        "centre global": Method(scope="global"),
        "centre": Method(),
        "centre, not shrunk": Method(shrink=False),
        "lir 1": Method("lir", rank=1),
        "lir 2": Method("lir", rank=2),
        "lsar": Method("lsar"),
        "lsar 4": Method("lsar", rank=4),
        "shift 0.6": Method("shift", alpha=0.6),
        "shift 1": Method("shift"),
        "whiten": Method("whiten"),
        "whiten global": Method("whiten", scope="global"),
    }
    for label, method in methods.items():
        own(f"own: {label}", method)
    for label in ("centre", "centre global", "lir 1", "whiten"):
        own(f"own: {label}, together", methods[label], f"own: {label}", together=True)
    own("own: centre, passages only", only=True)
    for count in (1, 5, 10, 50):
        own(f"own: centre, {count} texts", most=count)
        own(f"own: centre, {count} texts, not shrunk", Method(shrink=False), most=count)
        own(f"own: centre, {count} texts, together", against=f"own: centre, {count} texts",
            most=count, together=True)  # fmt: skip
    few = list(collection.vectors["query"])[::4]
    own("own: centre, queries of every fourth language", among=few)
    own("own: centre, queries of every fourth language, together", among=few, together=True,
        against="own: centre, queries of every fourth language")  # fmt: skip
    # no queries at hand: what stands in for their means
    stands_in = {
        "passages' vectors": {"copied": True},
        "texts as queries": {"asked": collection.as_queries},
        **{f"{source}'s queries": {"asked": texts[source]["query"]} for source in texts},
    }
    for label, options in stands_in.items():
        name = f"own passages, {label}"
        own(name, **options)
        if "asked" in options:
            own(f"{name}, together", against=name, together=True, **options)
    for source in texts:
        other(f"{source}: centre")
        other(f"{source}: centre, together", against=f"{source}: centre", together=True)
    other("ntrex: lir 1", Method("lir"))
    other("ntrex: lsar", Method("lsar"))
    other("ntrex: shift 0.6", Method("shift", alpha=0.6))
    other("all sources: centre")
    other("all sources: centre, together", against="all sources: centre", together=True)
    for source in ("ntrex", "training", "bible"):
        if source in texts:
            other_texts = texts[source]
            own(f"half own, half {source}", mixed=other_texts)
            own(f"10 own texts towards {source}", against="own: centre, 10 texts", most=10,
                prior=other_texts)  # fmt: skip
            own(f"10 own texts towards {source}, together",
                against="own: centre, 10 texts, together", most=10, together=True,
                prior=other_texts)  # fmt: skip
    return found


def crossed(collection: Measured, how: Own) -> list[Sides]:
    """The vectors turned by estimates of the other half, once for each halving."""
    results = []
    for number in range(collection.halvings):
        halves = collection.halves(SEED + number)
        turned: dict[str, dict[str, np.ndarray]] = {
            side: {name: np.empty_like(rows) for name, rows in by_language.items()}
            for side, by_language in collection.vectors.items()
        }
        for half in (0, 1):
            maps = estimated(collection, how, halves, half)
            for side, by_language in collection.vectors.items():
                for name, rows in by_language.items():
                    own = halves[side][name] == half
                    keep = side not in maps or (how.only and side == "query")
                    turned[side][name][own] = (
                        rows[own] if keep else maps[side].apply(rows[own], name)
                    )
        results.append(turned)
    return results


Halves = Mapping[str, Mapping[str, np.ndarray]]


def estimated(
    collection: Measured, how: Own, halves: Halves, half: int
) -> Mapping[str, Debiasing]:
    """The maps of both sides for one half, from the other half."""
    moments = {
        side: Moments.of(rows, products=how.method.products)
        for side, rows in rest(collection, how, halves, half).items()
    }
    maps = how.method.fit_sides(moments, together=how.together)
    away = how.mixed or how.prior
    if away is not None:
        joint = joined(moments["query"], moments["passage"]) if how.together else None
        means = means_of(away, how.together)
        maps = {
            side: blended(one, joint or moments[side], means[side], how.prior is not None)
            for side, one in maps.items()
        }
    return {"passage": maps["passage"], "query": maps["passage"]} if how.copied else maps


def rest(
    collection: Measured, how: Own, halves: Halves, half: int
) -> dict[str, dict[str, np.ndarray]]:
    """The vectors by side and language that the estimate for one half is made from."""
    found = {
        side: {
            name: rows[halves[side][name] != half][: how.most]
            for name, rows in by_language.items()
        }
        for side, by_language in collection.vectors.items()
    }
    if how.among is not None:
        found["query"] = {name: found["query"][name] for name in how.among}
    if how.asked is collection.as_queries:
        found["query"] = {
            name: rows[halves["passage"][name][collection.as_queries_places[name]] != half]
            for name, rows in how.asked.items()
        }
    elif how.asked is not None:
        found["query"] = dict(how.asked)
    return found


def means_of(source: Mapping[str, Vectors], together: bool) -> dict[str, Vectors]:
    """The mean of each side and language; with `together`, of both sides with equal weight."""
    found = {
        side: {name: rows.mean(axis=0) for name, rows in by_language.items() if len(rows)}
        for side, by_language in source.items()
    }
    if together:
        both = {
            name: (found["query"][name] + found["passage"][name]) / 2
            for name in found["query"]
            if name in found["passage"]
        }
        return dict.fromkeys(found, both)
    return found


def blended(own: Debiasing, moments: Moments, away: Vectors, shrunk: bool) -> Debiasing:
    """Offsets halfway to the means of another source, or drawn to them by the number of texts."""
    weights = moments.weights() if shrunk else np.full(len(moments.languages), 0.5)
    offsets = dict(own.offsets)
    for number, name in enumerate(moments.languages):
        if name in away:
            mean = weights[number] * moments.means[number] + (1 - weights[number]) * away[name]
            offsets[name] = mean.astype(np.float32)
    return Debiasing(offsets)


def from_texts(
    collection: Measured,
    source: Mapping[str, Vectors],
    method: Method | None = None,
    *,
    together: bool = False,
) -> Sides:
    """The vectors turned by estimates from another source; a language that it lacks by the global
    one.
    """
    method = method or Method()
    moments = {
        side: Moments.of(rows, products=method.products) for side, rows in source.items()
    }
    maps = method.fit_sides(moments, together=together)
    return {
        side: {
            name: maps[side].apply(rows, name) if side in maps else rows
            for name, rows in by_language.items()
        }
        for side, by_language in collection.vectors.items()
    }


def pooled(texts: Mapping[str, Any]) -> dict[str, dict[str, np.ndarray]]:
    """The vectors of all sources together."""
    joined: dict[str, dict[str, np.ndarray]] = {"passage": {}, "query": {}}
    for side, by_language in joined.items():
        for name in sorted({name for one in texts.values() for name in one[side]}):
            parts = [one[side][name] for one in texts.values() if name in one[side]]
            by_language[name] = np.concatenate(parts)
    return joined


def measured(
    collection: Measured, vectors: Sides, asked: Sequence[str] | None = None
) -> np.ndarray:
    """float64 [query languages, questions, measures]: mono, cross and pool average precision, rank
    distance, TLR@20. Each question has one relevant passage in each language.

    Args:
        asked: of these languages only, pool included.
    """
    task = collection.task
    names = list(asked or task.corpus)
    passages = np.concatenate([vectors["passage"][name] for name in names])
    sizes = [len(vectors["passage"][name]) for name in names]
    start = np.cumsum([0, *sizes])
    out = []
    for name in [one for one in task.queries if one in names or not asked]:
        scores = vectors["query"][name] @ passages.T
        columns = np.stack([
            start[number] + places(task, name, corpus) for number, corpus in enumerate(names)
        ], axis=1)  # fmt: skip
        relevant = np.take_along_axis(scores, columns, axis=1)  # [Q, L]
        own = np.empty(columns.shape)
        for number in range(len(names)):
            inside = scores[:, start[number] : start[number + 1]]
            own[:, number] = (inside > relevant[:, number : number + 1]).sum(axis=1) + 1
        scores.sort(axis=1)
        whole = np.stack([
            scores.shape[1] + 1 - np.searchsorted(row, mine, side="right")
            for row, mine in zip(scores, relevant, strict=True)
        ]).astype(np.float64)  # fmt: skip
        order = np.sort(whole, axis=1)
        pool = (np.arange(1, len(names) + 1) / order).mean(axis=1)
        here = np.array([corpus == name for corpus in names])
        mono = (1 / own[:, here]).mean(axis=1) if here.any() else np.full(len(own), np.nan)
        cross = (1 / own[:, ~here]).mean(axis=1)
        found = (whole[:, ~here] <= 20).mean(axis=1)
        out.append(np.stack([mono, cross, pool, order[:, -1] - order[:, 0], found], axis=1))
    return np.stack(out)


def places(task: Task, query_language: str, corpus: str) -> np.ndarray:
    """int [Q]: the place of each question's relevant passage in a corpus."""
    place = {name: number for number, name in enumerate(task.corpus[corpus].ids)}
    judged = task.qrels[corpus]
    return np.array([place[next(iter(judged[q]))] for q in task.queries[query_language].ids])


def summary(collection: Measured, scores: np.ndarray, base: np.ndarray) -> dict[str, Any]:
    """Means over query languages, and differences from the untouched vectors with intervals."""
    clusters = next(iter(collection.groups["query"].values()))
    numbers = np.unique(clusters, return_inverse=True)[1]
    found = {}
    for number, name in enumerate(MEASURES):
        values, before = scores[:, :, number], base[:, :, number]
        # a question's mean over the query languages that have a score
        mean = np.nanmean(values, axis=0)
        difference = np.nanmean(values - before, axis=0)
        sums = np.bincount(numbers, difference)[:, None]
        counts = np.bincount(numbers).astype(np.float64)[:, None]
        low, high = bootstrap_interval(sums, counts, seed=SEED, draws=2000)
        found[name] = {
            "mean": float(mean.mean()),
            "difference": float(difference.mean()),
            "low": float(low[0]),
            "high": float(high[0]),
        }
    return found


def five(task: Task, collection: Measured, texts: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The five languages and a third of the articles of the first, independent computation: means
    from the other two thirds.
    """
    every = sorted({name for own in collection.groups["passage"].values() for name in own})
    fold = fold_of_groups(every, 3, SEED)
    rows = []
    for label, method in (("untrained", None), ("centre global", Method(scope="global")),
                          ("centre", Method()), ("ntrex: centre", Method())):  # fmt: skip
        scores = []
        for third in range(3):
            part, rest = {}, {}
            for side in ("query", "passage"):
                inside = {
                    name: np.array(
                        [fold[one] == third for one in collection.groups[side][name]]
                    )
                    for name in FIVE
                }
                rest[side] = {n: collection.vectors[side][n][~inside[n]] for n in FIVE}
                part[side] = {n: collection.vectors[side][n][inside[n]] for n in FIVE}
            if method and label.startswith("ntrex"):
                rest = {side: {n: texts["ntrex"][side][n][:64] for n in FIVE} for side in rest}
            if method:
                maps = method.fit_sides(
                    {side: Moments.of(rows_) for side, rows_ in rest.items()}
                )
                part = {
                    side: {n: maps[side].apply(v, n) for n, v in by.items()}
                    for side, by in part.items()
                }
            smaller = restricted(task, {n for n, f in fold.items() if f == third})
            one = Measured(smaller, part, 1, {}, {}, {})
            scores.append(measured(one, part).mean(axis=(0, 1)))
        mean = np.mean(scores, axis=0)
        rows.append({"variant": label, **dict(zip(MEASURES, map(float, mean), strict=True))})
        sys.stdout.write(f"five: {rows[-1]}\n")
    return rows


def restricted(task: Task, articles: set[str]) -> Task:
    """The questions and passages of some articles, in the five languages."""
    from dataclasses import replace

    from hybridbatch.common.records import Texts

    answer = {query: next(iter(row)) for query, row in task.qrels["eng"].items()}

    def part(texts: Texts, of: Callable[[str], str]) -> Texts:
        kept = [
            (i, t)
            for i, t in zip(texts.ids, texts.texts, strict=True)
            if article(of(i)) in articles
        ]
        return Texts(tuple(i for i, _ in kept), tuple(t for _, t in kept))

    return replace(
        task,
        queries={n: part(task.queries[n], lambda q: answer[q]) for n in FIVE},
        corpus={n: part(task.corpus[n], lambda p: p) for n in FIVE},
        qrels={n: task.qrels[n] for n in FIVE},
    )


if __name__ == "__main__":
    try:
        main()
    except HybridBatchError as error:
        sys.stderr.write(f"error: {error}\n")
        sys.exit(2)
