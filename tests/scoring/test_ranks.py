"""Ranks and metrics against trec_eval (pytrec_eval), ties included, and the errors of bad input."""

import numpy as np
import pytest
import pytrec_eval
import torch

from hybridbatch.common.errors import DataError
from hybridbatch.scoring import metrics
from hybridbatch.scoring.ranks import (
    NOT_RETRIEVED,
    Corpus,
    Relevance,
    Wanted,
    relevant_ranks,
)
from hybridbatch.search.order import key_places, key_scores, precedence, top_keys

CUTOFFS = (1, 3, 10, 100)
TREC = {
    "map": "average_precision",
    "recip_rank": "reciprocal_rank",
    **{f"ndcg_cut_{k}": f"ndcg@{k}" for k in CUTOFFS},
    **{f"recall_{k}": f"recall@{k}" for k in CUTOFFS},
    **{f"P_{k}": f"precision@{k}" for k in CUTOFFS},
    **{f"success_{k}": f"success@{k}" for k in CUTOFFS},
}


def random_ids(rng: np.random.Generator, count: int) -> list[str]:
    """Distinct ids of other lengths, digits that sort otherwise as numbers, and characters of 1 to
    4 bytes.
    """
    alphabet = list("019aZ-_:é߿\u0800\uffee\U0001f600中")
    ids: set[str] = set()
    while len(ids) < count:
        ids.add("".join(rng.choice(alphabet, rng.integers(1, 6))))
    return list(rng.permutation(sorted(ids)))


def random_qrels(
    rng: np.random.Generator, queries: list[str], passages: list[str]
) -> dict[str, dict[str, int]]:
    """Up to 5 judgements of grade 0 to 3 per query, and one passage that is always relevant."""
    qrels = {}
    for query in queries:
        judged = rng.choice(passages, int(rng.integers(1, 6)), replace=False)
        qrels[query] = {str(passage): int(rng.integers(0, 4)) for passage in judged} | {
            passages[0]: 1
        }
    return qrels


def trec_eval(
    scores: np.ndarray, queries: list[str], ids: list[str], qrels: dict
) -> dict[str, dict[str, float]]:
    run = {
        query: dict(zip(ids, map(float, row), strict=True))
        for query, row in zip(queries, scores, strict=True)
    }
    cuts = ",".join(map(str, CUTOFFS))
    wanted = {
        "map",
        "recip_rank",
        *(f"{name}.{cuts}" for name in ("ndcg_cut", "recall", "P", "success")),
    }
    return pytrec_eval.RelevanceEvaluator(qrels, wanted).evaluate(run)


@pytest.mark.parametrize("seed", range(30))
def test_per_query_metrics_equal_trec_eval_in_every_language_and_pool(seed: int) -> None:
    """Small integer embeddings give exact scores with many ties, and duplicates across languages."""
    rng = np.random.default_rng(seed)
    width = int(rng.integers(1, 5))
    names = ["amh", "eng", "swh"]
    queries = random_ids(rng, 80 if seed == 0 else 12)  # 80: more than one block
    sizes = rng.choice([8, 40, 150], 3)
    ids = {name: random_ids(rng, size) for name, size in zip(names, sizes, strict=True)}
    corpus = {
        name: rng.integers(-1, 2, (len(ids[name]), width)).astype(np.float32) for name in names
    }
    vectors = rng.integers(-1, 2, (len(queries), width)).astype(np.float32)
    qrels = {name: random_qrels(rng, queries, ids[name]) for name in names}
    pools = {"all": names, "two": ["swh", "amh"]}

    found = relevant_ranks(
        vectors,
        Corpus(corpus, ids),
        {name: Relevance.of(queries, ids[name], qrels[name]) for name in names},
        Wanted(pools, block_scores=int(rng.choice([1, 20_000, 1 << 20]))),
    )

    settings = [(found.languages[name], [name], {name: name}) for name in names]
    settings += [
        (found.pools[pool], members, {m: m for m in members}) for pool, members in pools.items()
    ]
    for ranked, members, _ in settings:
        pooled_ids = [f"{passage}\t{name}" for name in members for passage in ids[name]]
        pooled_qrels = {
            query: {
                f"{passage}\t{name}": grade
                for name in members
                for passage, grade in qrels[name][query].items()
            }
            for query in queries
        }
        scores = np.concatenate([vectors @ corpus[name].T for name in members], axis=1)
        expected = trec_eval(scores, queries, pooled_ids, pooled_qrels)
        got = metrics.all_metrics(ranked, CUTOFFS)
        for theirs, ours in TREC.items():
            np.testing.assert_allclose(
                got[ours], [expected[q][theirs] for q in queries], atol=1e-12, err_msg=ours
            )


def test_ranks_of_real_valued_scores_equal_a_full_sort() -> None:
    rng = np.random.default_rng(5)
    corpus = {
        "deu": rng.standard_normal((300, 16), np.float32),
        "fin": rng.standard_normal((200, 16), np.float32),
    }
    ids = {name: [f"p{i}" for i in range(len(block))] for name, block in corpus.items()}
    vectors = rng.standard_normal((50, 16), np.float32)
    relevance = {
        name: Relevance(np.arange(50)[:, None], np.ones((50, 1), np.int64)) for name in corpus
    }
    found = relevant_ranks(
        vectors, Corpus(corpus, ids), relevance, Wanted({"all": ["deu", "fin"]}, top_k=20)
    )

    scores = vectors @ np.concatenate(list(corpus.values())).T
    order = np.argsort(-scores, axis=1)
    place = np.argsort(order, axis=1) + 1
    own = np.arange(50)
    expected = np.stack([place[own, own], place[own, 300 + own]], axis=1)
    np.testing.assert_array_equal(found.pools["all"].ranks, expected)
    np.testing.assert_array_equal(found.pools["all"].top, order[:, :20])
    np.testing.assert_array_equal(found.pools["all"].language, [0, 1])
    own_score = scores[own, 300 + own][:, None]
    np.testing.assert_array_equal(
        found.languages["fin"].ranks, (scores[:, 300:] >= own_score).sum(1, keepdims=True)
    )


@pytest.mark.parametrize("k", [1, 2, 7, 60, 100])
def test_top_keys_follow_the_tie_rule_across_the_cut(k: int) -> None:
    rng = np.random.default_rng(k)
    scores = rng.integers(-2, 3, (40, 60)).astype(np.float32)
    scores[scores == 0] *= rng.choice(
        [-1.0, 1.0], (scores == 0).sum()
    )  # -0.0 and 0.0 are equal
    ids = random_ids(rng, 60)
    expected = [
        sorted(range(60), key=lambda c: (row[c], ids[c]), reverse=True)[:k] for row in scores
    ]
    places = torch.from_numpy(precedence(ids))
    keys = top_keys(torch.from_numpy(scores), places, k).flip(1)
    found = places.argsort()[key_places(keys)].numpy()
    np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(key_scores(keys), np.take_along_axis(scores, found, 1))


@pytest.mark.parametrize("width", [5120, 5200])
@pytest.mark.parametrize("values", [3, 1 << 20])
def test_top_keys_of_long_rows(width: int, values: int) -> None:
    rng = np.random.default_rng(width)
    scores = rng.integers(0, values, (9, width)).astype(np.float32)
    places = rng.permutation(width)
    found = key_places(top_keys(torch.from_numpy(scores), torch.from_numpy(places), 9).flip(1))
    expected = [places[np.lexsort((places, -row))[:9]] for row in scores]
    np.testing.assert_array_equal(found, expected)


def test_a_collapsed_model_ranks_by_id_alone() -> None:
    ids = {"eng": ["a", "c", "b"]}
    found = relevant_ranks(
        np.ones((1, 2)),
        Corpus({"eng": np.ones((3, 2))}, ids),
        {"eng": Relevance.of(["q"], ids["eng"], {"q": {"b": 1, "a": 2}})},
    )
    assert found.languages["eng"].ranks.tolist() == [[2, 3]]


def test_queries_without_judgement_in_a_language_are_not_judged_there() -> None:
    ids = {"eng": ["a", "b"], "fra": ["a", "b"]}
    qrels = {"eng": {"q1": {"a": 1}, "q2": {"a": 0}}, "fra": {"q2": {"b": 1}}}
    blocks = {"eng": np.eye(2), "fra": np.eye(2)}
    relevance = {name: Relevance.of(["q1", "q2"], ids[name], qrels[name]) for name in ids}
    found = relevant_ranks(
        np.eye(2), Corpus(blocks, ids), relevance, Wanted({"all": ["eng", "fra"]})
    )
    assert found.languages["eng"].judged.tolist() == [True, False]
    assert found.languages["fra"].judged.tolist() == [False, True]
    assert found.pools["all"].judged.tolist() == [True, True]
    assert metrics.all_metrics(found.languages["fra"], [1])["recall@1"].tolist() == [1.0]
    with pytest.raises(DataError, match="query row 1 has no relevant passage"):
        metrics.average_precision(found.languages["eng"].ranks)


@pytest.mark.parametrize(
    ("blocks", "ids", "message"),
    [
        ({"eng": np.zeros((0, 2))}, {"eng": []}, "eng corpus has no passages"),
        ({"eng": np.ones((2, 2))}, {"eng": ["a"]}, "1 ids for 2 embeddings"),
        ({"eng": np.ones((2, 2))}, {"eng": ["a", "a"]}, "occurs twice"),
        (
            {"eng": np.ones((1, 2)), "fra": np.ones((1, 3))},
            {"eng": ["a"], "fra": ["a"]},
            "fra embeddings have 3",
        ),
        (
            {"eng": np.array([[1, 1], [np.nan, 1]])},
            {"eng": ["a", "b"]},
            "eng passage 'b' holds NaN",
        ),
    ],
)
def test_a_bad_corpus_is_refused(blocks: dict, ids: dict, message: str) -> None:
    with pytest.raises(DataError, match=message):
        Corpus(blocks, ids)


def test_bad_queries_and_qrels_are_refused() -> None:
    corpus = Corpus({"eng": np.ones((1, 2))}, {"eng": ["a"]})
    with pytest.raises(DataError, match="3 dimensions"):
        relevant_ranks(np.ones((1, 3)), corpus, {})
    with pytest.raises(DataError, match="query 1 holds NaN"):
        relevant_ranks(np.array([[1, 1], [1, np.inf]]), corpus, {})
    with pytest.raises(DataError, match="no corpus in language 'fra'"):
        relevant_ranks(np.ones((1, 2)), corpus, {}, Wanted({"all": ["fra"]}))


def test_relevant_passages_that_the_corpus_lacks_count_and_are_never_found() -> None:
    found = Relevance.of(["q", "r"], ["a"], {"q": {"b": 1, "a": 2, "c": 0}, "r": {"r": 1}})
    assert found.columns.tolist() == [[-1, 0], [-1, -1]]
    assert found.grades.tolist() == [[1, 2], [1, 0]]
    corpus = Corpus({"eng": np.ones((1, 2))}, {"eng": ["a"]})
    ranks = relevant_ranks(np.ones((2, 2)), corpus, {"eng": found}).languages["eng"]
    assert ranks.ranks.tolist() == [[NOT_RETRIEVED, 1], [NOT_RETRIEVED, 0]]
