"""Writes prepared data: rows in, a folder out, all or nothing."""

import hashlib
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pyarrow as pa

import hybridbatch
from hybridbatch.common.errors import DataError, OutputError
from hybridbatch.common.files import atomic_folder, output_errors, read_json, write_json
from hybridbatch.common.progress import SILENT, Reporter
from hybridbatch.common.records import SPLITS, BadRow, Row, Split
from hybridbatch.data.store.arrangement import (
    Arrangement,
    DuplicateRow,
    EqualQueries,
    NothingLeft,
    SplitPlan,
    SplitRecord,
    arrange,
)
from hybridbatch.data.store.disk_arrays import CHUNK
from hybridbatch.data.store.intake import Ingest
from hybridbatch.data.store.keys import Numbering, SpilledKeys
from hybridbatch.data.store.manifest import SCHEMA_VERSION
from hybridbatch.data.store.reader import ARRAYS, REMOVED, Store, count_rows
from hybridbatch.data.store.row_files import (
    BLOCK_ROWS,
    ContentDigest,
    Shards,
    file_entry,
    write_shards,
    write_sums,
)

# the names of all entries of a folder of prepared data
_PART = re.compile(
    rf"manifest\.json|checksums|index|tokens|({'|'.join(SPLITS)})-\d{{5,}}\.arrow"
)


class LeakingRecords(Protocol):
    """Records that contain evaluation texts; see `decontamination.Findings`."""

    records: set[tuple[str, str]]  # (source, record id)

    def as_json(self) -> dict[str, Any]:
        """The findings, for the manifest."""


@dataclass(frozen=True)
class WritePlan:
    """How rows become a store, apart from the rows themselves.

    Attributes:
        provenance: origin of the rows, for the manifest; its ``sources`` may name licences.
        leaking: records to leave out; read after all rows, so that reading may fill it.
        outcomes: called after all rows have been read; returns further entries of the manifest.
        strict: stop at the first bad row instead of counting it.
        validation_share, test_share, seed, equal_queries, own: see `SplitPlan`.
        shard_rows: approximate number of rows of a file; does not change the fingerprint.
    """

    provenance: Mapping[str, Any]
    leaking: LeakingRecords | None = None
    outcomes: Callable[[], Mapping[str, Any]] = dict
    strict: bool = False
    validation_share: float = 0.05
    test_share: float = 0.0
    seed: int = 13
    equal_queries: EqualQueries = "apart"
    own: frozenset[str] = frozenset()
    shard_rows: int = 1 << 20


def write_store(
    folder: Path, rows: Iterable[Row | BadRow], *, report: Reporter = SILENT, **settings: Any
) -> dict[str, Any]:
    """Write prepared data, all or nothing; an older store at `folder` is replaced.

    Texts are cleaned (`intake.clean_row`); a side that is then empty is missing. Rows are streamed,
    and sorted on disk: memory is about 1 GB and 30 bytes a record, whatever the number of languages
    and the length of the texts. `arrangement.arrange` chooses the validation data.

    Args:
        rows: in any order; a record has at most one row per language.
        settings: the attributes of `WritePlan`, including `provenance`.

    Returns:
        The manifest.

    Raises:
        DataError: no usable row, two rows of a record in one language, a record in two splits,
            every record leaking, or (strict) a bad row.
        OutputError: the folder cannot be written, or holds something else.
    """
    plan = WritePlan(**settings)
    check_free(folder)
    with atomic_folder(folder) as temporary:
        # First pass: every row is cleaned and spilled to disk in sorted runs, its integer key
        # beside it. The keys alone decide the order of rows and the splits.
        spilled = temporary / "spill.arrow"
        ingest = Ingest(spilled, strict=plan.strict)
        keys = ingest.read(rows)
        spill = Shards([spilled])
        scratch = temporary / "scratch"
        scratch.mkdir()
        arranged = _arranged(ingest, keys, spill, plan, (temporary / "index", scratch))
        keys.rows.path.unlink()

        # Second pass: the rows are read back from the runs in their final order.
        blocks = {}
        for split, made in arranged.items():
            size = min(plan.shard_rows, BLOCK_ROWS)
            tables = spill.blocks(made.rows, size, ingest.schema.names)
            blocks[split] = (made.index.rows, tables)
        shards, fingerprint = write_rows(temporary, blocks, plan.shard_rows, report)
        del spill
        spilled.unlink()
        for path in scratch.iterdir():
            path.unlink()
        scratch.rmdir()

        index = _index_entries(temporary, arranged)
        manifest = _manifest(ingest, arranged, plan, fingerprint)
        # The index is memory-mapped, and some systems move no open file.
        del arranged, blocks
        write_manifest(temporary, manifest, shards, index)
    return manifest


def _arranged(
    ingest: Ingest,
    keys: SpilledKeys,
    spill: Shards,
    plan: WritePlan,
    folders: tuple[Path, Path],
) -> dict[Split, Arrangement]:
    """The rows of each split in their final order, without leaking records; writes the index.

    Raises:
        DataError: Rows are contradictory, or none remains.
    """
    sources, languages = Numbering.of(ingest.sources), Numbering.of(ingest.languages)
    without: set[tuple[int, int, int]] = set()
    if plan.leaking and plan.leaking.records:
        without = ingest.hashes(plan.leaking.records)
    try:
        return arrange(
            keys,
            sources,
            languages,
            SplitPlan(
                plan.validation_share, plan.test_share, plan.seed, plan.equal_queries, plan.own
            ),
            folders,
            without,
        )
    except NothingLeft:
        raise DataError(
            f"all {len(plan.leaking.records) if plan.leaking else 0:,} records hold evaluation texts, so no record is left to train"
            " on; choose other sources, or other tasks with --decontaminate"
        ) from None
    except DuplicateRow as error:
        row = spill.take(np.array([error.row])).to_pylist()[0]
        raise DataError(
            f"source {row['source']}: record {row['record_id']!r} has two rows in language"
            f" {row['language']}; give them different record ids or drop one"
        ) from error
    except SplitRecord as error:
        row = spill.take(np.array([error.row])).to_pylist()[0]
        raise DataError(
            f"source {row['source']}: record {row['record_id']!r} has rows in more than one"
            " split; put all its languages in the same one"
        ) from error


def _manifest(
    ingest: Ingest, arranged: Mapping[Split, Arrangement], plan: WritePlan, fingerprint: str
) -> dict[str, Any]:
    """All of the manifest except the entries of the files."""
    index = next(iter(arranged.values())).index
    licences = {}
    for source in plan.provenance.get("sources", ()):
        if "licence" in source:
            licences[source["name"]] = source["licence"]
    provenance = dict(plan.provenance)
    if plan.leaking:
        provenance[REMOVED] = plan.leaking.as_json()
    splits = {}
    for split, made in arranged.items():
        splits[split] = {
            "records": made.index.records,
            "rows": made.index.rows,
            "groups": _distinct(made.index.group),
            "counts": count_rows(made.index),
        }
    return {
        "schema_version": SCHEMA_VERSION,
        "kind": "data",
        "hybridbatch": hybridbatch.__version__,
        "fingerprint": fingerprint,
        "sources": list(index.sources),
        "languages": list(index.languages),
        "licences": licences,
        "provenance": provenance,
        "validation_share": plan.validation_share,
        "seed": plan.seed,
        "splits": splits,
        "dropped": {
            "rows": sum(ingest.dropped.values()),
            "reasons": dict(sorted(ingest.dropped.items())),
            "examples": ingest.examples,
        },
        **plan.outcomes(),
    }


def _distinct(numbers: np.ndarray) -> int:
    """How many different numbers there are, of small numbers from 0 (int [n])."""
    used = np.zeros(int(numbers.max()) + 1, bool)
    for start in range(0, len(numbers), CHUNK):
        used[numbers[start : start + CHUNK]] = True
    return int(used.sum())


def write_manifest(
    folder: Path,
    manifest: dict[str, Any],
    shards: list[dict[str, Any]],
    index: list[dict[str, Any]],
) -> None:
    """Add the entries of the files and their checksums to the manifest, and write it."""
    sums = write_sums(folder, [*shards, *index])
    manifest.update(shards=shards, index=index, checksums=sums)
    write_json(folder / "manifest.json", manifest, sealed=True)


def add_sums(store: Store) -> None:
    """Add the missing checksums to data of an earlier version, after its sha256 are verified.

    Raises:
        DataError: The data is damaged.
        OutputError: The data cannot be written.
    """
    store.verify()
    manifest = dict(store.manifest)
    shards, index = manifest.pop("shards"), manifest.pop("index")
    with output_errors(store.folder):
        write_manifest(store.folder, manifest, shards, index)


def check_free(folder: Path) -> None:
    """Check that `folder` may be replaced: only prepared data, which is deleted at the end.

    Raises:
        OutputError: Something else is there.
    """
    if folder.exists() and not folder.is_dir():
        raise OutputError(
            f"{folder}: is a file, where a folder is needed; choose another folder with --out"
        )
    if folder.is_dir() and any(folder.iterdir()) and not _is_data(folder):
        raise OutputError(
            f"{folder}: holds something other than prepared data; choose another folder with --out"
        )


def _is_data(folder: Path) -> bool:
    """Whether a folder holds prepared data, damaged or not."""
    path = folder / "manifest.json"
    names = {each.name for each in folder.iterdir()}
    if not path.is_file():  # lost: the other files show what it is
        return {"checksums", "index"} <= names and all(map(_PART.fullmatch, names))
    try:
        manifest = read_json(path)
    except DataError:  # damaged
        return all(map(_PART.fullmatch, names))
    return isinstance(manifest, dict) and manifest.get("kind") == "data"


def write_rows(
    folder: Path,
    blocks: Mapping[Split, tuple[int, Iterator[pa.Table]]],
    shard_rows: int,
    report: Reporter,
) -> tuple[list[dict[str, Any]], str]:
    """Write the shards of all splits, given the number of rows and the rows of each split.

    Returns:
        Entries for the manifest, and the fingerprint.
    """
    shards: list[dict[str, Any]] = []
    digests = []
    with report.bar("writing rows", sum(rows for rows, _ in blocks.values()), "rows") as bar:
        for split, (_, tables) in blocks.items():
            digest = ContentDigest()
            shards += write_shards(folder, split, tables, shard_rows, digest, bar)
            digests.append(f"{split} {digest.hexdigest()}")
    return shards, hashlib.sha256("\n".join(digests).encode()).hexdigest()


def _index_entries(folder: Path, arranged: Mapping[Split, Arrangement]) -> list[dict[str, Any]]:
    entries = []
    for split in arranged:
        for name in ARRAYS:
            entries.append(file_entry(folder / "index" / split / f"{name}.npy", folder))
    return entries
