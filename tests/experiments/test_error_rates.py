"""How often the rules of significance.py err, by simulation.

docs/scaling.md has the rates of 10,000 studies and more by rule and world. A rule may err in 5 % of
the studies. Where it errs in 5.8 % or more, `TOO_OFTEN` and the documented table have the rate.
"""

import importlib
import json
import re
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import binom

from hybridbatch.scoring.significance import crossed_t, decide, equivalence_p, holm

ROOT = Path(__file__).parents[2]
STUDY = ROOT / "experiments" / "study2"
STUDIES = 3000  # a rule that errs in 7 % is caught with a chance of 95 %
ARTICLES = 48
RECORDS = (64, 152, 362, 861, 2048)
# standard deviations between seeds, between articles and of single cells
WORLDS = {
    "cells alone": (0.0, 0.0, 1.0),
    "articles and cells": (0.0, 1.0, 1.0),
    "articles alone": (0.0, 1.0, 0.0),
    "seeds alone": (1.0, 0.0, 0.0),
    "seeds of 0.3 and cells": (0.3, 0.0, 1.0),
    "seeds of 0.2 and cells": (0.2, 0.0, 1.0),
    "seeds and articles": (0.3, 1.0, 0.0),
    "seeds, articles and cells": (0.3, 1.0, 1.0),
}
TOO_OFTEN = {
    ("margin of rank distance: same for all", 5): 8.4,
    ("margin of rank distance: same for all", 10): 8.8,
    ("languages: 5, moved together by seeds", 5): 12.1,
    ("languages: 11, moved together by seeds", 5): 14.4,
    ("equivalence, family of eight: all at the margin", 5): 17.9,
}


def check(errors, row, seeds):
    """Asserts what chance allows where 5 % of studies err, or the documented share."""
    documented = TOO_OFTEN.get((row, seeds))
    if documented is None:
        assert np.sum(errors) <= binom.ppf(0.999, len(errors), 0.05)
    else:
        low, high = binom.ppf([0.001, 0.999], len(errors), documented / 100)
        assert low <= np.sum(errors) <= high


@pytest.fixture
def rng():
    return np.random.default_rng(20261129)


@pytest.fixture
def study(monkeypatch):
    """Imports a module of the second study."""
    monkeypatch.syspath_prepend(str(STUDY))
    return importlib.import_module


def tables(draw, seeds, of_seeds, of_articles, of_cells):
    """float [STUDIES, seeds, ARTICLES] of true mean 0; `draw` makes noise of a shape."""
    return (
        of_seeds * draw((STUDIES, seeds, 1))
        + of_articles * draw((STUDIES, 1, ARTICLES))
        + of_cells * draw((STUDIES, seeds, ARTICLES))
    )


def rejected(many):
    """Whether each study finds a difference."""
    return [crossed_t(each).p < 0.05 for each in many]


def claimed(many, margins):
    """Whether each study claims equivalence."""
    found = map(crossed_t, many)
    return [p < 0.05 for p in map(equivalence_p, found, margins)]


@pytest.mark.parametrize("seeds", [2, 3, 5, 10])
@pytest.mark.parametrize("world", WORLDS)
def test_a_true_null_is_rejected_in_five_per_cent(world, seeds, rng):
    found = rejected(tables(rng.standard_normal, seeds, *WORLDS[world]))
    check(found, f"difference: {world}", seeds)


@pytest.mark.parametrize("seeds", [3, 5, 10])
def test_a_true_null_with_an_interaction_of_factors_is_rejected_in_five_per_cent(seeds, rng):
    """The seed's part is larger in some articles, by a factor of each article."""
    factor = 1 + rng.standard_normal((STUDIES, 1, ARTICLES))
    values = tables(rng.standard_normal, seeds, 0.0, 1.0, 1.0)
    values += 0.3 * factor * rng.standard_normal((STUDIES, seeds, 1))
    check(rejected(values), "difference: seeds times articles", seeds)


@pytest.mark.parametrize("seeds", [3, 5, 10])
def test_a_true_null_with_heavy_tails_is_rejected_in_five_per_cent(seeds, rng):
    values = tables(lambda shape: rng.standard_t(3, shape), seeds, 0.3, 1.0, 1.0)
    check(rejected(values), "difference: heavy tails", seeds)


@pytest.mark.parametrize("seeds", [3, 5, 10])
@pytest.mark.parametrize(
    ("world", "of_seeds", "of_articles"),
    [("no more", 0.0, 0.0), ("seeds", 0.3, 0.0), ("articles", 0.0, 0.3), ("both", 0.3, 0.3)],
)
def test_a_true_null_over_articles_of_unequal_size_is_rejected_in_five_per_cent(
    world, of_seeds, of_articles, seeds, rng
):
    """Questions vary, and seeds in single questions; a cell counts by its questions."""
    sizes = article_sizes()
    values = of_seeds * rng.standard_normal((STUDIES, seeds, 1))
    values = values + np.hypot(of_articles, 1 / np.sqrt(sizes)) * rng.standard_normal(
        (STUDIES, 1, ARTICLES)
    )
    values += np.hypot(of_articles / 2, 1 / np.sqrt(sizes)) * rng.standard_normal(values.shape)
    values *= sizes * ARTICLES / sizes.sum()
    check(rejected(values), f"unequal articles: questions and {world}", seeds)


def article_sizes():
    """The numbers of questions of XQuAD-R's articles: 8 to 74, by the articles' names."""
    article = json.loads((STUDY / "articles.json").read_text())
    sizes = Counter(article.values())
    return np.array([sizes[name] for name in sorted(sizes)])


def test_the_cells_of_unequal_articles_are_weighted_as_the_study_weights_them(study, rng):
    pandas = pytest.importorskip("pandas")
    article = json.loads((STUDY / "articles.json").read_text())
    seeds, names = range(3), sorted(set(article.values()))
    by_article = rng.standard_normal((3, ARTICLES))
    values = [
        by_article[seed, names.index(name)] for seed in seeds for name in article.values()
    ]
    index = pandas.MultiIndex.from_product([seeds, article])
    table = study("contrasts").unit_table(pandas.Series(values, index).unstack(), article)
    sizes = article_sizes()
    assert table == pytest.approx(by_article * sizes * ARTICLES / sizes.sum())


@pytest.mark.parametrize("kind", ["trend", "law", "gap", "level"])
def test_a_weighted_sum_whose_mean_is_zero_is_rejected_in_five_per_cent(kind, study, rng):
    contrast = weighted_sum(study("families"), kind)
    found = rejected(sum_of_terms(contrast, 5, rng))
    check(found, f"weighted sum: {kind}", 5)


def weighted_sum(families, kind):
    hybrid, pure = ([families.mix(value, n) for n in RECORDS] for value in (0.5, 1.0))
    return {
        "trend": families.trend(hybrid, pure, True),
        "law": families.law(hybrid, True),
        "gap": families.gap(hybrid[-1], pure[-1]),
        "level": families.level(hybrid[-1], 0.6),
    }[kind]


def sum_of_terms(contrast, seeds, rng):
    """float [STUDIES, seeds, ARTICLES]; every side has the mean of the level.

    An article is as hard for all sides, which have parts of their own. Fewer records vary more.
    Debiased, half of a side's own part is left.
    """
    hard = rng.beta(0.6, 0.4, (STUDIES, 1, ARTICLES))  # scores like to be near 0 or 1
    total, own = -contrast.constant, {}
    for term in contrast.terms:
        name = term.side.name, dict(term.side.axes)["pairs"]
        if name not in own:
            noise = tables(rng.standard_normal, seeds, 0.03, 0.1, 0.1)
            own[name] = noise * (RECORDS[-1] / name[1]) ** 0.2
        total = total + term.weight * (hard + own[name] / (1 + term.debiased))
    return total


@pytest.mark.parametrize("languages", [2, 5, 9, 11])
def test_a_true_null_over_random_languages_is_rejected_in_five_per_cent(languages, study, rng):
    found = over_languages(study, languages, 0.0, rng)
    check(found, f"languages: {languages}", 5)


@pytest.mark.parametrize("languages", [5, 11])
def test_over_languages_seeds_that_move_all_languages_are_taken_for_a_difference(
    languages, study, rng
):
    """The mean over five seeds varies as much as the mean over languages."""
    found = over_languages(study, languages, np.sqrt(5 / languages), rng)
    check(found, f"languages: {languages}, moved together by seeds", 5)


def over_languages(study, languages, of_seeds, rng):
    """Whether each study of five seeds finds a difference over languages."""
    values = rng.standard_normal((STUDIES, 1, languages))
    values = values + of_seeds * rng.standard_normal((STUDIES, 5, 1))
    test = study("contrasts").over_languages
    return [test(each)["languages_p"] < 0.05 for each in values.mean(axis=1)]


@pytest.mark.parametrize("seeds", [3, 5, 10])
@pytest.mark.parametrize("world", ["articles and cells", "seeds alone", *list(WORLDS)[4:]])
def test_a_difference_at_the_margin_is_called_equivalent_in_five_per_cent(world, seeds, rng):
    values = 3.0 + tables(rng.standard_normal, seeds, *WORLDS[world])
    check(claimed(values, [3.0] * STUDIES), f"equivalence: {world}", seeds)


@pytest.mark.parametrize("seeds", [3, 5, 10])
@pytest.mark.parametrize("world", ["same for all", "in proportion"])
def test_a_difference_at_the_margin_of_rank_distance_is_called_equivalent(
    world, seeds, study, rng
):
    """Mean 200, a standard deviation of 160 over articles, and a correlation of .98.

    One side is 10 % above the other: by 20 ranks in every article, or in proportion to it.
    """
    hard = 200 + 160 * rng.standard_normal((STUDIES, 1, ARTICLES))
    ours, theirs = (
        hard + tables(rng.standard_normal, seeds, 2.0, 16.0, 16.0) for _ in range(2)
    )
    ours += 0.1 * hard if world == "in proportion" else 20.0
    margin_of = study("contrasts").margin_of
    margins = [margin_of("rank_distance", each.mean()) for each in theirs]
    claims = claimed(ours - theirs, margins)
    check(claims, f"margin of rank distance: {world}", seeds)


@pytest.mark.parametrize("seeds", [5, 10])
def test_holm_errs_in_five_per_cent_of_families_of_eight(seeds, rng):
    errors = []
    for _ in range(STUDIES):
        p = np.array([crossed_t(each).p for each in family(seeds, rng)])
        errors.append(holm(p).min() < 0.05)
    check(errors, "Holm, family of eight: none differs", seeds)


def test_holm_errs_in_five_per_cent_of_families_in_which_three_of_eight_differ(rng):
    errors = []
    for _ in range(STUDIES):
        values = family(5, rng)
        values[:3] += 5.0
        p = holm(np.array([crossed_t(each).p for each in values]))
        assert p[:3].max() < 0.05
        errors.append(p[3:].min() < 0.05)
    check(errors, "Holm, family of eight: three differ", 5)


def test_equivalence_is_not_corrected_in_a_family(rng):
    """All eight differences are at the margin; a single false verdict is an error."""
    errors = []
    for _ in range(STUDIES):
        found = [crossed_t(each + 1.0) for each in family(5, rng)]
        after = holm(np.array([each.p for each in found]))
        errors.append("equivalent" in map(decide, found, after, [1.0] * len(found)))
    check(errors, "equivalence, family of eight: all at the margin", 5)


def family(seeds, rng):
    """float [8, seeds, ARTICLES]: a hybrid less two rivals, in four measures that correlate."""

    def part(*shape):
        shared, own = (rng.standard_normal((3, n, *shape)) for n in (1, 4))
        return np.sqrt(0.7) * shared + np.sqrt(0.3) * own

    sides = 0.3 * part(seeds, 1) + part(1, ARTICLES) + part(seeds, ARTICLES)
    return (sides[0] - sides[1:]).reshape(8, seeds, ARTICLES)


def test_the_bold_rates_of_the_docs_are_those_pinned_here():
    text = (ROOT / "docs" / "scaling.md").read_text()
    table = text.partition("## How often the tests err")[2].partition("\n## ")[0]
    columns = (2, 3, 5, 10)
    documented = {}
    for line in table.splitlines():
        row, *cells = (cell.strip() for cell in line.strip("|").split("|"))
        for seeds, cell in zip(columns, cells, strict=False):
            if re.fullmatch(r"\*\*[\d.]+\*\*", cell):
                documented[row, seeds] = float(cell.strip("*"))
    assert documented == TOO_OFTEN
