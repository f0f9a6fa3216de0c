"""Run benchmarks, one after another, each into benchmarks/results; an hour or two on two cores.

These are the ones that need no data, programs or models beside the package and its peers, at sizes
that a small machine can do. The other files in benchmarks/results came from other scripts and
arguments; each names its arguments in `settings`. A file of other settings is not overwritten:
NAME.new.json is then kept beside it.

`run.py NAME...` runs some of them. Each is a script of its own (`bench_*.py --help`); the peer runs
in the same call.
"""

import json
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
BENCHMARKS = {
    "train": ["bench_train.py", "--parts", "speed,overhead", "--steps", "4"],
    "train-cached": ["bench_train.py", "--parts", "cached"],
    "train-memory": ["bench_train.py", "--parts", "memory"],
    "train-largest": ["bench_train.py", "--parts", "largest", "--micro-tokens", "0", "14309"],
    "train-scaling": ["bench_train.py", "--parts", "scaling"],
    "gpu-estimate": ["gpu_estimate.py"],
    "curve": ["bench_curve.py"],
    "encode": ["bench_encode.py"],
    "scoring": ["bench_scoring.py", "--trec-eval-pairs", "8"],
    "search": ["bench_search.py"],
    "indexes": ["bench_indexes.py", "--sizes", "10000"],
    "store": ["bench_store.py"],
    "official-belebele": ["bench_official.py"],
    "sweep": ["bench_sweep.py"],
    "verification": ["bench_verification.py"],
    "open": ["bench_open.py"],
    "reading": ["bench_reading.py", "--parts", "read"],
    "reading-prepare": ["bench_reading.py", "--parts", "prepare", "--kinds", "jsonl,csv"],
}


def main() -> None:
    """Run what is asked for, or all."""
    unknown = set(sys.argv[1:]) - set(BENCHMARKS)
    if unknown:
        sys.exit(
            f"unknown benchmark {', '.join(sorted(unknown))}; known: {', '.join(BENCHMARKS)}"
        )
    for name in sys.argv[1:] or BENCHMARKS:
        script, *settings = BENCHMARKS[name]
        new = HERE / "results" / f"{name}.new.json"
        print(f"{name} ...", flush=True)
        subprocess.run(
            [sys.executable, HERE / script, *settings, "--out", new],
            check=True,
            stdout=subprocess.DEVNULL,
        )
        print(f"{name} -> {settled(new, HERE / 'results' / f'{name}.json')}", flush=True)


def settled(new: Path, out: Path) -> Path:
    """Where a result lies in the end: at `out`, unless a file of other settings is there."""
    if out.exists():
        before, after = (json.loads(path.read_text())["settings"] for path in (out, new))
        if before != after:
            return new
    return new.replace(out)


if __name__ == "__main__":
    main()
