"""Prepared data: what goes in comes out, in an order of its own; bad data and damage are named."""

import random
import unicodedata
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hybridbatch.common.errors import DataError, OutputError
from hybridbatch.common.files import read_json, write_json
from hybridbatch.common.records import BadRow, Row
from hybridbatch.common.texts import clean_text
from hybridbatch.common.tokens import TokenArrays
from hybridbatch.data.store import intake as ingest
from hybridbatch.data.store.reader import Store
from hybridbatch.data.store.writer import write_store
from hybridbatch.sampling.index import HAS_PASSAGE, HAS_QUERY, shared_passage_groups
from hybridbatch.sampling.plan import plan_schedule

LANGUAGES = ["eng", "swh", "amh", "yor"]


def make_rows(records: int = 60, source: str = "alpha", split: str = "train") -> list[Row]:
    """Records in one to four languages; every fifth language version lacks its passage; three share
    each passage.
    """
    rows = []
    for number in range(records):
        for place, language in enumerate(LANGUAGES[: 1 + number % 4]):
            passage = (
                None
                if (number + place) % 5 == 4
                else f"{source} passage {number // 3} {language}"
            )
            negatives = (f"not {number}",) * (number % 2)
            rows.append(
                Row(
                    source,
                    f"r{number}",
                    language,
                    f"{source} query {number}",
                    passage,
                    negatives,
                    split,
                )
            )
    return rows


def write(folder: Path, rows, **options) -> Store:
    write_store(
        folder, rows, provenance={"sources": [{"name": "alpha", "licence": "CC0"}]}, **options
    )
    return Store.open(folder)


def everything(store: Store) -> list[Row]:
    return [
        row
        for split in store.splits
        for row in store.rows(split, np.arange(store.index(split).rows))
    ]


def by_key(rows):
    return sorted(rows, key=lambda row: (row.source, row.record_id, row.language))


def test_rows_come_back_whole(tmp_path):
    rows = make_rows() + make_rows(20, "beta", "test")
    store = write(tmp_path / "data", rows, validation_share=0)
    assert by_key(everything(store)) == by_key(rows)
    assert store.splits == ("train", "test")
    assert store.sources == ("alpha", "beta")
    assert store.languages == tuple(sorted(LANGUAGES))
    assert store.manifest["licences"] == {"alpha": "CC0"}
    counts = store.manifest["splits"]["train"]["counts"]["alpha"]
    assert counts == {language: sum(row.language == language for row in rows if row.source == "alpha")
                      for language in sorted(LANGUAGES)}  # fmt: skip
    store.verify()


def test_the_index_describes_the_rows(tmp_path):
    store = write(tmp_path / "data", make_rows() + make_rows(7, "beta"))
    for split in store.splits:
        index = store.index(split)
        rows = store.rows(split, np.arange(index.rows))
        seen = set()
        for record in range(index.records):
            members = rows[index.record_start[record] : index.record_start[record + 1]]
            assert {(row.source, row.record_id) for row in members} == {
                (members[0].source, members[0].record_id)
            }
            assert index.sources[index.source[record]] == members[0].source
            seen.add((members[0].source, members[0].record_id))
        assert len(seen) == index.records
        for number, row in enumerate(rows):
            assert index.languages[index.language[number]] == row.language
            expected = HAS_QUERY * (row.query is not None) + HAS_PASSAGE * (
                row.passage is not None
            )
            assert index.has[number] == expected


def test_texts_are_fetched_in_the_order_asked_for_repeats_included(tmp_path):
    store = write(tmp_path / "data", make_rows(), shard_rows=10)
    assert len(store.manifest["shards"]) > 10
    rows = store.rows("train", np.arange(store.index("train").rows))
    wanted = np.random.default_rng(0).integers(0, len(rows), 200)
    assert store.queries("train", wanted) == [rows[row].query for row in wanted]
    assert store.record_ids("train", wanted) == [rows[row].record_id for row in wanted]
    assert store.negatives("train", wanted) == [rows[row].negatives for row in wanted]
    present = wanted[[rows[row].passage is not None for row in wanted]]
    assert store.passages("train", present) == [rows[row].passage for row in present]
    assert store.queries("train", np.empty(0, np.int64)) == []
    missing = np.array([number for number, row in enumerate(rows) if row.passage is None])
    with pytest.raises(ValueError, match="no passage"):
        store.passages("train", missing)


def test_the_fingerprint_depends_on_content_alone(tmp_path, monkeypatch):
    rows = make_rows() + make_rows(30, "beta")
    reference = write(tmp_path / "a", rows)
    random.Random(1).shuffle(rows)
    monkeypatch.setattr(ingest, "_RUN_ROWS", 17)
    other = write(tmp_path / "b", rows, shard_rows=13)
    assert other.fingerprint == reference.fingerprint
    assert everything(other) == everything(reference)
    for split in reference.splits:
        for name in ("record_start", "source", "group", "language", "has"):
            np.testing.assert_array_equal(
                getattr(other.index(split), name), getattr(reference.index(split), name), name
            )
    assert write(tmp_path / "c", rows[1:]).fingerprint != reference.fingerprint
    changed = [rows[0]._replace(negatives=("x",)), *rows[1:]]
    assert write(tmp_path / "d", changed).fingerprint != reference.fingerprint


def test_the_same_rows_give_the_same_bytes(tmp_path):
    for name in ("a", "b"):
        write(tmp_path / name, make_rows())
    files = sorted(
        path.relative_to(tmp_path / "a")
        for path in (tmp_path / "a").rglob("*")
        if path.is_file()
    )
    assert len(files) >= 12
    for file in files:
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes(), (
            file
        )


def connected(rows: list[Row]) -> dict[str, frozenset[str]]:
    """Records reachable from each record through shared passages, by plain search."""
    holders = defaultdict(set)
    for row in rows:
        if row.passage:
            holders[row.passage].add(row.record_id)
    reach = {}
    for start in {row.record_id for row in rows}:
        found, todo = {start}, [start]
        while todo:
            here = todo.pop()
            for row in rows:
                if row.record_id == here and row.passage:
                    todo += holders[row.passage] - found
                    found |= holders[row.passage]
        reach[start] = frozenset(found)
    return reach


def test_records_that_share_a_passage_are_one_group_and_stay_on_one_side_of_validation(
    tmp_path,
):
    rows = make_rows(200)
    store = write(tmp_path / "data", rows, validation_share=0.2)
    reach, placed = connected(rows), {}
    for split in ("train", "validation"):
        index = store.index(split)
        ids = store.record_ids(split, index.record_start[:-1])
        for record, group in zip(ids, index.group.tolist(), strict=True):
            placed[record] = (split, group)
    for record, members in reach.items():
        assert {placed[member] for member in members} == {placed[record]}
    assert len(set(placed.values())) == len(set(reach.values()))
    share = store.index("validation").records / 200
    assert 0.15 < share <= 0.2


def test_the_choice_of_validation_records_depends_on_the_seed_alone(tmp_path):
    def chosen(name, rows, seed):
        store = write(tmp_path / name, rows, validation_share=0.2, seed=seed)
        return set(store.record_ids("validation", np.arange(store.index("validation").rows)))

    rows = make_rows(120)
    first = chosen("a", rows, 1)
    assert chosen("b", rows[::-1], 1) == first
    assert chosen("c", rows, 2) != first


def test_a_source_with_splits_of_its_own_keeps_them(tmp_path):
    own = [*make_rows(40), Row("alpha", "v", "eng", "q", "p", split="validation")]
    store = write(tmp_path / "data", own + make_rows(40, "beta"), validation_share=0.25)
    ids = store.rows("validation", np.arange(store.index("validation").rows))
    assert {row.record_id for row in ids if row.source == "alpha"} == {"v"}
    assert any(row.source == "beta" for row in ids)


def test_a_passage_of_most_records_does_not_become_the_validation_set(tmp_path):
    rows = [
        Row("alpha", f"r{n}", "eng", f"q{n}", "yes" if n < 50 else f"p{n}") for n in range(100)
    ]
    for seed in range(10):
        store = write(tmp_path / f"{seed}", rows, validation_share=0.1, seed=seed)
        assert store.index("validation").records == 10


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 12)), max_size=40))
def test_groups_are_the_connected_components(pairs):
    """Against plain merging of sets."""
    sets = [{record} for record in range(10)]
    for text in range(1, 13):
        linked = {record for record, other in pairs if other == text}
        joined = set().union(*[one for one in sets if one & linked]) if linked else set()
        sets = [one for one in sets if not one & linked] + ([joined] if joined else [])
    record = np.array([record for record, _ in pairs], np.int64)
    group = shared_passage_groups(record, np.array([text for _, text in pairs], np.uint64), 10)
    assert {
        frozenset(np.flatnonzero(group == number).tolist()) for number in set(group.tolist())
    } == {frozenset(one) for one in sets}


def test_texts_are_normalised_at_the_door(tmp_path):
    raw = Row(
        "alpha",
        "r",
        "eng",
        "  cafe\u0301\x00\x07 ",
        "\ufeffa\u200db\tc\n\ud800",
        ("", " x ", "a\u200db\tc", "x"),
    )
    (row,) = everything(write(tmp_path / "data", [raw]))
    assert row.query == "café"
    assert row.passage == "a\u200db\tc"
    assert row.negatives == ("x",)


@given(st.text())
def test_clean_text_is_idempotent_and_storable(text):
    clean = clean_text(text)
    if clean is not None:
        assert clean_text(clean) == clean
        assert unicodedata.is_normalized("NFC", clean.encode().decode())


def test_bad_rows_are_counted_and_the_first_listed(tmp_path):
    bad = [BadRow("file.jsonl", line, "query", "must be text") for line in range(1, 31)]
    rows = [*bad, Row("alpha", "empty", "eng", " \x00", ""), *make_rows(5)]
    store = write(tmp_path / "data", rows)
    dropped = store.manifest["dropped"]
    assert dropped["rows"] == 31
    assert dropped["reasons"] == {
        "query, passage: both are empty": 1,
        "query: must be text": 30,
    }
    assert dropped["examples"][0] == {
        "file": "file.jsonl",
        "line": 1,
        "field": "query",
        "reason": "must be text",
    }
    assert len(dropped["examples"]) == 20
    assert len(everything(store)) == len(make_rows(5))


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (
            [BadRow("file.jsonl", 7, "query", "must be text")],
            r"file\.jsonl:7: query: must be text",
        ),
        (
            [Row("alpha", "e", "eng", "", None)],
            r"source alpha, record 'e', language eng: .*both are empty",
        ),
    ],
)
def test_strict_stops_at_a_bad_row_and_leaves_nothing(tmp_path, rows, message):
    with pytest.raises(DataError, match=message):
        write(tmp_path / "data", make_rows(5) + rows, strict=True)
    assert list(tmp_path.iterdir()) == []


def test_a_record_twice_in_a_language_is_refused_by_name(tmp_path, monkeypatch):
    monkeypatch.setattr(ingest, "_RUN_ROWS", 7)
    rows = [*make_rows(), Row("alpha", "r5", "swh", "again", "again")]
    with pytest.raises(
        DataError, match=r"source alpha: record 'r5' has two rows in language swh"
    ) as error:
        write(tmp_path / "data", rows)
    assert "\n" not in str(error.value)
    assert list(tmp_path.iterdir()) == []


def test_a_record_in_two_splits_is_refused_by_name(tmp_path):
    rows = [
        *make_rows(3),
        Row("alpha", "x", "eng", "q", "p"),
        Row("alpha", "x", "swh", "q", "p", split="test"),
    ]
    with pytest.raises(DataError, match=r"record 'x' has rows in more than one split"):
        write(tmp_path / "data", rows)


def test_data_without_a_usable_row_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"no usable row, but 1 bad rows .*f:3: query: empty"):
        write(tmp_path / "data", [BadRow("f", 3, "query", "empty")])


def test_a_source_that_cannot_be_read_is_not_called_an_output_error(tmp_path):
    def rows():
        yield from make_rows(3)
        raise FileNotFoundError(2, "No such file or directory", "input.tsv")

    with pytest.raises(DataError, match=r"input\.tsv"):
        write(tmp_path / "data", rows())
    assert list(tmp_path.iterdir()) == []


def test_only_prepared_data_is_replaced(tmp_path):
    write(tmp_path / "data", make_rows(5))
    assert len(everything(write(tmp_path / "data", make_rows(3)))) == len(make_rows(3))
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    with pytest.raises(OutputError, match="something other than prepared data"):
        write(tmp_path / "mine", make_rows(3))
    write_json(tmp_path / "mine" / "manifest.json", {"kind": "another"})
    with pytest.raises(OutputError, match="something other than prepared data"):
        write(tmp_path / "mine", make_rows(3))
    assert (tmp_path / "mine" / "thesis.txt").exists()


def test_opening_names_what_is_wrong(tmp_path):
    with pytest.raises(DataError, match=r"nothing.*no manifest\.json.*hybridbatch prepare"):
        Store.open(tmp_path / "nothing")
    store = write(tmp_path / "data", make_rows())
    manifest = read_json(tmp_path / "data" / "manifest.json")
    for change, message in (
        ({"schema_version": 99}, "schema version 99"),
        ({"kind": "eval"}, "not the manifest"),
    ):
        write_json(tmp_path / "data" / "manifest.json", manifest | change)
        with pytest.raises(DataError, match=message):
            Store.open(tmp_path / "data")
    write_json(tmp_path / "data" / "manifest.json", manifest)
    shard = tmp_path / "data" / store.manifest["shards"][0]["file"]
    content = bytearray(shard.read_bytes())
    content[len(content) // 2] ^= 1
    shard.write_bytes(content)
    with pytest.raises(
        DataError, match=rf"{shard.name}: is damaged .*have changed.*hybridbatch prepare"
    ):
        Store.open(tmp_path / "data").verify()
    shard.write_bytes(content[:-100])
    with pytest.raises(DataError, match=rf"{shard.name}: is damaged"):
        Store.open(tmp_path / "data")
    shard.unlink()
    with pytest.raises(DataError, match=rf"{shard.name}: is damaged \(missing"):
        Store.open(tmp_path / "data")


def test_a_restricted_index_points_at_the_same_rows(tmp_path):
    store = write(tmp_path / "data", make_rows(80) + make_rows(40, "beta"), validation_share=0)
    index = store.index("train", ["yor", "eng"], max_records=30)
    assert index.languages == ("eng", "yor")
    assert index.records == 30
    rows = store.rows("train", index.store_rows(np.arange(index.rows)))
    assert [row.language for row in rows] == [
        index.languages[number] for number in index.language
    ]
    owner = np.repeat(np.arange(index.records), np.diff(index.record_start))
    assert [row.source for row in rows] == [
        index.sources[index.source[record]] for record in owner
    ]
    assert len({(row.source, row.record_id) for row in rows}) == 30
    assert np.bincount(index.source).tolist() == [20, 10]
    plan = plan_schedule(index, mix=0.5, batch_size=4, steps=20, seed=0)
    queries = store.rows("train", index.store_rows(plan.query_row.ravel()))
    passages = store.rows("train", index.store_rows(plan.passage_row.ravel()))
    for query, passage in zip(queries, passages, strict=True):
        assert query.record_id == passage.record_id
        assert query.query is not None
        assert passage.passage is not None


def test_the_training_split_is_divided_by_whole_groups(tmp_path):
    rows = [*make_rows(60), *make_rows(40, "beta")]
    store = write(tmp_path / "data", rows, validation_share=0)
    whole = store.index("train")
    rest, aside = store.divided_index(0.2)
    assert aside is not None
    assert sorted([*rest.store_rows(np.arange(rest.rows)), *aside.store_rows(np.arange(aside.rows))]) == list(
        range(whole.rows)
    )  # fmt: skip
    assert not set(rest.group.tolist()) & set(aside.group.tolist())
    for number, records in ((0, 60), (1, 40)):
        assert 0.1 * records <= (aside.source == number).sum() <= 0.2 * records
    few, same = store.divided_index(0.2, ["swh", "yor"], max_records=10, seed=7)
    assert same is not None
    assert few.records == 10
    assert same.languages == ("swh", "yor")
    wanted = set(aside.store_rows(np.arange(aside.rows)).tolist())
    assert set(same.store_rows(np.arange(same.rows)).tolist()) <= wanted
    assert store.divided_index(0.001)[1] is None


def test_subsets_of_records_are_nested_and_differ_by_seed(tmp_path):
    store = write(tmp_path / "data", make_rows(100) + make_rows(30, "beta"), validation_share=0)

    def records(size, seed=0, languages=None):
        index = store.index("train", languages, size, seed)
        rows = store.rows("train", index.store_rows(index.record_start[:-1]))
        return {(row.source, row.record_id) for row in rows}

    assert records(10) < records(11) < records(50) < records(129) < records(500)
    assert len(records(500)) == 130
    assert records(40, seed=1) != records(40)
    assert (
        len(records(40) & records(40, languages=["eng", "swh"])) == 40
    )  # all have an English row


def test_unknown_languages_and_splits_are_refused(tmp_path):
    store = write(tmp_path / "data", make_rows(10), validation_share=0)
    with pytest.raises(DataError, match="no rows in 'sw'"):
        store.index("train", ["sw"])
    with pytest.raises(DataError, match="no validation split; it has train"):
        store.index("validation")


def test_tokens_follow_the_rows_and_are_kept(tmp_path):
    store = write(tmp_path / "data", make_rows(), validation_share=0)
    calls = []

    def tokenise(texts, side):
        calls.append(side)
        return TokenArrays.of([[ord(c) for c in text] for text in texts])

    tokens = store.tokens("train", "passage", tokenise=tokenise, key="abc")
    again = store.tokens("train", "passage", tokenise=tokenise, key="abc")
    assert calls == ["passage"]
    rows = store.rows("train", np.arange(store.index("train").rows))
    for number, row in enumerate(rows):
        assert "".join(map(chr, again[number])) == (row.passage or "")
    assert len(tokens) == len(rows)


row_strategy = st.builds(
    Row,
    source=st.sampled_from(["a", "b"]),
    record_id=st.text(min_size=1, max_size=3),
    language=st.sampled_from(LANGUAGES),
    query=st.none() | st.text(max_size=5),
    passage=st.none() | st.text(max_size=2),
    negatives=st.lists(st.text(max_size=3), max_size=2).map(tuple),
)


@settings(max_examples=40, deadline=None)
@given(st.lists(row_strategy, min_size=1, max_size=25))
def test_any_rows_are_kept_or_counted(tmp_path_factory, rows):
    folder = tmp_path_factory.mktemp("any") / "data"
    cleaned = [ingest.clean_row(row) for row in rows]
    good = [row for row in cleaned if isinstance(row, Row)]
    keys = [(row.source, row.record_id, row.language) for row in good]
    if not good or len(set(keys)) < len(keys):
        with pytest.raises(DataError):
            write(folder, rows)
        return
    store = write(folder, rows, validation_share=0)
    assert by_key(everything(store)) == by_key(good)
    assert store.manifest["dropped"]["rows"] == len(rows) - len(good)
