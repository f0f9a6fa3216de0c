"""The best rate of matrix products of a device, for shares of it and for forecasts."""

import time
from functools import cache

import torch
from torch import nn

from hybridbatch.common.device import HALF
from hybridbatch.common.settings import ResolvedPrecision

SECONDS = 0.2  # spent on measuring
SIDE = {"cpu": 1024, "cuda": 8192}  # of the square matrices


@cache
def measured_peak(device: torch.device, precision: ResolvedPrecision, threads: int) -> float:
    """The best rate of a large matrix product, in operations per second.

    The measurement takes `SECONDS`, once.

    Args:
        threads: threads of this process; the rate of a CPU depends on them.
    """
    side = SIDE.get(device.type, 1024)
    dtype = HALF.get(precision, torch.float32)
    generator = torch.Generator(device).manual_seed(0)  # the global state stays as it is
    a, b = (
        torch.randn(side, side, device=device, generator=generator).to(dtype) for _ in range(2)
    )
    best, end = 0.0, time.perf_counter() + SECONDS
    with torch.no_grad():
        while not best or time.perf_counter() < end:  # the first is slow: it warms up
            started = time.perf_counter()
            nn.functional.linear(a, b)
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            best = max(best, 2 * side**3 / (time.perf_counter() - started))
    return best
