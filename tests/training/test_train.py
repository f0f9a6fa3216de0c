"""`train` from settings to a model folder: end to end on made-up data and a tiny encoder."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer
from transformers import AutoModel, AutoTokenizer

from hybridbatch.common.errors import ConfigError, DataError, ModelError, OutputError
from hybridbatch.common.files import read_json
from hybridbatch.common.progress import SilentReporter
from hybridbatch.data.download import sizes
from hybridbatch.data.store.writer import write_store
from hybridbatch.model import Encoder
from hybridbatch.training.settings import TrainConfig
from hybridbatch.training.train import plan, train
from tests.helpers.parallel import LANGUAGES, rows
from tests.helpers.recording import RecordingReporter

TEXTS = ["baden 12", "lokus", "dera ba ba"]


class Notes(SilentReporter):
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.texts: list[str] = []
        self.note = self.warn = self.texts.append


@pytest.fixture(scope="session")
def data(tmp_path_factory) -> Path:
    """Prepared data of 24 training and 9 validation records in three languages."""
    folder = tmp_path_factory.mktemp("prepared") / "toy"
    sources = [{"name": "toy", "licence": "CC0-1.0"}]
    write_store(folder, [*rows(24), *rows(9, "validation")], provenance={"sources": sources})
    return folder


@pytest.fixture
def settings(data, tiny_model, tmp_path):
    """Settings of a quick run; keyword arguments override them."""

    def make(**changes) -> TrainConfig:
        base = {"data": str(data), "model": str(tiny_model), "out": tmp_path / "run", "steps": 6, "batch_size": 6,
                "learning_rate": 1e-3, "precision": "fp32", "checkpoint_every": 2, "validate_every": 3}  # fmt: skip
        return TrainConfig(**(base | changes))

    return make


def test_a_dry_run_of_data_that_is_not_here_downloads_nothing(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sizes, "_listing", lambda name, revision: None)
    planned = plan(TrainConfig(model=str(tiny_model), data="mmarco", languages="eng"))
    assert "to download: 57 GB" in planned["to prepare first"]
    assert not list(tmp_path.iterdir())


def test_a_run_leaves_a_model_and_says_how_it_was_made(settings, data, tmp_path):
    run = train(settings())
    assert run == tmp_path / "run"
    facts = read_json(run / "train.json")
    assert facts["kind"] == "train"
    assert facts["config"]["mix"] == 0.5
    assert facts["trained_languages"] == list(LANGUAGES)
    assert facts["data"]["fingerprint"] == read_json(data / "manifest.json")["fingerprint"]
    assert facts["data"]["rows_by_source_and_language"]["toy"]["swh"] == 24
    assert [entry["step"] for entry in facts["curve"]] == [1, 2, 3, 4, 5, 6]
    assert [entry["step"] for entry in facts["validation"]] == [0, 3, 6]
    assert facts["steps"] == 6
    assert facts["best_step"] in (3, 6)
    assert facts["skipped_steps"] == []
    assert facts["throughput"]["padding_tokens_avoided"] > 0
    assert facts["memory"]["saved_by_touched_rows_bytes"] > 0
    assert (
        facts["schedule"]["kinds"]["monolingual"] + facts["schedule"]["kinds"]["cross-lingual"]
        == 6
    )
    card = (run / "model" / "README.md").read_text()
    assert all(
        part in card for part in (*LANGUAGES, "CC0-1.0", "learning rate 0.001", "query: ")
    )
    assert not (run / "checkpoints").exists()


def test_the_model_loads_everywhere_with_the_same_embeddings(settings):
    run = train(settings())
    ours = Encoder.load(str(run)).encode(TEXTS, "passage", precision="fp32")
    theirs = SentenceTransformer(str(run / "model"), device="cpu").encode(
        [f"passage: {text}" for text in TEXTS], normalize_embeddings=True
    )
    np.testing.assert_allclose(ours, theirs, atol=1e-5)
    model, tokenizer = (
        AutoModel.from_pretrained(run / "model"),
        AutoTokenizer.from_pretrained(run / "model"),
    )
    inputs = tokenizer(
        [f"passage: {text}" for text in TEXTS], padding=True, return_tensors="pt"
    )
    with torch.no_grad():
        hidden = model(
            input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"]
        ).last_hidden_state
    mask = inputs["attention_mask"][..., None]
    pooled = torch.nn.functional.normalize((hidden * mask).sum(1) / mask.sum(1), dim=1)
    np.testing.assert_allclose(ours, pooled.numpy(), atol=1e-5)


def test_the_same_settings_give_the_same_weights_and_a_finished_run_is_left_alone(
    settings, tmp_path
):
    weights = [
        (train(settings(out=tmp_path / name)) / "model" / "model.safetensors").read_bytes()
        for name in "ab"
    ]
    assert weights[0] == weights[1]
    before = (tmp_path / "a" / "train.json").stat().st_mtime_ns
    notes = Notes()
    train(settings(out=tmp_path / "a"), notes)
    assert any("already finished" in text for text in notes.texts)
    assert (tmp_path / "a" / "train.json").stat().st_mtime_ns == before


def test_stored_tokens_are_made_once_and_train_the_same_weights(
    settings, data, tmp_path, monkeypatch
):
    def weights(**changes) -> bytes:
        return (train(settings(**changes)) / "model" / "model.safetensors").read_bytes()

    plain = weights(out=tmp_path / "plain")
    own = Path(shutil.copytree(data, tmp_path / "data"))
    assert weights(out=tmp_path / "first", data=str(own), store_tokens=True) == plain
    assert len(list(own.glob("tokens/*/train-*"))) == 2
    monkeypatch.setattr(Encoder, "tokenise", lambda *_: pytest.fail("tokenised again"))
    assert weights(out=tmp_path / "second", data=str(own), store_tokens=True) == plain


def test_other_settings_in_the_same_folder_are_refused(settings):
    train(settings())
    with pytest.raises(ConfigError, match=r"mix: 0\.5 -> 0\.25.*--name"):
        train(settings(mix=0.25))


def test_other_data_in_the_same_folder_is_refused(settings, tmp_path):
    train(settings())
    write_store(tmp_path / "other", [*rows(24, seed=1), *rows(9, "validation")], provenance={})
    with pytest.raises(ConfigError, match="data_fingerprint"):
        train(settings(data=str(tmp_path / "other")))


def test_a_foreign_folder_is_refused_and_left_alone(settings, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "letter.txt").write_text("dear")
    with pytest.raises(OutputError, match="not a training run"):
        train(settings())
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["letter.txt"]


def test_languages_and_records_can_be_chosen(settings):
    facts = read_json(train(settings(languages="swh,deu", max_records=10)) / "train.json")
    assert facts["trained_languages"] == ["deu", "swh"]
    assert facts["data"]["records"] == 10
    assert {entry["language"] for entry in facts["curve"]} <= {"deu", "swh", None}


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"languages": "klingon"}, ConfigError, "klingon"),
        ({"batch_size": 500}, DataError, "batch-size"),
        ({"languages": "deu"}, DataError, "--mix 1"),
        ({"matryoshka_dims": (33,)}, ConfigError, "matryoshka_dims = 33"),
        ({"model": "./no-such-folder"}, ModelError, "no-such-folder"),
        ({"data": "no-such-source"}, ConfigError, "no-such-source"),
        ({"device": "gpu7"}, ConfigError, "gpu7"),
    ],
)
def test_mistakes_are_told_before_any_step_and_nothing_is_left(
    settings, tmp_path, changes, error, message
):
    with pytest.raises(error, match=message):
        train(settings(**changes))
    assert not (tmp_path / "run").exists()


def test_data_without_validation_split_trains_without_validation(settings, tmp_path):
    write_store(tmp_path / "plain", rows(24), provenance={}, validation_share=0.0)
    notes = Notes()
    facts = read_json(train(settings(data=str(tmp_path / "plain")), notes) / "train.json")
    assert facts["validation"] == []
    assert facts["best_step"] is None
    assert any("no validation" in text for text in notes.texts)


def test_data_with_a_test_split_alone_is_validated_on_a_share_of_its_training_records(
    settings, tmp_path
):
    write_store(tmp_path / "split", [*rows(24), *rows(9, "test")], provenance={})
    chosen = {"data": str(tmp_path / "split"), "steps": 2, "validate_every": 1, "batch_size": 4}
    notes = Notes()
    run = train(settings(**chosen, validation_share=0.25), notes)
    assert any("6 records of the training split were set aside" in text for text in notes.texts)
    facts = read_json(run / "train.json")
    assert facts["data"]["records"] == 18
    assert len(facts["validation"]) == 3
    assert facts["best_step"] in (1, 2)
    # by default a twentieth, which is one record here, too few for a batch
    assert plan(settings(**chosen))["validation"] == {}
    assert plan(settings(**chosen, validation_share=0))["validation"] == {}
    plain = settings(**chosen | {"data": str(tmp_path / "plain"), "validation_share": 0.25})
    write_store(tmp_path / "plain", rows(24), provenance={}, validation_share=0.0)
    assert set(plan(plain)["validation"]) == {"monolingual", "cross-lingual"}


def test_hard_negatives_that_the_data_does_not_have_are_told(settings, tmp_path):
    without = [row._replace(negatives=()) for row in rows(24)]
    write_store(tmp_path / "without", without, provenance={})
    report = RecordingReporter()
    train(settings(data=str(tmp_path / "without"), hard_negatives=3, steps=1), report)
    assert any(
        "no row of the schedule has hard negatives" in warning for warning in report.warnings
    )


def test_a_dry_run_shows_the_plan_and_leaves_nothing(settings, tmp_path):
    shown = plan(settings(model="weights-that-do-not-exist"))
    assert len(shown["first batches"]) == 5
    assert shown["schedule"]["steps"] == 6
    assert set(shown["validation"]) == {"monolingual", "cross-lingual"}
    json.dumps(shown)
    assert not (tmp_path / "run").exists()


def test_every_option_trains(settings):
    facts = read_json(
        train(
            settings(
                hard_negatives=2, symmetric=True, margin=0.1, matryoshka_dims=(8, 16), learn_temperature=True, ema=0.9,
                layer_lr_decay=0.9, decay_all=False, lr_schedule="cosine", dropout=0.2, strategy="mixed", micro_tokens=100,
                validation_metric="mrr", patience=5, precision="bf16", max_grad_norm=None,
            )
        )
        / "train.json"
    )  # fmt: skip
    assert facts["precision"] == "bf16"
    assert facts["temperature"] != 0.05
    assert {entry["kind"] for entry in facts["curve"]} == {"mixed"}


@pytest.mark.parametrize("family", ["xlm-roberta", "distilbert", "modernbert"])
def test_other_families_train(settings, tmp_path, family):
    from tests.helpers.tiny import write_tiny_model

    model = write_tiny_model(tmp_path / family, family)
    facts = read_json(train(settings(model=str(model))) / "train.json")
    losses = [entry["loss"] for entry in facts["validation"]]
    assert losses[-1] < losses[0]


class InOrder(RecordingReporter):
    """Notes and bars, in order."""

    def bar(self, description: str, *others, **settings):
        self.notes.append(f"bar {description}")
        return super().bar(description, *others, **settings)


def test_long_training_is_announced_before_its_first_step(settings, monkeypatch):
    monkeypatch.setattr("hybridbatch.training.train.LONG", 0.0)
    report = InOrder()
    train(settings(hard_negatives=2), report)
    (told,) = (note for note in report.notes if note.startswith("training takes about"))
    assert "6 steps" in told
    assert report.notes.index(told) < report.notes.index("bar training")
