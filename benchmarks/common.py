"""What every benchmark shares: repeated timing, the machine's description, JSON output."""

import argparse
import json
import statistics
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from hybridbatch.common.files import write_json
from hybridbatch.common.provenance import hardware, versions


def parser(description: str) -> argparse.ArgumentParser:
    """An argument parser with --out."""
    made = argparse.ArgumentParser(
        description=description, formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    made.add_argument("--out", type=Path, help="JSON file to write (default: only print)")
    return made


def timed(run: Callable[[], Any]) -> dict[str, float]:
    """Wall and CPU seconds of one call."""
    wall, cpu = time.perf_counter(), time.process_time()
    run()
    return {
        "wall_seconds": time.perf_counter() - wall,
        "cpu_seconds": time.process_time() - cpu,
    }


def spread(values: list[float]) -> dict[str, float]:
    """Minimum, median and maximum."""
    return {"min": min(values), "median": statistics.median(values), "max": max(values)}


def finish(
    name: str,
    settings: dict[str, Any],
    figures: dict[str, Any],
    out: Path | None,
    device: str = "cpu",
) -> None:
    """Print the result and write it, with the machine named."""
    result = {
        "schema_version": 1,
        "kind": "benchmark",
        "name": name,
        "date": datetime.now(UTC).date().isoformat(),
        "settings": settings,
        "versions": versions(),
        "hardware": hardware(device),
        "figures": figures,
    }
    print(json.dumps(result, indent=1))
    if out:
        write_json(out, result)
