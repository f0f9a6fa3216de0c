"""Every method and every source of means, on XQuAD-R and belebele-sib: which help, which hurt?

    python experiments/language_vectors/compare.py xquad-r|belebele-nine|belebele-all TEXTS
        [--data-root FOLDER] [--until HH:MM]

TEXTS is what `collect.py` wrote. Nothing is trained. A vector never takes part in the estimate that
it is turned by: the collection's own means come from the other half of its articles (XQuAD-R) or
passages (belebele-sib), questions going with the article that answers them. Differences from the
untouched vectors are paired by question; intervals draw articles (passages), with all their
questions and languages, with replacement.

Writes ``experiments/language_vectors/compare/TASK.json``; `report.py` makes the tables.
"""

import argparse
import json
import re
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch

from hybridbatch.common.device import resolve_precision
from hybridbatch.common.files import make_folder, write_json
from hybridbatch.common.provenance import versions
from hybridbatch.common.records import Task
from hybridbatch.data.tasks.registry import load_task
from hybridbatch.debias.cross_fit import fold_of_groups
from hybridbatch.debias.fit import Method
from hybridbatch.debias.methods import Debiasing, Moments
from hybridbatch.model import Encoder
from hybridbatch.scoring.significance import bootstrap_interval
from hybridbatch.search.embeddings import EmbeddingStore

HERE = Path(__file__).parent
NINE = "eng,amh,hau,ibo,khm,swh,tir,wol,yor"  # English and the study's eight zero-shot languages
FIVE = ("arb", "deu", "eng", "hin", "tha")
PARAGRAPHS = 5  # of an article of XQuAD, in order
SEED = 13
HALVINGS = 10  # of belebele-sib, for the rows that other work has computed
SOURCES = ("ntrex", "tico19", "bible", "stories")
PASSAGES, QUERIES = 100, 50  # texts of each language and source
MEASURES = ("mono", "cross", "pool", "rank_distance", "tlr@20")
Vectors = Mapping[str, np.ndarray]
Sides = Mapping[str, Vectors]


@dataclass(frozen=True)
class Collection:
    """A task with its vectors, and the article of each text."""

    task: Task
    vectors: Sides
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
    parser.add_argument("task", choices=("xquad-r", "belebele-nine", "belebele-all"))
    parser.add_argument("texts", type=Path)
    parser.add_argument("--data-root", type=Path)
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
    collection = embedded(task, store)
    texts = source_vectors(options.texts, elsewhere)
    rows, base = [], None
    for label, turned in variants(collection, texts):
        if base is not None and not re.search(options.only, label):
            continue
        began = time.monotonic()
        scores = np.mean([measured(collection, one) for one in turned()], axis=0)
        base = scores if base is None else base
        rows.append({"variant": label, **summary(collection, scores, base)})
        said = {name: round(rows[-1][name]["mean"], 4) for name in MEASURES}
        sys.stdout.write(f"{label}: {said} ({time.monotonic() - began:.0f} s)\n")
        sys.stdout.flush()
        write(options.task, task, store, rows)
    if options.task == "xquad-r" and not options.only:
        write_json(HERE / "compare" / "five.json", {"rows": five(task, collection, texts)})


def write(name: str, task: Task, store: EmbeddingStore, rows: list[dict[str, Any]]) -> None:
    """The results so far."""
    facts = {
        "kind": "language vectors compared",
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


def embedded(task: Task, store: EmbeddingStore) -> Collection:
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
    return Collection(task, vectors, groups)


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
        found[source] = {
            "passage": split(store, texts, "passage", PASSAGES),
            "query": split(store, texts, "query", QUERIES),
        }
    return found


def split(
    store: EmbeddingStore, texts: Mapping[str, list[str]], side: str, most: int
) -> dict[str, np.ndarray]:
    """The vectors of each language's first texts, from one call."""
    cut = {language: own[:most] for language, own in texts.items()}
    joined = [text for own in cut.values() for text in own]
    ends = np.cumsum([len(own) for own in cut.values()])[:-1]
    return dict(zip(cut, np.split(store.embed(joined, side), ends), strict=True))


Turned = Callable[[], list[Sides]]


def variants(collection: Collection, texts: Mapping[str, Any]) -> list[tuple[str, Turned]]:
    """Every variant by name, the untouched vectors first; each is made when it is asked for."""
    found: list[tuple[str, Turned]] = [("untrained", lambda: [collection.vectors])]
    own = {
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
    for label, method in own.items():
        found.append((f"own: {label}", lambda method=method: crossed(collection, method)))
    found.append(("own: centre, together", lambda: crossed(collection, Method(), together=True)))
    found.append(
        ("own: centre, passages for queries", lambda: crossed(collection, Method(), copied=True))
    )
    found.append(("own: centre, passages only", lambda: crossed(collection, Method(), only=True)))
    for count in (5, 10, 50):
        for shrink in (True, False):
            label = f"own: centre, {count} texts" + ("" if shrink else ", not shrunk")
            method = Method(shrink=shrink)
            found.append((label, lambda m=method, n=count: crossed(collection, m, most=n)))
    for source in SOURCES:
        found.append((f"{source}: centre", lambda s=source: [from_texts(collection, texts[s])]))
    for label, method in (("lir 1", Method("lir")), ("lsar", Method("lsar")),
                          ("shift 0.6", Method("shift", alpha=0.6))):  # fmt: skip
        found.append(
            (f"ntrex: {label}", lambda m=method: [from_texts(collection, texts["ntrex"], m)])
        )
    found.append(("all four: centre", lambda: [from_texts(collection, pooled(texts))]))
    found.append(
        ("half own, half ntrex", lambda: crossed(collection, Method(), mixed=texts["ntrex"]))
    )
    found.append(
        ("10 own texts towards ntrex",
         lambda: crossed(collection, Method(), most=10, prior=texts["ntrex"]))
    )  # fmt: skip
    return found


def crossed(
    collection: Collection,
    method: Method,
    *,
    together: bool = False,
    copied: bool = False,
    only: bool = False,
    most: int | None = None,
    mixed: Mapping[str, Any] | None = None,
    prior: Mapping[str, Any] | None = None,
) -> list[Sides]:
    """The vectors turned by estimates of the other half; belebele-sib by several halvings.

    Args:
        together: one estimate for both sides. copied: that of passages for queries too.
        only: queries stay as they are. most: texts of each language and half.
        mixed, prior: vectors of another source: means halfway between, or drawn towards it by the
            number of texts.
    """
    count = 1 if len(collection.groups["query"]) > 2 else HALVINGS
    results = []
    for number in range(count):
        halves = collection.halves(SEED + number)
        turned: dict[str, dict[str, np.ndarray]] = {
            side: {name: np.empty_like(rows) for name, rows in by_language.items()}
            for side, by_language in collection.vectors.items()
        }
        for half in (0, 1):
            moments = {
                side: Moments.of(
                    {
                        name: rows[halves[side][name] != half][:most]
                        for name, rows in by_language.items()
                    },
                    products=method.products,
                )
                for side, by_language in collection.vectors.items()
            }
            maps = method.fit_sides(moments, together=together)
            if mixed or prior:
                maps = {side: blended(one, moments[side], (mixed or prior)[side], prior is not None)
                        for side, one in maps.items()}  # fmt: skip
            if copied:
                maps = {"passage": maps["passage"], "query": maps["passage"]}
            for side, by_language in collection.vectors.items():
                for name, rows in by_language.items():
                    own = halves[side][name] == half
                    keep = side not in maps or (only and side == "query")
                    turned[side][name][own] = (
                        rows[own] if keep else maps[side].apply(rows[own], name)
                    )
        results.append(turned)
    return results


def blended(own: Debiasing, moments: Moments, other: Vectors, shrunk: bool) -> Debiasing:
    """Offsets halfway to the means of another source, or drawn to them by the number of texts."""
    weights = moments.weights() if shrunk else np.full(len(moments.languages), 0.5)
    offsets = dict(own.offsets)
    for number, name in enumerate(moments.languages):
        if name in other:
            away = other[name].mean(axis=0)
            mean = moments.means[number]
            offsets[name] = (weights[number] * mean + (1 - weights[number]) * away).astype(
                np.float32
            )
    return Debiasing(offsets)


def from_texts(
    collection: Collection, source: Mapping[str, Vectors], method: Method | None = None
) -> Sides:
    """The vectors turned by estimates from another source; a language that it lacks by the global
    one.
    """
    method = method or Method()
    moments = {side: Moments.of(rows, products=method.products) for side, rows in source.items()}
    maps = method.fit_sides(moments)
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
    collection: Collection, vectors: Sides, asked: Sequence[str] | None = None
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
    language = np.repeat(np.arange(len(names)), sizes)
    out = []
    for name in [one for one in task.queries if one in names or not asked]:
        scores = vectors["query"][name] @ passages.T
        columns = np.stack([
            start[number] + places(task, name, corpus) for number, corpus in enumerate(names)
        ], axis=1)  # fmt: skip
        relevant = np.take_along_axis(scores, columns, axis=1)  # [Q, L]
        own = np.empty(columns.shape)
        whole = np.empty(columns.shape)
        for number in range(len(names)):
            above = scores > relevant[:, number : number + 1]
            whole[:, number] = above.sum(axis=1) + 1
            own[:, number] = above[:, start[number] : start[number + 1]].sum(axis=1) + 1
        order = np.sort(whole, axis=1)
        pool = (np.arange(1, len(names) + 1) / order).mean(axis=1)
        here = np.array([corpus == name for corpus in names])
        mono = (1 / own[:, here]).mean(axis=1) if here.any() else np.full(len(own), np.nan)
        cross = (1 / own[:, ~here]).mean(axis=1)
        found = (whole[:, ~here] <= 20).mean(axis=1)
        out.append(np.stack([mono, cross, pool, order[:, -1] - order[:, 0], found], axis=1))
    assert len(language) == len(passages)
    return np.stack(out)


def places(task: Task, query_language: str, corpus: str) -> np.ndarray:
    """int [Q]: the place of each question's relevant passage in a corpus."""
    place = {name: number for number, name in enumerate(task.corpus[corpus].ids)}
    judged = task.qrels[corpus]
    return np.array([place[next(iter(judged[q]))] for q in task.queries[query_language].ids])


def summary(collection: Collection, scores: np.ndarray, base: np.ndarray) -> dict[str, Any]:
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


def five(task: Task, collection: Collection, texts: Mapping[str, Any]) -> list[dict[str, Any]]:
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
                    name: np.array([fold[one] == third for one in collection.groups[side][name]])
                    for name in FIVE
                }
                rest[side] = {n: collection.vectors[side][n][~inside[n]] for n in FIVE}
                part[side] = {n: collection.vectors[side][n][inside[n]] for n in FIVE}
            if method and label.startswith("ntrex"):
                rest = {side: {n: texts["ntrex"][side][n][:64] for n in FIVE} for side in rest}
            if method:
                maps = method.fit_sides({side: Moments.of(rows_) for side, rows_ in rest.items()})
                part = {
                    side: {n: maps[side].apply(v, n) for n, v in by.items()}
                    for side, by in part.items()
                }
            smaller = restricted(task, {n for n, f in fold.items() if f == third})
            scores.append(measured(Collection(smaller, part, {}), part).mean(axis=(0, 1)))
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
    main()
