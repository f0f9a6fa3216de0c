"""Smaller versions of large corpora keep what is judged."""

import pytest

from hybridbatch.common.records import Task, Texts
from hybridbatch.data.tasks import thinning
from hybridbatch.data.tasks.thinning import thinned


def task_of(passages: int) -> Task:
    ids = tuple(f"p{n}" for n in range(passages))
    corpus = {"eng": Texts(ids, tuple(f"text {one}" for one in ids), "content")}
    queries = {"eng": Texts(("q",), ("what?",))}
    return Task("t", queries, corpus, {"eng": {"q": {"p7": 1, "p8": 0}}}, parallel=False)


def test_judged_passages_stay_and_shares_are_nested(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(thinning, "LEAST_PASSAGES", 10)
    whole = task_of(2000)
    small, large = thinned(whole, 0.05).corpus["eng"], thinned(whole, 0.2).corpus["eng"]
    assert {"p7", "p8"} < set(small.ids) < set(large.ids)
    assert 60 < len(small.ids) < 150 < 300 < len(large.ids) < 500
    assert small.texts[3] == f"text {small.ids[3]}"
    assert small.texts[2:5] == [f"text {one}" for one in small.ids[2:5]]
    assert len({whole.corpus["eng"].fingerprint, small.fingerprint, large.fingerprint}) == 3
    assert "compare with equal shares only" in thinned(whole, 0.05).notes[0]


def test_a_small_corpus_stays_whole():
    whole = task_of(2000)
    assert thinned(whole, 0.05) is whole
    assert thinned(whole, 1.0) is whole
