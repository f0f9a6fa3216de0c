"""The token budget is on the safe side of what a forward pass keeps, and follows the machine's memory."""

import numpy as np
import pytest
import torch

from hybridbatch.model import Encoder
from hybridbatch.tokens import TokenArrays
from hybridbatch.training import budget
from hybridbatch.training.distributed import CPU
from tests.tiny import write_tiny_model


@pytest.mark.parametrize("length", [16, 100])
@pytest.mark.parametrize("family", ["bert", "modernbert"])
def test_the_estimate_covers_what_is_saved_for_the_backward_pass(tmp_path, family, length):
    encoder = Encoder.load(str(write_tiny_model(tmp_path / family, family, hidden=96, layers=3))).train()
    tokens = TokenArrays.of(np.random.default_rng(0).integers(5, 60, (2000 // length, length)).tolist())
    saved = {}
    held = []  # keeps storages alive, so that no address is used twice

    def keep(tensor):
        held.append(tensor)
        saved[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        encoder.embed(tokens)
    weights = {parameter.untyped_storage().data_ptr() for parameter in encoder.parameters()}
    measured = sum(size for address, size in saved.items() if address not in weights) / len(tokens.ids)
    estimate = budget.bytes_per_token(encoder.model.config, length)
    assert measured < estimate < 4 * measured


def test_the_budget_grows_with_memory_and_shrinks_with_processes(monkeypatch):
    config = type("C", (), {"hidden_size": 384, "num_hidden_layers": 12, "num_attention_heads": 12, "intermediate_size": 1536})  # fmt: skip
    found = []
    for gib, processes in ((16, 1), (32, 1), (32, 2)):
        monkeypatch.setattr(budget, "machine_memory", lambda gib=gib: gib << 30)
        found.append(budget.token_budget(config, 256, CPU, processes))
    assert found[0] == pytest.approx(found[2], abs=1)
    assert found[1] == pytest.approx(2 * found[0], abs=2)
    assert found[0] * budget.bytes_per_token(config, 256) < 16 << 30


def test_the_machine_has_memory():
    assert budget.machine_memory() > 1 << 28
