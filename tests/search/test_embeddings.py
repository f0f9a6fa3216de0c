"""The disk store of embeddings: each text once, never another model's vector, nothing lost when
interrupted.
"""

import hashlib
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import numpy as np
import pytest

from hybridbatch.common.errors import DataError, ModelError
from hybridbatch.common.progress import SilentReporter
from hybridbatch.search import embeddings
from hybridbatch.search.embeddings import EmbeddingStore, list_spaces, prune


class HashEncoder:
    """Unit vectors drawn from a hash of model, side and text; counts what it encodes."""

    dimension = 8

    def __init__(
        self, name: str = "a", fail_after: int | None = None, bad: str | None = None
    ) -> None:
        self.name, self.encoded, self.fail_after, self.bad = name, [], fail_after, bad

    def fingerprint(self) -> str:
        return hashlib.sha256(self.name.encode()).hexdigest()

    def vector(self, text: str, side: str) -> np.ndarray:
        seed = int.from_bytes(
            hashlib.sha256(f"{self.name}|{side}|{text}".encode()).digest()[:8], "little"
        )
        vector = np.random.default_rng(seed).standard_normal(self.dimension)
        return (vector / np.linalg.norm(vector)).astype(np.float32)

    def encode(self, texts, side, *, precision, report):
        if self.fail_after is not None and len(self.encoded) + len(texts) > self.fail_after:
            raise KeyboardInterrupt
        self.encoded += texts
        vectors = np.stack([self.vector(text, side) for text in texts])
        vectors[[text == self.bad for text in texts]] = np.nan
        return vectors


TEXTS = [f"text {i % 7}" for i in range(20)]


def test_each_distinct_text_is_encoded_once_and_given_back_exactly(tmp_path):
    encoder = HashEncoder()
    store = EmbeddingStore(encoder, tmp_path)
    expected = np.stack([encoder.vector(text, "query") for text in TEXTS])
    np.testing.assert_array_equal(store.embed(TEXTS, "query"), expected)
    np.testing.assert_array_equal(
        EmbeddingStore(encoder, tmp_path).embed(TEXTS[::-1], "query"), expected[::-1]
    )
    assert sorted(encoder.encoded) == sorted(set(TEXTS))
    store.embed([*TEXTS, "new"], "query")
    assert encoder.encoded.count("new") == 1
    assert len(encoder.encoded) == len(set(TEXTS)) + 1
    assert store.embed([], "query").shape == (0, 8)


def test_models_sides_precisions_and_types_never_share_vectors(tmp_path):
    for name in ("a", "b"):
        for side in ("query", "passage"):
            encoder = HashEncoder(name)
            got = EmbeddingStore(encoder, tmp_path).embed(TEXTS, side)
            np.testing.assert_array_equal(got[3], encoder.vector(TEXTS[3], side))
            assert len(encoder.encoded) == 7
    encoder = HashEncoder("a")
    EmbeddingStore(encoder, tmp_path, precision="bf16").embed(TEXTS, "query")
    half = EmbeddingStore(encoder, tmp_path, dtype="float16").embed(TEXTS, "query")
    assert len(encoder.encoded) == 14
    assert half.dtype == np.float16
    assert len(list_spaces(tmp_path)) == 6


def test_an_interrupted_encoding_goes_on_where_it_stopped(tmp_path, monkeypatch):
    monkeypatch.setattr(embeddings, "SHARD_TEXTS", 2)
    first = HashEncoder(fail_after=5)
    with pytest.raises(KeyboardInterrupt):
        EmbeddingStore(first, tmp_path).embed(TEXTS, "passage")
    assert len(first.encoded) == 4
    second = HashEncoder()
    got = EmbeddingStore(second, tmp_path).embed(TEXTS, "passage")
    assert set(first.encoded).isdisjoint(second.encoded)
    np.testing.assert_array_equal(
        got, np.stack([second.vector(text, "passage") for text in TEXTS])
    )


def test_vectors_without_keys_do_not_count_and_are_removed(tmp_path):
    encoder = HashEncoder()
    EmbeddingStore(encoder, tmp_path).embed(TEXTS, "query")
    next(tmp_path.glob("*/*.keys.npy")).unlink()  # as if killed between the two files
    EmbeddingStore(encoder, tmp_path).embed(TEXTS, "query")
    assert len(encoder.encoded) == 14
    assert len(list(tmp_path.glob("*/*.vectors.npy"))) == 1


def test_vectors_that_another_store_is_writing_are_kept(tmp_path):
    writing = EmbeddingStore(HashEncoder(), tmp_path)
    writing.embed(TEXTS, "query")
    next(tmp_path.glob("*/*.keys.npy")).unlink()  # as if not written yet
    EmbeddingStore(HashEncoder(), tmp_path).embed(TEXTS, "query")
    assert len(list(tmp_path.glob("*/*.vectors.npy"))) == 2


def test_many_writers_at_once(tmp_path, monkeypatch):
    monkeypatch.setattr(embeddings, "SHARD_TEXTS", 3)

    def work(start: int) -> np.ndarray:
        texts = [f"t{i}" for i in range(start, start + 30)]
        return EmbeddingStore(HashEncoder(), tmp_path).embed(texts, "query")

    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(work, range(0, 40, 5)))
    encoder = HashEncoder()
    for start, got in zip(range(0, 40, 5), results, strict=True):
        np.testing.assert_array_equal(
            got, [encoder.vector(f"t{i}", "query") for i in range(start, start + 30)]
        )
    EmbeddingStore(encoder, tmp_path).embed([f"t{i}" for i in range(65)], "query")
    assert encoder.encoded == []


def test_another_process_finds_the_vectors(tmp_path):
    EmbeddingStore(HashEncoder(), tmp_path).embed(TEXTS, "query")
    code = (
        "import sys; from pathlib import Path; from tests.search.test_embeddings import *\n"
        "e = HashEncoder(); EmbeddingStore(e, Path(sys.argv[1])).embed(TEXTS, 'query');"
        " sys.exit(len(e.encoded))"
    )
    assert (
        subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=False).returncode == 0
    )


def test_a_text_without_a_finite_embedding_is_named_and_not_stored(tmp_path):
    with pytest.raises(ModelError, match="'text 3'"):
        EmbeddingStore(HashEncoder(bad="text 3"), tmp_path).embed(TEXTS, "query")
    encoder = HashEncoder()
    assert np.isfinite(EmbeddingStore(encoder, tmp_path).embed(TEXTS, "query")).all()
    assert "text 3" in encoder.encoded


def test_a_damaged_shard_and_another_dimension_are_named(tmp_path):
    EmbeddingStore(HashEncoder(), tmp_path).embed(TEXTS, "query")
    wide = HashEncoder()
    wide.dimension = 16
    with pytest.raises(DataError, match="the model has 16 dimension"):
        EmbeddingStore(wide, tmp_path).embed(TEXTS, "query")
    shard = next(tmp_path.glob("*/*.vectors.npy"))
    shard.write_bytes(shard.read_bytes()[:100])
    with pytest.raises(DataError, match=r"vectors\.npy.*delete"):
        EmbeddingStore(HashEncoder(), tmp_path).embed(TEXTS, "query")


def test_the_store_is_listed_and_pruned_from_the_longest_unused(tmp_path):
    import os

    for age, name in enumerate(["new", "middle", "old"]):
        EmbeddingStore(HashEncoder(name), tmp_path).embed(TEXTS, "query")
        for described in tmp_path.glob(f"{HashEncoder(name).fingerprint()[:32]}*/space.json"):
            os.utime(described, (1e9 - age, 1e9 - age))
    spaces = list_spaces(tmp_path)
    assert [space.model for space in spaces] == ["new", "middle", "old"]
    assert all(space.vectors == 7 and space.bytes > 7 * 8 * 4 for space in spaces)
    assert [space.model for space in prune(tmp_path, spaces[0].bytes + 10)] == ["old", "middle"]
    assert [space.model for space in list_spaces(tmp_path)] == ["new"]


def test_a_size_limit_never_removes_what_was_just_encoded(tmp_path):
    EmbeddingStore(HashEncoder("a"), tmp_path).embed(TEXTS, "query")
    EmbeddingStore(HashEncoder("b"), tmp_path, max_bytes=1).embed(TEXTS, "query")
    assert [space.model for space in list_spaces(tmp_path)] == ["b"]


def test_texts_with_equal_beginnings_and_nul_bytes_are_told_apart(tmp_path):
    encoder = HashEncoder()
    texts = ["a", "a\0", "a\0\0", "", "\0"]
    got = EmbeddingStore(encoder, tmp_path).embed(texts, "query")
    np.testing.assert_array_equal(got, [encoder.vector(text, "query") for text in texts])


class Counting(SilentReporter):
    """Keeps the steps of its bar."""

    def __init__(self) -> None:
        self.steps: list[int] = []

    @contextmanager
    def bar(self, description, total, unit="", done=0):
        yield self

    def advance(self, amount=1, **fields):
        self.steps.append(amount)


class TellingEncoder(HashEncoder):
    """Reports every text to its reporter."""

    def encode(self, texts, side, *, precision, report):
        with report.bar("encode", len(texts), "texts") as bar:
            for _ in texts:
                bar.advance()
        return super().encode(texts, side, precision=precision, report=report)


@pytest.mark.parametrize("kind", [HashEncoder, TellingEncoder])
def test_progress_goes_on_within_a_shard_and_counts_every_text_once(tmp_path, kind):
    report = Counting()
    EmbeddingStore(kind(), tmp_path).embed(TEXTS, "query", report)
    assert sum(report.steps) == len(set(TEXTS))
    assert report.steps.count(1) == (7 if kind is TellingEncoder else 0)
