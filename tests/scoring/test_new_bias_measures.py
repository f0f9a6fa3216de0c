"""TLR and MRC, against the definitions written out."""

import numpy as np
import pytest
from scipy.stats import spearmanr

from hybridbatch.common.errors import DataError
from hybridbatch.common.records import Task, Texts
from hybridbatch.scoring.language_bias import rank_correlation, target_recall
from hybridbatch.scoring.rank_correlation import mean_rank_correlation


def test_target_languages_recall_leaves_the_querys_own_language_out():
    languages = np.array([0, 0, 1, 2])
    ranks = np.array([[1, 2, 3, 30], [1, 0, 21, 40], [50, 0, 5, 0]])
    assert target_recall(ranks, languages, 0, 20).tolist() == [0.5, 0, 1]
    assert target_recall(ranks, languages, 2, 20).tolist() == [1, 0.5, 0.5]
    # a query in a language without a corpus: all relevant passages are targets
    assert target_recall(ranks, languages, -1, 20).tolist() == [0.75, 1 / 3, 0.5]


def test_a_query_without_a_target_has_no_recall():
    with pytest.raises(DataError, match="query row 1"):
        target_recall(np.array([[1, 2], [1, 0]]), np.array([0, 1]), 0, 20)


def by_definition(
    queries: dict[str, np.ndarray], passages: np.ndarray, k: int
) -> dict[str, float]:
    """MIMO's MRC@k, written out: every pair of languages of every question."""
    names, found = list(queries), {}
    for a in names:
        per_question = []
        for row in range(len(queries[a])):
            pairs = []
            for b in names:
                if a == b:
                    continue
                one, other = queries[a][row] @ passages.T, queries[b][row] @ passages.T
                union = sorted({*np.argsort(-one)[:k], *np.argsort(-other)[:k]})
                pairs.append(spearmanr(one[union], other[union])[0])
            per_question.append(np.mean(pairs))
        found[a] = float(np.mean(per_question))
    return found


def test_mean_rank_correlation_is_spearmans_over_the_union_of_first_passages():
    rng = np.random.default_rng(8)
    passages = rng.normal(size=(60, 6))
    meaning = rng.normal(size=(15, 6))
    queries = {name: meaning + 0.5 * rng.normal(size=(15, 6)) for name in ("eng", "deu", "swh")}
    ids = tuple(f"q{row}" for row in range(15))
    texts = Texts(ids, ids)
    task = Task("t", dict.fromkeys(queries, texts), {}, {})
    found = mean_rank_correlation(task, queries, passages, 10)
    expected = by_definition(queries, passages, 10)
    assert found["by_query_language"] == pytest.approx(expected)
    assert found["mean"] == pytest.approx(np.mean(list(expected.values())))


def test_equal_rankings_correlate_fully_and_constant_ones_not_at_all():
    scores = np.array([[3.0, 2, 1], [30, 20, 10], [5, 5, 5]])
    among = np.ones((3, 3), dtype=bool)
    assert rank_correlation(scores, among)[:2].tolist() == [1, 1]
    assert np.isnan(rank_correlation(scores, among)[2])


def test_a_task_with_one_query_language_has_no_rank_correlation():
    texts = Texts(("q",), ("what",))
    task = Task("t", {"eng": texts}, {}, {})
    assert mean_rank_correlation(task, {"eng": np.ones((1, 2))}, np.ones((3, 2))) is None
