"""Validation batches are fixed, of both kinds, and as large as their split allows."""

import numpy as np
import pytest
import torch

from hybridbatch.sampling.index import RecordIndex
from hybridbatch.sampling.streams import CROSS_LINGUAL, MONOLINGUAL
from hybridbatch.training.loss import InfoNCE
from hybridbatch.training.validation import Validation, plan_validation
from tests.helpers.parallel import Table, rows


def test_both_kinds_are_planned_at_the_training_batch_size():
    planned, notes = plan_validation(Table(rows(30)).index, 10, 3)
    assert {name: (s.steps, s.batch_size) for name, s in planned.items()} == {
        "monolingual": (3, 10),
        "cross-lingual": (3, 10),
    }
    assert set(planned["monolingual"].kind) == {MONOLINGUAL}
    assert set(planned["cross-lingual"].kind) == {CROSS_LINGUAL}
    assert notes == []


def test_a_small_split_gets_smaller_batches_and_as_many_pairs():
    # records 0 and 1 share their passages
    planned, notes = plan_validation(Table(rows(9)).index, 20, 2)
    assert {(s.steps, s.batch_size) for s in planned.values()} == {(5, 8)}
    assert len(notes) == 2
    assert all("8 pairs" in note for note in notes)


def test_one_language_has_no_cross_lingual_validation():
    whole = Table(rows(9)).index
    one = RecordIndex(
        whole.sources,
        ("eng",),
        np.arange(10),
        whole.source,
        whole.group,
        np.zeros(9, np.int16),
        whole.has[::3],
    )
    planned, notes = plan_validation(one, 4, 2)
    assert list(planned) == ["monolingual"]
    assert "no cross-lingual validation" in notes[0]


def test_a_split_of_one_record_has_no_validation():
    planned, notes = plan_validation(Table(rows(1)).index, 4, 2)
    assert planned == {}
    assert len(notes) == 2


def test_measures_are_means_over_batches_then_kinds():
    class Fixed(list):
        """Stands for `Batches`: a list of (queries, passages, keys)."""

    def batch(*cosines):
        count = len(cosines)
        queries = torch.eye(count, 4)
        passages = torch.stack(
            [
                torch.eye(4)[i] * c + torch.eye(4)[3] * (1 - c**2) ** 0.5
                for i, c in enumerate(cosines)
            ]
        )
        return queries, passages, torch.arange(count)

    kinds = {
        "monolingual": Fixed([batch(0.9, 0.5), batch(0.2, 0.3)]),
        "cross-lingual": Fixed([batch(0.7, -0.1)]),
    }
    objective = InfoNCE(0.5)
    found = Validation(kinds).measure(lambda sides: sides, objective)
    losses = {
        kind: np.mean([float(objective(*b)) for b in batches])
        for kind, batches in kinds.items()
    }
    assert found["loss/monolingual"] == pytest.approx(losses["monolingual"])
    assert found["loss"] == pytest.approx(np.mean(list(losses.values())))
    assert found["mrr/monolingual"] == 1.0
    assert found["mrr/cross-lingual"] == pytest.approx((1.0 + 0.5) / 2)
    assert found["mrr"] == pytest.approx((1.0 + 0.75) / 2)
