"""A training whose encoder is returned and not saved gives the encoder that saving would give."""

from pathlib import Path

import numpy as np
import pytest
import torch

from hybridbatch.data.store.writer import write_store
from hybridbatch.model import Encoder
from hybridbatch.training.loop import Trainer
from hybridbatch.training.settings import TrainConfig
from hybridbatch.training.train import train, train_in_memory
from tests.helpers.parallel import rows

TEXTS = ["baden 12", "lokus cafe\u0301", "dera ba ba", "x"]


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> TrainConfig:
    folder = tmp_path_factory.mktemp("in-memory")
    write_store(folder / "data", [*rows(24), *rows(9, "validation")], provenance={})
    return TrainConfig(
        data=str(folder / "data"), model=str(tiny_model), steps=4, batch_size=6, precision="fp32",
        learning_rate=1e-3, validate_every=2, log_to="none",
    )  # fmt: skip


@pytest.mark.parametrize(
    "changes", [{}, {"ema": 0.9}, {"lora_rank": 2}, {"query_prompt": "q: "}]
)
def test_the_encoder_is_the_saved_one_to_the_bit(
    config: TrainConfig, tmp_path: Path, changes: dict[str, object]
) -> None:
    if "lora_rank" in changes:
        pytest.importorskip("peft")
    saved = train(config.model_copy(update=changes | {"out": tmp_path / "saved"}))
    run, kept = train_in_memory(config.model_copy(update=changes | {"out": tmp_path / "kept"}))
    assert not (run / "model").exists()
    options = {"max_query_tokens": 8, "passage_prompt": "p: cafe\u0301 "}
    loaded = Encoder.load(str(saved), **options)
    kept = kept.saved_and_loaded(**options)
    assert not kept.training
    assert kept.weights_checksum() == loaded.weights_checksum()
    assert (kept.prompts, kept.max_tokens) == (loaded.prompts, loaded.max_tokens)
    for side in ("query", "passage"):
        assert np.array_equal(kept.encode(TEXTS, side), loaded.encode(TEXTS, side))


def test_a_repeated_call_takes_the_encoder_from_the_checkpoint(
    config: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = config.model_copy(update={"out": tmp_path / "run"})
    _, first = train_in_memory(config)
    record = (tmp_path / "run" / "train.json").read_bytes()
    monkeypatch.setattr(Trainer, "_step", lambda *_: pytest.fail("a further step"))
    _, second = train_in_memory(config)
    assert second.weights_checksum() == first.weights_checksum()
    assert (tmp_path / "run" / "train.json").read_bytes()[:200] == record[:200]


def test_a_checksum_of_weights_sees_a_bit_and_a_name(tiny_model: Path) -> None:
    encoder = Encoder.load(str(tiny_model))
    before = encoder.weights_checksum()
    assert Encoder.load(str(tiny_model)).weights_checksum() == before
    with torch.no_grad():
        encoder.model.get_input_embeddings().weight[3, 0].add_(1e-6)
    assert encoder.weights_checksum() != before
