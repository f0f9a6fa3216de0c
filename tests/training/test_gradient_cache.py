"""The gradient cache gives the gradient of the plain computation, with dropout replayed, in any
memory.
"""

from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import nn

from hybridbatch.common.errors import ConfigError
from hybridbatch.common.tokens import TokenArrays
from hybridbatch.training import gradient_cache
from hybridbatch.training.gradient_cache import GradientCache, dropout_seed, split
from hybridbatch.training.loss import InfoNCE

PAIRS = 9


class Encoder(nn.Module):
    """Mean of word vectors through a non-linear layer; float64."""

    def __init__(self, dropout: float) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.words, self.layer = nn.Embedding(50, 8).double(), nn.Linear(8, 6).double()
        self.dropout, self.calls = nn.Dropout(dropout), 0

    def forward(self, tokens: TokenArrays) -> torch.Tensor:
        self.calls += 1
        bag = nn.functional.embedding_bag(
            torch.tensor(tokens.ids),
            self.words.weight,
            torch.tensor(tokens.offsets[:-1]),
            mode="mean",
        )
        return nn.functional.normalize(self.layer(self.dropout(bag.tanh())), dim=1)


def sequences(seed: int = 0) -> TokenArrays:
    """Queries, positives (two of them equal) and hard negatives (one equals a positive)."""
    rng = np.random.default_rng(seed)
    texts = [rng.integers(0, 50, rng.integers(2, 12)).tolist() for _ in range(2 * PAIRS + 4)]
    texts[PAIRS + 5] = texts[PAIRS + 2]
    texts[-1] = texts[PAIRS]
    return TokenArrays.of(texts)


def objective(tokens: TokenArrays):
    passages = [tuple(tokens[i]) for i in range(PAIRS, len(tokens))]
    keys = torch.tensor([passages.index(p) for p in passages])
    loss = InfoNCE(0.1, symmetric=True).double()
    return lambda embeddings: loss(embeddings[:PAIRS], embeddings[PAIRS:], keys)


def gradients(module: nn.Module) -> list[torch.Tensor]:
    return [p.grad.clone() for p in module.parameters()]


def cached(module: Encoder, budget: int, **options) -> tuple[torch.Tensor, list[torch.Tensor]]:
    tokens = sequences()
    cache = GradientCache(module, list(module.parameters()), budget, **options)
    loss = cache.backward(tokens, objective(tokens), lambda number: 100 + number)
    return loss, gradients(module)


@pytest.mark.parametrize("budget", [1, 16, 40, 10_000])
def test_gradient_equals_the_plain_one_without_dropout(budget):
    tokens, plain = sequences(), Encoder(0.0)
    expected = objective(tokens)(plain(tokens))
    expected.backward()
    loss, grads = cached(Encoder(0.0), budget)
    assert loss.item() == pytest.approx(expected.item(), abs=1e-12)
    for actual, wanted in zip(grads, gradients(plain), strict=True):
        torch.testing.assert_close(actual, wanted, rtol=0, atol=1e-9)


def test_dropout_is_replayed():
    tokens, plain = sequences(), Encoder(0.5)
    parts = split(tokens.lengths, 40)
    assert len(parts) > 2
    rows = []
    for number, part in enumerate(parts):
        with dropout_seed(100 + number, torch.device("cpu")):
            rows.append(plain(tokens.take(part)))
    expected = objective(tokens)(torch.cat(rows)[np.argsort(np.concatenate(parts))])
    expected.backward()
    loss, grads = cached(Encoder(0.5), 40)
    assert loss.item() == pytest.approx(expected.item(), abs=1e-12)
    for actual, wanted in zip(grads, gradients(plain), strict=True):
        torch.testing.assert_close(actual, wanted, rtol=0, atol=1e-9)
    assert cached(Encoder(0.0), 40)[0] != loss


def test_the_global_random_state_is_left_alone():
    torch.manual_seed(5)
    before = torch.get_rng_state()
    cached(Encoder(0.5), 40)
    assert torch.equal(torch.get_rng_state(), before)


def test_one_micro_batch_is_embedded_once():
    module = Encoder(0.1)
    cached(module, 10_000)
    assert module.calls == 1


def test_the_last_micro_batch_is_embedded_once_and_the_others_twice():
    module, parts = Encoder(0.1), split(sequences().lengths, 40)
    cached(module, 40)
    assert module.calls == 2 * len(parts) - 1


def test_gradients_of_an_earlier_step_are_dropped():
    module = Encoder(0.0)
    _, first = cached(module, 40)
    _, second = cached(module, 40)
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


@pytest.mark.parametrize("budget", [1, 5, 11, 30, 200])
def test_split_covers_every_sequence_once_within_the_budget(budget):
    lengths = np.random.default_rng(1).integers(1, 12, 40)
    parts = split(lengths, budget)
    assert sorted(np.concatenate(parts)) == list(range(40))
    assert all(len(part) == 1 or lengths[part].sum() <= budget for part in parts)
    # the longest and fullest last
    assert all(lengths[a].max() <= lengths[b].min() for a, b in pairwise(parts))


class Greedy(Encoder):
    """Runs out of memory, in the forward or the backward pass, when given more than `limit` tokens."""

    def __init__(self, limit: int, when: str) -> None:
        super().__init__(0.3)
        self.limit, self.when = limit, when

    def forward(self, tokens: TokenArrays) -> torch.Tensor:
        too_much = len(tokens.ids) > self.limit
        if too_much and self.when == "forward":
            raise torch.OutOfMemoryError("no memory left")
        embeddings = super().forward(tokens)
        if too_much and embeddings.requires_grad:

            def fail(_):
                raise torch.OutOfMemoryError("no memory left")

            embeddings.register_hook(fail)
        return embeddings


@pytest.mark.parametrize("when", ["forward", "backward"])
def test_out_of_memory_halves_the_budget_and_starts_again(when):
    told: list[int] = []
    greedy = Greedy(45, when)
    loss, grads = cached(greedy, 100_000, on_halved=told.append)
    assert told
    assert all(a // 2 == b for a, b in pairwise(told))
    expected, wanted = cached(Encoder(0.3), told[-1])
    assert loss == expected
    assert all(torch.equal(a, b) for a, b in zip(grads, wanted, strict=True))


def out_of_memory(embeddings: torch.Tensor) -> torch.Tensor:
    raise torch.OutOfMemoryError("no memory left")


def test_a_loss_without_memory_is_tried_again_beside_a_smaller_graph(monkeypatch):
    monkeypatch.setattr(gradient_cache, "SMALL_BUDGET", 20)
    tokens, module, told, asked = sequences(), Encoder(0.3), [], []

    def twice_too_much(embeddings):
        asked.append(len(embeddings))
        return out_of_memory(embeddings) if len(asked) < 3 else objective(tokens)(embeddings)

    cache = GradientCache(module, list(module.parameters()), 80, on_halved=told.append)
    loss = cache.backward(tokens, twice_too_much, lambda number: 100 + number)
    assert told == [40, 20]
    expected, wanted = cached(Encoder(0.3), 20)
    assert loss == expected
    assert all(torch.equal(a, b) for a, b in zip(gradients(module), wanted, strict=True))


def test_a_loss_that_never_fits_is_an_error():
    module = Encoder(0.0)
    with pytest.raises(ConfigError, match="in the loss of 22 embeddings"):
        GradientCache(module, list(module.parameters()), 40).backward(
            sequences(), out_of_memory, lambda number: 0
        )


def test_a_budget_halved_elsewhere_is_halved_here():
    answers = iter([True, False])
    told: list[int] = []
    cached(Encoder(0.0), 64, anywhere=lambda flag: flag or next(answers), on_halved=told.append)
    assert told == [32]


def test_a_model_too_big_for_any_micro_batch_is_an_error():
    with pytest.raises(ConfigError, match="out of memory"):
        cached(Greedy(0, "forward"), 1000)


def test_other_errors_pass():
    class Broken(Encoder):
        def forward(self, tokens):
            raise RuntimeError("something else")

    with pytest.raises(RuntimeError, match="something else"):
        cached(Broken(0.0), 40)
