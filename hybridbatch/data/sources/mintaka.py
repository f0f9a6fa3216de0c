"""Mintaka (Amazon): complex questions in English and eight translations, answered by Wikidata.

If the answer is entities, the passage is their names in the question's language, where Wikidata has
them. If it is a number, a date or a truth value, the record pairs the question with its
translation.

Layout read on 2026-11-24 from the repository's README: ``data/mintaka_train.json``, a list of {id,
question, translations: {lang: text}, answer: {answerType, answer: [{name, label: {lang: text or
null}}], mention}}. (The data set on the hub, AmazonScience/mintaka, has only a script, which
downloads these files.) Only the training set is read, because mteb's MintakaRetrieval has the test
set.
"""

from collections.abc import Iterator, Mapping
from functools import partial

from hybridbatch.common.errors import DataError
from hybridbatch.common.files import read_json
from hybridbatch.common.records import BadRow, Row
from hybridbatch.data.download.sizes import WebFile
from hybridbatch.data.download.web import web_file
from hybridbatch.data.formats.tables import (
    Record,
    RowProblem,
    checked_text,
    convert_records,
    identifier,
    known_language,
    text,
)
from hybridbatch.data.pairs.translated_questions import question_rows
from hybridbatch.data.source import Source, SourceContext

URL, REVISION = (
    "https://github.com/amazon-science/mintaka",
    "b6146ffb41562803c45df3c028b4cdad8c09dd4d",
)
FILE = "data/mintaka_train.json"
ADDRESS = f"https://raw.githubusercontent.com/amazon-science/mintaka/{REVISION}/{FILE}"


def _rows(context: SourceContext) -> Iterator[Row | BadRow]:
    path = web_file(ADDRESS)
    questions = read_json(path)
    if not isinstance(questions, list):
        raise DataError(
            f"{path}: must be a list of questions; delete it and run the same command again"
        )
    yield from convert_records(
        enumerate(questions, 1), f"mintaka/{FILE}", partial(_parse, context)
    )


def _parse(context: SourceContext, number: int, record: Record) -> Iterator[Row]:
    translations, answer = record.get("translations"), record.get("answer")
    if not isinstance(translations, Mapping):
        raise RowProblem("translations", "must be an object of texts by language")
    if not isinstance(answer, Mapping):
        raise RowProblem("answer", "must be an object")
    record_id = identifier(record, "id")
    texts = {"en": text(record, "question"), **translations}
    asked = {
        known_language(code, "translations"): checked_text(words, "translations")
        for code, words in texts.items()
    }
    if answer.get("answerType") != "entity":
        yield from question_rows(context, "mintaka", record_id, asked, "train")
        return
    entities = answer.get("answer")
    if not isinstance(entities, list) or not entities:
        raise RowProblem("answer", "must have a list of entities")
    names = {known_language(code, "translations"): _names(entities, code) for code in texts}
    for code, question in asked.items():
        yield Row("mintaka", record_id, code, question, names[code])


def _names(entities: list[Record], code: str) -> str | None:
    """The names of all entities in a language; None if one of them has no name in it."""
    labels = [(entity.get("label") or {}).get(code) for entity in entities]
    names = [label for label in labels if isinstance(label, str) and label.strip()]
    return ", ".join(names) if len(names) == len(labels) else None


SOURCES = (
    Source(
        name="mintaka",
        title="Mintaka, training set",
        licence="CC BY 4.0",
        url=URL,
        revision=REVISION,
        languages="9",
        size="14,000 questions, all in 9 languages",
        yields="question -> names of the answer; question <-> translation where the answer is a value",
        rows=_rows,
        files=lambda context: [WebFile(ADDRESS)],
    ),
)
