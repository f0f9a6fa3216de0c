"""One line of progress that fits its terminal: count, rate, time left."""

import time
from collections import deque

from hybridbatch.common.sizes import duration

WINDOW = 30.0  # seconds over which the rate is taken
FULL = "━"
REST = "─"


class ProgressLine:
    """Counts units and describes the progress in a line of limited width."""

    def __init__(self, description: str, total: int, unit: str = "", done: int = 0) -> None:
        self.description, self.total, self.unit = description, total, unit
        self.done = done
        self.fields: dict[str, float | str] = {}
        self.samples = deque([(time.monotonic(), done)])

    def advance(self, amount: int = 1, **fields: float | str) -> None:
        """Count `amount` units more, and show `fields` at the end of the line."""
        self.done += amount
        self.fields.update(fields)
        now = time.monotonic()
        self.samples.append((now, self.done))
        while len(self.samples) > 2 and now - self.samples[1][0] > WINDOW:
            self.samples.popleft()

    @property
    def finished(self) -> bool:
        """Whether all units are done."""
        return self.done >= self.total

    def rate(self) -> float | None:
        """Recent units per second; None before the first unit."""
        (then, before), (now, after) = self.samples[0], self.samples[-1]
        return (after - before) / (now - then) if after > before and now > then else None

    def seconds_left(self) -> float | None:
        """Seconds to the end at the current rate."""
        rate = self.rate()
        return None if rate is None else max(0, self.total - self.done) / rate

    def text(self, width: int) -> str:
        """The line for a terminal of `width` columns; what fits least is left out first.

        Kept longest are the description, the count and the time left; then the rate, the bar, and
        the fields at the end.
        """
        head, count = self.description, f"{self.done:,}/{self.total:,}"
        left, rate = self._left(), self._rate()
        unit = f" {self.unit}" if self.unit else ""
        width = max(width - 1, 1)
        extra = "  ".join(f"{name} {_shown(value)}" for name, value in self.fields.items())
        for parts in (
            [head, "bar", f"{count}{unit}", rate, left, extra],
            [head, "bar", count, rate, left, extra],
            [head, "bar", count, rate, left],
            [head, count, rate, left],
            [head, count, left],
            [count, left],
            [count],
        ):
            parts = [part for part in parts if part]
            taken = sum(len(part) + 2 for part in parts if part != "bar") - 2
            room = width - taken - 2 if "bar" in parts else 0
            if taken <= width and ("bar" not in parts or room >= 8):
                return "  ".join(self._bar(min(room, 24)) if p == "bar" else p for p in parts)
        return count[:width]

    def plain(self) -> str:
        """The line for a log: without a bar, and with the share that is done."""
        unit = f" {self.unit}" if self.unit else ""
        share = f"{100 * self.done / self.total:.0f} %" if self.total else ""
        extra = ", ".join(f"{name} {_shown(value)}" for name, value in self.fields.items())
        parts = [
            f"{self.done:,} of {self.total:,}{unit}",
            share,
            self._rate(),
            self._left(),
            extra,
        ]
        return f"{self.description}: " + ", ".join(part for part in parts if part)

    def _bar(self, width: int) -> str:
        share = min(1.0, self.done / self.total) if self.total else 1.0
        full = int(width * share)
        return FULL * full + REST * (width - full)

    def _rate(self) -> str:
        rate = self.rate()
        if rate is None:
            return ""
        if rate >= 1:
            return f"{rate:,.1f}/s" if rate < 100 else f"{rate:,.0f}/s"
        one = _singular(self.unit)
        return f"{_amount(1 / rate)} s{f'/{one}' if one else ' each'}"

    def _left(self) -> str:
        if self.finished:
            return ""
        seconds = self.seconds_left()
        return "" if seconds is None else f"{duration(seconds)} left"


def _amount(value: float) -> str:
    return f"{value:,.1f}" if value < 100 else f"{value:,.0f}"


def _singular(unit: str) -> str:
    if unit.endswith("ies"):
        return f"{unit[:-3]}y"
    return unit.removesuffix("s")


def _shown(value: float | str) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
