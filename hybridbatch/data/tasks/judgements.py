"""Reads qrels in common forms: BEIR tables, TREC's four columns, and JSON Lines.

BEIR tables may have any of the usual headers or none. Columns may be separated by tabs or blanks.
"""

import math
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from hybridbatch.common.errors import DataError
from hybridbatch.common.files import text_lines
from hybridbatch.common.texts import shortened
from hybridbatch.data.formats.columns import plain
from hybridbatch.data.tasks.texts_and_qrels import existing, identifier, json_rows

LARGEST_GRADE = 2**31 - 1
Judgement = tuple[str, str, int]  # query id, passage id, relevance
TABLES = (".tsv", ".txt", ".trec", ".qrels", ".qrel")
# Splits in the order of preference if none is named, by the names of their files.
SPLITS = ("test", "dev", "validation", "valid", "val", "train")
_NAMES = {
    "query": "query_id qid query topic topic_id query_id queryid q_id question_id qry_id",
    "passage": "corpus_id doc_id docid passage_id pid document_id docno doc_no did corpusid p_id"
    " doc passage document",
    "grade": "score relevance rel label grade relevancy judgment judgement rel_score qrel value",
    "iteration": "iteration iter q0 unused 0",
}
_PART_OF_NAME = {name: part for part, names in _NAMES.items() for name in names.split()}


def find_qrels(folder: Path, split: str | None = None) -> tuple[str, Path]:
    """The split that is scored, and its file: ``qrels/test.tsv``, else another split.

    Args:
        split: the wanted split; None: the first that exists, test before all others.

    Raises:
        DataError: There is no file of judgements.
    """
    for name in (split,) if split else SPLITS:
        for end in (*TABLES, ".jsonl"):
            found = existing(folder, f"qrels/{name}{end}", f"qrels.{name}{end}")
            if found:
                return name, found
    if not split:
        for end in (*TABLES, ".jsonl", ""):
            if found := existing(folder, f"qrels{end}"):
                return "test", found
    raise DataError(
        f"{folder / 'qrels' / (split or 'test')}.tsv: does not exist (nor as .gz); a language"
        " needs queries, a corpus and qrels"
    )


def read_judgements(path: Path, split: str | None = None) -> list[Judgement]:
    """The judgements of a file.

    The file is a table of three columns (query, passage, relevance), a table of TREC's four
    columns, or JSON Lines with ``query_id``, ``doc_id`` and ``rel``.

    Args:
        split: of JSON Lines with a ``split``, keep only the judgements of this split.

    Raises:
        DataError: A line is faulty, or one passage is judged in two ways; the message names the
            line.
    """
    json_lines = ".jsonl" in path.suffixes
    rows = _json_judgements(path, split) if json_lines else _table_judgements(path)
    found: list[Judgement] = []
    grades: dict[tuple[str, str], tuple[int, str]] = {}
    for place, query, passage, grade in rows:
        before = grades.setdefault((query, passage), (grade, place))
        if before[0] != grade:
            raise DataError(
                f"{place}: passage {passage!r} of query {query!r} is judged {grade} here and"
                f" {before[0]} at {before[1]}; keep one of the two lines"
            )
        if before[1] == place:
            found.append((query, passage, grade))
    return found


def qrels_of(judgements: Iterable[Judgement]) -> dict[str, dict[str, int]]:
    """Judgements by query."""
    qrels: dict[str, dict[str, int]] = {}
    for query, passage, grade in judgements:
        qrels.setdefault(query, {})[passage] = grade
    return qrels


def _json_judgements(path: Path, split: str | None) -> Iterator[tuple[str, str, str, int]]:
    for place, row in json_rows(path):
        if split is not None and row.get("split", split) != split:
            continue
        query = identifier(row, place, "query_id", "query-id", "qid")
        passage = identifier(row, place, "doc_id", "corpus-id", "docid", "passage_id")
        grade = next((row[name] for name in ("rel", "score", "relevance") if name in row), None)
        yield place, query, passage, _relevance(grade, place)


def _table_judgements(path: Path) -> Iterator[tuple[str, str, str, int]]:
    places: Mapping[str, int] | None = None
    for number, line in text_lines(path):
        place = f"{path}:{number}"
        if not line.strip():
            continue
        cells = _cells(line)
        if places is None:
            header = _header(cells)
            places = header or _places(len(cells), place)
            if header:
                continue
        if len(cells) <= max(places.values()):
            raise DataError(
                f"{place}: has {len(cells)} columns; qrels have three (query-id, corpus-id,"
                " score) or TREC's four (query, iteration, passage, relevance)"
            )
        yield (
            place,
            cells[places["query"]],
            cells[places["passage"]],
            _relevance(cells[places["grade"]], place),
        )


def _cells(line: str) -> list[str]:
    """The cells between tabs if the line has tabs, else between blanks."""
    if "\t" in line.strip():
        return [cell.strip() for cell in line.rstrip().split("\t")]
    return line.split()


def _header(cells: list[str]) -> dict[str, int] | None:
    """The place of each part if the line is a header; None if it is a judgement."""
    if _number(cells[-1]) is not None:
        return None
    found: dict[str, int] = {}
    for place, cell in enumerate(cells):
        part = _PART_OF_NAME.get(plain(cell))
        if part:
            found.setdefault(part, place)
    if {"query", "passage", "grade"} <= found.keys():
        return found
    # one known name shows a header in the usual order
    return dict(_places(len(cells), "")) if found and len(cells) in (3, 4) else None


def _places(columns: int, place: str) -> Mapping[str, int]:
    if columns == 3:
        return {"query": 0, "passage": 1, "grade": 2}
    if columns == 4:
        return {"query": 0, "passage": 2, "grade": 3}
    raise DataError(
        f"{place}: has {columns} columns; qrels have three (query-id, corpus-id, score) or TREC's"
        " four (query, iteration, passage, relevance)"
    )


def _number(value: Any) -> float | None:
    try:
        return float(value)
    except (TypeError, ValueError):
        return None
    except OverflowError:  # an integer of hundreds of digits
        return math.inf


def _relevance(value: Any, place: str) -> int:
    plain_number = not isinstance(value, bool) and "_" not in str(value)
    grade = _number(value) if plain_number else None
    if grade is not None and abs(grade) > LARGEST_GRADE:
        raise DataError(
            f"{place}: relevance {shortened(repr(value))} is not between -{LARGEST_GRADE:,} and"
            f" {LARGEST_GRADE:,}"
        )
    if grade is None or not grade.is_integer():
        raise DataError(f"{place}: relevance {shortened(repr(value))} is not an integer")
    return int(grade)
