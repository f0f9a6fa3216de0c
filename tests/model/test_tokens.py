"""Token arrays behave as lists of lists; stored ones are made once, survive interruption, and map
what is on disk.
"""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hybridbatch.common import tokens
from hybridbatch.common.errors import OutputError
from hybridbatch.common.tokens import TokenArrays, stored_tokens

sequences = st.lists(st.lists(st.integers(0, 250_000), max_size=5), max_size=8)


def as_lists(arrays: TokenArrays) -> list[list[int]]:
    assert arrays.ids.dtype == np.int32
    assert arrays.offsets.dtype == np.int64
    return [arrays[number].tolist() for number in range(len(arrays))]


@given(sequences)
def test_sequences_come_back_as_they_went_in(lists):
    arrays = TokenArrays.of(lists)
    assert as_lists(arrays) == lists
    assert arrays.lengths.tolist() == [len(one) for one in lists]


@given(sequences.filter(len), st.data())
def test_take_is_list_indexing(lists, data):
    rows = data.draw(st.lists(st.integers(0, len(lists) - 1), max_size=12))
    assert as_lists(TokenArrays.of(lists).take(np.array(rows, int))) == [
        lists[row] for row in rows
    ]


@given(st.lists(sequences, max_size=4))
def test_concatenate_is_list_addition(parts):
    assert as_lists(TokenArrays.concatenate([TokenArrays.of(part) for part in parts])) == [
        one for part in parts for one in part
    ]


def test_remap_looks_every_id_up():
    table = np.array([5, 7, 9])
    assert as_lists(TokenArrays.of([[0, 2], [], [1]]).remap(table)) == [[5, 9], [], [7]]


def test_an_index_out_of_range_is_refused():
    arrays = TokenArrays.of([[1], [2, 3]])
    assert arrays[-1].tolist() == [2, 3]
    with pytest.raises(IndexError):
        arrays[2]


TEXTS = [f"text {'x' * (number % 7)}" for number in range(50)]
PRESENT = np.arange(50) % 3 != 1
EXPECTED = [
    [ord(c) for c in text] if here else [] for text, here in zip(TEXTS, PRESENT, strict=True)
]


class Tokeniser:
    """Code points as tokens; counts the texts it is given and fails once after `fail_after` calls."""

    def __init__(self, fail_after: int | None = None) -> None:
        self.seen: list[str] = []
        self.calls_left = fail_after

    def __call__(self, texts):
        if self.calls_left == 0:
            raise KeyboardInterrupt
        if self.calls_left:
            self.calls_left -= 1
        self.seen += texts
        return TokenArrays.of([[ord(c) for c in text] for text in texts])


def store(folder: Path, tokenise: Tokeniser) -> TokenArrays:
    return stored_tokens(folder, PRESENT, lambda rows: [TEXTS[row] for row in rows], tokenise)


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch):
    monkeypatch.setattr(tokens, "CHUNK", 8)


def test_stored_tokens_are_made_once_and_then_mapped(tmp_path):
    first, second = Tokeniser(), Tokeniser()
    assert as_lists(store(tmp_path / "t", first)) == EXPECTED
    again = store(tmp_path / "t", second)
    assert as_lists(again) == EXPECTED
    assert isinstance(again.ids, np.memmap)
    assert len(first.seen) == PRESENT.sum()
    assert second.seen == []


@pytest.mark.parametrize("torn", ["", "ids", "offsets"])
def test_interrupted_work_goes_on_and_gives_the_same_tokens(tmp_path, torn):
    first, second = Tokeniser(fail_after=3), Tokeniser()
    with pytest.raises(KeyboardInterrupt):
        store(tmp_path / "t", first)
    assert not (tmp_path / "t").exists()
    if torn:  # as a crash in the middle of a write leaves it
        with open(tmp_path / ".t.part" / torn, "ab") as file:
            file.write(b"\1\2\3")
    assert as_lists(store(tmp_path / "t", second)) == EXPECTED
    assert first.seen + second.seen == [
        text for text, here in zip(TEXTS, PRESENT, strict=True) if here
    ]


def test_texts_that_are_all_missing_have_no_tokens(tmp_path):
    arrays = stored_tokens(tmp_path / "t", np.zeros(20, bool), lambda rows: [], Tokeniser())
    assert as_lists(arrays) == [[]] * 20


def test_a_place_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("is a file, where a folder is needed")
    with pytest.raises(OutputError, match="file"):
        store(tmp_path / "file" / "t", Tokeniser())
