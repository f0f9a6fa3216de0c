"""AdamW as torch computes it on the full tables, to the last bit; groups, schedules, clipping,
moving average.
"""

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import nn

from hybridbatch.training.optimizer import (
    Optimizer,
    average_decay,
    freeze_embeddings,
    learning_rate_factor,
    parameter_groups,
)
from hybridbatch.training.settings import TrainConfig
from hybridbatch.training.used_vocabulary import CutEmbedding

WORDS, SIZE, STEPS = 1003, 24, 40
TOUCHED = np.array([1, 2, 3, 5, 8, 13, 21, 500, 1002])
PAD = 1


class Model(nn.Module):
    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.embeddings = nn.ModuleDict(
                {"word": nn.Embedding(WORDS, SIZE, padding_idx=PAD)}
            )
            self.layers = nn.ModuleList(
                nn.Sequential(nn.Linear(SIZE, SIZE), nn.LayerNorm(SIZE)) for _ in range(3)
            )
            self.pooler = nn.Linear(SIZE, SIZE)  # takes no part
        self.double()
        with torch.no_grad():
            self.embeddings["word"].weight[PAD] = (
                0.5  # a padding row that is not zero still decays
            )

    def forward(self, ids):
        hidden = self.get_input_embeddings()(ids)
        for layer in self.layers:
            hidden = hidden + layer(hidden).tanh()
        return hidden

    def get_input_embeddings(self):
        return self.embeddings["word"]

    def set_input_embeddings(self, module):
        self.embeddings["word"] = module


def config(**changes) -> TrainConfig:
    values = {
        "steps": STEPS,
        "learning_rate": 1e-2,
        "weight_decay": 0.1,
        "max_grad_norm": None,
        "layer_lr_decay": 0.9,
    }
    return TrainConfig(**(values | changes))


def train(model: Model, settings: TrainConfig, skip: tuple[int, ...] = ()) -> Optimizer:
    optimizer = Optimizer(parameter_groups(model, nn.Module(), settings), settings)
    rng = np.random.default_rng(3)
    for step in range(settings.steps):
        model.zero_grad()
        ids = torch.from_numpy(rng.choice(TOUCHED, (4, 6)))
        model(ids).square().sum().backward()
        if step not in skip:
            optimizer.step(step, optimizer.gradient_norm())
    return optimizer


@pytest.mark.parametrize(
    "changes", [{}, {"ema": 0.9}, {"lr_schedule": "cosine", "warmup_steps": 10}]
)
def test_a_cut_table_ends_equal_to_the_full_one_to_the_last_bit(changes):
    settings, dense, cut = config(**changes), Model(), Model()
    dense_optimizer = train(dense, settings, skip=(7,))
    rows = CutEmbedding(cut, TOUCHED)
    cut_optimizer = train(cut, settings, skip=(7,))
    with dense_optimizer.averaged(), cut_optimizer.averaged():
        rows.restore(cut_optimizer.decay_factors(rows.rows.weight), settings.ema)
        expected, actual = dense.state_dict(), cut.state_dict()
        assert expected.keys() == actual.keys()
        for name, value in expected.items():
            assert torch.equal(value, actual[name]), name
    assert not torch.equal(actual["embeddings.word.weight"], Model().embeddings["word"].weight)


def test_dense_training_itself_equals_a_plain_torch_loop():
    settings, ours, plain = (
        config(layer_lr_decay=1.0, lr_schedule="constant", warmup_steps=0),
        Model(),
        Model(),
    )
    train(ours, settings)
    adamw = torch.optim.AdamW(
        plain.parameters(), lr=1e-2, weight_decay=0.1, foreach=False, fused=False
    )
    rng = np.random.default_rng(3)
    for _ in range(STEPS):
        adamw.zero_grad()
        plain(torch.from_numpy(rng.choice(TOUCHED, (4, 6)))).square().sum().backward()
        adamw.step()
    for (name, a), b in zip(ours.named_parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-12, msg=name)


def test_the_global_gradient_norm_is_that_of_the_full_tables():
    norms = []
    for cut in (False, True):
        model = Model()
        if cut:
            CutEmbedding(model, TOUCHED)
        optimizer = Optimizer(parameter_groups(model, nn.Module(), config()), config())
        model(torch.from_numpy(TOUCHED)).square().sum().backward()
        norms.append(optimizer.gradient_norm())
    assert norms[0] == pytest.approx(norms[1], rel=1e-14)


def test_a_cut_table_holds_no_gradient_nor_state_for_other_rows():
    model = Model()
    cut = CutEmbedding(model, TOUCHED)
    assert cut.bytes_saved == 3 * (WORDS - len(TOUCHED)) * SIZE * 8
    optimizer = train(model, config(steps=1))
    assert optimizer.adamw.state[cut.rows.weight]["exp_avg"].shape == (len(TOUCHED), SIZE)


def test_a_word_outside_the_cut_is_an_error_not_a_wrong_row():
    model = Model()
    CutEmbedding(model, TOUCHED)
    with pytest.raises(IndexError):
        model(torch.tensor([4]))


def test_only_plain_trainable_tables_are_cut():
    model = Model()
    assert CutEmbedding.possible(model)
    freeze_embeddings(model)
    assert not CutEmbedding.possible(model)
    model.set_input_embeddings(nn.Embedding(WORDS, SIZE, max_norm=1.0))
    assert not CutEmbedding.possible(model)


def test_clipping_scales_all_gradients_to_the_limit():
    model, settings = Model(), config(max_grad_norm=0.5)
    optimizer = Optimizer(parameter_groups(model, nn.Module(), settings), settings)
    model(torch.from_numpy(TOUCHED)).square().sum().backward()
    before = {
        name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None
    }
    norm = optimizer.gradient_norm()
    assert norm == pytest.approx(
        math.sqrt(sum(float(g.square().sum()) for g in before.values()))
    )
    assert norm > 0.5
    optimizer.step(0, norm)
    for name, parameter in model.named_parameters():
        if parameter.grad is not None:
            torch.testing.assert_close(parameter.grad, before[name] * (0.5 / norm))


def test_groups_follow_layers_and_dimensions():
    settings = config(layer_lr_decay=0.5, decay_all=False, weight_decay=0.1)
    groups = parameter_groups(Model(), nn.Module(), settings)
    found = {
        name: (group["factor"], group["weight_decay"])
        for group in groups
        for name in group["names"]
    }
    assert found["embeddings.word.weight"] == (0.125, 0.1)
    assert found["layers.0.0.weight"] == (0.25, 0.1)
    assert found["layers.2.0.weight"] == (1.0, 0.1)
    assert found["layers.2.0.bias"] == found["layers.2.1.weight"] == (1.0, 0.0)
    assert found["pooler.weight"] == (1.0, 0.1)
    assert all(
        group["weight_decay"] == 0.1
        for group in parameter_groups(Model(), nn.Module(), config())
    )


@pytest.mark.parametrize("course", ["linear", "cosine", "constant"])
def test_learning_rate_rises_to_its_peak_and_falls(course):
    settings = TrainConfig(steps=100, warmup_steps=10, lr_schedule=course)
    factors = [learning_rate_factor(step, settings) for step in range(100)]
    assert factors[:10] == pytest.approx(np.linspace(0.1, 1, 10))
    assert factors[10] == 1.0
    assert all(a >= b > 0 for a, b in pairwise(factors[10:]))
    assert factors[-1] == pytest.approx(
        {"linear": 1 / 90, "cosine": (1 + math.cos(math.pi * 89 / 90)) / 2}.get(course, 1)
    )


def test_warm_up_over_all_steps_is_allowed():
    settings = TrainConfig(steps=4, warmup_steps=4)
    assert [learning_rate_factor(step, settings) for step in range(4)] == [0.25, 0.5, 0.75, 1.0]


def test_the_moving_average_follows_its_recursion_and_gives_the_weights_back():
    model, settings = Model(), config(ema=0.95, steps=25)
    expected = model.layers[0][0].weight.detach().clone()
    optimizer = Optimizer(parameter_groups(model, nn.Module(), settings), settings)
    for step in range(25):
        model.zero_grad()
        model(torch.from_numpy(TOUCHED)).square().sum().backward()
        optimizer.step(step, optimizer.gradient_norm())
        decay = average_decay(0.95, step)
        expected = decay * expected + (1 - decay) * model.layers[0][0].weight.detach()
    own = model.layers[0][0].weight.detach().clone()
    with optimizer.averaged():
        torch.testing.assert_close(
            model.layers[0][0].weight.detach(), expected, rtol=0, atol=1e-14
        )
    assert torch.equal(model.layers[0][0].weight, own)


def test_a_loaded_state_goes_on_bit_for_bit():
    settings = config(ema=0.9)
    whole = Model()
    train(whole, settings)
    half, other = Model(), Model(seed=9)
    first = Optimizer(parameter_groups(half, nn.Module(), settings), settings)
    rng = np.random.default_rng(3)
    batches = [torch.from_numpy(rng.choice(TOUCHED, (4, 6))) for _ in range(STEPS)]

    def steps(model, optimizer, begin, end):
        for step in range(begin, end):
            model.zero_grad()
            model(batches[step]).square().sum().backward()
            optimizer.step(step, optimizer.gradient_norm())

    steps(half, first, 0, 17)
    second = Optimizer(parameter_groups(other, nn.Module(), settings), settings)
    second.load({name: value.clone() for name, value in first.state().items()})
    steps(other, second, 17, STEPS)
    for (name, a), b in zip(whole.named_parameters(), other.parameters(), strict=True):
        assert torch.equal(a, b), name
