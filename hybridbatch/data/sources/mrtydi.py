"""Mr. TyDi (Castorini): questions in eleven languages with passages of the language's Wikipedia.

The languages are not parallel. Layout read on 2026-11-24 from the data set's card and pages of its
files at the commit below: ``mrtydi-v1.1-LANGUAGE/train.jsonl.gz``, lines {query_id, query,
positive_passages: [{docid, title, text}], negative_passages: [in the same form]}. The negatives are
from the top 30 of BM25. Only the training set is read, because development and test sets are
evaluation data.
"""

from collections.abc import Iterator
from functools import partial

from hybridbatch.common.records import BadRow, Row
from hybridbatch.data.download.hub import Repository
from hybridbatch.data.formats.retrieval_sets import question_with_passages
from hybridbatch.data.formats.tables import Record, identifier, text
from hybridbatch.data.source import SourceContext
from hybridbatch.data.sources.kinds import hub_source, wanted

HUB = Repository("castorini/mr-tydi", "3506bca8a88cdb49d8d35e954365ca6053e4346a")
LANGUAGES = [
    "arabic",
    "bengali",
    "english",
    "finnish",
    "indonesian",
    "japanese",
    "korean",
    "russian",
    "swahili",
    "telugu",
    "thai",
]


def _rows(context: SourceContext) -> Iterator[Row | BadRow]:
    for name, code in wanted(context, LANGUAGES):
        yield from HUB.read([f"mrtydi-v1.1-{name}/train.jsonl.gz"], partial(_parse, code))


def _parse(code: str, place: str, record: Record) -> Iterator[Row]:
    record_id = f"{code}:{identifier(record, 'query_id')}"
    yield from question_with_passages("mrtydi", record_id, code, text(record, "query"), record)


SOURCES = (
    hub_source(
        HUB,
        name="mrtydi",
        title="Mr. TyDi, training set",
        licence="Apache-2.0 (passages: Wikipedia, CC BY-SA)",
        languages="11",
        size="48,729 questions, 3,547 of them in English",
        yields="question -> passage, hard negatives of BM25",
        rows=_rows,
        files=lambda context: [
            f"mrtydi-v1.1-{name}/train.*" for name, _ in wanted(context, LANGUAGES)
        ],
        stored=0.2,  # four of thirty negatives
    ),
)
