"""What is sorted on disk, in many small parts, is what memory would sort in one."""

import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from hybridbatch.common.records import Row
from hybridbatch.data.filters import hashes
from hybridbatch.data.filters.hashes import HashLog, repeats
from hybridbatch.data.store import disk_arrays, groups, intake, keys
from hybridbatch.data.store.groups import TextPairs, groups_of
from hybridbatch.data.store.writer import write_store
from hybridbatch.sampling.index import shared_text_groups

LANGUAGES = ["eng", "deu", "swh", "yor", "amh", "zul"]


def some_rows(seed: int, records: int = 300) -> list[Row]:
    """Rows of three sources, one of them with splits, that share questions and passages."""
    rng, found = random.Random(seed), []
    for number in range(records):
        source = rng.choice("abc")
        split = "validation" if source == "c" and number % 4 == 0 else "train"
        for language in rng.sample(LANGUAGES, rng.randint(1, 5)):
            query = f"q{rng.randrange(records)}" if rng.random() < 0.9 else None
            passage = (
                f"p{rng.randrange(records)}" if query is None or rng.random() < 0.9 else None
            )
            found.append(Row(source, f"id{number}", language, query, passage, split=split))
    rng.shuffle(found)
    return found


def contents(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


@pytest.mark.parametrize("settings", [{}, {"test_share": 0.1}, {"equal_queries": "together"}])
def test_small_parts_give_the_same_bytes(
    settings: dict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    rows = some_rows(3)
    write_store(tmp_path / "one", rows, provenance={}, **settings)
    monkeypatch.setattr(intake, "_RUN_ROWS", 50)
    monkeypatch.setattr(keys, "BUCKET_ROWS", 20)
    monkeypatch.setattr(groups, "PART_PAIRS", 16)
    for module in (groups, disk_arrays):
        monkeypatch.setattr(module, "CHUNK", 7)
    # The order of arrival decides only the order of runs.
    write_store(tmp_path / "other", rows, provenance={}, **settings)
    assert contents(tmp_path / "one") == contents(tmp_path / "other")


def test_groups_on_disk_are_those_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    rng = np.random.default_rng(5)
    records, rows = 400, 1500
    record = np.sort(rng.integers(0, records, rows))
    texts = [rng.integers(0, 600, rows).astype(np.uint64) for _ in range(2)]
    expected = shared_text_groups(record, texts, records)
    monkeypatch.setattr(groups, "PART_PAIRS", 100)
    monkeypatch.setattr(groups, "CHUNK", 13)
    pairs = [TextPairs(tmp_path, name, rows) for name in ("passage", "query")]
    for one, text in zip(pairs, texts, strict=True):
        for start in range(0, rows, 37):
            one.append(text[start : start + 37], record[start : start + 37])
    assert groups_of(pairs, records).tolist() == expected.tolist()


def test_repeats_are_those_of_sets(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(hashes, "KEPT", 40)
    monkeypatch.setattr(hashes, "PART", 100)
    rng = np.random.default_rng(2)
    logs, expected, earlier = [], [], set()
    for _ in range(3):
        log, seen = HashLog(), []
        for _ in range(12):
            batch = rng.integers(0, 500, 23).astype(np.uint64)
            log.append(batch)
            seen += batch.tolist()
        logs.append(log)
        expected.append((len(seen) - len(set(seen)), len(set(seen) & earlier)))
        earlier |= set(seen)
    assert repeats(logs) == expected


GROW = """
import resource, sys, tempfile
from pathlib import Path
from hybridbatch.common.records import Row
from hybridbatch.data.filters.quality import Quality
from hybridbatch.data.settings import PrepareConfig
from hybridbatch.data.store.writer import write_store

records, languages = int(sys.argv[1]), ["eng", "deu", "spa", "rus", "hin", "zho", "ara"]

def rows():
    for number in range(records):
        for language in languages:
            query, passage = f"q{number % 5000} {language}", f"p{number // 3} {language}"
            yield Row("made", str(number), language, query, passage)

with tempfile.TemporaryDirectory() as folder:
    quality = Quality(PrepareConfig())
    manifest = write_store(Path(folder) / "data", quality.rows(rows()), provenance={})
    quality.as_json()
print(manifest["splits"]["train"]["rows"], resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def peak_memory(records: int) -> int:
    """Peak resident bytes of a process that writes `records` records in seven languages."""
    done = subprocess.run(
        [sys.executable, "-c", GROW, str(records)], capture_output=True, text=True, check=True
    )
    return int(done.stdout.split()[1]) << 10


@pytest.mark.slow
def test_memory_grows_with_records_and_hardly(tmp_path: Path):
    """Seven times the rows, from more than a run on, take at most 60 bytes a record more."""
    small, large = peak_memory(100_000), peak_memory(500_000)
    assert large - small < 60 * 400_000 + 150e6
    assert large < 1.5e9
