"""InfoNCE equals a dense float64 reference: values and gradients, with copies, hard negatives and
every option.
"""

import numpy as np
import pytest
import torch
from torch.nn import functional

from hybridbatch.common.errors import ConfigError
from hybridbatch.training import loss as loss_module
from hybridbatch.training.loss import InfoNCE, false_negatives, reciprocal_ranks

PAIRS, NEGATIVES, SIZE = 7, 5, 12


@pytest.fixture(autouse=True, params=["whole", "in blocks"])
def blocks(request, monkeypatch):
    """Every test also with the scores of two queries in memory at a time."""
    if request.param == "in blocks":
        monkeypatch.setattr(loss_module, "WHOLE_SCORES", 1)
        monkeypatch.setattr(loss_module, "BLOCK_SCORES", 2 * (PAIRS + NEGATIVES))


def unit_rows(rows: int, seed: int) -> np.ndarray:
    vectors = np.random.default_rng(seed).normal(size=(rows, SIZE))
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def reference(queries, passages, keys, temperature, margin=0.0):
    """Loss and its gradients with respect to queries and passages, one query and candidate at a
    time.
    """
    loss, of_queries, of_passages = 0.0, np.zeros_like(queries), np.zeros_like(passages)
    for i, query in enumerate(queries):
        candidates = [j for j in range(len(passages)) if j == i or keys[j] != keys[i]]
        logits = np.array(
            [(query @ passages[j] - margin * (j == i)) / temperature for j in candidates]
        )
        shares = np.exp(logits - logits.max())
        shares /= shares.sum()
        loss -= np.log(shares[candidates.index(i)]) / len(queries)
        for j, share in zip(candidates, shares, strict=True):
            slope = (share - (j == i)) / temperature / len(queries)
            of_queries[i] += slope * passages[j]
            of_passages[j] += slope * query
    return loss, of_queries, of_passages


@pytest.fixture
def batch():
    queries, passages = unit_rows(PAIRS, 1), unit_rows(PAIRS + NEGATIVES, 2)
    keys = np.arange(PAIRS + NEGATIVES)
    passages[4] = passages[1]  # the same passage serves two queries
    keys[4] = keys[1]
    passages[PAIRS + 2] = passages[0]  # a hard negative of one query is the positive of another
    keys[PAIRS + 2] = keys[0]
    # tied candidates that nobody masks for their own sake
    passages[PAIRS + 3] = passages[PAIRS + 4]
    return queries, passages, keys


def run(loss: InfoNCE, queries, passages, keys):
    q, p = (torch.tensor(v, requires_grad=True) for v in (queries, passages))
    value = loss.double()(q, p, torch.tensor(keys))
    value.backward()
    return value.item(), q.grad.numpy(), p.grad.numpy()


@pytest.mark.parametrize("margin", [0.0, 0.2])
@pytest.mark.parametrize("temperature", [1.0, 0.05])
def test_value_and_gradients_equal_the_dense_reference(batch, temperature, margin):
    expected = reference(*batch, temperature, margin)
    actual = run(InfoNCE(temperature, margin=margin), *batch)
    for a, e in zip(actual, expected, strict=True):
        np.testing.assert_allclose(a, e, rtol=0, atol=1e-12)


def test_copies_of_the_positive_are_no_negatives(batch):
    queries, passages, keys = batch
    distinct = np.arange(len(keys))
    assert (
        run(InfoNCE(0.1), queries, passages, keys)[0]
        < run(InfoNCE(0.1), queries, passages, distinct)[0]
    )


def test_symmetric_averages_both_directions(batch):
    queries, passages, keys = batch
    forth = reference(queries, passages, keys, 0.1)
    back = reference(passages[:PAIRS], queries, keys[:PAIRS], 0.1)
    loss, of_queries, of_passages = run(InfoNCE(0.1, symmetric=True), *batch)
    assert loss == pytest.approx((forth[0] + back[0]) / 2, abs=1e-12)
    np.testing.assert_allclose(of_queries, (forth[1] + back[2]) / 2, atol=1e-12)
    np.testing.assert_allclose(
        of_passages[:PAIRS], (forth[2][:PAIRS] + back[1]) / 2, atol=1e-12
    )
    np.testing.assert_allclose(of_passages[PAIRS:], forth[2][PAIRS:] / 2, atol=1e-12)


def test_matryoshka_averages_the_renormalised_prefixes(batch):
    queries, passages, keys = batch
    losses = [reference(queries, passages, keys, 0.1)[0]]
    for size in (8, 4):
        cut = [
            v[:, :size] / np.linalg.norm(v[:, :size], axis=1, keepdims=True)
            for v in (queries, passages)
        ]
        losses.append(reference(*cut, keys, 0.1)[0])
    assert run(InfoNCE(0.1, dims=(8, 4)), *batch)[0] == pytest.approx(
        np.mean(losses), abs=1e-12
    )


@pytest.mark.parametrize("size", [0, SIZE + 1])
def test_a_matryoshka_dimension_must_be_a_prefix(size):
    with pytest.raises(ConfigError, match=f"matryoshka_dims = {size}"):
        InfoNCE(0.1, dims=(4, size)).check_dims(SIZE)


def test_the_whole_dimension_is_trained_anyway_and_counted_once(batch):
    named, plain = InfoNCE(0.1, dims=(SIZE, 4)), InfoNCE(0.1, dims=(4,))
    named.check_dims(SIZE)
    assert run(named, *batch)[0] == run(plain, *batch)[0]


def test_learned_temperature_has_the_numerical_gradient(batch):
    queries, passages, keys = batch
    loss = InfoNCE(0.1, learn_temperature=True)
    run(loss, *batch)
    log_t, step = loss.log_temperature.item(), 1e-6
    high, low = (
        reference(queries, passages, keys, np.exp(log_t + s))[0] for s in (step, -step)
    )
    assert float(loss.log_temperature.grad) == pytest.approx(
        (high - low) / (2 * step), rel=1e-6
    )


def test_a_fixed_temperature_is_no_parameter_that_trains():
    assert not any(parameter.requires_grad for parameter in InfoNCE(0.1).parameters())


def test_autograd_and_numerical_gradients_agree():
    loss = InfoNCE(0.3, symmetric=True, margin=0.1, dims=(5,)).double()
    keys = torch.tensor([0, 1, 0, 3, 1])
    raw = [
        torch.randn(n, SIZE, dtype=torch.float64, generator=torch.Generator().manual_seed(n))
        for n in (3, 5)
    ]

    def of_raw(q, p):
        return loss(functional.normalize(q, dim=1), functional.normalize(p, dim=1), keys)

    assert torch.autograd.gradcheck(of_raw, [v.requires_grad_() for v in raw])


def test_false_negatives_spare_the_positives():
    masked = false_negatives(torch.tensor([5, 6, 5, 6]), 3)
    assert masked.tolist() == [
        [False, False, True, False],
        [False, False, False, True],
        [True, False, False, False],
    ]


def test_reciprocal_ranks_count_ties_against_the_positive():
    queries = torch.eye(3)[:2]
    passages = torch.tensor([[1.0, 0, 0], [0, 0.5, 0], [0, 0.5, 0], [1.0, 0, 0]])
    assert reciprocal_ranks(queries, passages, torch.tensor([0, 1, 2, 0])).tolist() == [
        1.0,
        0.5,
    ]
    assert reciprocal_ranks(queries, passages, torch.tensor([0, 1, 2, 3])).tolist() == [
        0.5,
        0.5,
    ]
