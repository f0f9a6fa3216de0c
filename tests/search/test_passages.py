"""Searching passages of several languages at once."""

import numpy as np
import pytest

from hybridbatch.common.errors import ConfigError
from hybridbatch.common.records import Texts
from hybridbatch.search import blocked_vectors, passages
from hybridbatch.search.embeddings import EmbeddingStore
from hybridbatch.search.order import precedence
from hybridbatch.search.passages import JoinedVectors, PassageSearch
from tests.helpers.recording import RecordingReporter
from tests.search.test_embeddings import HashEncoder

CORPORA = {
    name: Texts(
        tuple(f"d{i}" for i in range(size)), tuple(f"{name} {i % 9}" for i in range(size))
    )
    for name, size in (("eng", 23), ("swh", 11), ("tha", 17))
}


@pytest.mark.parametrize("in_memory", [1000, 12])
@pytest.mark.parametrize("languages", [None, ["tha", "eng"]])
def test_hits_are_those_of_a_full_sort(tmp_path, monkeypatch, in_memory, languages):
    """Texts come twice, so that scores tie; some corpora are read from disk in blocks."""
    monkeypatch.setattr(passages, "IN_MEMORY", in_memory)
    monkeypatch.setattr(blocked_vectors, "BLOCK_TEXTS", 7)
    store = EmbeddingStore(HashEncoder(), tmp_path)
    found = PassageSearch(store, CORPORA).find(["a", "b"], 12, languages)
    chosen = languages or list(CORPORA)
    keys = [(key, name) for name in chosen for key in CORPORA[name].ids]
    texts = [text for name in chosen for text in CORPORA[name].texts]
    scores = store.encode(["a", "b"], "query") @ store.encode(texts, "passage").T
    for row, hits in zip(scores, found, strict=True):
        order = np.lexsort((precedence(keys), -row))[:12]
        assert [(hit.id, hit.language) for hit in hits] == [keys[i] for i in order]
        assert [hit.text for hit in hits] == [texts[i] for i in order]
        assert [hit.rank for hit in hits] == list(range(1, 13))
        np.testing.assert_allclose([hit.score for hit in hits], row[order], rtol=1e-6)


def test_a_corpus_is_encoded_once(tmp_path):
    first, second = HashEncoder(), HashEncoder()
    one = PassageSearch(EmbeddingStore(first, tmp_path), CORPORA).find(["a"], 3)
    found = PassageSearch(EmbeddingStore(second, tmp_path), CORPORA)
    assert found.find(["a"], 3) == one
    assert second.encoded == ["a"]


def test_a_language_without_passages_is_refused(tmp_path):
    found = PassageSearch(EmbeddingStore(HashEncoder(), tmp_path), CORPORA)
    with pytest.raises(ConfigError, match="the corpus has eng, swh, tha"):
        found.find(["a"], 3, ["deu"])
    assert len(found.find(["a"], 1000)[0]) == 23 + 11 + 17
    assert found.find([], 3) == []


def test_joined_vectors_are_the_parts_one_after_the_other():
    parts = [np.full((size, 2), size, np.float32) for size in (3, 1, 4)]
    joined, expected = JoinedVectors(parts), np.concatenate(parts)
    assert joined.shape == (8, 2)
    for start in range(8):
        for stop in range(start, 10):
            np.testing.assert_array_equal(joined[start:stop], expected[start:stop])
    assert [joined.locate(row) for row in (0, 2, 3, 4, 7)] == [
        (0, 0),
        (0, 2),
        (1, 0),
        (2, 0),
        (2, 3),
    ]


class Away:
    """Stands for language vectors: subtracts a number of each language's own."""

    numbers = {"eng": 0.1, "swh": 0.4, "tha": -0.3, "und": 0.0}  # noqa: RUF012

    def apply(self, vectors, side, languages):
        names = [languages] * len(vectors) if isinstance(languages, str) else languages
        away = np.array([self.numbers[name] for name in names])[:, None]
        turned = vectors - (away if side == "passage" else 2 * away)
        return (turned / np.linalg.norm(turned, axis=1, keepdims=True)).astype(np.float32)

    def tell(self, used):
        return [f"{side} {name}" for side, languages in used.items() for name in languages]


@pytest.mark.parametrize("in_memory", [1000, 12])
def test_language_vectors_are_taken_off_passages_and_queries(tmp_path, monkeypatch, in_memory):
    monkeypatch.setattr(passages, "IN_MEMORY", in_memory)
    monkeypatch.setattr(blocked_vectors, "BLOCK_TEXTS", 7)
    store, away = EmbeddingStore(HashEncoder(), tmp_path), Away()
    reporter = RecordingReporter()
    ready = PassageSearch(store, CORPORA, report=reporter, debias=away)
    found = ready.find(["a", "b"], 5, asked_in=["swh", "tha"])
    ready.find(["a"], 5, asked_in=["swh"])
    assert reporter.warnings == [
        "passage eng", "passage swh", "passage tha", "query swh", "query tha",
    ]  # fmt: skip
    rows = [
        away.apply(store.encode(texts.texts, "passage"), "passage", name)
        for name, texts in CORPORA.items()
    ]
    asked = away.apply(store.encode(["a", "b"], "query"), "query", ["swh", "tha"])
    scores = asked @ np.concatenate(rows).T
    for row, hits in zip(scores, found, strict=True):
        np.testing.assert_allclose(
            [hit.score for hit in hits], np.sort(row)[::-1][:5], rtol=1e-5
        )
