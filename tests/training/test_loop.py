"""The loop equals a plain one, resumes to the same bits, and stops when it must."""

import json
import math
import signal
from types import SimpleNamespace

import pytest
import torch
from torch.nn import functional
from transformers import AutoModel

from hybridbatch.common.errors import DataError, Interrupted
from hybridbatch.common.progress import SilentReporter
from hybridbatch.training import checkpoint
from hybridbatch.training.optimizer import learning_rate_factor
from tests.helpers.trainers import equal, interrupt_in, make_trainer, weights


def plain_training(trainer, model_folder) -> dict[str, torch.Tensor]:
    """The same run in the plainest way: padded batches, one forward pass, dense AdamW, float64, no
    dropout.
    """
    config = trainer.config
    model = AutoModel.from_pretrained(model_folder).double().eval()
    adamw = torch.optim.AdamW(
        model.parameters(), lr=1.0, weight_decay=config.weight_decay, foreach=False
    )

    def embed(tokens):
        rows = [torch.tensor(tokens[i].astype("int64")) for i in range(len(tokens))]
        ids = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=1)
        mask = (torch.arange(ids.shape[1]) < torch.tensor(tokens.lengths)[:, None]).long()
        hidden = model(input_ids=ids, attention_mask=mask).last_hidden_state
        return functional.normalize(
            (hidden * mask[..., None]).sum(1) / mask.sum(1, keepdim=True), dim=1
        )

    for step in range(config.steps):
        batch = trainer.batches[step]
        queries, passages = embed(batch.queries), embed(batch.passages)
        scores = queries @ passages.T / config.temperature
        texts = [bytes(batch.passages[j]) for j in range(len(batch.passages))]
        for i in range(batch.pairs):
            for j in range(len(texts)):
                if j != i and texts[j] == texts[i]:
                    scores[i, j] = -math.inf
        loss = -scores.log_softmax(1).diagonal().mean()
        adamw.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), config.max_grad_norm)
        adamw.param_groups[0]["lr"] = config.learning_rate * learning_rate_factor(step, config)
        adamw.step()
    return model.state_dict()


@pytest.mark.parametrize("micro_tokens", [None, 60])
def test_training_equals_a_plain_padded_loop(tiny_model, tmp_path, micro_tokens):
    changes = {
        "dropout": 0.0,
        "hard_negatives": 2,
        "micro_tokens": micro_tokens,
        "validate": False,
        "double": True,
    }
    trainer = make_trainer(tiny_model, tmp_path, **changes)
    trainer.train()
    ours = {name.removeprefix("model."): value for name, value in weights(trainer).items()}
    expected = plain_training(trainer, tiny_model)
    assert ours.keys() == expected.keys()
    for name, value in expected.items():
        # Key biases have no gradient but rounding noise, which AdamW scales up to whole steps.
        if not name.endswith("key.bias"):
            torch.testing.assert_close(ours[name], value, rtol=0, atol=1e-7, msg=name)
    untrained = AutoModel.from_pretrained(tiny_model).double().state_dict()
    assert not torch.equal(
        ours["embeddings.word_embeddings.weight"],
        untrained["embeddings.word_embeddings.weight"],
    )


def test_the_same_run_twice_gives_the_same_bits_and_another_seed_others(tiny_model, tmp_path):
    found = []
    for number, seed in enumerate((13, 13, 14)):
        trainer = make_trainer(tiny_model, tmp_path / str(number), seed=seed)
        trainer.train()
        found.append(weights(trainer))
    assert equal(found[0], found[1])
    assert not equal(found[0], found[2])


@pytest.mark.parametrize(
    "changes",
    [{}, {"ema": 0.9, "learn_temperature": True, "micro_tokens": 80, "hard_negatives": 1}],
)
def test_a_resumed_run_ends_with_the_same_bits(tiny_model, tmp_path, changes):
    whole = make_trainer(tiny_model, tmp_path / "whole", checkpoint_every=3, **changes)
    whole.train()
    first = make_trainer(tiny_model, tmp_path / "cut", checkpoint_every=3, **changes)
    interrupt_in(first, 5)
    with pytest.raises(Interrupted, match="stopped after step 5 of 8; the same command"):
        first.train()
    second = make_trainer(tiny_model, tmp_path / "cut", checkpoint_every=3, **changes)
    second.resume(checkpoint.newest(tmp_path / "cut", second.report))
    assert second.progress.step == 5
    second.train()
    assert second.losses == whole.losses
    assert second.gradient_norms == whole.gradient_norms
    assert second.progress.validations == whole.progress.validations
    assert (second.progress.best, second.progress.tokens) == (
        whole.progress.best,
        whole.progress.tokens,
    )
    assert equal(weights(second), weights(whole))


def test_another_number_of_threads_is_told_when_a_run_goes_on(
    tiny_model, tmp_path, monkeypatch
):
    first = make_trainer(tiny_model, tmp_path, checkpoint_every=3)
    interrupt_in(first, 3)
    with pytest.raises(Interrupted):
        first.train()
    told = []
    second = make_trainer(tiny_model, tmp_path, checkpoint_every=3)
    monkeypatch.setattr(second, "report", SimpleNamespace(warn=told.append))
    now = torch.get_num_threads()
    second.resume(3)
    assert not told
    monkeypatch.setattr(torch, "get_num_threads", lambda: now + 1)
    second.resume(3)
    assert f"{now} CPU threads until here and goes on with {now + 1}" in told[0]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_finishes_the_step_and_saves(tiny_model, tmp_path, number):
    trainer = make_trainer(tiny_model, tmp_path, checkpoint_every=100, validate=False)
    interrupt_in(trainer, 3, number)
    before = signal.getsignal(number)
    with pytest.raises(Interrupted, match="after step 3"):
        trainer.train()
    assert signal.getsignal(number) is before
    assert checkpoint.found_steps(tmp_path) == [3]


def break_steps(trainer, steps):
    """Make the gradients of `steps` infinite."""
    backward = trainer.cache.backward

    def broken(*arguments):
        loss = backward(*arguments)
        if trainer.progress.step in steps:
            next(p for p in trainer.optimizer.named.values() if p.grad is not None).grad.fill_(
                math.inf
            )
        return loss

    trainer.cache.backward = broken


class Telling(SilentReporter):
    """Keeps warnings."""

    def __init__(self, told: list[str]) -> None:
        self.warn = told.append


def test_a_step_that_is_not_finite_is_skipped_and_told(tiny_model, tmp_path):
    told = []
    trainer = make_trainer(tiny_model, tmp_path)
    trainer.report = Telling(told)
    break_steps(trainer, {1, 4})
    trainer.train()
    assert trainer.optimizer.applied == [0, 2, 3, 5, 6, 7]
    assert len(told) == 2
    assert trainer.curve()[4]["grad_norm"] is None
    assert all(torch.isfinite(value).all() for value in weights(trainer).values())


def test_too_many_bad_steps_in_a_row_stop_the_run_and_name_the_records(tiny_model, tmp_path):
    trainer = make_trainer(tiny_model, tmp_path)
    break_steps(trainer, range(2, 8))
    with pytest.raises(DataError, match=r"bad_batch.json: 5 steps in a row.*steps 3 to 7"):
        trainer.train()
    bad = json.loads((tmp_path / "bad_batch.json").read_text())
    assert [batch["step"] for batch in bad["batches"]] == [3, 4, 5, 6, 7]
    assert bad["batches"][0]["record_ids"] == trainer.batches.pair_ids(2)


def test_bad_steps_apart_from_each_other_do_not_stop_the_run(tiny_model, tmp_path):
    trainer = make_trainer(tiny_model, tmp_path)
    break_steps(trainer, {0, 1, 2, 3, 5, 6, 7})
    trainer.train()
    assert trainer.optimizer.applied == [4]


class Scripted:
    """Validation that finds the given losses, one after the other; the first is that of the
    untrained encoder.
    """

    def __init__(self, *losses: float) -> None:
        self.kinds, self.losses = {"scripted": None}, iter(losses)

    def measure(self, *_: object):
        return {"loss": next(self.losses), "mrr": 0.5}


def test_the_best_checkpoint_becomes_the_model(tiny_model, tmp_path):
    trainer = make_trainer(tiny_model, tmp_path / "whole", validate=False, validate_every=2)
    trainer.validation = Scripted(0.1, 3.0, 2.0, 2.5, 2.6)
    trainer.train()
    assert trainer.progress.best == 4
    shorter = make_trainer(tiny_model, tmp_path / "shorter", validate=False)
    interrupt_in(shorter, 4)
    with pytest.raises(Interrupted):
        shorter.train()
    assert equal(weights(trainer), weights(shorter))


def test_patience_stops_early(tiny_model, tmp_path):
    settings = {"validate": False, "validate_every": 1, "patience": 2}
    trainer = make_trainer(tiny_model, tmp_path, **settings)
    trainer.validation = Scripted(5.0, 3.0, 2.0, 2.5, 2.6, 1.0)
    trainer.train()
    assert (trainer.progress.step, trainer.progress.best, trainer.progress.stopped_early) == (
        4,
        2,
        True,
    )
    again = make_trainer(tiny_model, tmp_path, **settings)
    again.resume(4)
    assert again.done


def test_validation_by_reciprocal_rank_prefers_higher(tiny_model, tmp_path):
    trainer = make_trainer(
        tiny_model, tmp_path, validation_metric="mrr", learning_rate=3e-3, steps=10
    )
    trainer.train()
    found = {
        entry["step"]: entry["mrr"] for entry in trainer.progress.validations if entry["step"]
    }
    assert found[trainer.progress.best] == max(found.values())


def test_training_lowers_the_validation_loss_of_both_kinds(tiny_model, tmp_path):
    trainer = make_trainer(tiny_model, tmp_path, learning_rate=3e-3, steps=20)
    trainer.train()
    first, last = trainer.progress.validations[0], trainer.progress.validations[-1]
    for kind in ("monolingual", "cross-lingual"):
        assert last[f"loss/{kind}"] < first[f"loss/{kind}"]


def test_frozen_embeddings_stay_as_they_are(tiny_model, tmp_path):
    trainer = make_trainer(tiny_model, tmp_path, freeze_embeddings=True, weight_decay=0.1)
    start = {name: value.clone() for name, value in trainer.encoder.state_dict().items()}
    trainer.train()
    end = weights(trainer)
    tables = [name for name in start if name.endswith("_embeddings.weight")]
    assert len(tables) == 3
    assert all(torch.equal(start[name], end[name]) for name in tables)
    assert not torch.equal(
        start["model.embeddings.LayerNorm.weight"], end["model.embeddings.LayerNorm.weight"]
    )


def test_a_learned_temperature_moves(tiny_model, tmp_path):
    trainer = make_trainer(tiny_model, tmp_path, learn_temperature=True)
    trainer.train()
    assert trainer.objective.temperature != pytest.approx(0.05, rel=1e-4)


def test_the_curve_names_kind_and_language_of_every_step(tiny_model, tmp_path):
    trainer = make_trainer(tiny_model, tmp_path)
    trainer.train()
    curve = trainer.curve()
    assert [entry["step"] for entry in curve] == list(range(1, 9))
    for entry in curve:
        assert (entry["language"] is None) == (entry["kind"] == "cross-lingual")
        assert entry["loss"] > 0
        assert entry["grad_norm"] > 0
        assert entry["learning_rate"] > 0


def test_the_log_has_every_step_once_even_after_a_kill(tiny_model, tmp_path):
    trainer = make_trainer(
        tiny_model, tmp_path, log_to="jsonl", checkpoint_every=3, validate=False
    )
    trainer.train()
    with (tmp_path / "steps.jsonl").open("a") as log:
        log.write('{"step": 9, "lo')
    again = make_trainer(
        tiny_model, tmp_path, log_to="jsonl", checkpoint_every=3, validate=False
    )
    again.resume(6)
    again.train()
    entries = [json.loads(line) for line in (tmp_path / "steps.jsonl").read_text().splitlines()]
    assert [entry["step"] for entry in entries] == list(range(1, 9))
    assert [entry["loss"] for entry in entries] == trainer.losses
