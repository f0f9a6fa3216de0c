"""Packed weights and fused attention: the same vectors to 1e-6, and plain modules afterwards."""

import gc

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
    half = encoder.encode(TEXTS, "passage", precision="bf16", kernels=PACKED)
    np.testing.assert_allclose(half, plain, atol=0.05)


@needs_packed
@pytest.mark.parametrize("kernels", [PLAIN, PACKED])
@pytest.mark.parametrize(("precision", "bound"), [("fp32", 1e-6), ("bf16", 0.01)])
def test_a_vector_depends_on_its_batch_only_within_the_stated_bound(
    tiny_model, kernels, precision, bound
):
    encoder = Encoder.load(str(tiny_model))
    options = {"precision": precision, "kernels": kernels}
    together = encoder.encode(TEXTS, "passage", **options)
    alone = [encoder.encode([text], "passage", **options)[0] for text in TEXTS]
    np.testing.assert_allclose(together, alone, atol=bound)
    backwards = encoder.encode(TEXTS[::-1], "passage", **options)[::-1]
    np.testing.assert_allclose(together, backwards, atol=bound)


@needs_packed
@pytest.mark.skipif(not inference._is_amd(), reason="oneDNN has other products on other CPUs")
def test_bits_of_packed_vectors_do_not_depend_on_the_batch(tiny_model):
    encoder = Encoder.load(str(tiny_model))
    rng = np.random.default_rng(0)
    texts = [" ".join(rng.choice(["the", "city", "mji", "mkuu"], n)) for n in range(1, 60)]
    options = {"precision": "fp32", "kernels": PACKED}
    together = encoder.encode(texts, "passage", **options)
    alone = [encoder.encode([text], "passage", **options)[0] for text in texts]
    np.testing.assert_array_equal(together, alone)
    for _ in range(5):
        some = rng.permutation(len(texts))[: rng.integers(2, len(texts))]
        found = encoder.encode([texts[i] for i in some], "passage", **options)
        np.testing.assert_array_equal(found, together[some])


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


def grow(weight):
    with torch.no_grad():
        weight.mul_(50)


def grow_unseen_by_torch(weight):
    weight.data.mul_(50)


@needs_packed
@pytest.mark.parametrize("change", [grow, grow_unseen_by_torch])
def test_weights_are_packed_once_and_anew_when_they_change(tiny_model, monkeypatch, change):
    encoder = Encoder.load(str(tiny_model))
    packed_layers = []
    pack = inference._PackedLinear.__init__

    def counted(packed, layer, *arguments, **options):
        packed_layers.append(layer)
        pack(packed, layer, *arguments, **options)

    monkeypatch.setattr(inference._PackedLinear, "__init__", counted)
    first = encoder.encode(TEXTS, "query", precision="fp32", kernels=PACKED)
    count = len(packed_layers)
    assert count == 2 * 7 + 1  # six linear layers and a GELU in each layer, and the pooler
    again = encoder.encode(TEXTS, "query", precision="fp32", kernels=PACKED)
    np.testing.assert_array_equal(first, again)
    assert len(packed_layers) == count
    change(encoder.model.encoder.layer[1].intermediate.dense.bias)
    change(encoder.model.encoder.layer[0].attention.self.query.weight)
    plain = encoder.encode(TEXTS, "query", precision="fp32")
    packed = encoder.encode(TEXTS, "query", precision="fp32", kernels=PACKED)
    assert len(packed_layers) == 2 * count
    assert np.abs(packed - first).max() > 1e-4
    np.testing.assert_allclose(packed, plain, atol=1e-6)


@needs_packed
def test_packed_weights_are_gone_with_their_encoder(tiny_model):
    encoder = Encoder.load(str(tiny_model))
    encoder.encode(TEXTS, "query", kernels=PACKED)
    assert encoder in inference._kept
    before = len(inference._kept)
    del encoder
    gc.collect()
    assert len(inference._kept) < before


@needs_packed
def test_the_product_applies_only_an_exact_gelu(tiny_model):
    encoder = Encoder.load(str(tiny_model))
    half = encoder.model.encoder.layer[0].intermediate
    assert inference._ends_in_gelu(half)
    half.intermediate_act_fn = torch.nn.ReLU()
    assert not inference._ends_in_gelu(half)
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
