"""With `same_records`, mixes differ in the kind of their batches alone: not in records or order."""

from dataclasses import replace

import numpy as np
import pytest

from hybridbatch.common.errors import DataError
from hybridbatch.sampling.index import HAS_QUERY, RecordIndex
from hybridbatch.sampling.plan import plan_schedule
from hybridbatch.sampling.streams import CROSS_LINGUAL, MONOLINGUAL
from tests.sampling.test_schedule import BOTH, check_invariants, make_index, parallel, record_of

PLAN = {"batch_size": 8, "steps": 200, "seed": 3}


def same(index: RecordIndex) -> RecordIndex:
    return replace(index, same_records=True)


def mixed_sources() -> RecordIndex:
    """Source 0: parallel, some records sharing a passage. 1: parallel questions without passages.
    2: parallel, but every third record lacks a language.
    """
    records = [(0, number // 2 if number < 20 else number, dict.fromkeys(range(4), BOTH))
               for number in range(90)]  # fmt: skip
    records += [(1, 500 + number, dict.fromkeys(range(4), HAS_QUERY)) for number in range(60)]
    for number in range(60):
        spoken = range(1 if number % 3 == 0 else 0, 3)
        records.append((2, 900 + number, dict.fromkeys(spoken, BOTH)))
    return make_index(records, languages=4, sources=3)


def test_all_mixes_hold_the_same_records_step_by_step():
    index = same(mixed_sources())
    plans = [plan_schedule(index, mix=mix, **PLAN) for mix in (0, 0.3, 0.5, 1)]
    first = record_of(index, plans[0].query_row)
    for plan in plans:
        check_invariants(index, plan)
        np.testing.assert_array_equal(record_of(index, plan.query_row), first)
        np.testing.assert_array_equal(plan.source, plans[0].source)
    assert set(plans[0].kind.tolist()) == {CROSS_LINGUAL}
    assert set(plans[-1].kind.tolist()) == {MONOLINGUAL}


def test_steps_of_one_kind_are_the_same_batches_in_every_mix():
    index = same(make_index(parallel(80, 4)))
    low, high = (plan_schedule(index, mix=mix, **PLAN) for mix in (0.3, 0.7))
    both = low.kind == high.kind
    assert 0 < both.sum() < len(both)
    np.testing.assert_array_equal(low.query_row[both], high.query_row[both])
    np.testing.assert_array_equal(low.passage_row[both], high.passage_row[both])
    np.testing.assert_array_equal(low.language[both], high.language[both])


@pytest.mark.parametrize("same_records", [True, False])
def test_an_order_moves_the_kinds_and_keeps_their_numbers(same_records):
    index = replace(mixed_sources(), same_records=same_records)
    plain = plan_schedule(index, mix=0.4, **PLAN)
    orders = {"monolingual-first": MONOLINGUAL, "cross-lingual-first": CROSS_LINGUAL}
    for order, first in orders.items():
        plan = plan_schedule(index, mix=0.4, strategy=order, **PLAN)
        check_invariants(index, plan)
        count = int((plain.kind == first).sum())
        assert (plan.kind[:count] == first).all()
        assert (plan.kind[count:] != first).all()
        if same_records:
            np.testing.assert_array_equal(
                record_of(index, plan.query_row), record_of(index, plain.query_row)
            )
            alike = plan.kind == plain.kind
            np.testing.assert_array_equal(plan.passage_row[alike], plain.passage_row[alike])
    interleaved = plan_schedule(index, mix=0.4, strategy="hybrid", **PLAN)
    assert interleaved.fingerprint() == plain.fingerprint()


def test_an_order_of_one_kind_changes_nothing():
    index = same(make_index(parallel(80, 4)))
    for mix in (0, 1):
        plain = plan_schedule(index, mix=mix, **PLAN)
        moved = plan_schedule(index, mix=mix, strategy="monolingual-first", **PLAN)
        assert moved.fingerprint() == plain.fingerprint()


def test_only_records_that_serve_both_kinds_take_part_and_the_plan_says_how_many():
    index = same(mixed_sources())
    plan = plan_schedule(index, mix=0.5, **PLAN)
    drawn = np.unique(record_of(index, plan.query_row))
    assert set(index.source[drawn].tolist()) == {0, 2}
    widths = np.diff(index.record_start)
    assert (widths[drawn] == np.where(index.source[drawn] == 0, 4, 3)).all()
    assert any("130 of 210 records are whole" in note for note in plan.notes)


def test_cross_lingual_batches_of_fully_parallel_data_are_those_of_the_plain_plan():
    index = make_index(parallel(50, 3))
    plain = plan_schedule(index, mix=0, **PLAN)
    shared = plan_schedule(same(index), mix=0, **PLAN)
    assert plain.fingerprint() == shared.fingerprint()


def test_mixed_batches_take_the_common_order_too():
    index = same(make_index(parallel(50, 3)))
    hybrid = plan_schedule(index, mix=0.5, **PLAN)
    mixed = plan_schedule(index, mix=0.5, strategy="mixed", **PLAN)
    np.testing.assert_array_equal(
        record_of(index, hybrid.query_row), record_of(index, mixed.query_row)
    )


def test_all_languages_come_equally_often_in_both_kinds():
    index = same(make_index(parallel(64, 4)))
    for mix in (0.0, 1.0):
        plan = plan_schedule(index, mix=mix, batch_size=16, steps=2000, seed=1)
        share = np.bincount(index.language[plan.passage_row].ravel()) / plan.passage_row.size
        assert np.abs(share - 0.25).max() < 0.05


def test_data_without_a_parallel_record_is_refused_with_the_mend():
    index = same(make_index([(0, n, {n % 3: BOTH, (n + 1) % 3: BOTH}) for n in range(40)]))
    with pytest.raises(DataError, match="--same-records"):
        plan_schedule(index, mix=0.5, **PLAN)
