"""Reading a table of a million rows, and `prepare` of it, beside an earlier version.

The same file, once as JSON Lines, CSV and TSV, is read by this checkout and by another one
(`--before FOLDER`, such as a clone of the commit before own files were read in all their forms).
Each run is a process of its own, old and new take turns, and CPU seconds are compared. Without
`--before` only this checkout is measured.
"""

import csv
import json
import random
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from common import finish, parser

HERE = Path(__file__).parents[1]
WORDS = (
    "mill",
    "river",
    "harvest",
    "bell",
    "market",
    "the",
    "question",
    "yes",
    "jibu",
    "swali",
)
WORDS += ("maji", "nyumba", "Straße", "ọdún", "lampu", "gereja")
COLUMNS = ("record_id", "language", "query", "passage")
READ = """
import sys, time
from pathlib import Path
sys.path.insert(0, sys.argv[1])
try:
    from hybridbatch.data.source import SourceContext
    from hybridbatch.data.sources.user import user_source
except ImportError:
    from hybridbatch.sources import SourceContext
    from hybridbatch.sources.user import user_source
started = time.process_time()
rows = sum(1 for _ in user_source(Path(sys.argv[2])).rows(SourceContext()))
print(rows, time.process_time() - started)
"""
PREPARE = """
import sys, tempfile, time
from pathlib import Path
sys.path.insert(0, sys.argv[1])
try:
    from hybridbatch.data.prepare import prepare
    from hybridbatch.data.settings import PrepareConfig
except ImportError:
    from hybridbatch.prepare import prepare
    from hybridbatch.config import PrepareConfig
with tempfile.TemporaryDirectory(dir=Path(sys.argv[2]).parent) as folder:
    config = PrepareConfig(
        sources=(sys.argv[2],), out=Path(folder) / "data", decontaminate=("none",), validation_share=0
    )
    started = time.process_time()
    prepare(config)
    print(0, time.process_time() - started)
"""


def main() -> None:
    """Write the tables and measure both versions in turn."""
    arguments = parser(__doc__ or "")
    arguments.add_argument("--rows", type=int, default=1_000_000)
    arguments.add_argument("--repeats", type=int, default=3)
    arguments.add_argument("--before", type=Path, help="checkout of an earlier version")
    arguments.add_argument("--kinds", default="jsonl,csv,tsv")
    arguments.add_argument("--parts", default="read,prepare")
    options = arguments.parse_args()
    versions = {"now": HERE} | ({"before": options.before} if options.before else {})
    figures: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as temporary:
        for kind in options.kinds.split(","):
            path = Path(temporary) / f"table.{kind}"
            write(path, options.rows)
            for part in options.parts.split(","):
                script = READ if part == "read" else PREPARE
                seconds: dict[str, list[float]] = {name: [] for name in versions}
                for _ in range(options.repeats):
                    for name, folder in versions.items():
                        seconds[name].append(run(script, folder, path, options.rows))
                figures[f"{part} {kind}"] = summary(seconds)
                print(part, kind, figures[f"{part} {kind}"], file=sys.stderr, flush=True)
            path.unlink()
    settings = {
        name: value for name, value in vars(options).items() if name not in ("out", "before")
    }
    finish("reading", settings, figures, options.out)


def write(path: Path, rows: int) -> None:
    """Write records in two languages, with texts of random words, most cells of CSV in quotes."""
    draw = random.Random(0)
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n", quoting=csv.QUOTE_NONNUMERIC)
        if path.suffix == ".csv":
            writer.writerow(COLUMNS)
        elif path.suffix == ".tsv":
            file.write("\t".join(COLUMNS) + "\n")
        for number in range(rows):
            query, passage = (
                " ".join(draw.choices(WORDS, k=7)),
                " ".join(draw.choices(WORDS, k=28)),
            )
            row = (f"r{number // 2}", ("en", "sw")[number % 2], query, passage)
            if path.suffix == ".csv":
                writer.writerow(row)
            elif path.suffix == ".tsv":
                file.write("\t".join(row) + "\n")
            else:
                file.write(json.dumps(dict(zip(COLUMNS, row, strict=True)), ensure_ascii=False))
                file.write("\n")


def run(script: str, checkout: Path, path: Path, rows: int) -> float:
    """CPU seconds of a script with one version, in a process of its own."""
    command = [sys.executable, "-c", script, str(checkout), str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=path.parent)
    read, seconds = done.stdout.split()
    assert int(read) in (0, rows), done.stdout
    return float(seconds)


def summary(seconds: dict[str, list[float]]) -> dict[str, Any]:
    """Median CPU seconds of each version, and their ratio."""
    medians = {f"{name}_cpu_seconds": statistics.median(all_) for name, all_ in seconds.items()}
    if "before" in seconds:
        ratio = medians["now_cpu_seconds"] / medians["before_cpu_seconds"]
        return {**medians, "now_to_before": round(ratio, 3)}
    return medians


if __name__ == "__main__":
    main()
