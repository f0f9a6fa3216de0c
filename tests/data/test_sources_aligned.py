"""Pseudo pairs: parallel across languages, and without false negatives among them."""

from hypothesis import given
from hypothesis import strategies as st

from hybridbatch.common.records import BadRow, Row
from hybridbatch.common.texts import comparable
from hybridbatch.data.pairs.aligned_text import (
    Document,
    DocumentLine,
    Entry,
    document_rows,
    gather,
    has_letters,
)


def document(language: str, lines: dict[int, str]) -> Document:
    return Document(
        "d", language, {at: DocumentLine(at + 1, text, "train") for at, text in lines.items()}
    )


def rows(lines: dict[int, str], language: str = "eng") -> list[Row | BadRow]:
    return list(document_rows("s", document(language, lines), "file"))


def sentence(at: int) -> str:
    return f"This is the sentence that stands at place {at} of it."


@given(st.sets(st.integers(0, 60)))
def test_no_query_is_in_any_passage_and_passages_are_equal_or_share_no_line(positions):
    made = rows({at: sentence(at) for at in positions})
    assert all(isinstance(row, Row) for row in made)
    for row in made:
        lines_of_passage = {at for at in positions if sentence(at) in row.passage}
        assert lines_of_passage  # it is made of lines of the document, all near the query
        assert all(
            0 < abs(at - int(row.record_id.split(":")[1])) <= 2 for at in lines_of_passage
        )
        for other in made:
            assert other.query not in row.passage
            shared = lines_of_passage & {
                at for at in positions if sentence(at) in other.passage
            }
            assert not shared or row.passage == other.passage


def test_a_headline_asks_for_the_body_and_records_are_the_same_in_every_language():
    english = {at: sentence(at) for at in range(9)}
    swahili = {
        at: sentence(at)[::-1] for at in range(9) if at != 2
    }  # one line was not translated
    by_id = {(row.record_id, row.language): row for row in rows(english) + rows(swahili, "swh")}
    # line 8 has no neighbour in its block
    assert {record for record, _ in by_id} == {"d:0", "d:3", "d:4", "d:7"}
    assert by_id["d:0", "eng"].query == sentence(0)
    assert by_id["d:0", "eng"].passage == f"{sentence(1)} {sentence(2)}"
    assert by_id["d:0", "swh"].passage == sentence(1)[::-1]
    assert by_id["d:4", "swh"].passage == f"{sentence(5)[::-1]} {sentence(6)[::-1]}"


def test_a_refrain_and_texts_without_letters_make_no_pair_and_are_told():
    refrain = {
        0: "Twinkle, twinkle, Little  Star",
        1: "How I wonder: twinkle, twinkle, little star!",
        2: "Up above.",
    }
    numbers = {4: "12:30 - 14", 5: "A whole sentence about time.", 6: "Another one."}
    short = {8: "A long enough query here", 9: "Yes.", 10: "No!"}
    told = {(bad.file, bad.line, bad.reason) for bad in rows(refrain | numbers | short)}
    assert told == {
        ("file", 1, "the query occurs inside its passage"),
        ("file", 5, "fewer than 8 letters in the query"),
        ("file", 9, "fewer than 16 letters in the passage"),
    }


def test_letters_are_counted_with_their_vowel_signs():
    assert has_letters("नमस्ते", 6)
    assert not has_letters("1234 5678 !?", 1)
    assert not has_letters("abc", 4)
    assert comparable("CAFE\u0301\n au  lait ") == "café au lait"


def test_a_language_that_is_not_wanted_is_not_held(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text('{"l": "eng"}\n{"l": "swh"}\n')

    def parse(number, record):
        return [Entry("d", record["l"], 0, "text", "test")]

    (kept,) = gather(path, "a", parse, lambda code: code == "swh")
    assert (kept.language, kept.lines) == ("swh", {0: (2, "text", "test")})
