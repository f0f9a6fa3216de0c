"""Records of a question with lists of positive and negative passages, as Tevatron and Mr. TyDi have them."""

from collections.abc import Iterator, Mapping

from hybridbatch.records import Row
from hybridbatch.sources.hub import NEGATIVES
from hybridbatch.sources.reading import Record, RowProblem, text


def question_with_passages(source: str, record_id: str, language: str, question: str, record: Record) -> Iterator[Row]:
    """A row for each of ``positive_passages``; further ones make records of their own."""
    negatives = tuple(titled(passage) for passage in _passages(record, "negative_passages")[:NEGATIVES])
    for further, passage in enumerate(_passages(record, "positive_passages")):
        name = f"{record_id}#{further + 1}" if further else record_id
        yield Row(source, name, language, question, titled(passage), negatives)


def titled(passage: Record) -> str:
    """A passage's text with its title before it, joined with a blank as mteb does."""
    return f"{passage.get('title') or ''} {text(passage, 'text')}".strip()


def _passages(record: Record, field: str) -> list[Record]:
    passages = record.get(field) or []
    if not isinstance(passages, list) or not all(isinstance(passage, Mapping) for passage in passages):
        raise RowProblem(field, "must be a list of objects")
    return passages
