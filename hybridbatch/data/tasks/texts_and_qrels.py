"""Reading queries, corpora and qrels: every fault is one line that names file, line, value and
mend.
"""

import json
import unicodedata
from collections import Counter
from collections.abc import Container, Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from hybridbatch.common.errors import ConfigError, DataError
from hybridbatch.common.files import fingerprint, open_lines
from hybridbatch.common.languages import canonical, resolve
from hybridbatch.common.records import Qrels, Task, Texts

Judgement = tuple[str, str, int]  # query id, passage id, relevance


def existing(folder: Path, *names: str) -> Path | None:
    """The first of `names` (or its ``.gz``) that `folder` holds."""
    candidates = (folder / (name + end) for name in names for end in ("", ".gz"))
    return next((path for path in candidates if path.is_file()), None)


def required(folder: Path, name: str) -> Path:
    """`name` or ``name.gz`` in `folder`. Raises `DataError` when neither is there."""
    path = existing(folder, name)
    if path is None:
        raise DataError(
            f"{folder / name}: not there (nor as .gz); a language needs its queries, corpus and"
            " qrels"
        )
    return path


def language_of(code: str, place: Path) -> str:
    """The canonical language of a folder's or file's code. Raises `DataError` naming the place."""
    try:
        return canonical(code)
    except DataError as error:
        raise DataError(
            f"{place}: {error}; name it by its language, such as 'swh' or 'zh'"
        ) from error


def json_rows(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """(``file:line``, object) of a JSON Lines file; blank lines are passed over. Raises
    `DataError`.
    """
    with open_lines(path) as lines:
        for number, raw in lines:
            if not raw.strip():
                continue
            place = f"{path}:{number}"
            try:
                row = json.loads(raw)
            except UnicodeDecodeError as error:
                raise DataError(
                    f"{place}: not valid UTF-8 at byte {error.start} of the line"
                ) from error
            except json.JSONDecodeError as error:
                raise DataError(f"{place}: not valid JSON ({error.msg})") from error
            if not isinstance(row, dict):
                raise DataError(f"{place}: must be a JSON object, not {type(row).__name__}")
            yield place, row


def identifier(row: Mapping[str, Any], place: str, *names: str) -> str:
    """The value of the first of `names` in `row`, as text. Raises `DataError` when there is none."""
    for name in names:
        value = row.get(name)
        if isinstance(value, str | int) and not isinstance(value, bool) and value != "":
            return str(value)
    raise DataError(
        f"{place}: no {' or '.join(repr(name) for name in names)} (a non-empty text or integer)"
    )


def text_of(row: Mapping[str, Any], place: str, field: str = "text") -> str:
    """Title (if any) and text, joined by a space as mteb does, in NFC. Raises `DataError` when
    empty.
    """
    parts = [row.get("title") or "", row.get(field) or ""]
    if not all(isinstance(part, str) for part in parts):
        raise DataError(f"{place}: 'title' and {field!r} must be texts")
    text = unicodedata.normalize("NFC", " ".join(part.strip() for part in parts).strip())
    if not text:
        raise DataError(f"{place}: {field!r} is missing or empty")
    return text


def collect(rows: Iterable[tuple[str, str, str]], origin: Path | str) -> Texts:
    """Texts from (place, id, text). Raises `DataError` for a repeated id or no row at all."""
    texts: dict[str, str] = {}
    for place, key, text in rows:
        if key in texts:
            raise DataError(
                f"{place}: id {key!r} was there before; every id may occur once in a language"
            )
        texts[key] = text
    if not texts:
        raise DataError(
            f"{origin}: holds no text; an empty corpus or set of queries cannot be scored"
        )
    return Texts(tuple(texts), tuple(texts.values()))


def read_texts(path: Path) -> Texts:
    """Queries or a corpus from JSON Lines with ``_id`` or ``id``, ``text``, and possibly ``title``."""
    return collect(
        (
            (place, identifier(row, place, "_id", "id"), text_of(row, place))
            for place, row in json_rows(path)
        ),
        path,
    )


def read_judgements(path: Path, split: str | None = None) -> list[Judgement]:
    """Qrels from a BEIR table (``query-id corpus-id score``, tab-separated, with header) or from
    JSON Lines.

    JSON Lines rows have ``query_id``, ``doc_id`` and ``rel``; of rows with a ``split``, those of
    `split` are kept.
    """
    return list(_tsv_judgements(path) if ".tsv" in path.suffixes else _json_judgements(path, split))


def _json_judgements(path: Path, split: str | None) -> Iterator[Judgement]:
    for place, row in json_rows(path):
        if split is None or row.get("split", split) == split:
            query, passage = (
                identifier(row, place, "query_id", "query-id"),
                identifier(row, place, "doc_id", "corpus-id"),
            )
            yield query, passage, _relevance(row.get("rel", row.get("score")), place)


def _tsv_judgements(path: Path) -> Iterator[Judgement]:
    with open_lines(path) as lines:
        for number, raw in lines:
            if not raw.strip():
                continue
            place = f"{path}:{number}"
            try:
                columns = raw.decode("utf-8").split("\t")
            except UnicodeDecodeError as error:
                raise DataError(
                    f"{place}: not valid UTF-8 at byte {error.start} of the line"
                ) from error
            if len(columns) != 3:
                raise DataError(
                    f"{place}: has {len(columns)} tab-separated columns, not query-id, corpus-id,"
                    " score"
                )
            if number == 1 and columns[2].strip() == "score":
                continue
            yield columns[0].strip(), columns[1].strip(), _relevance(columns[2].strip(), place)


def _relevance(value: Any, place: str) -> int:
    try:
        grade = float(value)
    except (TypeError, ValueError):
        grade = 0.5
    if not grade.is_integer():
        raise DataError(f"{place}: relevance {value!r} is not an integer")
    return int(grade)


def qrels_of(judgements: Iterable[Judgement]) -> dict[str, dict[str, int]]:
    """Judgements by query."""
    qrels: dict[str, dict[str, int]] = {}
    for query, passage, grade in judgements:
        qrels.setdefault(query, {})[passage] = grade
    return qrels


def make_task(
    name: str,
    queries: Mapping[str, Texts],
    corpus: Mapping[str, Texts],
    qrels: Mapping[str, Qrels],
    *,
    origin: Path | str,
    drop_unjudged: bool = False,
    judged_elsewhere: frozenset[str] = frozenset(),
    **fields: Any,
) -> Task:
    """A checked task.

    Args:
        qrels: by corpus language; may name only known ids.
        origin: what an error names.
        drop_unjudged: leave out queries without a relevant passage (the data set says that it has
            such).
        judged_elsewhere: ids of queries that belong to another split, left out too.
        fields: further fields of `Task`.
    Raises: `DataError` for unknown ids, and for queries without any relevant passage.
    """
    known = {query for texts in queries.values() for query in texts.ids}
    for language, judged in qrels.items():
        passages = {d for row in judged.values() for d in row}.intersection(corpus[language].ids)
        _refuse(
            [q for q in judged if q not in known],
            f"{origin}: qrels of {language}",
            "query ids",
            "queries",
        )
        unknown = [d for row in judged.values() for d in row if d not in passages]
        _refuse(unknown, f"{origin}: qrels of {language}", "passage ids", f"corpus of {language}")
    relevant = {
        q
        for judged in qrels.values()
        for q, row in judged.items()
        if any(g > 0 for g in row.values())
    }
    bare = [
        query
        for query in dict.fromkeys(q for t in queries.values() for q in t.ids)
        if query not in relevant
    ]
    lost = [] if drop_unjudged else [query for query in bare if query not in judged_elsewhere]
    if lost:
        raise DataError(
            f"{origin}: {len(lost)} of {len(known)} queries have no relevant passage (first:"
            f" {lost[0]!r});"
            " add their judgements to the qrels or remove them from the queries"
        )
    kept = {language: _keep(texts, relevant) for language, texts in queries.items()}
    return Task(
        name,
        {language: texts for language, texts in kept.items() if texts.ids},
        dict(corpus),
        dict(qrels),
        **fields,
    )


def _refuse(unknown: list[str], place: str, what: str, where: str) -> None:
    if unknown:
        raise DataError(
            f"{place} name {len(unknown)} {what} that are not in the {where} (first:"
            f" {unknown[0]!r});"
            " add the texts or remove the judgements"
        )


def _keep(texts: Texts, wanted: Container[str]) -> Texts:
    kept = [(key, text) for key, text in zip(texts.ids, texts.texts, strict=True) if key in wanted]
    return Texts(tuple(key for key, _ in kept), tuple(text for _, text in kept))


def select(task: Task, languages: str, trained: Iterable[str] = ()) -> Task:
    """The part of a task in the wanted languages, fingerprinted.

    Queries and corpora each keep the wanted languages they have. A side that has none of them stays
    whole: of a task with English questions only, `amh,yor` means English questions against Amharic
    and Yoruba passages.

    Args:
        languages: names, groups and exclusions for `hybridbatch.common.languages.resolve`.
        trained: training languages of the model, for the group `unseen`.
    Raises: `ConfigError` when no language of the task is wanted.
    """
    wanted = set(
        resolve(languages, tuple(dict.fromkeys([*task.corpus, *task.queries])), tuple(trained))
    )
    queries, corpus = (
        {k: v for k, v in side.items() if k in wanted} or side
        for side in (task.queries, task.corpus)
    )
    judged = Counter(query for language in corpus for query in task.qrels.get(language, ()))
    kept = {language: _keep(texts, judged) for language, texts in queries.items()}
    queries = {language: texts for language, texts in kept.items() if texts.ids}
    asked = {query for texts in queries.values() for query in texts.ids}
    qrels = {
        language: {query: row for query, row in task.qrels[language].items() if query in asked}
        for language in corpus
        if language in task.qrels
    }
    if not queries or (task.bitext and set(queries) == set(corpus) and len(corpus) == 1):
        raise ConfigError(
            f"languages = {languages!r}: leave {task.name} nothing to search; choose languages"
            " whose questions are"
            f" answered in each other's passages"
        )
    content = [
        [
            [language, texts.fingerprint]
            if texts.fingerprint
            else [language, texts.ids, texts.texts]
            for language, texts in sorted(side.items())
        ]
        for side in (queries, corpus)
    ]
    return replace(
        task,
        queries=queries,
        corpus=corpus,
        qrels=qrels,
        parallel=task.parallel and any(count > 1 for count in judged.values()),
        provenance={**task.provenance, "fingerprint": fingerprint([*content, qrels])},
    )
