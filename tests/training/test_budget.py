"""The token budget is on the safe side of what a forward pass keeps, and follows the machine's
memory.
"""

import platform
import resource
from pathlib import Path

import numpy as np
import pytest
import torch

from hybridbatch.common.errors import ConfigError
from hybridbatch.common.memory import (
    PAGE,
    Memory,
    freed_memory_kept,
    is_out_of_memory,
    main_memory,
    return_freed_memory,
)
from hybridbatch.common.progress import SILENT
from hybridbatch.common.tokens import TokenArrays
from hybridbatch.model import Encoder
from hybridbatch.training import token_budget as budget
from tests.helpers.recording import RecordingReporter
from tests.helpers.tiny import write_tiny_model
from tests.helpers.trainers import child_processes, make_trainer


@pytest.mark.parametrize("length", [16, 100])
@pytest.mark.parametrize("family", ["bert", "modernbert"])
def test_the_estimate_covers_what_is_saved_for_the_backward_pass(tmp_path, family, length):
    encoder = Encoder.load(
        str(write_tiny_model(tmp_path / family, family, hidden=96, layers=3))
    ).train()
    tokens = TokenArrays.of(
        np.random.default_rng(0).integers(5, 60, (2000 // length, length)).tolist()
    )
    saved = {}
    held = []  # keeps storages alive, so that no address is used twice

    def keep(tensor):
        held.append(tensor)
        saved[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        encoder.embed(tokens)
    weights = {parameter.untyped_storage().data_ptr() for parameter in encoder.parameters()}
    measured = sum(size for address, size in saved.items() if address not in weights) / len(
        tokens.ids
    )
    estimate = budget.bytes_per_token(encoder.model.config, length)
    assert measured < estimate < 4 * measured


def test_what_a_pass_keeps_is_counted_without_its_weights(tmp_path):
    """On the CPU, where the estimate of the shape is known to be near."""
    encoder = Encoder.load(str(write_tiny_model(tmp_path / "m", hidden=96, layers=3))).train()
    tokens = TokenArrays.of(np.random.default_rng(0).integers(5, 60, (200, 50)).tolist())
    counted = budget.kept_bytes(encoder.embed, tokens)
    assert counted < budget.bytes_per_token(encoder.model.config, 50) < 4 * counted
    few = tokens.take(np.arange(10))
    assert budget.kept_bytes(encoder.embed, few) > counted  # with the weights


GB = 10**9


def gpu_budget(total: float, free: float, states: float, report=SILENT) -> int:
    gpu = budget.GpuMemory("Pretended", int(total * GB), int(free * GB))
    return budget.gpu_token_budget(gpu, 388e3, int(states * GB), int(states * GB), GB, report)


def test_a_gpus_budget_is_a_power_of_two_of_its_whole_memory():
    """XLM-R base on 80 GB: 1,024 pairs (145,000 tokens) take two passes."""
    assert gpu_budget(80, 79, 4.5) == 131_072
    assert gpu_budget(80, 78, 4.5) == gpu_budget(80, 79, 4.5)
    assert gpu_budget(24, 23, 4.5) == 32_768


def test_others_on_a_gpu_are_told_of_and_a_small_gpu_is_refused():
    recorder = RecordingReporter()
    assert gpu_budget(80, 20, 4.5, recorder) == 32_768
    assert "other processes use this GPU" in recorder.notes[0]
    with pytest.raises(ConfigError, match=r"has 6\.0 GB"):
        gpu_budget(6, 6, 5)


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"),
        RuntimeError(
            "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"
        ),
        RuntimeError("CUDA error: out of memory"),
        RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"),
        RuntimeError("std::bad_alloc"),
    ],
)
def test_every_way_to_say_that_memory_ran_out_is_understood(error):
    assert is_out_of_memory(error)
    assert not is_out_of_memory(RuntimeError("CUDA error: an illegal memory access"))
    assert not is_out_of_memory(ValueError("out of memory"))


SMALL = type("C", (), {"hidden_size": 384, "num_hidden_layers": 12, "num_attention_heads": 12, "intermediate_size": 1536})  # fmt: skip


def budget_of(monkeypatch, total: float, free: float, **options) -> int:
    """Tokens on a machine with so many GiB."""
    monkeypatch.setattr(
        budget, "main_memory", lambda: Memory(int(total * 2**30), int(free * 2**30))
    )
    return budget.token_budget(SMALL, 256, **options)


def test_the_budget_grows_with_memory_and_shrinks_with_processes(monkeypatch):
    one, double = budget_of(monkeypatch, 16, 15), budget_of(monkeypatch, 32, 30)
    assert double == pytest.approx(2 * one, abs=2)
    assert budget_of(monkeypatch, 32, 30, processes=2) == pytest.approx(one, abs=1)
    assert one * budget.bytes_per_token(SMALL, 256) < 16 << 30


def test_what_others_use_lowers_the_budget_only_where_memory_is_short(monkeypatch):
    plenty = budget_of(monkeypatch, 32, 31)
    assert budget_of(monkeypatch, 32, 16) == plenty
    short = budget_of(monkeypatch, 32, 6)
    assert short < plenty
    assert short * budget.bytes_per_token(SMALL, 256) < 6 << 30


def test_a_limit_counts_as_the_memory_of_each_process(monkeypatch):
    limited = budget_of(monkeypatch, 64, 60, limit=8 << 30)
    assert limited == budget_of(monkeypatch, 8, 8) < budget_of(monkeypatch, 64, 60)
    assert budget_of(monkeypatch, 64, 60, limit=8 << 30, processes=2) == limited
    assert budget_of(monkeypatch, 64, 60, limit=640 << 30) == budget_of(monkeypatch, 64, 60)


def test_a_batch_of_many_passes_takes_small_ones(monkeypatch):
    """Others keep their budget: it decides how a batch is cut, and with it the bits of a run."""
    whole = budget_of(monkeypatch, 24, 22)
    small = budget.TOKENS_PER_THREAD * torch.get_num_threads()
    assert small < whole
    assert budget_of(monkeypatch, 24, 22, tokens=8 * whole - 1) == whole
    assert budget_of(monkeypatch, 24, 22, tokens=8 * whole) == small
    assert budget_of(monkeypatch, 1, 1, tokens=1 << 20) == budget.LEAST


@pytest.mark.parametrize("memory", [24, 64, 256])
def test_a_large_batch_takes_small_passes_on_machines_of_any_size(monkeypatch, memory):
    tokens = 8192 * 2 * 8
    small = budget.TOKENS_PER_THREAD * torch.get_num_threads()
    assert budget_of(monkeypatch, memory, memory, tokens=tokens) == small
    assert budget_of(monkeypatch, 256, 256, tokens=tokens - 1) > 64 * small


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def test_this_machine_has_memory():
    found = main_memory()
    assert found.total > 1 << 28
    assert 0 < found.free <= found.total


def test_the_least_limit_of_all_containers_counts(tmp_path):
    machine = main_memory().total
    write(tmp_path / "proc/meminfo", "MemTotal: 99 kB\nMemAvailable:   300000 kB\n")
    assert main_memory(tmp_path) == Memory(machine, 300_000 << 10)
    write(tmp_path / "proc/self/cgroup", "0::/slice/job\n")
    for name, most, used in (
        ("", "max", 5 << 20),
        ("slice", 200 << 20, 90 << 20),
        ("slice/job", 250 << 20, 10 << 20),
    ):
        write(tmp_path / "sys/fs/cgroup" / name / "memory.max", f"{most}\n")
        write(tmp_path / "sys/fs/cgroup" / name / "memory.current", f"{used}\n")
        write(
            tmp_path / "sys/fs/cgroup" / name / "memory.stat",
            f"anon 7\ninactive_file {30 << 20}\n",
        )
    assert main_memory(tmp_path) == Memory(200 << 20, 140 << 20)


def test_containers_of_the_older_kind_count_too(tmp_path):
    write(tmp_path / "proc/self/cgroup", "5:cpu:/\n4:memory:/docker/a\n0::/\n")
    folder = tmp_path / "sys/fs/cgroup/memory/docker/a"
    write(folder / "memory.limit_in_bytes", f"{100 << 20}\n")
    write(folder / "memory.usage_in_bytes", f"{60 << 20}\n")
    assert main_memory(tmp_path) == Memory(100 << 20, 40 << 20)


def resident() -> int:
    """Bytes of main memory that this process has."""
    return PAGE * int(Path("/proc/self/statm").read_text().split()[1])


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="no glibc")
def test_freed_memory_is_kept_inside_the_block_only():
    return_freed_memory()  # of earlier tests, or it would be used first
    before = resident()
    with freed_memory_kept():
        torch.ones(32 << 20)  # 128 MiB, freed at once
        assert resident() - before > 100 << 20
    assert resident() - before < 28 << 20


def limited(run, *arguments) -> None:
    """`run` in a process whose address space may grow by 400 MiB only; it must return true."""
    process = child_processes().Process(target=run_limited, args=(run, *arguments))
    process.start()
    process.join(120)
    assert process.exitcode == 0


def run_limited(run, *arguments) -> None:
    torch.set_num_threads(1)
    own = PAGE * int(Path("/proc/self/statm").read_text().split()[0])
    resource.setrlimit(resource.RLIMIT_AS, (own + (400 << 20), own + (400 << 20)))
    assert run(*arguments)


def free_is_within_the_limit() -> bool:
    return main_memory().free <= 400 << 20


def test_limits_of_the_process_count():
    limited(free_is_within_the_limit)


SHORT = {"validate": False, "steps": 2, "batch_size": 20, "dropout": 0.0}


def train_hungrily(model: Path, run: Path, losses: list[float]) -> bool:
    trainer = make_trainer(model, run, **SHORT)
    embed = trainer.cache.embed

    def hungry(tokens):  # 1 MB a token, as large models take
        return embed(tokens) + 0 * torch.zeros(len(tokens.ids), 250_000).sum()

    trainer.cache.embed = hungry
    trainer.train()
    return trainer.cache.budget < 1 << 10 and np.allclose(trainer.losses, losses, atol=1e-5)


def test_memory_that_really_runs_out_halves_the_budget_and_changes_nothing_else(
    tiny_model, tmp_path
):
    whole = make_trainer(tiny_model, tmp_path / "whole", **SHORT)
    whole.train()
    limited(train_hungrily, tiny_model, tmp_path / "limited", whole.losses)
