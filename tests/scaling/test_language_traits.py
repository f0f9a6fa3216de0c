"""What languages gain is regressed on what is known of them, as textbooks do it."""

import numpy as np
import pytest
from scipy import stats

from hybridbatch.scaling.language_traits import (
    TooFewLanguages,
    lexical_distances,
    regress,
    traits,
)

RNG = np.random.default_rng(3)
TRAIT, OTHER = RNG.normal(size=(2, 40))
GAINS = 1.5 * TRAIT + (0.5 + np.abs(TRAIT)) * RNG.normal(size=40)


def test_one_trait_gives_the_slope_of_a_simple_regression():
    (found,) = regress({"a": TRAIT}, GAINS, seed=1)
    assert found.value == pytest.approx(stats.linregress(TRAIT, GAINS).slope)
    assert found.interval[0] < 1.5 < found.interval[1]


def test_standard_errors_are_hc3_whose_residuals_are_those_of_fits_without_the_language():
    x = np.column_stack([np.ones(40), TRAIT, OTHER])
    left_out = [
        GAINS[i]
        - x[i] @ np.linalg.lstsq(np.delete(x, i, 0), np.delete(GAINS, i), rcond=None)[0]
        for i in range(40)
    ]
    bread = np.linalg.inv(x.T @ x)
    errors = np.sqrt(np.diag(bread @ (x.T @ np.diag(np.square(left_out)) @ x) @ bread))
    fitted = np.linalg.lstsq(x, GAINS, rcond=None)[0]
    expected = 2 * stats.t.sf(np.abs(fitted / errors), 37)[1:]
    np.testing.assert_allclose(
        [each.p for each in regress({"a": TRAIT, "b": OTHER}, GAINS, seed=1)], expected
    )


def test_traits_that_others_determine_or_that_do_not_vary_are_left_out():
    found = regress(
        {"flat": np.ones(40), "a": TRAIT, "twice": 2 * TRAIT, "b": OTHER}, GAINS, seed=1
    )
    assert [each.name for each in found] == ["a", "b"]


def test_too_few_languages_are_refused_in_words():
    with pytest.raises(TooFewLanguages, match="needs at least 12 languages, and there are 11"):
        regress({"a": TRAIT[:11], "b": OTHER[:11]}, GAINS[:11], seed=1)


def test_distance_is_one_minus_the_cosine_to_the_nearest_training_language():
    texts = {"yor": ["abc"], "eng": ["abc", "abc"], "deu": ["abd"], "amh": ["ቡና"]}
    found = lexical_distances(texts, ["yor", "amh", "deu", "zul"], ["eng", "deu"])
    assert found["yor"] == pytest.approx(0)  # " abc " has the same three trigrams as English
    # shares " ab" of three with English; itself does not count
    assert found["deu"] == pytest.approx(1 - 1 / 3)
    assert found["amh"] == 1
    assert "zul" not in found


def test_traits_are_those_of_the_registry():
    found = traits("amh", ["arb", "tir", "eng", "deu"], "xlm-r")
    assert found == {
        "joshi_class": 2,
        "pretrained": 1.0,
        "script_share": 0.25,
        "family_share": 0.5,
    }
