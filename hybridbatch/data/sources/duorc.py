"""DuoRC (IBM): questions about films, answered from the plot (SelfRC).

A plot is long, so the passage is the part of it that holds an answer word by word
(`long_documents.passage_with`). A question has no row if it has no answer or if the plot has the
answer only in other words. Layout read on 2026-11-24 from the data set's card and pages of its
files: configuration SelfRC, split ``train`` (60,721 rows), columns plot_id, plot, title,
question_id, question, answers (list), no_answer, file ``SelfRC/train-00000-of-00001.parquet``. The
commit is the conversion to Parquet, which the page of the main branch shows on top and public code
names in full.
"""

from collections.abc import Iterator

from hybridbatch.common.records import BadRow, Row
from hybridbatch.data.download.hub import Repository
from hybridbatch.data.formats.tables import Record, RowProblem, checked_text, identifier, text
from hybridbatch.data.pairs.long_documents import passage_with
from hybridbatch.data.source import SourceContext
from hybridbatch.data.sources.kinds import hub_source

HUB = Repository("ibm-research/duorc", "2de12436b8945030c283bf4af83925d60efe10c6")


def _rows(context: SourceContext) -> Iterator[Row | BadRow]:
    if context.keeps("eng"):
        yield from HUB.read(HUB.config("SelfRC"), _parse)


def _parse(place: str, record: Record) -> Iterator[Row]:
    question, plot, answers = (
        text(record, "question"),
        text(record, "plot"),
        record.get("answers"),
    )
    if not isinstance(answers, list):
        raise RowProblem("answers", "must be a list of texts")
    if record.get("no_answer") is True:
        return
    passage = passage_with(
        plot, [checked_text(answer, "answers") for answer in answers], question
    )
    if passage is not None:
        yield Row("duorc", identifier(record, "question_id"), "eng", question, passage)


SOURCES = (
    hub_source(
        HUB,
        name="duorc",
        title="DuoRC SelfRC, training set",
        licence="MIT",
        languages="en",
        size="those of 60,721 questions that the plot answers word by word",
        yields="question -> part of the plot that holds the answer",
        rows=_rows,
        files=lambda context: ["SelfRC/train-.*"],
    ),
)
