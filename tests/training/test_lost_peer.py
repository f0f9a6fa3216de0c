"""A process that is gone is noticed by the others while they are busy, in one line."""

import os
import signal
import socket
import subprocess
import sys
import textwrap
import time

import pytest
from torch import distributed as dist

from hybridbatch.common import lifeline
from hybridbatch.common.distributed import Workers, _require, join
from hybridbatch.common.errors import ConfigError
from tests.training.test_distributed import on_ranks

BUSY = textwrap.dedent("""
    import os, signal, time
    from hybridbatch.common import lifeline
    from hybridbatch.common.distributed import CPU, join

    lifeline.GRACE = 0.5
    with join(CPU) as workers:
        workers.wait()
        if workers.rank == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(60)
    """)


def test_a_killed_process_is_told_of_once_by_those_that_are_busy():
    # as torchrun does, whose store outlives the processes
    store = dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    processes = []
    for rank in range(3):
        own = {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "3"}
        meeting = {
            "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(store.port), "OMP_NUM_THREADS": "1",
            "TORCHELASTIC_USE_AGENT_STORE": "True",
        }  # fmt: skip
        processes.append(
            subprocess.Popen(
                [sys.executable, "-c", BUSY],
                env=os.environ | own | meeting,
                stderr=subprocess.PIPE,
                text=True,
            )
        )
    said = [process.communicate(timeout=200)[1] for process in processes]
    assert [process.returncode for process in processes] == [2, -signal.SIGKILL, 2]
    told = [text for text in said if "another process of this run has stopped" in text]
    assert len(told) == 1
    assert told[0].count("\n") == 1


def different_data(workers: Workers) -> None:
    facts = {"torch": "2.13", "data_fingerprint": "abc" if workers.rank == 0 else "xyz"}
    with pytest.raises(
        ConfigError, match=r"data_fingerprint is .abc. on process 0 and .xyz. on"
    ):
        workers.require_same(facts)
    workers.require_same({"torch": "2.13"})


def test_processes_with_other_data_or_versions_are_refused():
    on_ranks(2, different_data)


def no_room_on_one(workers: Workers) -> None:
    import torch

    rows = torch.ones(3, 2)
    if workers.rank == 1:

        class NoRoom(torch.Tensor):
            def new_empty(self, *_, **__):
                raise torch.OutOfMemoryError("no memory left")

        rows = rows.as_subclass(NoRoom)
    with pytest.raises(RuntimeError, match="out of memory for the embeddings"):
        workers._room(rows, 3)
    gathered = workers.gather(torch.full((1 + workers.rank, 2), float(workers.rank)), [1, 2])
    assert gathered.tolist() == [[0, 0], [1, 1], [1, 1]]


def test_a_lack_of_memory_on_one_process_is_agreed_on_before_the_next_exchange():
    on_ranks(2, no_room_on_one)


def test_a_missing_library_to_meet_over_is_refused(monkeypatch):
    monkeypatch.setattr("torch.distributed.is_nccl_available", lambda: False)
    with pytest.raises(ConfigError, match="no NCCL"):
        _require("nccl")
    with pytest.raises(ConfigError, match="nccl or gloo"):
        _require("mpi")


def test_connections_that_end_in_agreement_are_not_missed():
    ends = socket.socketpair(socket.AF_UNIX)
    missed = []
    one, other = (lifeline.Lifeline([end], False, lambda: missed.append(1)) for end in ends)
    one.leave()
    ends[0].close()
    time.sleep(0.2)
    assert not missed
    other.leave()


def test_alone_there_is_nobody_to_lose(monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    with join(Workers().device) as workers:
        assert workers.size == 1
        assert workers.texts("a") == ["a"]
        workers.require_same({"a": 1})
