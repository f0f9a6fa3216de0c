"""SIGKILL at any moment, then the same command: the weights are those of an uninterrupted run, to
the bit.
"""

import os
import shutil
import signal
import time
from pathlib import Path

import numpy as np
import pytest

from hybridbatch.data.store.writer import write_store
from hybridbatch.training import checkpoint
from hybridbatch.training.settings import TrainConfig
from tests.helpers.parallel import rows
from tests.helpers.trainers import child_processes

STEPS = 6
# of os: what a write to the disk is made of
OPERATIONS = ("replace", "fsync", "mkdir", "rmdir", "unlink", "open")


def run_child(target, *arguments) -> int | None:
    """Exit code of ``target(*arguments)`` in a process of its own."""
    process = child_processes().Process(target=target, args=arguments)
    process.start()
    process.join(120)
    return process.exitcode


def train_and_die(
    config: TrainConfig, operation: int | None, count: Path | None = None
) -> None:
    """Train; kill this process just before its n-th file operation inside the run folder, if
    `operation` says so.
    """
    import torch

    from hybridbatch.training.train import train

    torch.set_num_threads(1)
    done = 0

    def counting(function):
        def called(path, *arguments, **options):
            nonlocal done
            if isinstance(path, int) or str(config.out) in str(path):
                if done == operation:
                    os.kill(os.getpid(), signal.SIGKILL)
                done += 1
            return function(path, *arguments, **options)

        return called

    for name in OPERATIONS:
        setattr(os, name, counting(getattr(os, name)))
    train(config)
    if count is not None:
        count.write_text(str(done))


def train_with_torn_checkpoint(config: TrainConfig, torn: int) -> None:
    """Train; die half-way through writing the n-th checkpoint's tensors."""
    import torch

    from hybridbatch.training.train import train

    torch.set_num_threads(1)  # as the run it is compared with: sums depend on the number
    save, written = checkpoint.save_file, 0

    def tear(tensors, path, **options):
        nonlocal written
        save(tensors, path, **options)
        if written == torn:
            os.truncate(path, path.stat().st_size // 2)
            os.kill(os.getpid(), signal.SIGKILL)
        written += 1

    checkpoint.save_file = tear
    train(config)


@pytest.fixture(scope="module")
def job(tmp_path_factory, tiny_model):
    """(settings of a run with dropout and validation, its weights, its file operations)."""
    folder = tmp_path_factory.mktemp("kill")
    write_store(folder / "data", [*rows(24), *rows(9, "validation")], provenance={})
    config = TrainConfig(
        data=str(folder / "data"), model=str(tiny_model), out=folder / "whole", steps=STEPS, batch_size=6,
        precision="fp32", learning_rate=1e-3, validate_every=2, checkpoint_every=1, ema=0.9, micro_tokens=120,
        log_to="jsonl",
    )  # fmt: skip
    assert run_child(train_and_die, config, None, folder / "count") == 0
    return config, weights_of(config.out), int((folder / "count").read_text())


def weights_of(run: Path) -> bytes:
    return (run / "model" / "model.safetensors").read_bytes()


def elsewhere(config: TrainConfig, folder: Path) -> TrainConfig:
    return config.model_copy(update={"out": folder})


def finish(config: TrainConfig) -> bytes:
    """The weights after the same command has run to its end."""
    assert run_child(train_and_die, config, None) == 0
    assert (config.out / "train.json").exists()
    assert not list(config.out.rglob("*.tmp"))
    return weights_of(config.out)


def check_points(job, tmp_path: Path, points) -> None:
    config, expected, _ = job
    for point in points:
        killed = elsewhere(config, tmp_path / f"point-{point}")
        assert run_child(train_and_die, killed, int(point)) == -signal.SIGKILL
        assert finish(killed) == expected, f"killed at file operation {point}"
        shutil.rmtree(killed.out)


def test_killed_at_some_file_operations(job, tmp_path):
    assert job[2] > 100  # several in each checkpoint
    check_points(job, tmp_path, np.random.default_rng(1).choice(job[2], 2, replace=False))


@pytest.mark.slow
def test_killed_at_many_file_operations(job, tmp_path):
    check_points(job, tmp_path, np.random.default_rng(2).choice(job[2], 30, replace=False))


@pytest.mark.parametrize("torn", [0, 3])
def test_killed_half_way_through_a_checkpoint(job, tmp_path, torn):
    config, expected, _ = job
    killed = elsewhere(config, tmp_path / "torn")
    assert run_child(train_with_torn_checkpoint, killed, torn) == -signal.SIGKILL
    assert list((killed.out / "checkpoints").glob(".step-*.tmp"))
    assert finish(killed) == expected


def kill_again_and_again(job, tmp_path: Path, kills: int, seed: int) -> None:
    """One run, killed after random times, until `kills` have hit it or it is finished."""
    config, expected, _ = job
    killed = elsewhere(config, tmp_path / "again")
    rng = np.random.default_rng(seed)
    for _ in range(kills):
        process = child_processes().Process(target=train_and_die, args=(killed, None))
        process.start()
        time.sleep(float(rng.uniform(0.05, 1.2)))
        process.kill()
        process.join()
    assert finish(killed) == expected


def test_killed_at_random_times(job, tmp_path):
    kill_again_and_again(job, tmp_path, kills=3, seed=0)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(4))
def test_killed_at_more_random_times(job, tmp_path, seed):
    kill_again_and_again(job, tmp_path, kills=6, seed=10 + seed)
