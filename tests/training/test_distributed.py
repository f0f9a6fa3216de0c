"""Several processes with a share of each batch compute what one process with the whole batch
computes.
"""

import os
import socket
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from hybridbatch.common.device import resolve_device
from hybridbatch.common.distributed import CPU, join
from hybridbatch.common.errors import ConfigError, Interrupted
from hybridbatch.model import Encoder, shared
from hybridbatch.model.shared import SharedEncoder
from hybridbatch.training import checkpoint
from tests.helpers.trainers import child_processes, equal, make_trainer, weights

CHANGES = {
    "double": True,
    "hard_negatives": 1,
    "symmetric": True,
    "learn_temperature": True,
    "steps": 4,
    "batch_size": 7,
}


def on_ranks(size: int, target, *arguments) -> None:
    """Run ``target(*arguments)`` in `size` processes that find each other as under torchrun."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    context = child_processes()
    processes = [
        context.Process(target=on_rank, args=(rank, size, port, target, arguments), daemon=True)
        for rank in range(size)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(120)
    assert [process.exitcode for process in processes] == [0] * size


def on_rank(rank: int, size: int, port: int, target, arguments) -> None:
    torch.set_num_threads(1)
    os.environ |= {
        "RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(size), "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
    }  # fmt: skip
    with join(CPU) as workers:
        target(workers, *arguments)


def first_gradients(workers, model: Path, out: Path, changes: dict) -> None:
    """Gradients of the first step before clipping, its loss, and the loss after three more, saved
    by every rank.
    """
    trainer = make_trainer(
        model, out / f"run-{workers.size}", workers=workers, dropout=0.0, **CHANGES, **changes
    )
    step = trainer.optimizer.step
    found: dict[str, torch.Tensor] = {}

    def keep(number: int, norm: float) -> None:
        if number == 0:
            named = trainer.optimizer.named.items()
            found.update({name: p.grad.clone() for name, p in named if p.grad is not None})
        step(number, norm)

    trainer.optimizer.step = keep
    trainer.train()
    losses = [*trainer.losses, *(entry["loss"] for entry in trainer.progress.validations)]
    save_file(
        found | {"losses": torch.tensor(losses)},
        out / f"{workers.size}-{workers.rank}.safetensors",
    )


@pytest.mark.parametrize("changes", [{}, {"micro_tokens": 60}, {"lora_rank": 3}])
def test_gradients_and_losses_equal_those_of_one_process(tiny_model, tmp_path, changes):
    if "lora_rank" in changes:
        pytest.importorskip("peft", reason="LoRA needs the extra hybridbatch[lora]")
    for size in (1, 2, 4):  # 7 pairs: uneven shares
        on_ranks(size, first_gradients, tiny_model, tmp_path, changes)
    alone = load_file(tmp_path / "1-0.safetensors")
    assert "objective.log_temperature" in alone
    for size in (2, 4):
        for rank in range(size):
            shared = load_file(tmp_path / f"{size}-{rank}.safetensors")
            assert shared.keys() == alone.keys()
            for name, value in alone.items():
                torch.testing.assert_close(
                    shared[name], value, rtol=0, atol=1e-9, msg=f"{size} {rank} {name}"
                )


def interrupted_and_resumed(workers, model: Path, out: Path) -> None:
    """A whole run with dropout, and one that is stopped by a signal to the second process alone and
    resumed.
    """
    whole = make_trainer(model, out / "whole", workers=workers)
    whole.train()
    first = make_trainer(model, out / "cut", workers=workers)
    take_step = first._step

    def interrupted(*arguments) -> None:
        take_step(*arguments)
        if workers.rank == 1 and first.progress.step == 3:
            os.kill(os.getpid(), 15)

    first._step = interrupted
    try:
        first.train()
    except Interrupted:
        workers.wait()
    else:
        raise AssertionError("not interrupted")
    second = make_trainer(model, out / "cut", workers=workers)
    second.resume(checkpoint.newest(out / "cut", second.report))
    assert second.progress.step == 3
    second.train()
    workers.wait()  # for the first process's last checkpoint
    assert equal(
        weights(second) if workers.leads else {}, weights(whole) if workers.leads else {}
    )
    state = {
        name: value
        for name, value in second.optimizer.state().items()
        if not name.startswith("step.")
    }
    save_file(state, out / f"state-{workers.rank}.safetensors")


def test_a_resumed_run_of_two_processes_ends_with_the_same_bits_on_both(tiny_model, tmp_path):
    on_ranks(2, interrupted_and_resumed, tiny_model, tmp_path)
    assert equal(
        load_file(tmp_path / "state-0.safetensors"), load_file(tmp_path / "state-1.safetensors")
    )


def dropout_seeds(workers, model: Path, out: Path) -> None:
    trainer = make_trainer(model, out, workers=workers)
    (out / f"seed-{workers.rank}").write_text(str(trainer._dropout_seed(0, 0)))


def test_dropout_differs_from_process_to_process(tiny_model, tmp_path):
    on_ranks(2, dropout_seeds, tiny_model, tmp_path)
    assert (tmp_path / "seed-0").read_text() != (tmp_path / "seed-1").read_text()


def out_of_memory_on_one(workers, model: Path, out: Path) -> None:
    trainer = make_trainer(
        model, out / f"run-{workers.rank}", workers=workers, validate=False, micro_tokens=120
    )
    embed = trainer.cache.embed

    def greedy(tokens):
        if workers.rank == 1 and len(tokens.ids) > 50 and torch.is_grad_enabled():
            raise torch.OutOfMemoryError("no memory left")
        return embed(tokens)

    trainer.cache.embed = greedy
    trainer.train()
    (out / f"budget-{workers.rank}").write_text(str(trainer.cache.budget))


def test_memory_that_runs_out_on_one_process_does_not_hang_the_others(tiny_model, tmp_path):
    on_ranks(2, out_of_memory_on_one, tiny_model, tmp_path)
    budgets = [int((tmp_path / f"budget-{rank}").read_text()) for rank in range(2)]
    assert all(16 <= budget <= 60 for budget in budgets)


def test_unknown_and_absent_devices_are_refused():
    assert resolve_device("cpu") == CPU
    for name in ("gpu0", "meta", "xpu", "hpu:0", "cpu:3"):
        with pytest.raises(ConfigError, match="not a device"):
            resolve_device(name)
    if not torch.cuda.is_available():
        with pytest.raises(ConfigError, match="sees no GPU"):
            resolve_device("cuda")
        assert resolve_device("auto") == CPU


def read_together(workers, model: Path, out: Path) -> None:
    """Embed texts that need several exchanges."""
    shared.BLOCK = 8
    texts = [f"kato {'mto ' * (number % 5)}{number}" for number in range(21)]
    found = SharedEncoder(Encoder.load(str(model)), workers, "fp32").encode(texts, "query")
    assert (found is None) == (workers.rank > 0)
    if found is not None:
        np.save(out / f"{workers.size}.npy", found)


def test_a_teacher_reads_its_texts_with_all_processes(tiny_model, tmp_path):
    for size in (1, 2):
        on_ranks(size, read_together, tiny_model, tmp_path)
    alone, both = (np.load(tmp_path / f"{size}.npy") for size in (1, 2))
    np.testing.assert_allclose(both, alone, atol=1e-6)


def run_out_in_validation(workers, model: Path, out: Path) -> None:
    """The second process has no memory for the validation loss."""
    trainer = make_trainer(model, out / f"run-{workers.size}", workers=workers, steps=2)
    if workers.rank == 1:
        plain = trainer.objective.forward

        def forward(queries, passages, keys):
            if not torch.is_grad_enabled():
                raise RuntimeError("CUDA out of memory. Tried to allocate 2 GiB")
            return plain(queries, passages, keys)

        trainer.objective.forward = forward
    with pytest.raises(ConfigError, match="out of memory in the validation loss of"):
        trainer.train()


def test_all_processes_stop_where_one_has_no_memory_for_the_validation_loss(
    tiny_model, tmp_path
):
    on_ranks(2, run_out_in_validation, tiny_model, tmp_path)


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"WORLD_SIZE": "two"}, "WORLD_SIZE = 'two'"),
        ({"WORLD_SIZE": "0"}, "WORLD_SIZE = '0'"),
        ({"WORLD_SIZE": "2"}, "cannot meet over gloo .*RANK"),
        ({"WORLD_SIZE": "2", "RANK": "0"}, "cannot meet over gloo .*MASTER_ADDR"),
        (
            {"WORLD_SIZE": "2", "RANK": "0", "MASTER_ADDR": "localhost", "MASTER_PORT": "abc"},
            "cannot meet over gloo",
        ),
    ],
)
def test_processes_that_cannot_meet_are_told_to_start_with_torchrun(
    monkeypatch, variables, message
):
    for name in ("WORLD_SIZE", "RANK", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError, match=f"{message}.*torchrun"), join(CPU):
        pass
