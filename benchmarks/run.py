"""Run every benchmark, one after another, each into benchmarks/results; some minutes to an hour on two cores.

`run.py NAME...` runs some of them. Each is a script of its own (`bench_*.py --help`); the peer runs in the same process.
"""

import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
BENCHMARKS = {
    "train-mixed-fp32": ["bench_train.py", "--lengths", "mixed", "--precision", "fp32"],
    "train-mixed-bf16": ["bench_train.py", "--lengths", "mixed", "--precision", "bf16"],
    "train-equal-fp32": ["bench_train.py", "--lengths", "equal", "--precision", "fp32"],
    "train-equal-bf16": ["bench_train.py", "--lengths", "equal", "--precision", "bf16"],
    "scoring": ["bench_scoring.py"],
    "search": ["bench_search.py"],
    "store": ["bench_store.py"],
    "official-belebele": ["bench_official.py"],
    "sweep": ["bench_sweep.py"],
}


def main() -> None:
    """Run what is asked for, or all."""
    unknown = set(sys.argv[1:]) - set(BENCHMARKS)
    if unknown:
        sys.exit(f"unknown benchmark {', '.join(sorted(unknown))}; known: {', '.join(BENCHMARKS)}")
    for name in sys.argv[1:] or BENCHMARKS:
        script, *settings = BENCHMARKS[name]
        out = HERE / "results" / f"{name}.json"
        print(f"{name} -> {out}", flush=True)
        subprocess.run([sys.executable, HERE / script, *settings, "--out", out], check=True, stdout=subprocess.DEVNULL)


if __name__ == "__main__":
    main()
