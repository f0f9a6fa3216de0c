"""Reads JSON in the form of SQuAD 1.1.

The form is {data: [{title, paragraphs: [{context, qas: [{id, question, ...}]}]}]}.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from hybridbatch.common.records import BadRow, Row
from hybridbatch.data.formats.tables import Record, RowProblem, checked_text


def squad_rows(
    whole: Any, name: str, parse: Callable[[str, str, Record], Iterable[Row]]
) -> Iterator[Row | BadRow]:
    """The rows that `parse` makes of (title, context, question record).

    Bad rows are numbered by article.

    Args:
        whole: the content of the file.
        name: the file's name in bad rows.
    """
    articles = whole.get("data") if isinstance(whole, Mapping) else None
    if not isinstance(articles, list):
        yield BadRow(name, 0, "data", "must be a list of articles")
        return
    for number, article in enumerate(articles, 1):
        try:
            title = str(article.get("title") or "")
            questions = [
                (part["context"], question)
                for part in article["paragraphs"]
                for question in part["qas"]
            ]
        except (KeyError, TypeError, AttributeError):
            yield BadRow(
                name, number, "paragraphs", "must be paragraphs with a context and questions"
            )
            continue
        for context, question in questions:
            try:
                if not isinstance(question, Mapping):
                    raise RowProblem("qas", "must be objects")
                yield from parse(title, checked_text(context, "context"), question)
            except RowProblem as problem:
                yield BadRow(name, number, problem.field, problem.reason)
