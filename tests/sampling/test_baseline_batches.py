"""Multilingual translate-train: batches of whole records, whose translations are never each other's
negatives.
"""

from collections import Counter, defaultdict

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare

from hybridbatch.common.errors import ConfigError, DataError
from hybridbatch.common.tokens import TokenArrays
from hybridbatch.sampling.index import HAS_PASSAGE, HAS_QUERY, RecordIndex
from hybridbatch.sampling.plan import plan_schedule
from hybridbatch.sampling.schedule import Schedule
from hybridbatch.sampling.streams import COPIES
from hybridbatch.training.batches import Batch, Batches
from hybridbatch.training.model_card import batches_in_words
from hybridbatch.training.settings import TrainConfig
from tests.helpers.parallel import Table, rows
from tests.sampling.test_schedule import BOTH, make_index, parallel, record_of, same


def plan(
    index: RecordIndex,
    steps: int = 40,
    batch_size: int = 12,
    copies: int | None = None,
    seed: int = 3,
) -> Schedule:
    return plan_schedule(
        index,
        mix=0.5,
        batch_size=batch_size,
        steps=steps,
        seed=seed,
        strategy="mtt",
        copies=copies,
    )


def check_contract(index: RecordIndex, schedule: Schedule, copies: int) -> None:
    """Same-language pairs; the rows of a record stand together, in different languages, as many as
    it may bring.
    """
    assert (schedule.kind == COPIES).all()
    np.testing.assert_array_equal(schedule.query_row, schedule.passage_row)
    assert (index.has[schedule.query_row] == BOTH).all()
    owner = record_of(index, schedule.query_row)
    whole = np.bincount(
        record_of(index, np.flatnonzero(index.has == BOTH)), minlength=index.records
    )
    for step in range(schedule.steps):
        assert len(set(schedule.query_row[step].tolist())) == schedule.batch_size
        runs = [
            (record, list(owner[step]).count(record))
            for record in dict.fromkeys(owner[step].tolist())
        ]
        assert [record for record, count in runs for _ in range(count)] == owner[step].tolist()
        groups = [index.group[record] for record, _ in runs]
        assert len(set(groups)) == len(groups) >= min(2, schedule.batch_size)
        assert all(count == min(whole[record], copies) for record, count in runs[:-1])
        assert runs[-1][1] <= min(whole[runs[-1][0]], copies)
        assert set(index.source[owner[step]].tolist()) == {schedule.source[step]}


@pytest.mark.parametrize(("copies", "records"), [(None, 3), (1, 12), (3, 4), (2, 6)])
def test_a_batch_holds_records_in_several_languages(copies, records):
    index = make_index(parallel(50, 4))
    schedule = plan(index, copies=copies)
    check_contract(index, schedule, copies or 4)
    assert all(len(set(found)) == records for found in record_of(index, schedule.query_row))


def test_no_record_fills_more_than_half_of_a_batch():
    index = make_index(parallel(50, 9), languages=9)
    assert all(
        max(Counter(found).values()) == 4
        for found in record_of(index, plan(index, batch_size=8).query_row)
    )


def test_the_last_record_brings_what_there_is_room_for():
    index = make_index(parallel(50, 4))
    for found in record_of(index, plan(index, batch_size=10).query_row):
        assert list(Counter(found.tolist()).values()) == [4, 4, 2]


def test_every_record_comes_once_an_epoch_and_its_languages_are_drawn_evenly():
    index = make_index(parallel(60, 4))
    # 6 records a batch: 10 batches an epoch
    schedule = plan(index, steps=600, batch_size=12, copies=2)
    drawn = record_of(index, schedule.query_row)[:, ::2].reshape(60, 60)
    assert all(sorted(epoch) == list(range(60)) for epoch in drawn.tolist())
    languages = index.language[schedule.query_row].reshape(-1, 2)
    pairs = Counter(map(tuple, languages.tolist()))
    assert len(pairs) == 12
    assert chisquare(list(pairs.values())).pvalue > 1e-3
    assert schedule.summary(index)["epochs"] == {"source0 mtt": 60.0}


def test_one_copy_draws_the_languages_of_mixed_batches():
    index = make_index(parallel(60, 4))
    mixed = plan_schedule(index, mix=0.5, batch_size=12, steps=5, seed=3, strategy="mixed")
    counts = [
        np.bincount(index.language[s.query_row].ravel())
        for s in (mixed, plan(index, steps=5, copies=1))
    ]
    assert (
        counts[0].tolist() == counts[1].tolist()
    )  # the same draws, of records in another order


def test_steps_do_not_depend_on_how_many_there_are():
    index = make_index(parallel(30, 3))
    assert same(plan(index, steps=11), plan(index, steps=40).slice(0, 11))
    assert not same(plan(index), plan(index, seed=4))


def sides() -> st.SearchStrategy[dict[int, int]]:
    return st.dictionaries(
        st.integers(0, 3),
        st.sampled_from([HAS_QUERY, HAS_PASSAGE, BOTH]),
        min_size=0,
        max_size=4,
    )


@settings(max_examples=150, deadline=None)
@given(
    records=st.lists(
        st.tuples(st.integers(0, 1), st.integers(0, 12), sides()), min_size=0, max_size=40
    ),
    batch_size=st.integers(1, 8),
    copies=st.sampled_from([None, 1, 2, 3]),
    seed=st.integers(0, 5),
)
def test_any_data_gives_a_plan_that_keeps_the_contract_or_a_reason(
    records, batch_size, copies, seed
):
    records = sorted(records, key=lambda record: record[0])
    index = make_index(
        [(source, 100 * source + group, rows) for source, group, rows in records], sources=2
    )
    most = max(1, min(copies or 8, batch_size // 2))
    fewest: dict[int, dict[int, int]] = defaultdict(dict)  # by source and group
    for source, group, found in records:
        if pairs := min(most, list(found.values()).count(BOTH)):
            fewest[source][group] = min(pairs, fewest[source].get(group, most))
    if not any(sum(groups.values()) >= batch_size for groups in fewest.values()):
        with pytest.raises(DataError, match=r"^[^\n]+$"):
            plan(index, 30, batch_size, copies, seed)
        return
    schedule = plan(index, 30, batch_size, copies, seed)
    check_contract(index, schedule, most)
    assert same(plan(index, 11, batch_size, copies, seed), schedule.slice(0, 11))


def test_no_copies_are_refused():
    with pytest.raises(ConfigError, match="copies 0"):
        plan(make_index(parallel(30, 3)), copies=0)
    with pytest.raises(ValueError, match="copies"):
        TrainConfig(copies=0)


def tokens(*texts: str) -> TokenArrays:
    return TokenArrays.of([list(text.encode()) for text in texts])


def test_translations_and_equal_texts_are_no_negatives_of_each_other():
    passages = tokens("a-en", "a-de", "b-en", "b-de", "c", "b-de", "new", "a-en")
    batch = Batch(
        tokens(*"qrstu"),
        passages,
        np.array([0, 1, 2, 3, 4, 0, 1, 4]),
        np.array([7, 7, 9, 9, 4]),
    )
    expected = ["a", "a", "b", "b", "c", "b", "new", "a"]
    assert [[x == y for y in expected] for x in expected] == (
        batch.keys[:, None] == batch.keys
    ).tolist()


def test_records_joined_by_an_equal_text_are_joined_whole():
    passages = tokens("a-en", "same", "b-en", "same", "c")
    keys = Batch(tokens(*"qrstu"), passages, np.arange(5), np.array([1, 1, 2, 2, 3])).keys
    assert len(set(keys[:4].tolist())) == 1
    assert keys[4] != keys[0]


def test_scheduled_batches_know_their_records():
    table = Table(rows(24))
    schedule = plan(table.index, steps=5, batch_size=8)
    batches = Batches(schedule, table, lambda texts, side: tokens(*texts), hard_negatives=1)
    for step in range(5):
        owner = [table.rows[row].record_id for row in schedule.query_row[step]]
        same_record = np.array(owner)[:, None] == np.array(owner)
        keys = torch.from_numpy(batches[step].keys)[:8]
        assert ((keys[:, None] == keys).numpy() == same_record).all()


def test_the_recipe_says_which_batches_were_used():
    assert "mix 0.5" in batches_in_words(TrainConfig().as_json())
    for strategy in ("mixed", "mtt"):
        assert "mix 0.5" not in batches_in_words(TrainConfig(strategy=strategy).as_json())
    assert "up to 4 of its languages" in batches_in_words(
        TrainConfig(strategy="mtt", copies=4).as_json()
    )
