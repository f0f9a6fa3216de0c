"""Compiled layers: the plain ones' numbers, replayed dropout, exact resume, and clear refusals."""

import shutil

import numpy as np
import pytest
import torch

from hybridbatch.common.errors import ConfigError
from hybridbatch.common.tokens import TokenArrays
from hybridbatch.model import Encoder
from hybridbatch.model.compiled import CompiledLayers, transformer_layers
from tests.helpers.tiny import write_tiny_model
from tests.helpers.trainers import make_trainer

needs_compiler = pytest.mark.skipif(
    shutil.which("g++") is None, reason="no C++ compiler for torch.compile"
)
TOKENS = TokenArrays.of(
    [np.random.default_rng(0).integers(4, 60, length).tolist() for length in (3, 5, 9, 30)]
)


@pytest.mark.parametrize("family", ["bert", "distilbert", "modernbert", "gte", "xlm-roberta"])
def test_the_layers_of_a_transformer_are_found(tmp_path, family):
    encoder = Encoder.load(str(write_tiny_model(tmp_path, family, layers=3)))
    layers = transformer_layers(encoder.model)
    assert len(layers) == 3
    assert len({type(layer) for layer in layers}) == 1


def test_a_compiler_that_fails_is_one_clear_line_and_leaves_the_model_as_it_was(tmp_path):
    encoder = Encoder.load(str(write_tiny_model(tmp_path, "bert")))
    expected = encoder.embed(TOKENS)
    layers = CompiledLayers(encoder.model)

    def broken(seed: int) -> torch.Tensor:
        raise RuntimeError("InvalidCxxCompiler: no working C++ compiler found\nmore\nlines")

    with pytest.raises(
        ConfigError, match=r"does not work here \(InvalidCxxCompiler: no working"
    ):
        layers.trial(broken)
    assert torch.equal(encoder.embed(TOKENS), expected)


def test_dropout_that_is_not_replayed_is_refused(tmp_path):
    encoder = Encoder.load(str(write_tiny_model(tmp_path, "bert", dropout=0.1))).train()
    layers = CompiledLayers(encoder.model)
    for layer in layers.layers:
        layer._compiled_call_impl = None  # the plain layers show the same fault
    torch.manual_seed(0)
    with pytest.raises(ConfigError, match="do not repeat their dropout masks"):
        layers.trial(lambda seed: encoder.embed(TOKENS))


@pytest.mark.slow
def test_a_machine_without_a_compiler_is_told_so_before_the_first_step(tmp_path, monkeypatch):
    from torch._inductor import config

    monkeypatch.setattr(config.cpp, "cxx", (None, "no-such-compiler"))
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "cache"))
    model = write_tiny_model(tmp_path / "model", "bert", hidden=24)
    with pytest.raises(ConfigError, match=r"does not work here .*compiler"):
        make_trainer(model, tmp_path / "run", compile=True)


@pytest.mark.slow
@needs_compiler
@pytest.mark.parametrize("family", ["bert", "modernbert", "gte"])
def test_compiled_training_has_the_plain_losses_and_resumes_with_the_same_bits(
    tmp_path, family
):
    model = write_tiny_model(tmp_path / "model", family, dropout=0.1)
    settings = {"steps": 4, "checkpoint_every": 2, "micro_tokens": 60, "validate": False}

    def trained(name: str, **changes):
        trainer = make_trainer(model, tmp_path / name, **(settings | changes))
        trainer.train()
        return trainer

    plain = trained("plain", dropout=0.0)
    same = trained("same", dropout=0.0, compile=True)
    np.testing.assert_allclose(same.losses, plain.losses, atol=1e-4)
    whole = trained("compiled", compile=True)
    again = make_trainer(model, tmp_path / "compiled", compile=True, **settings)
    again.resume(2)
    again.train()
    assert again.losses == whole.losses
    assert again.gradient_norms == whole.gradient_norms
    trained_encoder = again.finish()
    assert set(trained_encoder.state_dict()) == set(plain.finish().state_dict())
    assert trained_encoder.compiled is None
