"""Packed weights and fused attention: the same vectors to 1e-6, and plain modules afterwards."""

import numpy as np
import pytest
import torch

from hybridbatch.model import Encoder, inference
from hybridbatch.model.inference import PACKED, PLAIN, packs_weights, resolve_kernels
from hybridbatch.search.embeddings import EmbeddingStore

TEXTS = [" ".join(["the city", "mji mkuu"] * n) for n in (1, 2, 2, 3, 7, 11, 20)]
CPU = torch.device("cpu")
needs_packed = pytest.mark.skipif(not packs_weights(), reason="this torch packs no weights")


@needs_packed
def test_packed_vectors_are_the_plain_ones_to_a_millionth(tiny_model):
    encoder = Encoder.load(str(tiny_model))
    plain = encoder.encode(TEXTS, "passage", precision="fp32")
    packed = encoder.encode(TEXTS, "passage", precision="fp32", kernels=PACKED)
    np.testing.assert_allclose(packed, plain, atol=1e-6)
    alone = [encoder.encode([t], "passage", precision="fp32", kernels=PACKED)[0] for t in TEXTS]
    np.testing.assert_allclose(packed, alone, atol=1e-6)
    half = encoder.encode(TEXTS, "passage", precision="bf16", kernels=PACKED)
    np.testing.assert_allclose(half, plain, atol=0.05)


@needs_packed
def test_the_modules_are_plain_again_also_after_a_mistake(tiny_model, monkeypatch):
    encoder = Encoder.load(str(tiny_model))
    before = encoder.encode(TEXTS, "query", precision="fp32")
    encoder.encode(TEXTS, "query", precision="fp32", kernels=PACKED)
    assert not any("forward" in vars(module) for module in encoder.modules())
    np.testing.assert_array_equal(encoder.encode(TEXTS, "query", precision="fp32"), before)

    def fail(*_: object) -> None:
        raise RuntimeError("no memory")

    monkeypatch.setattr(encoder, "embed", fail)
    with pytest.raises(RuntimeError, match="no memory"):
        encoder.encode(TEXTS, "query", kernels=PACKED)
    assert not any("forward" in vars(module) for module in encoder.modules())
    assert not inference.fused_attention()


@needs_packed
def test_weights_that_were_trained_are_packed_anew(tiny_model):
    encoder = Encoder.load(str(tiny_model))
    encoder.encode(TEXTS, "query", kernels=PACKED)
    with torch.no_grad():
        for weight in encoder.model.parameters():
            weight.mul_(1.1)
    plain = encoder.encode(TEXTS, "query", precision="fp32")
    packed = encoder.encode(TEXTS, "query", precision="fp32", kernels=PACKED)
    np.testing.assert_allclose(packed, plain, atol=1e-6)


def test_kernels_fall_back_where_they_are_not_there_or_not_measured(monkeypatch):
    assert resolve_kernels("plain", CPU) == PLAIN
    assert resolve_kernels("packed", torch.device("cuda")) == PLAIN
    monkeypatch.setattr(inference, "_is_amd", lambda: False)
    assert resolve_kernels("auto", CPU) == PLAIN
    monkeypatch.setattr(inference, "_is_amd", lambda: True)
    monkeypatch.setattr(inference, "packs_weights", lambda: False)
    assert resolve_kernels("auto", CPU) == resolve_kernels("packed", CPU) == PLAIN
    monkeypatch.setattr(inference, "packs_weights", lambda: True)
    assert resolve_kernels("auto", CPU) == resolve_kernels("packed", CPU) == PACKED


@needs_packed
def test_vectors_of_other_kernels_are_kept_apart(tiny_model, tmp_path):
    encoder = Encoder.load(str(tiny_model))
    for kernels in (PLAIN, PACKED):
        EmbeddingStore(encoder, tmp_path, kernels=kernels).embed(TEXTS, "query")
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names[1] == f"{names[0]}-{PACKED}"
