"""Takes rows into the store: cleans and counts them, and spills them to disk in sorted runs.

No text stays in memory.
"""

import hashlib
from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from hybridbatch.common.errors import DataError
from hybridbatch.common.records import SPLITS, BadRow, Row
from hybridbatch.common.texts import clean_text
from hybridbatch.data.store.keys import KEY, SpilledKeys
from hybridbatch.data.store.row_files import SCHEMA, TRANSLATED_SCHEMA
from hybridbatch.sampling.index import HAS_PASSAGE, HAS_QUERY

EXAMPLES = 20  # number of bad rows listed in full
_RUN_ROWS = 1 << 19
_RUN_CHARACTERS = 1 << 27  # limits the memory of a run of long texts


def clean_row(row: Row) -> Row | BadRow:
    """The row with clean texts, without negatives that are empty or equal to the passage."""
    query, passage = clean_text(row.query), clean_text(row.passage)
    record_id = clean_text(row.record_id)
    if record_id is None:
        return BadRow(f"source {row.source}", 0, "record_id", "empty")
    if query is None and passage is None:
        place = f"source {row.source}, record {record_id!r}, language {row.language}"
        return BadRow(place, 0, "query, passage", "both are empty")
    negatives = (clean_text(negative) for negative in row.negatives)
    kept = tuple(
        dict.fromkeys(text for text in negatives if text is not None and text != passage)
    )
    return Row(
        row.source,
        record_id,
        row.language,
        query,
        passage,
        kept,
        row.split,
        row.translated_from,
    )


class Ingest:
    """Takes in rows and writes them to one Arrow file, in runs in the store's order.

    Reading the rows in the store's order then reads every run from its start to its end. The keys
    of the rows are in a second file, in the same order.

    Attributes:
        sources, languages: numbers by name, in the order of arrival.
        dropped: bad rows by reason.
        examples: the first bad rows.
        schema: schema of the rows: `row_files.TRANSLATED_SCHEMA` if a row is a translation, else
            `row_files.SCHEMA`.
    """

    def __init__(self, path: Path, *, strict: bool) -> None:
        self.sources: dict[str, int] = {}
        self.languages: dict[str, int] = {}
        self.dropped: Counter[str] = Counter()
        self.examples: list[dict[str, Any]] = []
        self.schema = SCHEMA
        self._path, self._strict = path, strict
        self._rows: list[Row] = []
        self._characters = 0
        self._keys = SpilledKeys(path.with_suffix(".keys"))

    def read(self, rows: Iterable[Row | BadRow]) -> SpilledKeys:
        """Take in all rows.

        Returns:
            The keys of the rows in the order of the file, with sources and languages numbered in
                the order of arrival.

        Raises:
            DataError: A row is bad and `strict` is set, or no row is good.
        """
        with (
            pa.OSFile(str(self._path), "wb") as sink,
            pa.ipc.new_file(sink, TRANSLATED_SCHEMA) as writer,
        ):
            for row in _with_data_errors(rows):
                good = clean_row(row) if isinstance(row, Row) else row
                if isinstance(good, BadRow):
                    self._refuse(good)
                    continue
                self._rows.append(good)
                if good.translated_from is not None:
                    self.schema = TRANSLATED_SCHEMA
                self._characters += len(good.query or "") + len(good.passage or "")
                self._characters += sum(map(len, good.negatives))
                if len(self._rows) == _RUN_ROWS or self._characters > _RUN_CHARACTERS:
                    self._spill(writer)
            if self._rows:
                self._spill(writer)
        if not len(self._keys.rows):
            first = f" (first bad row: {_describe(self.examples[0])})" if self.examples else ""
            raise DataError(
                f"the data has no usable row, but {sum(self.dropped.values())} bad rows{first}"
            )
        return self._keys

    def hashes(self, records: Collection[tuple[str, str]]) -> set[tuple[int, int, int]]:
        """The numbers of the source and the hash of the id, of records by source and id."""
        found = set()
        for source, record_id in records:
            cleaned = clean_text(record_id)
            if source in self.sources and cleaned:
                halves = np.frombuffer(_digest(cleaned, 16), ">u8").tolist()
                found.add((self.sources[source], *halves))
        return found

    def _refuse(self, row: BadRow) -> None:
        example = {"file": row.file, "line": row.line, "field": row.field, "reason": row.reason}
        if self._strict:
            raise DataError(
                f"{_describe(example)}; mend it, or drop --strict to leave bad rows out"
            )
        self.dropped[f"{row.field}: {row.reason}"] += 1
        if len(self.examples) < EXAMPLES:
            self.examples.append(example)

    def _spill(self, writer: pa.ipc.RecordBatchFileWriter) -> None:
        keys = self._keys_of(self._rows)
        order = np.lexsort((keys["low"], keys["high"], keys["source"]))
        columns = []
        for column in TRANSLATED_SCHEMA:
            values = [getattr(row, column.name) for row in self._rows]
            columns.append(pa.array(values, column.type))
        batch = pa.RecordBatch.from_arrays(columns, schema=TRANSLATED_SCHEMA)
        writer.write_batch(batch.take(pa.array(order)))
        self._keys.append(keys[order])
        self._rows, self._characters = [], 0

    def _keys_of(self, rows: list[Row]) -> np.ndarray:
        """The keys of rows, with `KEY` as their type."""
        keys = np.empty(len(rows), KEY)
        records: list[bytes] = []
        queries: list[bytes] = []
        passages: list[bytes] = []
        for number, row in enumerate(rows):
            has_query = HAS_QUERY * (row.query is not None)
            has_passage = HAS_PASSAGE * (row.passage is not None)
            keys["source"][number] = self.sources.setdefault(row.source, len(self.sources))
            keys["language"][number] = self.languages.setdefault(
                row.language, len(self.languages)
            )
            keys["has"][number] = has_query | has_passage
            keys["split"][number] = SPLITS.index(row.split)
            records.append(_digest(row.record_id, 16))
            for hashes, text in ((queries, row.query), (passages, row.passage)):
                hashes.append(_digest(f"{row.source}\0{text}", 8) if text else bytes(8))
        halves = np.frombuffer(b"".join(records), ">u8").reshape(-1, 2)
        keys["high"], keys["low"] = halves[:, 0], halves[:, 1]
        keys["query"] = np.frombuffer(b"".join(queries), ">u8")
        keys["passage"] = np.frombuffer(b"".join(passages), ">u8")
        return keys


def _with_data_errors(rows: Iterable[Row | BadRow]) -> Iterator[Row | BadRow]:
    """The rows; a source's failure to read is told apart from a failure to write the store."""
    try:
        yield from rows
    except OSError as error:
        raise DataError(
            f"{error.filename or 'a source'}: cannot be read ({error.strerror or error})"
        ) from error


def _digest(text: str, size: int) -> bytes:
    return hashlib.blake2b(text.encode(), digest_size=size).digest()


def _describe(example: dict[str, Any]) -> str:
    place = f"{example['file']}:{example['line']}" if example["line"] else example["file"]
    return f"{place}: {example['field']}: {example['reason']}"
