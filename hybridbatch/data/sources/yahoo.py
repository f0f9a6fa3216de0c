"""Yahoo! Answers: titles of questions with the best answer of the users.

The pairs come from the sentence-transformers project. Layout read on 2026-11-24 from the library's
documentation of its data sets and from public code that loads them: configuration
``title-answer-pair``, split ``train``, columns title and answer, no ids. The commit is on top of
the main branch's page, and the commit's page names it in full.
"""

from collections.abc import Iterator

from hybridbatch.common.records import BadRow, Row
from hybridbatch.data.download.hub import Repository
from hybridbatch.data.formats.tables import Record, text
from hybridbatch.data.source import SourceContext
from hybridbatch.data.sources.kinds import hub_source

HUB = Repository(
    "sentence-transformers/yahoo-answers", "93b3605c508cf93e3666c9d3e34640b5fe62b507"
)


def _rows(context: SourceContext) -> Iterator[Row | BadRow]:
    if context.keeps("eng"):
        yield from HUB.read(HUB.config("title-answer-pair"), _parse)


def _parse(place: str, record: Record) -> Iterator[Row]:
    yield Row("yahoo", place, "eng", text(record, "title"), text(record, "answer"))


SOURCES = (
    hub_source(
        HUB,
        name="yahoo",
        title="Yahoo! Answers, titles and best answers",
        size="as its files say",
        licence="none stated; Yahoo! Webscope L6 is for research only",
        languages="en",
        yields="question -> answer",
        rows=_rows,
        files=lambda context: ["title-answer-pair/train-.*"],
    ),
)
