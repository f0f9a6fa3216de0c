"""Tables in files: nothing that a spreadsheet would run, and nothing that breaks Markdown."""

import csv
import io

from hybridbatch.common.tables import columns, constant, csv_text, markdown_table, shown


def test_texts_that_look_like_formulas_are_not_run() -> None:
    rows = [{"name": text} for text in ("=1+1", "+1", "-1", "@SUM(A1)", "\tx", "plain", "a=b")]
    rows.append({"name": -0.5})
    read = [row["name"] for row in csv.DictReader(io.StringIO(csv_text(rows)))]
    assert read == ["'=1+1", "'+1", "'-1", "'@SUM(A1)", "'\tx", "plain", "a=b", "-0.5"]


def test_markdown_keeps_a_cell_on_its_line() -> None:
    table = markdown_table([{"a": "x|y\nz", "b": 0.123456}, {"b": 2}], right=["b"])
    assert table.splitlines() == [
        "| a | b |",
        "| --- | ---: |",
        "| x\\|y z | 0.1235 |",
        "|  | 2 |",
    ]
    assert markdown_table([]) == "(none)"


def test_columns_that_say_nothing_are_found() -> None:
    rows = [
        {"task": "atlas", "mix": 0.5, "keys": ["a"]},
        {"task": "atlas", "mix": 1, "keys": ["a"]},
    ]
    assert columns(rows) == ["task", "mix", "keys"]
    assert constant(rows) == {"task": "atlas"}
    assert constant(rows[:1]) == {}


def test_values_as_people_read_them() -> None:
    assert [shown(v) for v in (None, True, 12345, 0.123456, "x")] == [
        "",
        "yes",
        "12,345",
        "0.1235",
        "x",
    ]
