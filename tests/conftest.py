"""Fixtures for all tests: tiny random encoders, a hub on this machine, and real data if there is any.

Real data is a folder with local copies of public data sets, named by ``HYBRIDBATCH_DATA``; by
default ``shared/data`` beside the checkout. Where it is not there, the tests of real data are left
out.
"""

import gc
import os
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType

import pytest

from tests.helpers import hub_mirror as mirror
from tests.helpers.hub_layouts import write_script_repositories, write_tables, write_web
from tests.helpers.tiny import write_tiny_model

DATA = Path(
    os.environ.get("HYBRIDBATCH_DATA", Path(__file__).parents[2] / "shared" / "data")
).resolve()


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "data_set(name): needs this folder of the real data")
    config.addinivalue_line("markers", "package(name): needs this optional package")
    # On machines with a GPU too the tests stay on the CPU, unless `-m gpu` asks for those of GPUs.
    if "gpu" not in (config.getoption("markexpr") or "").replace("not gpu", ""):
        os.environ["CUDA_VISIBLE_DEVICES"] = ""


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out the tests whose real data or optional package is not there."""
    lacking = [item for item in items if not (_has_data(item) and _has_packages(item))]
    if lacking:
        items[:] = [item for item in items if item not in lacking]
        config.hook.pytest_deselected(items=lacking)


def _has_data(item: pytest.Item) -> bool:
    if "real_data" not in getattr(item, "fixturenames", ()):
        return True
    wanted = [mark.args[0] for mark in item.iter_markers("data_set")]
    return all((DATA / name).is_dir() for name in ["", *wanted])


def _has_packages(item: pytest.Item) -> bool:
    names = [mark.args[0] for mark in item.iter_markers("package")]
    return all(find_spec(name) for name in names)


def pytest_collection_finish() -> None:
    """Keep what was imported out of garbage collection.

    Sweeps collect after each of their cells, which would take 0.3 s each time.
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
    """The folder of real data sets; a test that asks for it is left out where there is none."""
    return DATA


@pytest.fixture(scope="session")
def hub_mirror() -> ModuleType:
    """The module of the hub on this machine: ``with hub_mirror.HubMirror(root) as url``."""
    return mirror


@pytest.fixture(scope="session")
def small_hub(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A root for the mirror with small repositories in the layouts of the public data sets."""
    folder = tmp_path_factory.mktemp("hub")
    for write_some in (write_tables, write_script_repositories, write_web):
        write_some(folder / "datasets")
    return folder
