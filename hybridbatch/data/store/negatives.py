"""Writes prepared data again with other hard negatives."""

import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

import hybridbatch
from hybridbatch.common.files import atomic_folder
from hybridbatch.common.progress import SILENT, Reporter
from hybridbatch.common.records import Split
from hybridbatch.data.store.reader import NEGATIVE_ARRAYS, Store
from hybridbatch.data.store.row_files import BLOCK_ROWS, SCHEMA, file_entry
from hybridbatch.data.store.writer import check_free, write_manifest, write_rows


@dataclass(frozen=True)
class FoundNegatives:
    """Hard negatives of the R rows of a split: passages of other rows."""

    start: np.ndarray  # int64 [R + 1]: row i has the negatives start[i] to start[i + 1] - 1
    row: np.ndarray  # int64: the rows that the passages belong to
    keeps_given: (
        np.ndarray
    )  # bool [R]: whether the row's old negatives stay, before the new ones


def write_with_negatives(
    store: "Store",
    folder: Path,
    found: Mapping[Split, FoundNegatives],
    *,
    provenance: Mapping[str, Any],
    report: Reporter = SILENT,
    shard_rows: int = 1 << 20,
) -> dict[str, Any]:
    """Write the data of `store` with other hard negatives, all or nothing, as `write_store` does.

    Returns:
        The manifest.
    """
    check_free(folder)
    store.verify()  # otherwise damage would be copied, with matching checksums
    with atomic_folder(folder) as temporary:
        for entry in store.manifest["index"]:
            (temporary / entry["file"]).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(store.folder / entry["file"], temporary / entry["file"])
        # writing the rows determines the widths and groups of the new negatives
        groups: dict[Split, list[tuple[np.ndarray, np.ndarray]]] = {}
        blocks = {}
        for split in store.splits:
            groups[split] = []
            tables = _with_negatives(store, split, found[split], groups[split])
            blocks[split] = (store.index(split).rows, tables)
        shards, fingerprint = write_rows(temporary, blocks, shard_rows, report)
        entries = {entry["file"]: entry for entry in store.manifest["index"]}
        for split, parts in groups.items():
            widths, group = (np.concatenate(side) for side in zip(*parts, strict=True))
            start = np.concatenate([[0], np.cumsum(widths)]).astype(np.int64)
            for name, array in zip(NEGATIVE_ARRAYS, (start, group), strict=True):
                path = temporary / "index" / split / f"{name}.npy"
                np.save(path, array, allow_pickle=False)
                entry = file_entry(path, temporary)
                entries[entry["file"]] = entry
        manifest = {
            **store.manifest,
            "hybridbatch": hybridbatch.__version__,
            "fingerprint": fingerprint,
            "provenance": dict(provenance),
        }
        write_manifest(temporary, manifest, shards, list(entries.values()))
    return manifest


def _with_negatives(
    store: "Store",
    split: Split,
    found: FoundNegatives,
    groups: list[tuple[np.ndarray, np.ndarray]],
) -> Iterator[pa.Table]:
    """The rows of a split with their new negatives, in blocks.

    (negatives of each row, their groups) go to `groups`.
    """
    index = store.index(split)
    field = SCHEMA.field("negatives")
    for first in range(0, index.rows, BLOCK_ROWS):
        rows = np.arange(first, min(first + BLOCK_ROWS, index.rows))
        lists = _negatives_of(store, split, found, rows)
        widths = np.array([len(texts) for texts in lists])
        flat = np.array(
            [group for texts in lists for group in texts.values()], index.group.dtype
        )
        groups.append((widths, flat))
        table = store.table(split, rows)
        column = pa.array([list(texts) for texts in lists], field.type)
        yield table.set_column(table.schema.get_field_index("negatives"), field, column)


def _negatives_of(
    store: "Store", split: Split, found: FoundNegatives, rows: np.ndarray
) -> list[dict[str, int]]:
    """The hard negatives of consecutive rows: text -> group of the passage's record.

    The group is -1 if it is unknown. Old negatives that stay come first.
    """
    index = store.index(split)
    first, last = rows[0], rows[-1]
    start = found.start[first : last + 2] - found.start[first]
    others = found.row[found.start[first] : found.start[last + 1]]
    passages = store.passages(split, others)
    groups = index.group[index.record_of(others)].tolist()
    given = store.negatives(split, rows)
    given_groups = store.negative_groups(split, rows)
    lists = []
    for place, keeps in enumerate(found.keeps_given[rows].tolist()):
        texts: dict[str, int] = {}
        if keeps:
            known = given_groups[place].tolist() if given_groups else [-1] * len(given[place])
            texts.update(zip(given[place], known, strict=True))
        mined = slice(start[place], start[place + 1])
        texts.update(zip(passages[mined], groups[mined], strict=True))
        lists.append(texts)
    return lists
