"""Finds evaluation texts in training data, for `audit` and `prepare --decontaminate`.

Every text of a training row (query, passage, hard negatives) is compared with every query and
passage of the evaluation tasks, regardless of the stated languages
(`hybridbatch.data.filters.near_duplicates`). All languages of a record have one meaning, so a whole
record leaks as soon as one of its texts leaks.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np

import hybridbatch
from hybridbatch.common.errors import ConfigError, HybridBatchError
from hybridbatch.common.progress import SILENT, Reporter
from hybridbatch.common.records import BadRow, Row
from hybridbatch.data.filters.evaluation_texts import (
    ALL,
    Checks,
    EvaluationText,
    choose_checks,
    evaluation_texts,
)
from hybridbatch.data.filters.near_duplicates import OverlapIndex, normal_form
from hybridbatch.data.store.reader import Store

SCHEMA_VERSION = 1
EXAMPLES = 3  # number of examples for each task, kind and match
SHOWN_LETTERS = 400
BATCH_ROWS, BATCH_LETTERS = 20_000, 1 << 22


@dataclass(frozen=True, slots=True)
class Leak:
    """A text of a training row that equals, contains, or is contained in an evaluation text."""

    row: Row
    part: Literal["query", "passage", "negative"]
    text: str  # side of the row
    evaluation: EvaluationText
    exact: bool
    overlap: float


class LeakFinder:
    """Finds evaluation texts in training rows."""

    def __init__(self, texts: Iterable[EvaluationText]) -> None:
        by_form: dict[str, list[EvaluationText]] = {}
        for text in texts:
            by_form.setdefault(normal_form(text.text), []).append(text)
        self._texts = list(by_form.values())
        self._index = OverlapIndex(list(by_form))

    def leaks(self, rows: Iterable[Row]) -> Iterator[Leak]:
        """Every leak of the rows; rows of split `test` are skipped, because nothing trains on them."""
        for batch in batches(row for row in rows if row.split != "test"):
            parts: dict[str, list[tuple[Row, Any, str]]] = {}
            for row in batch:
                for part, text in _parts(row):
                    parts.setdefault(normal_form(text), []).append((row, part, text))
            forms = list(parts)
            for match in self._index.matches(forms):
                for row, part, text in parts[forms[match.text]]:
                    for known in self._texts[match.known]:
                        yield Leak(row, part, text, known, match.exact, match.overlap)


def _parts(row: Row) -> Iterator[tuple[str, str]]:
    sides = (
        ("query", row.query),
        ("passage", row.passage),
        *(("negative", text) for text in row.negatives),
    )
    return ((part, text) for part, text in sides if text)


def watched(
    rows: Iterable[Row | BadRow], leak_finder: LeakFinder, found: "Findings"
) -> Iterator[Row | BadRow]:
    """The unchanged rows, in batches; their leaks are added to `found` first."""
    for batch in batches(rows):
        found.add(leak_finder.leaks(row for row in batch if isinstance(row, Row)))
        yield from batch


AnyRow = TypeVar("AnyRow", Row, Row | BadRow)


def batches(rows: Iterable[AnyRow]) -> Iterator[list[AnyRow]]:
    """The rows in lists of at most `BATCH_ROWS` rows; lists of long texts are shorter."""
    batch: list[AnyRow] = []
    letters = 0
    for row in rows:
        batch.append(row)
        letters += sum(len(text) for _, text in _parts(row)) if isinstance(row, Row) else 0
        if len(batch) == BATCH_ROWS or letters > BATCH_LETTERS:
            yield batch
            batch, letters = [], 0
    yield batch


class Findings:
    """Counts of leaks.

    Attributes:
        records: (source, record id) of the records that leak.
    """

    def __init__(self) -> None:
        self.records: set[tuple[str, str]] = set()
        self._found: dict[tuple[str, str, str, str], tuple[set[tuple[str, str]], set[str]]] = {}
        self._examples: dict[tuple[str, str, str], list[dict[str, Any]]] = {}

    def add(self, leaks: Iterable[Leak]) -> None:
        """Count leaks, and keep the first ones as examples."""
        for leak in leaks:
            known, match = leak.evaluation, "exact" if leak.exact else "near"
            record = (leak.row.source, leak.row.record_id)
            self.records.add(record)
            records, texts = self._found.setdefault(
                (known.task, known.language, known.kind, match), (set(), set())
            )
            records.add(record)
            texts.add(known.id)
            examples = self._examples.setdefault((known.task, known.kind, match), [])
            if len(examples) < EXAMPLES and record not in (
                (one["source"], one["record"]) for one in examples
            ):
                examples.append(_example(leak, match))

    def as_json(self) -> dict[str, Any]:
        """The findings as JSON.

        ``records`` is the number of records that leak. ``counts`` has one entry by task, language,
        kind of evaluation text and match. ``examples`` has the first leaks.
        """
        by_source: dict[str, int] = {}
        for source, _ in sorted(self.records):
            by_source[source] = by_source.get(source, 0) + 1
        return {
            "records": len(self.records),
            "sources": by_source,
            "counts": [
                {**dict(zip(("task", "language", "kind", "match"), key, strict=True)),
                 "evaluation_texts": len(texts), "records": len(records)}
                for key, (records, texts) in sorted(self._found.items())
            ],
            "examples": [example for _, shown in sorted(self._examples.items()) for example in shown],
        }  # fmt: skip


def _example(leak: Leak, match: str) -> dict[str, Any]:
    known, row = leak.evaluation, leak.row
    return {
        "task": known.task,
        "kind": known.kind,
        "match": match,
        "overlap": round(leak.overlap, 2),
        "evaluation": {
            "id": known.id,
            "language": known.language,
            "text": known.text[:SHOWN_LETTERS],
        },
        "source": row.source,
        "record": row.record_id,
        "training": {
            "language": row.language,
            "part": leak.part,
            "text": leak.text[:SHOWN_LETTERS],
        },
    }


def finder(
    checks: Checks, data_root: Path | None, languages: str = "all", report: Reporter = SILENT
) -> LeakFinder:
    """The finder of all texts of some tasks.

    Raises:
        DataError: A task that is not optional cannot be read.
    """
    texts: list[EvaluationText] = []
    with report.bar("Reading evaluation tasks", len(checks.names), "tasks") as bar:
        for name in checks.names:
            try:
                texts += evaluation_texts(name, data_root, languages)
            except HybridBatchError as error:
                if not checks.optional:
                    raise
                report.warn(f"the data was not checked against {name}: {error}")
            bar.advance()
    return LeakFinder(texts)


def audit(
    data: Path,
    names: Sequence[str] = (ALL,),
    *,
    data_root: Path | None = None,
    languages: str = "all",
    report: Reporter = SILENT,
) -> dict[str, Any]:
    """Report the evaluation texts in prepared data, without changing the data.

    Args:
        data: prepared data folder.
        names, data_root: see `choose_checks`.
        languages: spec of the task languages to compare with.

    Returns:
        What was compared, and ``found`` in the form of `Findings.as_json`.

    Raises:
        ConfigError: A task is unknown, or no task is left to compare with.
        DataError: Data is unreadable.
    """
    store = Store.open(data)
    checks = choose_checks(names, data_root)
    if not checks.names:
        raise ConfigError(
            f"audit of {data}: this machine has no evaluation task to compare with; name the"
            " folder of local copies with --data-root, or name tasks"
        )
    leak_finder, found = finder(checks, data_root, languages, report), Findings()
    sizes = {split: store.index(split).rows for split in store.splits}
    with report.bar("Comparing", sum(sizes.values()), "rows") as bar:
        for split, size in sizes.items():
            for start in range(0, size, BATCH_ROWS):
                rows = store.rows(split, np.arange(start, min(start + BATCH_ROWS, size)))
                found.add(leak_finder.leaks(rows))
                bar.advance(len(rows))
    return {
        "schema_version": SCHEMA_VERSION,
        "kind": "audit",
        "hybridbatch": hybridbatch.__version__,
        "data": {
            "name": data.resolve().name,
            "fingerprint": store.fingerprint,
            "rows": sum(sizes.values()),
        },
        **checks.as_json(),
        "found": found.as_json(),
    }


def summary(found: dict[str, Any]) -> str:
    """A summary of `Findings.as_json` in one line: evaluation texts by task, and their sources."""
    if not found["records"]:
        return "no record holds an evaluation text"
    tasks: dict[str, int] = {}
    for row in found["counts"]:
        tasks[row["task"]] = tasks.get(row["task"], 0) + row["evaluation_texts"]
    texts = ", ".join(f"{task} {count:,}" for task, count in tasks.items())
    where = ", ".join(f"{source} {count:,}" for source, count in found["sources"].items())
    return f"{found['records']:,} records ({where}) hold evaluation texts ({texts})"
