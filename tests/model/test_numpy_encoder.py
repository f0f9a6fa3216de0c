"""Queries without torch: the vectors of the encoder, for as long as its files are the same."""

import os
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from hybridbatch.common.errors import DataError
from hybridbatch.common.integrity import forget
from hybridbatch.model import Encoder
from hybridbatch.model.numpy_encoder import FEW, PROBES, NumpyEncoder, recall, remember
from tests.helpers.tiny import write_tiny_model

SETTINGS = {"pooling": "auto", "device": "auto"}


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HYBRIDBATCH_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def saved(folder: Path, family: str = "bert", **options: object) -> Encoder:
    """A model in a folder that hybridbatch wrote."""
    write_tiny_model(folder / "start", family)
    Encoder.load(str(folder / "start"), **options).save(folder / "model", "a card")
    return Encoder.load(str(folder / "model"))


def admitted(encoder: Encoder, **settings: object) -> NumpyEncoder | None:
    return remember(
        encoder, encoder.name, SETTINGS | settings,
        precision="fp32", kernels="plain", fingerprint=encoder.fingerprint(),
    )  # fmt: skip


def recalled(encoder: Encoder, **settings: object) -> NumpyEncoder | None:
    return recall(encoder.name, SETTINGS | settings, lambda: encoder)


@pytest.mark.parametrize("family", ["bert", "roberta", "xlm-roberta", "camembert"])
@pytest.mark.parametrize("pooling", ["mean", "cls", "lasttoken"])
def test_vectors_are_those_of_the_encoder(tmp_path: Path, family: str, pooling: str) -> None:
    encoder = saved(tmp_path, family, pooling=pooling, query_prompt="ask: ")
    assert admitted(encoder)
    found = recalled(encoder)
    assert found is not None
    assert (found.fingerprint(), found.dimension) == (encoder.fingerprint(), encoder.dimension)
    expected = encoder.encode(PROBES, "query", precision="fp32")
    got = found.encode(PROBES, "query")
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, expected, atol=1e-6)


def test_all_but_few_queries_go_to_the_encoder(tmp_path: Path) -> None:
    encoder = saved(tmp_path)
    admitted(encoder)
    loads = []
    found = recall(encoder.name, SETTINGS, lambda: loads.append(1) or encoder)
    assert found is not None
    found.encode(["a"], "query")
    assert loads == []
    many = [f"query {number}" for number in range(FEW + 1)]
    np.testing.assert_array_equal(
        found.encode(many, "query"), encoder.encode(many, "query", precision="fp32")
    )
    np.testing.assert_array_equal(
        found.encode(["a"], "passage"), encoder.encode(["a"], "passage", precision="fp32")
    )
    assert loads == [1]


def test_a_model_is_forgotten_when_a_file_or_a_setting_changes(tmp_path: Path) -> None:
    encoder = saved(tmp_path)
    assert recalled(encoder) is None
    admitted(encoder)
    assert recalled(encoder)
    assert recalled(encoder, pooling="cls") is None
    settings = tmp_path / "model" / "1_Pooling" / "config.json"
    os.utime(settings)
    assert recalled(encoder) is None
    admitted(encoder)
    assert recalled(encoder)
    (tmp_path / "model" / "modules.json").unlink()
    assert recalled(encoder) is None


def test_damage_that_leaves_size_and_time_alone_is_seen(tmp_path: Path) -> None:
    encoder = saved(tmp_path)
    admitted(encoder)
    weights = tmp_path / "model" / "model.safetensors"
    state, content = weights.stat(), bytearray(weights.read_bytes())
    content[-9] ^= 1
    weights.write_bytes(content)
    os.utime(weights, ns=(state.st_atime_ns, state.st_mtime_ns))
    forget()  # what this process has compared
    assert recalled(encoder) is None


def test_other_families_and_changed_tokenizers_are_not_admitted(tmp_path: Path) -> None:
    assert admitted(saved(tmp_path / "a", "distilbert")) is None
    encoder = saved(tmp_path / "b")
    encoder.tokenizer.backend_tokenizer.add_tokens(["the"])
    assert admitted(encoder) is None


def test_wrong_vectors_are_not_admitted(tmp_path: Path) -> None:
    encoder = saved(tmp_path)
    encoder.model.encoder.layer[1].output.dense.bias.data[0] += 1  # not as in the file
    assert admitted(encoder) is None


def test_the_encoder_refuses_what_cannot_be_embedded(tmp_path: Path) -> None:
    encoder = saved(tmp_path)
    found = admitted(encoder)
    assert found is not None
    with pytest.raises(DataError, match="not valid Unicode"):
        found.encode(["\ud800"], "query")
    nothing = SimpleNamespace(encode=lambda _: SimpleNamespace(ids=[]))
    assert found._weights is not None
    found._weights.tokenizer = nothing
    expected = encoder.encode(["a"], "query", precision="fp32")
    np.testing.assert_array_equal(found.encode(["a"], "query"), expected)
