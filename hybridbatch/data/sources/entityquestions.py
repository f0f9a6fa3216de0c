"""EntityQuestions (Princeton): simple questions about entities, made from Wikidata.

Each question has the names that answer it. There are no passages, so the first name is the passage.
Layout read on 2026-11-24 from the repository's README and public code that reads the data: a zip
with ``dataset/train/P*.train.json``, each a list of {question, answers}. The zip has no version; a
run's provenance has its checksum.
"""

import re
from collections.abc import Iterator, Mapping
from functools import partial

from hybridbatch.common.errors import DataError
from hybridbatch.common.records import BadRow, Row
from hybridbatch.data.download.sizes import WebFile
from hybridbatch.data.download.web import web_file
from hybridbatch.data.formats.tables import (
    Record,
    RowProblem,
    checked_text,
    convert_records,
    text,
)
from hybridbatch.data.formats.zipped import zipped_json
from hybridbatch.data.source import Source, SourceContext

URL, REVISION = (
    "https://github.com/princeton-nlp/EntityQuestions",
    "e55d22150ccf324692de329e4e8efcbe7f767f75",
)
ADDRESS = "https://nlp.cs.princeton.edu/projects/entity-questions/dataset.zip"
_TRAIN = re.compile(r"(?:.*/)?dataset/train/(P\d+)\.train\.json")


def _rows(context: SourceContext) -> Iterator[Row | BadRow]:
    if not context.keeps("eng"):
        return
    path = web_file(ADDRESS)
    for member, questions in zipped_json(path, _TRAIN):
        if not isinstance(questions, list):
            raise DataError(
                f"{path}: {member[0]} must be a list of questions; the file differs from what"
                " this source expects"
            )
        yield from convert_records(
            enumerate(questions, 1), f"entityquestions/{member[0]}", partial(_parse, member[1])
        )


def _parse(relation: str, number: int, record: Record) -> Iterator[Row]:
    answers = record.get("answers") if isinstance(record, Mapping) else None
    if not isinstance(answers, list) or not answers:
        raise RowProblem("answers", "must be a list of names")
    question = text(record, "question")
    yield Row(
        "entityquestions",
        f"{relation}:{number}",
        "eng",
        question,
        checked_text(answers[0], "answers"),
    )


SOURCES = (
    Source(
        name="entityquestions",
        title="EntityQuestions, training set",
        licence="MIT",
        url=URL,
        revision=REVISION,
        languages="en",
        size="about 177,000 questions",
        yields="question -> name of the entity that answers it",
        rows=_rows,
        inputs=lambda context: [web_file(ADDRESS)],
        files=lambda context: [WebFile(ADDRESS)],
    ),
)
