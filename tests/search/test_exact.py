"""Exact blocked search against a full sort, ties included, and what FAISS indexes lose."""

from pathlib import Path

import numpy as np
import pytest
import torch

from hybridbatch.common.errors import DataError
from hybridbatch.scoring.ranks import Corpus, Relevance, Wanted, relevant_ranks
from hybridbatch.search import exact as module
from hybridbatch.search import faiss_index
from hybridbatch.search.exact import Found, IndexKind, recall_lost, search, search_bytes
from hybridbatch.search.faiss_index import FaissIndex
from hybridbatch.search.order import precedence


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    for place in (module, faiss_index):
        monkeypatch.setattr(place, "CHUNK", 150)
    monkeypatch.setattr(module, "BLOCK", {"cpu": (16, 70)})
    monkeypatch.setattr(module, "GROUP", 8)


def brute_force(
    queries: np.ndarray, corpus: np.ndarray, k: int, tie: list
) -> tuple[np.ndarray, np.ndarray]:
    scores = queries @ corpus.astype(np.float32).T
    rows = [
        sorted(range(len(corpus)), key=lambda p: (row[p], tie[p]), reverse=True)[:k]
        for row in scores
    ]
    return np.array(rows), np.take_along_axis(scores, np.array(rows), 1)


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("k", [1, 10, 200, 1000])
@pytest.mark.parametrize("order", ["random", "rising", "equal"])
def test_blocked_search_equals_a_full_sort_with_ties_by_id(k: int, order: str) -> None:
    """Small integer vectors tie a lot; rising scores displace everything in every block."""
    rng = np.random.default_rng(k)
    corpus = rng.integers(-2, 3, (500, 3)).astype(np.float16)
    queries = rng.integers(-2, 3, (37, 3)).astype(np.float32)
    if order == "rising":
        corpus = corpus[np.argsort(corpus.astype(np.float32).sum(1), kind="stable")]
        queries = np.abs(queries)
    if order == "equal":
        corpus[:] = 1
    ids = [str(number) for number in rng.permutation(500)]
    found = search(queries, corpus, k, places=precedence(ids))
    rows, scores = brute_force(queries, corpus, min(k, 500), ids)
    np.testing.assert_array_equal(found.rows, rows)
    np.testing.assert_array_equal(found.scores, scores)


@pytest.mark.usefixtures("small_blocks")
def test_a_memory_mapped_corpus_and_one_query_give_the_same(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    np.save(tmp_path / "corpus.npy", rng.standard_normal((300, 8)).astype(np.float16))
    corpus = np.load(tmp_path / "corpus.npy", mmap_mode="r")
    query = rng.standard_normal((1, 8), np.float32)
    found = search(query, corpus, 5)
    rows, scores = brute_force(query, np.asarray(corpus), 5, list(range(300, 0, -1)))
    np.testing.assert_array_equal(found.rows, rows)
    np.testing.assert_allclose(found.scores, scores, rtol=1e-6)


def test_without_places_ties_follow_the_rows() -> None:
    assert search(np.ones((1, 2)), np.ones((5, 2)), 3).rows.tolist() == [[0, 1, 2]]


def test_the_stated_memory_does_not_grow_with_the_corpus_except_for_its_order() -> None:
    one, two = (
        search_bytes(1000, 10_000_000, 384, 100),
        search_bytes(1000, 20_000_000, 384, 100),
    )
    assert two - one == 24 * 10_000_000


@pytest.mark.parametrize(
    ("queries", "corpus", "message"),
    [
        (np.ones((1, 2)), np.ones((0, 2)), "no passages"),
        (np.ones((1, 2)), np.ones((3, 4)), "queries have 2 dimensions, the corpus has 4"),
        (np.ones((1, 2)), np.array([[1, 1], [np.nan, 1]]), "corpus row 1 holds NaN"),
        (np.array([[np.inf, 1]]), np.ones((3, 2)), "query row 0 holds NaN"),
    ],
)
def test_bad_vectors_are_refused(queries: np.ndarray, corpus: np.ndarray, message: str) -> None:
    with pytest.raises(DataError, match=message):
        search(queries, corpus, 1)


@pytest.fixture(scope="module")
def clouds() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(1)
    centres = rng.standard_normal((20, 16))
    corpus = (
        centres[rng.integers(0, 20, 3000)] + 0.3 * rng.standard_normal((3000, 16))
    ).astype(np.float16)
    return (centres[:10] + 0.3 * rng.standard_normal((10, 16))).astype(np.float32), corpus


@pytest.mark.parametrize(
    ("kind", "most"), [("flat", 0.0), ("hnsw", 0.05), ("ivf", 0.7), ("ivfpq", 0.95)]
)
def test_faiss_indexes_lose_what_is_measured(
    clouds: tuple[np.ndarray, np.ndarray], kind: str, most: float
) -> None:
    queries, corpus = clouds
    exact = search(queries, corpus, 10)
    found = FaissIndex(corpus, kind).search(queries, 10)
    assert recall_lost(found, exact) <= most
    if kind == "flat":
        np.testing.assert_array_equal(found.rows, exact.rows)
        np.testing.assert_allclose(found.scores, exact.scores, rtol=1e-5)


def test_an_index_trained_with_the_same_seed_finds_the_same(
    clouds: tuple[np.ndarray, np.ndarray],
) -> None:
    queries, corpus = clouds
    one, other = (FaissIndex(corpus, "ivf", seed=5).search(queries, 10) for _ in range(2))
    np.testing.assert_array_equal(one.rows, other.rows)


def test_recall_lost_by_hand() -> None:
    scores = np.zeros((2, 2), np.float32)
    exact = Found(np.array([[0, 1], [2, 3]]), scores)
    assert recall_lost(Found(np.array([[1, 0], [4, 3]]), scores), exact) == pytest.approx(0.25)
    assert recall_lost(Found(np.array([[-1, -1], [-1, -1]]), scores), exact) == 1.0


@pytest.mark.parametrize("kind", ["flat", "ivf", "hnsw", "ivfpq"])
@pytest.mark.parametrize("size", [1, 50, 77, 78])
def test_a_corpus_smaller_than_an_index_would_like_still_works(
    kind: IndexKind, size: int, capfd: pytest.CaptureFixture[str]
) -> None:
    corpus = np.random.default_rng(2).standard_normal((size, 8)).astype(np.float32)
    index = FaissIndex(corpus, kind)
    exact = search(corpus, corpus, 10)
    assert index.tune(corpus, exact, 0.95).recall >= 0.95
    assert index.search(corpus[:3], 100).rows.shape == (min(3, size), size)
    assert capfd.readouterr().err == ""  # FAISS writes there itself


def test_too_few_passages_for_two_lists_are_searched_exactly() -> None:
    corpus = np.random.default_rng(2).standard_normal((60, 8)).astype(np.float32)
    exact = search(corpus, corpus, 10)
    for kind in ("ivf", "ivfpq"):
        index = FaissIndex(corpus, kind)
        np.testing.assert_array_equal(index.search(corpus, 10).rows, exact.rows)
        sentence = index.tune(corpus, exact, 0.95).sentence()
        assert sentence == "flat visits all passages: recall 1.000 on 60 queries"


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_gpu_finds_and_ranks_the_same() -> None:
    """Small integers have exact scores on every device."""
    rng = np.random.default_rng(3)
    corpus = rng.integers(-2, 3, (50_000, 4)).astype(np.float32)
    queries = rng.integers(-2, 3, (100, 4)).astype(np.float32)
    cpu, gpu = (search(queries, corpus, 100, device=device) for device in ("cpu", "cuda"))
    np.testing.assert_array_equal(cpu.rows, gpu.rows)
    ids = {"eng": [str(number) for number in range(len(corpus))]}
    relevance = {
        "eng": Relevance(rng.integers(0, len(corpus), (100, 3)), np.ones((100, 3), np.int64))
    }
    one, other = (
        relevant_ranks(
            queries,
            Corpus({"eng": corpus}, ids, device),
            relevance,
            Wanted({"all": ["eng"]}, top_k=20),
        )
        for device in ("cpu", "cuda")
    )
    np.testing.assert_array_equal(one.languages["eng"].ranks, other.languages["eng"].ranks)
    np.testing.assert_array_equal(one.pools["all"].top, other.pools["all"].top)


@pytest.mark.parametrize("kind", ["ivf", "hnsw", "ivfpq"])
@pytest.mark.parametrize("wanted", [0.6, 0.95, 1.0])
def test_an_index_is_tuned_to_the_wanted_recall(
    clouds: tuple[np.ndarray, np.ndarray], kind: str, wanted: float
) -> None:
    queries, corpus = clouds
    exact = search(queries, corpus, 100)
    index = FaissIndex(corpus, kind)
    tuning = index.tune(queries, exact, wanted)
    measured = 1 - recall_lost(index.search(queries, 100), exact)
    assert tuning.recall == pytest.approx(measured)
    assert f"recall {tuning.recall:.3f} on 10 queries" in tuning.sentence()
    if wanted == 1.0 and kind == "hnsw":  # a graph does not lead everywhere
        assert (tuning.effort, tuning.most) == (3000, 3000)
        assert "less than 1 wanted" in tuning.sentence()
    else:
        assert measured >= wanted
        assert 1 <= tuning.effort <= tuning.most
        assert "wanted" not in tuning.sentence()


@pytest.mark.parametrize("kind", ["ivf", "hnsw", "ivfpq"])
def test_queries_that_did_not_tune_an_index_reach_the_wanted_recall_too(kind: str) -> None:
    rng = np.random.default_rng(4)
    corpus = rng.standard_normal((4000, 24)).astype(np.float32)
    queries = rng.standard_normal((700, 24)).astype(np.float32)
    exact = search(queries, corpus, 20)
    index = FaissIndex(corpus, kind)
    tuning = index.tune(queries[:200], exact.of(slice(200), 20), 0.8)
    others = slice(200, None)
    assert tuning.effort < tuning.most
    assert 1 - recall_lost(index.search(queries[others], 20), exact.of(others, 20)) >= 0.8


def test_an_index_visits_more_than_it_is_asked_for(
    clouds: tuple[np.ndarray, np.ndarray],
) -> None:
    """One list in 32 would hold 100 of 3,000 passages."""
    queries, corpus = clouds
    found = FaissIndex(corpus, "ivf").search(queries, 500)
    assert (found.rows >= 0).mean() > 0.9
    assert recall_lost(found, search(queries, corpus, 500)) < 0.5


def test_candidates_of_codes_are_scored_exactly(clouds: tuple[np.ndarray, np.ndarray]) -> None:
    queries, corpus = clouds
    found = FaissIndex(corpus, "ivfpq").search(queries, 20)
    expected = np.take_along_axis(queries @ corpus.astype(np.float32).T, found.rows, 1)
    np.testing.assert_allclose(found.scores, expected, rtol=1e-5)
    assert (np.diff(found.scores, axis=1) <= 0).all()
