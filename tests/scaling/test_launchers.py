"""Cells run on Ray and through submitit as they run here, and survive what happens there."""

import os
from functools import partial
from pathlib import Path

import pytest

from hybridbatch.common.errors import ConfigError
from hybridbatch.scaling.cells.folder import SweepFolder, execute
from hybridbatch.scaling.cells.grid import plan_cells
from hybridbatch.scaling.cells.launchers import in_process, on_ray, on_slurm
from hybridbatch.scaling.sweep import run_sweep
from tests.helpers import synthetic


def cells_and_work(tmp_path, runner=synthetic.run):
    cells = plan_cells(synthetic.sweep_config(seeds="13", pairs="100"), synthetic.facts())
    return cells, partial(execute, folder=SweepFolder(tmp_path), runner=runner)


def results(folder):
    return {path.name: path.read_bytes() for path in (folder / "cells").iterdir()}


def where_am_i(cell, work):
    """Leaves the working directory behind, which relative paths of data and models depend on."""
    (work.parent.parent / f"cwd-{cell.key}").write_text(os.getcwd())
    return synthetic.run(cell, work)


@pytest.fixture
def here(tmp_path):
    cells, work = cells_and_work(tmp_path / "here")
    assert [error for _, error in in_process(work, cells)] == [None] * 4
    return results(tmp_path / "here")


@pytest.mark.slow
def test_submitit_runs_cells_as_this_process_does(tmp_path, here):
    pytest.importorskip("submitit")
    cells, work = cells_and_work(tmp_path / "s")
    run = on_slurm(
        work, cells, logs=tmp_path / "logs", jobs=2, gpus=0, cluster="local", poll_seconds=0.2
    )
    assert {cell.key: error for cell, error in run} == {cell.key: None for cell in cells}
    assert results(tmp_path / "s") == here


@pytest.mark.slow
def test_submitit_gives_back_the_error_of_a_cell(tmp_path):
    pytest.importorskip("submitit")
    cells, work = cells_and_work(tmp_path / "s", synthetic.fail_at_half)
    run = on_slurm(
        work, cells, logs=tmp_path / "logs", jobs=2, gpus=0, cluster="local", poll_seconds=0.2
    )
    errors = {cell.axes.get("mix"): error for cell, error in run}
    assert "the middle is cursed" in str(errors.pop(0.5))
    assert set(errors.values()) == {None}


@pytest.fixture(scope="module")
def two_nodes():
    """A Ray cluster of two nodes on this machine."""
    pytest.importorskip("ray")
    import ray
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    cluster.add_node(num_cpus=1)
    yield cluster.address
    ray.shutdown()
    cluster.shutdown()


@pytest.mark.slow
def test_ray_finishes_a_sweep_on_two_nodes_though_a_worker_is_killed_in_a_cell(
    tmp_path, here, two_nodes
):
    config = synthetic.sweep_config(
        seeds="13", pairs="100", out=tmp_path / "s", launcher="ray", address=two_nodes, tries=1
    )
    folder = run_sweep(config, runner=synthetic.die_once, facts=synthetic.facts())
    assert len(list(folder.glob("died-*"))) == 1
    assert results(folder) == here


@pytest.mark.slow
def test_ray_gives_back_the_error_of_a_cell_and_works_where_the_driver_works(tmp_path, two_nodes):
    cells, work = cells_and_work(tmp_path / "s", synthetic.fail_at_half)
    errors = {
        cell.axes.get("mix"): error
        for cell, error in on_ray(work, cells, address=two_nodes, jobs=1, gpus=0)
    }
    assert "the middle is cursed" in str(errors.pop(0.5))
    assert set(errors.values()) == {None}
    cells, work = cells_and_work(tmp_path / "t", where_am_i)
    assert [error for _, error in on_ray(work, cells, address=two_nodes, jobs=1, gpus=0)] == [
        None
    ] * 4
    assert {path.read_text() for path in (tmp_path / "t").glob("cwd-*")} == {str(Path.cwd())}


def test_an_engine_that_is_not_installed_is_one_line(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "ray", None)
    cells, work = cells_and_work(tmp_path)
    with pytest.raises(ConfigError, match="pip install ray"):
        list(on_ray(work, cells, address=None, jobs=1, gpus=0))
