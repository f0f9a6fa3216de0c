"""Takes rows into the store: cleans and counts them, and spills them to disk in sorted runs.

No text stays in memory.
"""

import hashlib
from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from hybridbatch.common.errors import DataError
from hybridbatch.common.records import SPLITS, BadRow, Row
from hybridbatch.common.texts import clean_text
from hybridbatch.data.store.arrangement import RowKeys
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
    kept = tuple(dict.fromkeys(text for text in negatives if text is not None and text != passage))
    return Row(
        row.source, record_id, row.language, query, passage, kept, row.split, row.translated_from
    )


class Ingest:
    """Takes in rows and writes them to one Arrow file, in runs in the store's order.

    Reading the rows in the store's order then reads every run from its start to its end.

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
        self._keys: list[RowKeys] = []

    def read(self, rows: Iterable[Row | BadRow]) -> RowKeys:
        """Take in all rows.

        Returns:
            The keys of the rows in the order of the file, with sources and languages numbered by
                name.

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
        if not self._keys:
            first = f" (first bad row: {_describe(self.examples[0])})" if self.examples else ""
            raise DataError(
                f"the data has no usable row, but {sum(self.dropped.values())} bad rows{first}"
            )
        return self._all_keys()

    def belonging(self, keys: RowKeys, records: Collection[tuple[str, str]]) -> np.ndarray:
        """bool [R]: which of the rows read belong to one of `records`.

        A record is a source and a record id.
        """
        place = {name: number for number, name in enumerate(sorted(self.sources))}
        wanted = set()
        for source, record_id in records:
            cleaned = clean_text(record_id)
            if source in place and cleaned:
                halves_of_hash = np.frombuffer(_digest(cleaned, 16), ">u8").tolist()
                wanted.add((place[source], *halves_of_hash))
        belong = np.zeros(len(keys.source), bool)
        halves = np.array(sorted({half for _, half, _ in wanted}), np.uint64)
        for start in range(0, len(belong) if wanted else 0, _RUN_ROWS):
            half = keys.record[start : start + _RUN_ROWS, 0]
            near = np.minimum(np.searchsorted(halves, half), len(halves) - 1)
            for row in (start + np.flatnonzero(halves[near] == half)).tolist():
                belong[row] = (int(keys.source[row]), *keys.record[row].tolist()) in wanted
        return belong

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
        order = np.lexsort((keys.record[:, 1], keys.record[:, 0], keys.source))
        columns = []
        for column in TRANSLATED_SCHEMA:
            values = [getattr(row, column.name) for row in self._rows]
            columns.append(pa.array(values, column.type))
        batch = pa.RecordBatch.from_arrays(columns, schema=TRANSLATED_SCHEMA)
        writer.write_batch(batch.take(pa.array(order)))
        in_order = [getattr(keys, field.name)[order] for field in fields(RowKeys)]
        self._keys.append(RowKeys(*in_order))
        self._rows, self._characters = [], 0

    def _keys_of(self, rows: list[Row]) -> RowKeys:
        sources, languages, sides, splits = [], [], [], []
        records: list[bytes] = []
        queries: list[bytes] = []
        passages: list[bytes] = []
        for row in rows:
            sources.append(self.sources.setdefault(row.source, len(self.sources)))
            languages.append(self.languages.setdefault(row.language, len(self.languages)))
            has_query = HAS_QUERY * (row.query is not None)
            has_passage = HAS_PASSAGE * (row.passage is not None)
            sides.append(has_query | has_passage)
            splits.append(SPLITS.index(row.split))
            records.append(_digest(row.record_id, 16))
            for hashes, text in ((queries, row.query), (passages, row.passage)):
                hashes.append(_digest(f"{row.source}\0{text}", 8) if text else bytes(8))
        return RowKeys(
            source=np.array(sources, np.int16),
            record=np.frombuffer(b"".join(records), ">u8").astype(np.uint64).reshape(-1, 2),
            language=np.array(languages, np.int16),
            has=np.array(sides, np.uint8),
            query=np.frombuffer(b"".join(queries), ">u8").astype(np.uint64),
            passage=np.frombuffer(b"".join(passages), ">u8").astype(np.uint64),
            split=np.array(splits, np.uint8),
        )

    def _all_keys(self) -> RowKeys:
        columns = {}
        for field in fields(RowKeys):
            columns[field.name] = np.concatenate([getattr(keys, field.name) for keys in self._keys])
        self._keys.clear()
        columns["source"] = _by_name(self.sources)[columns["source"]]
        columns["language"] = _by_name(self.languages)[columns["language"]]
        return RowKeys(**columns)


def _with_data_errors(rows: Iterable[Row | BadRow]) -> Iterator[Row | BadRow]:
    """The rows; a source's failure to read is told apart from a failure to write the store."""
    try:
        yield from rows
    except OSError as error:
        raise DataError(
            f"{error.filename or 'a source'}: cannot be read ({error.strerror or error})"
        ) from error


def _by_name(numbers: dict[str, int]) -> np.ndarray:
    """int16: the place of each number's name among the sorted names."""
    places = np.empty(len(numbers), np.int16)
    for place, name in enumerate(sorted(numbers)):
        places[numbers[name]] = place
    return places


def _digest(text: str, size: int) -> bytes:
    return hashlib.blake2b(text.encode(), digest_size=size).digest()


def _describe(example: dict[str, Any]) -> str:
    place = f"{example['file']}:{example['line']}" if example["line"] else example["file"]
    return f"{place}: {example['field']}: {example['reason']}"
