"""Laws recover what made their data, say how sure they are, and refuse too little."""

import numpy as np
import pytest
from scipy import stats

from hybridbatch.common.errors import DataError
from hybridbatch.scaling.fits import TooFewSizes, contrastive_entropy, fit_law
from hybridbatch.scaling.mix_response import (
    bootstrap_means,
    break_even,
    estimate,
    gain_trend,
    mix_trend,
    optimum_mix,
)

SIZES = np.repeat(100 * 2.0 ** np.arange(6), 3)  # six sizes, three seeds


def law(x, E=0.2, A=3.0, b=0.4):
    return E + A * x**-b


def test_a_law_without_noise_is_found_exactly():
    fitted = fit_law(SIZES, law(SIZES), resamples=20)
    np.testing.assert_allclose([fitted.E, *fitted.A, *fitted.b], [0.2, 3.0, 0.4], rtol=1e-4)
    np.testing.assert_allclose(
        fitted.predict([50.0, 1e6]), law(np.array([50.0, 1e6])), rtol=1e-4
    )
    assert fitted.extrapolation_error < 1e-4
    assert fitted.residual < 1e-6


def test_a_law_over_two_axes_without_noise_is_found_exactly():
    x, y = (
        grid.ravel() for grid in np.meshgrid(100 * 2.0 ** np.arange(5), [2.0, 4, 8, 16, 32])
    )
    fitted = fit_law(np.column_stack([x, y]), 0.1 + 3 * x**-0.5 + 0.4 * y**-0.8, resamples=5)
    np.testing.assert_allclose(
        [fitted.E, *fitted.A, *fitted.b], [0.1, 3, 0.4, 0.5, 0.8], rtol=1e-3
    )
    assert fitted.extrapolation_error < 1e-3


def test_one_wild_run_moves_a_law_little():
    rng = np.random.default_rng(0)
    values = law(SIZES) + 0.002 * rng.normal(size=len(SIZES))
    wild = values.copy()
    wild[7] += 0.3
    ordinary, robust = (fit_law(SIZES, y, resamples=5) for y in (values, wild))
    x = np.array([100.0, 1000.0, 3200.0])
    squares = np.abs(np.polyval(np.polyfit(np.log(SIZES), wild, 2), np.log(x)) - law(x)).max()
    moved = np.abs(robust.predict(x) - ordinary.predict(x)).max()
    assert moved < 0.01 < squares


def test_a_curve_that_rises_with_size_is_told_by_a_negative_amplitude():
    assert fit_law(SIZES, 0.5 - 2.0 * SIZES**-0.5, resamples=5).A[0] < 0


@pytest.mark.parametrize("sizes", [[100, 200, 400, 800], [100] * 12, [1, 1, 2, 2, 3, 3, 4, 4]])
def test_fewer_than_five_sizes_are_refused_in_words(sizes):
    with pytest.raises(TooFewSizes, match="measure at least 5"):
        fit_law(sizes, np.ones(len(sizes)))


@pytest.mark.parametrize(
    ("sizes", "values"),
    [
        ([0, 1, 2, 3, 4], np.ones(5)),
        ([1, 2, 3, 4, 5], [1, 2, np.nan, 4, 5]),
        (range(1, 7), [1.0]),
    ],
)
def test_what_is_no_measurement_is_refused(sizes, values):
    with pytest.raises(DataError):
        fit_law(list(sizes), values)


def test_the_choice_of_questions_widens_the_interval():
    rng = np.random.default_rng(1)
    runs = law(SIZES) + 0.002 * rng.normal(size=len(SIZES))
    # the same easy and hard questions in every run
    per_question = runs[:, None] + 0.3 * rng.normal(size=(1, 40))
    per_question += runs.mean() - per_question.mean()
    narrow, wide = fit_law(SIZES, per_question.mean(axis=1)), fit_law(SIZES, per_question)
    assert np.ptp(wide.band([3200.0])) > 5 * np.ptp(narrow.band([3200.0]))


def test_the_same_seed_gives_the_same_intervals():
    values = law(SIZES) + 0.01 * np.random.default_rng(2).normal(size=len(SIZES))
    one, two, other = (fit_law(SIZES, values, resamples=20, seed=seed) for seed in (13, 13, 14))
    assert one.b_intervals == two.b_intervals != other.b_intervals


@pytest.mark.slow
@pytest.mark.parametrize(
    ("sizes", "seeds", "noise", "heavy"),
    [(6, 3, 0.01, False), (5, 3, 0.005, False), (6, 3, 0.01, True)],
)
def test_intervals_hold_the_truth_in_nine_of_ten_simulations(sizes, seeds, noise, heavy):
    x = np.repeat(100 * 2.0 ** np.arange(sizes), seeds)
    held = np.zeros(3)
    for simulation in range(200):
        rng = np.random.default_rng([simulation, sizes])
        errors = rng.standard_t(3, size=len(x)) if heavy else rng.normal(size=len(x))
        fitted = fit_law(x, law(x) + noise * errors, resamples=200, seed=simulation)
        intervals = [fitted.E_interval, *fitted.A_intervals, *fitted.b_intervals]
        held += [
            low <= true <= high
            for (low, high), true in zip(intervals, (0.2, 3.0, 0.4), strict=True)
        ]
    assert (held / 200 >= 0.9).all(), held / 200


def test_contrastive_entropy_of_equal_scores_is_the_log_of_their_number():
    np.testing.assert_allclose(
        contrastive_entropy(np.zeros(3), np.zeros((3, 256))), np.log(257)
    )


def test_contrastive_entropy_is_the_formula():
    rng = np.random.default_rng(3)
    positive, negatives = rng.normal(size=5), rng.normal(size=(5, 7))
    top = np.exp(positive / 0.5)
    expected = -np.log(top / (top + np.exp(negatives / 0.5).sum(axis=1)))
    np.testing.assert_allclose(
        contrastive_entropy(positive, negatives, temperature=0.5), expected
    )


def test_contrastive_entropy_of_large_scores_is_finite():
    np.testing.assert_allclose(
        contrastive_entropy(np.array([1.0]), np.array([[-1.0]]), 1e-3), 0, atol=1e-300
    )


def test_the_interval_of_a_mean_over_questions_is_that_of_its_standard_error():
    values = np.random.default_rng(4).normal(2.0, 1.0, size=(1, 400))
    low, high = estimate(values, seed=1).interval
    expected = stats.t.interval(0.95, 399, values.mean(), values.std(ddof=1) / 20)
    np.testing.assert_allclose([low, high], expected, atol=0.02)


def spreads(shape, trial):
    """Noise of seeds whose standard deviation differs from cell to cell, and what a seed adds to
    all cells.
    """
    rng = np.random.default_rng([7, trial])
    scale = np.array([0.2, 1, 5])[: shape[0]].reshape(-1, *[1] * (len(shape) - 1))
    return scale * rng.normal(size=shape) + 10 * rng.normal(size=(1, *shape[1:]))


@pytest.mark.parametrize("seeds", [2, 3, 5])
def test_intervals_over_seeds_hold_the_truth_whatever_the_spread_of_other_cells(seeds):
    held = np.zeros(3)
    for trial in range(400):
        draws = bootstrap_means(spreads((3, seeds, 1), trial), seed=trial, resamples=400)
        differences = draws[:, [0, 1, 2]] - draws[:, [1, 2, 0]]
        low, high = np.quantile(differences, [0.025, 0.975], axis=0)
        held += (low <= 0) & (high >= 0)
    assert ((held / 400 >= 0.92) & (held / 400 <= 0.98)).all(), held / 400


def test_an_interval_over_seeds_is_that_of_the_t_test():
    values = np.random.default_rng(3).normal(size=(4, 5, 1))
    draws = bootstrap_means(values, seed=1, resamples=200_000)
    for cell in range(4):
        own = values[cell, :, 0] - values[(cell + 1) % 4, :, 0]
        expected = stats.t.interval(0.95, 4, own.mean(), own.std(ddof=1) / np.sqrt(5))
        found = np.quantile(draws[:, cell] - draws[:, (cell + 1) % 4], [0.025, 0.975])
        np.testing.assert_allclose(found, expected, atol=0.03)


def test_a_best_mix_that_stays_is_said_to_move_as_seldom_as_the_level_says():
    """The simulated error rate of the test of a moving best mix, with three seeds."""
    mixes, sizes = np.linspace(0, 1, 5), np.array([100, 200, 400])
    hump = 0.8 - 0.2 * (mixes - 0.5) ** 2
    wrong = 0
    for trial in range(300):
        rng = np.random.default_rng([11, trial])
        noise = 0.004 * rng.normal(size=(5, 3, 3, 1)) + 0.02 * rng.normal(size=(1, 3, 3, 1))
        found = mix_trend(
            mixes, sizes, hump[:, None, None, None] + noise, seed=trial, resamples=400
        )
        wrong += found.p < 0.05
    assert wrong / 300 <= 0.08


def test_the_optimum_of_a_hump_is_its_top():
    mixes = np.array([0, 0.25, 0.5, 0.75, 1])
    hump = 0.8 - (mixes - 0.6) ** 2
    noise = 0.005 * np.random.default_rng(6).normal(size=(5, 4, 1))
    best = optimum_mix(mixes, hump[:, None, None] + noise, seed=1)
    assert best.mix.interval[0] < 0.6 < best.mix.interval[1]
    np.testing.assert_allclose(best.mix.value, 0.6, atol=0.03)
    np.testing.assert_allclose(best.gain.value, 0.8 - 0.01 - (0.8 - 0.16), atol=0.02)
    lower = optimum_mix(mixes, -hump[:, None, None] - noise, seed=1, lower_is_better=True)
    assert lower.mix == best.mix


def test_a_response_without_inner_top_has_its_optimum_at_an_end():
    assert (
        optimum_mix([0, 0.5, 1], np.array([0.1, 0.3, 0.9])[:, None, None], seed=1).mix.value
        == 1
    )


@pytest.mark.parametrize("mixes", [[0, 1], [0.25, 0.5, 0.75], [0, 0.5]])
def test_an_optimum_needs_both_pure_strategies_and_something_between(mixes):
    with pytest.raises(DataError):
        optimum_mix(mixes, np.zeros((len(mixes), 1, 1)), seed=1)


def test_break_even_is_interpolated_over_the_logarithm():
    found = break_even([100, 10_000], np.array([-1.0, 1.0])[:, None, None], seed=1)
    np.testing.assert_allclose(found.size, 1000)


def test_break_even_outside_the_measured_sizes_is_not_invented():
    ahead = break_even([1, 2], np.array([1.0, 2.0])[:, None, None], seed=1)
    behind = break_even([1, 2], np.array([1.0, -2.0])[:, None, None], seed=1)
    assert ahead.size is None
    assert ahead.always_ahead
    assert (behind.size, behind.always_ahead, behind.reached) == (None, False, 0)


def test_a_law_over_two_axes_is_found_on_a_cross_of_them():
    """One axis at a time around a centre: a grid in the form of a star."""
    x = np.array(
        [[size, 8.0] for size in 100 * 2.0 ** np.arange(6)]
        + [[800.0, n] for n in (1.0, 2, 4, 16, 32)]
    )
    fitted = fit_law(x, 0.1 + 3 * x[:, 0] ** -0.5 + 0.4 * x[:, 1] ** -0.8, resamples=5)
    np.testing.assert_allclose(
        [fitted.E, *fitted.A, *fitted.b], [0.1, 3, 0.4, 0.5, 0.8], rtol=1e-2
    )


def test_the_trend_of_a_difference_is_its_slope_per_doubling():
    rng = np.random.default_rng(9)
    sizes = np.array([100.0, 200, 800])
    line = (0.01 * np.log2(sizes) - 0.05)[:, None, None]
    rising = gain_trend(
        sizes,
        line + 0.02 * rng.normal(size=(1, 1, 300)) + 0.001 * rng.normal(size=(3, 6, 1)),
    )
    assert rising.value == pytest.approx(
        stats.linregress(np.log2(sizes), line.ravel()).slope, abs=2e-3
    )
    assert rising.interval[0] < 0.01 < rising.interval[1]
    assert rising.p < 0.01
    flat = gain_trend(sizes, 0.02 * rng.normal(size=(3, 3, 300)))
    assert flat.p > 0.05
    assert flat.interval[0] < 0 < flat.interval[1]
    assert gain_trend(sizes, line).p is None


def test_a_best_mix_that_moves_is_followed():
    mixes, sizes = np.linspace(0, 1, 5), np.array([100, 200, 400])
    tops = np.array([0.3, 0.4, 0.5])
    humps = 0.8 - (mixes[:, None] - tops) ** 2
    noise = 0.002 * np.random.default_rng(10).normal(size=(5, 3, 3, 1))
    moved = mix_trend(mixes, sizes, humps[:, :, None, None] + noise, seed=1)
    assert moved.value == pytest.approx(0.1, abs=0.02)
    assert moved.interval[0] > 0
    assert moved.p < 0.05
    lower = mix_trend(
        mixes, sizes, -humps[:, :, None, None] - noise, seed=1, lower_is_better=True
    )
    assert lower == moved
