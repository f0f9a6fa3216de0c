"""The cheap dropout against the definition of dropout."""

import pytest
import torch
from torch import nn

from hybridbatch.model.dropout import LEVELS, Dropout, dropout, use_cheap_dropout


@pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_share_and_mean_are_as_asked(p: float, dtype: torch.dtype):
    torch.manual_seed(1)
    n = 400_001  # not a multiple of the four elements of a draw
    dropped = dropout(torch.ones(n, dtype=dtype), p)
    share = (dropped == 0).double().mean().item()
    assert abs(share - p) < 5 * (p * (1 - p) / n) ** 0.5
    chance = round(p * LEVELS) / LEVELS
    assert set(dropped.double().unique().tolist()) == {
        0.0,
        torch.tensor(1 / (1 - chance), dtype=dtype).double().item(),
    }


def test_neighbours_are_independent():
    torch.manual_seed(2)
    dropped = (dropout(torch.ones(100_000, 4), 0.5) == 0).double()
    for lag in (1, 2, 3, 4, 8):
        flat = dropped.flatten()
        correlation = torch.corrcoef(torch.stack([flat[:-lag], flat[lag:]]))[0, 1]
        assert abs(correlation) < 0.01


def test_gradient_has_the_mask_of_the_values():
    values = torch.linspace(1, 2, 1001, dtype=torch.float64, requires_grad=True)
    dropped = dropout(values, 0.3)
    (dropped * 7).sum().backward()
    torch.testing.assert_close(values.grad, 7 * (dropped / values).detach())


def test_the_generators_state_repeats_the_mask_whatever_the_threads():
    state, threads = torch.get_rng_state(), torch.get_num_threads()
    first, second = dropout(torch.ones(50_000), 0.1), dropout(torch.ones(50_000), 0.1)
    assert not torch.equal(first, second)
    torch.set_rng_state(state)
    torch.set_num_threads(2)
    try:
        assert torch.equal(dropout(torch.ones(50_000), 0.1), first)
    finally:
        torch.set_num_threads(threads)


def test_it_takes_the_place_of_every_dropout():
    model = nn.Sequential(
        nn.Linear(3, 3), nn.Dropout(0.4), nn.Sequential(nn.Dropout(0.2), nn.ReLU())
    ).eval()
    weights = {name: value.clone() for name, value in model.state_dict().items()}
    use_cheap_dropout(model)
    assert [type(m) for m in model.modules()].count(Dropout) == 2
    assert [m.p for m in model.modules() if isinstance(m, nn.Dropout)] == [0.4, 0.2]
    assert all(torch.equal(model.state_dict()[name], value) for name, value in weights.items())
    ones = torch.ones(64, 3)
    assert torch.equal(model(ones), model(ones))  # evaluation mode, as before
    model.train()
    assert not torch.equal(model(ones), model(ones))
