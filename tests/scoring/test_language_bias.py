"""Language bias, computed by hand; PEER against scipy's Kruskal-Wallis test."""

import numpy as np
import pytest
from scipy.stats import kruskal

from hybridbatch.common.errors import DataError
from hybridbatch.scoring import language_bias as bias

# Two queries with relevant passages in the languages 0, 1, 2; a third without one in language 1.
RANKS = np.array([[3, 9, 1], [4, 2, 6], [5, 0, 7]])
LANGUAGES = np.array([0, 1, 2])


def test_rank_distance_is_greatest_minus_smallest_rank() -> None:
    assert bias.rank_distance(RANKS).tolist() == [8, 4, 2]
    with pytest.raises(DataError, match="row 1 has no relevant"):
        bias.rank_distance(np.array([[1], [0]]))


def test_max_rank_and_complete_ask_for_all_relevant_passages() -> None:
    assert bias.max_rank(RANKS).tolist() == [9, 6, 7]
    assert bias.complete(RANKS, 7).tolist() == [0, 1, 1]


def test_language_distribution_counts_the_first_k() -> None:
    top = np.array([[0, 0, 2, 1], [2, 2, 2, 2]])
    assert bias.language_distribution(top, 3).tolist() == [[0.5, 0.25, 0.25], [0, 0, 1]]
    assert bias.same_language_share(top, 2).tolist() == [0.25, 1]


def test_language_preference_asks_which_translation_comes_first() -> None:
    assert bias.language_preference(RANKS, LANGUAGES, 0).tolist() == [0, 0, 1]
    assert bias.language_preference(RANKS, LANGUAGES, 2).tolist() == [1, 0, 0]
    with pytest.raises(DataError, match="row 2 has no relevant"):
        bias.language_preference(RANKS, LANGUAGES, 1)


def test_language_ndcg_halves_the_gain_of_other_languages() -> None:
    ranks, grades = np.array([[2, 1]]), np.array([[1, 1]])
    found = 1 / np.log2(3) + 0.5  # the query's language is second
    ideal = 1 + 0.5 / np.log2(3)
    languages = np.array([0, 1])
    assert bias.language_ndcg(ranks, grades, languages, 0, 10) == pytest.approx([found / ideal])
    assert bias.language_ndcg(ranks, grades, languages, 1, 10) == pytest.approx([1.0])
    assert bias.language_ndcg(ranks, grades, languages, 0, 10, other_gain=1.0) == pytest.approx(
        [1.0]
    )
    assert bias.language_ndcg(ranks, grades, languages, 0, 1, other_gain=0.0) == pytest.approx(
        [0.0]
    )


def test_the_first_passage_has_one_of_four_outcomes() -> None:
    ranks = np.array([[1, 5], [5, 1], [2, 3], [2, 3]])
    first_language = np.array([0, 1, 0, 1])
    outcomes = bias.first_outcome(ranks, first_language, 0)
    assert [bias.OUTCOMES[number] for number in outcomes] == [
        "relevant, query language",
        "relevant, other language",
        "irrelevant, query language",
        "irrelevant, other language",
    ]


@pytest.mark.parametrize("seed", range(10))
def test_peer_is_the_kruskal_wallis_p_value_of_scipy(seed: int) -> None:
    rng = np.random.default_rng(seed)
    languages = rng.integers(0, 4, 50)
    ranks = rng.permuted(np.tile(np.arange(1, 201), (6, 1)), axis=1)[:, :50]
    grades = rng.integers(1, 3, ranks.shape)
    cutoff = 120  # 2 in 5 passages are tied behind it
    expected = []
    for row, levels in zip(ranks, grades, strict=True):
        p = []
        for level in np.unique(levels):
            cut = np.minimum(row, cutoff + 1)
            groups = [cut[(levels == level) & (languages == number)] for number in range(4)]
            p.append(kruskal(*[group for group in groups if len(group)]).pvalue)
        expected.append(np.mean(p))
    assert bias.peer(ranks, grades, languages, cutoff) == pytest.approx(expected, abs=1e-12)


def test_peer_by_hand() -> None:
    languages = np.array([0, 0, 1, 1])
    grades = np.ones((3, 4), dtype=np.int64)
    ranks = np.array([[1, 2, 3, 4], [1, 4, 2, 3], [50, 60, 70, 80]])
    # H = 3 * (2 * 1 + 2 * 1) / 5 = 2.4, one degree of freedom; then no difference; then nothing
    # retrieved
    assert bias.peer(ranks, grades, languages, 10) == pytest.approx([0.12133525, 1.0, 1.0])


def test_peer_weighs_the_levels_and_calls_one_language_fair() -> None:
    ranks, grades, languages = (
        np.array([[1, 2, 3, 4, 5]]),
        np.array([[1, 1, 1, 1, 2]]),
        np.array([0, 0, 1, 1, 1]),
    )
    p = bias.peer(ranks[:, :4], grades[:, :4], languages[:4], 10)[0]
    assert bias.peer(ranks, grades, languages, 10) == pytest.approx([(p + 1) / 2])
    assert bias.peer(ranks, grades, languages, 10, weights={1: 0.9, 2: 0.1}) == pytest.approx(
        [0.9 * p + 0.1]
    )


def test_peer_leaves_out_levels_that_a_query_lacks() -> None:
    ranks, languages = np.array([[1, 2, 3, 4], [1, 2, 3, 4]]), np.array([0, 0, 1, 1])
    both = bias.peer(ranks, np.array([[1, 1, 1, 1], [2, 2, 2, 2]]), languages, 10)
    assert both == pytest.approx([0.12133525, 0.12133525])


def test_rank_shift_by_hand() -> None:
    # Order after translation: the third first, then the first, then the second: only the third
    # rises, by 2 of 0 + 1 + 2.
    scores = np.array([[0.5, 0.4, 0.9], [0.9, 0.5, 0.4], [0.5, 0.5, 0.5]])
    assert bias.rank_shift(scores[:, :, None])[:, 0] == pytest.approx([100 * 2 / 3, 0, 0])
    both = bias.rank_shift(np.stack([scores, scores[:, ::-1]], axis=2))
    assert both[:, 1] == pytest.approx([100 * 1 / 3, 100 * 2 / 3, 0])
    with pytest.raises(DataError, match="at least the first 2"):
        bias.rank_shift(np.ones((1, 1, 1)))
