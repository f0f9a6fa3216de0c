"""Fixtures for all tests: tiny random encoders, and the optional real data."""

import os
from pathlib import Path

import pytest

from tests.tiny import write_tiny_model


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random two-layer BERT encoder with a small Unigram tokenizer, saved as a sentence-transformers folder."""
    return write_tiny_model(tmp_path_factory.mktemp("tiny") / "bert")


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real data sets; tests that ask for it skip where there is none."""
    return _optional_folder("data")


@pytest.fixture(scope="session")
def shared_folder() -> Path:
    """The folder that holds real data, model tools and the hub mirror; skips where there is none."""
    return _optional_folder(".")


def _optional_folder(name: str) -> Path:
    root = Path(os.environ.get("HYBRIDBATCH_SHARED", Path(__file__).parents[2] / "shared"))
    folder = (root / name).resolve()
    if not folder.is_dir():
        pytest.skip(f"no real data at {folder} (set HYBRIDBATCH_SHARED)")
    return folder
