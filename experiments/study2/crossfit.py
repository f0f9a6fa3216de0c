"""Experiment A: cross-fitted XQuAD-R. The kind of batch, and nothing else, on real questions.

    python experiments/study2/crossfit.py [--data-root FOLDER] [--until HH:MM]

XQuAD-R and NTREX come from copies or clones under FOLDER, else from their public homes (about 40 MB, kept
in the user's cache).

XQuAD-R is an evaluation set, and training on it is a stated exception: its 48 articles are halved
anew for every seed, a model is trained on one half in six languages and scored on the other half in
all eleven, then the halves are swapped. So no model is scored on an article it was trained on. The
scores are of half the collection and must not stand beside published ones. Nothing else of this
project trains on XQuAD-R.

Runs go seed by seed (a block: two halves x three mixes, and the untrained model and BM25 on both
halves), so that a stop at any time leaves whole seeds. What is there already is not done again.
``experiments/study2/A/`` gets a JSON and a Parquet file a run.
"""

import argparse
import gzip
import json
import re
import sys
import tempfile
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from measuring import means, measure, measure_bm25, write_table

from hybridbatch.common.device import resolve_precision
from hybridbatch.common.errors import ConfigError, DataError, HybridBatchError
from hybridbatch.common.files import fingerprint, make_folder, read_json, read_yaml, write_json
from hybridbatch.common.languages import canonical
from hybridbatch.common.provenance import versions
from hybridbatch.common.records import Task, Texts
from hybridbatch.common.settings import build
from hybridbatch.data.homes.registry import HOMES
from hybridbatch.data.prepare import prepare
from hybridbatch.data.settings import PrepareConfig
from hybridbatch.data.sources.local_copies import local_copy
from hybridbatch.data.tasks.registry import load_task
from hybridbatch.debias.cross_fit import fold_of_groups
from hybridbatch.model import Encoder
from hybridbatch.scoring.settings import BM25
from hybridbatch.search.bm25 import bm25_fingerprint
from hybridbatch.search.embeddings import EmbeddingStore
from hybridbatch.training.settings import TrainConfig
from hybridbatch.training.train import train

HERE = Path(__file__).parent
NAME = "xquad-r-crossfit"  # never "xquad-r": these scores are of half the collection
PARAGRAPHS = 5  # of an article of XQuAD, in order
NEWS_TEXTS = 64


class Run(NamedTuple):
    """A model to be trained on half `trained_on` of the articles and scored on the other.

    The untrained model and BM25 are scored on the same articles.
    """

    seed: int
    trained_on: int  # 0 or 1
    mix: float | str | None  # None: untrained; "bm25": no model

    @property
    def name(self) -> str:
        """Of its files."""
        kind = self.mix or "untrained" if self.mix in (None, BM25) else f"mix-{self.mix:g}"
        return f"seed-{self.seed}-half-{self.trained_on}-{kind}"


def article_of(name: str) -> str:
    """The article of a passage, by its id such as ``en-p000-s0``."""
    found = re.search(r"-p(\d+)-s\d+$", name)
    assert found, name
    return f"article-{int(found[1]) // PARAGRAPHS:02d}"


class Collection:
    """XQuAD-R with the article of every question and passage."""

    def __init__(self, task: Task) -> None:
        self.task = task
        language = next(iter(task.corpus))
        self.article = {
            question: article_of(next(iter(judged)))
            for question, judged in task.qrels[language].items()
        }
        for texts in task.corpus.values():
            self.article |= {name: article_of(name) for name in texts.ids}

    def halves(self, seed: int) -> dict[str, int]:
        """The half, 0 or 1, of every article."""
        return fold_of_groups(list(self.article.values()), 2, seed)

    def part(self, articles: set[str]) -> Task:
        """The questions and passages of some articles."""

        def kept(texts: Texts) -> Texts:
            pairs = zip(texts.ids, texts.texts, strict=True)
            chosen = [(name, text) for name, text in pairs if self.article[name] in articles]
            return Texts(tuple(name for name, _ in chosen), tuple(text for _, text in chosen))

        return Task(
            name=NAME,
            queries={language: kept(texts) for language, texts in self.task.queries.items()},
            corpus={language: kept(texts) for language, texts in self.task.corpus.items()},
            qrels={
                language: {q: row for q, row in judged.items() if self.article[q] in articles}
                for language, judged in self.task.qrels.items()
            },
            about="Half of XQuAD-R; not comparable with scores on the whole.",
        )

    def rows(self, articles: set[str], languages: list[str]) -> Iterator[dict[str, str]]:
        """Training rows: question and the sentence that answers it."""
        for language in languages:
            queries, corpus = self.task.queries[language], self.task.corpus[language]
            sentence = dict(zip(corpus.ids, corpus.texts, strict=True))
            for name, question in zip(queries.ids, queries.texts, strict=True):
                if self.article[name] in articles:
                    (answer,) = self.task.qrels[language][name]
                    sides = {"query": question, "passage": sentence[answer]}
                    yield {"record_id": name, "language": language, **sides}


def news_folder(data_root: Path | None) -> Path:
    """The folder of NTREX: a copy, else built from its public home."""
    return local_copy(data_root, "ntrex") or HOMES["ntrex"].obtain(data_root)


def news_texts(folder: Path, languages: list[str]) -> dict[str, list[str]]:
    """The first sentence of the body of 64 documents of NTREX, by language."""
    files: dict[str, Path] = {}
    for path in sorted(folder.glob("*.jsonl.gz")):
        code = canonical(path.name.split(".")[0])
        if code in languages:
            files[code] = path
    lacking = [language for language in languages if language not in files]
    if lacking:
        raise DataError(
            f"{folder}: has no LANG.jsonl.gz of {', '.join(lacking)}; name a folder of NTREX with"
            " --news, or leave --news out to get it from its public home"
        )
    found = {}
    for language in languages:
        with gzip.open(files[language], "rt", encoding="utf-8") as lines:
            rows = [json.loads(line) for line in lines]
        found[language] = [row["text"] for row in rows if row["pos"] == 1][:NEWS_TEXTS]
    return found


def planned(settings: dict[str, Any]) -> Iterator[list[Run]]:
    """The runs, a block for each seed."""
    for seed in settings["seeds"]:
        trained = [Run(seed, half, mix) for half in (0, 1) for mix in settings["mixes"]]
        yield [*trained, *(Run(seed, half, rival) for rival in (None, BM25) for half in (0, 1))]


def do(
    run: Run, collection: Collection, settings: dict[str, Any], news: Path, out: Path
) -> None:
    """Train and measure one run."""
    halves = collection.halves(run.seed)
    inside = {article for article, half in halves.items() if half == run.trained_on}
    task = collection.part(set(halves) - inside)
    languages = list(task.queries)
    started = time.monotonic()
    if run.mix == BM25:
        table = measure_bm25(task)
        facts = {"settings": {"bm25": bm25_fingerprint()}, "seconds": {"train": 0.0}}
    else:
        table, facts = do_model(run, collection, inside, task, settings, news)
    result: dict[str, Any] = {"run": run._asdict()} | facts
    result["seconds"]["measure"] = time.monotonic() - started - result["seconds"]["train"]
    seen = [name for name in languages if name in settings["languages"]]
    unseen = [name for name in languages if name not in seen]
    groups = {"all": languages, "seen": seen, "unseen": unseen}
    result["means"] = {name: means(table, codes) for name, codes in groups.items()}
    result["articles"] = {"trained on": sorted(inside)}
    result["task"] = {"name": NAME, "fingerprint": collection.task.provenance["fingerprint"]}
    result["versions"], result["threads"] = versions(), torch.get_num_threads()
    write_table(table, out / f"{run.name}.parquet")
    write_json(out / f"{run.name}.json", result)


def do_model(
    run: Run,
    collection: Collection,
    inside: set[str],
    task: Task,
    settings: dict[str, Any],
    news: Path,
) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Train on the articles `inside`, unless untrained, and measure on `task`: scores and facts."""
    outside = set(collection.article.values()) - inside
    quarter = fold_of_groups(sorted(outside), 2, run.seed)
    lengths = {
        name: settings["train"][name] for name in ("max_query_tokens", "max_passage_tokens")
    }
    started = time.monotonic()
    result: dict[str, Any] = {"settings": settings["train"]}
    with tempfile.TemporaryDirectory() as scratch:
        start = settings["train"]["model"]
        if run.mix is not None:
            folder = train_run(run, collection.rows(inside, settings["languages"]), settings,
                               Path(scratch))  # fmt: skip
            start = str(folder)
            facts = read_json(folder / "train.json")
            kept = ("schedule", "throughput", "temperature", "trained_languages", "hardware")
            result["train"] = {name: facts[name] for name in kept}
            result["data"] = facts["data"]["fingerprint"]
        result["seconds"] = {"train": time.monotonic() - started}
        encoder = Encoder.load(start, **lengths)
        table = measure(
            task,
            embedding(encoder, None if run.mix is None else Path(scratch) / "embeddings"),
            lambda name: quarter[collection.article[name]],
            news_texts(news, list(task.queries)),
        )
    return table, result


def embedding(encoder: Encoder, folder: Path | None) -> Any:
    """What embeds texts and keeps the vectors in a folder; None: in the user's cache."""
    precision = resolve_precision("auto", torch.device("cpu"))
    return EmbeddingStore(encoder, folder, precision=precision).embed


def train_run(
    run: Run, rows: Iterator[dict[str, str]], settings: dict[str, Any], scratch: Path
) -> Path:
    """The run folder of a model trained on `rows`."""
    path = scratch / "rows.jsonl"
    lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in rows]
    path.write_text("".join(lines), encoding="utf-8")
    store = prepare(
        build(PrepareConfig, None, {
            "sources": [str(path)], "out": scratch / "data", "decontaminate": ["none"],
            "validation_share": 0,
        })
    )  # fmt: skip
    config = {"data": str(store), "out": scratch / "run", "mix": run.mix, "seed": run.seed}
    return train(build(TrainConfig, None, settings["train"] | config))


@cache
def collection_of(data_root: Path | None) -> Collection:
    """XQuAD-R."""
    return Collection(load_task("xquad-r", data_root=data_root))


def main() -> None:
    """Run what is missing, until the time is up."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--news", type=Path, help="another folder of NTREX, a file a language")
    parser.add_argument(
        "--data-root",
        type=Path,
        help="folder with copies or clones of xquad-r and ntrex; default: their public homes",
    )
    parser.add_argument("--settings", type=Path, default=HERE / "A.yaml")
    parser.add_argument("--out", type=Path, help="default: a folder beside the settings")
    parser.add_argument("--until", help="start no run after this time today (UTC), HH:MM")
    parser.add_argument("--only", help="name of one run, to do it again")
    arguments = parser.parse_args()
    try:
        run_missing(arguments)
    except HybridBatchError as error:
        sys.stderr.write(f"error: {error}\n")
        sys.exit(2)


def run_missing(arguments: argparse.Namespace) -> None:
    """Run what is missing. Raises `HybridBatchError` for settings and data that cannot be used."""
    settings = read_yaml(arguments.settings)
    for name in ("seeds", "mixes", "languages", "train"):
        if not isinstance(settings, dict) or name not in settings:
            raise ConfigError(f"{arguments.settings}: lacks {name}; write it as in A.yaml")
    if arguments.until and not re.fullmatch(r"[0-2]\d:[0-5]\d", arguments.until):
        raise ConfigError(f"--until {arguments.until}: is not a time; write HH:MM")
    out = make_folder(arguments.out or arguments.settings.with_suffix(""))
    note(f"settings {fingerprint(settings)}, {out}")
    collection = collection_of(arguments.data_root)
    questions = sorted(next(iter(collection.task.queries.values())).ids)
    news = arguments.news or news_folder(arguments.data_root)
    places = arguments.settings.parent / "articles.json"
    write_json(places, {name: collection.article[name] for name in questions})
    for block in planned(settings):
        for run in block:
            if arguments.only not in (None, run.name) or (out / f"{run.name}.json").exists():
                continue
            if arguments.until and f"{datetime.now(UTC):%H:%M}" >= arguments.until:
                return
            started = time.monotonic()
            do(run, collection, settings, news, out)
            note(f"{run.name}: {time.monotonic() - started:.0f} s")


def note(text: str) -> None:
    """A line of the log."""
    sys.stdout.write(f"{datetime.now(UTC):%H:%M:%S} {text}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    np.seterr(all="raise", under="ignore")
    main()
