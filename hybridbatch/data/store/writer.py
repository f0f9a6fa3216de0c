"""Writes prepared data: rows in, a folder out, all or nothing."""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pyarrow as pa

import hybridbatch
from hybridbatch.common.errors import DataError, OutputError
from hybridbatch.common.files import atomic_folder, read_json, write_json
from hybridbatch.common.progress import SILENT, Reporter
from hybridbatch.common.records import BadRow, Row, Split
from hybridbatch.data.store.arrangement import (
    Arrangement,
    DuplicateRow,
    SplitRecord,
    arrange,
    renumbered,
)
from hybridbatch.data.store.intake import Ingest
from hybridbatch.data.store.reader import _ARRAYS, REMOVED, SCHEMA_VERSION, count_rows
from hybridbatch.data.store.row_files import (
    BLOCK_ROWS,
    ContentDigest,
    Shards,
    file_entry,
    write_shards,
)


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
    """Write prepared data, all or nothing; an older store at `folder` is replaced. Returns the
    manifest.

    Texts are cleaned (`ingest.clean_row`); a side that is empty then is missing. Rows are streamed:
    memory is about 60 bytes a row, whatever the length of the texts. What becomes validation data:
    `arrangement.arrange`.

    Args:
        rows: in any order; of a record, at most one row per language.
        provenance: where the rows come from, for the manifest; its ``sources`` may name licences.
        leaking: records to leave out; looked at when all rows have been read, so that it can be
            filled on the way.
        outcomes: asked when all rows have been read, for further entries of the manifest.
        strict: stop at the first bad row instead of counting it.
        validation_share: share of records set aside where a source has training rows only.
        seed: of that choice.
        shard_rows: rows of a file, about; does not change the fingerprint.

    Raises:
        DataError: no usable row, two rows of a record in one language, a record in two splits,
            every record leaking, or (strict) a bad row.
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
                    f"all {len(leaking.records):,} records hold evaluation texts, so nothing is"
                    " left to train on;"
                    " choose other sources, or other tasks with --decontaminate"
                )
            source, sources = renumbered(keys.source, ~without, sources)
            language, languages = renumbered(keys.language, ~without, languages)
            keys = replace(keys, source=source, language=language)
        try:
            arranged = arrange(
                keys,
                sources,
                languages,
                validation_share=validation_share,
                seed=seed,
                without=without,
            )
        except DuplicateRow as error:
            row = spill.take(np.array([error.row])).to_pylist()[0]
            raise DataError(
                f"source {row['source']}: record {row['record_id']!r} has two rows in language"
                f" {row['language']};"
                " give them different record ids or drop one"
            ) from error
        except SplitRecord as error:
            row = spill.take(np.array([error.row])).to_pylist()[0]
            raise DataError(
                f"source {row['source']}: record {row['record_id']!r} has rows in more than one"
                " split; put all its"
                " languages in the same one"
            ) from error
        del keys
        blocks = {
            split: (
                made.index.rows,
                spill.blocks(made.rows, min(shard_rows, BLOCK_ROWS), ingest.schema.names),
            )
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
            "licences": {
                one["name"]: one["licence"]
                for one in provenance.get("sources", ())
                if "licence" in one
            },
            "provenance": {**provenance, REMOVED: leaking.as_json()}
            if leaking
            else dict(provenance),
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


def check_free(folder: Path) -> None:
    """Only prepared data may be replaced: whatever is at `folder` is deleted when the new data is
    complete.

    Raises: `OutputError` if something else is there.
    """
    if folder.exists() and not folder.is_dir():
        raise OutputError(f"{folder}: a file is in the way; choose another folder with --out")
    if folder.is_dir() and any(folder.iterdir()) and not _is_data(folder):
        raise OutputError(
            f"{folder}: holds something other than prepared data; choose another folder with --out"
        )


def _is_data(folder: Path) -> bool:
    path = folder / "manifest.json"
    manifest = read_json(path) if path.is_file() else None
    return isinstance(manifest, dict) and manifest.get("kind") == "data"


def _write_rows(
    folder: Path,
    blocks: Mapping[Split, tuple[int, Iterator[pa.Table]]],
    shard_rows: int,
    report: Reporter,
) -> tuple[list[dict[str, Any]], str]:
    """The shards of all splits, given the number of rows and the rows of each; (entries for the
    manifest, fingerprint).
    """
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
