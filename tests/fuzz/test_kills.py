"""SIGKILL at any time, then the same command: the result of an uninterrupted run, nothing left over."""

import time
from pathlib import Path

import numpy as np
import pytest

from tests.fuzz.harness import Place
from tests.fuzz.kills import KILLED


def killed_and_finished(target, folder: Path, kills: int) -> None:
    place = Place(target, folder)
    place.clear()
    started = time.monotonic()
    place.run()
    took = time.monotonic() - started
    rng = np.random.default_rng(len(target.name))
    if target.slow:
        place._copy()
    place.clear()
    for _ in range(kills):
        place.kill(float(rng.uniform(0, took)))
    outcome = place.run(clear=False)
    assert outcome.code == 0, outcome.said
    assert place.leftovers() == []
    if target.outputs:
        assert outcome.result == place.expected.result


@pytest.mark.parametrize(
    "target", [t for t in KILLED if t.name == "audit"], ids=lambda t: t.name
)
def test_killed_once(target, tmp_path):
    killed_and_finished(target, tmp_path, kills=1)


@pytest.mark.slow
@pytest.mark.parametrize("target", KILLED, ids=lambda target: target.name)
def test_killed_again_and_again(target, tmp_path):
    killed_and_finished(target, tmp_path, kills=20)
