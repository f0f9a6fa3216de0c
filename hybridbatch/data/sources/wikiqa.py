"""WikiQA (Microsoft): search questions with answering and other sentences of Wikipedia summaries.

Layout read on 2026-11-24 from the data set's card and pages of its files: one configuration, split
``train`` (20,360 rows), columns question_id, question, document_title, answer, label (1: the
sentence answers), file ``data/train-00000-of-00001.parquet``. The commit is the conversion to
Parquet, which the page of the main branch shows on top and a public report names in full.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field

from hybridbatch.common.records import BadRow, Row
from hybridbatch.data.download.hub import Repository
from hybridbatch.data.formats.retrieval_sets import NEGATIVES
from hybridbatch.data.formats.tables import Record, RowProblem, identifier, text
from hybridbatch.data.source import SourceContext
from hybridbatch.data.sources.kinds import hub_source

HUB = Repository("microsoft/wiki_qa", "3f104672b5de699878fe7907afc486f0de325eb5")


@dataclass
class _Question:
    words: str
    answers: list[str] = field(default_factory=list)
    others: list[str] = field(default_factory=list)


def _rows(context: SourceContext) -> Iterator[Row | BadRow]:
    if not context.keeps("eng"):
        return
    questions: dict[str, _Question] = {}

    def take(place: str, record: Record) -> Iterator[Row]:
        words, sentence, label = (
            text(record, "question"),
            text(record, "answer"),
            record.get("label"),
        )
        if label not in (0, 1):
            raise RowProblem("label", f"must be 0 or 1, not {label!r}")
        question = questions.setdefault(identifier(record, "question_id"), _Question(words))
        (question.answers if label else question.others).append(sentence)
        return iter(())

    yield from HUB.read(HUB.config("default"), take)
    for name, question in questions.items():
        for further, answer in enumerate(question.answers):
            record_id = f"{name}#{further + 1}" if further else name
            yield Row(
                "wikiqa",
                record_id,
                "eng",
                question.words,
                answer,
                tuple(question.others[:NEGATIVES]),
            )


SOURCES = (
    hub_source(
        HUB,
        name="wikiqa",
        title="WikiQA, training set",
        licence="Microsoft Research Data License: research only",
        languages="en",
        size="1,040 pairs",
        yields="question -> sentence, hard negatives: the other sentences of the summary",
        rows=_rows,
        files=lambda context: ["data/train-.*"],
    ),
)
