"""Reads queries and corpora, and makes a task of them and of judgements.

Every fault is one line that names file, line, value and remedy.
"""

from collections import Counter
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any, Literal

from hybridbatch.common.errors import ConfigError, DataError
from hybridbatch.common.files import fingerprint, open_lines
from hybridbatch.common.languages import canonical, resolve
from hybridbatch.common.records import BadRow, Qrels, Task, Texts
from hybridbatch.common.texts import is_blank, listed, nfc
from hybridbatch.data.formats.json_files import json_line_records

# How faults of a data set are handled: see `make_task`.
Rules = Literal["strict", "drop unjudged", "as it is"]


def existing(folder: Path, *names: str) -> Path | None:
    """The first of `names` (or its ``.gz``) that `folder` holds."""
    candidates = (folder / (name + end) for name in names for end in ("", ".gz"))
    return next((path for path in candidates if path.is_file()), None)


def required(folder: Path, name: str) -> Path:
    """`name` or ``name.gz`` in `folder`.

    Raises:
        DataError: Neither file exists.
    """
    path = existing(folder, name)
    if path is None:
        raise DataError(
            f"{folder / name}: does not exist (nor as .gz); a language needs queries, a"
            " corpus and qrels"
        )
    return path


def language_of(code: str, place: Path) -> str:
    """The canonical language of the code in a folder's or file's name.

    Raises:
        DataError: The code is unknown; the message names the place.
    """
    try:
        return canonical(code)
    except DataError as error:
        raise DataError(
            f"{place}: {error}; name the folder by its language, such as 'swh' or 'zh'"
        ) from error


def json_rows(path: Path) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """(``file:line``, object) of a JSON Lines file; blank lines are skipped.

    Raises:
        DataError: A line is not a JSON object.
    """
    with open_lines(path) as lines:
        for item in json_line_records(lines, str(path)):
            if isinstance(item, BadRow):
                raise DataError(f"{path}:{item.line}: {item.reason}; mend the line")
            number, row = item
            yield f"{path}:{number}", row


def identifier(row: Mapping[str, Any], place: str, *names: str) -> str:
    """The value of the first of `names` in `row`, as text.

    Raises:
        DataError: None of `names` has a value.
    """
    for name in names:
        value = row.get(name)
        if isinstance(value, str | int) and not isinstance(value, bool) and value != "":
            return str(value)
    raise DataError(
        f"{place}: has no {' or '.join(repr(name) for name in names)} (a non-empty text or integer)"
    )


def text_of(
    row: Mapping[str, Any], place: str, field: str = "text", *, may_be_empty: bool = False
) -> str:
    """Title (if any) and text, joined by a space as mteb does, in NFC.

    Raises:
        DataError: The field is missing, or the text is empty and must not be.
    """
    if field not in row:
        raise DataError(
            f"{place}: has no {field!r} (its keys: {listed(row)}); rename the key of the text to"
            f" {field!r}"
        )
    parts = [row.get("title") or "", row.get(field) or ""]
    if not all(isinstance(part, str) for part in parts):
        raise DataError(f"{place}: 'title' and {field!r} must be texts")
    text = nfc(" ".join(part.strip() for part in parts))
    if is_blank(text):
        if may_be_empty:
            return ""
        raise DataError(f"{place}: {field!r} is empty")
    return text


def collect(rows: Iterable[tuple[str, str, str]], origin: Path | str) -> Texts:
    """Texts from (place, id, text).

    Raises:
        DataError: An id is repeated, or there is no row.
    """
    texts: dict[str, str] = {}
    for place, key, text in rows:
        if key in texts:
            raise DataError(
                f"{place}: the id {key!r} occurs before; every id may occur only once in a language"
            )
        texts[key] = text
    if not texts:
        raise DataError(
            f"{origin}: holds no text; an empty corpus or set of queries cannot be scored"
        )
    return Texts(tuple(texts), tuple(texts.values()))


def read_texts(path: Path, *, may_be_empty: bool = False) -> Texts:
    """Queries or a corpus from JSON Lines with ``_id`` or ``id``, ``text``, and possibly ``title``.

    Args:
        may_be_empty: accept empty texts, because public corpora have some empty passages.
    """

    def rows() -> Iterator[tuple[str, str, str]]:
        for place, row in json_rows(path):
            text = text_of(row, place, may_be_empty=may_be_empty)
            yield place, identifier(row, place, "_id", "id"), text

    return collect(rows(), path)


def make_task(
    name: str,
    queries: Mapping[str, Texts],
    corpus: Mapping[str, Texts],
    qrels: Mapping[str, Qrels],
    *,
    origin: Path | str,
    rules: Rules = "strict",
    judged_elsewhere: frozenset[str] = frozenset(),
    **fields: Any,
) -> Task:
    """A checked task.

    Args:
        qrels: judgements by corpus language; they may name only known query ids.
        origin: the name of the data in errors.
        rules: ``strict``: every query has a relevant passage, and every judged passage exists;
            ``drop unjudged``: queries without a relevant passage are left out, because the data set
            states that it has such queries; ``as it is``: such queries are left out and reported,
            and judged passages that do not exist count as relevant and never found, as in
            trec_eval; empty passages are reported.
        judged_elsewhere: ids of queries that belong to another split, also left out.
        fields: further fields of `Task`.

    Raises:
        DataError: An id is unknown, or a query has no relevant passage.
    """
    known = {query for texts in queries.values() for query in texts.ids}
    notes: list[str] = []
    for language, judged in qrels.items():
        place = f"{origin}: qrels of {language}"
        _refuse(
            [query for query in judged if query not in known], place, "query ids", "queries"
        )
        absent = _absent_passages(judged, corpus[language])
        if rules == "as it is" and absent:
            notes.append(_absent_note(place, absent))
        else:
            _refuse(absent, place, "passage ids", f"corpus of {language}")

    if rules == "as it is":
        notes += _empty_notes(origin, corpus)
    relevant = _answered(qrels.values())
    asked = dict.fromkeys(chain.from_iterable(texts.ids for texts in queries.values()))
    lost = [query for query in asked if query not in relevant and query not in judged_elsewhere]
    if lost and rules == "strict":
        raise DataError(
            f"{origin}: {len(lost)} of {len(known)} queries have no relevant passage (first:"
            f" {lost[0]!r}); add their judgements to the qrels or remove them from the queries"
        )
    if lost and rules == "as it is":
        if len(lost) == len(known):
            raise DataError(
                f"{origin}: no query has a relevant passage; check that the ids of queries,"
                " corpus and qrels belong together"
            )
        notes.append(
            f"{origin}: {len(lost):,} of {len(known):,} queries have no relevant passage and are"
            f" left out (first: {lost[0]!r})"
        )
    kept = {language: _keep(texts, relevant) for language, texts in queries.items()}
    return Task(
        name,
        {language: texts for language, texts in kept.items() if texts.ids},
        dict(corpus),
        dict(qrels),
        notes=tuple(notes),
        **fields,
    )


def _empty_notes(origin: Path | str, corpus: Mapping[str, Texts]) -> Iterator[str]:
    for language, texts in corpus.items():
        if empty := sum(not text for text in texts.texts):
            yield (
                f"{origin}: {empty:,} of {len(texts.texts):,} passages of {language} are empty; they"
                " stay in the corpus"
            )


def _absent_passages(judged: Qrels, corpus: Texts) -> list[str]:
    """Judged passages that are not in the corpus."""
    named = set(chain.from_iterable(judged.values()))
    there = named.intersection(corpus.ids)
    return [passage for row in judged.values() for passage in row if passage not in there]


def _absent_note(place: str, absent: Sequence[str]) -> str:
    return (
        f"{place} name {len(absent):,} passage ids that are not in the corpus (first:"
        f" {absent[0]!r}); those judged relevant count as relevant and are never found, as in"
        " trec_eval"
    )


def _answered(qrels: Iterable[Qrels]) -> set[str]:
    """Queries with a relevant passage in some language."""
    found: set[str] = set()
    for judged in qrels:
        for query, row in judged.items():
            if any(grade > 0 for grade in row.values()):
                found.add(query)
    return found


def _refuse(unknown: list[str], place: str, what: str, where: str) -> None:
    if unknown:
        raise DataError(
            f"{place} name {len(unknown)} {what} that are not in the {where} (first:"
            f" {unknown[0]!r}); add the texts or remove the judgements"
        )


def _keep(texts: Texts, wanted: Container[str]) -> Texts:
    kept = [
        (key, text) for key, text in zip(texts.ids, texts.texts, strict=True) if key in wanted
    ]
    return Texts(tuple(key for key, _ in kept), tuple(text for _, text in kept))


def select(task: Task, languages: str, trained: Iterable[str] = ()) -> Task:
    """The part of a task in the wanted languages, fingerprinted.

    Queries and corpora each keep those of their languages that are wanted. A side without any
    wanted language stays whole. For example, if a task has only English questions, `amh,yor`
    selects English questions against Amharic and Yoruba passages.

    Args:
        languages: names, groups and exclusions for `hybridbatch.common.languages.resolve`.
        trained: training languages of the model, for the group `unseen`.

    Raises:
        ConfigError: No language of the task is wanted.
    """
    wanted = set(
        resolve(languages, tuple(dict.fromkeys([*task.corpus, *task.queries])), tuple(trained))
    )
    corpus = _wanted_or_all(task.corpus, wanted)
    # Keep only queries that are judged in a remaining corpus.
    judged = Counter(query for language in corpus for query in task.qrels.get(language, ()))
    queries: dict[str, Texts] = {}
    for language, texts in _wanted_or_all(task.queries, wanted).items():
        kept = _keep(texts, judged)
        if kept.ids:
            queries[language] = kept
    asked = set(chain.from_iterable(texts.ids for texts in queries.values()))
    qrels: dict[str, Qrels] = {}
    for language in corpus:
        if language in task.qrels:
            rows = task.qrels[language].items()
            qrels[language] = {query: row for query, row in rows if query in asked}
    if not queries or (task.bitext and set(queries) == set(corpus) and len(corpus) == 1):
        raise ConfigError(
            f"languages = {languages!r}: {task.name} has nothing to search in these"
            " languages; choose languages whose questions are answered in each other's"
            " passages"
        )
    content = [_content(queries), _content(corpus)]
    return replace(
        task,
        queries=queries,
        corpus=corpus,
        qrels=qrels,
        parallel=task.parallel and any(count > 1 for count in judged.values()),
        provenance={**task.provenance, "fingerprint": fingerprint([*content, qrels])},
    )


def _wanted_or_all(side: Mapping[str, Texts], wanted: Container[str]) -> dict[str, Texts]:
    """The wanted languages of a side; all languages, if the side has no wanted one."""
    found = {language: texts for language, texts in side.items() if language in wanted}
    return found or dict(side)


def _content(side: Mapping[str, Texts]) -> list[Any]:
    """The data that the fingerprint of a side is computed from."""
    content: list[Any] = []
    for language, texts in sorted(side.items()):
        if texts.fingerprint:
            content.append([language, texts.fingerprint])
        else:
            content.append([language, texts.ids, texts.texts])
    return content
