"""EXAMS: school exam questions with parallel versions; wrong choices are hard negatives.

The splits come from the source.
"""

from collections.abc import Iterator
from functools import partial
from pathlib import Path

from hybridbatch.common.records import BadRow, Row
from hybridbatch.data.formats.tables import (
    Record,
    RowProblem,
    checked_text,
    convert,
    identifier,
    language,
    split,
    text,
)
from hybridbatch.data.pairs.aligned_text import has_letters
from hybridbatch.data.source import Source, SourceContext
from hybridbatch.data.sources.local_copies import home_files, local_files

URL, REVISION = (
    "https://github.com/mhardalov/exams-qa",
    "f859e665de6c370f6214ca5f36a34ace36ada6cb",
)
LICENCE = "CC BY-SA 4.0"
# "42", "A, B" or "B и C" mean nothing without the question; short words like "rat" go with them
ANSWER_LETTERS = 4


def _inputs(context: SourceContext) -> list[Path]:
    return local_files(
        context, "exams", ["questions.jsonl.gz"], f"{URL} at {REVISION} ({LICENCE})"
    )


def _rows(context: SourceContext) -> Iterator[Row | BadRow]:
    (path,) = _inputs(context)
    yield from convert(path, "exams/questions.jsonl.gz", _parse)


def _parse(number: int, record: Record) -> Iterator[Row]:
    answer, choices = text(record, "answer"), record.get("choices")
    if not has_letters(answer, ANSWER_LETTERS):
        raise RowProblem("answer", f"fewer than {ANSWER_LETTERS} letters")
    if not isinstance(choices, list):
        raise RowProblem("choices", "must be a list of texts")
    yield Row(
        "exams",
        identifier(record, "group"),
        language(record, "lang"),
        text(record, "text"),
        answer,
        negatives=tuple(
            checked_text(choice, "choices") for choice in choices if choice != answer
        ),
        split=split(record, "split"),
    )


SOURCES = (
    Source(
        name="exams",
        title="EXAMS, school exam questions with parallel versions",
        licence=LICENCE,
        url=URL,
        revision=REVISION,
        languages="10",
        size="3,847 records, 10,130 rows",
        yields="question -> correct answer, hard negatives: the other choices",
        rows=_rows,
        inputs=_inputs,
        files=partial(home_files, "exams"),
    ),
)
