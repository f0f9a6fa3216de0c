"""SQuADShifts: English questions on new domains. The paper's validation set (arXiv:2408.10536), so validation only.

The local copy under the data root is read where there is one; else the repository's own files at the same commit, in the
form of SQuAD 1.1: ``datasets/DOMAIN_v1.0.json`` (layout read there on 2026-11-24; the data set on the hub,
ludwigschmidt/squadshifts, holds a script alone, which fetches these files). They have the New York Times in addition.
Both have the ids of the original questions. None is of SQuAD's development set: the Wikipedia articles are new ones.
"""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from hybridbatch.files import read_json
from hybridbatch.records import BadRow, Row
from hybridbatch.sources import SourceContext
from hybridbatch.sources.hub import web_file
from hybridbatch.sources.reading import Record, identifier, text
from hybridbatch.sources.retrieval import retrieval_source
from hybridbatch.sources.squad import squad_rows

REVISION = "b7cc4d50af791c36c49417fb94dd739d6a9e7bef"
ADDRESS = f"https://raw.githubusercontent.com/modestyachts/squadshifts-website/{REVISION}/datasets"
DOMAINS = ("new_wiki", "nyt", "amazon_reviews", "reddit")
_LOCAL = retrieval_source(
    "squadshifts",
    folder="squadshifts",
    parts=dict.fromkeys(("new_wiki", "amazon_reviews", "reddit"), "validation"),
    title="SQuADShifts, the paper's validation set",
    licence="none in the repository; its card says CC BY 4.0",
    url="https://github.com/modestyachts/squadshifts-website",
    revision=REVISION,
    languages="en",
    size="13,938 questions local, 37,691 from the repository",
)


def _is_local(context: SourceContext) -> bool:
    return context.data_root is not None and (context.data_root / "squadshifts").is_dir()


def _inputs(context: SourceContext) -> list[Path]:
    return list(_LOCAL.inputs(context)) if _is_local(context) else []


def _rows(context: SourceContext) -> Iterator[Row | BadRow]:
    if _is_local(context):
        yield from _LOCAL.rows(context)
    elif context.keeps("eng"):
        for domain in DOMAINS:
            file = f"{domain}_v1.0.json"
            yield from squad_rows(read_json(web_file(f"{ADDRESS}/{file}")), f"squadshifts/{file}", _parse)


def _parse(title: str, context: str, record: Record) -> Iterator[Row]:
    passage = f"{title.replace('_', ' ')} {context}".strip()  # as `retrieval.take_passage` joins them
    yield Row("squadshifts", identifier(record, "id"), "eng", text(record, "question"), passage, split="validation")


SOURCES = (replace(_LOCAL, rows=_rows, inputs=_inputs),)
