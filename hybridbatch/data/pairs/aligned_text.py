"""Pseudo pairs from aligned text: documents whose lines are parallel in every language.

A document is cut into blocks of four lines by position alone, so that the blocks are parallel in
every language::

    position  0  query     headline, title, or any sentence
              1  passage ┐
              2  passage ┘ one passage: two neighbouring lines
              3  query     the sentence after it
              4  query     next block

The first and the last line of a block are queries for the passage between them. So no query text
occurs in any passage. Two passages either are equal (the schedule keeps them apart) or have no line
in common. So a batch has none of the false negatives that overlapping windows would cause.
"""

import unicodedata
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from hybridbatch.common.errors import DataError
from hybridbatch.common.records import BadRow, Row, Split
from hybridbatch.common.texts import comparable
from hybridbatch.data.formats.tables import Record, RowProblem, read_records
from hybridbatch.data.source import SourceContext

BLOCK = 4
# Fewer letters have too little content to search for ("Oh no!"); a Chinese headline has more.
QUERY_LETTERS = 8
PASSAGE_LETTERS = 16  # two lines of a picture book reach it in nearly all languages


class Entry(NamedTuple):
    """One line of a document in one language."""

    document: str  # equal in every language
    language: str  # canonical
    position: int
    text: str
    split: Split = "train"


class DocumentLine(NamedTuple):
    """A line of a document, as it is in its file."""

    number: int  # in the file
    text: str
    split: Split


@dataclass(frozen=True)
class Document:
    """The lines of a document in one language, by position."""

    name: str
    language: str
    lines: dict[int, DocumentLine] = field(default_factory=dict)


def document_rows(source: str, document: Document, file: str) -> Iterator[Row | BadRow]:
    """The pairs of a document in one language; record ids are ``document:position of the query``.

    A pair becomes a bad row of `file` if it has too few letters, or if its query occurs inside the
    passage (a refrain).
    """
    lines = document.lines
    for block in sorted({at // BLOCK for at in lines}):
        first = block * BLOCK
        passage = " ".join(lines[at].text for at in (first + 1, first + 2) if at in lines)
        for at in (first, first + 3):
            if at not in lines or not passage:
                continue
            number, query, split = lines[at]
            reason = _unfit(query, passage)
            if reason:
                yield BadRow(file, number, "text", reason)
            else:
                record = f"{document.name}:{at}"
                yield Row(source, record, document.language, query, passage, split=split)


def _unfit(query: str, passage: str) -> str | None:
    if not has_letters(query, QUERY_LETTERS):
        return f"fewer than {QUERY_LETTERS} letters in the query"
    if not has_letters(passage, PASSAGE_LETTERS):
        return f"fewer than {PASSAGE_LETTERS} letters in the passage"
    if comparable(query) in comparable(passage):
        return "the query occurs inside its passage"
    return None


def has_letters(text: str, least: int) -> bool:
    """Whether `text` has at least `least` letters.

    Vowel signs count, because they are marks in the scripts of South Asia.
    """
    if len(text) < least:
        return False
    count = 0
    for character in text:
        if unicodedata.category(character)[0] in "LM":
            count += 1
            if count >= least:
                return True
    return False


def gather(
    path: Path,
    file: str,
    parse: Callable[[int, Record], Iterable[Entry]],
    keeps: Callable[[str], bool],
    records: Iterable[tuple[int, Record] | BadRow] | None = None,
) -> Iterator[BadRow | Document]:
    """The bad rows of a file, then every document in every language that `keeps` wants.

    Args:
        path: the file, held in memory as a whole.
        file: the file's name in bad rows.
        parse: returns the entries of a (line, record); may raise `RowProblem`.
        records: the records of the file, if they are read by other means.

    Raises:
        DataError: A document has two lines at one position in one language, or the file cannot be
            read (see `read_records`).
    """
    documents: dict[tuple[str, str], Document] = {}
    for item in read_records(path, file) if records is None else records:
        if isinstance(item, BadRow):
            yield item
            continue
        number, record = item
        try:
            for entry in parse(number, record):
                if keeps(entry.language):
                    _add(documents, entry, number, path)
        except RowProblem as problem:
            yield BadRow(file, number, problem.field, problem.reason)
    yield from documents.values()


def _add(
    documents: dict[tuple[str, str], Document], entry: Entry, number: int, path: Path
) -> None:
    key = (entry.document, entry.language)
    lines = documents.setdefault(key, Document(*key)).lines
    if entry.position in lines:
        raise DataError(
            f"{path}:{number}: position {entry.position} of document {entry.document!r} in"
            f" language {entry.language!r} is already taken by line"
            f" {lines[entry.position].number}; remove one of the lines"
        )
    lines[entry.position] = DocumentLine(number, entry.text, entry.split)


def file_rows(
    source: str,
    path: Path,
    file: str,
    parse: Callable[[int, Record], Iterable[Entry]],
    context: SourceContext,
    records: Iterable[tuple[int, Record] | BadRow] | None = None,
) -> Iterator[Row | BadRow]:
    """The pairs of all documents of one file; for arguments and errors see `gather`."""
    for item in gather(path, file, parse, context.keeps, records):
        if isinstance(item, BadRow):
            yield item
        else:
            yield from document_rows(source, item, file)
