"""The work of a step is what torch's own counter finds; the peak is a rate of this machine."""

import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from hybridbatch.common.files import read_json
from hybridbatch.common.peak import measured_peak
from hybridbatch.common.tokens import TokenArrays
from hybridbatch.data.store.writer import write_store
from hybridbatch.model import Encoder
from hybridbatch.training.flops import Work
from hybridbatch.training.lora import Adapters
from hybridbatch.training.settings import TrainConfig
from hybridbatch.training.train import train
from tests.helpers.parallel import rows
from tests.helpers.tiny import write_tiny_model

CPU = torch.device("cpu")


def counted(encoder: Encoder, lengths: np.ndarray) -> int:
    """Operations of a forward and a backward pass, as torch counts them."""
    rng = np.random.default_rng(0)
    tokens = TokenArrays.of([rng.integers(5, 60, length).tolist() for length in lengths])
    with FlopCounterMode(display=False) as counter:
        encoder.embed(tokens).sum().backward()
    return counter.get_total_flops()


@pytest.mark.parametrize("family", ["bert", "xlm-roberta", "distilbert"])
@pytest.mark.parametrize("lora", [False, True])
def test_the_work_of_sequences_without_padding_is_that_of_torchs_counter(
    tmp_path, family, lora
):
    encoder = Encoder.load(str(write_tiny_model(tmp_path / "model", family)))
    if lora:
        pytest.importorskip("peft", reason="LoRA needs the extra hybridbatch[lora]")
        Adapters(encoder, 4, 8.0, 13)
        # so that the first layer's input has a gradient
        encoder.model.embeddings.LayerNorm.weight.requires_grad_()
    encoder.model.pooler = None  # works on one token, and its result is not used
    lengths = np.full(12, 17)
    assert Work(encoder.model).of(lengths) == counted(encoder, lengths)


def test_a_window_bounds_the_scores(tmp_path):
    encoder = Encoder.load(
        str(write_tiny_model(tmp_path / "model", "modernbert", hidden=32, layers=2))
    )
    work, lengths = Work(encoder.model), np.array([100, 6])
    seen = 9  # 4 tokens to each side, and itself
    scores = (100 * 100 + 6 * 6) + (100 * seen + 6 * 6)  # one full layer, one with a window
    assert work.of(lengths) == work.per_token * 106 + 12 * 32 * scores


def test_the_peak_is_a_rate_and_leaves_the_random_state_alone():
    before = torch.get_rng_state()
    assert 1e8 < measured_peak(CPU, "fp32", torch.get_num_threads()) < 1e16
    assert torch.equal(torch.get_rng_state(), before)


def test_train_json_has_the_share_of_peak(tiny_model, tmp_path):
    write_store(tmp_path / "data", [*rows(24), *rows(9, "validation")], provenance={})
    run = train(
        TrainConfig(
            data=str(tmp_path / "data"), model=str(tiny_model), out=tmp_path / "run", steps=3, batch_size=6,
            precision="fp32",
        )
    )  # fmt: skip
    rate = read_json(run / "train.json")["throughput"]
    assert (
        rate["share_of_peak"]
        == rate["operations_per_second"] / rate["peak_operations_per_second"]
    )
    assert 0 < rate["share_of_peak"] < 1
    done = rate["operations_per_second"] * rate["seconds"]
    assert done >= Work(Encoder.load(str(tiny_model)).model).per_token * rate["tokens"]
    steps = (run / "steps.jsonl").read_text().splitlines()
    assert any('"of peak"' in line for line in steps)
