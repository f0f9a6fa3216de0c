"""Yahoo! Answers: titles of questions with the best answer of the users.

The pairs of the sentence-transformers project. Layout read on 2026-11-24 from the library's documentation of its data
sets and from public code that loads them: configuration ``title-answer-pair``, split ``train``, columns title and answer,
no ids. No commit was found in public material, so the branch is named; a run's provenance tells the commit it got.
"""

from collections.abc import Iterator

from hybridbatch.records import BadRow, Row
from hybridbatch.sources import SourceContext
from hybridbatch.sources.hub import Repository, hub_source
from hybridbatch.sources.reading import Record, text

HUB = Repository("sentence-transformers/yahoo-answers")


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
    ),
)
