"""Cells run on Ray and through submitit as they run here, and survive what happens there."""

import os
from functools import partial
from pathlib import Path

import pytest

from hybridbatch.common.errors import ConfigError
from hybridbatch.scaling.cells.folder import SweepFolder, execute
from hybridbatch.scaling.cells.grid import plan_cells
from hybridbatch.scaling.cells.launchers import (
    in_process,
    in_processes,
    launcher,
    on_ray,
    on_slurm,
    slurm_parameters,
    visible_gpus,
)
from hybridbatch.scaling.settings import slurm_minutes
from hybridbatch.scaling.sweep import run_sweep
from tests.helpers import synthetic
from tests.helpers.recording import RecordingReporter


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
def test_ray_gives_back_the_error_of_a_cell_and_works_where_the_driver_works(
    tmp_path, two_nodes
):
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


@pytest.mark.parametrize(
    ("text", "minutes"),
    [
        ("90", 90),
        ("90:30", 91),
        ("4:00:00", 240),
        ("1-12", 2160),
        ("2-01:30:00", 2970),
        ("2h", 120),
        ("0", 0),
    ],
)
def test_times_as_slurm_writes_them(text, minutes):
    assert slurm_minutes(text) == minutes


@pytest.mark.parametrize(
    ("name", "missing"), [("ray", "ray"), ("slurm", "submitit"), ("slurm", "sbatch")]
)
def test_a_missing_engine_is_told_before_any_work(name, missing, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(
        "hybridbatch.scaling.cells.launchers.find_spec",
        lambda package: None if package == missing else package,
    )
    config = synthetic.sweep_config(out=tmp_path / "s", launcher=name)
    with pytest.raises(ConfigError, match=missing) as refused:
        run_sweep(config)
    assert "\n" not in str(refused.value)
    assert not (tmp_path / "s").exists()


@pytest.mark.parametrize("text", ["soon", "1:2:3:4", "-5", ""])
def test_what_is_no_time_is_refused(text, tmp_path):
    with pytest.raises(ConfigError, match="slurm"):
        synthetic.sweep_config(out=tmp_path, slurm=f"time={text or 'x'}")


@pytest.mark.parametrize("value", ["abc", "2.5", "8GB", "0", "-3", ""])
def test_what_is_no_number_of_cores_is_refused(value, tmp_path):
    with pytest.raises(ConfigError, match=r"cpus: .* is not a number of cores"):
        synthetic.sweep_config(out=tmp_path, slurm={"cpus": value})


def test_slurm_gets_lists_and_flags_however_they_are_written(tmp_path):
    text = "nodelist=n[1,2],exclude=n1,n2,mem=1GB"
    config = synthetic.sweep_config(out=tmp_path, slurm=text)
    assert config.slurm == {"nodelist": "n[1,2]", "exclude": "n1,n2", "mem": "1GB"}
    given = {"exclude": ["n1", "n2"], "exclusive": True, "account": None, "requeue": False}
    config = synthetic.sweep_config(out=tmp_path, slurm=given)
    assert config.slurm == {"exclude": "n1,n2", "exclusive": ""}
    further = slurm_parameters(config)["slurm_additional_parameters"]
    assert further == {"exclusive": True}


@pytest.mark.package("submitit")
def test_slurm_is_asked_for_what_the_user_wants(tmp_path, monkeypatch):
    """A stand-in for sbatch keeps the script that the real submitit hands in."""
    script = tmp_path / "bin" / "sbatch"
    script.parent.mkdir()
    script.write_text(
        f"#!/bin/sh\ncp $1 {tmp_path}/handed-in.sh\necho Submitted batch job 12\n"
    )
    for name in ("srun", "sacct", "scancel"):
        (script.parent / name).write_text("#!/bin/sh\necho 'JobID|State|NodeList'\n")
    for each in script.parent.iterdir():
        each.chmod(0o755)
    monkeypatch.setenv("PATH", f"{script.parent}:{os.environ['PATH']}")
    config = synthetic.sweep_config(
        out=tmp_path / "s", launcher="slurm", jobs=3, partition="gpu",
        slurm="account=abc,time=4:00:00,mem=16GB,cpus=4,qos=long,mail-user=me@here",
    )  # fmt: skip
    cells, work = cells_and_work(tmp_path / "s")
    monkeypatch.setattr(
        "time.sleep", lambda seconds: 1 / 0
    )  # the first wait for the queue ends it
    with pytest.raises(ZeroDivisionError):
        list(launcher(config, tmp_path / "logs")(work, cells))
    asked = (tmp_path / "handed-in.sh").read_text()
    for line in (
        "account=abc", "time=240", "mem=16GB", "cpus-per-task=4", "qos=long", "partition=gpu",
        "mail-user=me@here", f"array=0-{len(cells) - 1}%3",
    ):  # fmt: skip
        assert f"#SBATCH --{line}\n" in asked


def which_gpu(cell, work):
    """Leaves the GPU behind that the cell has."""
    import json

    names = ("CUDA_VISIBLE_DEVICES", "HYBRIDBATCH_GPU_FRACTION")
    (work.parent.parent / f"gpu-{cell.key}").write_text(
        json.dumps([os.environ.get(n) for n in names])
    )
    return synthetic.run(cell, work)


def test_each_cell_at_a_time_has_its_own_gpu(tmp_path):
    cells, work = cells_and_work(tmp_path, which_gpu)
    done = in_processes(work, cells, jobs=2, gpus=["4", "GPU-5"])
    assert [error for _, error in done] == [None] * 4
    told = {path.read_text() for path in tmp_path.glob("gpu-*")}
    assert told == {'["4", "1.0"]', '["GPU-5", "1.0"]'}


def test_cells_share_gpus_where_there_are_too_few(tmp_path, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "7,-1,8")
    monkeypatch.setattr("torch.cuda.device_count", lambda: 1)
    recorder = RecordingReporter()
    config = synthetic.sweep_config(seeds="13", pairs="100", jobs=2)
    launch = launcher(config, tmp_path, recorder)
    assert "share a GPU" in recorder.notes[0]
    cells, work = cells_and_work(tmp_path, which_gpu)
    assert [error for _, error in launch(work, cells)] == [None] * 4
    assert {path.read_text() for path in tmp_path.glob("gpu-*")} == {'["7", "0.5"]'}


def test_names_of_hidden_gpus_are_none(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "-1")
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    assert visible_gpus() == []


def test_ray_without_gpus_is_announced(tmp_path):
    recorder = RecordingReporter()
    launcher(synthetic.sweep_config(launcher="ray"), tmp_path, recorder)
    assert "gives the cells no GPU" in recorder.notes[0]


@pytest.mark.parametrize(
    ("engine", "gpus", "reason"),
    [
        ("slurm", 0.5, "whole GPUs"),
        ("ray", 2, "at most one GPU"),
        ("local", 1, "CUDA_VISIBLE_DEVICES"),
    ],
)
def test_gpus_that_an_engine_cannot_give_are_refused(engine, gpus, reason):
    with pytest.raises(ConfigError, match=reason):
        synthetic.sweep_config(launcher=engine, gpus=gpus)
