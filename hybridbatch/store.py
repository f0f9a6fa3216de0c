"""Prepared data: a folder of rows, the integer index the schedule works on, and a manifest.

    manifest.json                    what is in it: counts, checksums, provenance, fingerprint; written last
    train-00000.arrow ...            rows, as `shards.SCHEMA`, by split; sorted by source, hash of record id, language
    index/train/group.npy ...        the arrays of `RecordIndex`, memory-mapped
    index/train/negative_*.npy       where negatives were mined: the group that each hard negative belongs to

The order of rows is a function of their content: the same rows give the same bytes in whatever order they come.
"""

import hashlib
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import pyarrow as pa

import hybridbatch
from hybridbatch.arrangement import Arrangement, DuplicateRow, SplitRecord, arrange, renumbered, restrict
from hybridbatch.errors import DataError, OutputError, nearest
from hybridbatch.files import atomic_folder, read_json, sha256_file, write_json
from hybridbatch.ingest import Ingest
from hybridbatch.records import HAS_PASSAGE, HAS_QUERY, SPLITS, BadRow, RecordIndex, Row, Split
from hybridbatch.reporting import SILENT, Reporter
from hybridbatch.shards import BLOCK_ROWS, SCHEMA, ContentDigest, Shards, file_entry, write_shards
from hybridbatch.tokens import TokenArrays, stored_tokens

SCHEMA_VERSION = 1
REMOVED = "removed"  # in the manifest's provenance: the evaluation texts found, an outcome and not a cause
_ARRAYS = ("record_start", "source", "group", "language", "has")
_NEGATIVE_ARRAYS = ("negative_start", "negative_group")


class LeakingRecords(Protocol):
    """Records with evaluation texts in them; see `decontaminate.Findings`."""

    records: set[tuple[str, str]]  # (source, record id)

    def as_json(self) -> dict[str, Any]:
        """What was found, for the manifest."""


def write_store(
    folder: Path,
    rows: Iterable[Row | BadRow],
    *,
    provenance: Mapping[str, Any],
    leaking: LeakingRecords | None = None,
    outcomes: Callable[[], Mapping[str, Any]] = dict,
    strict: bool = False,
    validation_share: float = 0.05,
    seed: int = 13,
    report: Reporter = SILENT,
    shard_rows: int = 1 << 20,
) -> dict[str, Any]:
    """Write prepared data, all or nothing; an older store at `folder` is replaced. Returns the manifest.

    Texts are cleaned (`ingest.clean_row`); a side that is empty then is missing. Rows are streamed: memory is about 60
    bytes a row, whatever the length of the texts. What becomes validation data: `arrangement.arrange`.

    Args:
        rows: in any order; of a record, at most one row per language.
        provenance: where the rows come from, for the manifest; its ``sources`` may name licences.
        leaking: records to leave out; looked at when all rows have been read, so that it can be filled on the way.
        outcomes: asked when all rows have been read, for further entries of the manifest.
        strict: stop at the first bad row instead of counting it.
        validation_share: share of records set aside where a source has training rows only.
        seed: of that choice.
        shard_rows: rows of a file, about; does not change the fingerprint.

    Raises:
        DataError: no usable row, two rows of a record in one language, a record in two splits, every record leaking, or
            (strict) a bad row.
        OutputError: the folder cannot be written, or holds something else.
    """
    check_free(folder)
    with atomic_folder(folder) as temporary:
        spilled = temporary / "spill.arrow"
        ingest = Ingest(spilled, strict=strict)
        keys = ingest.read(rows)
        sources, languages = sorted(ingest.sources), sorted(ingest.languages)
        spill = Shards([spilled])
        without = ingest.belonging(keys, leaking.records) if leaking and leaking.records else None
        if leaking and without is not None:
            if without.all():
                raise DataError(
                    f"all {len(leaking.records):,} records hold evaluation texts, so nothing is left to train on;"
                    " choose other sources, or other tasks with --decontaminate"
                )
            source, sources = renumbered(keys.source, ~without, sources)
            language, languages = renumbered(keys.language, ~without, languages)
            keys = replace(keys, source=source, language=language)
        try:
            arranged = arrange(keys, sources, languages, validation_share=validation_share, seed=seed, without=without)
        except DuplicateRow as error:
            row = spill.take(np.array([error.row])).to_pylist()[0]
            raise DataError(
                f"source {row['source']}: record {row['record_id']!r} has two rows in language {row['language']};"
                " give them different record ids or drop one"
            ) from error
        except SplitRecord as error:
            row = spill.take(np.array([error.row])).to_pylist()[0]
            raise DataError(
                f"source {row['source']}: record {row['record_id']!r} has rows in more than one split; put all its"
                " languages in the same one"
            ) from error
        del keys
        blocks = {
            split: (made.index.rows, spill.blocks(made.rows, min(shard_rows, BLOCK_ROWS), ingest.schema.names))
            for split, made in arranged.items()
        }
        shards, fingerprint = _write_rows(temporary, blocks, shard_rows, report)
        del spill
        spilled.unlink()
        manifest = {
            "schema_version": SCHEMA_VERSION,
            "kind": "data",
            "hybridbatch": hybridbatch.__version__,
            "fingerprint": fingerprint,
            "sources": sources,
            "languages": languages,
            "licences": {one["name"]: one["licence"] for one in provenance.get("sources", ()) if "licence" in one},
            "provenance": {**provenance, REMOVED: leaking.as_json()} if leaking else dict(provenance),
            "validation_share": validation_share,
            "seed": seed,
            "splits": {
                split: {
                    "records": made.index.records,
                    "rows": made.index.rows,
                    "groups": len(np.unique(made.index.group)),
                    "counts": count_rows(made.index),
                }
                for split, made in arranged.items()
            },
            "dropped": {
                "rows": sum(ingest.dropped.values()),
                "reasons": dict(sorted(ingest.dropped.items())),
                "examples": ingest.examples,
            },
            **outcomes(),
            "shards": shards,
            "index": _write_index(temporary, arranged),
        }
        write_json(temporary / "manifest.json", manifest)
    return manifest


@dataclass(frozen=True)
class FoundNegatives:
    """Hard negatives of the R rows of a split: passages of other rows."""

    start: np.ndarray  # int64 [R + 1]: row i has the negatives start[i] to start[i + 1] - 1
    row: np.ndarray  # int64: the row whose passage each is
    keeps_given: np.ndarray  # bool [R]: whether the row's present negatives stay, before these


def write_with_negatives(
    store: "Store",
    folder: Path,
    found: Mapping[Split, FoundNegatives],
    *,
    provenance: Mapping[str, Any],
    report: Reporter = SILENT,
    shard_rows: int = 1 << 20,
) -> dict[str, Any]:
    """Write the data of `store` with other hard negatives, all or nothing, as `write_store`. Returns the manifest."""
    check_free(folder)
    with atomic_folder(folder) as temporary:
        for entry in store.manifest["index"]:
            (temporary / entry["file"]).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(store.folder / entry["file"], temporary / entry["file"])
        groups: dict[Split, list[tuple[np.ndarray, np.ndarray]]] = {split: [] for split in store.splits}
        blocks = {
            split: (store.index(split).rows, _with_negatives(store, split, found[split], groups[split]))
            for split in store.splits
        }
        shards, fingerprint = _write_rows(temporary, blocks, shard_rows, report)
        entries = {entry["file"]: entry for entry in store.manifest["index"]}
        for split, parts in groups.items():
            widths, group = (np.concatenate(side) for side in zip(*parts, strict=True))
            start = np.concatenate([[0], np.cumsum(widths)]).astype(np.int64)
            for name, array in zip(_NEGATIVE_ARRAYS, (start, group), strict=True):
                path = temporary / "index" / split / f"{name}.npy"
                np.save(path, array, allow_pickle=False)
                entry = file_entry(path, temporary)
                entries[entry["file"]] = entry
        manifest = {
            **store.manifest,
            "hybridbatch": hybridbatch.__version__,
            "fingerprint": fingerprint,
            "provenance": dict(provenance),
            "shards": shards,
            "index": list(entries.values()),
        }
        write_json(temporary / "manifest.json", manifest)
    return manifest


def _with_negatives(
    store: "Store", split: Split, found: FoundNegatives, groups: list[tuple[np.ndarray, np.ndarray]]
) -> Iterator[pa.Table]:
    """The rows of a split with their new negatives, in blocks; (negatives of each row, their groups) go to `groups`."""
    index = store.index(split)
    field = SCHEMA.field("negatives")
    for first in range(0, index.rows, BLOCK_ROWS):
        rows = np.arange(first, min(first + BLOCK_ROWS, index.rows))
        start = found.start[first : rows[-1] + 2] - found.start[first]
        others = found.row[found.start[first] : found.start[rows[-1] + 1]]
        passages, theirs = store.passages(split, others), index.group[index.record_of(others)].tolist()
        given, given_groups = store.negatives(split, rows), store.negative_groups(split, rows)
        lists: list[dict[str, int]] = []  # text -> group
        for place, keeps in enumerate(found.keeps_given[rows].tolist()):
            texts: dict[str, int] = {}
            if keeps:
                known = given_groups[place].tolist() if given_groups else [-1] * len(given[place])
                texts.update(zip(given[place], known, strict=True))
            mined = slice(start[place], start[place + 1])
            texts.update(zip(passages[mined], theirs[mined], strict=True))
            lists.append(texts)
        flat = np.array([group for texts in lists for group in texts.values()], index.group.dtype)
        groups.append((np.array([len(texts) for texts in lists]), flat))
        table = store.table(split, rows)
        column = pa.array([list(texts) for texts in lists], field.type)
        yield table.set_column(table.schema.get_field_index("negatives"), field, column)


def count_rows(index: RecordIndex) -> dict[str, dict[str, int]]:
    """Rows by source and language, without zeros."""
    table = np.zeros((len(index.sources), len(index.languages)), np.int64)
    bounds = [0, *(np.flatnonzero(np.diff(index.source)) + 1).tolist(), index.records]
    for first, last in pairwise(bounds):
        rows = np.s_[index.record_start[first] : index.record_start[last]]
        table[index.source[first]] += np.bincount(index.language[rows], minlength=len(index.languages))
    return {
        source: {index.languages[number]: int(counts[number]) for number in np.flatnonzero(counts)}
        for source, counts in zip(index.sources, table, strict=True)
        if counts.any()
    }


class Store:
    """Prepared data, opened without reading it: files are memory-mapped, and checked by size (`verify`: by content).

    Rows are numbered from 0 within a split.
    """

    def __init__(self, folder: Path, manifest: dict[str, Any]) -> None:
        self.folder = folder
        self.manifest = manifest

    @classmethod
    def open(cls, folder: Path) -> "Store":
        """Raises `DataError` if there is no prepared data, it is of another version, or a file is missing or cut."""
        folder = Path(folder)
        path = folder / "manifest.json"
        if not path.is_file():
            raise DataError(f"{folder}: no prepared data there (no manifest.json); make it with `hybridbatch prepare`")
        manifest = read_json(path)
        if not isinstance(manifest, dict) or manifest.get("kind") != "data":
            raise DataError(f"{path}: not the manifest of prepared data; make some with `hybridbatch prepare`")
        if manifest.get("schema_version") != SCHEMA_VERSION:
            raise DataError(
                f"{path}: schema_version is {manifest.get('schema_version')!r}, and this version reads"
                f" {SCHEMA_VERSION}; prepare the data again"
            )
        store = cls(folder, manifest)
        for file, entry in store._files():
            if not file.is_file() or file.stat().st_size != entry["bytes"]:
                found = f"{file.stat().st_size} bytes" if file.is_file() else "missing"
                raise DataError(f"{file}: damaged ({found}, should be {entry['bytes']} bytes); prepare the data again")
        return store

    def verify(self) -> None:
        """Read everything; raises `DataError` naming the first file whose content has changed."""
        for file, entry in self._files():
            if sha256_file(file) != entry["sha256"]:
                raise DataError(f"{file}: damaged (its sha256 is not that of the manifest); prepare the data again")

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
        """The index of a split, of its rows in `languages`, of a random `max_records` of the records that remain.

        Subsets are nested: those of 500 records are among those of 1,000. They hold every source in proportion, and
        prefer the same records whatever the languages. Without `languages` and `max_records` nothing is read.

        Raises: `DataError` if the split, or a language of the list, is not in the data, or nothing remains.
        """
        index = self._whole_index(split)
        if languages is None and max_records is None:
            return index
        kept = restrict(index, self._language_numbers(languages), max_records, seed)
        if not kept.rows:
            raise DataError(f"{self.folder}: the {split} split has no row in {', '.join(languages or ())}")
        return kept

    def queries(self, split: Split, rows: np.ndarray) -> list[str]:
        """The queries of rows that have one."""
        return self._texts(split, rows, "query")

    def passages(self, split: Split, rows: np.ndarray) -> list[str]:
        """The passages of rows that have one."""
        return self._texts(split, rows, "passage")

    def negatives(self, split: Split, rows: np.ndarray) -> list[tuple[str, ...]]:
        """The hard negatives of rows."""
        return [tuple(texts) for texts in self._column(split, rows, "negatives")]

    def negative_groups(self, split: Split, rows: np.ndarray) -> list[np.ndarray] | None:
        """Of every hard negative of rows, the group (`RecordIndex.group`) of the record whose passage it is, -1 if unknown.

        None where nothing is known of any.
        """
        folder = self.folder / "index" / self._known(split)
        if not (folder / f"{_NEGATIVE_ARRAYS[0]}.npy").is_file():
            return None
        start, group = self._arrays(split, _NEGATIVE_ARRAYS).values()
        return [group[start[row] : start[row + 1]] for row in np.asarray(rows).tolist()]

    def record_ids(self, split: Split, rows: np.ndarray) -> list[str]:
        """The record ids of rows."""
        return self._column(split, rows, "record_id")

    def rows(self, split: Split, rows: np.ndarray) -> list[Row]:
        """Whole rows."""
        table = self.table(split, rows).to_pylist()
        return [Row(**{**row, "negatives": tuple(row["negatives"])}, split=split) for row in table]

    def table(self, split: Split, rows: np.ndarray) -> pa.Table:
        """Whole rows, as `shards.SCHEMA`."""
        return self._shards[self._known(split)].take(rows)

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
        """The memory-mapped tokens of all rows of a split, length 0 where a row lacks the side (`tokens.stored_tokens`).

        Kept in ``tokens/KEY/`` of the data folder, or under `cache` where that folder is read-only.

        Args:
            tokenise: texts and side -> tokens, as `model.Encoder.tokenise`.
            key: hash of all that `tokenise` depends on (tokenizer, prompt, truncation); names a folder.
        """
        home = self.folder if cache is None or os.access(self.folder, os.W_OK) else cache / self.fingerprint
        texts, bit = (self.queries, HAS_QUERY) if side == "query" else (self.passages, HAS_PASSAGE)

        def read(rows: np.ndarray) -> list[str]:
            self._shards[split].release()  # a pass over all of them would end with the whole store mapped
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
            raise ValueError(f"row {np.asarray(rows)[texts.index(None)]} of {split} has no {side}")
        return texts

    def _column(self, split: Split, rows: np.ndarray, name: str) -> list[Any]:
        return self._shards[self._known(split)].take(rows, [name]).column(0).to_pylist()

    @cached_property
    def _shards(self) -> dict[str, Shards]:
        entries = self.manifest["shards"]
        return {
            split: Shards([self.folder / entry["file"] for entry in entries if entry["split"] == split])
            for split in self.splits
        }

    def _whole_index(self, split: Split) -> RecordIndex:
        return RecordIndex(sources=self.sources, languages=self.languages, **self._arrays(split, _ARRAYS))

    def _arrays(self, split: Split, names: Sequence[str]) -> dict[str, np.ndarray]:
        folder = self.folder / "index" / self._known(split)
        try:
            return {name: np.load(folder / f"{name}.npy", mmap_mode="r") for name in names}
        except (OSError, ValueError) as error:
            raise DataError(f"{folder}: damaged ({error}); prepare the data again") from error

    def _known(self, split: Split) -> Split:
        if split not in self.splits:
            raise DataError(f"{self.folder}: there is no {split} split; it has {', '.join(self.splits)}")
        return split

    def _language_numbers(self, languages: Sequence[str] | None) -> np.ndarray:
        """Ascending."""
        if languages is None:
            return np.arange(len(self.languages))
        for language in languages:
            if language not in self.languages:
                raise DataError(f"{self.folder}: no rows in {language!r}{nearest(language, self.languages)}")
        return np.array(sorted({self.languages.index(language) for language in languages}), np.int64)

    def _files(self) -> list[tuple[Path, dict[str, Any]]]:
        return [(self.folder / entry["file"], entry) for entry in self.manifest["shards"] + self.manifest["index"]]


def check_free(folder: Path) -> None:
    """Only prepared data may be replaced: whatever is at `folder` is deleted when the new data is complete.

    Raises: `OutputError` if something else is there.
    """
    if folder.exists() and not folder.is_dir():
        raise OutputError(f"{folder}: a file is in the way; choose another folder with --out")
    if folder.is_dir() and any(folder.iterdir()) and not _is_data(folder):
        raise OutputError(f"{folder}: holds something other than prepared data; choose another folder with --out")


def _is_data(folder: Path) -> bool:
    path = folder / "manifest.json"
    manifest = read_json(path) if path.is_file() else None
    return isinstance(manifest, dict) and manifest.get("kind") == "data"


def _write_rows(
    folder: Path, blocks: Mapping[Split, tuple[int, Iterator[pa.Table]]], shard_rows: int, report: Reporter
) -> tuple[list[dict[str, Any]], str]:
    """The shards of all splits, given the number of rows and the rows of each; (entries for the manifest, fingerprint)."""
    shards: list[dict[str, Any]] = []
    digests = []
    with report.bar("writing rows", sum(rows for rows, _ in blocks.values()), "rows") as bar:
        for split, (_, tables) in blocks.items():
            digest = ContentDigest()
            shards += write_shards(folder, split, tables, shard_rows, digest, bar)
            digests.append(f"{split} {digest.hexdigest()}")
    return shards, hashlib.sha256("\n".join(digests).encode()).hexdigest()


def _write_index(folder: Path, arranged: Mapping[Split, Arrangement]) -> list[dict[str, Any]]:
    entries = []
    for split, made in arranged.items():
        (folder / "index" / split).mkdir(parents=True)
        for name in _ARRAYS:
            path = folder / "index" / split / f"{name}.npy"
            np.save(path, getattr(made.index, name), allow_pickle=False)
            entries.append(file_entry(path, folder))
    return entries
