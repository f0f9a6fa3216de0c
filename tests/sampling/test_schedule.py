"""The schedule's statistics and guarantees, checked against plain restatements on regular and
irregular data.
"""

from collections import Counter, defaultdict
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest, chisquare

from hybridbatch.common.errors import ConfigError, DataError
from hybridbatch.sampling.index import HAS_PASSAGE, HAS_QUERY, RecordIndex
from hybridbatch.sampling.plan import plan_schedule
from hybridbatch.sampling.schedule import Schedule
from hybridbatch.sampling.streams import CROSS_LINGUAL, MIXED, MONOLINGUAL

BOTH = HAS_QUERY | HAS_PASSAGE


def make_index(
    records: list[tuple[int, int, dict[int, int]]], languages: int = 4, sources: int = 1
) -> RecordIndex:
    """An index of (source, group, {language: has}) records."""
    widths = [len(rows) for _, _, rows in records]
    return RecordIndex(
        sources=tuple(f"source{number}" for number in range(sources)),
        languages=tuple(f"l{number:02}" for number in range(languages)),
        record_start=np.concatenate([[0], np.cumsum(widths)]).astype(np.int64),
        source=np.array([source for source, _, _ in records], np.int16),
        group=np.array([group for _, group, _ in records], np.int64),
        language=np.array([language for _, _, rows in records for language in rows], np.int16),
        has=np.array([has for _, _, rows in records for has in rows.values()], np.uint8),
    )


def parallel(count: int, languages: int, source: int = 0, first_group: int = 0) -> list:
    return [
        (source, first_group + number, dict.fromkeys(range(languages), BOTH))
        for number in range(count)
    ]


@pytest.fixture(scope="module")
def irregular() -> RecordIndex:
    """Source 0: 300 records in random languages, some one-sided, some sharing a passage. 1: one
    language. 2: tiny.
    """
    rng = np.random.default_rng(5)
    records = []
    for number in range(300):
        languages = np.flatnonzero(rng.random(5) < 0.7)
        sides = {
            int(language): int(rng.choice([BOTH, BOTH, HAS_QUERY, HAS_PASSAGE]))
            for language in languages
        }
        records.append((0, number // 3 if number < 60 else number, sides))
    records += [(1, 1000 + number, {2: BOTH}) for number in range(150)]
    records += [(2, 2000 + number, {0: BOTH, 1: BOTH}) for number in range(5)]
    return make_index(records, languages=6, sources=3)


def record_of(index: RecordIndex, rows: np.ndarray) -> np.ndarray:
    owner = np.repeat(np.arange(index.records), np.diff(index.record_start))
    return owner[rows]


def check_invariants(index: RecordIndex, schedule: Schedule) -> None:
    records = record_of(index, schedule.query_row)
    np.testing.assert_array_equal(records, record_of(index, schedule.passage_row))
    for step in range(schedule.steps):
        assert len(set(index.group[records[step]].tolist())) == schedule.batch_size, (
            "a record or passage text twice"
        )
        assert set(index.source[records[step]].tolist()) == {schedule.source[step]}
        spoken = set(index.language[schedule.query_row[step]].tolist())
        if schedule.kind[step] == MONOLINGUAL:
            assert spoken == {schedule.language[step]}
        else:
            assert schedule.language[step] == -1
    assert (index.has[schedule.query_row] & HAS_QUERY).all()
    assert (index.has[schedule.passage_row] & HAS_PASSAGE).all()
    cross = schedule.kind == CROSS_LINGUAL
    query_language, passage_language = (
        index.language[schedule.query_row],
        index.language[schedule.passage_row],
    )
    assert (query_language[cross] != passage_language[cross]).all()
    np.testing.assert_array_equal(schedule.query_row[~cross], schedule.passage_row[~cross])


def same(left: Schedule, right: Schedule) -> bool:
    names = ("kind", "source", "language", "query_row", "passage_row")
    return all(np.array_equal(getattr(left, name), getattr(right, name)) for name in names)


@pytest.mark.parametrize("mix", [0.0, 0.3, 0.5, 1.0])
def test_every_batch_of_irregular_data_keeps_the_contract(irregular, mix):
    check_invariants(
        irregular, plan_schedule(irregular, mix=mix, batch_size=16, steps=400, seed=3)
    )


def test_the_share_of_monolingual_batches_is_mix(irregular):
    for mix in (0.1, 0.5, 0.8):
        kinds = plan_schedule(irregular, mix=mix, batch_size=8, steps=4000, seed=1).kind
        assert binomtest(int((kinds == MONOLINGUAL).sum()), 4000, mix).pvalue > 1e-3
    assert (
        plan_schedule(irregular, mix=1.0, batch_size=8, steps=500, seed=1).kind == MONOLINGUAL
    ).all()
    assert (
        plan_schedule(irregular, mix=0.0, batch_size=8, steps=500, seed=1).kind == CROSS_LINGUAL
    ).all()


def test_mixes_share_their_random_numbers(irregular):
    kinds = [
        plan_schedule(irregular, mix=mix, batch_size=8, steps=300, seed=1).kind
        for mix in (0.2, 0.5, 0.9)
    ]
    for fewer, more in pairwise(kinds):
        assert (more[fewer == MONOLINGUAL] == MONOLINGUAL).all()


def test_monolingual_languages_are_uniform_whatever_their_size():
    records = parallel(60, 4) + [(0, 100 + number, {0: BOTH}) for number in range(300)]
    schedule = plan_schedule(make_index(records), mix=1.0, batch_size=10, steps=3000, seed=2)
    assert chisquare(np.bincount(schedule.language, minlength=4)).pvalue > 1e-3


def test_sources_are_drawn_by_usable_records_times_weight():
    records = parallel(100, 3) + parallel(300, 3, source=1, first_group=500)
    records += [(2, 900 + number, {1: BOTH}) for number in range(200)]
    index = make_index(records, sources=3)
    plan = plan_schedule(
        index, mix=0.5, batch_size=10, steps=4000, seed=4, source_weights={"source0": 2.0}
    )
    for kind, sizes in ((MONOLINGUAL, [200, 300, 200]), (CROSS_LINGUAL, [200, 300, 0])):
        counts = np.bincount(plan.source[plan.kind == kind], minlength=3)
        expected = np.array(sizes) / sum(sizes) * counts.sum()
        assert (counts[expected == 0] == 0).all()
        assert chisquare(counts[expected > 0], expected[expected > 0]).pvalue > 1e-3


def test_a_weight_of_zero_takes_a_source_out():
    index = make_index(parallel(40, 2) + parallel(40, 2, source=1, first_group=50), sources=2)
    plan = plan_schedule(
        index, mix=0.5, batch_size=8, steps=200, seed=0, source_weights={"source0": 0}
    )
    assert (plan.source == 1).all()


def test_cross_lingual_pairs_are_uniform_over_ordered_pairs_of_different_languages():
    index = make_index(parallel(200, 4))
    plan = plan_schedule(index, mix=0.0, batch_size=20, steps=600, seed=6)
    pairs = Counter(zip(index.language[plan.query_row].ravel().tolist(),
                        index.language[plan.passage_row].ravel().tolist(), strict=True))  # fmt: skip
    assert len(pairs) == 12
    assert chisquare(list(pairs.values())).pvalue > 1e-3


def test_one_sided_rows_serve_as_query_or_passage_only():
    """Like AfriQA: queries in all languages, passages in l00 and l01 alone."""
    sides = {0: BOTH, 1: HAS_PASSAGE, 2: HAS_QUERY, 3: HAS_QUERY}
    index = make_index([(0, number, sides) for number in range(60)])
    mono = plan_schedule(index, mix=1.0, batch_size=12, steps=50, seed=0)
    assert set(mono.language.tolist()) == {0}
    cross = plan_schedule(index, mix=0.0, batch_size=12, steps=500, seed=0)
    pairs = Counter(zip(index.language[cross.query_row].ravel().tolist(),
                        index.language[cross.passage_row].ravel().tolist(), strict=True))  # fmt: skip
    assert set(pairs) == {(0, 1), (2, 0), (2, 1), (3, 0), (3, 1)}
    assert chisquare(list(pairs.values())).pvalue > 1e-3


def test_mixed_batches_hold_same_language_pairs_of_many_languages():
    index = make_index(parallel(100, 4))
    plan = plan_schedule(index, mix=0.5, batch_size=20, steps=200, seed=0, strategy="mixed")
    check_invariants(index, plan)
    assert (plan.kind == MIXED).all()
    assert chisquare(np.bincount(index.language[plan.query_row].ravel())).pvalue > 1e-3
    assert all(len(set(index.language[rows].tolist())) > 1 for rows in plan.query_row)


def test_a_stream_repeats_a_record_only_after_all_its_others():
    """No shared passages: after k whole epochs each record was used k times, in an order that
    changes.
    """
    index = make_index(parallel(40, 2))
    plan = plan_schedule(index, mix=0.0, batch_size=8, steps=15, seed=7)
    epochs = record_of(index, plan.query_row).reshape(3, 40)
    assert [sorted(epoch) for epoch in epochs.tolist()] == [list(range(40))] * 3
    assert len({tuple(epoch) for epoch in epochs.tolist()}) == 3


@pytest.mark.parametrize("batch_size", [7, 9, 16, 39])
def test_uses_of_a_streams_records_stay_together_when_epochs_end_inside_a_batch(batch_size):
    groups = [number // 2 for number in range(80)]  # every passage is shared by two records
    index = make_index([(0, group, {0: BOTH, 1: BOTH}) for group in groups])
    plan = plan_schedule(index, mix=0.0, batch_size=batch_size, steps=200, seed=8)
    check_invariants(index, plan)
    uses = np.zeros(index.records, int)
    for batch in record_of(index, plan.query_row):
        uses[batch] += 1
        assert uses.max() - uses.min() <= 2
    assert uses.sum() == 200 * batch_size


def reference_batches(
    order: list[int], groups: np.ndarray, batch_size: int, batches: int
) -> list[list[int]]:
    """The rule restated: each batch is the earliest members of what is left whose groups all
    differ.
    """
    left, result = list(order), []
    for _ in range(batches):
        used, batch = set(), []
        for member in left:
            if groups[member] not in used and len(batch) < batch_size:
                used.add(groups[member])
                batch.append(member)
        for member in batch:
            left.remove(member)
        result.append(sorted(batch))
    return result


def test_deferred_records_come_first_in_the_next_batch():
    from hybridbatch.common.seeding import stream
    from hybridbatch.sampling.filling import fill_batches

    rng = np.random.default_rng(0)
    for trial in range(20):
        groups = rng.integers(0, 60, size=100)
        got = fill_batches(groups, 10, 25, lambda epoch, t=trial: stream(t, "order", epoch))
        order = [
            int(m)
            for epoch in range(8)
            for m in stream(trial, "order", epoch).permutation(np.arange(100))
        ]
        assert np.sort(got, axis=1).tolist() == reference_batches(order, groups, 10, 25)


def test_a_passage_shared_by_most_records_takes_one_place_in_each_batch_and_its_records_take_turns():
    index = make_index([(0, max(0, number - 50), {0: BOTH, 1: BOTH}) for number in range(70)])
    plan = plan_schedule(index, mix=0.0, batch_size=10, steps=600, seed=0)
    check_invariants(index, plan)
    uses = np.bincount(record_of(index, plan.query_row).ravel(), minlength=70)
    assert uses[:51].min() >= 10  # 600 places at most for 51 records
    assert uses[51:].min() >= 270  # 5400 places for 19 records


def test_a_shorter_plan_is_a_prefix_of_a_longer_one(irregular):
    longer = plan_schedule(irregular, mix=0.5, batch_size=16, steps=500, seed=9)
    for steps in (0, 1, 17, 499):
        assert same(
            plan_schedule(irregular, mix=0.5, batch_size=16, steps=steps, seed=9),
            longer.slice(0, steps),
        )


def test_seeds_give_different_plans_and_the_same_seed_the_same(irregular):
    plans = [
        plan_schedule(irregular, mix=0.5, batch_size=16, steps=50, seed=seed)
        for seed in (1, 1, 2)
    ]
    assert plans[0].fingerprint() == plans[1].fingerprint() != plans[2].fingerprint()
    assert same(plans[0], plans[1])
    assert not np.array_equal(plans[0].kind, plans[2].kind)
    assert not np.array_equal(plans[0].query_row, plans[2].query_row)


def test_ranks_cut_every_batch_into_contiguous_shares(irregular):
    plan = plan_schedule(irregular, mix=0.5, batch_size=16, steps=20, seed=1)
    shares = [plan.for_rank(rank, 3) for rank in range(3)]
    assert [share.batch_size for share in shares] == [5, 5, 6]
    np.testing.assert_array_equal(
        np.concatenate([share.query_row for share in shares], axis=1), plan.query_row
    )
    np.testing.assert_array_equal(
        np.concatenate([share.passage_row for share in shares], axis=1), plan.passage_row
    )


def test_streams_too_small_for_a_batch_are_left_out_and_named():
    records = parallel(40, 2) + [(0, 100 + number, {2: BOTH}) for number in range(7)]
    plan = plan_schedule(make_index(records), mix=1.0, batch_size=8, steps=200, seed=0)
    assert set(plan.language.tolist()) == {0, 1}
    assert len(plan.notes) == 1
    assert "source0" in plan.notes[0]
    assert "l02: 7 different passages in 7 records" in plan.notes[0]


def test_many_records_of_few_passages_cannot_fill_a_batch():
    index = make_index([(0, number % 5, {0: BOTH, 1: BOTH}) for number in range(100)])
    with pytest.raises(
        DataError, match=r"cross-lingual batch of 8 .* 100 records with 5 different passages"
    ):
        plan_schedule(index, mix=0.0, batch_size=8, steps=1, seed=0)


def test_data_in_one_language_refuses_cross_lingual_batches():
    index = make_index([(0, number, {number % 3: BOTH}) for number in range(50)])
    with pytest.raises(
        DataError,
        match=r"cross-lingual batches need records in at least two languages.*--mix 1",
    ):
        plan_schedule(index, mix=0.5, batch_size=8, steps=1, seed=0)
    plan_schedule(index, mix=1.0, batch_size=8, steps=1, seed=0)


def test_a_batch_larger_than_the_data_names_kind_size_and_mends():
    index = make_index(parallel(12, 2))
    with pytest.raises(DataError) as error:
        plan_schedule(index, mix=1.0, batch_size=100, steps=1, seed=0)
    for part in (
        "monolingual",
        "100",
        "source0 monolingual l00",
        "12 records",
        "--batch-size 12",
    ):
        assert part in str(error.value)
    assert "\n" not in str(error.value)


def test_settings_out_of_bounds_are_refused(irregular):
    plan = {"mix": 0.5, "batch_size": 8, "steps": 1, "seed": 0}
    with pytest.raises(ConfigError, match=r"mix 1\.5"):
        plan_schedule(irregular, **(plan | {"mix": 1.5}))
    with pytest.raises(ConfigError, match=r"mix '0\.5'"):
        plan_schedule(irregular, **(plan | {"mix": "0.5"}))
    with pytest.raises(ConfigError, match="seed -1"):
        plan_schedule(irregular, **(plan | {"seed": -1}))
    with pytest.raises(ConfigError, match=r"strategy 'hybird' is not one of hybrid, "):
        plan_schedule(irregular, **plan, strategy="hybird")
    with pytest.raises(ConfigError, match=r"sorce1.*source1"):
        plan_schedule(irregular, **plan, source_weights={"sorce1": 1})
    with pytest.raises(ConfigError, match="no source is left for cross-lingual"):
        plan_schedule(irregular, **plan, source_weights={"source0": 0})


def test_summary_counts_what_the_table_holds(irregular):
    plan = plan_schedule(irregular, mix=0.5, batch_size=16, steps=100, seed=1)
    summary = plan.summary(irregular)
    assert sum(summary["kinds"].values()) == sum(summary["sources"].values()) == 100
    assert sum(summary["languages"].values()) == summary["kinds"]["monolingual"]
    assert sum(summary["language_pairs"].values()) == 1600
    usable = sum((irregular.has[a:b] == BOTH).any() for a, b in
                 zip(irregular.record_start[450:], irregular.record_start[451:], strict=False))  # fmt: skip
    assert usable == 5
    share = np.count_nonzero((plan.kind == MONOLINGUAL) & (plan.source == 1)) * 16 / 150
    assert summary["epochs"]["source1 monolingual l02"] == pytest.approx(share)


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
    mix=st.sampled_from([0.0, 0.4, 1.0]),
    batch_size=st.integers(1, 6),
    strategy=st.sampled_from(["hybrid", "mixed"]),
    seed=st.integers(0, 5),
)
def test_any_data_gives_a_plan_that_keeps_the_contract_or_a_reason(
    records, mix, batch_size, strategy, seed
):
    records = sorted(records, key=lambda record: record[0])
    index = make_index(
        [(source, 100 * source + group, rows) for source, group, rows in records], sources=2
    )
    arguments = {"mix": mix, "batch_size": batch_size, "seed": seed, "strategy": strategy}
    if not _every_kind_possible(records, mix, batch_size, strategy):
        with pytest.raises(DataError, match=r"^[^\n]+$"):
            plan_schedule(index, steps=30, **arguments)
        return
    plan = plan_schedule(index, steps=30, **arguments)
    check_invariants(index, plan)
    assert same(plan_schedule(index, steps=11, **arguments), plan.slice(0, 11))


def _every_kind_possible(records, mix, batch_size, strategy) -> bool:
    """Whether some stream of each kind asked for has `batch_size` different groups, by brute force."""
    groups: dict[tuple, set] = defaultdict(set)
    for source, group, rows in records:
        for a, has in rows.items():
            if has == BOTH:
                groups["mono", source, a].add(group)
                groups["mixed", source].add(group)
            if has & HAS_QUERY and any(
                b != a and other & HAS_PASSAGE for b, other in rows.items()
            ):
                groups["cross", source].add(group)
    wanted = (
        {"mixed"}
        if strategy == "mixed"
        else ({"mono"} if mix > 0 else set()) | ({"cross"} if mix < 1 else set())
    )
    return wanted <= {key[0] for key, found in groups.items() if len(found) >= batch_size}
