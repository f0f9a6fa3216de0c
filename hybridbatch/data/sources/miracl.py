"""MIRACL: questions in 16 languages with passages of the language's Wikipedia, judged by people.

The languages are not parallel. Layout read on 2026-11-24 from public code that reads the files, at
the commits below: ``miracl-v1.0-LANG/topics/topics.miracl-v1.0-LANG-train.tsv`` {query id, query}
and ``.../qrels/qrels.miracl-v1.0-LANG-train.tsv`` {query id, Q0, document id, relevance}, both
without a header, and in the corpus repository ``miracl-corpus-v1.0-LANG/docs-N.jsonl.gz`` {docid,
title, text}. The corpus is streamed, and only judged passages are kept. Passages judged irrelevant
are the hard negatives. Only the training set is read, because the other sets are evaluation data.
"""

from collections.abc import Iterator
from functools import partial

from hybridbatch.common.records import BadRow, Row
from hybridbatch.data.download.hub import Repository
from hybridbatch.data.download.sizes import HubFiles
from hybridbatch.data.formats.retrieval_sets import NEGATIVES, titled
from hybridbatch.data.formats.tables import (
    Record,
    RowProblem,
    absorb,
    absorb_records,
    convert_records,
    headless_records,
    identifier,
    text,
)
from hybridbatch.data.source import SourceContext
from hybridbatch.data.sources.kinds import hub_source, wanted

HUB = Repository("miracl/miracl", "5be20db9509754dadad47689368639fcec739c00")
CORPUS = Repository("miracl/miracl-corpus", "d921ec7e349ce0d28daf30b2da9da5ee698bef0d")
CODES = [
    "ar",
    "bn",
    "en",
    "es",
    "fa",
    "fi",
    "fr",
    "hi",
    "id",
    "ja",
    "ko",
    "ru",
    "sw",
    "te",
    "th",
    "zh",
]  # the other languages have no training set
_Judged = dict[
    str, tuple[list[str], list[str]]
]  # query id -> relevant, irrelevant document ids


def _rows(context: SourceContext) -> Iterator[Row | BadRow]:
    for code, language in wanted(context, CODES):
        yield from _language_rows(code, language)


def _files(context: SourceContext) -> list[str | HubFiles]:
    codes = "|".join(code for code, _ in wanted(context, CODES))
    if not codes:
        return []
    corpus = HubFiles(CORPUS, rf"miracl-corpus-v1\.0-({codes})/.*\.gz")
    return [rf"miracl-v1\.0-({codes})/.*-train\.tsv", corpus]


def _language_rows(code: str, language: str) -> Iterator[Row | BadRow]:
    judged: _Judged = {}
    qrels = f"miracl-v1.0-{code}/qrels/qrels.miracl-v1.0-{code}-train.tsv"
    columns = ["query-id", "Q0", "docid", "relevance"]
    records = headless_records(HUB.file(qrels), HUB.label(qrels), columns)
    yield from absorb_records(records, HUB.label(qrels), partial(_take_judgement, judged))
    passages = {docid: "" for lists in judged.values() for docids in lists for docid in docids}
    for path in CORPUS.folder(f"miracl-corpus-v1.0-{code}"):
        yield from absorb(
            CORPUS.file(path), CORPUS.label(path), partial(_take_passage, passages)
        )
    topics = f"miracl-v1.0-{code}/topics/topics.miracl-v1.0-{code}-train.tsv"
    records = headless_records(HUB.file(topics), HUB.label(topics), ["query-id", "query"])
    yield from convert_records(
        records, HUB.label(topics), partial(_parse, language, judged, passages)
    )


def _take_judgement(judged: _Judged, record: Record) -> None:
    relevance = text(record, "relevance")
    if relevance not in ("0", "1"):
        raise RowProblem("relevance", f"must be 0 or 1, not {relevance!r}")
    lists = judged.setdefault(identifier(record, "query-id"), ([], []))
    lists[relevance == "0"].append(identifier(record, "docid"))


def _take_passage(passages: dict[str, str], record: Record) -> None:
    docid = identifier(record, "docid")
    if docid in passages:
        passages[docid] = titled(record)


def _parse(
    language: str, judged: _Judged, passages: dict[str, str], number: int, record: Record
) -> Iterator[Row]:
    question, query = identifier(record, "query-id"), text(record, "query")
    relevant, irrelevant = judged.get(question, ([], []))
    found = [docid for docid in relevant if passages[docid]]
    if not found:
        raise RowProblem("query-id", "the corpus has no passage that is relevant to it")
    negatives = tuple(passages[docid] for docid in irrelevant if passages[docid])[:NEGATIVES]
    for further, docid in enumerate(found):
        record_id = (
            f"{language}:{question}#{further + 1}" if further else f"{language}:{question}"
        )
        yield Row("miracl", record_id, language, query, passages[docid], negatives)


SOURCES = (
    hub_source(
        HUB,
        name="miracl",
        title="MIRACL, training set",
        licence="Apache-2.0 (passages: Wikipedia, CC BY-SA)",
        languages="16",
        size="40,203 questions; a language's whole corpus is downloaded for them",
        yields="question -> passage, hard negatives judged irrelevant",
        rows=_rows,
        files=_files,
        stored=0.003,  # some 240,000 of 77 million passages
    ),
)
