"""The built-in sources on small files in their true layouts, and on the real files where they are."""

import gzip
import json
from collections import defaultdict
from pathlib import Path

import pytest

from hybridbatch.common.errors import ConfigError, DataError
from hybridbatch.common.languages import canonical
from hybridbatch.common.records import BadRow, Row
from hybridbatch.common.texts import comparable
from hybridbatch.data.source import SourceContext
from hybridbatch.data.sources.registry import catalogue, source, sources

LOCAL = (
    "afriqa", "afriqa-questions", "tydi", "amqa", "mkqa", "exams", "ntrex", "tico19", "stories", "bible", "lafand-mt",
    "squadshifts",
)  # fmt: skip
PSEUDO = ("ntrex", "tico19", "stories", "bible", "lafand-mt")
ONE_SIDED = ("afriqa-questions", "mkqa")


def put(root: Path, name: str, *records: dict) -> None:
    path = root / f"{name}.jsonl.gz"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(
        gzip.compress("".join(json.dumps(record) + "\n" for record in records).encode())
    )


def rows(root: Path | None, name: str, **context) -> list[Row | BadRow]:
    return list(source(name).rows(SourceContext(data_root=root, **context)))


def question(number: int, doc_id: str | None, **fields) -> dict:
    return {"id": f"q{number}", "lang": "hau", "split": "train", "text": f"Ina {number}?", "pivot_lang": "en",
            "pivot_text": f"Where {number}?", "answers": ["a"], "pivot_answers": ["a"], "doc_id": doc_id} | fields  # fmt: skip


def put_afriqa(root: Path) -> None:
    put(
        root,
        "afriqa/corpus.en",
        {"id": "p1", "lang": "en", "title": "Kano", "text": "A city of Nigeria."},
    )
    put(
        root,
        "afriqa/corpus.fr",
        {"id": "p2", "lang": "fr", "title": "Dakar", "text": "Une ville."},
    )
    put(
        root,
        "afriqa/queries.hau",
        question(1, "p1"),
        question(2, None),
        question(3, "p9"),
        question(4, "p1", split="dev"),
    )
    put(root, "afriqa/queries.wol", question(5, "p2", lang="wol", pivot_lang="fr"), question(6, None, lang="wol", pivot_lang="fr"))  # fmt: skip


def test_afriqa_questions_have_the_query_alone_and_the_passage_is_in_the_pivot(tmp_path):
    put_afriqa(tmp_path)
    bad, *good = sorted(rows(tmp_path, "afriqa"), key=lambda row: isinstance(row, Row))
    assert (bad.file, bad.line, bad.field) == ("afriqa/queries.hau.jsonl.gz", 3, "doc_id")
    assert good == [
        Row("afriqa", "q1", "hau", "Ina 1?", None),
        Row("afriqa", "q1", "eng", "Where 1?", "Kano A city of Nigeria."),
        Row("afriqa", "q4", "hau", "Ina 4?", None, split="validation"),
        Row("afriqa", "q4", "eng", "Where 4?", "Kano A city of Nigeria.", split="validation"),
        Row("afriqa", "q5", "wol", "Ina 5?", None),
        Row("afriqa", "q5", "fra", "Where 5?", "Dakar Une ville."),
    ]


def test_question_records_carry_one_side_a_language_so_that_no_text_is_its_own_passage(
    tmp_path,
):
    put_afriqa(tmp_path)
    made = rows(tmp_path, "afriqa-questions")
    assert {row.record_id for row in made} == {"q2", "q6"}
    queries = {code: f"question {code}" for code in ("ar", "en", "es", "fi", "ja", "zh_cn")}
    put(tmp_path, "mkqa-mia/parallel_queries.dev", *({"id": str(n), "split": "dev", "queries": queries, "answers": {}} for n in range(200)))  # fmt: skip
    made += rows(tmp_path, "mkqa")
    sides: dict[str, list[Row]] = defaultdict(list)
    for row in made:
        assert (row.query is None) != (row.passage is None)
        sides[row.record_id].append(row)
    asking = {
        record: {row.language for row in one if row.query} for record, one in sides.items()
    }
    assert all(len(asking[record]) * 2 == len(one) for record, one in sides.items())
    mkqa = [codes for record, codes in asking.items() if not record.startswith("q")]
    for code in ("arb", "eng", "spa", "fin", "jpn", "zho"):
        assert 60 < sum(code in codes for codes in mkqa) < 140  # binomial(200, 1/2): 5.6 sigma
    two = rows(tmp_path, "mkqa", keeps=lambda code: code in ("eng", "zho"))
    assert len(two) == 400
    assert all(
        {bool(one.query), bool(other.query)} == {True, False}
        for one, other in zip(two[::2], two[1::2], strict=True)
    )


def test_retrieval_sets_give_a_row_for_each_passage_that_answers(tmp_path):
    for part, code in {"en": "en", "ko": "ko", "sw": "sw"}.items():
        put(tmp_path, f"tydi-goldp/corpus.{part}", {"id": "p1", "lang": code, "title": "T_1", "text": "one"}, {"id": "p2", "lang": code, "title": "", "text": "two"})  # fmt: skip
        put(tmp_path, f"tydi-goldp/qrels.{part}", {"query_id": f"{part}1", "doc_id": "p1", "rel": 1}, {"query_id": f"{part}1", "doc_id": "p2", "rel": 1}, {"query_id": f"{part}2", "doc_id": "p2", "rel": 0})  # fmt: skip
        put(tmp_path, f"tydi-goldp/queries.{part}", {"id": f"{part}1", "lang": code, "text": "Q1", "answers": []}, {"id": f"{part}2", "lang": code, "text": "Q2", "answers": []})  # fmt: skip
    made = rows(tmp_path, "tydi")
    assert made[:2] == [
        Row("tydi", "en1", "eng", "Q1", "T 1 one"),
        Row("tydi", "en1#2", "eng", "Q1", "two"),
    ]
    assert (made[2].file, made[2].line, made[2].field) == (
        "tydi-goldp/queries.en.jsonl.gz",
        2,
        "id",
    )
    assert {row.language for row in made if isinstance(row, Row)} == {"eng", "kor", "swh"}


def test_exams_join_by_group_and_wrong_choices_are_negatives(tmp_path):
    one = {"id": "a", "lang": "hr", "split": "train", "text": "Što?", "answer": "kloroplast", "choices": ["kolagen", "kloroplast"], "subject": "Biology", "group": "g0"}  # fmt: skip
    put(tmp_path, "exams/questions", one, one | {"id": "b", "lang": "sr", "answer": "хлоропласт", "choices": ["хлоропласт"]}, one | {"answer": "42", "group": "g1"}, one | {"choices": "kolagen", "group": "g2"})  # fmt: skip
    first, second, number, wrong = rows(tmp_path, "exams")
    assert first == Row("exams", "g0", "hrv", "Što?", "kloroplast", ("kolagen",), "train")
    assert (second.record_id, second.language, second.negatives) == ("g0", "srp", ())
    assert (number.line, number.field) == (3, "answer")
    assert (wrong.line, wrong.field) == (4, "choices")


def test_stories_join_only_versions_whose_pages_go_along_with_the_english(tmp_path):
    codes = {"en": True, "sw": True, "am": False, "fr": None, "tw-akua": True, "tw-asan": True}
    put(
        tmp_path,
        "stories/docs",
        *({"doc": "asp-1", "lang": code, "aligned_en": value} for code, value in codes.items()),
    )
    pages = [
        {"id": f"{code}-{at}", "lang": code, "doc": "asp-1", "pos": at, "text": f"Page {at} of the story in {code}"}
        for code in codes for at in range(4)
    ]  # fmt: skip
    put(tmp_path, "stories/pages", *pages)
    made = rows(tmp_path, "stories")
    joined = defaultdict(set)
    for row in made:
        if isinstance(row, Row):
            joined[row.record_id].add(row.language)
    assert joined == {
        "asp-1:0": {"eng", "swh", "twi"}, "asp-1:3": {"eng", "swh", "twi"},
        "asp-1/amh:0": {"amh"}, "asp-1/amh:3": {"amh"}, "asp-1/fra:0": {"fra"}, "asp-1/fra:3": {"fra"},
    }  # fmt: skip
    assert {bad.reason for bad in made if isinstance(bad, BadRow)} == {
        "the story is already there in twi, as tw-akua"
    }


def test_lafand_pairs_both_languages_and_keeps_its_splits(tmp_path):
    def line(at: int, part: str, **more) -> dict:
        return {"id": f"x{at}", "split": part, "pos": at, "src_lang": "en", "src": f"English line number {at}",
                "lang": "hau", "text": f"Layin Hausa na lamba {at}"} | more  # fmt: skip

    put(tmp_path, "lafand-mt/doc.en-hau", *(line(at, "train", doc="d0") for at in range(3)))
    put(
        tmp_path,
        "lafand-mt/sent.en-hau",
        *(line(at, part) for part in ("dev", "test") for at in range(3)),
    )
    made = rows(tmp_path, "lafand-mt")
    assert {(row.record_id, row.language, row.split) for row in made} == {
        (record, code, split)
        for record, split in {
            "doc.en-hau/d0:0": "train", "sent.en-hau/validation:0": "validation", "sent.en-hau/test:0": "test"
        }.items()
        for code in ("eng", "hau")
    }  # fmt: skip


def test_what_is_neither_here_nor_to_be_had_says_where_it_is_public(tmp_path, monkeypatch):
    def refuse(address: str) -> Path:
        raise DataError(f"{address}: the server cannot be reached")

    monkeypatch.setattr("hybridbatch.data.homes.home.web_file", refuse)
    monkeypatch.setenv("HYBRIDBATCH_CACHE", str(tmp_path / "cache"))
    for name in set(LOCAL) - {"squadshifts"}:
        for root in (None, tmp_path):
            with pytest.raises(DataError, match=r"Or clone https://github.com/.*--data-root"):
                rows(root, name)


def test_the_registry_names_every_source_and_the_nearest_to_an_unknown_one():
    names = [known.name for known in sources()]
    assert len(set(names)) == len(names)
    assert {"atlas", *LOCAL} <= set(names)
    assert [line["source"] for line in catalogue()] == names
    assert all(all(line.values()) for line in catalogue())
    with pytest.raises(ConfigError, match=r"unknown source 'ntrx' \(did you mean ntrex"):
        source("ntrx")
    for evaluation in ("sib200", "belebele", "xquad", "xquad-r", "squad"):
        assert evaluation not in names


def test_listing_the_sources_imports_nothing_heavy():
    import subprocess
    import sys

    code = (
        "import sys; from hybridbatch.data.sources.registry import catalogue; catalogue();"
        "print([name for name in ('babel', 'pyarrow', 'datasets', 'torch', 'mteb') if name in"
        " sys.modules])"
    )
    shown = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout
    assert shown.strip() == "[]"


@pytest.mark.parametrize("name", LOCAL)
def test_the_real_files(real_data, name):
    made = rows(real_data, name)
    good = [row for row in made if isinstance(row, Row)]
    bad = [row for row in made if isinstance(row, BadRow)]
    assert len(good) > 1000
    assert len(bad) < 0.1 * len(good)
    languages = {row.language for row in good}
    assert all(canonical(code) == code for code in languages)
    records: dict[str, dict[str, Row]] = defaultdict(dict)
    for row in good:
        assert row.language not in records[row.record_id]
        records[row.record_id][row.language] = row
        assert row.query or row.passage
    assert all(
        len({row.split for row in versions.values()}) == 1 for versions in records.values()
    )
    if name in PSEUDO:
        for row in good:
            assert comparable(row.query) not in comparable(row.passage)
        assert sum(len(versions) > 1 for versions in records.values()) > 0.3 * len(records)
    if name in ("ntrex", "tico19"):
        complete = sum(len(versions) == len(languages) for versions in records.values())
        assert complete > 0.85 * len(records)
    if name == "afriqa":
        assert all(
            (row.passage is None) == (row.language not in ("eng", "fra")) for row in good
        )
    if name in ONE_SIDED:
        assert all((row.passage is None) != (row.query is None) for row in good)
        assert all(
            len({bool(row.query) for row in versions.values()}) == 2
            for versions in records.values()
        )
