"""`make fuzz`: damaged files of every kind through the command that reads them.

    python -m tests.fuzz [--seconds 120] [--count N] [--seed 0] [--target NAME ...]

With the same seed and count the same inputs come. Exit 1 if an input breaks the rule of
`tests.fuzz.harness`; the first few are kept in --keep.
"""

import argparse
import contextlib
import importlib
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from hybridbatch.data.atlas.source import atlas
from tests.fuzz.harness import TOGETHER, Place
from tests.fuzz.targets import TARGETS

SHOWN = 30


class Over(BaseException):
    """There is no more time. Hypothesis catches exceptions, but not this."""


class Clock:
    """Until when there is time."""

    def __init__(self, seconds: float | None) -> None:
        self.end = time.monotonic() + seconds if seconds else float("inf")

    def over(self) -> bool:
        """Whether it is over."""
        return time.monotonic() > self.end


def attack(place: Place, count: int, number: int, clock: Clock, keep: Path) -> Counter[str]:
    """Run `count` damaged inputs of a target; the numbers of outcomes."""
    outcomes: Counter[str] = Counter()
    drawn: list[tuple[Path, bytes]] = []

    def run() -> None:
        for (file, content), wrong in zip(drawn, place.damaged(drawn), strict=True):
            outcomes["inputs"] += 1
            if wrong is not None:
                outcomes[f"{file.name}: {wrong}"] += 1
                name = f"{place.target.name}-{number}-{outcomes['inputs']}-{file.name}"
                (keep / name).write_bytes(content)
        drawn.clear()

    @seed(number)
    @settings(
        max_examples=count, deadline=None, database=None, phases=(Phase.generate,),
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @given(st.data())
    def one(data: st.DataObject) -> None:
        file = data.draw(st.sampled_from(place.files))
        way = data.draw(st.sampled_from(tuple(place.target.ways)))
        content = data.draw(way((place.good / file).read_bytes()))
        if clock.over():
            raise Over
        drawn.append((file, content))
        if len(drawn) == TOGETHER:
            run()

    with contextlib.suppress(Over):
        one()
    run()
    return outcomes


def main() -> int:
    """Attack every target; 1 if one breaks the rule."""
    started = time.monotonic()
    options = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    options.add_argument("--seconds", type=float, default=None, help="stop then (default: 120)")
    options.add_argument("--count", type=int, default=None, help="inputs, over all targets")
    options.add_argument("--seed", type=int, default=0)
    options.add_argument("--target", nargs="*", default=None, choices=[t.name for t in TARGETS])
    options.add_argument("--keep", type=Path, default=None, help="where bad inputs are written")
    given_ = options.parse_args()
    if given_.seconds is None and given_.count is None:
        given_.seconds = 120.0
    for module in ("torch", "pandas", "pyarrow.parquet", "matplotlib.figure", "hybridbatch.cli.app",
                   "hybridbatch.scoring.evaluate", "hybridbatch.data.prepare", "transformers",
                   "hybridbatch.training.train", "hybridbatch.scaling.report.report"):  # fmt: skip
        importlib.import_module(module)
    atlas()  # a report reads it, which takes seconds in every new process
    targets = [t for t in TARGETS if not given_.target or t.name in given_.target]
    weight = sum(target.weight for target in targets)
    keep = given_.keep or Path(tempfile.mkdtemp(prefix="hybridbatch-fuzz-"))
    keep.mkdir(parents=True, exist_ok=True)
    total, bad, left = 0, 0, sum(target.weight for target in targets)
    with tempfile.TemporaryDirectory() as temporary:
        for target in targets:
            place = Place(target, Path(temporary))
            begun = time.monotonic()
            count = 1_000_000
            if given_.count:
                count = max(1, round(given_.count * target.weight / weight))
            seconds = None
            if given_.seconds:  # making the files and loading the libraries counts too
                still = max(0.1, started + given_.seconds - begun)
                seconds = still * target.weight / left
            outcomes = attack(place, count, given_.seed, Clock(seconds), keep)
            left -= target.weight
            inputs, wrong = outcomes.pop("inputs", 0), sum(outcomes.values())
            total, bad = total + inputs, bad + wrong
            rate = inputs / (time.monotonic() - begun)
            print(
                f"{target.name}: {inputs} inputs, {wrong} break the rule ({rate:.0f}/s)",
                flush=True,
            )
            for what, times in outcomes.most_common(SHOWN):
                print(f"    {times} x {what}", flush=True)
    print(
        f"{total} inputs in {time.monotonic() - started:.0f} s: {bad} break the rule"
        + (f" (kept in {keep})" if bad else "")
    )
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
