"""A split of prepared data as a retrieval task, to evaluate on the user's data."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from hybridbatch.common.errors import DataError
from hybridbatch.common.files import read_json
from hybridbatch.common.records import SPLITS, Qrels, Row, Split, Task, Texts
from hybridbatch.data.sources.registry import sources
from hybridbatch.data.store.reader import Store

ROWS = 1 << 14  # rows read at a time
Record = dict[str, Row]  # by language


def is_prepared(folder: Path) -> bool:
    """Whether `hybridbatch prepare` wrote a folder."""
    path = folder / "manifest.json"
    if not path.is_file():
        return False
    manifest = read_json(path)
    return isinstance(manifest, dict) and manifest.get("kind") == "data"


def has_own(folder: Path) -> bool:
    """Whether prepared data has rows of the user's own, and not of built-in sources alone."""
    built_in = {source.name for source in sources()}
    return not built_in.issuperset(Store.open(folder).sources)


def read_prepared(folder: Path, split: str) -> Task:
    """The records of a split: their queries, and their passages as the corpus of each language.

    The relevant passages of a question, in every language, are the passages of all records with one
    of its queries, and every passage with an equal text. A corpus has each text once.

    Raises:
        DataError: The split is absent, or has no query or no passage.
    """
    store = Store.open(folder)
    known = next((name for name in SPLITS if name == split), None)
    if known is None or known not in store.splits:
        there = ", ".join(store.splits)
        mend = "; prepare it with --test-share 0.1" if split == "test" else ""
        raise DataError(
            f"{folder}: there is no {split} split; it has {there}{mend}, or name another split, as"
            f" in {folder}:{store.splits[-1]}"
        )
    records = _records(store, known)
    corpus, passage_ids = _corpora(records)
    questions = _questions(records)
    queries, qrels = _judged_queries(records, questions, passage_ids)
    if not queries or not corpus:
        what = "queries" if corpus else "passages"
        raise DataError(f"{folder}: the {split} split has no {what}; it cannot be scored")
    licences = sorted(set(store.manifest.get("licences", {}).values()))
    return Task(
        folder.resolve().name,
        queries,
        corpus,
        qrels,
        about=f"The {split} split of prepared data of the user's.",
        provenance={
            "source": folder.resolve().name,
            "revision": store.fingerprint,
            "licence": ", ".join(licences),
        },
    )


def prepared_passages(folder: Path) -> dict[str, Texts]:
    """The passages of all splits by language, each text once.

    Raises:
        DataError: The folder is damaged.
    """
    store = Store.open(folder)
    records: dict[str, Record] = {}
    for split in SPLITS:
        if split in store.splits:
            records |= _records(store, split)
    return _corpora(records)[0]


def _records(store: Store, split: Split) -> dict[str, Record]:
    """The records of a split by name: the record id, with the source if there are several."""
    rows = store.index(split).rows
    records: dict[str, Record] = {}
    for start in range(0, rows, ROWS):
        for row in store.rows(split, np.arange(start, min(start + ROWS, rows))):
            name = row.record_id
            if len(store.sources) > 1:
                name = f"{row.source}/{name}"
            records.setdefault(name, {})[row.language] = row
    return records


def _corpora(
    records: Mapping[str, Record],
) -> tuple[dict[str, Texts], dict[str, dict[str, str]]]:
    """The corpus of each language, and the id of each text in it."""
    ids: dict[str, dict[str, str]] = {}
    for name, record in records.items():
        for language, row in record.items():
            if row.passage is not None:
                ids.setdefault(language, {}).setdefault(row.passage, name)
    corpus = {}
    for language, by_text in sorted(ids.items()):
        corpus[language] = Texts(tuple(by_text.values()), tuple(by_text))
    return corpus, ids


def _questions(records: Mapping[str, Record]) -> dict[tuple[tuple[str, str], ...], list[str]]:
    """The names of the records that ask one question in all their languages, by that question."""
    questions: dict[tuple[tuple[str, str], ...], list[str]] = {}
    for name, record in records.items():
        asked = [(language, row.query) for language, row in record.items()]
        key = tuple(sorted((language, query) for language, query in asked if query is not None))
        if key:
            questions.setdefault(key, []).append(name)
    return questions


def _judged_queries(
    records: Mapping[str, Record],
    questions: Mapping[tuple[tuple[str, str], ...], list[str]],
    passage_ids: Mapping[str, Mapping[str, str]],
) -> tuple[dict[str, Texts], dict[str, Qrels]]:
    """The queries that have an answer, and the answers by corpus language."""
    asking: dict[tuple[str, str], set[str]] = {}  # records by a query in a language
    for key, names in questions.items():
        for query in key:
            asking.setdefault(query, set()).update(names)
    qrels: dict[str, dict[str, dict[str, int]]] = {}
    queries: dict[str, dict[str, str]] = {}
    for key, names in questions.items():
        answering = sorted(set().union(*(asking[query] for query in key)))
        answered = False
        for name in answering:
            for language, row in records[name].items():
                if row.passage is not None:
                    passage = passage_ids[language][row.passage]
                    qrels.setdefault(language, {}).setdefault(names[0], {})[passage] = 1
                    answered = True
        if answered:
            for language, asked in key:
                queries.setdefault(language, {})[names[0]] = asked
    texts = {}
    for language, by_id in sorted(queries.items()):
        texts[language] = Texts(tuple(by_id), tuple(by_id.values()))
    return texts, dict(qrels)
