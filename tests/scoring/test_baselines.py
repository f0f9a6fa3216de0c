"""Baselines: BM25 of every corpus and pool as its own index gives it, and an order by chance."""

import numpy as np
import pytest
from scipy.stats import kstest

from hybridbatch.common.records import Task, Texts
from hybridbatch.scoring.averages import POOL
from hybridbatch.scoring.baselines import LexicalRanker, RandomEncoder
from hybridbatch.scoring.ranks import Relevance, Wanted
from hybridbatch.search.bm25 import BM25

WORDS = [
    "river",
    "lake",
    "mountain",
    "1904",
    "Kilimanjaro",
    "mto",
    "ziwa",
    "mlima",
    "гора",
    "река",
]


def lexical_task(passages: int = 25, queries: int = 10) -> Task:
    rng = np.random.default_rng(3)

    def texts(n: int, prefix: str) -> Texts:
        return Texts(
            tuple(f"{prefix}{i}" for i in range(n)),
            tuple(" ".join(rng.choice(WORDS, rng.integers(1, 6))) for _ in range(n)),
        )

    languages = ("eng", "swh", "rus")
    return Task(
        "words",
        {name: texts(queries, "q") for name in languages},
        {name: texts(passages, "d") for name in languages},
        {name: {f"q{i}": {f"d{i}": 1} for i in range(queries)} for name in languages},
    )


def trec_rank(scores: np.ndarray, keys: list[tuple[str, str]], wanted: tuple[str, str]) -> int:
    order = sorted(zip(scores.tolist(), keys, strict=True), reverse=True)
    return 1 + [key for _, key in order].index(wanted)


def test_every_corpus_and_pool_is_ranked_by_its_own_index():
    task = lexical_task()
    ranker = LexicalRanker(task)
    relevance = {
        name: Relevance.of(task.queries[name].ids, task.corpus[name].ids, task.qrels[name])
        for name in task.corpus
    }
    pools = {POOL: ("eng", "swh", "rus"), "part": ("swh", "rus")}
    for language, queries in task.queries.items():
        wanted = Wanted(pools, top_k=5, translations=ranker.passages.translations())
        found = ranker.ranks(language, relevance, wanted)
        for name, corpus in task.corpus.items():
            scores = BM25.build(corpus.texts).scores(queries.texts)
            keys = [(id_, name) for id_ in corpus.ids]
            expected = [trec_rank(row, keys, (f"d{i}", name)) for i, row in enumerate(scores)]
            assert found.languages[name].ranks[:, 0].tolist() == expected
        for pool, members in pools.items():
            keys = [(id_, name) for name in members for id_ in task.corpus[name].ids]
            scores = BM25.build(
                [text for name in members for text in task.corpus[name].texts]
            ).scores(queries.texts)
            for i, row in enumerate(scores):
                expected = [trec_rank(row, keys, (f"d{i}", name)) for name in members]
                assert found.pools[pool].ranks[i].tolist() == expected
                first = [ranker.passages.language[j] for j in found.pools[pool].top[i]]
                assert set(first) <= {ranker.passages.number(name) for name in members}


def test_texts_without_a_shared_term_are_ordered_by_id():
    task = Task(
        "t",
        {"eng": Texts(("q",), ("river",))},
        {
            "eng": Texts(("a", "b", "c"), ("lake", "river", "?")),
            "rus": Texts(("a", "b"), ("река", "гора")),
        },
        {"eng": {"q": {"b": 1}}, "rus": {"q": {"a": 1}}},
    )
    ranker = LexicalRanker(task)
    relevance = {
        name: Relevance.of(("q",), task.corpus[name].ids, task.qrels[name])
        for name in task.corpus
    }
    found = ranker.ranks("eng", relevance)
    assert found.languages["eng"].ranks.tolist() == [[1]]
    assert found.languages["rus"].ranks.tolist() == [[2]]
    assert not found.pools


def test_a_corpus_without_any_term_can_be_ranked():
    task = Task(
        "t",
        {"eng": Texts(("q",), ("river",))},
        {"eng": Texts(("a", "b"), ("?", "!"))},
        {"eng": {"q": {"a": 1}}},
    )
    found = LexicalRanker(task).ranks(
        "eng", {"eng": Relevance.of(("q",), ("a", "b"), task.qrels["eng"])}
    )
    assert found.languages["eng"].ranks.tolist() == [[2]]


def test_chance_ranks_are_uniform_and_depend_on_seed_and_text_alone():
    encoder = RandomEncoder(13)
    passages = encoder.encode([f"p{i}" for i in range(200)], "passage")
    queries = encoder.encode([f"q{i}" for i in range(400)], "query")
    assert np.linalg.norm(passages, axis=1) == pytest.approx(np.ones(200), abs=1e-6)
    scores = queries @ passages.T
    ranks = (scores > scores[np.arange(400), np.arange(400) % 200][:, None]).sum(axis=1)
    assert kstest((ranks + 0.5) / 200, "uniform").pvalue > 0.01
    assert np.array_equal(encoder.encode(["p7"], "passage")[0], passages[7])
    assert not np.array_equal(RandomEncoder(14).encode(["p7"], "passage")[0], passages[7])
    assert encoder.fingerprint() != RandomEncoder(14).fingerprint()
    assert encoder.encode([], "query").shape == (0, encoder.dimension)
