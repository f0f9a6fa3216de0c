"""Tests and intervals against scipy, their calibration on correlated null data, and verdicts."""

import numpy as np
import pytest
from scipy import stats

from hybridbatch.common.errors import DataError
from hybridbatch.scoring.significance import (
    bootstrap_interval,
    cohen_d,
    compare,
    holm,
    randomisation_p,
    verdict,
)


def column(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """One value per cluster, one setting."""
    return np.asarray(values, dtype=float)[:, None], np.ones((len(values), 1))


def clustered(rng: np.random.Generator, questions: int, languages: int, spread: float = 1.0):
    """Differences of a null comparison: each question's values share most of their variation."""
    own = spread * rng.standard_normal((questions, 1))
    values = (own + 0.3 * rng.standard_normal((questions, languages))).ravel()
    return values, np.repeat([f"q{i}" for i in range(questions)], languages)


@pytest.mark.parametrize("seed", range(5))
def test_few_clusters_are_tested_exactly_as_by_scipy(seed: int) -> None:
    differences = np.random.default_rng(seed).normal(0.4, 1, 9)
    sums, _ = column(differences)
    exact = stats.permutation_test(
        (differences,), np.mean, permutation_type="samples", n_resamples=np.inf
    )
    assert randomisation_p(sums, seed=1)[0] == pytest.approx(exact.pvalue, abs=1e-12)


def test_random_signs_come_near_the_exact_test() -> None:
    sums, _ = column(np.random.default_rng(3).normal(0.5, 1, 12))
    exact, drawn = (
        randomisation_p(sums, seed=1, draws=4096)[0],
        randomisation_p(sums, seed=1, draws=4095)[0],
    )
    assert drawn == pytest.approx(exact, abs=4 * np.sqrt(exact * (1 - exact) / 4095))
    assert drawn != exact


@pytest.mark.parametrize("method", ["percentile", "bca"])
def test_bootstrap_intervals_come_near_scipys(method: str) -> None:
    values = np.random.default_rng(4).exponential(
        1, 60
    )  # skewed, so that the two methods differ
    sums, counts = column(values)
    low, high = bootstrap_interval(sums, counts, seed=1, draws=20_000, method=method)
    reference = stats.bootstrap(
        (values,),
        np.mean,
        n_resamples=20_000,
        method=method,
        random_state=np.random.default_rng(0),
    ).confidence_interval
    tolerance = 0.03 * (reference.high - reference.low)
    assert low[0] == pytest.approx(reference.low, abs=tolerance)
    assert high[0] == pytest.approx(reference.high, abs=tolerance)


@pytest.mark.parametrize(
    "values", [[0, 0, 0, 0, 0, 0, 0, 0.25], [0.5, 0, 0, -0.25, 0, 0.5, 0, 0]]
)
def test_the_interval_of_equal_values_is_turned_around_with_the_runs(values: list) -> None:
    sums, counts = column(np.array(values))
    low, high = bootstrap_interval(sums, counts, seed=1)
    other_low, other_high = bootstrap_interval(-sums, counts, seed=1)
    assert (low[0], high[0]) == pytest.approx((-other_high[0], -other_low[0]), abs=1e-12)
    reference = stats.bootstrap(
        (np.array(values),), np.mean, n_resamples=20_000, random_state=np.random.default_rng(0)
    ).confidence_interval
    assert (low[0], high[0]) == pytest.approx((reference.low, reference.high), abs=0.04)


def test_the_bootstrap_of_unequal_clusters_draws_whole_questions() -> None:
    """Against a plain loop that concatenates the values of the drawn questions."""
    rng = np.random.default_rng(5)
    clusters = [rng.normal(rng.normal(), 0.2, size) for size in rng.integers(1, 9, 40)]
    sums, counts = (
        np.array([[c.sum()] for c in clusters]),
        np.array([[float(len(c))] for c in clusters]),
    )
    low, high = bootstrap_interval(sums, counts, seed=1, draws=8000, method="percentile")
    means = [
        np.concatenate([clusters[i] for i in rng.integers(0, 40, 40)]).mean()
        for _ in range(8000)
    ]
    expected = np.quantile(means, [0.025, 0.975])
    assert [low[0], high[0]] == pytest.approx(expected, abs=0.05 * (expected[1] - expected[0]))


def test_false_positives_stay_near_alpha_where_questions_are_clusters_and_explode_where_not() -> (
    None
):
    rng = np.random.default_rng(6)
    clusters, rows, covered = [], [], []
    for _ in range(300):
        values, questions = clustered(rng, 30, 11)
        by_question = compare(
            values, np.zeros_like(values), questions, ["all"] * len(values), seed=1, draws=400
        )[0]
        clusters.append(by_question.p < 0.05)
        covered.append(by_question.low <= 0 <= by_question.high)
        rows.append(randomisation_p(values[:, None], seed=1, draws=400)[0] < 0.05)
    assert 0.02 <= np.mean(clusters) <= 0.09  # 0.05 +- 3 standard errors of 300 trials
    assert 0.88 <= np.mean(covered) <= 0.98
    assert np.mean(rows) > 0.3


def test_a_real_difference_is_found_and_settings_come_in_order() -> None:
    rng = np.random.default_rng(7)
    noise, questions = clustered(rng, 200, 3, spread=0.1)
    noise -= noise.mean()
    base = rng.random(len(noise))
    values = np.concatenate([base + noise, base + noise + 0.05])
    found = compare(
        values,
        np.tile(base, 2),
        np.tile(questions, 2),
        ["pool"] * len(base) + ["mono"] * len(base),
        seed=2,
        draws=2000,
    )
    assert [one.setting for one in found] == ["pool", "mono"]
    null, real = found
    assert (null.questions, null.values) == (200, 600)
    assert real.difference == pytest.approx(null.difference + 0.05)
    assert real.low < real.difference < real.high
    assert null.p_holm > 0.05 > real.p_holm >= real.p
    assert real.mean_a - real.mean_b == pytest.approx(real.difference)


def test_many_settings_are_treated_as_each_alone() -> None:
    rng = np.random.default_rng(11)
    sums, counts = rng.normal(0, 1, (20, 600)), rng.integers(0, 3, (20, 600)) + 1.0
    low, high = bootstrap_interval(sums, counts, seed=1, draws=300)
    for number in (0, 511, 512, 599):
        alone = bootstrap_interval(sums[:, [number]], counts[:, [number]], seed=1, draws=300)
        assert [low[number], high[number]] == pytest.approx([alone[0][0], alone[1][0]])


def test_the_same_seed_gives_the_same_comparison_whatever_the_order_of_rows() -> None:
    values, questions = clustered(np.random.default_rng(8), 25, 4)
    settings = np.array(["a", "b"] * 50)
    shuffled = np.random.default_rng(9).permutation(100)
    arguments = (values, np.zeros(100), questions, settings)
    one = compare(*arguments, seed=3, draws=500)
    other = compare(*(argument[shuffled] for argument in arguments), seed=3, draws=500)
    assert {found.setting: found.p for found in one} == {
        found.setting: found.p for found in other
    }
    again = compare(*arguments, seed=3, draws=500)
    assert one == again
    assert [found.p for found in compare(*arguments, seed=4, draws=500)] != [
        found.p for found in one
    ]


def test_holm_by_hand() -> None:
    assert holm(np.array([0.03, 0.01, 0.04, 0.005])) == pytest.approx([0.06, 0.03, 0.06, 0.02])
    assert holm(np.array([0.5, 0.9])) == pytest.approx([1.0, 1.0])


def test_effect_size_is_the_mean_in_standard_deviations() -> None:
    assert cohen_d(np.array([1.0, 2.0, 3.0])) == pytest.approx(2.0)
    assert cohen_d(np.array([0.5, 0.5])) is None
    assert cohen_d(np.array([1.0])) is None


def test_verdicts_say_who_is_better_by_how_much() -> None:
    rng = np.random.default_rng(10)
    worse = rng.random(300)
    better = worse + 0.03 + 0.05 * rng.standard_normal(300)
    questions, setting = [str(i) for i in range(300)], ["the pool"] * 300
    found = compare(better, worse, questions, setting, seed=1, draws=2000)[0]
    expected = f"hybrid beats monolingual on the pool by {100 * found.difference:.1f} ± {100 * found.half_width:.1f} mAP, p < 0.001"
    assert verdict(found, "hybrid", "monolingual", "mAP") == expected
    swapped = compare(worse, better, questions, setting, seed=1, draws=2000)[0]
    assert verdict(swapped, "monolingual", "hybrid", "mAP").startswith(
        "hybrid beats monolingual on the pool by 3."
    )
    ranks = compare(100 * better, 100 * worse, questions, setting, seed=1, draws=2000)[0]
    sentence = verdict(
        ranks,
        "hybrid",
        "monolingual",
        "ranks of rank distance",
        scale=1,
        higher_is_better=False,
    )
    assert sentence.startswith("monolingual beats hybrid on the pool by 3.")
    same = compare(worse, worse, questions, setting, seed=1, draws=2000)[0]
    assert (
        verdict(same, "a", "b", "mAP")
        == "there is no significant difference between a and b on the pool (0.0 ± 0.0 mAP, p = 1.000)"
    )
    noise = 0.05 * rng.standard_normal(300)
    near = compare(worse + noise - noise.mean(), worse, questions, setting, seed=1, draws=2000)[
        0
    ]
    told = verdict(near, "a", "b", "mAP")
    assert told.endswith(
        f"; a difference of {100 * near.detectable:.1f} mAP would have been found with a chance of"
        " 80 %)"
    )
    assert near.detectable == pytest.approx(2.81 * noise.std() / np.sqrt(300), rel=0.01)
    assert same.effect_size is None


@pytest.mark.parametrize(
    ("a", "b", "message"),
    [
        ([1.0], [1.0, 2.0], "cannot be paired"),
        ([], [], "nothing to compare"),
        ([1.0, np.nan], [0.0, 0.0], "value 1 of"),
    ],
)
def test_runs_that_cannot_be_compared_are_refused(a: list, b: list, message: str) -> None:
    with pytest.raises(DataError, match=message):
        compare(np.array(a), np.array(b), ["q"] * len(a), ["s"] * len(a), seed=1)
