"""A stop that comes in the last step of a cell's training ends the sweep, which then goes on."""

import os
import signal
import sys

import pytest

from hybridbatch.cli.app import main
from hybridbatch.data.store.writer import write_store
from hybridbatch.scaling.sweep import status
from hybridbatch.training import loop
from tests.fuzz.targets import _task
from tests.helpers.parallel import rows

STEPS = 2


def test_a_stop_in_the_last_step_of_a_cell_ends_the_sweep(
    tiny_model, tmp_path, monkeypatch, capfd
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HYBRIDBATCH_CACHE", str(tmp_path / "cache"))
    write_store(tmp_path / "data", rows(24), provenance={"sources": []}, validation_share=0)
    _task(tmp_path)
    command = (
        f"hybridbatch scale-sweep --data data --tasks task --languages all --allow-seen --mix 0,1"
        f" --pairs all --steps {STEPS} --batch-size 4 --seeds 13 --model {tiny_model} --out sweep"
    )
    monkeypatch.setattr(sys, "argv", command.split())
    step = loop.Trainer._step
    taken = []

    def stop_at_the_last(trainer, *arguments):
        step(trainer, *arguments)
        taken.append(trainer.progress.step)
        if len(taken) == STEPS:
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(loop.Trainer, "_step", stop_at_the_last)
    with pytest.raises(SystemExit) as stopped:
        main()
    assert stopped.value.code == 130
    assert "same command" in capfd.readouterr().err
    assert taken == [1, 2]
    states = [row["state"] for row in status(tmp_path / "sweep")]
    assert states.count("done") == 1  # the untrained model
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 0
    assert taken == [1, 2, 1, 2]  # the stopped cell had taken all of its steps
    assert {row["state"] for row in status(tmp_path / "sweep")} == {"done"}
    assert not list((tmp_path / "sweep").rglob(".*.tmp"))
