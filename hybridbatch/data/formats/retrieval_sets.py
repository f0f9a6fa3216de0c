"""Question -> passage rows of retrieval sets in JSON Lines.

A set has files ``corpus.X``, ``qrels.X`` and ``queries.X``.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path

from hybridbatch.common.records import BadRow, Row, Split
from hybridbatch.data.formats.tables import (
    Record,
    RowProblem,
    absorb,
    convert,
    identifier,
    language,
    text,
)

NEGATIVES = (
    4  # hard negatives kept of a row: each makes the store larger by a passage per language
)
Passages = dict[str, tuple[str, str]]  # passage id -> canonical language, text with its title


def question_rows(
    source: str, corpus: Path, qrels: Path, queries: Path, split: Split
) -> Iterator[Row | BadRow]:
    """A row for every question and passage that answers it.

    The second and later passages of a question become separate records.
    """
    passages: Passages = {}
    relevant: dict[str, list[str]] = {}
    yield from absorb(
        corpus, display_name(corpus), lambda record: take_passage(passages, record)
    )

    def take_relevant(record: Record) -> None:
        if record.get("rel") != 0:
            relevant.setdefault(identifier(record, "query_id"), []).append(
                identifier(record, "doc_id")
            )

    yield from absorb(qrels, display_name(qrels), take_relevant)

    def parse(number: int, record: Record) -> Iterator[Row]:
        question, code, query = (
            identifier(record, "id"),
            language(record, "lang"),
            text(record, "text"),
        )
        if question not in relevant:
            raise RowProblem("id", "no passage is relevant to the question")
        for further, passage_id in enumerate(relevant[question]):
            passage = find_passage(passages, passage_id, "id")[1]
            record_id = f"{question}#{further + 1}" if further else question
            yield Row(source, record_id, code, query, passage, split=split)

    yield from convert(queries, display_name(queries), parse)


def take_passage(passages: Passages, record: Record) -> None:
    """Add a corpus record; its title, if any, precedes the text, joined with a blank as in mteb."""
    title = str(record.get("title") or "").replace("_", " ")
    passages[identifier(record, "id")] = (
        language(record, "lang"),
        f"{title} {text(record, 'text')}".strip(),
    )


def find_passage(passages: Passages, passage_id: str, field: str) -> tuple[str, str]:
    """(language, text) of a passage.

    Raises:
        RowProblem: No passage has this id; the problem names `field`.
    """
    if passage_id not in passages:
        raise RowProblem(field, "the corpus has no such passage")
    return passages[passage_id]


def display_name(path: Path) -> str:
    """The name of a data set's file in reports; it is equal on every machine."""
    return f"{path.parent.name}/{path.name}"


def question_with_passages(
    source: str, record_id: str, language: str, question: str, record: Record
) -> Iterator[Row]:
    """A row for each of ``positive_passages``; the second and later become separate records."""
    negatives = tuple(
        titled(passage) for passage in _passages(record, "negative_passages")[:NEGATIVES]
    )
    for further, passage in enumerate(_passages(record, "positive_passages")):
        name = f"{record_id}#{further + 1}" if further else record_id
        yield Row(source, name, language, question, titled(passage), negatives)


def titled(passage: Record) -> str:
    """A passage's text after its title, joined with a blank as mteb does."""
    title = str(passage.get("title") or "")
    body = passage.get("text")
    # Some passages of Wikipedia have only a title, which is then the content.
    is_empty = body is None or (isinstance(body, str) and not body.strip())
    if is_empty and title.strip():
        return title.strip()
    return f"{title} {text(passage, 'text')}".strip()


def _passages(record: Record, field: str) -> list[Record]:
    passages = record.get(field) or []
    if not isinstance(passages, list) or not all(
        isinstance(passage, Mapping) for passage in passages
    ):
        raise RowProblem(field, "must be a list of objects")
    return passages
