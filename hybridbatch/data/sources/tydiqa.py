"""TyDi QA (Google), gold passage task: questions and answering passages in nine languages.

The languages are not parallel. `tydi` has the local copy of three of them. Layout read on
2026-11-24 from public code that reads the files at the commit below: configuration
``secondary_task``, split ``train``, file ``secondary_task/train-00000-of-00001.parquet``, the
columns of SQuAD: id (which starts with the language's English name), title, context, question,
answers. Only the training set is read.
"""

from collections.abc import Iterator

from hybridbatch.common.records import BadRow, Row
from hybridbatch.data.download.hub import Repository
from hybridbatch.data.formats.tables import Record, identifier, known_language, text
from hybridbatch.data.source import SourceContext
from hybridbatch.data.sources.kinds import hub_source, wanted

HUB = Repository("google-research-datasets/tydiqa", "da78f23f9119363459acbaf46bf89426ff26c259")
CODES = ("arb", "ben", "eng", "fin", "ind", "kor", "rus", "swh", "tel")


def _rows(context: SourceContext) -> Iterator[Row | BadRow]:
    if wanted(context, CODES):
        yield from HUB.read(HUB.config("secondary_task"), _parse)


def _parse(place: str, record: Record) -> Iterator[Row]:
    record_id = identifier(record, "id")
    language = known_language(record_id.partition("-")[0], "id")
    passage = f"{record.get('title') or ''} {text(record, 'context')}".strip()
    yield Row("tydiqa", record_id, language, text(record, "question"), passage)


SOURCES = (
    hub_source(
        HUB,
        name="tydiqa",
        title="TyDi QA gold passage, training set in all languages",
        licence="Apache-2.0 (passages: Wikipedia, CC BY-SA)",
        languages="9",
        size="49,881 questions",
        yields="question -> passage",
        rows=_rows,
        files=lambda context: ["secondary_task/train-.*"],
    ),
)
