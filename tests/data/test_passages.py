"""Passages to search, from files, folders and tasks."""

import gzip
import json

import pytest

from hybridbatch.common.errors import ConfigError, DataError
from hybridbatch.data.store.writer import write_store
from hybridbatch.data.tasks.passages import UNDETERMINED, read_passages
from tests.helpers.parallel import rows


def plain(passages):
    return {name: dict(zip(t.ids, t.texts, strict=True)) for name, t in passages.items()}


def test_rows_go_to_the_languages_that_they_name(tmp_path):
    rows = [
        {"id": "a", "text": "one", "language": "en"},
        {"_id": 7, "title": "Title", "text": " two ", "lang": "sw"},
        {"text": "three"},
    ]
    path = tmp_path / "mine.jsonl"
    path.write_text("\n\n".join(map(json.dumps, rows)))
    expected = {"eng": {"a": "one"}, "swh": {"7": "Title two"}}
    assert plain(read_passages(str(path))) == {**expected, UNDETERMINED: {"5": "three"}}
    assert plain(read_passages(str(path), language="fra")) == {
        **expected,
        "fra": {"5": "three"},
    }


def test_the_id_0_is_an_id(tmp_path):
    path = tmp_path / "zero.jsonl"
    path.write_text('{"id": 0, "text": "a"}\n{"id": 1, "text": "b"}\n')
    assert plain(read_passages(str(path))) == {UNDETERMINED: {"0": "a", "1": "b"}}


def test_tables_and_texts_are_read(tmp_path):
    (tmp_path / "a.csv").write_text('id,passage,language\nx,"one, two",de\n')
    assert plain(read_passages(str(tmp_path / "a.csv"))) == {"deu": {"x": "one, two"}}
    (tmp_path / "a.txt.gz").write_bytes(gzip.compress(b"one\n\nzwei\n"))
    found = read_passages(str(tmp_path / "a.txt.gz"), language="de")
    assert plain(found) == {"deu": {"1": "one", "3": "zwei"}}


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.csv", "ID;Text;Language\n1;eins;de\n2;two;\n"),
        ("a.tsv", "Doc ID\tbody\tlang_code\n1\teins\tde\n2\ttwo\tund\n"),
        ("a.json", '[{"docId": 1, "Text": "eins", "lang": "de"}, {"docId": 2, "Text": "two"}]'),
        ("a.JSONL", '{"id": 1, "text": "eins", "language": "de"}\n{"id": 2, "text": "two"}'),
    ],
)
def test_tables_are_read_in_the_forms_that_prepare_reads(tmp_path, name, content):
    (tmp_path / name).write_text(content)
    expected = {"deu": {"1": "eins"}, UNDETERMINED: {"2": "two"}}
    assert plain(read_passages(str(tmp_path / name))) == expected


def test_a_text_file_may_have_a_name_in_capitals(tmp_path):
    (tmp_path / "A.TXT").write_text("one\n")
    assert plain(read_passages(str(tmp_path / "A.TXT"))) == {UNDETERMINED: {"1": "one"}}


def test_folders_need_no_judgements(tmp_path):
    (tmp_path / "sw").mkdir()
    (tmp_path / "sw" / "corpus.jsonl").write_text('{"_id": "a", "text": "moja"}')
    (tmp_path / "corpus.de.jsonl").write_text('{"id": "a", "text": "eins"}')
    found = read_passages(str(tmp_path))
    assert plain(found) == {"deu": {"a": "eins"}, "swh": {"a": "moja"}}
    assert len(read_passages("atlas")) > 100


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"id": "a", "text": "x"}\n{"id": "a", "text": "y"}', r":2: the id 'a' occurs before"),
        ('{"id": "a", "text": "x"}\n{"id": "b"}', r":2: has no text or passage"),
        ('{"id": "a", "text": 3}', r":1: title and text must be texts"),
        ('{"id": "a", "text": "\u200b"}', r":1: the text is empty"),
        ('{"id": "a", "text": "x", "language": "q!"}', r":1: language: .*q!"),
        ('{"id": "a", "text": ', r":1: line: malformed JSON"),
        ("", "holds no passage"),
    ],
)
def test_a_bad_row_is_named(tmp_path, content, message):
    path = tmp_path / "bad.jsonl"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(DataError, match=message):
        read_passages(str(path))


def test_a_name_of_nothing_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="did you mean atlas"):
        read_passages("atlass")
    (tmp_path / "a.pdf").write_bytes(b"x")
    with pytest.raises(DataError, match="this kind of file is not known"):
        read_passages(str(tmp_path / "a.pdf"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="holds no passage"):
        read_passages(str(tmp_path / "empty"))


def test_prepared_data_gives_the_passages_of_all_its_splits(tmp_path):
    made = [*rows(4), *rows(3, "test")]
    write_store(tmp_path / "mine", made, provenance={"sources": [{"name": "toy"}]})
    found = read_passages(str(tmp_path / "mine"))
    expected: dict[str, set[str]] = {}
    for row in made:
        expected.setdefault(row.language, set()).add(row.passage)
    assert {language: set(texts.texts) for language, texts in found.items()} == expected
