"""Official mteb results: equality with stock mteb, random state fenced, no model takes another's
results.
"""

import json
import os
import random
import shutil
import subprocess
import sys
import unicodedata
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

from hybridbatch.common.errors import ConfigError, DataError
from hybridbatch.data.tasks import mteb as tasks
from hybridbatch.data.tasks.mteb import fenced, find_tasks, languages_of
from hybridbatch.model import Encoder
from hybridbatch.scoring.mteb import results, stage
from hybridbatch.scoring.mteb.meta import facts_of, model_meta
from hybridbatch.scoring.mteb.published import Published
from hybridbatch.scoring.mteb.results import (
    StockModel,
    run_stock,
    save,
    score_task,
    verify,
)
from hybridbatch.scoring.mteb.scores import score_dict, search
from hybridbatch.scoring.settings import EvalConfig
from hybridbatch.search import blocked_vectors, exact
from hybridbatch.search.embeddings import EmbeddingStore
from tests.helpers.hub_layouts import write_mteb_tasks
from tests.helpers.mteb_sets import write_task
from tests.helpers.paper import write_labse, write_xlm_r
from tests.helpers.recording import RecordingReporter
from tests.model.test_layouts import write_qwen

mteb = pytest.importorskip("mteb")
from datasets import Dataset  # noqa: E402
from mteb.abstasks.retrieval import AbsTaskRetrieval  # noqa: E402
from mteb.abstasks.task_metadata import TaskMetadata  # noqa: E402
from mteb.abstasks.text.bitext_mining import AbsTaskBitextMining  # noqa: E402
from torch.utils.data import DataLoader  # noqa: E402

LANGUAGES = {"eng": "eng-Latn", "swa": "swh-Latn", "yor": "yor-Latn"}


class ToyRetrieval(AbsTaskRetrieval):
    """Three languages, nine pairs, graded qrels, repeated texts (exact ties), ids that sort unlike
    they are numbered.
    """

    metadata = TaskMetadata(
        name="ToyRetrieval",
        description="toy",
        type="Retrieval",
        category="t2t",
        dataset={"path": "toy/toy", "revision": "1" * 40},
        eval_langs={
            f"{a}-{b}": [LANGUAGES[a], LANGUAGES[b]] for a in LANGUAGES for b in LANGUAGES
        },
        main_score="ndcg_at_10",
        eval_splits=["test"],
    )

    def load_data(self, num_proc: int | None = None, **_: object) -> None:
        rng = np.random.default_rng(5)
        corpus, queries = {}, {}
        for lang in LANGUAGES:
            # a third of the texts come twice
            texts = [f"{lang} passage {i % 30}" for i in range(45)]
            corpus[lang] = Dataset.from_dict(
                {
                    "id": [f"d{i}" for i in range(45)],
                    "title": ["" if i % 2 else f"T{i % 30}" for i in range(45)],
                    "text": texts,
                }
            )
            queries[lang] = Dataset.from_dict(
                {
                    "id": [f"q{i}" for i in range(20)],
                    "text": [f"{lang} question {i}" for i in range(20)],
                }
            )
        qrels = {
            f"q{i}": {
                f"d{j}": int(rng.integers(0, 3)) for j in rng.choice(45, 3, replace=False)
            }
            | {f"d{i}": 1}
            for i in range(20)
        }
        self.dataset = {}
        for pair in self.metadata.eval_langs:
            a, b = pair.split("-")
            self.dataset[pair] = {
                "test": {
                    "corpus": corpus[a],
                    "queries": queries[b],
                    "relevant_docs": dict(qrels),
                    "top_ranked": None,
                }
            }
        self.data_loaded = True


class Embedder:
    """A random unit vector per text (equal texts tie exactly); counts what it is asked to encode."""

    def __init__(self, seed: int = 0) -> None:
        self.seed, self.encoded = seed, 0

    def __call__(self, texts: list[str], side: str) -> np.ndarray:
        self.encoded += len(texts)
        rows = []
        for text in texts:
            rng = np.random.default_rng([self.seed, *f"{side}{text}".encode()])
            row = rng.normal(size=4)
            rows.append(row / np.linalg.norm(row))
        return np.array(rows, np.float32)


@pytest.fixture
def toy() -> ToyRetrieval:
    with fenced():
        return ToyRetrieval()


def test_every_score_equals_stock_mteb(toy: ToyRetrieval) -> None:
    meta = model_meta("toy", "a" * 16, 4)
    ours = score_task(toy, Embedder(), meta)
    toy.data_loaded = False
    stock = run_stock(toy, StockModel(Embedder(), meta))
    for mine, theirs in zip(ours.scores["test"], stock.scores["test"], strict=True):
        assert set(mine) == set(theirs)
        for name, value in theirs.items():
            if isinstance(value, float):
                assert mine[name] == pytest.approx(value, abs=1e-9, nan_ok=True), (
                    theirs["hf_subset"],
                    name,
                )
            else:
                assert mine[name] == value


def test_each_distinct_text_is_encoded_once(toy: ToyRetrieval) -> None:
    counting, stock = Embedder(), Embedder()
    meta = model_meta("toy", "a" * 16, 4)
    score_task(toy, counting, meta)
    run_stock(toy, StockModel(stock, meta))
    assert counting.encoded == 3 * 20 + 3 * 30  # 30 of a language's 45 passages are distinct
    assert stock.encoded == 9 * (20 + 45)


def test_verify_accepts_equal_and_names_a_wrong_score(toy: ToyRetrieval) -> None:
    meta = model_meta("toy", "a" * 16, 4)
    result = score_task(toy, Embedder(), meta)
    rows = verify(toy, result, StockModel(Embedder(), meta), count=2, seed=1)
    assert [row["scores"] > 140 for row in rows] == [True, True]
    for entry in result.scores["test"]:
        entry["map_at_10"] += 0.001
    with pytest.raises(Exception, match="map_at_10"):
        verify(toy, result, StockModel(Embedder(), meta), count=1, seed=1)


def test_random_state_is_fenced(toy: ToyRetrieval) -> None:
    def draw() -> tuple[float, float, float]:
        return random.random(), float(np.random.rand()), float(torch.rand(()))  # noqa: NPY002

    for seeded in range(2):
        random.seed(seeded), np.random.seed(seeded), torch.manual_seed(seeded)  # noqa: NPY002
        expected = draw()
        random.seed(seeded), np.random.seed(seeded), torch.manual_seed(seeded)  # noqa: NPY002
        with fenced():
            ToyRetrieval()
        score_task(toy, Embedder(), model_meta("toy", "a" * 16, 4))
        assert draw() == expected


def test_official_files_tell_models_apart(toy: ToyRetrieval, tmp_path: Path) -> None:
    places = []
    for seed in (0, 1):
        meta = model_meta("mix 0.5", f"{seed}" * 16, 4, {"mix": 0.5, "seed": seed})
        path = save(score_task(toy, Embedder(seed), meta), meta, tmp_path)
        places.append((path, json.loads(path.read_text())["scores"]["test"][0]["main_score"]))
        assert (path.parent / "model_meta.json").exists()
    assert places[0][0] != places[1][0]
    assert places[0][1] != places[1][1]
    assert "experiments" in places[0][0].parts


def test_candidates_and_own_copies_as_in_stock() -> None:
    """Reranking lists and identical ids: against pytrec_eval on what may be retrieved."""
    import pytrec_eval

    rng = np.random.default_rng(2)
    queries, passages = (
        torch.tensor(np.round(rng.normal(size=(n, 3))), dtype=torch.float32) for n in (30, 60)
    )
    ids = [f"d{i}" for i in range(60)]
    candidates = [np.sort(rng.choice(60, 12, replace=False)) for _ in range(30)]
    excluded = np.array([c[0] if i % 2 else -1 for i, c in enumerate(candidates)])
    relevant = np.stack([rng.choice(60, 4, replace=False) for _ in range(30)])
    grades = rng.integers(0, 3, relevant.shape)
    grades[:, 0] = 1
    id_rank = np.empty(60, np.int64)
    id_rank[sorted(range(60), key=lambda i: ids[i], reverse=True)] = np.arange(60)
    found = search(
        queries,
        passages,
        id_rank,
        relevant,
        grades,
        top_k=1000,
        excluded=excluded,
        candidates=candidates,
    )
    scores = queries @ passages.T
    run = {
        f"q{i}": {ids[c]: float(scores[i, c]) for c in candidates[i] if c != excluded[i]}
        for i in range(30)
    }
    qrels = {
        f"q{i}": {ids[c]: int(g) for c, g in zip(relevant[i], grades[i], strict=True)}
        for i in range(30)
    }
    reference = pytrec_eval.RelevanceEvaluator(
        qrels, {"map_cut.10", "ndcg_cut.10", "recall.10"}
    ).evaluate(run)
    ours = score_dict(found, (1, 10))
    for name, theirs in (
        ("map_at_10", "map_cut_10"),
        ("ndcg_at_10", "ndcg_cut_10"),
        ("recall_at_10", "recall_10"),
    ):
        assert ours[name] == pytest.approx(
            np.mean([row[theirs] for row in reference.values()]), abs=1e-5
        )


def test_unknown_task_gets_the_nearest_name() -> None:
    with pytest.raises(Exception, match="BelebeleRetrieval"):
        find_tasks(["BelebeleRetrival"])


@pytest.mark.parametrize(
    ("name", "subset", "query", "corpus"),
    [
        ("MLQARetrieval", "ara-deu", "deu", "arb"),  # corpus first
        ("XPQARetrieval", "eng-ara", "arb", "eng"),
        ("BelebeleRetrieval", "hin_Deva-hin_Latn", "hin-Latn", "hin"),
        ("BelebeleRetrieval", "swh_Latn-swh_Latn", "swh", "swh"),
        ("CUREv1", "es", "spa", "eng"),  # query first
        ("mFollowIRCrossLingual", "eng-rus", "eng", "rus"),
        ("CrossLingualSemanticDiscriminationWMT19", "deu-fra", "deu", "fra"),
        ("XQuADRetrieval", "de", "deu", "deu"),
    ],
)
def test_the_direction_of_a_pair_is_that_of_its_task(
    name: str, subset: str, query: str, corpus: str
) -> None:
    (task,) = find_tasks([name])
    assert languages_of(task, subset) == (query, corpus)


def test_every_cross_lingual_retrieval_task_of_mteb_has_a_direction() -> None:
    with fenced():
        tasks = mteb.get_tasks(
            task_types=[
                "Retrieval",
                "Reranking",
                "InstructionReranking",
                "InstructionRetrieval",
            ]
        )
    lacking = {
        task.metadata.name
        for task in tasks
        if isinstance(task.metadata.eval_langs, dict)
        and "text" in task.metadata.modalities
        and task.metadata.category == "t2t"
        for subset, codes in task.metadata.eval_langs.items()
        if len({code[:3] for code in codes}) == 2 and languages_of(task, subset) is None
    }
    assert lacking == set()


def test_stock_model_uses_the_side_mteb_asks_for() -> None:
    seen = []
    model = StockModel(
        lambda texts, side: seen.append(side) or np.zeros((len(texts), 2), np.float32), None
    )
    from mteb.types import PromptType

    model.encode([{"text": ["a"]}], prompt_type=PromptType.document)
    model.encode([{"text": ["a"]}], prompt_type=PromptType.query)
    assert seen == ["passage", "query"]


def evaluated_officially(
    hub_mirror: ModuleType, folder: Path, model: Path, *options: str
) -> dict[str, Any]:
    """The results of `hybridbatch eval` against a mirror of the hub; its default is two tasks."""
    if "--tasks" not in options:
        write_mteb_tasks(folder / "root" / "datasets")
        options += ("--tasks", "XQuADRetrieval,BelebeleRetrieval", "--languages", "eng,deu")
    with hub_mirror.HubMirror(folder / "root") as url:
        environment = {
            **os.environ, "HF_ENDPOINT": url, "HF_HUB_DISABLE_XET": "1", "HF_HOME": str(folder / "hub"),
            "HYBRIDBATCH_CACHE": str(folder / "cache"),
        }  # fmt: skip
        command = [
            sys.executable, "-m", "hybridbatch", "eval", str(model), "--out", str(folder / "eval"),
            *options,
        ]  # fmt: skip
        done = subprocess.run(
            command, capture_output=True, text=True, env=environment, timeout=240
        )
    assert done.returncode == 0, done.stderr
    result: dict[str, Any] = json.loads((folder / "eval" / "eval.json").read_text())
    return result


def test_unmodified_tasks_through_the_command_line(
    hub_mirror: ModuleType, tmp_path: Path, tiny_model: Path
) -> None:
    """`hybridbatch eval --tasks XQuADRetrieval,BelebeleRetrieval --verify 2`."""
    result = evaluated_officially(hub_mirror, tmp_path, tiny_model, "--verify", "2")
    xquad, belebele = result["official"]
    assert [row["subset"] for row in xquad["by_subset"]] == ["de", "en"]
    assert belebele["subsets"] == 4  # eng-eng, deu-deu, and both directions
    pairs = {
        row["subset"]: (row["query_language"], row["corpus_language"])
        for row in belebele["by_subset"]
    }
    assert pairs["eng_Latn-deu_Latn"] == ("deu", "eng")
    assert pairs["deu_Latn-eng_Latn"] == ("eng", "deu")
    for row in (xquad, belebele):
        assert len(row["verified"]) == 2
        official = json.loads((tmp_path / "eval" / row["file"]).read_text())
        assert official["task_name"] == row["task"]
        assert (tmp_path / "eval" / row["file"]).with_name("model_meta.json").exists()


@pytest.mark.slow
@pytest.mark.parametrize("layout", ["LaBSE", "XLM-R", "Qwen3", "nomic", "prompts by task"])
def test_layouts_of_published_models_score_as_on_mtebs_own_loader(
    hub_mirror: ModuleType, tmp_path: Path, tiny_model: Path, layout: str
) -> None:
    folder = tmp_path / "model"
    if layout == "LaBSE":
        write_labse(folder)
    elif layout == "XLM-R":
        write_xlm_r(folder)
    elif layout == "Qwen3":
        write_qwen(folder, "left")
    elif layout == "nomic":
        sides = {"query": "search_query: ", "document": "search_document: "}
        kinds = {"Classification": "classification: ", "STS": "classification: "}
        stating(tiny_model, folder, sides | kinds)
    else:
        named = {"XQuADRetrieval-query": "find the answer: ", "Retrieval-document": "passage: "}
        stating(tiny_model, folder, named | {"BelebeleRetrieval": "belebele: "})
    result = evaluated_officially(hub_mirror, tmp_path, folder, "--verify", "2")
    for row in result["official"]:
        assert len(row["verified"]) == 2
        place = (tmp_path / "eval" / row["file"]).with_name("model_meta.json")
        meta = json.loads(place.read_text())
        assert meta["n_parameters"] > 0
        assert meta["max_tokens"] > 0


# One of each type that an encoder of text can run.
OF_EACH_TYPE = {
    "BitextMining": "NTREXBitextMining",
    "Classification": "AfriHateClassification",
    "Clustering": "MasakhaNEWSClusteringS2S",
    "MultilabelClassification": "EmotionAnalysisPlus",
    "PairClassification": "AfriXNLI",
    "Reranking": "MIRACLReranking",
    "Retrieval": "XQuADRetrieval",
    "STS": "SemRel24STS",
}


@pytest.mark.slow
def test_a_benchmark_runs_whole_and_names_the_tasks_without_data(
    hub_mirror: ModuleType, tmp_path: Path, tiny_model: Path
) -> None:
    """``--benchmark "MTEB(Africa, v1)"``, of which the hub has one task of each type."""
    found, _ = tasks.find_benchmark("MTEB(Africa, v1)")
    for task in found:
        if task.metadata.name in OF_EACH_TYPE.values():
            write_task(tmp_path / "root" / "datasets", task)
    (followed,) = find_tasks(["Core17InstructionRetrieval"])
    write_task(tmp_path / "root" / "datasets", followed)
    options = ["--benchmark", "MTEB(Africa, v1)", "--tasks", "Core17InstructionRetrieval"]
    options += ["--languages", "swh,hau,eng", "--verify", "1"]
    result = evaluated_officially(hub_mirror, tmp_path, tiny_model, *options)
    scored = {row["type"]: row["task"] for row in result["official"]}
    assert scored == OF_EACH_TYPE | {"InstructionReranking": "Core17InstructionRetrieval"}
    for row in result["official"]:
        assert [one["loader"] for one in row["verified"]] == ["sentence-transformers"]
        assert (tmp_path / "eval" / row["file"]).is_file()
    reasons = {one["task"]: one["reason"] for one in result["left_out"]}
    assert set(reasons) | set(scored.values()) == {
        *(task.metadata.name for task in found),
        "XM3600T2IRetrieval",
        "Core17InstructionRetrieval",
    }
    assert "mteb/FloresBitextMining cannot be loaded" in reasons["FloresBitextMining"]
    assert "none of the languages" in reasons["TswanaNewsClassification"]


# The model as its own files say


def stating(tiny_model: Path, folder: Path, prompts: dict[str, str], length: int = 100) -> Path:
    shutil.copytree(tiny_model, folder)
    said = {"prompts": prompts, "default_prompt_name": "STS" if "STS" in prompts else None}
    (folder / "config_sentence_transformers.json").write_text(json.dumps(said))
    transformer = {"max_seq_length": length, "do_lower_case": False}
    (folder / "sentence_bert_config.json").write_text(json.dumps(transformer))
    return folder


TEXTS = ["wapi mto", "Which lake is deepest? " * 30, "ñandú " * 3]


@pytest.mark.parametrize(
    "prompts",
    [
        {},
        {"query": "q: ", "passage": "p: "},
        {"query": "q: ", "document": "d: ", "STS": "s: "},
        {"ToyRetrieval-query": "toy: ", "Retrieval": "ret: "},
    ],
)
def test_vectors_for_a_task_are_those_of_mtebs_own_loader(
    toy: ToyRetrieval, tiny_model: Path, tmp_path: Path, prompts: dict[str, str]
) -> None:
    from mteb.types import PromptType

    folder = stating(tiny_model, tmp_path / "model", prompts)
    config = EvalConfig(model=str(folder))
    store = EmbeddingStore(Encoder.load(str(folder)), tmp_path / "cache")
    published = Published(config, store)
    assert published.departures == {}
    theirs = published.own_loader(model_meta("tiny", "a" * 16, 32))
    assert theirs.model.max_seq_length == 100
    embed = published.embed_for(toy)
    texts = [*TEXTS, unicodedata.normalize("NFD", TEXTS[2])]
    data = DataLoader(Dataset.from_dict({"text": texts}), batch_size=4)
    kinds = (("query", PromptType.query), ("passage", PromptType.document), ("text", None))
    for side, kind in kinds:
        expected = theirs.encode(
            data, task_metadata=toy.metadata, hf_split="test", hf_subset="x", prompt_type=kind
        )
        expected = expected / np.linalg.norm(expected, axis=1, keepdims=True)
        np.testing.assert_allclose(embed(texts, side), expected, atol=1e-5)


def without_normalize(tiny_model: Path, folder: Path, similarity: str | None) -> Published:
    """A model whose vectors have lengths of their own, as published."""
    stating(tiny_model, folder, {})
    modules = json.loads((folder / "modules.json").read_text())
    (folder / "modules.json").write_text(json.dumps(modules[:2]))
    said = {"prompts": {}, "similarity_fn_name": similarity}
    (folder / "config_sentence_transformers.json").write_text(json.dumps(said))
    store = EmbeddingStore(Encoder.load(str(folder)), folder.parent / "cache")
    return Published(EvalConfig(model=str(folder)), store)


def test_vectors_have_the_lengths_that_the_model_gives_them(
    toy: ToyRetrieval, tiny_model: Path, tmp_path: Path
) -> None:
    published = without_normalize(tiny_model, tmp_path / "model", None)
    theirs = published.own_loader(model_meta("tiny", "a" * 16, 32))
    (task,) = find_tasks(["STS12"])
    data = DataLoader(Dataset.from_dict({"text": TEXTS}), batch_size=4)
    expected = theirs.encode(
        data, task_metadata=task.metadata, hf_split="test", hf_subset="x", prompt_type=None
    )
    assert (abs(np.linalg.norm(expected, axis=1) - 1) > 0.1).all()
    np.testing.assert_allclose(published.embed_for(task)(TEXTS, "text"), expected, atol=1e-4)
    ranked = published.embed_for(toy)(TEXTS, "query")  # by cosine
    np.testing.assert_allclose(np.linalg.norm(ranked, axis=1), 1, atol=1e-5)


@pytest.mark.parametrize("similarity", ["dot", "euclidean"])
def test_passages_are_ranked_by_the_similarity_that_the_model_states(
    toy: ToyRetrieval, tiny_model: Path, tmp_path: Path, similarity: str
) -> None:
    published = without_normalize(tiny_model, tmp_path / "model", similarity)
    assert published.encoder
    meta = model_meta("tiny", "a" * 16, 32, None, facts_of(published.encoder))
    assert meta.similarity_fn_name.value == similarity
    result = score_task(toy, published.embed_for(toy), meta)
    rows = verify(toy, result, published.own_loader(meta), count=1, seed=1, tolerance=1e-3)
    assert rows[0]["scores"] > 10


def test_mteb_says_nothing_of_prompts_with_names_of_ours(
    toy: ToyRetrieval, tiny_model: Path, tmp_path: Path, caplog: Any, recwarn: Any
) -> None:
    folder = stating(tiny_model, tmp_path / "model", {"query": "q: ", "passage": "p: "})
    store = EmbeddingStore(Encoder.load(str(folder)), tmp_path / "cache")
    Published(EvalConfig(model=str(folder)), store).embed_for(toy)
    assert "is not valid" not in caplog.text
    assert not [one for one in recwarn if "is not valid" in str(one.message)]


def test_settings_of_the_user_hold_and_are_told(tiny_model: Path, tmp_path: Path) -> None:
    folder = stating(tiny_model, tmp_path / "model", {"query": "q: "})
    report = RecordingReporter()
    config = EvalConfig(model=str(folder), query_prompt="mine: ", max_passage_tokens=20)
    store = EmbeddingStore(
        Encoder.load(str(folder), query_prompt="mine: ", max_passage_tokens=20),
        tmp_path / "cache",
    )
    published = Published(config, store, report)
    assert published.departures == {
        "max_passage_tokens": {"here": 20, "published": 100},
        "query_prompt": {"here": "mine: ", "published": "q: "},
    }
    assert published.own_loader(None) is None
    assert any(
        "these scores are not comparable with those of mteb" in warning
        for warning in report.warnings
    )


def test_precision_pooling_and_storage_of_the_user_are_told(
    tiny_model: Path, tmp_path: Path
) -> None:
    folder = stating(tiny_model, tmp_path / "model", {})
    chosen: dict[str, Any] = {"precision": "bf16", "stored_as": "float16"}
    encoder = Encoder.load(str(folder))
    store = EmbeddingStore(encoder, tmp_path / "cache", precision="bf16", dtype="float16")
    published = Published(EvalConfig(model=str(folder), **chosen), store)
    rounded = {
        "precision": {"here": "bf16", "published": "fp32"},
        "stored_as": {"here": "float16", "published": "float32"},
    }
    assert published.departures == rounded
    assert published.own_loader(model_meta("tiny", "a" * 16, 32)) is not None
    published = Published(EvalConfig(model=str(folder), pooling="cls", **chosen), store)
    pooled = {"pooling": {"here": "cls", "published": "mean"}}
    assert published.departures == rounded | pooled
    assert published.own_loader(None) is None


def test_subsets_beyond_a_number_of_texts_are_loaded_one_after_the_other(
    toy: ToyRetrieval, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        tasks, "_texts_by_subset", lambda task: dict.fromkeys(task.hf_subsets, 4)
    )
    assert [len(part.hf_subsets) for part in tasks.parts(toy, 12)] == [3, 3, 3]
    assert [part is toy for part in tasks.parts(toy, 36)] == [True]
    meta = model_meta("toy", "a" * 16, 4)
    whole = score_task(toy, Embedder(), meta)
    monkeypatch.setattr(results, "parts", lambda task: tasks.parts(task, 8))
    apart = score_task(toy, Embedder(), meta)
    assert json.dumps(apart.scores) == json.dumps(whole.scores)  # where NaN is NaN


class ToyOwnCopies(ToyRetrieval):
    """The ids of the queries are ids of passages, which their queries must not find."""

    ignore_identical_ids = True

    def load_data(self, num_proc: int | None = None, **_: object) -> None:
        super().load_data()
        for subset in self.dataset.values():
            data = subset["test"]
            named = [f"d{i}" for i in range(20)]
            data["queries"] = data["queries"].remove_columns("id").add_column("id", named)
            renamed = {f"d{query[1:]}": found for query, found in data["relevant_docs"].items()}
            data["relevant_docs"] = renamed


class WholeNumbers:
    """A vector of whole numbers for each text: its products are exact, whatever their order."""

    name, dimension = "whole numbers", 6

    def fingerprint(self) -> str:
        return "a" * 64

    def encode(self, texts: list[str], side: str, **_: object) -> np.ndarray:
        seeds = [[*f"{side}{text}".encode()] for text in texts]
        rows = [np.random.default_rng(seed).integers(-500, 500, 6) for seed in seeds]
        return np.array(rows, np.float32)


@pytest.mark.parametrize("kind", [ToyRetrieval, ToyOwnCopies])
def test_a_large_corpus_is_searched_in_blocks_with_the_scores_of_stock_mteb(
    kind: type[ToyRetrieval], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Blocks of vectors and of the search are smaller than the corpora; equal texts tie."""
    config = EvalConfig(model="random", cache=tmp_path / "store")
    store = EmbeddingStore(WholeNumbers(), tmp_path / "store")
    by_dot = {"similarity_fn_name": "dot"}  # whole numbers stay whole
    meta = model_meta("toy", "a" * 16, store.encoder.dimension, None, by_dot)
    with fenced():
        task = kind()
    embed = Published(config, store).embed_for(task)
    stock = run_stock(task, StockModel(embed, meta))
    task.unload_data()
    monkeypatch.setattr(tasks, "LARGE_CORPUS", 10)
    monkeypatch.setattr(tasks, "ROWS", 7)
    monkeypatch.setattr(blocked_vectors, "BLOCK_TEXTS", 8)
    monkeypatch.setattr(exact, "CHUNK", 9)
    monkeypatch.setattr(results, "_embed_distinct", only_queries(results._embed_distinct))
    ours = score_task(task, embed, meta)
    for mine, theirs in zip(ours.scores["test"], stock.scores["test"], strict=True):
        for name, value in theirs.items():
            if isinstance(value, float):
                assert mine[name] == pytest.approx(value, abs=1e-5, nan_ok=True), name


def only_queries(embed_distinct: Callable[..., Any]) -> Callable[..., Any]:
    """`_embed_distinct`, which must get no passage."""

    def checked(texts: Any, side: str, embed: Any) -> Any:
        held = list(texts)
        assert side == "query" or not held
        return embed_distinct(held, side, embed)

    return checked


def test_passages_of_a_large_corpus_that_no_query_may_find_are_not_read(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    corpus = Dataset.from_dict({"id": list("abcd"), "title": [""] * 4, "text": list("ABCD")})
    monkeypatch.setattr(tasks, "LARGE_CORPUS", 2)
    assert tasks._passages(corpus, {"q": ["b"], "r": ["d", "b"]}) == (["b", "d"], ["B", "D"])
    ids, texts = tasks._passages(corpus, None)
    assert (list(ids), list(texts), texts[1], texts[-1]) == (
        list("abcd"),
        list("ABCD"),
        "B",
        "D",
    )


def test_a_benchmark_goes_by_its_name_or_alias_with_all_its_types() -> None:
    found, left_out = tasks.find_benchmark("MTEB(Indic)")
    kinds = {task.metadata.type for task in found}
    assert {"BitextMining", "Classification", "PairClassification", "Retrieval"} <= kinds
    assert not left_out
    found, left_out = tasks.find_benchmark("MTEB(Africa, v1)")
    assert len(found) == 34
    assert [(one.task, one.reason) for one in left_out] == [
        ("XM3600T2IRetrieval", "needs text, image, not only text")
    ]
    assert len(tasks.find_benchmark("AfriMTEB")[0]) == 34
    with pytest.raises(ConfigError, match=r"unknown mteb benchmark .*MTEB\(Africa, v1"):
        tasks.find_benchmark("MTEB(Africa, v2)")


@pytest.mark.parametrize(
    ("cause", "tried"), [(ConnectionError("refused"), 2), (KeyError("train"), 5)]
)
def test_a_benchmark_without_any_score_is_an_error(
    cause: Exception, tried: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If the hub cannot be reached, only a few tasks wait for it."""
    asked: list[str] = []

    def fails(task: Any, *_: object) -> None:
        asked.append(task.metadata.name)
        raise DataError("its data cannot be loaded") from cause

    monkeypatch.setattr(stage, "score_task", fails)
    config = EvalConfig(model="random", benchmark="MTEB(Indic)")
    store = EmbeddingStore(WholeNumbers(), tmp_path / "store")
    with fenced():
        every = [ToyRetrieval() for _ in range(5)]
    with pytest.raises(DataError, match=r"no task of MTEB\(Indic\) can be scored; .*loaded"):
        stage.score_official(config, every, store, tmp_path, RecordingReporter())
    assert len(asked) == tried
    named = config.model_copy(update={"tasks": ("ToyRetrieval",)})
    with pytest.raises(DataError, match="its data cannot be loaded"):
        stage.score_official(named, every, store, tmp_path, RecordingReporter())


class ToyBitext(AbsTaskBitextMining):
    """Sentences whose vectors are those of their translations."""

    metadata = TaskMetadata(
        name="ToyBitext", description="toy", type="BitextMining", category="t2t",
        dataset={"path": "toy/toy", "revision": "1" * 40}, main_score="f1", eval_splits=["test"],
        eval_langs={"eng-swa": ["eng-Latn", "swh-Latn"]},
    )  # fmt: skip

    def load_data(self, num_proc: int | None = None, **_: object) -> None:
        texts = [f"text {i}" for i in range(20)]
        pair = Dataset.from_dict({"sentence1": texts, "sentence2": texts})
        self.dataset = {"eng-swa": {"test": pair}}
        self.data_loaded = True


def test_bitext_mining_runs_through_mtebs_own_evaluator() -> None:
    with fenced():
        task = ToyBitext()
    sides = []

    def embed(texts: list[str], side: str) -> np.ndarray:
        sides.append(side)
        return Embedder()(texts, "any")

    result = score_task(task, embed, model_meta("toy", "a" * 16, 4))
    assert result.scores["test"][0]["main_score"] == pytest.approx(1.0)
    assert set(sides) == {"text"}
    assert languages_of(task, "eng-swa") == ("eng", "swh")


def test_model_meta_tells_what_the_files_say(tiny_model: Path, tmp_path: Path) -> None:
    folder = stating(tiny_model, tmp_path / "run" / "model", {"query": "q: "})
    card = "---\nlicense: MIT\nbase_model: acme/start\n---\n# A card\n"
    (folder / "README.md").write_text(card)
    run = {"trained_languages": ["eng", "swh"], "model": {"name": "e5-small-q4"},
           "data": {"sources": ["mrtydi", "own"]}}  # fmt: skip
    (tmp_path / "run" / "train.json").write_text(json.dumps(run))
    facts = facts_of(Encoder.load(str(tmp_path / "run")))
    assert facts["languages"] == ["eng-Latn", "swh-Latn"]
    assert facts["license"] == "mit"
    assert facts["adapted_from"] == "intfloat/multilingual-e5-small"
    assert facts["training_datasets"] == {"MrTidyRetrieval", "own"}
    assert facts["max_tokens"] == 100
    assert facts["n_parameters"] > facts["n_embedding_parameters"] > 0
    meta = model_meta("x", "a" * 16, 32, None, facts)
    assert meta.model_dump(mode="json")["license"] == "mit"
