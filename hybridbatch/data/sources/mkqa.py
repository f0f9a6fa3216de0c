"""MKQA: open-domain questions translated by people, as question <-> question records.

MKQA has no passages. `mkqa` is the local development set of the MIA 2022 shared task in twelve
languages. `mkqa-full` has all questions in all 26 languages. Its layout was read on 2026-11-24 from
the repository at the commit below: ``dataset/mkqa.jsonl.gz``, lines {example_id, query, queries:
{lang: text}, answers}. (The data set on the hub, apple/mkqa, has only a script, which downloads
this file.)
"""

from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path

from hybridbatch.common.records import BadRow, Row
from hybridbatch.data.download.sizes import WebFile
from hybridbatch.data.download.web import web_file
from hybridbatch.data.formats.tables import (
    Record,
    RowProblem,
    checked_text,
    convert,
    identifier,
    known_language,
)
from hybridbatch.data.pairs.translated_questions import question_rows
from hybridbatch.data.source import Source, SourceContext
from hybridbatch.data.sources.local_copies import home_files, local_files

URL, REVISION = (
    "https://github.com/mia-workshop/MIA-Shared-Task-2022",
    "ea2491a3e3a588e270b2dd30ce7e044584c3eeb5",
)
LICENCE = "CC BY-SA 3.0"
FILE = "parallel_queries.dev.jsonl.gz"
FULL_URL, FULL_REVISION = (
    "https://github.com/apple/ml-mkqa",
    "651b8cc85c407270b024157aff06ee6ab8c4fc6d",
)
ADDRESS = (
    f"https://raw.githubusercontent.com/apple/ml-mkqa/{FULL_REVISION}/dataset/mkqa.jsonl.gz"
)
YIELDS = "question <-> its translation, for cross-lingual batches"


def _inputs(context: SourceContext) -> list[Path]:
    return local_files(context, "mkqa-mia", [FILE], f"{URL} at {REVISION} ({LICENCE})")


def _rows(context: SourceContext) -> Iterator[Row | BadRow]:
    (path,) = _inputs(context)
    yield from convert(path, f"mkqa-mia/{FILE}", partial(_parse, context, "mkqa", "id"))


def _full_rows(context: SourceContext) -> Iterator[Row | BadRow]:
    yield from convert(
        web_file(ADDRESS),
        "mkqa/mkqa.jsonl.gz",
        partial(_parse, context, "mkqa-full", "example_id"),
    )


def _parse(
    context: SourceContext, source: str, id_field: str, number: int, record: Record
) -> Iterator[Row]:
    queries = record.get("queries")
    if not isinstance(queries, Mapping):
        raise RowProblem("queries", "must be an object of texts by language")
    record_id = identifier(record, id_field)
    texts: dict[str, str] = {}
    # of two versions in one script (zh_hk, zh_tw) the first counts
    for code, query in queries.items():
        texts.setdefault(
            known_language(code, "queries"), checked_text(query, f"queries.{code}")
        )
    # The whole file is a development set, so its split carries no information here.
    yield from question_rows(context, source, record_id, texts, "train")


SOURCES = (
    Source(
        name="mkqa",
        title="MKQA, development set of the MIA 2022 shared task",
        licence=LICENCE,
        url=URL,
        revision=REVISION,
        languages="12",
        size="1,758 questions",
        yields=YIELDS,
        rows=_rows,
        inputs=_inputs,
        files=partial(home_files, "mkqa-mia"),
    ),
    Source(
        name="mkqa-full",
        title="MKQA, all questions in all languages",
        licence=LICENCE,
        url=FULL_URL,
        revision=FULL_REVISION,
        languages="25, Chinese in two scripts",
        size="10,000 questions",
        yields=YIELDS,
        rows=_full_rows,
        files=lambda context: [WebFile(ADDRESS)],
    ),
)
