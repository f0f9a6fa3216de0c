"""SQuADShifts: English questions on new domains, used only for validation as in arXiv:2408.10536.

`squadshifts` has all questions on Wikipedia and the first 3,000 on Amazon reviews and on Reddit. It
reads a local copy under the data root or the repository at the commit below, with equal rows.
`squadshifts-full` has all questions of the repository, including the New York Times.

The files have the form of SQuAD 1.1: ``datasets/DOMAIN_v1.0.json`` (layout read there on
2026-11-24; the data set on the hub, ludwigschmidt/squadshifts, has only a script, which downloads
these files). No question is from SQuAD's development set, because the Wikipedia articles are new.
"""

from collections.abc import Iterable, Iterator
from dataclasses import replace
from functools import partial
from itertools import islice
from pathlib import Path

from hybridbatch.common.files import read_json
from hybridbatch.common.records import BadRow, Row
from hybridbatch.data.download.sizes import WebFile
from hybridbatch.data.download.web import web_file
from hybridbatch.data.formats.squad import squad_rows
from hybridbatch.data.formats.tables import Record, identifier, spaced, text
from hybridbatch.data.source import SourceContext
from hybridbatch.data.sources.kinds import retrieval_source

REVISION = "b7cc4d50af791c36c49417fb94dd739d6a9e7bef"
ADDRESS = (
    f"https://raw.githubusercontent.com/modestyachts/squadshifts-website/{REVISION}/datasets"
)
FULL = ("new_wiki", "nyt", "amazon_reviews", "reddit")
FIRST = {"new_wiki": None, "amazon_reviews": 3000, "reddit": 3000}  # number of questions taken
_LOCAL = retrieval_source(
    "squadshifts",
    folder="squadshifts",
    parts=dict.fromkeys(FIRST, "validation"),
    title="SQuADShifts, part of the paper's validation set",
    licence="none in the repository; its card says CC BY 4.0",
    origin=("https://github.com/modestyachts/squadshifts-website", REVISION),
    languages="en",
    size="13,938 questions",
)


def _is_local(context: SourceContext) -> bool:
    return context.data_root is not None and (context.data_root / "squadshifts").is_dir()


def _inputs(context: SourceContext) -> list[Path]:
    return list(_LOCAL.inputs(context)) if _is_local(context) else []


def _rows(context: SourceContext) -> Iterator[Row | BadRow]:
    if _is_local(context):
        yield from _LOCAL.rows(context)
    elif context.keeps("eng"):
        for domain, count in FIRST.items():
            yield from islice(_domain_rows("squadshifts", domain), count)


def _full_rows(context: SourceContext) -> Iterator[Row | BadRow]:
    if context.keeps("eng"):
        for domain in FULL:
            yield from _domain_rows("squadshifts-full", domain)


def _domain_rows(source: str, domain: str) -> Iterator[Row | BadRow]:
    file = f"{domain}_v1.0.json"
    parse = partial(_parse, source, domain == "new_wiki")
    yield from squad_rows(
        read_json(web_file(f"{ADDRESS}/{file}")), f"squadshifts/{file}", parse
    )


def _files(domains: Iterable[str]) -> list[WebFile]:
    return [WebFile(f"{ADDRESS}/{domain}_v1.0.json") for domain in domains]


def _parse(
    source: str, titled: bool, title: str, context: str, record: Record
) -> Iterator[Row]:
    # Titles of Wikipedia articles describe the passage; other titles are numbers. Joined
    # as in `retrieval_sets.take_passage`.
    passage = spaced(f"{title.replace('_', ' ')} {context}" if titled else context)
    yield Row(
        source,
        identifier(record, "id"),
        "eng",
        spaced(text(record, "question")),
        passage,
        split="validation",
    )


SOURCES = (
    replace(_LOCAL, rows=_rows, inputs=_inputs, files=lambda context: _files(FIRST)),
    replace(
        _LOCAL,
        name="squadshifts-full",
        title="SQuADShifts, the paper's validation set",
        size="37,691 questions",
        rows=_full_rows,
        inputs=lambda context: (),
        files=lambda context: _files(FULL),
    ),
)
