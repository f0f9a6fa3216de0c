"""Validation by retrieval equals the scorer's mAP, and chooses the checkpoint."""

import numpy as np
import pytest
import torch
from torch.nn import functional

from hybridbatch.common.errors import ConfigError, DataError
from hybridbatch.common.files import read_json
from hybridbatch.common.records import Task, Texts
from hybridbatch.common.settings import build
from hybridbatch.common.tokens import TokenArrays
from hybridbatch.data.store.reader import Store
from hybridbatch.data.store.writer import write_store
from hybridbatch.model import Encoder
from hybridbatch.scoring.full_ranking import score_task
from hybridbatch.training.retrieval_validation import (
    RetrievalSet,
    average_precision,
    plan_retrieval,
)
from hybridbatch.training.settings import TrainConfig
from hybridbatch.training.train import train
from tests.helpers.parallel import rows
from tests.helpers.recording import RecordingReporter
from tests.helpers.tiny import write_tiny_model


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("retrieval")
    source = {"sources": [{"name": "toy", "licence": "CC0-1.0"}]}
    write_store(folder / "toy", [*rows(24), *rows(30, "validation", 3)], provenance=source)
    write_store(folder / "small", rows(24), provenance=source)
    write_tiny_model(folder / "tiny")
    return folder


def planned(place, **sizes):
    store = Store.open(place / "toy")
    encoder = Encoder.load(str(place / "tiny"))
    return plan_retrieval(store, store.index("validation"), encoder, **sizes)


def of_vectors(found: RetrievalSet, seed: int, size: int = 6):
    """Random vectors of a set's texts, and what embeds its tokens as them."""
    rng = np.random.default_rng(seed)
    sides = []
    for tokens in (found.queries, found.passages):
        raw = torch.tensor(rng.normal(size=(len(tokens), size)), dtype=torch.float32)
        sides.append(functional.normalize(raw, dim=1))
    queries, passages = sides

    def embed(tokens: TokenArrays) -> torch.Tensor:
        return queries if tokens is found.queries else passages

    return queries.numpy(), passages.numpy(), embed


def test_it_is_the_map_of_the_scorer(place):
    found = planned(place, queries=40, passages=70)
    queries, passages, embed = of_vectors(found, 1)
    names = [found.languages[n] for n in found.passage_language]
    ids = {n: f"d{n}" for n in range(len(names))}
    spoken = sorted(set(names))
    asked = [found.languages[n] for n in found.query_language]

    def texts(of, prefix):
        return {
            code: Texts(
                *(tuple(f"{prefix}{n}" for n, name in enumerate(of) if name == code),) * 2
            )
            for code in sorted(set(of))
        }

    qrels = {
        code: {
            f"q{n}": {ids[p]: 1 for p in relevant.tolist() if names[p] == code}
            for n, relevant in enumerate(found.relevant)
            if any(names[p] == code for p in relevant.tolist())
        }
        for code in spoken
    }
    task = Task(name="t", queries=texts(asked, "q"), corpus=texts(names, "d"), qrels=qrels)
    order_q = [int(i[1:]) for one in task.queries.values() for i in one.ids]
    order_p = [int(i[1:]) for one in task.corpus.values() for i in one.ids]
    given = {"query": queries[order_q], "passage": passages[order_p]}
    values: dict[str, dict[str, list]] = {}
    for one in score_task(task, lambda _, side: given[side], cutoffs=(10,)):
        setting = (
            "monolingual" if one.query_language == one.corpus_language else "cross-lingual"
        )
        if one.corpus_language not in spoken:
            setting = "multilingual"
        scored = dict(
            zip(one.query_ids, one.metrics["average_precision"].tolist(), strict=True)
        )
        values.setdefault(setting, {}).setdefault(one.query_language, []).append(scored)
    measured = found.measure(embed)
    for setting, by_language in values.items():
        means = []
        for parts in by_language.values():
            whole = {q for part in parts for q in part}
            means.append(np.mean([np.mean([p[q] for p in parts if q in p]) for q in whole]))
        assert measured[f"map/{setting}"] == pytest.approx(np.mean(means), abs=1e-6), setting
    parts = [measured[f"map/{s}"] for s in ("monolingual", "cross-lingual", "multilingual")]
    assert measured["map"] == pytest.approx(np.mean(parts))


def test_sizes_are_kept_and_sets_are_nested(place):
    small, large = (
        planned(place, queries=9, passages=12),
        planned(place, queries=60, passages=90),
    )
    assert len(small.queries) == 9
    assert 12 <= len(small.passages) <= 15
    assert len(large.queries) > 50
    ids = {tuple(large.passages[n]) for n in range(len(large.passages))}
    assert {tuple(small.passages[n]) for n in range(len(small.passages))} <= ids
    assert all(len(each) for each in small.relevant)
    again = planned(place, queries=9, passages=12)
    np.testing.assert_array_equal(again.queries.ids, small.queries.ids)


def test_equal_passages_are_one_passage(place):
    """Records 0 and 1 of the made-up data have one passage, which answers both queries."""
    found = planned(place, queries=1000, passages=1000)
    texts = [tuple(found.passages[n]) for n in range(len(found.passages))]
    pairs = list(zip(texts, found.passage_language.tolist(), strict=True))
    assert len(set(pairs)) == len(pairs)
    answers = [tuple(each.tolist()) for each in found.relevant]
    assert len(set(answers)) < len(answers)


def test_ties_never_help():
    scores = np.array([1.0, 1.0, 0.5])
    assert average_precision(scores, scores[:1]) == 0.5
    assert average_precision(scores, scores[:2]) == 1.0
    assert average_precision(np.ones(4), np.ones(1)) == 0.25
    assert average_precision(np.array([3.0, 2, 1, 0]), np.array([3.0, 0])) == (1 + 2 / 4) / 2


def config(place, **changes):
    values = {
        "data": str(place / "toy"), "model": str(place / "tiny"), "steps": 4, "batch_size": 6,
        "learning_rate": 1e-2, "temperature": 0.1, "precision": "fp32", "log_to": "none",
        "validate_every": 1, "validation_metric": "map",
    }  # fmt: skip
    return build(TrainConfig, None, values | changes)


def test_a_run_is_chosen_by_it_and_says_what_it_measures(place, tmp_path):
    report = RecordingReporter()
    chosen = config(place, out=tmp_path / "run", validation_queries=30, validation_passages=60)
    run = train(chosen, report)
    result = read_json(run / "train.json")
    curve = {entry["step"]: entry["map"] for entry in result["validation"]}
    assert sorted(curve) == [0, 1, 2, 3, 4]
    after = {step: value for step, value in curve.items() if step}
    assert after[result["best_step"]] == max(after.values())
    assert all(0 < entry["map/multilingual"] <= 1 for entry in result["validation"])
    told = " ".join(report.notes)
    assert "retrieval validation: 30 queries against" in told
    short = RecordingReporter()
    train(config(place, out=tmp_path / "short"), short)
    assert "validation_passages = 5,000: the validation split has only" in " ".join(
        short.warnings
    )


def test_the_default_says_what_it_cannot_tell(place):
    from hybridbatch.training.train import plan

    report = RecordingReporter()
    plan(config(place, validation_metric="loss", validation_queries=60), report)
    assert any("--validation-metric map ranks 60 queries" in note for note in report.notes)
    small = RecordingReporter()
    plan(config(place, validation_metric="loss"), small)
    assert not any("--validation-metric" in note for note in small.notes)


def test_settings_out_of_bounds_are_refused():
    with pytest.raises(ConfigError, match="validation_metric"):
        build(TrainConfig, None, {"validation_metric": "ndcg"})
    with pytest.raises(ConfigError, match="validation_queries"):
        build(TrainConfig, None, {"validation_queries": 0})


def test_a_split_without_passages_is_refused(place):
    store = Store.open(place / "toy")
    index = store.index("validation")
    bare = type(index)(**{**vars(index), "has": np.full_like(np.asarray(index.has), 1)})
    with pytest.raises(DataError, match="choose loss or mrr"):
        plan_retrieval(store, bare, Encoder.load(str(place / "tiny")), queries=5, passages=5)
