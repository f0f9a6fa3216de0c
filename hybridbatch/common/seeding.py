"""Named random streams: every draw is a function of the seed, its purpose and its coordinates."""

import zlib

import numpy as np


def stream(seed: int, purpose: str, *coordinates: int) -> np.random.Generator:
    """A generator for one purpose; adding a purpose or a coordinate never shifts another's draws.

    Args:
        seed: the run's seed, >= 0.
        purpose: what the draws are for, e.g. ``"kind"``.
        coordinates: non-negative integers that tell streams of one purpose apart (source, epoch
            ...).
    """
    return np.random.Generator(
        np.random.Philox(
            np.random.SeedSequence([seed, zlib.crc32(purpose.encode()), *coordinates])
        )
    )
