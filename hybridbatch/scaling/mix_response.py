"""The best mix, the break-even size and trends, interpolated between the points of a grid. Pure.

Values are arrays ``[..., S, Q]`` over seeds and question clusters. With Q = 1 (only means are
known), intervals cover the seeds alone. With S = 1, they cover the questions alone. With Q = 1 and
S = 1, they are points.
"""

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from hybridbatch.common.errors import DataError
from hybridbatch.common.seeding import stream
from hybridbatch.scoring.significance import crossed_t

Interval = tuple[float, float]
RESAMPLES = 2000


@dataclass(frozen=True)
class Estimate:
    """A mean with its bootstrap interval."""

    value: float
    interval: Interval


@dataclass(frozen=True)
class Optimum:
    """The mix with the best response, and the gain over the better of the two pure strategies."""

    mix: Estimate
    # in units of the metric, at the best measured inner mix; this choice makes it slightly too high
    gain: Estimate


@dataclass(frozen=True)
class BreakEven:
    """The size at which a difference changes from behind to ahead.

    `size` is None if there is no such change inside the measured range.
    """

    size: float | None
    interval: tuple[
        float, float
    ]  # ends may be 0 (ahead from the start) or infinity (never ahead)
    always_ahead: bool
    reached: float  # share of the resamples that are ahead at the largest size


@dataclass(frozen=True)
class Trend:
    """A change per doubling of scale."""

    value: float
    interval: Interval
    p: float | None  # two-sided; None if there is no test


def bootstrap_means(values: Any, *, seed: int, resamples: int = RESAMPLES) -> np.ndarray:
    """Means over seeds and questions in repetitions of the study, [resamples, ...].

    Questions are resampled with replacement, and all cells get the same questions. A few seeds are
    too few to resample, so the noise of seeds is drawn: a random combination of the seeds'
    deviations from the mean, with the scale of Student's t. Every difference between cells then has
    its own standard deviation over the seeds and its own degrees of freedom, seeds - 1. Nothing is
    pooled over cells, and what a seed adds to all cells alike goes out of their differences.
    """
    array = np.asarray(values, dtype=float)
    *cells, seeds, questions = array.shape
    means = array.mean(axis=(-2, -1))
    total = np.broadcast_to(means, (resamples, *cells)).copy()
    if questions > 1:
        weights = _question_weights(seed, questions, resamples)
        deviation = array.mean(axis=-2) - means[..., None]
        total += np.tensordot(weights, deviation, axes=([1], [-1]))
    if seeds > 1:
        deviation = array.mean(axis=-1) - means[..., None]  # [..., S]
        total += np.tensordot(
            _seed_weights(seed, seeds, resamples), deviation, axes=([1], [-1])
        )
    return total


def _seed_weights(seed: int, seeds: int, resamples: int) -> np.ndarray:
    """[resamples, S]: weights whose product with the seeds' deviations is the error of their mean.

    The product has the distribution s / sqrt(S) times Student's t with S - 1 degrees of freedom,
    where s is the standard deviation over seeds.
    """
    rng = stream(seed, "bootstrap of seeds")
    free = seeds - 1
    scale = np.sqrt(free / rng.chisquare(free, size=(resamples, 1)))
    normal: np.ndarray = rng.standard_normal((resamples, seeds))
    return normal * scale / np.sqrt(seeds * free)


@lru_cache(maxsize=4)
def _question_weights(seed: int, questions: int, resamples: int) -> np.ndarray:
    """The shares of the questions in each resample, [resamples, questions]."""
    rng = stream(seed, "bootstrap of questions")
    return (
        rng.multinomial(questions, np.full(questions, 1 / questions), size=resamples)
        / questions
    )


def estimate(
    values: Any, *, seed: int, level: float = 0.95, resamples: int = RESAMPLES
) -> Estimate:
    """The mean of ``[S, Q]`` with its interval."""
    return _estimate(
        float(np.mean(values)), bootstrap_means(values, seed=seed, resamples=resamples), level
    )


def optimum_mix(
    mixes: Any,
    values: Any,
    *,
    seed: int,
    lower_is_better: bool = False,
    level: float = 0.95,
    resamples: int = RESAMPLES,
) -> Optimum:
    """The best mix by a quadratic through the responses, with intervals over seeds and questions.

    A quadratic fits, because the response has one hump and the grids are coarse. If the quadratic
    opens the wrong way or peaks outside the measured mixes, the best measured mix is used.

    Args:
        mixes: [M], three or more, ascending, from pure cross-lingual (0) to pure monolingual (1).
        values: [M, S, Q].
        seed: of the bootstrap.
        lower_is_better: for losses and rank distance.
        level: of the intervals.
        resamples: of the bootstrap.

    Raises: DataError for fewer than three mixes, or no pure strategy at either end.
    """
    x = np.asarray(mixes, dtype=float)
    if len(x) < 3 or x[0] != 0 or x[-1] != 1:
        raise DataError(
            "an optimum mix needs mixes 0, 1 and at least one between, not"
            f" {', '.join(map(str, x))}"
        )
    sign = -1.0 if lower_is_better else 1.0
    response = sign * np.asarray(values, dtype=float)
    means = response.mean(axis=(-2, -1))
    draws = bootstrap_means(response, seed=seed, resamples=resamples)
    return Optimum(
        mix=_estimate(float(_peak(x, means[None])[0]), _peak(x, draws), level),
        gain=_estimate(float(_gain(means[None])[0]), _gain(draws), level),
    )


def break_even(
    sizes: Any, differences: Any, *, seed: int, level: float = 0.95, resamples: int = RESAMPLES
) -> BreakEven:
    """The size from which a difference stays above 0, by interpolation over the logarithm of size.

    Nothing is extrapolated. The result tells if the crossing is below the smallest size or beyond
    the largest size.

    Args:
        sizes: [N] ascending, > 0.
        differences: [N, S, Q], above 0 where the strategy of interest is ahead.
        seed: of the bootstrap.
        level: of the interval.
        resamples: of the bootstrap.
    """
    x = np.log(np.asarray(sizes, dtype=float))
    array = np.asarray(differences, dtype=float)
    best = float(_crossing(x, array.mean(axis=(-2, -1))))
    draws = np.array(
        [_crossing(x, row) for row in bootstrap_means(array, seed=seed, resamples=resamples)]
    )
    low, high = np.quantile(
        np.exp(draws), [(1 - level) / 2, (1 + level) / 2], method="inverted_cdf"
    )
    return BreakEven(
        size=float(np.exp(best)) if np.isfinite(best) else None,
        interval=(float(low), float(high)),
        always_ahead=best == -np.inf,
        reached=float(np.mean(draws < np.inf)),
    )


def gain_trend(sizes: Any, differences: Any, *, level: float = 0.95) -> Trend:
    """The growth of a difference per doubling of size: the interaction of strategy and scale.

    Least squares give the slope over the logarithm of size for every seed and question.
    `significance.crossed_t` tests the mean of these slopes. If only means are known, there is an
    interval but no p value.

    Args:
        sizes: [N] two or more, > 0.
        differences: [N, S, Q].
        level: of the interval.
    """
    array = np.asarray(differences, dtype=float)
    slopes = np.tensordot(_slope_weights(sizes), array, axes=1)  # [S, Q]
    if slopes.size < 2:
        only = float(slopes.mean())
        return Trend(only, (only, only), None)
    found = crossed_t(slopes, level=level)
    tested = slopes.shape[1] > 1
    return Trend(found.mean, (found.low, found.high), found.p if tested else None)


def mix_trend(
    mixes: Any,
    sizes: Any,
    values: Any,
    *,
    seed: int,
    lower_is_better: bool = False,
    level: float = 0.95,
    resamples: int = RESAMPLES,
) -> Trend:
    """The move of the best mix (as in `optimum_mix`) per doubling of size.

    p is the smallest level at which the bootstrap interval excludes 0.

    Args:
        mixes: [M], three or more, ascending, from 0 to 1.
        sizes: [N] two or more, > 0.
        values: [M, N, S, Q].
        seed, lower_is_better, level, resamples: as in `optimum_mix`.
    """
    x, weights = np.asarray(mixes, dtype=float), _slope_weights(sizes)
    response = (-1.0 if lower_is_better else 1.0) * np.asarray(values, dtype=float)
    draws = bootstrap_means(response, seed=seed, resamples=resamples)  # [R, M, N]
    moved = (
        np.stack([_peak(x, draws[:, :, n]) for n in range(draws.shape[2])], axis=1) @ weights
    )
    best = float(weights @ _peak(x, response.mean(axis=(-2, -1)).T))
    found = _estimate(best, moved, level)
    tail = min(float(np.mean(moved <= 0)), float(np.mean(moved >= 0)))
    return Trend(
        best,
        found.interval,
        min(1.0, 2 * max(tail, 1 / len(moved))) if np.ptp(draws, axis=0).any() else None,
    )


def _slope_weights(sizes: Any) -> np.ndarray:
    """[N] weights whose product with values is their least-squares slope per doubling of size."""
    logs = np.log2(np.asarray(sizes, dtype=float))
    centred = logs - logs.mean()
    return centred / (centred @ centred)


def _crossing(log_sizes: np.ndarray, difference: np.ndarray) -> float:
    """The log size of the last change from behind to ahead.

    It is -inf if the difference is always ahead, and inf if it is behind at the largest size.
    """
    behind = np.flatnonzero(difference <= 0)
    if len(behind) == 0:
        return -np.inf
    last = behind[-1]
    if last == len(difference) - 1:
        return np.inf
    share = -difference[last] / (difference[last + 1] - difference[last])
    return float(log_sizes[last] + share * (log_sizes[last + 1] - log_sizes[last]))


def _peak(mixes: np.ndarray, responses: np.ndarray) -> np.ndarray:
    """The peak of the quadratic through each row of [R, M].

    If the quadratic has no inner peak, the result is the best measured mix.
    """
    curvature, slope, _ = np.polyfit(mixes, responses.T, 2)
    with np.errstate(divide="ignore", invalid="ignore"):
        vertex = -slope / (2 * curvature)
    inner = (curvature < 0) & (vertex > mixes[0]) & (vertex < mixes[-1])
    return np.where(inner, vertex, mixes[np.argmax(responses, axis=1)])


def _gain(responses: np.ndarray) -> np.ndarray:
    """The best inner mix minus the better end, for each row of [R, M]."""
    return responses[:, 1:-1].max(axis=1) - np.maximum(responses[:, 0], responses[:, -1])


def _estimate(value: float, draws: np.ndarray, level: float) -> Estimate:
    low, high = np.quantile(draws, [(1 - level) / 2, (1 + level) / 2])
    return Estimate(value, (float(low), float(high)))
