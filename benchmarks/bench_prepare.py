"""`prepare` at the size of the paper's data: peak memory, disk and time of the command.

Synthetic files in mMARCO's layout (short texts of random words) are put where the hub's client keeps
its downloads. Then `hybridbatch prepare mmarco-triples` runs as a user runs it, once for each number
of rows, each time in a process of its own: a record for each triple, in seven languages. If memory is
bounded, its peak hardly grows between the sizes.
"""

import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from common import finish, parser

from hybridbatch.common.files import read_json
from hybridbatch.data.sources.mmarco import HUB, TRIPLES

HERE = Path(__file__).parents[1]
LANGUAGES = {
    "english": "eng",
    "arabic": "arb",
    "chinese": "zho",
    "german": "deu",
    "spanish": "spa",
    "russian": "rus",
    "hindi": "hin",
}
PAIRS, PASSAGES = 530_000, 1_000_000  # of questions and answers; in each language; at most
TRIPLES_A_PAIR = 20  # at least; mMARCO has 75
CHUNK = 1 << 18  # lines that are made together


def main() -> None:
    """Make the files, and prepare them at every size."""
    arguments = parser(__doc__ or "")
    arguments.add_argument("--rows", type=int, nargs="+", default=[1_000_000, 2_000_000])
    arguments.add_argument("--question-characters", type=int, default=24)
    arguments.add_argument("--passage-characters", type=int, default=48)
    arguments.add_argument(
        "--folder", type=Path, help="where the files go (default: the system's)"
    )
    arguments.add_argument(
        "--options", default="", help="further options of prepare, as one string"
    )
    options = arguments.parse_args()
    figures = {}
    for rows in options.rows:
        with tempfile.TemporaryDirectory(dir=options.folder) as temporary:
            triples = rows // len(LANGUAGES)
            lengths = options.question_characters, options.passage_characters
            source = make_files(Path(temporary) / "hf", triples, *lengths)
            extra = options.options.split()
            figures[str(rows)] = prepare(Path(temporary), extra) | {"source_bytes": source}
    settings = {
        name: value for name, value in vars(options).items() if name not in ("out", "folder")
    }
    finish("prepare", settings, figures, options.out)


def make_files(cache: Path, triples: int, asked: int, told: int) -> int:
    """Files of mMARCO's layout in the cache of the hub's client; returns their bytes."""
    place = f"datasets--{HUB.name.replace('/', '--')}"
    folder = cache / "hub" / place / "snapshots" / HUB.revision
    pairs = max(1, min(PAIRS, triples // TRIPLES_A_PAIR))
    passages = min(PASSAGES, 2 * pairs)
    random = np.random.default_rng(0)
    file = folder / TRIPLES
    file.parent.mkdir(parents=True)
    with file.open("w") as out:
        for first in range(0, triples, CHUNK):
            size = min(CHUNK, triples - first)
            pair = random.integers(0, pairs, size)
            # Every third question has two answers.
            columns = pair * 3 // 4, pair, random.integers(0, passages, size)
            lines = zip(*(column.tolist() for column in columns), strict=True)
            out.writelines("\t".join(map(str, line)) + "\n" for line in lines)
    for language in LANGUAGES:
        queries = folder / f"data/google/queries/train/{language}_queries.train.tsv"
        collection = folder / f"data/google/collections/{language}_collection.tsv"
        for path, count, length in ((queries, pairs, asked), (collection, passages, told)):
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("w") as out:
                out.writelines(texts(count, length, language))
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def texts(count: int, length: int, language: str) -> Iterator[str]:
    """Lines of a number and a text, which differs between languages and numbers."""
    letters = np.random.default_rng(1).integers(ord("a"), ord("z") + 1, (1 << 15, 6), np.uint8)
    letters[:, 5] = ord(" ")
    words = letters.tobytes().decode()
    for number in range(count):
        start = number * 7919 % (len(words) - length)
        yield f"{number}\t{language} {number} {words[start : start + length].strip()}\n"


def prepare(folder: Path, extra: list[str]) -> dict[str, Any]:
    """Run the command; its memory, disk and time."""
    data = folder / "data" / "mmarco"
    data.parent.mkdir()
    languages = ",".join(LANGUAGES.values())
    command = [sys.executable, "-m", "hybridbatch", "prepare", "mmarco-triples"]
    command += ["--languages", languages, "--out", str(data), "--quiet", *extra]
    environment = os.environ | {
        "HF_HOME": str(folder / "hf"),
        "HF_HUB_OFFLINE": "1",
        "HYBRIDBATCH_CACHE": str(folder / "cache"),
        "TMPDIR": str(folder),
        "PYTHONPATH": str(HERE),
    }
    source = used(folder)
    most = [0]
    ended = threading.Event()

    def watch() -> None:
        while not ended.wait(1):
            most[0] = max(most[0], used(folder) - source)

    watcher = threading.Thread(target=watch)
    watcher.start()
    started = time.perf_counter()
    process = subprocess.Popen(command, env=environment)
    _, status, usage = os.wait4(process.pid, 0)
    ended.set()
    watcher.join()
    if status:
        raise SystemExit(f"prepare failed: {os.waitstatus_to_exitcode(status)}")
    manifest = read_json(data / "manifest.json")
    return {
        "rows": sum(split["rows"] for split in manifest["splits"].values()),
        "records": sum(split["records"] for split in manifest["splits"].values()),
        "peak_mib": round(usage.ru_maxrss / 1024, 1),
        "wall_seconds": round(time.perf_counter() - started, 1),
        "cpu_seconds": round(usage.ru_utime + usage.ru_stime, 1),
        "stored_bytes": used(data),
        "most_bytes_while_writing": most[0],
    }


def used(folder: Path) -> int:
    """Bytes of the files in a folder."""
    total = 0
    for place, _, names in os.walk(folder):
        for name in names:
            try:
                total += os.stat(os.path.join(place, name)).st_size
            except FileNotFoundError:  # a temporary file that is gone
                continue
    return total


if __name__ == "__main__":
    main()
