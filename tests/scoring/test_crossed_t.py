"""The crossed t test: its intervals and power, and its parts against textbook formulas.

test_error_rates.py has its error rates.
"""

import numpy as np
import pytest
from scipy import stats

from hybridbatch.common.errors import DataError
from hybridbatch.scoring.significance import (
    FEWEST_SEEDS,
    crossed_t,
    decide,
    equivalence_p,
)

QUESTIONS = 60
# standard deviations of seeds and of questions beside single cells of 1
WORLDS = [(0.0, 1.0), (0.1, 1.0), (0.3, 1.0), (1.0, 0.1), (0.5, 0.5)]


def worlds(seeds, of_seeds, of_questions, count, mean=0.0):
    """float [count, seeds, QUESTIONS] of differences whose true mean is `mean`."""
    rng = np.random.default_rng(seeds)
    shape = (count, seeds, QUESTIONS)
    return (
        mean
        + of_seeds * rng.standard_normal((count, seeds, 1))
        + of_questions * rng.standard_normal((count, 1, QUESTIONS))
        + rng.standard_normal(shape)
    )


@pytest.mark.parametrize("world", WORLDS)
def test_with_ten_seeds_the_interval_covers_the_truth_as_often_as_it_says(world):
    found = [crossed_t(each) for each in worlds(10, *world, 300, mean=0.4)]
    covered = np.mean([each.low <= 0.4 <= each.high for each in found])
    assert 0.91 <= covered <= 0.99


def test_a_test_over_questions_alone_would_err_where_seeds_differ():
    rejected = []
    for each in worlds(3, 0.5, 0.5, 150):
        rejected.append(stats.ttest_1samp(each.mean(axis=0), 0).pvalue < 0.05)
    assert np.mean(rejected) > 0.2


def test_a_difference_of_the_detectable_size_is_found_in_about_four_of_five_studies():
    size = np.median([crossed_t(each).detectable for each in worlds(8, 0.3, 0.5, 100)])
    found = [crossed_t(each).p < 0.05 for each in worlds(8, 0.3, 0.5, 300, mean=size)]
    assert 0.7 <= np.mean(found) <= 0.9


def test_equivalence_is_claimed_of_equal_runs_when_the_margin_is_wide():
    claims = [equivalence_p(crossed_t(each), 0.6) < 0.05 for each in worlds(8, 0.1, 0.3, 60)]
    assert np.mean(claims) > 0.95


def test_one_seed_is_a_t_test_over_questions_and_one_question_one_over_seeds():
    values = np.random.default_rng(0).normal(0.1, 1, 30)
    expected = stats.ttest_1samp(values, 0)
    for table in (values[None], values[:, None]):
        found = crossed_t(table)
        assert found.p == pytest.approx(expected.pvalue)
        assert (found.low, found.high) == pytest.approx(tuple(expected.confidence_interval()))
        assert found.degrees == 29


def test_with_few_seeds_the_degrees_of_freedom_are_the_seeds_own():
    for seeds in range(2, FEWEST_SEEDS):
        assert crossed_t(worlds(seeds, 0.1, 1.0, 1)[0]).degrees == seeds - 1
    many = crossed_t(worlds(FEWEST_SEEDS, 0.1, 1.0, 1)[0]).degrees
    assert FEWEST_SEEDS - 1 <= many <= FEWEST_SEEDS + QUESTIONS


def test_the_variance_is_that_of_a_balanced_crossed_design():
    """Against the expectation of the mean squares: between seeds + between questions - rest."""
    values = worlds(5, 0.5, 1.0, 1)[0]
    seeds, questions = values.shape
    of_seeds = questions * values.mean(axis=1).var(ddof=1)
    of_questions = seeds * values.mean(axis=0).var(ddof=1)
    total = ((values - values.mean()) ** 2).sum()
    rest = total - (seeds - 1) * of_seeds - (questions - 1) * of_questions
    rest /= (seeds - 1) * (questions - 1)
    expected = (of_seeds + of_questions - rest) / values.size
    assert crossed_t(values).error ** 2 == pytest.approx(expected)


def test_p_and_interval_never_contradict_each_other():
    for each in worlds(3, 0.3, 0.5, 200, mean=0.5):
        found = crossed_t(each)
        assert (found.p < 0.05) == (not found.low <= 0 <= found.high)


def test_what_a_contrast_allows_to_say():
    far = crossed_t(worlds(6, 0.1, 0.2, 1, mean=2.0)[0])
    near = crossed_t(worlds(6, 0.01, 0.1, 1)[0])
    assert decide(far, far.p, 0.5) == "difference"
    assert decide(near, 0.9, 0.5) == "equivalent"
    assert decide(near, 0.9, 1e-6) == "undecided"


def test_runs_that_are_equal_to_the_last_bit_are_equivalent():
    same = crossed_t(np.zeros((3, 5)))
    assert (same.p, same.detectable, decide(same, same.p, 0.01)) == (1.0, 0.0, "equivalent")


def test_too_little_and_a_margin_of_nothing_are_refused():
    with pytest.raises(DataError, match="two seeds or two questions"):
        crossed_t(np.zeros((1, 1)))
    with pytest.raises(DataError, match="margin"):
        equivalence_p(crossed_t(np.ones((2, 2))), 0.0)
