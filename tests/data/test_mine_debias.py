"""Mining with language vectors: the ranking is that of the turned vectors."""

import numpy as np
import pytest

from hybridbatch.common.errors import ConfigError
from hybridbatch.data.hard_negatives import DenseCorpus, Turn
from hybridbatch.data.mine import _searching
from hybridbatch.data.settings import MineConfig
from hybridbatch.debias import methods
from hybridbatch.debias.vectors_file import LanguageVectors, write_vectors
from hybridbatch.model import Encoder
from hybridbatch.search.embeddings import EmbeddingStore
from tests.helpers.recording import RecordingReporter
from tests.search.test_embeddings import HashEncoder


def test_passages_and_queries_of_any_language_are_turned(tmp_path):
    store = EmbeddingStore(HashEncoder(), tmp_path / "cache")
    rng = np.random.default_rng(2)
    width = store.encoder.dimension
    data = {name: rng.normal(size=(9, width)) for name in ("swh", "eng")}
    vectors = LanguageVectors(
        {"query": methods.centre(data), "passage": methods.centre(data)}, {}
    )
    texts = [f"passage {number}" for number in range(40)]
    corpus = DenseCorpus(
        store, lambda rows: [texts[row] for row in rows], 40, tmp_path, MineConfig(), "cpu",
        Turn(vectors, "swh"),
    )  # fmt: skip
    asked = ["what", "where"]
    numbers, scores, positives, _ = corpus.search(asked, 5, np.array([3, -1]), ["eng", "swh"])
    rows = vectors.apply(store.embed(texts, "passage"), "passage", "swh")
    queries = vectors.apply(store.embed(asked, "query"), "query", ["eng", "swh"])
    expected = queries @ rows.T
    np.testing.assert_array_equal(numbers, np.argsort(-expected, axis=1)[:, :5])
    np.testing.assert_allclose(scores, -np.sort(-expected, axis=1)[:, :5], rtol=1e-5)
    assert positives[0] == pytest.approx(expected[0, 3], rel=1e-5)


def test_words_have_no_language_vectors(tmp_path):
    from hybridbatch.common.progress import SILENT

    with pytest.raises(ConfigError, match="add --method dense"):
        _searching(MineConfig(debias=tmp_path), ["swh"], ["swh"], SILENT)


def test_borrowed_vectors_are_told(tmp_path, tiny_model):
    fingerprint = Encoder.load(str(tiny_model)).fingerprint()
    data = {"swh": np.ones((3, 32)), "deu": np.zeros((3, 32))}
    turn = methods.centre(data)
    facts = {"model": {"name": "tiny", "fingerprint": fingerprint}}
    write_vectors(
        tmp_path / "vectors", LanguageVectors({"query": turn, "passage": turn}, facts)
    )
    config = MineConfig(
        method="dense", model=str(tiny_model), debias=tmp_path / "vectors", cache=tmp_path
    )
    recorder = RecordingReporter()
    _searching(config, ["swh"], ["swh", "nld"], recorder)
    assert recorder.warnings == [
        "language vectors (query): no text of nld; using the vector of deu (shared: family and"
        " script)"
    ]
