"""Packed forward passes against the unmodified transformers model on padded batches."""

import itertools
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional as F
from transformers import AutoModel, AutoTokenizer

from hybridbatch.common.errors import DataError
from hybridbatch.common.tokens import TokenArrays
from hybridbatch.model import Encoder
from hybridbatch.model.packed import PACKABLE, Pack, length_groups
from tests.helpers.recording import RecordingReporter
from tests.helpers.tiny import write_tiny_model

TEXTS = [
    "a rather longer sentence about the rivers, mountains and lakes of a far country, with commas"
    " and 12 numbers",
    "kato",
    "mto mrefu wa afrika",
    "",
    "река",
    "wapi ziwa kubwa zaidi barani, na mji wa karibu ni upi? hilo ndilo swali",
    "kato",
    "five words in this one",
]
# families of their own attention, which only the padded way can run
PADDED = ("mpnet", "deberta-v2")


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("families")
    return {
        family: write_tiny_model(root / family, family)
        for family in (*sorted(PACKABLE), *PADDED)
    }


def load(folder: Path, **settings) -> Encoder:
    """An encoder that cuts none of TEXTS."""
    return Encoder.load(str(folder), max_query_tokens=128, max_passage_tokens=128, **settings)


def reference(
    folder: Path, texts: list[str], side: str, pooling: str = "mean"
) -> tuple[torch.nn.Module, torch.Tensor]:
    """The stock float64 model on one padded batch, pooled by hand: the model and its embeddings [n,
    D].
    """
    # its eager softmax is fp32: NaN on padding
    attention = "sdpa" if "modernbert" in str(folder) else "eager"
    model = AutoModel.from_pretrained(folder, attn_implementation=attention).double().eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    batch = tokenizer([f"{side}: {text}" for text in texts], padding=True, return_tensors="pt")
    hidden = model(
        input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]
    ).last_hidden_state
    mask = batch["attention_mask"][..., None].double()
    pooled = hidden[:, 0] if pooling == "cls" else (hidden * mask).sum(1) / mask.sum(1)
    return model, F.normalize(pooled, dim=1)


@pytest.mark.parametrize("family", [*sorted(PACKABLE), *PADDED])
@pytest.mark.parametrize("pooling", ["mean", "cls"])
def test_values_and_gradients_are_those_of_the_padded_model(
    folders: dict[str, Path], family: str, pooling: str
):
    encoder = load(folders[family], pooling=pooling).double()
    stock, expected = reference(folders[family], TEXTS, "query", pooling)
    embeddings = encoder.embed(encoder.tokenise(TEXTS, "query"))
    torch.testing.assert_close(embeddings, expected, rtol=0, atol=1e-10)

    weights = torch.linspace(-1, 1, expected.numel(), dtype=torch.float64).view_as(expected)
    (embeddings * weights).sum().backward()
    (expected * weights).sum().backward()
    gradients = {name: p.grad for name, p in encoder.model.named_parameters()}
    for name, parameter in stock.named_parameters():
        if parameter.grad is None:
            assert gradients[name] is None, name
        else:
            torch.testing.assert_close(
                gradients[name],
                parameter.grad,
                rtol=0,
                atol=1e-10,
                msg=lambda m, n=name: f"{n}: {m}",
            )


@pytest.mark.parametrize("family", sorted(PACKABLE))
def test_fp32_agrees_with_float64(folders: dict[str, Path], family: str):
    encoder = load(folders[family])
    _, expected = reference(folders[family], TEXTS, "passage")
    embeddings = encoder.embed(encoder.tokenise(TEXTS, "passage"))
    assert embeddings.dtype == torch.float32
    torch.testing.assert_close(embeddings.double(), expected, rtol=0, atol=1e-5)


def test_which_families_are_packed_is_announced(folders: dict[str, Path]):
    recorder = RecordingReporter()
    load(folders["xlm-roberta"], report=recorder)
    assert not [note for note in recorder.notes if "packed" in note]
    load(folders["mpnet"], report=recorder)
    (told,) = [note for note in recorder.notes if "packed" in note]
    assert "mpnet" in told


def test_packed_model_refuses_a_padded_call(folders: dict[str, Path]):
    encoder = load(folders["bert"])
    with pytest.raises(RuntimeError, match="set_attn_implementation"):
        encoder.model(input_ids=torch.ones(2, 4, dtype=torch.long))


def test_a_sequence_does_not_see_its_neighbours(folders: dict[str, Path]):
    encoder = load(folders["modernbert"]).double()
    tokens = encoder.tokenise(TEXTS, "query")
    together = encoder.embed(tokens)
    alone = torch.cat(
        [encoder.embed(tokens.take(np.array([row]))) for row in range(len(tokens))]
    )
    torch.testing.assert_close(together, alone, rtol=0, atol=1e-12)


@pytest.mark.parametrize("family", ["bert", "modernbert", "mpnet"])
def test_dropout_is_repeated_by_the_generators_state(folders: dict[str, Path], family: str):
    encoder = load(folders[family]).train()
    tokens = encoder.tokenise(TEXTS, "query")
    state = torch.get_rng_state()
    first = encoder.embed(tokens)
    other = encoder.embed(tokens)
    torch.set_rng_state(state)
    again = encoder.embed(tokens)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    encoder.eval()
    assert torch.equal(encoder.embed(tokens), encoder.embed(tokens))


def test_attention_dropout_keeps_the_mean(folders: dict[str, Path]):
    encoder = load(folders["bert"]).double()
    for module in encoder.model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    for layer in encoder.model.encoder.layer:
        layer.attention.self.dropout.p = 0.3
    tokens = encoder.tokenise(TEXTS, "query")
    with torch.no_grad():
        quiet = encoder.embed(tokens)
        encoder.train()
        draws = torch.stack([encoder.embed(tokens) for _ in range(200)])
    assert not torch.equal(draws[0], draws[1])
    torch.testing.assert_close(draws.mean(0), quiet, rtol=0, atol=0.05)


def test_bf16_is_close_and_differentiable(folders: dict[str, Path]):
    encoder = load(folders["xlm-roberta"])
    tokens = encoder.tokenise(TEXTS, "query")
    exact, rounded = encoder.embed(tokens), encoder.embed(tokens, precision="bf16")
    assert rounded.dtype == torch.float32
    assert not torch.equal(exact, rounded)
    torch.testing.assert_close(
        (exact * rounded).sum(1), torch.ones(len(TEXTS)), rtol=0, atol=1e-3
    )
    rounded[:, 0].sum().backward()
    gradient = encoder.model.get_input_embeddings().weight.grad
    assert gradient.dtype == torch.float32
    assert gradient.abs().sum() > 0


def test_gradient_checkpointing_changes_nothing(folders: dict[str, Path]):
    encoder = load(folders["bert"]).double().train()
    tokens = encoder.tokenise(TEXTS, "query")
    gradients = []
    for checkpointing in (False, True):
        if checkpointing:
            encoder.model.gradient_checkpointing_enable()
        encoder.zero_grad()
        torch.manual_seed(5)
        encoder.embed(tokens)[:, 0].sum().backward()
        gradients.append([p.grad.clone() for p in encoder.parameters() if p.grad is not None])
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-12)


@pytest.mark.parametrize("family", ["roberta", "mpnet"])
def test_fewer_embedding_rows_with_ids_to_match_give_the_same(
    folders: dict[str, Path], family: str
):
    encoder = load(folders[family]).double()
    tokens = encoder.tokenise(TEXTS, "query")
    expected = encoder.embed(tokens).detach()
    used = np.unique(tokens.ids)
    table = np.full(encoder.model.config.vocab_size, -1)
    table[used] = np.arange(len(used))
    rows = (
        encoder.model.get_input_embeddings()
        .weight[torch.from_numpy(used.astype(np.int64))]
        .detach()
    )
    encoder.model.set_input_embeddings(torch.nn.Embedding.from_pretrained(rows))
    assert torch.equal(encoder.embed(tokens.remap(table)), expected)


def test_no_sequences_give_no_embeddings_and_empty_ones_are_refused(folders: dict[str, Path]):
    encoder = load(folders["bert"])
    assert encoder.embed(TokenArrays.of([])).shape == (0, 32)
    with pytest.raises(DataError, match="sequence 1 "):
        encoder.embed(TokenArrays.of([[0, 2], [], [0, 5, 2]]))


def test_length_groups_are_the_cheapest_of_all_cuts():
    generator = np.random.default_rng(3)
    for _ in range(20):
        lengths = np.sort(generator.integers(1, 30, generator.integers(1, 8)))

        def total(sizes: list[int], lengths: np.ndarray = lengths) -> float:
            ends = np.cumsum(sizes)
            return sum(
                size * float(lengths[end - 1]) ** 2 + 60.0
                for size, end in zip(sizes, ends, strict=True)
            )

        chosen = length_groups(lengths, lambda length, count: count * float(length) ** 2, 60.0)
        assert sum(chosen) == len(lengths)
        cuts = itertools.chain.from_iterable(
            itertools.combinations(range(1, len(lengths)), k) for k in range(len(lengths))
        )
        best = min(total(list(np.diff([0, *cut, len(lengths)]))) for cut in cuts)
        assert total(chosen) == pytest.approx(best)


def test_padding_inside_attention_is_small_for_ordinary_lengths():
    generator = np.random.default_rng(0)
    lengths = np.sort(
        np.concatenate([generator.integers(6, 32, 64), generator.integers(20, 180, 64)])
    )
    pack = Pack(lengths, torch.device("cpu"))
    assert 4 <= len(pack.groups) <= 24
    assert len(pack.token_of_slot) < 1.2 * lengths.sum()
    assert len(pack.token_of_slot) < 0.5 * len(lengths) * lengths.max()


@pytest.mark.gpu
@pytest.mark.parametrize("dropout", [0.0, 0.1])
@pytest.mark.parametrize("family", ["bert", "xlm-roberta", "modernbert"])
def test_cuda_agrees_with_the_cpu(tmp_path: Path, family: str, dropout: float):
    folder = write_tiny_model(tmp_path / family, family, dropout=dropout)
    encoder = Encoder.load(str(folder))
    tokens = encoder.tokenise(TEXTS, "query")
    expected = encoder.embed(tokens).detach()
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device, or no -m gpu")
    encoder.to("cuda")
    torch.testing.assert_close(encoder.embed(tokens).cpu(), expected, rtol=0, atol=1e-4)
    encoder.train(dropout > 0)
    embeddings = encoder.embed(tokens, precision="bf16")
    embeddings[:, 0].sum().backward()
    assert torch.isfinite(encoder.model.get_input_embeddings().weight.grad).all()
    if not dropout:
        assert ((embeddings.cpu() * expected).sum(1) > 0.999).all()
