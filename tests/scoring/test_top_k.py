"""Corpora that are searched, not ranked whole: the same numbers as whole rankings, cut where they
say so.
"""

import os
import signal
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import pytrec_eval

from hybridbatch.common.errors import ConfigError, DataError, ModelError
from hybridbatch.common.memory import Memory
from hybridbatch.common.records import Task, Texts
from hybridbatch.data.tasks.corpus_file import open_texts, write_texts
from hybridbatch.scoring import top_k as large
from hybridbatch.scoring.columns import searched_names
from hybridbatch.scoring.settings import EvalConfig
from hybridbatch.scoring.top_k import Search, index_for
from hybridbatch.search import blocked_vectors as blocks
from hybridbatch.search.blocked_vectors import BLOCK_TEXTS, BlockedVectors, encode_blocks
from hybridbatch.search.embeddings import EmbeddingStore, list_spaces, prune
from hybridbatch.search.order import precedence as one_by_one
from hybridbatch.search.order import precedence_of_corpora as precedence
from tests.search.test_embeddings import HashEncoder

POOLS = {"pool": ("eng", "swh", "tha"), "pool:small": ("swh", "tha")}


def make_task(passages: int = 60, languages: tuple[str, ...] = ("eng", "swh", "tha")) -> Task:
    """Texts come several times, so that scores tie; a query of `tha` has no answer in `swh`; grades
    differ.
    """
    corpus = {
        name: Texts(
            tuple(f"d{i}" for i in range(passages)),
            tuple(f"{name} text {i % (passages // 2)}" for i in range(passages)),
        )
        for name in languages
    }
    queries = {
        name: Texts(
            tuple(f"q{i}" for i in range(8)), tuple(f"{name} query {i}" for i in range(8))
        )
        for name in languages
    }
    qrels = {
        name: {
            f"q{i}": {f"d{7 * i % passages}": 1, f"d{(11 * i + 3) % passages}": 2}
            for i in range(8)
        }
        for name in languages
    }
    if "swh" in qrels:
        qrels["swh"] = {key: row for key, row in qrels["swh"].items() if key != "q3"}
    return Task("t", queries, corpus, qrels)


def cells(task: Task, store: EmbeddingStore, depth: int, index: str = "exact") -> dict:
    made = Search(task, store, index, depth, (1, 10), POOLS)
    return {(one.query_language, one.corpus_language): one for one in made.scores()}


def reference(
    task: Task, store: EmbeddingStore, query: str, members: tuple[str, ...], depth: int
) -> dict:
    """trec_eval on all passages, whose ids are made to sort by (id, language)."""
    qrels, run = {}, {}
    vectors = {name: store.embed(task.corpus[name].texts, "passage") for name in members}
    for key, vector in zip(
        task.queries[query].ids, store.embed(task.queries[query].texts, "query"), strict=True
    ):
        run[key], qrels[key] = {}, {}
        for name in members:
            run[key] |= {
                f"{d}\x01{name}": float(np.float32(vector @ other))
                for d, other in zip(task.corpus[name].ids, vectors[name], strict=True)
            }
            qrels[key] |= {
                f"{d}\x01{name}": grade for d, grade in task.qrels[name].get(key, {}).items()
            }
    measures = {f"map_cut.{depth}", "ndcg_cut.10", "recall.10", "recip_rank"}
    return pytrec_eval.RelevanceEvaluator(
        {k: v for k, v in qrels.items() if v}, measures
    ).evaluate(run)


@pytest.mark.parametrize("depth", [10, 25, 1000])
def test_searched_scores_are_those_of_trec_eval_cut_at_the_depth(tmp_path, depth):
    task, store = make_task(), EmbeddingStore(HashEncoder(), tmp_path)
    found = cells(task, store, depth)
    assert len(found) == 9 + 6
    for (query, corpus), scores in found.items():
        theirs = reference(task, store, query, POOLS.get(corpus, (corpus,)), depth)
        assert set(scores.query_ids) == {
            key for key in theirs if corpus != "swh" or key != "q3"
        }
        for row, key in enumerate(scores.query_ids):
            expected = theirs[key]
            rank = 1 / expected["recip_rank"]
            assert scores.metrics[f"average_precision@{depth}"][row] == pytest.approx(
                expected[f"map_cut_{depth}"], abs=1e-9
            )
            assert scores.metrics[f"reciprocal_rank@{depth}"][row] == pytest.approx(
                expected["recip_rank"] if rank <= depth else 0, abs=1e-9
            )
            assert scores.metrics["ndcg@10"][row] == pytest.approx(
                expected["ndcg_cut_10"], abs=1e-9
            )
            assert scores.metrics["recall@10"][row] == pytest.approx(
                expected["recall_10"], abs=1e-9
            )
    assert set(scores.metrics) <= set(searched_names((1, 10), depth))
    assert "average_precision" not in scores.metrics
    assert f"mAP@{depth}" in scores.means()
    assert "same_language_share@10" in found["eng", "pool"].metrics
    assert "same_language_share@10" not in found["eng", "pool:small"].metrics


@pytest.mark.parametrize("index", ["flat", "hnsw", "ivf", "ivfpq"])
def test_an_index_says_what_it_loses(tmp_path, index):
    task, store = make_task(2000, ("eng",)), EmbeddingStore(HashEncoder(), tmp_path)
    (exact,) = Search(task, store, "exact", 100, (1, 10)).scores()
    search = Search(task, store, index, 100, (1, 10))
    (scores,) = list(search.scores())
    lost = search.facts()["recall_lost"]
    assert set(lost["mean"]) == {"@1", "@10", "@100"} == set(lost["by_corpus_language"]["eng"])
    if index == "flat":
        # passages come twice, and FAISS cuts among equals as it likes
        assert lost["mean"]["@10"] < 0.2
        np.testing.assert_allclose(
            scores.metrics["recall@10"], exact.metrics["recall@10"], atol=0.5
        )
    assert index == "flat" or lost["mean"]["@100"] <= 0.05
    tuning = search.facts()["tuning"]["eng"]
    assert tuning["wanted"] == 0.95 <= tuning["recall"]
    assert search.memory() > 0
    assert index in search.announcement()


def test_arrow_precedence_is_that_of_the_ids():
    rng = np.random.default_rng(3)
    ids = [f"{'é中a'[i % 3]}{i}" for i in rng.permutation(500)]
    corpora = {"swh": Texts(ids, ids), "eng": Texts(ids[:100], ids[:100])}
    expected = one_by_one([(i, "swh") for i in ids] + [(i, "eng") for i in ids[:100]])
    np.testing.assert_array_equal(precedence(corpora), expected)
    with pytest.raises(DataError, match="occurs twice"):
        precedence({"eng": Texts([*ids, ids[7]], [*ids, "x"])})


def test_stored_texts_are_searched_as_tuples_are(tmp_path):
    task, store = make_task(), EmbeddingStore(HashEncoder(), tmp_path / "store")
    for name, texts in task.corpus.items():
        write_texts(tmp_path / f"{name}.arrow", zip(texts.ids, texts.texts, strict=True))
    stored = replace(
        task, corpus={name: open_texts(tmp_path / f"{name}.arrow") for name in task.corpus}
    )
    plain, mapped = cells(task, store, 25), cells(stored, store, 25)
    for cell, scores in plain.items():
        for metric, values in scores.metrics.items():
            np.testing.assert_array_equal(mapped[cell].metrics[metric], values)


def test_memory_decides_and_cutoffs_must_be_within_the_depth(monkeypatch):
    task = make_task()
    config = EvalConfig(cutoffs=(1, 10))
    assert index_for(config, task, 8) is None
    assert index_for(EvalConfig(index="hnsw", cutoffs=(10,)), task, 8) == "hnsw"
    monkeypatch.setattr(large, "main_memory", lambda: Memory(1000, 1000))
    assert index_for(config, task, 8) == "exact"
    with pytest.raises(ConfigError, match="--depth"):
        index_for(EvalConfig(cutoffs=(2000,)), task, 8)
    with pytest.raises(ValueError, match="--depth"):
        EvalConfig(index="exact", cutoffs=(2000,))


@pytest.fixture
def small_blocks(monkeypatch):
    monkeypatch.setattr(blocks, "BLOCK_TEXTS", 7)


TEXTS = [f"text {i % 40}" for i in range(50)]


def test_blocks_read_like_an_array(tmp_path, small_blocks):
    store = EmbeddingStore(HashEncoder(), tmp_path)
    vectors = encode_blocks(store, TEXTS, "passage")
    expected = np.stack([store.encoder.vector(text, "passage") for text in TEXTS])
    assert isinstance(vectors, BlockedVectors)
    assert (len(vectors), vectors.shape) == (50, (50, 8))
    for rows in (
        slice(0, 50),
        slice(3, 5),
        slice(6, 8),
        slice(14, 14),
        slice(40, 99),
        np.array([0, 6, 7, 49]),
    ):
        np.testing.assert_array_equal(vectors[rows], expected[rows])
    half = encode_blocks(
        EmbeddingStore(HashEncoder(), tmp_path, dtype="float16"), TEXTS, "passage"
    )
    np.testing.assert_array_equal(half[0:50], expected.astype(np.float16))


def test_interrupted_blocks_go_on_and_parts_make_the_whole(tmp_path, small_blocks):
    first = HashEncoder(fail_after=20)
    with pytest.raises(KeyboardInterrupt):
        encode_blocks(EmbeddingStore(first, tmp_path), TEXTS, "passage")
    assert len(first.encoded) == 14
    for part in (1, 2, 3):
        encode_blocks(EmbeddingStore(HashEncoder(), tmp_path), TEXTS, "passage", part=(part, 3))
    last = HashEncoder()
    encode_blocks(EmbeddingStore(last, tmp_path), TEXTS, "passage")
    assert last.encoded == []


def test_a_block_with_nan_is_named_and_not_stored(tmp_path, small_blocks):
    with pytest.raises(ModelError, match="'text 9'"):
        encode_blocks(EmbeddingStore(HashEncoder(bad="text 9"), tmp_path), TEXTS, "passage")
    encoder = HashEncoder()
    encode_blocks(EmbeddingStore(encoder, tmp_path), TEXTS, "passage")
    assert "text 9" in encoder.encoded


def test_blocks_of_another_dimension_or_cut_off_are_named(tmp_path, small_blocks):
    store = EmbeddingStore(HashEncoder(), tmp_path)
    vectors = encode_blocks(store, TEXTS, "passage")
    wide = HashEncoder()
    wide.dimension = 16
    with pytest.raises(DataError, match=r"\(7, 8\).*\(7, 16\)"):
        encode_blocks(EmbeddingStore(wide, tmp_path), TEXTS, "passage")[0:5]
    vectors.paths[1].write_bytes(vectors.paths[1].read_bytes()[:130])
    with pytest.raises(DataError, match=r"vectors\.npy.*delete"):
        vectors[8:9]


def test_processes_share_the_blocks(tmp_path):
    """Two processes encode at once, one is killed, the other one ends with all blocks; no block is
    done by both.
    """
    code = (
        "import sys, time; from pathlib import Path; from hybridbatch.search import blocked_vectors"
        " as blocks\n"
        "from hybridbatch.search.embeddings import EmbeddingStore; from"
        " tests.search.test_embeddings import HashEncoder\n"
        "blocks.BLOCK_TEXTS = 10; blocks.WAIT_SECONDS = 0.05\n"
        "class Slow(HashEncoder):\n"
        "    def encode(self, texts, side, **rest):\n"
        "        print(texts[0], flush=True); time.sleep(0.1)\n"
        "        return super().encode(texts, side, **rest)\n"
        "v = blocks.encode_blocks(EmbeddingStore(Slow(), Path(sys.argv[1])), [f't{i:03}' for i in"
        " range(200)], 'passage')\n"
        "print('done', v[0:200].shape)\n"
    )
    start = [sys.executable, "-c", code, str(tmp_path)]
    victim, other = (
        subprocess.Popen(start, stdout=subprocess.PIPE, text=True) for _ in range(2)
    )
    for _ in range(4):  # a block is written while the next are encoded
        assert victim.stdout.readline()
    os.kill(victim.pid, signal.SIGKILL)
    lost = victim.communicate()[0].split()
    done = other.communicate(timeout=60)[0].splitlines()
    assert done[-1] == "done (200, 8)"
    ours = done[:-1]
    assert len(ours) == len(set(ours)) < 20
    assert len(set(lost) & set(ours)) <= 1  # the block it was killed in


def test_what_a_process_uses_is_not_pruned(tmp_path):
    store = EmbeddingStore(HashEncoder("a"), tmp_path)
    encode_blocks(store, TEXTS, "passage")
    EmbeddingStore(HashEncoder("b"), tmp_path).embed(TEXTS, "query")
    assert [space.model for space in prune(tmp_path, 0)] == ["b"]
    assert sum(space.vectors for space in list_spaces(tmp_path)) == len(TEXTS)
    del store
    assert [space.model for space in prune(tmp_path, 0)] == ["a"]


def test_block_size_is_a_part_of_the_layout():
    assert BLOCK_TEXTS == 16_384  # another size would not find the blocks of earlier runs
