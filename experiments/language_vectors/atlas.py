"""The atlas of language vectors: what the built-in encoder adds to a text for its language.

    python experiments/language_vectors/atlas.py TEXTS [--data-root FOLDER]

TEXTS is what `collect.py` wrote: news (NTREX-128), health (TICO-19), scripture (Bible) and stories.
No text of an evaluation set takes part. Writes ``language_vectors.safetensors`` and ``.json`` beside
this file, which ``--debias experiments/language_vectors`` takes, and ``atlas.json``:

- nearest languages, and how often they share family and script;
- how much each language's bias falls (NTREX, cross-fitted);
- how far the mean of n sentences is from that of other sentences;
- whether the vectors of one kind of text are those of another;
- how well relatives stand in for a language without text.
"""

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from compare import SOURCES, source_vectors

import hybridbatch
from hybridbatch.common.device import resolve_precision
from hybridbatch.common.errors import HybridBatchError
from hybridbatch.common.files import write_json
from hybridbatch.common.languages import language
from hybridbatch.common.seeding import stream
from hybridbatch.data.tasks.registry import load_task
from hybridbatch.debias.cross_fit import cross_fit
from hybridbatch.debias.methods import EVERY, Debiasing, Moments, centre
from hybridbatch.debias.relatives import nearest_relatives
from hybridbatch.debias.vectors_file import LanguageVectors, write_vectors
from hybridbatch.model import Encoder
from hybridbatch.search.embeddings import EmbeddingStore

HERE = Path(__file__).parent
LEAST = 50  # texts of a language over all sources
COUNTS = (1, 3, 10, 30)
LEFT_OUT = 160  # passages of Wikipedia that means of others are compared with
SEED = 13
Vectors = Mapping[str, np.ndarray]


def main() -> None:
    """Estimate, write, and describe."""
    import torch

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("texts", type=Path)
    parser.add_argument("--data-root", type=Path)
    options = parser.parse_args()
    precision = resolve_precision("auto", torch.device("cpu"))
    store = EmbeddingStore(Encoder.load("e5-small-q4"), precision=precision)
    texts = source_vectors(options.texts, store)
    vectors = mixed(texts, store)
    write_vectors(HERE, vectors)
    # only compared with: no language vector comes from them
    task = load_task("xquad-r", data_root=options.data_root)
    wikipedia = {
        side: {name: store.embed(one.texts, side) for name, one in by_language.items()}
        for side, by_language in (("passage", task.corpus), ("query", task.queries))
    }
    found = {
        "kind": "atlas of language vectors",
        "languages": len(vectors.languages),
        "nearest": nearest(vectors.sides["passage"]),
        "bias": falls(texts["ntrex"]),
        "sentences": sentences(texts["ntrex"]["passage"], wikipedia["passage"]),
        "between sources": between({**texts, "Wikipedia (XQuAD-R)": wikipedia}),
        "relatives": relatives(texts["ntrex"]["passage"]),
    }
    write_json(HERE / "atlas.json", found)
    sys.stdout.write(f"{len(vectors.languages)} languages\n")


def mixed(texts: Mapping[str, Any], store: EmbeddingStore) -> LanguageVectors:
    """The mean over a language's sources, each taken relative to the source's own languages.

    Sources differ in what they say and in the languages they have. So of each source, only what a
    language differs by from the source's mean language counts, shrunk by its number of texts; the
    mean of that over sources is added to the mean of the sources.
    """
    sides = {}
    counts: dict[str, dict[str, int]] = {}
    for side in ("query", "passage"):
        moments = {source: Moments.of(texts[source][side]) for source in SOURCES}
        whole = np.mean([one.global_mean for one in moments.values()], axis=0)
        differences: dict[str, list[np.ndarray]] = {}
        counts[side] = {}
        for one in moments.values():
            away = one.shrunk_means() - one.global_mean
            for name, row, count in zip(one.languages, away, one.counts, strict=True):
                differences.setdefault(name, []).append(row)
                counts[side][name] = counts[side].get(name, 0) + int(count)
        offsets = {EVERY: whole.astype(np.float32)}
        for name, rows in sorted(differences.items()):
            if counts["passage" if "passage" in counts else side].get(name, 0) >= LEAST // 2:
                offsets[name] = (whole + np.mean(rows, axis=0)).astype(np.float32)
        sides[side] = Debiasing(offsets)
    named = [n for n in sides["passage"].languages if n in sides["query"].languages]
    named = [n for n in named if counts["passage"][n] >= LEAST]
    sides = {
        side: Debiasing({name: one.offsets[name] for name in (EVERY, *named)})
        for side, one in sides.items()
    }
    facts = {
        "hybridbatch": hybridbatch.__version__,
        "model": {"name": "e5-small-q4", "fingerprint": store.fingerprint,
                  "precision": store.precision},
        "method": {"name": "centre", "scope": "language", "shrink": True, "together": False},
        "sources": dict.fromkeys(sides, "NTREX-128, TICO-19, Bible, storybooks; equal weight"),
        "texts": {side: {name: counts[side][name] for name in named} for side in sides},
    }  # fmt: skip
    return LanguageVectors(sides, facts)


def differences(vectors: Vectors | Debiasing) -> dict[str, np.ndarray]:
    """What each language's mean differs by from the mean language."""
    if isinstance(vectors, Debiasing):
        means = {name: vectors.offsets[name] for name in vectors.languages}
    else:
        means = {name: rows.mean(axis=0) for name, rows in vectors.items() if len(rows)}
    whole = np.mean(list(means.values()), axis=0)
    return {name: mean - whole for name, mean in means.items()}


def nearest(turn: Debiasing) -> dict[str, Any]:
    """The three nearest languages of each by the cosine of language vectors."""
    away = differences(turn)
    names = list(away)
    rows = np.stack([away[name] / np.linalg.norm(away[name]) for name in names])
    cosines = rows @ rows.T
    np.fill_diagonal(cosines, -2)
    facts = {name: language(name) for name in names}
    order = np.argsort(-cosines, axis=1)
    first = [names[place] for place in order[:, 0]]

    def share(field: str) -> dict[str, float]:
        known = [n for n in names if getattr(facts[n], field)]
        hits = [
            getattr(facts[n], field) == getattr(facts[first[names.index(n)]], field)
            for n in known
        ]
        chance = [
            np.mean(
                [getattr(facts[n], field) == getattr(facts[o], field) for o in names if o != n]
            )
            for n in known
        ]
        return {"nearest": float(np.mean(hits)), "chance": float(np.mean(chance))}

    table = {
        name: [[names[place], round(float(cosines[row, place]), 3)] for place in order[row, :3]]
        for row, name in enumerate(names)
    }
    return {"same family": share("family"), "same script": share("script"), "languages": table}


def falls(texts: Mapping[str, Vectors]) -> dict[str, Any]:
    """For each language of NTREX: how often its translation of an English line is among the first L
    passages of the pool of L languages, before and after centring (passages by the means of other lines, questions by halves).
    """
    names = sorted(texts["passage"])
    queries = texts["query"]["eng"]
    lines = len(queries)  # the first lines are the same in every language
    half = np.arange(lines) % 2
    passages = {name: texts["passage"][name][:lines] for name in names}
    later = {name: texts["passage"][name][lines:] for name in names}
    turn = centre(later)  # of other lines than those that are searched
    turned = {name: turn.apply(rows, name) for name, rows in passages.items()}
    turned_queries = cross_fit({"eng": queries}, {"eng": half}, centre)["eng"]
    found = {}
    for label, asked, pool in (("before", queries, passages),
                               ("after", turned_queries, turned)):  # fmt: skip
        scores = asked @ np.concatenate([pool[name] for name in names]).T
        order = np.argsort(-scores, axis=1)[:, : len(names)]
        hit = np.zeros(scores.shape, dtype=bool)
        np.put_along_axis(hit, order, True, axis=1)
        found[label] = {
            name: float(hit[np.arange(lines), number * lines + np.arange(lines)].mean())
            for number, name in enumerate(names)
            if name != "eng"
        }
    risen = [name for name in found["before"] if found["after"][name] > found["before"][name]]
    return {
        "lines": lines,
        "mean": {label: float(np.mean(list(one.values()))) for label, one in found.items()},
        "risen": len(risen),
        "of": len(found["before"]),
        "languages": {n: [round(found["before"][n], 3), round(found["after"][n], 3)]
                      for n in found["before"]},
    }  # fmt: skip


def sentences(vectors: Vectors, wikipedia: Vectors) -> list[dict[str, Any]]:
    """Squared distance of a language's difference from the mean language, of n lines, from that of
    other lines, relative to no difference at all: 1 is no better than knowing nothing of the language.
    """
    names = [name for name, rows in sorted(vectors.items()) if len(rows) >= 100]
    truth = {name: vectors[name][50:] for name in names}
    rows = []
    for count in (*COUNTS, 50):
        part = {name: vectors[name][:count] for name in names}
        rows.append(_errors(count, part, truth, noise=50))
    many, rest = {}, {}
    for name, encoded in sorted(wikipedia.items()):
        if len(encoded) < 1000 + LEFT_OUT:
            continue  # Thai, whose passages are longer and fewer
        order = stream(SEED, "halves").permutation(len(encoded))
        many[name], rest[name] = encoded[order[LEFT_OUT:]], encoded[order[:LEFT_OUT]]
    for count in (10, 100, 1000):
        part = {name: own[:count] for name, own in many.items()}
        rows.append(
            {**_errors(count, part, rest, noise=LEFT_OUT), "kind": "Wikipedia (XQuAD-R)"}
        )
    return rows


def _errors(count: int, part: Vectors, truth: Vectors, noise: int) -> dict[str, Any]:
    moments = Moments.of(part)
    aim = np.stack([truth[name].mean(axis=0) for name in moments.languages]).astype(np.float64)
    # the aim is a mean of texts itself, and strays from the truth: taken off on average
    spread = [truth[name].var(axis=0, ddof=1).sum() / noise for name in moments.languages]
    floor = float(np.mean(spread))
    # what matters is how languages differ: a shift that all share moves no ranking
    away = aim - aim.mean(axis=0)
    base = max(float((away**2).sum(axis=1).mean()) - floor, 1e-9)
    means = {"plain": moments.means, "shrunk": moments.shrunk_means()}
    errors = {}
    for label, mean in means.items():
        guess = mean - moments.global_mean
        errors[label] = (float(((guess - away) ** 2).sum(axis=1).mean()) - floor) / base
    return {"texts": count, **{label: round(value, 4) for label, value in errors.items()},
            "languages": len(moments.languages)}  # fmt: skip


def between(texts: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Share of the language vectors of one kind of text that another kind's explain: 1 less the
    squared distance over the squared length, over the languages that both have.
    """
    kinds = {
        f"{source} {side}": texts[source][side]
        for source in texts
        for side in ("passage", "query")
    }
    rows = []
    for one, own in kinds.items():
        for other, theirs in kinds.items():
            shared = [
                name
                for name in own
                if name in theirs and min(len(own[name]), len(theirs[name])) >= 30
            ]
            if one == other or len(shared) < 5:
                continue
            away = differences({name: own[name] for name in shared})
            aim = differences({name: theirs[name] for name in shared})
            lost = sum(float(((away[n] - aim[n]) ** 2).sum()) for n in shared)
            whole = sum(float((aim[n] ** 2).sum()) for n in shared)
            cosine = [
                away[n] @ aim[n] / np.linalg.norm(away[n]) / np.linalg.norm(aim[n])
                for n in shared
            ]
            rows.append({"from": one, "to": other, "languages": len(shared),
                         "explained": round(1 - lost / whole, 3),
                         "cosine": round(float(np.mean(cosine)), 3)})  # fmt: skip
    return rows


def relatives(vectors: Vectors) -> list[dict[str, Any]]:
    """Each language left out in turn: share of its vector that its relatives' mean explains."""
    away = differences(vectors)
    found: dict[str, list[float]] = {}
    for name, aim in away.items():
        others, degree = nearest_relatives(name, [one for one in away if one != name])
        guess = np.mean([away[one] for one in others], axis=0) if others else np.zeros(len(aim))
        left = float(((guess - aim) ** 2).sum() / (aim**2).sum())
        found.setdefault(degree or "none: global", []).append(1 - left)
    return [
        {"shared": degree, "languages": len(values), "explained": round(float(np.mean(values)), 3),
         "helped": sum(value > 0 for value in values)}
        for degree, values in found.items()
    ]  # fmt: skip


if __name__ == "__main__":
    try:
        main()
    except HybridBatchError as error:
        sys.stderr.write(f"error: {error}\n")
        sys.exit(2)
