"""A few damaged files of some kinds with every run of the tests; `make fuzz` has all kinds and many."""

import time
from pathlib import Path

import pytest

from tests.fuzz.__main__ import Clock, attack
from tests.fuzz.flips import FORMATS, flip
from tests.fuzz.harness import Place
from tests.fuzz.targets import TARGETS

QUICK = ("jsonl", "task", "settings", "prepared", "prepared-shapes")


def attacked(name: str, folder: Path, count: int) -> None:
    (target,) = (each for each in TARGETS if each.name == name)
    outcomes = attack(Place(target, folder), count, 0, Clock(None), folder)
    inputs = outcomes.pop("inputs")
    assert inputs >= count // 2
    assert not outcomes, dict(outcomes)


@pytest.mark.parametrize("name", QUICK)
def test_a_few_damaged_files(name, tmp_path):
    attacked(name, tmp_path, 6)


@pytest.mark.slow
@pytest.mark.parametrize("name", [target.name for target in TARGETS])
def test_many_damaged_files(name, tmp_path):
    started = time.monotonic()
    attacked(name, tmp_path, 100)
    assert time.monotonic() > started


@pytest.mark.parametrize("form", FORMATS, ids=lambda form: form.name)
def test_flipped_bits_of_stored_files_are_seen(form, tmp_path):
    unseen = {
        name: times
        for name, times in flip(form, tmp_path, 4, 0).items()
        if name not in ("seen", "harmless")
    }
    assert not unseen


@pytest.mark.slow
@pytest.mark.parametrize("form", FORMATS, ids=lambda form: form.name)
def test_many_flipped_bits_of_stored_files_are_seen(form, tmp_path):
    outcomes = flip(form, tmp_path, 1000, 1)
    assert not set(outcomes) - {"seen", "harmless"}, dict(outcomes)
