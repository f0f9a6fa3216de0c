"""Targets of the Makefile whose commands depend on the variables that are given."""

import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.skipif(shutil.which("make") is None, reason="needs make")
@pytest.mark.parametrize(
    ("given", "data", "sweep"),
    [
        ([], "study/data.yaml", "study/grid"),
        (["EDITION=study2"], "study2/data.yaml", "study2/B"),
        (["EDITION=study2", "SWEEP=C-mkqa"], "study2/data-mkqa.yaml", "study2/C-mkqa"),
    ],
)
def test_a_study_is_checked_with_the_data_of_the_sweep(given, data, sweep) -> None:
    done = subprocess.run(
        ["make", "--dry-run", "study-check", *given],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert f" prepare --config experiments/{data} " in done.stdout
    assert f" check experiments/{sweep} " in done.stdout
