"""Low-rank updates: only they train, exactly as their formula says, and the saved model is a plain
one.
"""

import math

import numpy as np
import pytest
import torch
from torch.func import functional_call
from torch.nn import functional
from transformers import AutoModel

from hybridbatch.common.errors import ConfigError, Interrupted
from hybridbatch.common.files import read_json
from hybridbatch.common.settings import build
from hybridbatch.data.store.writer import write_store
from hybridbatch.model import Encoder
from hybridbatch.training import checkpoint
from hybridbatch.training.lora import linear_layers
from hybridbatch.training.optimizer import learning_rate_factor
from hybridbatch.training.settings import TrainConfig
from hybridbatch.training.train import train
from tests.helpers.parallel import rows
from tests.helpers.tiny import write_tiny_model
from tests.helpers.trainers import equal, interrupt_in, make_trainer, weights

pytest.importorskip("peft", reason="LoRA needs the extra hybridbatch[lora]")
LORA = {"lora_rank": 3, "lora_alpha": 6.0, "learning_rate": 1e-2}


def plain_lora(trainer, model_folder) -> dict[str, torch.Tensor]:
    """The same run by the formula: weights W + 2 B A in a padded float64 model, dense AdamW on A
    and B alone.
    """
    config = trainer.config
    model = AutoModel.from_pretrained(model_folder).double().eval().requires_grad_(False)
    start = dict(model.state_dict())
    updates = {}
    for name, value in trainer.encoder.state_dict().items():
        if ".lora_" in name:
            layer, _, side = (
                name.removeprefix("model.").removesuffix(".default.weight").rpartition(".lora_")
            )
            updates.setdefault(layer, {})[side] = value.clone().requires_grad_()
    assert len(updates) == 6 * model.config.num_hidden_layers
    factors = [factor for pair in updates.values() for factor in pair.values()]
    adamw = torch.optim.AdamW(factors, lr=1.0, weight_decay=config.weight_decay, foreach=False)

    def current() -> dict[str, torch.Tensor]:
        return start | {
            f"{name}.weight": start[f"{name}.weight"] + 2 * pair["B"] @ pair["A"]
            for name, pair in updates.items()
        }

    def embed(tokens):
        ids = torch.nn.utils.rnn.pad_sequence(
            [torch.tensor(tokens[i].astype("int64")) for i in range(len(tokens))],
            batch_first=True,
            padding_value=1,
        )
        mask = (torch.arange(ids.shape[1]) < torch.tensor(tokens.lengths)[:, None]).long()
        hidden = functional_call(
            model, current(), (), {"input_ids": ids, "attention_mask": mask}
        ).last_hidden_state
        return functional.normalize(
            (hidden * mask[..., None]).sum(1) / mask.sum(1, keepdim=True), dim=1
        )

    for step in range(config.steps):
        batch = trainer.batches[step]
        scores = embed(batch.queries) @ embed(batch.passages).T / config.temperature
        texts = [bytes(batch.passages[j]) for j in range(len(batch.passages))]
        same = torch.tensor(
            [
                [i != j and texts[i] == texts[j] for j in range(len(texts))]
                for i in range(batch.pairs)
            ]
        )
        loss = -scores.masked_fill(same, -math.inf).log_softmax(1).diagonal().mean()
        adamw.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(factors, config.max_grad_norm)
        adamw.param_groups[0]["lr"] = config.learning_rate * learning_rate_factor(step, config)
        adamw.step()
    return {name: value.detach() for name, value in current().items()}


@pytest.mark.parametrize("micro_tokens", [None, 60])
def test_training_equals_the_formula_in_float64(tiny_model, tmp_path, micro_tokens):
    changes = {
        "dropout": 0.0,
        "hard_negatives": 1,
        "micro_tokens": micro_tokens,
        "validate": False,
        "double": True,
    }
    trainer = make_trainer(tiny_model, tmp_path, **changes, **LORA)
    start = AutoModel.from_pretrained(tiny_model).double().state_dict()
    expected = plain_lora(trainer, tiny_model)  # reads the first A and B, before they train
    trainer.train()
    ours = {name.removeprefix("model."): value for name, value in weights(trainer).items()}
    assert ours.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(ours[name], value, rtol=0, atol=1e-7, msg=name)
    moved = {name for name, value in ours.items() if not torch.equal(value, start[name])}
    assert moved == {
        f"{name}.weight" for name in linear_layers(AutoModel.from_pretrained(tiny_model))
    }


def test_only_the_updates_train_and_the_global_random_state_is_left_alone(tiny_model, tmp_path):
    before = torch.get_rng_state()
    trainer = make_trainer(tiny_model, tmp_path, learn_temperature=True, **LORA)
    assert torch.equal(torch.get_rng_state(), before)
    assert all(
        ".lora_" in name or name == "objective.log_temperature"
        for name in trainer.optimizer.named
    )
    assert trainer.cut is None
    other = make_trainer(tiny_model, tmp_path, seed=14, **LORA)
    name = next(name for name in trainer.optimizer.named if "lora_A" in name)
    assert not torch.equal(trainer.optimizer.named[name], other.optimizer.named[name])


@pytest.mark.parametrize(
    "changes", [{}, {"ema": 0.9, "learn_temperature": True, "micro_tokens": 80}]
)
def test_a_resumed_run_ends_with_the_same_bits(tiny_model, tmp_path, changes):
    whole = make_trainer(tiny_model, tmp_path / "whole", **LORA, **changes)
    whole.train()
    first = make_trainer(tiny_model, tmp_path / "cut", **LORA, **changes)
    interrupt_in(first, 5)
    with pytest.raises(Interrupted):
        first.train()
    _, tensors = checkpoint.load(tmp_path / "cut", 5)
    assert not any("embeddings" in name or "base_layer" in name for name in tensors), (
        "checkpoints hold the updates only"
    )
    second = make_trainer(tiny_model, tmp_path / "cut", **LORA, **changes)
    second.resume(5)
    second.train()
    assert second.losses == whole.losses
    assert equal(weights(second), weights(whole))


@pytest.mark.parametrize("family", ["bert", "xlm-roberta", "distilbert", "modernbert", "mpnet"])
def test_a_run_saves_a_plain_model_with_the_same_embeddings_everywhere(tmp_path, family):
    from sentence_transformers import SentenceTransformer

    model = write_tiny_model(tmp_path / "start", family)
    write_store(tmp_path / "data", [*rows(24), *rows(9, "validation")], provenance={})
    run = train(
        TrainConfig(
            data=str(tmp_path / "data"), model=str(model), out=tmp_path / "run", steps=6, batch_size=6,
            precision="fp32", **LORA,
        )
    )  # fmt: skip
    texts = ["baden 12", "lokus", "dera ba ba"]
    ours = Encoder.load(str(run)).encode(texts, "passage", precision="fp32")
    untrained = Encoder.load(str(model)).encode(texts, "passage", precision="fp32")
    assert np.abs(ours - untrained).max() > 1e-3
    theirs = SentenceTransformer(str(run / "model"), device="cpu").encode_document(texts)
    np.testing.assert_allclose(ours, theirs, atol=1e-5)
    plain = AutoModel.from_pretrained(run / "model")
    assert plain.state_dict().keys() == AutoModel.from_pretrained(model).state_dict().keys()
    facts = read_json(run / "train.json")
    assert facts["model"]["trained_weights"] < sum(p.numel() for p in plain.parameters()) / 2
    assert (
        "low-rank updates, rank 3, alpha 6, merged" in (run / "model" / "README.md").read_text()
    )


def test_alpha_alone_and_rank_zero_are_refused():
    with pytest.raises(ConfigError, match="lora_alpha does nothing without lora_rank"):
        build(TrainConfig, overrides={"lora_alpha": 8})
    with pytest.raises(ConfigError, match="lora_rank = 0"):
        build(TrainConfig, overrides={"lora_rank": 0})


def test_without_peft_the_mend_is_named(tiny_model, tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "peft", None)
    with pytest.raises(
        ConfigError, match=r"peft is not installed; run `pip install 'hybridbatch\[lora\]'`"
    ):
        make_trainer(tiny_model, tmp_path, **LORA)
