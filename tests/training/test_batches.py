"""Batches hold what the schedule says, tokenised once; shares of workers cut them without loss."""

from collections.abc import Sequence

import numpy as np
import pytest

from hybridbatch.common.errors import DataError
from hybridbatch.common.tokens import TokenArrays
from hybridbatch.sampling.plan import plan_schedule
from hybridbatch.training.batches import Batches
from tests.helpers.parallel import Table, rows

STEPS, SIZE = 6, 8


class Tokeniser:
    """Characters as ids, the side as first token; counts the texts it has seen."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, str]] = []

    def __call__(self, texts: Sequence[str], side: str) -> TokenArrays:
        self.seen += [(side, text) for text in texts]
        return TokenArrays.of(
            [[1 if side == "query" else 2, *map(ord, text)] for text in texts]
        )


def text(tokens: TokenArrays, i: int) -> str:
    return "".join(map(chr, tokens[i][1:]))


@pytest.fixture
def table() -> Table:
    return Table(rows(20))


def make(table: Table, hard_negatives: int = 0, seed: int = 3) -> tuple[Batches, Tokeniser]:
    schedule = plan_schedule(table.index, mix=0.5, batch_size=SIZE, steps=STEPS, seed=1)
    tokenise = Tokeniser()
    batches = Batches(schedule, table, tokenise, hard_negatives=hard_negatives, seed=seed)
    return batches, tokenise


def test_a_batch_holds_the_texts_of_its_rows(table):
    batches, _ = make(table)
    assert len(batches) == STEPS
    for step in range(STEPS):
        batch, schedule = batches[step], batches.schedule
        assert [text(batch.queries, i) for i in range(SIZE)] == [
            table.rows[r].query for r in schedule.query_row[step]
        ]
        assert [text(batch.passages, i) for i in range(SIZE)] == [
            table.rows[r].passage for r in schedule.passage_row[step]
        ]
        assert batch.pairs == SIZE
        assert list(batch.tokens[0]) == list(batch.queries[0])
        assert list(batch.tokens[SIZE]) == list(batch.passages[0])
        assert batches.pair_ids(step) == [
            table.rows[r].record_id for r in schedule.query_row[step]
        ]


def test_only_scheduled_rows_are_tokenised_and_each_once(table):
    batches, tokenise = make(table)
    queries = [t for side, t in tokenise.seen if side == "query"]
    assert len(queries) == len(np.unique(batches.schedule.query_row))


def test_words_are_those_of_the_batches(table):
    batches, _ = make(table, hard_negatives=2)
    expected = {int(i) for step in range(STEPS) for i in batches[step].tokens.ids}
    assert set(np.flatnonzero(batches.words(300))) == expected


def test_hard_negatives_follow_the_positives_without_repeats(table):
    batches, _ = make(table, hard_negatives=2)
    for step in range(STEPS):
        batch = batches[step]
        assert len(batch.passages) == 3 * SIZE
        assert batch.owner.tolist() == [*range(SIZE), *np.repeat(np.arange(SIZE), 2)]
        for pair in range(SIZE):
            row = table.rows[batches.schedule.passage_row[step][pair]]
            mine = [
                text(batch.passages, i) for i in range(SIZE, 3 * SIZE) if batch.owner[i] == pair
            ]
            assert len(set(mine)) == 2
            assert set(mine) <= set(row.negatives)


def test_more_hard_negatives_than_there_are_gives_all(table):
    batches, _ = make(table, hard_negatives=99)
    assert len(batches[0].passages) == 4 * SIZE


def test_rows_without_hard_negatives_take_part(table):
    table.rows = [row.__class__(row.source, row.record_id, row.language, row.query, row.passage, ()) if i % 2 else row for i, row in enumerate(table.rows)]  # fmt: skip
    batches, _ = make(table, hard_negatives=3)
    for step in range(STEPS):
        counts = np.bincount(batches[step].owner, minlength=SIZE) - 1
        assert counts.tolist() == [
            len(table.rows[r].negatives) for r in batches.schedule.passage_row[step]
        ]


def test_the_choice_of_hard_negatives_follows_the_seed(table):
    def choice(seed):
        batches, _ = make(table, hard_negatives=1, seed=seed)
        return [
            text(batches[step].passages, i)
            for step in range(STEPS)
            for i in range(SIZE, 2 * SIZE)
        ]

    assert choice(1) == choice(1)
    assert choice(1) != choice(2)


def test_equal_passages_have_equal_keys(table):
    batches, _ = make(table, hard_negatives=2)
    batch = batches[0]
    texts = [text(batch.passages, i) for i in range(len(batch.passages))]
    for i, key in enumerate(batch.keys):
        assert [k == key for k in batch.keys] == [t == texts[i] for t in texts]


@pytest.mark.parametrize("workers", [1, 2, 3, 8])
def test_shares_cut_a_batch_by_pairs(table, workers):
    batches, _ = make(table, hard_negatives=2)
    batch = batches[0]
    shares = batch.shares(workers)
    assert sorted(np.concatenate(shares)) == list(range(len(batch.tokens)))
    owner = np.concatenate([np.arange(SIZE), batch.owner])
    pairs = [sorted(set(owner[share])) for share in shares]
    assert [p for part in pairs for p in part] == list(range(SIZE))
    assert max(map(len, pairs)) - min(map(len, pairs)) <= 1


def test_padded_tokens_count_both_sides(table):
    batch = make(table)[0][0]
    longest = (
        max(len(batch.queries[i]) for i in range(SIZE)),
        max(len(batch.passages[i]) for i in range(SIZE)),
    )
    assert batch.padded_tokens() == SIZE * sum(longest)


def test_a_text_that_the_tokenizer_refuses_is_named_by_its_record(table):
    def tokenise(texts, side):
        if any(text == table.rows[6].query for text in texts):
            raise DataError("query sequence 0 has no tokens")
        return Tokeniser()(texts, side)

    schedule = plan_schedule(table.index, mix=1.0, batch_size=19, steps=9, seed=1)
    with pytest.raises(DataError, match="record 'train-2': query sequence 0"):
        Batches(schedule, table, tokenise)


@pytest.mark.parametrize("language", ["passage", "query", "both"])
def test_a_cross_lingual_pair_has_negatives_in_the_language_asked_for(table, language):
    schedule = plan_schedule(table.index, mix=0.5, batch_size=SIZE, steps=STEPS, seed=1)
    batches = Batches(
        schedule,
        table,
        Tokeniser(),
        hard_negatives=4,
        negatives_language=language,
    )
    kinds = set()
    for step in range(STEPS):
        kinds.add(int(schedule.kind[step]))
        batch = batches[step]
        for pair in range(SIZE):
            query, passage = (
                table.rows[rows[step][pair]]
                for rows in (schedule.query_row, schedule.passage_row)
            )
            able = {"passage": [passage], "query": [query], "both": [passage, query]}[language]
            able = {text for row in able for text in row.negatives}
            drawn = [
                text(batch.passages, i)
                for i in range(SIZE, len(batch.passages))
                if batch.owner[i] == pair
            ]
            assert len(drawn) == len(set(drawn)) == min(4, len(able))
            assert set(drawn) <= able
    assert len(kinds) == 2


def test_a_translation_of_another_pairs_positive_is_not_its_negative(table):
    """Negatives are passages of other records, so some are translations of positives in the batch."""
    records = len(table.rows) // 3
    others = [
        [(row // 3 + step) % records for step in range(2, 6)] for row in range(len(table.rows))
    ]
    table.rows = [
        row._replace(
            negatives=tuple(table.rows[3 * other + i % 3].passage for other in others[i])
        )
        for i, row in enumerate(table.rows)
    ]
    group = table.index.group
    schedule = plan_schedule(table.index, mix=0.5, batch_size=SIZE, steps=STEPS, seed=1)
    unknown = Batches(schedule, table, Tokeniser(), hard_negatives=3)
    table.known_groups = [group[other] for other in others]
    batches = Batches(schedule, table, Tokeniser(), hard_negatives=3)
    translated = 0
    group_of = {row.passage: group[i // 3] for i, row in enumerate(table.rows)}
    for step in range(STEPS):
        batch, plain = batches[step], unknown[step]
        assert [text(batch.passages, i) for i in range(4 * SIZE)] == [
            text(plain.passages, i) for i in range(4 * SIZE)
        ]
        groups = np.array([group_of[text(batch.passages, i)] for i in range(4 * SIZE)])
        assert (
            (batch.keys[:SIZE, None] == batch.keys) == (groups[:SIZE, None] == groups)
        ).all()
        translated += int(
            (batch.keys[:SIZE, None] == batch.keys).sum()
            - (plain.keys[:SIZE, None] == plain.keys).sum()
        )
    assert translated > 0
