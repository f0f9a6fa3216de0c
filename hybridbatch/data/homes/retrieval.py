"""Builders of retrieval sets: ``corpus.X``, ``queries.X`` and ``qrels.X`` files."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from hybridbatch.data.formats.tables import spaced
from hybridbatch.data.homes.home import Files, said, short_hash, write

Record = dict[str, Any]

# AfriQA: pivot language by African language, without the test sets. Two languages have gold
# passages only in the test set.
PIVOTS = {"bem": "en", "fon": "fr", "hau": "en", "ibo": "en", "kin": "en", "swa": "en", "twi": "en",
          "wol": "fr", "yor": "en", "zul": "en"}  # fmt: skip
GOLD = {"bem": ("train", "dev"), "fon": ("train", "dev"), "hau": ("train", "dev"),
        "ibo": ("train", "dev"), "kin": ("train", "dev"), "twi": ("train", "dev"), "yor": ("train",),
        "zul": ("train", "dev")}  # fmt: skip


def build_afriqa(files: Files, folder: Path) -> None:
    """Write questions by African language, gold passages by pivot language, and judgements."""
    corpora: dict[str, dict[str, Record]] = {"en": {}, "fr": {}}
    for language, pivot in PIVOTS.items():
        queries: list[Record] = []
        for split in ("train", "dev"):
            gold = _afriqa_gold(files, language, pivot, split)
            place = f"data/queries/{language}/queries.afriqa.{language}.{pivot}.{split}.json"
            for record in files.records(place):
                question = said(record, "question")
                if not question:
                    continue
                passage = gold.get(str(record["id"]))
                # One gold passage belongs to another question.
                if passage and passage["question"] != question:
                    passage = None
                if passage:
                    doc_id = passage["id"]
                    shown = {name: passage[name] for name in ("id", "lang", "title", "text")}
                    corpora[pivot].setdefault(doc_id, shown)
                queries.append(
                    {
                        "id": f"afriqa-{language}-{split}-{record['id']}",
                        "lang": language,
                        "split": split,
                        "text": question,
                        "pivot_lang": pivot,
                        "pivot_text": said(record, "translated_question"),
                        "doc_id": passage["id"] if passage else None,
                    }
                )
        write(folder / f"queries.{language}.jsonl.gz", queries)
        judged = [query for query in queries if query["doc_id"]]
        if judged:
            write(folder / f"qrels.{language}.jsonl.gz", map(_judgement, judged))
    for pivot, passages in corpora.items():
        write(folder / f"corpus.{pivot}.jsonl.gz", passages.values())


def _afriqa_gold(files: Files, language: str, pivot: str, split: str) -> dict[str, Record]:
    """By question id, the gold passage and the question that it belongs to."""
    if split not in GOLD.get(language, ()):
        return {}
    name = f"gold_span_passages.afriqa.{language}.{pivot}.{split}.json"
    found: dict[str, Record] = {}
    for record in files.records(f"data/gold_passages/{language}/{name}"):
        if record["context"] is None:
            continue
        title, text = spaced(record["title"] or ""), said(record, "context")
        found[str(record["id"])] = {
            "id": f"afriqa-{pivot}-{short_hash(f'{title}{chr(9)}{text}')}",
            "lang": pivot,
            "title": title,
            "text": text,
            "question": said(record, "question_lang"),
        }
    return found


def _judgement(query: Record) -> Record:
    return {
        "query_id": query["id"],
        "doc_id": query["doc_id"],
        "rel": 1,
        "split": query["split"],
    }


def _paragraphs(files: Files, name: str) -> Iterator[tuple[str, Record]]:
    """(title, paragraph) of a file in SQuAD's form."""
    for article in files.numbered(files.json(name)["data"], "article"):
        paragraphs = article["paragraphs"]
        # AmQA has a paragraph instead of a list of one paragraph.
        for paragraph in [paragraphs] if isinstance(paragraphs, dict) else paragraphs:
            yield spaced(article.get("title") or ""), paragraph


def _write_set(
    folder: Path,
    part: str,
    corpus: Iterable[Record],
    queries: Iterable[Record],
    qrels: Iterable[Record],
) -> None:
    write(folder / f"corpus.{part}.jsonl.gz", corpus)
    write(folder / f"queries.{part}.jsonl.gz", queries)
    write(folder / f"qrels.{part}.jsonl.gz", qrels)


def build_amqa(files: Files, folder: Path) -> None:
    """Write three sets: train, dev and test."""
    for split in ("train", "dev", "test"):
        corpus: dict[str, Record] = {}
        queries: list[Record] = []
        qrels: list[Record] = []
        name = f"{split}_data.json"
        for _, paragraph in _paragraphs(files, name):
            text = said(paragraph, "context")
            passage = f"amqa-{short_hash(text)}"
            corpus.setdefault(passage, {"id": passage, "lang": "am", "text": text})
            for question in paragraph["qas"]:
                key = f"amqa-{split}-{question['id']}"
                text_of_question = said(question, "question")
                queries.append(
                    {"id": key, "lang": "am", "split": split, "text": text_of_question}
                )
                qrels.append({"query_id": key, "doc_id": passage, "rel": 1})
        _write_set(folder, split, corpus.values(), queries, qrels)


def build_tydi(files: Files, folder: Path) -> None:
    """Write the training set in three languages."""
    for code, name in (("en", "english"), ("ko", "korean"), ("sw", "swahili")):
        corpus: dict[str, Record] = {}
        queries: list[Record] = []
        qrels: list[Record] = []
        place = f"language_data/{name}/{name}_tydiqa_train.json"
        for title, paragraph in _paragraphs(files, place):
            text = said(paragraph, "context")
            passage = f"tydi-{code}-{short_hash(text)}"
            corpus.setdefault(
                passage, {"id": passage, "lang": code, "title": title, "text": text}
            )
            for question in paragraph["qas"]:
                key = f"tydi-{question['id']}"
                queries.append({"id": key, "lang": code, "text": said(question, "question")})
                qrels.append({"query_id": key, "doc_id": passage, "rel": 1})
        _write_set(folder, code, corpus.values(), queries, qrels)


def build_xquad_ro(files: Files, folder: Path) -> None:
    """Write Romanian questions and paragraphs."""
    corpus: list[Record] = []
    queries: list[Record] = []
    qrels: list[Record] = []
    for number, (_, paragraph) in enumerate(_paragraphs(files, "xquad.ro.json")):
        passage = f"ro-p{number:03d}"
        corpus.append({"id": passage, "lang": "ro", "text": said(paragraph, "context")})
        for question in paragraph["qas"]:
            queries.append(
                {"id": question["id"], "lang": "ro", "text": said(question, "question")}
            )
            qrels.append({"query_id": question["id"], "doc_id": passage, "rel": 1})
    _write_set(folder, "ro", corpus, queries, qrels)
