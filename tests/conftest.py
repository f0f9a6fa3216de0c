"""Fixtures for all tests: tiny random encoders, and the optional real data."""

import gc
import importlib.util
import os
import sys
from pathlib import Path
from types import ModuleType

import pytest

from tests.helpers.hub_layouts import write_script_repositories, write_tables, write_web
from tests.helpers.tiny import write_tiny_model


def pytest_collection_finish() -> None:
    """Keep what was imported out of garbage collection: sweeps collect after each of their cells,
    0.3 s at a time.
    """
    gc.freeze()


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random two-layer BERT encoder with a small Unigram tokenizer, saved as a
    sentence-transformers folder.
    """
    return write_tiny_model(tmp_path_factory.mktemp("tiny") / "bert")


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real data sets; tests that ask for it skip where there is none."""
    return _optional_folder("data")


@pytest.fixture(scope="session")
def shared_folder() -> Path:
    """The folder that holds real data, model tools and the hub mirror; skips where there is none."""
    return _optional_folder(".")


@pytest.fixture(scope="session")
def hub_mirror(shared_folder: Path) -> ModuleType:
    """The module of the local mirror of the hub: ``with hub_mirror.HubMirror(root) as url``."""
    return _module(shared_folder / "hub" / "hub_mirror.py")


@pytest.fixture(scope="session")
def hub_builder(shared_folder: Path) -> ModuleType:
    """The module that lays real data out as repositories of the hub."""
    return _module(shared_folder / "hub" / "build_root.py")


@pytest.fixture(scope="session")
def small_hub(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A root for the mirror with small repositories in the layouts of the public data sets."""
    folder = tmp_path_factory.mktemp("hub")
    for write_some in (write_tables, write_script_repositories, write_web):
        write_some(folder / "datasets")
    return folder


def _module(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module  # dataclasses look themselves up there
    spec.loader.exec_module(module)
    return module


def _optional_folder(name: str) -> Path:
    root = Path(os.environ.get("HYBRIDBATCH_SHARED", Path(__file__).parents[2] / "shared"))
    folder = (root / name).resolve()
    if not folder.is_dir():
        pytest.skip(f"no real data at {folder} (set HYBRIDBATCH_SHARED)")
    return folder
