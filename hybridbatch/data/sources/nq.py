"""Natural Questions (Google): search engine questions, with a Wikipedia paragraph that answers.

The pairs come from the sentence-transformers project, which has one long answer per question.
Layout read on 2026-11-24 from the library's documentation of its data sets and from public code
that loads them: configuration ``pair``, split ``train``, columns query and answer, no ids, file
``pair/train-00000-of-00001.parquet``. Model cards name the commit.
"""

from collections.abc import Iterator

from hybridbatch.common.records import BadRow, Row
from hybridbatch.data.download.hub import Repository
from hybridbatch.data.formats.tables import Record, text
from hybridbatch.data.source import SourceContext
from hybridbatch.data.sources.kinds import hub_source

HUB = Repository(
    "sentence-transformers/natural-questions", "f9e894e1081e206e577b4eaa9ee6de2b06ae6f17"
)


def _rows(context: SourceContext) -> Iterator[Row | BadRow]:
    if context.keeps("eng"):
        yield from HUB.read(HUB.config("pair"), _parse)


def _parse(place: str, record: Record) -> Iterator[Row]:
    yield Row("nq", place, "eng", text(record, "query"), text(record, "answer"))


SOURCES = (
    hub_source(
        HUB,
        name="nq",
        title="Natural Questions, question and long answer",
        licence="CC BY-SA 3.0 (Natural Questions)",
        languages="en",
        size="100,231 pairs",
        yields="question -> paragraph",
        rows=_rows,
        files=lambda context: ["pair/train-.*"],
    ),
)
