"""Prepared data: a folder of rows, the integer index for the schedule, and a manifest.

    manifest.json              counts, checksums, provenance, fingerprint; written last
    train-00000.arrow ...      rows, as `row_files.SCHEMA`, by split; sorted by source, hash of
                               record id, language
    index/train/group.npy ...  the arrays of `RecordIndex`, memory-mapped
    index/train/negative_*.npy if negatives were mined: the group of each hard negative

The order of rows depends only on their content: equal rows give equal bytes in any order of
arrival.
"""

import os
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa

from hybridbatch.common.documents import read_document
from hybridbatch.common.errors import DataError, nearest
from hybridbatch.common.files import sha256_file
from hybridbatch.common.integrity import damage, load_array
from hybridbatch.common.progress import SILENT, Reporter
from hybridbatch.common.records import SPLITS, Row, Split
from hybridbatch.common.tokens import TokenArrays, stored_tokens
from hybridbatch.data.store.disk_arrays import CHUNK
from hybridbatch.data.store.manifest import Manifest
from hybridbatch.data.store.row_files import PREPARE_AGAIN, FileSums, Shards
from hybridbatch.sampling.index import HAS_PASSAGE, HAS_QUERY, RecordIndex, restrict, set_aside

# in the manifest's provenance: the evaluation texts found, a result and not an input
REMOVED = "removed"
SET_ASIDE_SEED = 13  # one choice for all runs on the data, so that their losses compare
ARRAYS = ("record_start", "source", "group", "language", "has")
NEGATIVE_ARRAYS = ("negative_start", "negative_group")


def count_rows(index: RecordIndex) -> dict[str, dict[str, int]]:
    """Rows by source and language, without zeros."""
    table = np.zeros((len(index.sources), len(index.languages)), np.int64)
    bounds = [0, *(np.flatnonzero(np.diff(index.source)) + 1).tolist(), index.records]
    for first, last in pairwise(bounds):
        start, stop = int(index.record_start[first]), int(index.record_start[last])
        for row in range(start, stop, CHUNK):
            spoken = index.language[row : min(row + CHUNK, stop)]
            table[index.source[first]] += np.bincount(spoken, minlength=len(index.languages))
    counted = {}
    for source, counts in zip(index.sources, table, strict=True):
        languages = np.flatnonzero(counts).tolist()
        if languages:
            counted[source] = {index.languages[each]: int(counts[each]) for each in languages}
    return counted


class Store:
    """Prepared data, opened without reading it: files are memory-mapped, and checked by size.

    Every block that is read is compared with its checksum, once per process (`verify` reads all
    blocks). Data of earlier versions has no checksums, and is read unchecked.

    Rows are numbered from 0 within a split.
    """

    def __init__(self, folder: Path, manifest: dict[str, Any]) -> None:
        self.folder = folder
        self.manifest = manifest

    @classmethod
    def open(cls, folder: Path) -> "Store":
        """Open prepared data.

        Raises:
            DataError: There is no prepared data, it has another version, or a file is missing or
                cut.
        """
        folder = Path(folder)
        path = folder / "manifest.json"
        if not path.is_file():
            raise DataError(
                f"{folder}: holds no prepared data (no manifest.json); make it with"
                " `hybridbatch prepare`"
            )
        manifest = read_document(path, Manifest, PREPARE_AGAIN)
        store = cls(folder, manifest)
        for file, entry in store._files():
            size = file.stat().st_size if file.is_file() else None
            if size != entry["bytes"]:
                found = "missing" if size is None else f"{size} bytes"
                problem = f"{found}, should be {entry['bytes']} bytes"
                raise damage(file, problem, PREPARE_AGAIN)
        return store

    def verify(self) -> None:
        """Read everything.

        Raises:
            DataError: The content of a file has changed; the message names the first such file.
        """
        for file, entry in self._files():
            if self.has_checksums:
                self._sums.blocks(entry["file"]).check_all()
            elif sha256_file(file) != entry["sha256"]:
                raise damage(file, "its sha256 is not that of the manifest", PREPARE_AGAIN)

    @property
    def has_checksums(self) -> bool:
        """Whether damage is detected when the data is read."""
        return "checksums" in self.manifest

    @cached_property
    def _sums(self) -> FileSums:
        return FileSums(self.folder, self.manifest)

    @property
    def fingerprint(self) -> str:
        """Hex sha256 of all rows."""
        return self.manifest["fingerprint"]

    @property
    def languages(self) -> tuple[str, ...]:
        """All languages, sorted."""
        return tuple(self.manifest["languages"])

    @property
    def sources(self) -> tuple[str, ...]:
        """All sources, sorted."""
        return tuple(self.manifest["sources"])

    @property
    def splits(self) -> tuple[Split, ...]:
        """The splits that have rows."""
        return tuple(split for split in SPLITS if split in self.manifest["splits"])

    def index(
        self,
        split: Split,
        languages: Sequence[str] | None = None,
        max_records: int | None = None,
        seed: int = 0,
    ) -> RecordIndex:
        """The index of a split, restricted to `languages` and to `max_records` random records.

        Subsets are nested: a subset of 500 records is part of a subset of 1,000. They hold every
        source in proportion, and prefer equal records for any languages. Without `languages` and
        `max_records` nothing is read.

        Raises:
            DataError: The split or a language is not in the data, or nothing remains.
        """
        return self._restricted(self._whole_index(split), split, languages, max_records, seed)

    def divided_index(
        self,
        share: float,
        languages: Sequence[str] | None = None,
        max_records: int | None = None,
        seed: int = 0,
    ) -> tuple[RecordIndex, RecordIndex | None]:
        """The training split in two: records to train on, and records to validate with.

        The latter are about `share` of the records of every source, in whole groups, and the same
        ones whatever the other arguments are. They are None if there are too few records.

        Raises:
            DataError: As `index`.
        """
        rest, aside = set_aside(self._whole_index("train"), share, SET_ASIDE_SEED)
        rest = self._restricted(rest, "train", languages, max_records, seed)
        aside = restrict(aside, self._language_numbers(languages), None, seed)
        return rest, aside if aside.rows else None

    def _restricted(
        self,
        index: RecordIndex,
        split: Split,
        languages: Sequence[str] | None,
        max_records: int | None,
        seed: int,
    ) -> RecordIndex:
        if languages is None and max_records is None:
            return index
        kept = restrict(index, self._language_numbers(languages), max_records, seed)
        if not kept.rows:
            raise DataError(
                f"{self.folder}: the {split} split has no row in {', '.join(languages or ())}"
            )
        return kept

    def queries(self, split: Split, rows: np.ndarray) -> list[str]:
        """The queries of rows; every row must have one."""
        return self._texts(split, rows, "query")

    def passages(self, split: Split, rows: np.ndarray) -> list[str]:
        """The passages of rows; every row must have one."""
        return self._texts(split, rows, "passage")

    def negatives(self, split: Split, rows: np.ndarray) -> list[tuple[str, ...]]:
        """The hard negatives of rows."""
        return [tuple(texts) for texts in self._column(split, rows, "negatives")]

    def negative_groups(self, split: Split, rows: np.ndarray) -> list[np.ndarray] | None:
        """The group (`RecordIndex.group`) of every hard negative's record, -1 if unknown.

        The result is None if no group is known.
        """
        folder = self.folder / "index" / self._known(split)
        if not (folder / f"{NEGATIVE_ARRAYS[0]}.npy").is_file():
            return None
        start, group = self._arrays(split, NEGATIVE_ARRAYS).values()
        return [group[start[row] : start[row + 1]] for row in np.asarray(rows).tolist()]

    def record_ids(self, split: Split, rows: np.ndarray) -> list[str]:
        """The record ids of rows."""
        return self._column(split, rows, "record_id")

    def rows(self, split: Split, rows: np.ndarray) -> list[Row]:
        """Whole rows."""
        table = self.table(split, rows).to_pylist()
        return [
            Row(**{**row, "negatives": tuple(row["negatives"])}, split=split) for row in table
        ]

    def table(self, split: Split, rows: np.ndarray) -> pa.Table:
        """Whole rows, as `row_files.SCHEMA`."""
        return self._shards[self._known(split)].take(rows)

    def columns(self, split: Split, names: Sequence[str]) -> pa.Table:
        """Whole columns of a split, memory-mapped: nothing is read until it is needed."""
        return self._shards[self._known(split)].columns(names)

    def tokens(
        self,
        split: Split,
        side: Literal["query", "passage"],
        *,
        tokenise: Callable[[Sequence[str], Literal["query", "passage"]], TokenArrays],
        key: str,
        cache: Path | None = None,
        report: Reporter = SILENT,
    ) -> TokenArrays:
        """The memory-mapped tokens of all rows of a split, length 0 if a row lacks the side.

        They are kept in ``tokens/KEY/`` of the data folder, or under `cache` if that folder is
        read-only (`tokens.stored_tokens`).

        Args:
            tokenise: texts and side -> tokens, as `model.Encoder.tokenise`.
            key: hash of everything that `tokenise` depends on (tokenizer, prompt, truncation);
                names a folder.
        """
        home = (
            self.folder
            if cache is None or os.access(self.folder, os.W_OK)
            else cache / self.fingerprint
        )
        texts, bit = (
            (self.queries, HAS_QUERY) if side == "query" else (self.passages, HAS_PASSAGE)
        )

        def read(rows: np.ndarray) -> list[str]:
            # one pass over all rows would end with the whole store mapped
            self._shards[split].release()
            return texts(split, rows)

        return stored_tokens(
            home / "tokens" / key / f"{split}-{side}",
            (self.index(split).has & bit) > 0,
            read,
            lambda batch: tokenise(batch, side),
            report,
        )

    def _texts(self, split: Split, rows: np.ndarray, side: str) -> list[str]:
        texts = self._column(split, rows, side)
        if None in texts:
            raise ValueError(
                f"row {np.asarray(rows)[texts.index(None)]} of {split} has no {side}"
            )
        return texts

    def _column(self, split: Split, rows: np.ndarray, name: str) -> list[Any]:
        return self._shards[self._known(split)].take(rows, [name]).column(0).to_pylist()

    @cached_property
    def _shards(self) -> dict[str, Shards]:
        paths: dict[str, list[Path]] = {split: [] for split in self.splits}
        for entry in self.manifest["shards"]:
            paths.setdefault(entry["split"], []).append(self.folder / entry["file"])
        shards: dict[str, Shards] = {}
        for split in self.splits:
            files = paths[split]
            rows = self.manifest["splits"][split]["rows"]
            shards[split] = Shards(files, self._sums, rows)
        return shards

    def _whole_index(self, split: Split) -> RecordIndex:
        arrays: dict[str, Any] = self._arrays(split, ARRAYS)
        self._require_index(split, arrays)
        return RecordIndex(sources=self.sources, languages=self.languages, **arrays)

    def _require_index(self, split: Split, arrays: Mapping[str, np.ndarray]) -> None:
        """Refuse an index that does not fit the manifest.

        The faults are wrong lengths or types, and numbers of sources or languages that do not
        exist.
        """
        counts = self.manifest["splits"][split]
        records, rows = counts["records"], counts["rows"]
        lengths = {"record_start": records + 1, "source": records, "group": records}
        for name, array in arrays.items():
            length = lengths.get(name, rows)
            whole = array.dtype.kind in "iu" and array.ndim == 1
            problem = None if whole and len(array) == length else f"{array.dtype} {array.shape}"
            if whole and problem is None and name in ("source", "language") and len(array):
                most = len(self.sources if name == "source" else self.languages)
                if int(array.min()) < 0 or int(array.max()) >= most:
                    problem = f"a {name} number is not below {most}"
            if problem is None and name == "record_start":
                ends = int(array[0]), int(array[-1])
                if ends != (0, rows) or (not self.has_checksums and (np.diff(array) < 1).any()):
                    problem = "its records do not cover the rows"
            if problem:
                file = self.folder / "index" / split / f"{name}.npy"
                raise damage(file, f"it does not fit the manifest: {problem}", PREPARE_AGAIN)

    def _arrays(self, split: Split, names: Sequence[str]) -> dict[str, np.ndarray]:
        folder = f"index/{self._known(split)}"
        arrays = {}
        for name in names:
            file = f"{folder}/{name}.npy"
            if self.has_checksums:
                self._sums.blocks(file).check_all()
            try:
                arrays[name] = load_array(self.folder / file, PREPARE_AGAIN, memory_map=True)
            except FileNotFoundError as error:
                raise damage(self.folder / file, "missing", PREPARE_AGAIN) from error
        return arrays

    def _known(self, split: Split) -> Split:
        if split not in self.splits:
            raise DataError(
                f"{self.folder}: there is no {split} split; it has {', '.join(self.splits)}"
            )
        return split

    def _language_numbers(self, languages: Sequence[str] | None) -> np.ndarray:
        """The numbers of the languages, ascending."""
        if languages is None:
            return np.arange(len(self.languages))
        for language in languages:
            if language not in self.languages:
                raise DataError(
                    f"{self.folder}: no rows in {language!r}{nearest(language, self.languages)}"
                )
        return np.array(
            sorted({self.languages.index(language) for language in languages}), np.int64
        )

    def _files(self) -> list[tuple[Path, dict[str, Any]]]:
        return [
            (self.folder / entry["file"], entry)
            for entry in self.manifest["shards"] + self.manifest["index"]
        ]
