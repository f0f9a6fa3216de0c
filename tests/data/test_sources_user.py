"""The user's own data: forms are told apart, rows are what the file says, and problems name file,
line and field.
"""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from hybridbatch.common.errors import DataError
from hybridbatch.common.records import BadRow, Row
from hybridbatch.data.source import SourceContext
from hybridbatch.data.sources.user import user_source


def rows_of(path: Path) -> list[Row | BadRow]:
    return list(user_source(path).rows(SourceContext()))


def good(path: Path) -> list[Row]:
    rows = rows_of(path)
    assert all(isinstance(row, Row) for row in rows), [
        row for row in rows if isinstance(row, BadRow)
    ]
    return rows


def jsonl(path: Path, *records: dict) -> Path:
    path.write_text(
        "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records),
        encoding="utf-8",
    )
    return path


EXPECTED = [
    Row("mine", "1", "swh", "Jina lako nani?", "Ninaitwa Juma."),
    Row("mine", "1", "eng", "What is your name?", "My name is Juma."),
    Row("mine", "2", "eng", "Where?", "In Arusha."),
]
LONG = [
    {
        "record_id": "1",
        "language": "sw",
        "query": "Jina lako nani?",
        "passage": "Ninaitwa Juma.",
    },
    {
        "record_id": "1",
        "language": "en",
        "query": "What is your name?",
        "passage": "My name is Juma.",
    },
    {"record_id": "2", "language": "en", "query": "Where?", "passage": "In Arusha."},
]
WIDE = [
    {"record_id": "1", "query_sw": "Jina lako nani?", "passage_sw": "Ninaitwa Juma.",
     "query_en": "What is your name?", "passage_en": "My name is Juma."},
    {"record_id": "2", "query_sw": "", "passage_sw": "", "query_en": "Where?", "passage_en": "In Arusha."},
]  # fmt: skip


def tsv(path: Path, records: list[dict], separator: str = "\t") -> Path:
    lines = [separator.join(records[0])] + [
        separator.join(record.values()) for record in records
    ]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def test_long_wide_and_nested_tables_of_every_format_give_the_same_rows(tmp_path):
    nested = [
        {"id": 1, "query": {"sw": "Jina lako nani?", "en": "What is your name?"},
         "passage": {"sw": "Ninaitwa Juma.", "en": "My name is Juma."}},
        {"id": 2, "query": {"en": "Where?", "sw": None}, "passage": {"en": "In Arusha."}},
    ]  # fmt: skip
    aliases = {"record_id": "id", "language": "lang", "query": "question", "passage": "text"}
    renamed = [{aliases[name]: value for name, value in record.items()} for record in LONG]
    for folder in (
        "long",
        "alias",
        "tsv",
        "csv",
        "wide",
        "widetsv",
        "dotted",
        "nested",
        "parquet",
        "nestedparquet",
    ):
        (tmp_path / folder).mkdir()
    paths = [
        jsonl(tmp_path / "long/mine.jsonl", *LONG),
        jsonl(tmp_path / "alias/mine.jsonl", *renamed),
        tsv(tmp_path / "tsv/mine.tsv", LONG),
        tsv(tmp_path / "csv/mine.csv", LONG, ","),
        jsonl(tmp_path / "wide/mine.jsonl", *WIDE),
        tsv(tmp_path / "widetsv/mine.tsv", WIDE),
        jsonl(
            tmp_path / "dotted/mine.jsonl",
            *({k.replace("_s", ".s"): v for k, v in row.items()} for row in WIDE),
        ),
        jsonl(tmp_path / "nested/mine.jsonl", *nested),
    ]
    pq.write_table(pa.Table.from_pylist(WIDE), tmp_path / "parquet/mine.parquet")
    pq.write_table(pa.Table.from_pylist(nested), tmp_path / "nestedparquet/mine.parquet")
    paths += [tmp_path / "parquet/mine.parquet", tmp_path / "nestedparquet/mine.parquet"]
    for path in paths:
        assert good(path) == EXPECTED, path


def test_negatives_splits_and_missing_sides(tmp_path):
    path = jsonl(
        tmp_path / "mine.jsonl",
        {
            "id": 1,
            "lang": "hau",
            "query": "Ina?",
            "passage": None,
            "split": "dev",
            "negatives": [],
        },
        {
            "id": 1,
            "lang": "en",
            "query": "Where?",
            "passage": "There.",
            "split": "dev",
            "negatives": ["Here.", "No."],
        },
    )
    assert good(path) == [
        Row("mine", "1", "hau", "Ina?", None, (), "validation"),
        Row("mine", "1", "eng", "Where?", "There.", ("Here.", "No."), "validation"),
    ]
    text = tmp_path / "mine.tsv"
    text.write_text(
        'id\tlang\tquery\tpassage\tnegatives\tsplit\n1\ten\tQ\tP\t["a",'
        ' "b"]\ttest\n2\ten\tQ\tP\t\ttrain\n'
    )
    assert [(row.negatives, row.split) for row in good(text)] == [
        (("a", "b"), "test"),
        ((), "train"),
    ]


def test_a_cell_that_is_nested_too_deeply_costs_at_most_its_row(tmp_path):
    path = tmp_path / "mine.tsv"
    cell = "[" * 100_000
    path.write_text(
        f"id\tlang\tquery\tpassage\tnegatives\n1\ten\tQ\tP\t{cell}\n2\ten\tQ\tP\t\n"
    )
    assert len(rows_of(path)) == 2


def test_records_without_an_id_are_named_by_file_and_line(tmp_path):
    for name in ("a", "b"):
        jsonl(tmp_path / f"{name}.jsonl", {"query_en": f"Q {name}", "passage_sw": f"P {name}"})
    assert [(row.record_id, row.language) for row in good(tmp_path)] == [
        ("a:1", "eng"), ("a:1", "swh"), ("b:1", "eng"), ("b:1", "swh"),
    ]  # fmt: skip


LINES = [
    "A headline of the news",
    "The first sentence of it.",
    "The second sentence of it.",
    "A third sentence.",
]


def test_aligned_lines_in_one_table_or_one_per_language_make_pairs_of_neighbours(tmp_path):
    sw = [line[::-1] for line in LINES]
    (tmp_path / "folder").mkdir()
    for code, lines in (("en", LINES), ("sw", sw)):
        entries = [
            {"id": at, "lang": code, "text": text, "doc": "d1", "pos": at}
            for at, text in enumerate(lines)
        ]
        jsonl(tmp_path / "folder" / f"{code}.jsonl", *entries)
    wide = tsv(
        tmp_path / "d1.tsv", [{"en": a, "sw": b} for a, b in zip(LINES, sw, strict=True)]
    )
    for path in (tmp_path / "folder", wide):
        rows = {(row.record_id, row.language): row for row in good(path)}
        assert set(rows) == {(f"d1:{at}", code) for at in (0, 3) for code in ("eng", "swh")}
        assert rows["d1:0", "eng"].query == LINES[0]
        assert rows["d1:0", "eng"].passage == f"{LINES[1]} {LINES[2]}"
        assert rows["d1:3", "swh"].query == sw[3]
        assert rows["d1:3", "swh"].passage == f"{sw[1]} {sw[2]}"


@pytest.mark.parametrize(
    ("record", "field", "reason"),
    [
        ({"record_id": "9", "language": "en", "query": 7, "passage": "P"}, "query", "must be text, not a number"),
        ({"record_id": "9", "language": "en", "query": "Q", "passage": [["P"]]}, "passage", "must be text, not a list"),
        ({"record_id": "9", "language": "en", "query": "Q", "passage": []}, "passage", "empty list"),
        ({"record_id": "9", "language": "en", "query": " ", "passage": "P"}, "query", "empty"),
        ({"record_id": "9", "language": "en", "query": "Q"}, "passage", "missing"),
        ({"record_id": "9", "query": "Q", "passage": "P"}, "language", "missing"),
        ({"language": "en", "query": "Q", "passage": "P"}, "record_id", "missing"),
        ({"record_id": True, "language": "en", "query": "Q", "passage": "P"}, "record_id", "must be text, not a truth"),
        ({"record_id": "9", "language": "swhh", "query": "Q", "passage": "P"}, "language", "unknown language 'swhh'"),
        ({"record_id": "9", "language": "en", "query": None, "passage": None}, "query", "neither query nor passage"),
        ({"record_id": "9", "language": "en", "query": "\ud800", "passage": "P"}, "query", "not valid UTF-8"),
        ({"record_id": "9", "language": "en", "query": "Q", "passage": "P", "split": "trial"}, "split", "'trial' is no"),
        ({"record_id": "9", "language": "en", "query": "Q", "passage": "P", "split": "dev", "negatives": [1]},
         "negatives", "must be text, not a number"),
    ],
)  # fmt: skip
def test_a_problem_in_one_record_is_told_with_its_field_and_the_others_are_kept(
    tmp_path, record, field, reason
):
    first = {
        "record_id": "0",
        "language": "en",
        "query": "Q",
        "passage": "P",
        "split": "train",
        "negatives": [],
    }
    rest = {"split": "train", "negatives": []} if "split" not in record else {}
    path = tmp_path / "mine.jsonl"
    lines = [first, record | rest, first | {"record_id": "10"}]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    before, bad, after = rows_of(path)
    assert (before.record_id, after.record_id) == ("0", "10")
    assert isinstance(bad, BadRow)
    assert (bad.file, bad.line, bad.field) == (str(path), 2, field)
    assert bad.reason.startswith(reason)


def test_the_nearest_languages_are_named(tmp_path):
    path = jsonl(tmp_path / "mine.jsonl", LONG[0], LONG[1] | {"language": "swahilli"})
    assert "did you mean swahili" in rows_of(path)[1].reason


def test_a_bad_cell_of_a_wide_record_costs_that_language_only(tmp_path):
    path = jsonl(
        tmp_path / "mine.jsonl",
        {
            "id": 1,
            "query": {"en": "Q", "xx-no": "Q", "sw": 3},
            "passage": {"en": "P", "sw": "P"},
        },
        {"id": 2, "query": "Q", "passage": {"en": "P"}},
        {"id": 3, "query": {}, "passage": {}},
    )
    row, swahili, *bad = sorted(rows_of(path), key=lambda row: isinstance(row, BadRow))
    assert (row.language, row.query, row.passage) == ("eng", "Q", "P")
    assert (swahili.language, swahili.query, swahili.passage) == ("swh", None, "P")
    assert [(one.line, one.field) for one in bad] == [
        (1, "query.xx-no"),
        (1, "query.sw"),
        (2, "query"),
        (3, "line"),
    ]


@pytest.mark.parametrize(
    ("header", "told"),
    [
        ("id\tquery\tpassage", "no column for language"),
        ("id\tlang\tquery", "no column for passage"),
        ("id\tlang\ttext", "no column for position of the lines"),
        ("a1\tb2\tc3", "no column for a query, a passage or the text of a line"),
        (
            "id\tquery_en\tpassage_en\tquery_qqq1",
            "column 'query_qqq1': unknown language 'qqq1'",
        ),
        (
            "id\tquery_sw\tpassage_sw\tquery_swh",
            "query_sw and query_swh hold the same language",
        ),
        ("query_sw\tpassage_sw\ten\tsw\tlang\tpos\ttext", "fit two forms"),
        (
            "id\tlang\tquery\tpositive\tcontext",
            "positive and context could both be the passage",
        ),
        ("en\tid\tsw", "column 'id' can be the id of the line or Indonesian text"),
        ("sw\tswh", "two columns hold the language swh"),
    ],
)
def test_columns_that_fit_no_form_or_two_are_refused_with_the_mend(tmp_path, header, told):
    path = tmp_path / "mine.tsv"
    path.write_text(header + "\n" + "\t".join("x" for _ in header.split("\t")) + "\n")
    with pytest.raises(DataError) as caught:
        rows_of(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert told in str(caught.value)
    assert "\n" not in str(caught.value)


def test_parquet_with_a_wrong_column_type_is_told_by_row(tmp_path):
    columns = {"id": [1, 2], "lang": ["en", "sw"], "query": [1.5, 2.5], "passage": ["a", "b"]}
    pq.write_table(pa.table(columns), tmp_path / "mine.parquet")
    assert [(bad.line, bad.field, bad.reason) for bad in rows_of(tmp_path / "mine.parquet")] == [
        (1, "query", "must be text, not a number"), (2, "query", "must be text, not a number"),
    ]  # fmt: skip


def test_the_same_record_and_language_twice_names_both_places(tmp_path):
    one = jsonl(tmp_path / "a.jsonl", *LONG)
    two = jsonl(
        tmp_path / "b.jsonl", LONG[2] | {"record_id": "3"}, LONG[1] | {"language": "eng_Latn"}
    )
    with pytest.raises(DataError) as caught:
        rows_of(tmp_path)
    assert str(caught.value).startswith(
        f"{two}:2: record '1' in language 'eng' is already at {one}:2; "
    )


def test_the_same_line_twice_names_both_places(tmp_path):
    line = {"lang": "en", "text": "A sentence.", "doc": "d", "pos": 3}
    path = jsonl(tmp_path / "mine.jsonl", line, line | {"lang": "sw"}, line)
    with pytest.raises(
        DataError, match=rf"{path}:3: position 3 of document 'd' .* is already taken by line 1"
    ):
        rows_of(path)


def test_paths_without_data_are_refused(tmp_path):
    (tmp_path / "empty.jsonl").write_text("\n")
    (tmp_path / "bad.jsonl").write_text("{\n{\n")
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "x.md").write_text("x")
    for name, told in {
        "nowhere.jsonl": "no such file or folder",
        "empty.jsonl": "it holds none",
        "bad.jsonl": "line 1: malformed JSON",
        "notes": "holds no .jsonl",
        "notes/x.md": "this kind of file is not known",
    }.items():
        with pytest.raises(DataError, match=told) as caught:
            rows_of(tmp_path / name)
        assert str(caught.value).startswith(str(tmp_path / name))
