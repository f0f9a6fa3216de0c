"""Tables: every format gives the same records, and every kind of damage is told with its file, line
and field.
"""

import gzip
import io
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from hybridbatch.common.errors import DataError
from hybridbatch.common.records import BadRow
from hybridbatch.data.formats.tables import bare_name, kind, read_records

RECORDS = [
    {"record_id": "1", "text": "Habari ya asubuhi"},
    {"record_id": "2", "text": 'ሰላም, "ዓለም"'},
]


def write_zst(path: Path, raw: bytes) -> None:
    with pa.output_stream(str(path), compression="zstd") as sink:
        sink.write(raw)


def jsonl(records: list[dict]) -> bytes:
    return "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records).encode()


def write(path: Path, records: list[dict]) -> Path:
    columns = list(records[0])
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(records), path)
        return path
    if ".tsv" in path.name:
        raw = (
            "\n".join(
                "\t".join(row) for row in [columns, *(r.values() for r in records)]
            ).encode()
            + b"\n"
        )
    elif ".csv" in path.name:
        import csv

        text = io.StringIO()
        csv.writer(text).writerows([columns, *(r.values() for r in records)])
        raw = text.getvalue().encode()
    else:
        raw = jsonl(records)
    if path.suffix == ".gz":
        path.write_bytes(gzip.compress(raw))
    elif path.suffix == ".zst":
        write_zst(path, raw)
    else:
        path.write_bytes(raw)
    return path


@pytest.mark.parametrize(
    "name",
    [
        "a.jsonl",
        "a.ndjson",
        "a.jsonl.gz",
        "a.jsonl.zst",
        "a.tsv",
        "a.tsv.gz",
        "a.csv",
        "a.csv.zst",
        "a.parquet",
    ],
)
def test_every_format_gives_the_same_records(tmp_path, name):
    path = write(tmp_path / name, RECORDS)
    assert [record for _, record in read_records(path)] == RECORDS
    assert bare_name(path) == "a"


def test_line_numbers_count_headers_blank_lines_and_cells_over_several_lines(tmp_path):
    (tmp_path / "a.jsonl").write_bytes(b'\xef\xbb\xbf{"a": 1}\n\n{"a": 2}')
    (tmp_path / "a.tsv").write_bytes(b'\xef\xbb\xbfa\tb\r\n1\t"2\r\n\r\n3\t4\r\n')
    (tmp_path / "a.csv").write_bytes(b'a,b\r\n1,"x\r\ny"\r\n3,4\r\n')
    assert list(read_records(tmp_path / "a.jsonl")) == [(1, {"a": 1}), (3, {"a": 2})]
    assert list(read_records(tmp_path / "a.tsv")) == [
        (2, {"a": "1", "b": '"2'}),
        (4, {"a": "3", "b": "4"}),
    ]
    assert list(read_records(tmp_path / "a.csv")) == [
        (2, {"a": "1", "b": "x\ny"}),
        (4, {"a": "3", "b": "4"}),
    ]


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (b'{"a": "x"', "malformed JSON (Expecting"),
        (b'{"a": "x\xff"}', "not valid UTF-8"),
        (b'["a"]', "must be a JSON object, not a list"),
        (b"[" * 100_000, "malformed JSON"),
        (b'{"a": ' + b"1" * 5000 + b"}", "malformed JSON"),
    ],
)
def test_a_bad_json_line_is_told_and_the_next_is_read(tmp_path, raw, reason):
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"a": "ok"}\n' + raw + b'\n{"a": "ok"}\n')
    first, bad, last = read_records(path)
    assert first[0] == 1
    assert last == (3, {"a": "ok"})
    assert isinstance(bad, BadRow)
    assert (bad.file, bad.line) == (str(path), 2)
    assert bad.reason.startswith(reason)


def test_a_row_with_another_number_of_fields_is_told(tmp_path):
    for name, raw in {
        "a.tsv": b"a\tb\n1\n1\t2\t3\n1\t2\n",
        "a.csv": b"a,b\n1\n1,2,3\n1,2\n",
    }.items():
        (tmp_path / name).write_bytes(raw)
        one, three, good = read_records(tmp_path / name, "my file")
        assert one == BadRow("my file", 2, "line", "1 fields where the header has 2")
        assert three == BadRow("my file", 3, "line", "3 fields where the header has 2")
        assert good[0] == 4


def test_a_csv_with_an_open_quote_is_damaged(tmp_path):
    (tmp_path / "a.csv").write_bytes(b'a,b\n1,2\n3,"4\n5,6\n')
    with pytest.raises(
        DataError, match=r"a\.csv:3: the quote that opens in this line is never"
    ):
        list(read_records(tmp_path / "a.csv"))


def test_a_truncated_gz_names_the_file_and_the_last_good_line(tmp_path):
    path = tmp_path / "a.jsonl.gz"
    lines = [{"a": f"{number * 7919 % 104729:x} {number**3:x}"} for number in range(5000)]
    path.write_bytes(gzip.compress(jsonl(lines))[:-3000])
    seen = []
    with pytest.raises(
        DataError, match=r"a\.jsonl\.gz: is truncated or damaged after line \d+"
    ) as caught:
        seen.extend(read_records(path))
    assert 0 < len(seen) < 5000
    assert f"line {len(seen)} " in str(caught.value)
    assert [record for _, record in seen] == lines[: len(seen)]


def test_a_truncated_zst_names_the_file(tmp_path):
    path = tmp_path / "a.jsonl.zst"
    write_zst(path, jsonl([{"a": f"{number**5:x}"} for number in range(20_000)]))
    path.write_bytes(path.read_bytes()[:-2000])
    with pytest.raises(DataError, match=r"a\.jsonl\.zst: .* after line \d+"):
        list(read_records(path))


def test_a_file_that_is_not_gzip_or_not_parquet_names_itself(tmp_path):
    for name in ("a.jsonl.gz", "a.parquet"):
        (tmp_path / name).write_bytes(b'{"a": 1}\n' * 10)
        with pytest.raises(DataError, match=name):
            list(read_records(tmp_path / name))


def test_parquet_text_that_is_not_utf8_is_kept_apart_from_good_rows(tmp_path):
    raw = pa.array([b"good", b"bad\xff", None], pa.binary())
    text = pa.StringArray.from_buffers(3, raw.buffers()[1], raw.buffers()[2], raw.buffers()[0])
    pq.write_table(pa.table({"a": text}), tmp_path / "a.parquet")
    values = [record["a"] for _, record in read_records(tmp_path / "a.parquet")]
    assert values == ["good", "bad\udcff", None]


def test_a_header_with_one_name_twice_is_refused(tmp_path):
    (tmp_path / "a.tsv").write_text("a\ta\n1\t2\n")
    with pytest.raises(DataError, match=r"a\.tsv:1: the header .*has one column name twice"):
        list(read_records(tmp_path / "a.tsv"))


@pytest.mark.parametrize("name", ["a.txt", "a", "a.xlsx", "a.parquet.gz"])
def test_other_kinds_of_file_are_refused(tmp_path, name):
    (tmp_path / name).write_text("x")
    assert kind(tmp_path / name) is None
    with pytest.raises(DataError, match=r"give \.jsonl, \.tsv"):
        next(read_records(tmp_path / name))
