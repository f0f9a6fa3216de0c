"""Hybrid batches for plain PyTorch: the same batches as `train`, epoch after epoch."""

from itertools import islice
from pathlib import Path

import numpy as np
import pytest
from accelerate.data_loader import BatchSamplerShard
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import DataLoader

from hybridbatch.common.errors import ConfigError, DataError
from hybridbatch.data.store.reader import Store
from hybridbatch.data.store.writer import write_store
from hybridbatch.integrations.pytorch import (
    HybridBatchSampler,
    PairReader,
    collate_texts,
    keys_of_rows,
    rows_of_keys,
)
from hybridbatch.sampling.index import RecordIndex
from hybridbatch.sampling.plan import plan_schedule
from tests.helpers.parallel import rows


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("prepared") / "toy"
    sources = [{"name": "toy"}]
    write_store(place, [*rows(24), *rows(9, "validation")], provenance={"sources": sources})
    return place


def expected_texts(folder: Path, **settings) -> list[list[tuple[str, str]]]:
    """The batches of `train`'s schedule, as texts."""
    store = Store.open(folder)
    index = store.index("train")
    schedule = plan_schedule(index, **settings)
    batches = []
    for query_rows, passage_rows in zip(schedule.query_row, schedule.passage_row, strict=True):
        queries = store.queries("train", index.store_rows(query_rows))
        passages = store.passages("train", index.store_rows(passage_rows))
        batches.append(list(zip(queries, passages, strict=True)))
    return batches


@given(st.integers(1, 2**31), st.data())
def test_a_key_names_its_two_rows(count: int, data: st.DataObject) -> None:
    row = st.integers(0, count - 1)
    query, passage = np.array([data.draw(row)]), np.array([data.draw(row)])
    key = keys_of_rows(query, passage, count)
    assert key[0] >= 0
    assert (key[0] < count) == (query[0] == passage[0])
    assert [part.tolist() for part in rows_of_keys(key, count)] == [
        query.tolist(),
        passage.tolist(),
    ]


@pytest.mark.parametrize("mix", [0, 0.5, 1])
def test_the_batches_are_those_of_train(folder: Path, mix: float) -> None:
    pairs = PairReader.open(folder)
    sampler = HybridBatchSampler(pairs, batch_size=6, mix=mix, seed=5)
    loader = DataLoader(pairs, batch_sampler=sampler, collate_fn=collate_texts)
    got = [list(zip(batch["query"], batch["passage"], strict=True)) for batch in loader]
    assert len(got) == len(loader) == 4
    assert got == expected_texts(folder, mix=mix, batch_size=6, steps=4, seed=5)


def test_the_next_epoch_goes_on_where_the_last_one_ended(folder: Path) -> None:
    pairs = PairReader.open(folder)
    sampler = HybridBatchSampler(pairs, batch_size=6, steps=3, seed=5)
    epochs = []
    for epoch in range(2):
        sampler.set_epoch(epoch)
        epochs += list(sampler)
    longer = HybridBatchSampler(pairs, batch_size=6, steps=6, seed=5)
    assert epochs == list(longer)


def test_processes_share_one_hybrid_batch(folder: Path) -> None:
    """As accelerate gives batches out, the parts of a step together are the batch of one process."""
    pairs = PairReader.open(folder)
    one = list(HybridBatchSampler(pairs, batch_size=6, seed=5, processes=1))
    sampler = HybridBatchSampler(pairs, batch_size=3, seed=5, processes=2)
    ranks = [
        list(
            BatchSamplerShard(sampler, num_processes=2, process_index=rank, even_batches=False)
        )
        for rank in range(2)
    ]
    assert [first + second for first, second in zip(*ranks, strict=True)] == one


def test_rows_in_memory_give_the_batches_of_prepared_ones(folder: Path) -> None:
    table = [
        {
            "id": row.record_id,
            "language": row.language,
            "query": row.query,
            "passage": row.passage,
        }
        for row in reversed(rows(24))
    ]
    pairs = PairReader.from_rows(table)
    for batch in islice(HybridBatchSampler(pairs, batch_size=6, mix=1, seed=5), 4):
        texts = pairs[batch[0]], *pairs.__getitems__(batch[1:])
        assert len({text["passage"] for text in texts}) == 6
        languages = {pairs.index.language[key] for key in batch}
        assert len(languages) == 1


def test_an_index_of_ones_own_rows_keeps_their_order_and_their_equal_passages() -> None:
    table = [
        {"id": 2, "language": "sw", "query": "q2", "passage": "shared"},
        {"id": 1, "language": "en", "query": "q1", "passage": "shared"},
        {"id": 2, "language": "Amharic", "query": "q3", "passage": None},
    ]
    index = RecordIndex.from_rows(table)
    assert index.languages == ("amh", "eng", "swh")
    assert index.store_rows(np.arange(3)).tolist() == [1, 2, 0]
    assert index.record_start.tolist() == [0, 1, 3]
    assert index.group[0] == index.group[1]
    assert index.has.tolist() == [3, 1, 3]


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"id": None}, "row 1: no 'id'"),
        ({"language": ""}, "row 1: no 'language'"),
        ({"query": "", "passage": None}, "row 1: has neither"),
        ({"id": "a"}, "rows 0 and 1: record 'a' of rows has two rows in eng"),
    ],
)
def test_a_bad_row_of_ones_own_is_named(change: dict, told: str) -> None:
    good = {"id": "a", "language": "en", "query": "q", "passage": "p"}
    with pytest.raises(DataError, match=told):
        RecordIndex.from_rows([good, {**good, "id": "b", **change}])


def test_a_reader_has_an_end_and_refuses_what_is_no_key(folder: Path) -> None:
    pairs = PairReader.open(folder, languages="deu,swh")
    count = len(pairs)
    assert list(pairs) == pairs.__getitems__(range(count))
    for key in (-1, count * count):
        with pytest.raises(IndexError, match=f"0 to {count * count - 1}"):
            pairs[key]


def test_an_epoch_without_steps_is_refused(folder: Path) -> None:
    with pytest.raises(ConfigError, match="steps 0 must be at least 1"):
        HybridBatchSampler(PairReader.open(folder), batch_size=6, steps=0)


def test_a_batch_larger_than_the_data_is_refused(folder: Path) -> None:
    with pytest.raises(ConfigError, match="batch_size: a step takes 64 pairs"):
        HybridBatchSampler(PairReader.open(folder), batch_size=32, processes=2)
