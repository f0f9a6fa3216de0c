"""What people have on disk: every case was a file that was misread, refused without need, or lost in
part without a word.
"""

import json
import zipfile
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from hybridbatch.common.errors import ConfigError, DataError
from hybridbatch.common.records import BadRow, Row
from hybridbatch.data.formats import encodings
from hybridbatch.data.formats.own_files import open_tables
from hybridbatch.data.prepare import prepare
from hybridbatch.data.settings import PrepareConfig
from hybridbatch.data.source import SourceContext
from hybridbatch.data.sources.user import OwnData, user_source
from hybridbatch.data.store.reader import Store
from tests.helpers.recording import RecordingReporter

MILL = ("a", "eng", "where is the old mill", "The old mill stands by the river.")
HARVEST = ("b", "eng", "when is the harvest", "The harvest begins in late summer.")
ENGLISH = OwnData(language="eng")


def write(path: Path, content: str | bytes | list[dict[str, Any]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(content, list):
        content = "".join(json.dumps(record) + "\n" for record in content)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def rows_of(path: Path, own: OwnData | None = None, report: Any = None) -> list[Row]:
    context = SourceContext(report=report) if report else SourceContext()
    rows = list(user_source(path, own).rows(context))
    bad = [row for row in rows if isinstance(row, BadRow)]
    assert not bad, bad
    return rows


def texts(rows: list[Row]) -> list[tuple[str, str, str | None, str | None]]:
    return [(row.record_id, row.language, row.query, row.passage) for row in rows]


def long(record: tuple[str, str, str, str]) -> dict[str, str]:
    return dict(zip(("record_id", "language", "query", "passage"), record, strict=True))


# Columns that first appear after the first record


def test_languages_of_later_records_are_kept(tmp_path):
    wide = [
        {"record_id": "a", "query_en": MILL[2], "passage_en": MILL[3]},
        {"record_id": "b", "query_en": HARVEST[2], "passage_en": HARVEST[3],
         "query_sw": "mavuno ni lini", "passage_sw": "Mavuno huanza kiangazi."},
    ]  # fmt: skip
    assert texts(rows_of(write(tmp_path / "data.jsonl", wide))) == [
        MILL, HARVEST, ("b", "swh", "mavuno ni lini", "Mavuno huanza kiangazi."),
    ]  # fmt: skip


def test_a_column_of_aligned_lines_that_begins_late_is_kept(tmp_path):
    lines = [
        {"en": f"English line number {at}.", "sw": f"Mstari wa namba {at}."} for at in range(4)
    ]
    for at in range(1, 4):
        lines[at]["yo"] = f"Ìlà nọ́mbà {at} ti ìwé."
    rows = rows_of(write(tmp_path / "aligned.jsonl", lines))
    assert {row.language for row in rows} == {"eng", "swh", "yor"}


def test_negatives_and_split_of_later_records_are_kept(tmp_path):
    records = [
        long(MILL),
        long(HARVEST) | {"negatives": ["The market opens."], "split": "test"},
    ]
    first, second = rows_of(write(tmp_path / "data.jsonl", records))
    assert (first.negatives, first.split) == ((), "train")
    assert (second.negatives, second.split) == (("The market opens.",), "test")


def test_columns_that_are_not_used_are_named(tmp_path):
    report = RecordingReporter()
    rows_of(write(tmp_path / "data.jsonl", [long(MILL) | {"source_url": "x"}]), report=report)
    assert any("columns not used: source_url" in note for note in report.notes)


# Splits


def test_files_named_by_a_split_go_there(tmp_path):
    names = ("train", "validation", "dev-00000", "my_test", "latest", "devset", "TestSplit")
    for number, name in enumerate(names):
        write(
            tmp_path / "data" / f"{name}.jsonl", [long((str(number), "en", f"q{number}", "p"))]
        )
    splits = {row.record_id: row.split for row in rows_of(tmp_path / "data")}
    assert splits == {
        "0": "train",
        "1": "validation",
        "2": "validation",
        "3": "test",
        "4": "train",
        "5": "validation",
        "6": "test",
    }


def test_folders_named_by_a_split_go_there(tmp_path):
    write(tmp_path / "data" / "train" / "x.jsonl", [long(MILL)])
    write(tmp_path / "data" / "test" / "x.jsonl", [long(HARVEST)])
    assert {row.record_id: row.split for row in rows_of(tmp_path / "data")} == {
        "a": "train", "b": "test",
    }  # fmt: skip


def test_a_validation_share_is_taken_where_only_a_test_split_is_given(tmp_path):
    records = [long((str(n), "en", f"question {n}", f"Passage {n}.")) for n in range(40)]
    write(tmp_path / "data" / "train.jsonl", records[:30])
    write(tmp_path / "data" / "test.jsonl", records[30:])
    out = prepare(config(tmp_path / "data", tmp_path / "out", validation_share=0.1))
    counts = {
        name: made["records"] for name, made in Store.open(out).manifest["splits"].items()
    }
    assert counts == {"train": 27, "validation": 3, "test": 10}


@pytest.mark.parametrize(
    ("name", "share", "told"),
    [
        ("pairs", 0.01, "--test-share 0.01 of 20 records gives no test record"),
        ("test-pairs", 0.1, "no record is left to train on"),
    ],
)
def test_a_test_share_that_makes_no_split_is_told(tmp_path, name, share, told):
    records = [long((str(n), "en", f"question {n}", f"Passage {n}.")) for n in range(20)]
    path = write(tmp_path / f"{name}.jsonl", records)
    report = RecordingReporter()
    prepare(config(path, tmp_path / "out", test_share=share), report)
    assert any(told in warning for warning in report.warnings)


def config(data: Path, out: Path, **settings: Any) -> PrepareConfig:
    return PrepareConfig(sources=(str(data),), out=out, decontaminate=("none",), **settings)


# Names of columns


def test_two_columns_that_hold_indonesian_are_indonesian(tmp_path):
    content = (
        "query_en\tpassage_en\tquery_id\tpassage_id\n"
        f"{MILL[2]}\t{MILL[3]}\tdi mana kincir tua\tKincir tua di tepi sungai.\n"
    )
    rows = rows_of(write(tmp_path / "data.tsv", content))
    assert [(row.language, row.query) for row in rows] == [
        ("eng", MILL[2]), ("ind", "di mana kincir tua"),
    ]  # fmt: skip


def test_two_columns_that_hold_ids_are_ids(tmp_path):
    record = {"query_id": "q1", "passage_id": "p7", "query_en": MILL[2], "passage_en": MILL[3]}
    rows = rows_of(write(tmp_path / "data.jsonl", [record]))
    assert texts(rows) == [("q1", *MILL[1:])]


def test_a_complete_long_table_may_have_columns_that_look_like_languages(tmp_path):
    extra = {"passage_id": "p1", "question_no": "7", "context_len": "12", "query_len": 3}
    assert texts(rows_of(write(tmp_path / "data.jsonl", [long(MILL) | extra]))) == [MILL]


@pytest.mark.parametrize(
    ("header", "cell"),
    [("question_nr", "7"), ("answer_ts", "2024-01-02 10:00"), ("passage_neg", "not this one")],
)
def test_a_lone_column_that_looks_like_a_language_is_none(tmp_path, header, cell):
    sides = {"query_en": MILL[2], "passage_en": MILL[3], header: cell}
    (row,) = rows_of(write(tmp_path / "wide.jsonl", [sides]))
    assert texts([row]) == [("wide:1", *MILL[1:])]
    plain = {"question": MILL[2], "answer": MILL[3], header: cell}
    (row,) = rows_of(write(tmp_path / "plain.jsonl", [plain]), ENGLISH)
    assert texts([row]) == [("plain:1", *MILL[1:])]


def test_sides_in_different_languages_are_still_read(tmp_path):
    record = {"query_nr": "Lirini ivuno?", "passage_en": HARVEST[3]}
    rows = rows_of(write(tmp_path / "data.jsonl", [record]))
    assert {(row.language, row.query, row.passage) for row in rows} == {
        ("nbl", "Lirini ivuno?", None),
        ("eng", None, HARVEST[3]),
    }


@pytest.mark.parametrize(
    "header",
    [
        ("Record_ID", "Language", "Query", "Passage"),
        ("RECORD ID", "LANGUAGE", "QUERY", "PASSAGE"),
        ("recordId", "lang", "Question", "Answer"),
        ("_id", "Locale", "query text", "Positive"),
        ("QID", "language-code", "Anchor", "context"),
    ],
)
def test_headers_in_any_spelling(tmp_path, header):
    content = ",".join(header) + "\n" + ",".join(MILL) + "\n"
    assert texts(rows_of(write(tmp_path / "data.csv", content))) == [MILL]


def test_wide_headers_in_any_spelling(tmp_path):
    for number, (query, passage) in enumerate(
        [
            ("Query (Swahili)", "Passage (Swahili)"),
            ("QUERY_SW", "Passage.sw"),
            ("query-sw", "Answer [sw]"),
        ]
    ):
        path = write(tmp_path / f"{number}.csv", f"{query},{passage}\nwapi,hapa pale\n")
        assert [(row.language, row.query) for row in rows_of(path)] == [("swh", "wapi")]


def test_columns_can_be_said(tmp_path):
    record = {"title": MILL[2], "body": MILL[3], "tongue": "en", "key": "a"}
    said = {"query": "title", "passage": "BODY", "language": "tongue", "record_id": "key"}
    path = write(tmp_path / "data.jsonl", [record])
    assert texts(rows_of(path, OwnData(columns=said))) == [MILL]
    with pytest.raises(ConfigError, match=r"no column 'titel' \(did you mean title\?\)"):
        rows_of(path, OwnData(columns={"query": "titel"}))


# Negatives


def test_numbered_negatives_and_empty_cells_in_lists(tmp_path):
    numbered = long(MILL) | {"negative_2": "Two.", "negative_1": "One.", "negative_10": "Ten."}
    assert rows_of(write(tmp_path / "a.jsonl", [numbered]))[0].negatives == (
        "One.",
        "Two.",
        "Ten.",
    )
    listed = long(MILL) | {"negatives": ["One.", "", None, " ", "Two."]}
    assert rows_of(write(tmp_path / "b.jsonl", [listed]))[0].negatives == ("One.", "Two.")


def test_empty_objects_in_lists_are_left_out(tmp_path):
    record = long(MILL) | {
        "passage": [MILL[3], "", {"text": "It has two wheels."}],
        "negatives": [{"title": "", "text": ""}, {"title": "The", "text": "market opens."}],
    }
    rows = rows_of(write(tmp_path / "data.jsonl", [record]))
    assert [row.passage for row in rows] == [MILL[3], "It has two wheels."]
    assert {row.negatives for row in rows} == {("The market opens.",)}


@pytest.mark.parametrize("negative", ["[1] Smith et al.", "[sic", "left\tright", "[1]"])
def test_a_negative_that_is_no_list_is_one_text(tmp_path, negative):
    path = write(tmp_path / "data.jsonl", [long(MILL) | {"negatives": negative}])
    assert rows_of(path)[0].negatives == (negative,)


def test_lists_of_passages_in_text_tables(tmp_path):
    content = 'query,pos,neg\nwhere,"[""By the river."", ""In town.""]","[""At sea.""]"\n'
    rows = rows_of(write(tmp_path / "data.csv", content), ENGLISH)
    assert [row.passage for row in rows] == ["By the river.", "In town."]
    assert {row.negatives for row in rows} == {("At sea.",)}


def test_wide_cells_that_show_nothing_are_empty(tmp_path):
    content = f"query_en,passage_en,query_sw,passage_sw\n{MILL[2]},{MILL[3]},\u200b, \n"
    assert texts(rows_of(write(tmp_path / "data.csv", content))) == [("data:2", *MILL[1:])]


def test_ids_that_pandas_made_floats_are_whole_numbers(tmp_path):
    table = {"record_id": [1.0], "language": ["en"], "query": ["q"], "passage": ["p"]}
    pq.write_table(pa.table(table), tmp_path / "data.parquet")
    assert rows_of(tmp_path / "data.parquet")[0].record_id == "1"


# Text files


def test_delimiters_that_the_header_shows(tmp_path):
    lines = [["record_id", "language", "query", "passage"], list(MILL), list(HARVEST)]
    for number, (delimiter, suffix) in enumerate([(";", "csv"), ("\t", "csv"), (",", "tsv")]):
        content = "".join(
            delimiter.join(f'"{cell}"' if suffix == "csv" else cell for cell in line) + "\r\n"
            for line in lines
        )
        path = write(tmp_path / f"{number}.{suffix}", b"\xef\xbb\xbf" + content.encode())
        assert texts(rows_of(path)) == [MILL, HARVEST]
    hinted = write(
        tmp_path / "hint.csv", "sep=;\n" + "\n".join(";".join(line) for line in lines)
    )
    assert texts(rows_of(hinted)) == [MILL, HARVEST]


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-32", "utf-8-sig"])
@pytest.mark.parametrize("suffix", ["tsv", "csv", "jsonl"])
def test_encodings_that_the_first_bytes_show(tmp_path, encoding, suffix):
    path = tmp_path / f"data.{suffix}"
    record = ("a", "eng", "wo ist die Mühle", "Die Mühle steht am Fluß.")
    if suffix == "jsonl":
        content = json.dumps(long(record), ensure_ascii=False) + "\n"
    else:
        separator = "\t" if suffix == "tsv" else ","
        content = "\n".join(separator.join(line) for line in (long(record), record))
    path.write_bytes(content.encode(encoding))
    assert texts(rows_of(path)) == [record]


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be"])
def test_utf_16_without_a_mark_is_read_in_scripts_with_few_zero_bytes(tmp_path, encoding):
    record = ("a", "zho", "水车在哪里" * 4, "水车在河边的村庄旁边" * 4)
    content = ",".join(long(record)) + "\n" + ",".join(record) + "\n"
    path = write(tmp_path / "data.csv", content.encode(encoding))
    assert texts(rows_of(path)) == [record]


def test_a_zero_byte_in_windows_1252_does_not_make_it_utf_16(tmp_path):
    content = "record_id,language,query,passage\n" + "a,de,läuft,Größe\0.\n" * 3
    with pytest.raises(DataError, match="--encoding cp1252"):
        rows_of(write(tmp_path / "data.csv", content.encode("cp1252")))


def test_windows_1252_is_refused_by_name_and_read_when_named(tmp_path):
    records = [
        ("a", "deu", "wo ist die Mühle", "Die Mühle."),
        ("b", "deu", "wer läuft", "Größe."),
    ]
    content = "record_id,language,query,passage\n" + "\n".join(map(",".join, records))
    path = write(tmp_path / "data.csv", content.encode("cp1252"))
    with pytest.raises(DataError, match="--encoding cp1252"):
        rows_of(path)
    assert texts(rows_of(path, OwnData(encoding="cp1252"))) == records


@pytest.mark.parametrize("name", ["hex", "base64", "idna", "utf-9"])
def test_what_is_no_encoding_of_text_is_refused(tmp_path, name):
    with pytest.raises(ValueError, match="no known encoding of text"):
        config(tmp_path, tmp_path / "out", encoding=name)


@pytest.mark.parametrize(
    "name", ["cp1252", "utf-16", "utf-16-le", "utf-8-sig", "big5", "cp037"]
)
def test_encodings_of_text_are_accepted(tmp_path, name):
    assert config(tmp_path, tmp_path / "out", encoding=name).encoding


@pytest.mark.parametrize("code", ["unk", "und", "mul"])
def test_a_code_that_names_no_language_is_refused(tmp_path, code):
    with pytest.raises(ValueError, match="name the language"):
        config(tmp_path, tmp_path / "out", language=code)


def test_a_file_with_too_many_bad_records_stops_and_says_how_to_go_on(tmp_path):
    good = [json.dumps(long((str(n), "en", f"q{n}", f"p{n}"))) for n in range(90)]
    path = write(tmp_path / "data.jsonl", "\n".join([*good, *["{"] * 10]))
    with pytest.raises(
        DataError, match=r"10 of 100 records cannot be used .*--max-bad-share 0.1"
    ):
        prepare(config(path, tmp_path / "out"))
    out = prepare(config(path, tmp_path / "out", max_bad_share=0.11))
    assert Store.open(out).manifest["dropped"]["rows"] == 10


def test_an_unclosed_quote_is_a_damaged_file(tmp_path):
    head = "record_id,language,query,passage\n" + ",".join(MILL) + "\n"
    cut = head + 'b,en,when,"The harvest begins.\n' + "".join(
        f"c{n},en,what is in room {n},Room {n}.\n" for n in range(9)
    )  # fmt: skip
    with pytest.raises(
        DataError, match=r"data\.csv:3: the quote that opens in this line is never"
    ):
        rows_of(write(tmp_path / "data.csv", cut))
    closed_later = cut + 'd,en,who,"The baker, or ""Bob""."\n' + "e,en,why,Because.\n"
    with pytest.raises(DataError, match=r"data\.csv:3: the quote that opens in this line"):
        rows_of(write(tmp_path / "data.csv", closed_later))


@pytest.mark.parametrize(
    ("opening", "closing"),
    [
        ('c,en,who,"The baker.', 'd,en,how wide,24"'),
        ('c,en,"who,The baker.', 'd,en,24",It is wide.'),
    ],
)
def test_a_quote_that_swallows_rows_of_equal_width_is_damage(tmp_path, opening, closing):
    rows = [f"r{n},en,what is in room {n},Room {n}." for n in range(9)]
    lines = ["record_id,language,query,passage", ",".join(MILL), opening, *rows, closing]
    with pytest.raises(DataError, match=r"data\.csv:3: .* ends only in line 13"):
        rows_of(write(tmp_path / "data.csv", "\n".join(lines) + "\n"))


def test_a_poem_with_a_comma_in_most_lines_is_one_cell(tmp_path):
    poem = "Roses are red,\n" * 20 + "And so are you."
    content = f'query,passage\nwhich poem,"{poem}"\n'
    (row,) = rows_of(write(tmp_path / "data.csv", content), ENGLISH)
    assert row.passage == poem


def test_a_cell_may_hold_a_whole_book(tmp_path):
    book = "word " * 60_000
    content = f'record_id,language,query,passage\na,en,which book,"{book}"\n'
    (row,) = rows_of(write(tmp_path / "data.csv", content))
    assert row.passage == book


def test_tsv_of_pandas_is_unquoted_and_other_tsv_is_not(tmp_path):
    head = "record_id\tlanguage\tquery\tpassage\n"
    quoted = head + 'a\ten\t"who said ""no"""\tNobody.\nb\ten\twho\t"Line one\nline\ttwo."\n'
    rows = rows_of(write(tmp_path / "pandas.tsv", quoted))
    assert [(row.query, row.passage) for row in rows] == [
        ('who said "no"', "Nobody."), ("who", "Line one\nline\ttwo."),
    ]  # fmt: skip
    plain = head + 'a\ten\t"no" means no\t"Nobody" said so.\nb\ten\t5" pipe\t"quoted"\n'
    rows = rows_of(write(tmp_path / "plain.tsv", plain))
    assert [(row.query, row.passage) for row in rows] == [
        ('"no" means no', '"Nobody" said so.'), ('5" pipe', '"quoted"'),
    ]  # fmt: skip


def test_empty_header_cells_are_passed_over(tmp_path):
    content = "record_id,language,query,passage,,\n" + ",".join(MILL) + ",,\n"
    assert texts(rows_of(write(tmp_path / "data.csv", content))) == [MILL]
    index = ",record_id,language,query,passage\n0," + ",".join(MILL) + "\n"
    assert texts(rows_of(write(tmp_path / "index.csv", index))) == [MILL]


def test_zero_width_characters_alone_are_no_text(tmp_path):
    path = write(
        tmp_path / "data.jsonl", [long(MILL), long(("b", "en", "who", "\u200b\u200d\u2060"))]
    )
    good, bad = user_source(path).rows(SourceContext())
    assert isinstance(good, Row)
    assert (bad.line, bad.field, bad.reason) == (2, "passage", "empty")


# Other files


def test_json_arrays(tmp_path):
    records = [long(MILL), long(HARVEST)]
    for name, content in {
        "pretty.json": json.dumps(records, indent=2),
        "flat.json": json.dumps(records),
        "data.json": json.dumps({"version": 1, "data": records}, indent=1),
        "lines.json": "\n".join(map(json.dumps, records)),
    }.items():
        assert texts(rows_of(write(tmp_path / name, content))) == [MILL, HARVEST], name
    with pytest.raises(DataError, match=r"cut\.json:\d+: malformed JSON"):
        rows_of(write(tmp_path / "cut.json", json.dumps(records, indent=2)[:-20]))


def test_metadata_beside_data_is_passed_over_by_name(tmp_path):
    report = RecordingReporter()
    write(tmp_path / "data" / "data.jsonl", [long(MILL)])
    write(tmp_path / "data" / "dataset_info.json", '{\n "features": {}\n}')
    assert texts(rows_of(tmp_path / "data", report=report)) == [MILL]
    assert any("not read: dataset_info.json" in note for note in report.notes)


@pytest.mark.parametrize(
    ("name", "content"),
    [("schema.json", '{"name": "x"}'), ("metadata.csv", "file,sha\na,b\n")],
)
def test_files_without_texts_are_left_out_if_others_have_texts(tmp_path, name, content):
    report = RecordingReporter()
    write(tmp_path / "data" / name, content)
    with pytest.raises(DataError, match="no column for a query"):
        rows_of(tmp_path / "data")
    write(tmp_path / "data" / "pairs.jsonl", [long(MILL)])
    assert texts(rows_of(tmp_path / "data", report=report)) == [MILL]
    assert any("not read" in warning and name in warning for warning in report.warnings)


def test_a_table_with_a_misspelt_column_still_stops_a_folder(tmp_path):
    write(tmp_path / "data" / "a.jsonl", [long(MILL)])
    write(tmp_path / "data" / "b.jsonl", [{"language": "en", "query": "q", "passge": "p"}])
    with pytest.raises(DataError, match=r"b\.jsonl: no column for passage"):
        rows_of(tmp_path / "data")


def test_a_name_in_capitals_may_hold_an_array(tmp_path):
    path = write(tmp_path / "DATA.JSON", json.dumps([long(MILL)]))
    assert texts(rows_of(path)) == [MILL]


@pytest.mark.parametrize(
    "others", [("old.tmx",), ("notes.txt", "notes.bak"), ("it.en", "it.sw")]
)
def test_parallel_text_beside_tables_is_named_and_not_read(tmp_path, others):
    report = RecordingReporter()
    write(tmp_path / "data" / "faq.jsonl", [long(MILL)])
    for name in others:
        write(tmp_path / "data" / name, "A line.\n")
    assert texts(rows_of(tmp_path / "data", report=report)) == [MILL]
    assert any("not read" in note and others[0] in note for note in report.notes)


def test_folders_of_save_to_disk(tmp_path):
    datasets = pytest.importorskip("datasets")
    made = datasets.Dataset.from_list([long(MILL), long(HARVEST)])
    made.save_to_disk(str(tmp_path / "one"))
    assert texts(rows_of(tmp_path / "one")) == [MILL, HARVEST]
    both = datasets.DatasetDict({"train": made.select([0]), "test": made.select([1])})
    both.save_to_disk(str(tmp_path / "both"))
    assert {row.record_id: row.split for row in rows_of(tmp_path / "both")} == {
        "a": "train", "b": "test",
    }  # fmt: skip
    empty = datasets.DatasetDict({"train": made, "test": made.select([])})
    empty.save_to_disk(str(tmp_path / "empty"))
    for file in (tmp_path / "empty" / "test").glob("*.arrow"):
        file.unlink()  # older versions write no file
    write(tmp_path / "empty" / "test" / "state.json", '{"_data_files": []}')
    assert texts(rows_of(tmp_path / "empty")) == [MILL, HARVEST]


def test_workbooks(tmp_path):
    openpyxl = pytest.importorskip("openpyxl")
    pytest.importorskip("python_calamine")
    book = openpyxl.Workbook()
    book.active.append(["Record ID", "Language", "Query", "Passage", "Year"])
    book.active.append([*MILL, 2019])
    book.active.append([7, "en", "which year", 2019, None])
    book.create_sheet("Notes").append(["nothing", "to", "read"])
    book["Notes"].append(["a", "b", "c"])
    book.create_sheet("About").append(["one line alone"])
    book.create_sheet("Sums").append(["Total", "Total"])
    book["Sums"].append(["1", "2"])
    book.save(tmp_path / "data.xlsx")
    report = RecordingReporter()
    rows = rows_of(tmp_path / "data.xlsx", report=report)
    assert texts(rows) == [MILL, ("7", "eng", "which year", "2019")]
    for sheet in ("[Notes]", "[About]", "[Sums]"):
        assert any(sheet in warning for warning in report.warnings)
    del book["Sheet"], book["Notes"], book["Sums"]
    book.create_sheet("More").append(["query", "passage"])
    book.save(tmp_path / "empty.xlsx")
    with pytest.raises(DataError, match="its sheets hold no record below their headers"):
        rows_of(tmp_path / "empty.xlsx")


@pytest.mark.parametrize("cell", ["XFD1048576", "XFE99999999"])
def test_a_workbook_with_a_cell_far_from_its_table_is_told(tmp_path, cell):
    openpyxl = pytest.importorskip("openpyxl")
    pytest.importorskip("python_calamine")
    book = openpyxl.Workbook()
    for row in (["Record ID", "Language", "Query", "Passage"], [*MILL]):
        book.active.append(row)
    book.active["Z99"] = "far"
    book.save(tmp_path / "near.xlsx")
    with (
        zipfile.ZipFile(tmp_path / "near.xlsx") as near,
        zipfile.ZipFile(tmp_path / "far.xlsx", "w") as far,
    ):
        for name in near.namelist():
            far.writestr(name, near.read(name).replace(b'"Z99"', f'"{cell}"'.encode()))
    with pytest.raises(DataError, match=r"far\.xlsx: .*sheet1\.xml reaches to row .* as CSV"):
        rows_of(tmp_path / "far.xlsx")


@pytest.mark.parametrize(
    ("content", "what"),
    [
        ("version https://git-lfs.github.com/spec/v1\noid sha256:ab\nsize 12\n", "pointer of Git LFS"),
        ("<!DOCTYPE html><html><body>Not found</body></html>\n", "a web page"),
    ],
)  # fmt: skip
def test_what_is_no_table_is_called_by_its_name(tmp_path, content, what):
    for name in ("data.jsonl", "data.csv"):
        with pytest.raises(DataError, match=what):
            rows_of(write(tmp_path / name, content))


def test_an_empty_cell_states_no_split(tmp_path):
    lines = "record_id,language,query,passage,split\na,en,q,p,dev\nb,en,r,s,\nc,en,t,u, Test \n"
    rows = rows_of(write(tmp_path / "data.csv", lines))
    assert [row.split for row in rows] == ["validation", "train", "test"]


# Training files of other tools, in one language


@pytest.mark.parametrize(
    ("name", "record"),
    [
        ("st", {"anchor": MILL[2], "positive": MILL[3], "negative": "The new bridge."}),
        ("tuples", {"anchor": MILL[2], "positive": MILL[3], "negative_1": "The new bridge."}),
        ("flag", {"query": MILL[2], "pos": [MILL[3]], "neg": ["The new bridge."]}),
        ("tevatron", {"query_id": "q1", "query": MILL[2],
                      "positive_passages": [{"docid": "d", "title": "", "text": MILL[3]}],
                      "negative_passages": [{"docid": "e", "title": "The", "text": "new bridge."}]}),
    ],
)  # fmt: skip
def test_training_files_of_other_tools(tmp_path, name, record):
    path = write(tmp_path / f"{name}.jsonl", [record])
    (row,) = rows_of(path, ENGLISH)
    assert (row.language, row.query, row.passage) == MILL[1:]
    assert row.negatives == ("The new bridge.",)
    assert row.record_id == ("q1" if name == "tevatron" else f"{name}:1")
    with pytest.raises(DataError, match="--language swh"):
        rows_of(path)


def test_triples_without_a_header(tmp_path):
    content = (
        f"{MILL[2]}\t{MILL[3]}\tThe new bridge.\n{HARVEST[2]}\t{HARVEST[3]}\tThe market.\n"
    )
    rows = rows_of(write(tmp_path / "triples.tsv", content), ENGLISH)
    assert [(row.query, row.passage, row.negatives) for row in rows] == [
        (*MILL[2:], ("The new bridge.",)), (*HARVEST[2:], ("The market.",)),
    ]  # fmt: skip


def test_translations_of_opus(tmp_path):
    records = [
        {"id": "0", "translation": {"en": "Good morning to you.", "sw": "Habari za asubuhi."}}
    ]
    pq.write_table(pa.Table.from_pylist(records), tmp_path / "data.parquet")
    rows = rows_of(tmp_path / "data.parquet")
    assert {row.language: row.query or row.passage for row in rows} == {
        "eng": "Good morning to you.", "swh": "Habari za asubuhi.",
    }  # fmt: skip
    assert sorted([row.query is None for row in rows]) == [False, True]


# One question with several answers


def test_several_passages_under_one_id_stay_together(tmp_path):
    records = [
        long(MILL), long(MILL) | {"passage": "Go north past the barn."},
        {"record_id": "a", "language": "sw", "query": "kinu kiko wapi", "passage": "Mtoni."},
        {"record_id": "a", "language": "sw", "query": "kinu kiko wapi", "passage": "Kaskazini."},
        long(HARVEST),
    ]  # fmt: skip
    path = write(tmp_path / "data.jsonl", records)
    assert [(row.record_id, row.language) for row in rows_of(path)] == [
        ("a", "eng"), ("a#2", "eng"), ("a", "swh"), ("a#2", "swh"), ("b", "eng"),
    ]  # fmt: skip
    out = prepare(config(path, tmp_path / "out", validation_share=0))
    index = Store.open(out).index("train")
    ids = Store.open(out).record_ids("train", index.record_start[:-1])
    groups = dict(zip(ids, index.group.tolist(), strict=True))
    assert groups["a"] == groups["a#2"] != groups["b"]


def test_two_questions_under_one_id_are_refused(tmp_path):
    path = write(tmp_path / "data.jsonl", [long(MILL), long(MILL) | {"query": "another"}])
    with pytest.raises(
        DataError, match=r"data\.jsonl:2: record 'a' .* is already at .*data\.jsonl:1"
    ):
        rows_of(path)


def test_equal_queries_never_meet_in_a_batch_of_any_strategy(tmp_path):
    from hybridbatch.sampling.plan import plan_schedule

    records = []
    for number in range(12):
        for code in ("en", "sw"):
            text = f"question {number // 2} in {code}"
            records.append(long((str(number), code, text, f"Answer {number} in {code}.")))
    path = write(tmp_path / "data.jsonl", records)
    store = Store.open(prepare(config(path, tmp_path / "out", validation_share=0)))
    index = store.index("train")
    for strategy in ("hybrid", "mixed", "mtt"):
        schedule = plan_schedule(
            index, mix=0.5, batch_size=6, steps=40, seed=3, strategy=strategy, copies=2
        )
        for step in range(40):
            record = index.record_of(schedule.query_row[step])
            members = set(record.tolist())
            assert len(set(index.group[list(members)].tolist())) == len(members)
    together = config(path, tmp_path / "two", validation_share=0, equal_queries="together")
    groups = Store.open(prepare(together)).index("train").group
    assert len(set(groups.tolist())) == 12


@pytest.mark.parametrize(
    "raw",
    [
        b'record_id,language,query,passage\na,en,who,"Line one\nline, ""two"""\n',
        b'\xef\xbb\xbfrecord_id,language,query,passage\r\na,en,who,"Line one\r\nline two"\r\n\r\nb,en,q,p',
        b"record_id\tlanguage\tquery\tpassage\n\na\ten\t5\" pipe\tthe 'end'\nb\ten\tq\n",
        b"record_id;language;query;passage;\na;en;wer;ich;;\n",
        'record_id,language,query,passage\na,en,\u2028who,"x\u0085y"\n'.encode(),
    ],
)
def test_text_tables_are_read_alike_fast_and_with_care(tmp_path, raw, monkeypatch):
    path = tmp_path / ("data.tsv" if b"\t" in raw else "data.csv")
    path.write_bytes(raw)
    fast = list(open_tables(path, path)[0].records())
    assert encodings.inspect_text(path).regular
    # no file is known to be regular then
    monkeypatch.setattr(encodings, "line_limit", lambda: 1000)
    assert not encodings.inspect_text(path).regular
    assert list(open_tables(path, path)[0].records()) == fast
    assert len(fast) >= 1


def test_a_lone_carriage_return_is_read_with_care(tmp_path):
    path = tmp_path / "data.tsv"
    path.write_bytes(b"record_id\tlanguage\tquery\tpassage\na\ten\twho\rwhat\tp\n")
    assert not encodings.inspect_text(path).regular
    assert [row.query for row in rows_of(path)] == ["who\rwhat"]
