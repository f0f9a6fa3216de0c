"""AfriQA: questions in African languages with human translations and gold passages in a pivot.

`afriqa` has the questions with a gold passage. The African language has only the query, and the
pivot (English or French) has the translated question and the passage. `afriqa-questions` has the
other questions, as question <-> question records. The splits come from the source (its test set is
not public).
"""

from collections.abc import Iterator
from functools import partial
from pathlib import Path

from hybridbatch.common.records import BadRow, Row
from hybridbatch.data.formats.retrieval_sets import (
    Passages,
    display_name,
    find_passage,
    take_passage,
)
from hybridbatch.data.formats.tables import (
    Record,
    absorb,
    convert,
    identifier,
    language,
    split,
    text,
)
from hybridbatch.data.pairs.translated_questions import question_rows
from hybridbatch.data.source import Source, SourceContext
from hybridbatch.data.sources.local_copies import home_files, local_files

URL, REVISION = (
    "https://github.com/masakhane-io/afriqa",
    "5c29933753692c28773c34ac1f68482007f1d2bb",
)
LICENCE = "CC BY 4.0 (passages: Wikipedia, CC BY-SA)"
_ORIGIN = f"{URL} at {REVISION} ({LICENCE})"


def _queries(context: SourceContext) -> list[Path]:
    return local_files(context, "afriqa", ["queries.*.jsonl.gz"], _ORIGIN)


def _corpora(context: SourceContext) -> list[Path]:
    return local_files(context, "afriqa", ["corpus.en.jsonl.gz", "corpus.fr.jsonl.gz"], _ORIGIN)


def _passage_rows(context: SourceContext) -> Iterator[Row | BadRow]:
    passages: Passages = {}
    for path in _corpora(context):
        yield from absorb(path, display_name(path), partial(take_passage, passages))
    for path in _queries(context):
        yield from convert(path, display_name(path), partial(_with_passage, passages))


def _with_passage(passages: Passages, number: int, record: Record) -> Iterator[Row]:
    if record.get("doc_id") is None:
        return
    pivot, passage = find_passage(passages, identifier(record, "doc_id"), "doc_id")
    record_id, part = identifier(record, "id"), split(record, "split")
    yield Row(
        "afriqa", record_id, language(record, "lang"), text(record, "text"), None, split=part
    )
    yield Row("afriqa", record_id, pivot, text(record, "pivot_text"), passage, split=part)


def _question_rows(context: SourceContext) -> Iterator[Row | BadRow]:
    for path in _queries(context):
        yield from convert(path, display_name(path), partial(_without_passage, context))


def _without_passage(context: SourceContext, number: int, record: Record) -> Iterator[Row]:
    if record.get("doc_id") is not None:
        return
    texts = {
        language(record, "lang"): text(record, "text"),
        language(record, "pivot_lang"): text(record, "pivot_text"),
    }
    yield from question_rows(
        context, "afriqa-questions", identifier(record, "id"), texts, split(record, "split")
    )


SOURCES = (
    Source(
        name="afriqa",
        title="AfriQA, questions with a gold passage",
        licence=LICENCE,
        url=URL,
        revision=REVISION,
        languages="8 African languages; en, fr",
        size="3,946 records, 7,892 rows",
        yields="African question -> English or French passage; its translation -> the passage",
        rows=_passage_rows,
        inputs=lambda context: _corpora(context) + _queries(context),
        files=partial(home_files, "afriqa"),
    ),
    Source(
        name="afriqa-questions",
        title="AfriQA, questions without a gold passage",
        licence=LICENCE,
        url=URL,
        revision=REVISION,
        languages="10 African languages; en, fr",
        size="4,673 records, 9,346 rows",
        yields="question <-> its translation, for cross-lingual batches",
        rows=_question_rows,
        inputs=_queries,
        files=partial(home_files, "afriqa"),
    ),
)
