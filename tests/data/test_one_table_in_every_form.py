"""The same table, written in every form and every kind of file, is the same prepared data."""

import csv
import io
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hybridbatch.common.errors import HybridBatchError
from hybridbatch.common.records import BadRow, Row
from hybridbatch.common.texts import clean_text
from hybridbatch.data.source import SourceContext
from hybridbatch.data.sources.user import OwnData, user_source
from hybridbatch.data.store.writer import write_store

Record = dict[str, Any]
LANGUAGES = ("sw", "en", "zh-Hant")
ENGLISH = OwnData(language="eng")
# Letters, marks, quotes and delimiters; no line ends, which tab-separated text cannot hold.
ALPHABET = st.characters(
    codec="utf-8", exclude_categories=("Cc", "Cs", "Cf", "Zl", "Zp", "Co", "Cn")
)
TEXT = (
    st.text(ALPHABET, min_size=1, max_size=20)
    .map(str.strip)
    .filter(lambda text: bool(clean_text(text)))
)


@st.composite
def tables(draw: st.DrawFn) -> list[Record]:
    """Records in two languages or three, with queries that differ, and perhaps negatives."""
    records = []
    for number in range(draw(st.integers(1, 4))):
        texts = {}
        for code in draw(st.sets(st.sampled_from(LANGUAGES), min_size=1)):
            texts[code] = (
                f"{draw(TEXT)} {number}?",
                draw(TEXT),
                draw(st.lists(TEXT, max_size=2)),
            )
        records.append({"id": f"r{number}", "texts": texts})
    return records


def long_rows(records: list[Record]) -> list[Record]:
    rows = []
    for record in records:
        for code, (query, passage, negatives) in record["texts"].items():
            rows.append({"record_id": record["id"], "language": code, "query": query,
                         "passage": passage, "negatives": negatives})  # fmt: skip
    return rows


def wide_rows(records: list[Record], joint: str) -> list[Record]:
    rows = []
    for record in records:
        row = {"record_id": record["id"]}
        for code, (query, passage, negatives) in record["texts"].items():
            row |= {f"query{joint}{code}": query, f"passage{joint}{code}": passage,
                    f"negatives{joint}{code}": negatives}  # fmt: skip
        rows.append(row)
    return rows


def nested_rows(records: list[Record]) -> list[Record]:
    rows = []
    for record in records:
        parts = record["texts"]
        row = {"record_id": record["id"]}
        for place, side in enumerate(("query", "passage", "negatives")):
            row[side] = {code: texts[place] for code, texts in parts.items()}
        rows.append(row)
    return rows


def as_text(rows: list[Record]) -> list[Record]:
    """Lists as JSON, as text tables have them; every row with all columns."""
    columns = list(dict.fromkeys(column for row in rows for column in row))
    made = []
    for row in rows:
        cells = {}
        for column in columns:
            value = row.get(column, "")
            cells[column] = json.dumps(value) if isinstance(value, list) else value
        made.append(cells)
    return made


def delimited(rows: list[Record], delimiter: str, encoding: str, **options: Any) -> bytes:
    text = io.StringIO()
    cells = as_text(rows)
    writer = csv.DictWriter(text, list(cells[0]), delimiter=delimiter, **options)
    writer.writeheader()
    writer.writerows(cells)
    return text.getvalue().encode(encoding)


def raw_tsv(rows: list[Record]) -> bytes:
    cells = as_text(rows)
    lines = ["\t".join(cells[0]), *("\t".join(row.values()) for row in cells)]
    return "".join(line + "\n" for line in lines).encode()


def json_lines(rows: list[Record]) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def parquet(rows: list[Record]) -> bytes:
    buffer = io.BytesIO()
    columns = dict.fromkeys(column for row in rows for column in row)
    pq.write_table(
        pa.table({name: [row.get(name) for row in rows] for name in columns}), buffer
    )
    return buffer.getvalue()


def workbook(rows: list[Record]) -> bytes:
    openpyxl = pytest.importorskip("openpyxl")
    pytest.importorskip("python_calamine")
    book, cells = openpyxl.Workbook(), as_text(rows)
    for line in (list(cells[0]), *(list(row.values()) for row in cells)):
        book.active.append([None] * len(line))
        for column, value in enumerate(line, 1):
            cell = book.active.cell(book.active.max_row, column)
            cell.value, cell.data_type = value, "s"
    buffer = io.BytesIO()
    book.save(buffer)
    return buffer.getvalue()


Form = tuple[str, Callable[[list[Record]], bytes]]
FORMS: list[Form] = [
    ("jsonl", lambda records: json_lines(long_rows(records))),
    ("ndjson", lambda records: json_lines(wide_rows(records, "_"))),
    ("jsonl", lambda records: json_lines(nested_rows(records))),
    ("jsonl", lambda records: json_lines(wide_rows(records, "."))),
    ("json", lambda records: json.dumps(long_rows(records), indent=1).encode()),
    ("json", lambda records: json.dumps({"rows": nested_rows(records)}).encode()),
    ("csv", lambda records: delimited(long_rows(records), ",", "utf-8")),
    ("csv", lambda records: delimited(wide_rows(records, "_"), ";", "utf-8-sig")),
    ("csv", lambda records: delimited(long_rows(records), "\t", "utf-16")),
    ("tsv", lambda records: raw_tsv(long_rows(records))),
    ("tsv", lambda records: raw_tsv(wide_rows(records, "_"))),
    ("tsv", lambda records: delimited(long_rows(records), "\t", "utf-8", quoting=csv.QUOTE_ALL)),
    ("parquet", lambda records: parquet(long_rows(records))),
    ("parquet", lambda records: parquet(nested_rows(records))),
]  # fmt: skip


def fingerprint(folder: Path, rows: list[Row]) -> str:
    manifest = write_store(folder, rows, provenance={}, validation_share=0)
    return str(manifest["fingerprint"])


def rows_in(path: Path, own: OwnData | None = None) -> list[Row]:
    rows = list(user_source(path, own).rows(SourceContext()))
    assert not [row for row in rows if isinstance(row, BadRow)], (path.read_bytes(), rows)
    return rows


@settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck))
@given(records=tables())
def test_every_form_gives_the_same_fingerprint(records, tmp_path_factory):
    folder = tmp_path_factory.mktemp("forms")
    found = {}
    for number, (suffix, make) in enumerate(FORMS):
        path = folder / str(number) / f"mine.{suffix}"
        path.parent.mkdir()
        path.write_bytes(make(records))
        found[f"{number} {suffix}"] = fingerprint(folder / f"out{number}", rows_in(path))
    assert len(set(found.values())) == 1, found


def test_workbooks_give_the_same_fingerprint_as_well(tmp_path):
    records = [
        {
            "id": "r0",
            "texts": {"en": ("what 7?", "=1+1", ["a", "b"]), "sw": ("nini?", "007", [])},
        }
    ]
    (tmp_path / "mine.jsonl").write_bytes(json_lines(long_rows(records)))
    expected = fingerprint(tmp_path / "a", rows_in(tmp_path / "mine.jsonl"))
    (tmp_path / "mine.xlsx").write_bytes(workbook(long_rows(records)))
    assert fingerprint(tmp_path / "b", rows_in(tmp_path / "mine.xlsx")) == expected
    opendocument = pytest.importorskip("odf.opendocument")
    from odf.table import Table, TableCell, TableRow
    from odf.text import P

    book, table, cells = (
        opendocument.OpenDocumentSpreadsheet(),
        Table(name="one"),
        as_text(long_rows(records)),
    )
    for line in (list(cells[0]), *(list(row.values()) for row in cells)):
        row = TableRow()
        for value in line:
            cell = TableCell(valuetype="string")
            cell.addElement(P(text=value))
            row.addElement(cell)
        table.addElement(row)
    book.spreadsheet.addElement(table)
    book.save(str(tmp_path / "mine.ods"))
    assert fingerprint(tmp_path / "c", rows_in(tmp_path / "mine.ods")) == expected


def test_the_training_files_of_other_tools_give_the_same_fingerprint(tmp_path):
    triples = [
        (f"question {n} here", f"Answer {n} of it.", f"Wrong {n} of it.") for n in range(5)
    ]
    made = {
        "flag/mine.jsonl": [{"query": q, "pos": [p], "neg": [n]} for q, p, n in triples],
        "st/mine.jsonl": [{"anchor": q, "positive": p, "negative_1": n} for q, p, n in triples],
        "tevatron/mine.jsonl": [
            {"query": q, "positive_passages": [{"docid": "1", "title": "", "text": p}],
             "negative_passages": [{"docid": "2", "text": n}]} for q, p, n in triples
        ],
    }  # fmt: skip
    found = set()
    for name, rows in made.items():
        path = tmp_path / name
        path.parent.mkdir()
        path.write_bytes(json_lines(rows))
        found.add(fingerprint(tmp_path / f"{path.parent.name}-out", rows_in(path, ENGLISH)))
    path = tmp_path / "mine.tsv"
    path.write_text("".join("\t".join(triple) + "\n" for triple in triples))
    found.add(fingerprint(tmp_path / "triples-out", rows_in(path, ENGLISH)))
    assert len(found) == 1


def seeds() -> list[tuple[str, bytes]]:
    records = [
        {
            "id": "r0",
            "texts": {"sw": ('swali "moja"?', "jibu, moja", ["a"]), "en": ("one?", "1", [])},
        },
        {"id": "r1", "texts": {"en": ("two; or\u00a0so?", "answer 'two'", [])}},
    ]
    made = [(suffix, make(records)) for suffix, make in FORMS]
    made.append(("xlsx", workbook(long_rows(records))))
    opus = [
        {"id": 1, "translation": {"en": "Good morning to you all.", "sw": "Habari za asubuhi."}}
    ]
    made.append(("jsonl", json_lines(opus)))
    made.append(("jsonl", json_lines([{"query": "q q", "pos": ["p", "r"], "neg": ["n"]}])))
    sink = io.BytesIO()
    table = pa.Table.from_pylist(long_rows(records))
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    made.append(("arrow", sink.getvalue()))
    return made


def mutated(raw: bytes, chance: random.Random) -> bytes:
    """A file with bytes changed, inserted, repeated or cut."""
    made = bytearray(raw)
    for _ in range(chance.randint(1, 4)):
        at = chance.randrange(len(made) + 1)
        kind = chance.randrange(6)
        if kind == 0 and made:
            made[at % len(made)] = chance.randrange(256)
        elif kind == 1:
            made[at:at] = chance.choice(
                [
                    b'"',
                    b"\t",
                    b",",
                    b";",
                    b"\n",
                    b"\r",
                    b"{",
                    b"[",
                    b"\x00",
                    b"\xff",
                    b"null",
                    b"\xe2\x80\x8b",
                ]
            )
        elif kind == 2:
            del made[at : at + chance.randint(1, 30)]
        elif kind == 3:
            made[at:at] = made[at : at + chance.randint(1, 60)]
        elif kind == 4:
            made = made[:at] or made
        else:
            made[at : at + 2] = chance.randbytes(2)
    return bytes(made)


def read_mutated(folder: Path, count: int, seed: int) -> None:
    """Read mutated files: each gives rows, bad rows or one clear error, never another exception."""
    chance, files = random.Random(seed), seeds()
    for number in range(count):
        suffix, raw = files[number % len(files)]
        path = folder / f"mine.{suffix}"
        path.write_bytes(mutated(raw, chance))
        try:
            for row in user_source(path, ENGLISH).rows(SourceContext()):
                assert isinstance(row, Row | BadRow)
        except HybridBatchError as error:
            told = str(error)
            if "\n" in told:
                raise AssertionError((suffix, told)) from error
        except Exception as error:
            raise AssertionError((suffix, path.read_bytes())) from error


def test_a_mutated_file_is_read_or_told_in_one_line(tmp_path):
    read_mutated(tmp_path, 400, seed=1)


@pytest.mark.slow
def test_five_thousand_mutated_files(tmp_path):
    read_mutated(tmp_path, 5000, seed=2)
