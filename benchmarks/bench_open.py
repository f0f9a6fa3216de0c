"""Opening prepared data of 40 million rows: `Store.open`, then its index, then random rows.

The data is synthetic: the files that `hybridbatch prepare` writes, with short texts that repeat. Each
figure is of a new process, and the files are in the system's cache. The whole index is compared
with its checksums when it is opened, and rows when they are read.
"""

import multiprocessing
import resource
import shutil
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from common import finish, parser, spread

from hybridbatch.common.progress import SILENT
from hybridbatch.data.store.manifest import SCHEMA_VERSION
from hybridbatch.data.store.reader import Store
from hybridbatch.data.store.row_files import (
    BLOCK_ROWS,
    SCHEMA,
    ContentDigest,
    file_entry,
    write_shards,
)
from hybridbatch.data.store.writer import write_manifest

LANGUAGES = ("amh", "deu", "eng", "swh")
SHARD_ROWS = 1 << 22


class NoDigest(ContentDigest):
    """Nothing is compared with the fingerprint of this data."""

    def update(self, table: pa.Table) -> None:
        """Ignore the rows."""


def main() -> None:
    """Write the data once, and open it several times."""
    arguments = parser(__doc__ or "")
    arguments.add_argument("--rows", type=int, default=40_000_000)
    arguments.add_argument("--repeats", type=int, default=3)
    arguments.add_argument("--folder", type=Path, help="where it lies for a while")
    options = arguments.parse_args()
    folder = Path(tempfile.mkdtemp(dir=options.folder)) / "data"
    try:
        started = time.process_time()
        write(folder, options.rows)
        files = [path for path in folder.rglob("*") if path.is_file()]
        figures: dict[str, Any] = {
            "write_cpu_seconds": round(time.process_time() - started, 1),
            "bytes": sum(path.stat().st_size for path in files),
            "index_bytes": sum(path.stat().st_size for path in files if path.suffix == ".npy"),
        }
        runs = [measured(folder) for _ in range(options.repeats)]
        for name in runs[0]:
            figures[name] = spread([run[name] for run in runs])
    finally:
        shutil.rmtree(folder.parent)
    settings = {"rows": options.rows, "repeats": options.repeats}
    finish("open", settings, figures, options.out)


def write(folder: Path, rows: int) -> None:
    """Prepared data of records in four languages, without its spilling and sorting."""
    records = rows // len(LANGUAGES)
    home = folder / "index" / "train"
    home.mkdir(parents=True)
    arrays = {
        "record_start": np.arange(0, rows + 1, len(LANGUAGES), dtype=np.int64),
        "source": np.zeros(records, np.int16),
        "group": np.arange(records, dtype=np.int32),
        "language": np.tile(np.arange(len(LANGUAGES), dtype=np.int16), records),
        "has": np.full(rows, 3, np.uint8),
    }
    for name, array in arrays.items():
        np.save(home / f"{name}.npy", array)
    with SILENT.bar("", rows) as bar:
        shards = write_shards(folder, "train", blocks(rows), SHARD_ROWS, NoDigest(), bar)
    index = [file_entry(home / f"{name}.npy", folder) for name in arrays]
    counts = {"records": records, "rows": rows, "groups": records}
    by_language = dict.fromkeys(LANGUAGES, records)
    manifest = {
        "schema_version": SCHEMA_VERSION,
        "kind": "data",
        "fingerprint": "0" * 64,
        "sources": ["s"],
        "languages": list(LANGUAGES),
        "provenance": {},
        "splits": {"train": counts | {"counts": {"s": by_language}}},
        "dropped": {"rows": 0, "reasons": {}, "examples": []},
    }
    write_manifest(folder, manifest, shards, index)


def blocks(rows: int) -> Iterator[pa.Table]:
    """Rows in blocks; all blocks hold the same texts."""
    numbers = [f"{number:06}" for number in range(BLOCK_ROWS)]
    columns = {
        "source": ["s"] * BLOCK_ROWS,
        "record_id": numbers,
        "language": [LANGUAGES[number % len(LANGUAGES)] for number in range(BLOCK_ROWS)],
        "query": [f"question {number}" for number in numbers],
        "passage": [f"passage {number}" for number in numbers],
        "negatives": [[]] * BLOCK_ROWS,
    }
    block = pa.table(columns, schema=SCHEMA)
    for start in range(0, rows, BLOCK_ROWS):
        yield block.slice(0, min(BLOCK_ROWS, rows - start))


def measured(folder: Path) -> dict[str, float]:
    """Seconds of the steps, and the memory after them, in a new process."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(opened, folder).result()


def opened(folder: Path) -> dict[str, float]:
    """Open the data, take its index, and read 10,000 random passages."""
    found: dict[str, float] = {}
    wall, cpu = time.perf_counter(), time.process_time()

    def lap(name: str) -> None:
        nonlocal wall, cpu
        found[f"{name}_seconds"] = round(time.perf_counter() - wall, 4)
        found[f"{name}_cpu_seconds"] = round(time.process_time() - cpu, 4)
        wall, cpu = time.perf_counter(), time.process_time()

    store = Store.open(folder)
    lap("open")
    index = store.index("train")
    lap("index")
    chosen = np.random.default_rng(0).integers(0, index.rows, 10_000)
    store.passages("train", chosen)
    lap("read_10000_passages")
    found["peak_mib"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return found


if __name__ == "__main__":
    main()
