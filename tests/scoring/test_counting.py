"""Every way to rank gives the ranks of a full sort, ties in the order of the passages' ids."""

import sys

import numpy as np
import pytest
import torch

from hybridbatch.scoring import counting, ranks
from hybridbatch.scoring.counting import ranks_by_count, ranks_by_sort, ranks_in_row
from hybridbatch.scoring.ranks import Corpus, Relevance, Wanted, relevant_ranks
from hybridbatch.search.order import array_sort_keys, sort_keys

SCORES = {
    "normal": lambda rng: rng.standard_normal(3000),
    "many ties": lambda rng: rng.integers(-3, 4, 3000),
    "zeros of both signs": lambda rng: rng.choice([-0.0, 0.0, 1.0], 3000),
    "all equal": lambda rng: np.full(3000, 0.25),
    "one outlier": lambda rng: np.append(rng.standard_normal(2999), 1e30),
    "beyond float32's range": lambda rng: rng.choice([-3e38, 3e38, 1.0], 3000),
    "denormal": lambda rng: rng.integers(0, 50, 3000) * 1e-45,
    "close together": lambda rng: 1 + rng.integers(0, 5, 3000) * 2**-23,
    "mostly zero, as BM25's": lambda rng: np.maximum(0, rng.standard_normal(3000) - 2),
}


def ranked_by_hand(scores: np.ndarray, columns: np.ndarray, places: np.ndarray) -> list[int]:
    order = np.lexsort((places, -(scores.astype(np.float64))))
    return (np.argsort(order)[columns] + 1).tolist()


@pytest.mark.parametrize("kind", SCORES)
@pytest.mark.parametrize("answers", ["random", "good", "best"])
@pytest.mark.parametrize("buckets", [7, 1 << 14])
def test_ranks_in_a_row_are_those_of_a_full_sort(kind, answers, buckets, monkeypatch):
    monkeypatch.setattr(counting, "BUCKETS", buckets)
    rng = np.random.default_rng(len(kind) + buckets)
    scores = SCORES[kind](rng).astype(np.float32)
    places = rng.permutation(3000)
    columns = {
        "random": rng.choice(3000, 60, replace=False),
        "good": np.argsort(-scores)[rng.choice(200, 20, replace=False)],
        "best": np.argsort(-scores)[:1],
    }[answers]
    found = ranks_in_row(scores, columns, places)
    assert found.tolist() == ranked_by_hand(scores, columns, places)


@pytest.mark.parametrize("kind", SCORES)
def test_compiled_functions_rank_and_list_as_a_full_sort(kind):
    compiled = pytest.importorskip("hybridbatch.scoring.compiled_ranks", exc_type=ImportError)
    rng = np.random.default_rng(len(kind))
    scores = np.stack([SCORES[kind](rng).astype(np.float32) for _ in range(6)])
    scores[1, ::7] = -np.inf  # passages that are left out
    places = np.stack([rng.permutation(3000) for _ in range(2)])
    columns = np.stack([rng.choice(3000, 60, replace=False) for _ in scores])
    columns[0] = np.argsort(-scores[0])[rng.choice(200, 60, replace=False)]
    columns[:, 10:20] = -1
    columns[2] = -1
    few, many = np.zeros_like(columns), np.zeros_like(columns)
    compiled.ranks_of_few(scores, columns, places, few)
    done = compiled.ranks_of_many(scores, columns, places, many)
    assert done[2]
    first = np.empty((6, 40), np.int64)
    compiled.first_columns(scores, places, first)
    for row in range(6):
        there = columns[row] >= 0
        expected = ranked_by_hand(scores[row], columns[row, there], places[row % 2])
        assert few[row, there].tolist() == expected
        assert not few[row, ~there].any()
        if done[row]:
            assert many[row, there].tolist() == expected
            assert not many[row, ~there].any()
        order = np.lexsort((places[row % 2], -scores[row].astype(np.float64)))
        assert first[row].tolist() == order[:40].tolist()
    if kind in ("normal", "one outlier"):
        assert done[0]


def test_a_numba_that_cannot_be_used_is_done_without(monkeypatch):
    pytest.importorskip("numba")
    monkeypatch.delattr("hybridbatch.scoring.compiled_ranks", raising=False)
    monkeypatch.setitem(sys.modules, "hybridbatch.scoring.compiled_ranks", None)
    assert ranks._compiled.__wrapped__() is None


@pytest.mark.parametrize("broken", ["ranks_of_few", "ranks_of_many", "first_columns"])
def test_damaged_code_in_the_cache_of_numba_is_done_without(broken, monkeypatch):
    compiled = pytest.importorskip("hybridbatch.scoring.compiled_ranks", exc_type=ImportError)

    def damaged(*arguments):
        raise EOFError("Ran out of input")

    rng = np.random.default_rng(5)
    vectors = rng.standard_normal((50, 8)).astype(np.float32)
    corpus = Corpus({"eng": vectors}, {"eng": [f"p{i}" for i in range(50)]})
    relevant = 2 if broken == "ranks_of_few" else 5
    columns = np.stack([rng.choice(50, relevant, replace=False) for _ in range(6)])
    relevance = {"eng": Relevance(columns, np.ones_like(columns))}
    wanted = Wanted(top_k=10, top_of_languages=True)
    expected = relevant_ranks(vectors[:6], corpus, relevance, wanted).languages["eng"]
    monkeypatch.setattr(ranks, "COMPILED_SCORES", 1)
    monkeypatch.setattr(compiled, broken, damaged)
    found = relevant_ranks(vectors[:6], corpus, relevance, wanted).languages["eng"]
    np.testing.assert_array_equal(found.ranks, expected.ranks)
    np.testing.assert_array_equal(found.top, expected.top)


def test_counting_and_sorting_agree_on_ranks_and_ties():
    rng = np.random.default_rng(3)
    scores = rng.integers(0, 40, (25, 90)).astype(np.float32)
    scores[:, 5] += 0.5
    own = scores[:, [5, 17, 60]]
    ranks_, ties = ranks_by_count(scores, own)
    expected = ranks_by_sort(torch.from_numpy(scores), torch.from_numpy(own).contiguous())
    np.testing.assert_array_equal(ranks_, expected[0])
    np.testing.assert_array_equal(ties, expected[1])
    assert not ties[:, 0].any()


def test_keys_of_arrays_are_those_of_tensors():
    rng = np.random.default_rng(4)
    scores = np.concatenate([rng.standard_normal(500), [0.0, -0.0, 3e38, -3e38, 1e-45]])
    scores, places = scores.astype(np.float32), rng.permutation(505)
    expected = sort_keys(torch.from_numpy(scores), torch.from_numpy(places))
    np.testing.assert_array_equal(array_sort_keys(scores, places), expected)


@pytest.mark.parametrize("relevant", [1, 2, 5, 30])
@pytest.mark.parametrize("width", [2, 64])
def test_the_way_does_not_change_a_grid(relevant, width, monkeypatch):
    """Duplicates within and across languages, so that scores tie."""
    rng = np.random.default_rng(relevant)
    names, size = ["amh", "eng", "swh"], 400
    ids = {name: [f"p{i}" for i in range(size)] for name in names}
    corpus = {name: rng.integers(-1, 2, (size, width)).astype(np.float32) for name in names}
    queries = rng.integers(-1, 2, (30, width)).astype(np.float32)
    relevance = {}
    for name in names:
        columns = np.stack([rng.choice(size, relevant, replace=False) for _ in queries])
        columns[::7, -1] = -1
        relevance[name] = Relevance(columns, np.where(columns < 0, 0, 1))
    found = []
    wanted = Wanted({"all": names, "two": ["swh", "amh"]}, top_k=10, top_of_languages=True)
    for counted, histogram, compiled in (
        (0, 1 << 30, 1 << 60),
        (0, 1, 1 << 60),
        (1 << 30, 1, 1 << 60),
        (1 << 30, 1, 1),
        (0, 1, 1),
    ):
        monkeypatch.setattr(ranks, "COUNTED", counted)
        monkeypatch.setattr(ranks, "HISTOGRAM_PASSAGES", histogram)
        monkeypatch.setattr(ranks, "COMPILED_SCORES", compiled)
        grid = relevant_ranks(queries, Corpus(corpus, ids), relevance, wanted)
        found.append(grid.languages | grid.pools)
    for other in found[1:]:
        for name, sorted_ in found[0].items():
            np.testing.assert_array_equal(other[name].ranks, sorted_.ranks)
            np.testing.assert_array_equal(other[name].top, sorted_.top)
