"""The encoder: tokenising, encoding, saving, loading, and what it refuses."""

import json
import shutil
import threading
import unicodedata
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from sentence_transformers import SentenceTransformer
from sentence_transformers import models as st_models
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import AutoModel, AutoTokenizer, PreTrainedTokenizerFast

from hybridbatch.common.device import resolve_precision
from hybridbatch.common.errors import DataError, ModelError, OutputError
from hybridbatch.model import Encoder
from hybridbatch.model.encoder import TOKENS_PER_BATCH
from tests.helpers.recording import RecordingReporter
from tests.helpers.tiny import write_tiny_model

QUERIES = ["wapi mto mrefu", "which lake is deepest?", "", "где река", "wapi mto mrefu"]
PASSAGES = ["the lake is 1,642 meters deep and very old.", "mto", "река течет на север, далеко"]


@pytest.fixture
def folder(tiny_model: Path, tmp_path: Path) -> Path:
    """A copy of the tiny model that a test may damage."""
    return Path(shutil.copytree(tiny_model, tmp_path / "copied"))


def edit(path: Path, **changes) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


# What the encoder computes


def test_embeddings_are_those_of_sentence_transformers(tiny_model: Path):
    encoder, peer = (
        Encoder.load(str(tiny_model)),
        SentenceTransformer(str(tiny_model), device="cpu"),
    )
    for side, texts in (("query", QUERIES), ("passage", PASSAGES)):
        expected = peer.encode([f"{side}: {text}" for text in texts], normalize_embeddings=True)
        embeddings = encoder.encode(texts, side, precision="fp32")
        assert embeddings.dtype == np.float32
        np.testing.assert_allclose(embeddings, expected, atol=1e-5)


def test_many_batches_keep_the_order(tiny_model: Path, monkeypatch: pytest.MonkeyPatch):
    encoder = Encoder.load(str(tiny_model))
    texts = [("mto " * (1 + i * 7 % 13)) + str(i % 50) for i in range(120)]
    whole = encoder.encode(texts, "passage", precision="fp32")
    monkeypatch.setitem(TOKENS_PER_BATCH, "cpu", 100)
    np.testing.assert_allclose(
        encoder.encode(texts, "passage", precision="fp32"), whole, atol=1e-6
    )
    alone = np.concatenate(
        [encoder.encode([text], "passage", precision="fp32") for text in texts[:20]]
    )
    np.testing.assert_allclose(whole[:20], alone, atol=1e-6)


def test_each_distinct_text_is_encoded_once(tiny_model: Path, monkeypatch: pytest.MonkeyPatch):
    encoder, seen = Encoder.load(str(tiny_model)), []
    embed = encoder.embed
    monkeypatch.setattr(
        encoder,
        "embed",
        lambda tokens, precision: seen.append(len(tokens)) or embed(tokens, precision),
    )
    vectors = encoder.encode(["a", "b", "a", "c", "b"], "query")
    assert sum(seen) == 3
    assert np.array_equal(vectors[0], vectors[2])
    assert encoder.encode([], "query").shape == (0, encoder.dimension)


def test_encoding_leaves_the_training_mode_and_has_no_dropout(tiny_model: Path):
    encoder = Encoder.load(str(tiny_model)).train()
    first = encoder.encode(QUERIES, "query")
    assert np.array_equal(first, encoder.encode(QUERIES, "query"))
    assert encoder.training
    assert encoder.model.training


def test_texts_are_brought_to_nfc(tiny_model: Path):
    encoder = Encoder.load(str(tiny_model))
    composed, decomposed = "größe ñandú", unicodedata.normalize("NFD", "größe ñandú")
    assert np.array_equal(
        encoder.tokenise([composed], "query").ids, encoder.tokenise([decomposed], "query").ids
    )


def test_tokens_have_prompt_special_tokens_and_the_sides_length(tiny_model: Path):
    encoder = Encoder.load(
        str(tiny_model), query_prompt="q> ", max_query_tokens=9, max_passage_tokens=20
    )
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    tokens = encoder.tokenise(["mto", "mto " * 50], "query")
    assert tokens[0].tolist() == tokenizer("q> mto").input_ids
    full = tokenizer("q> " + "mto " * 50).input_ids
    assert tokens[1].tolist() == [*full[:8], full[-1]]
    assert encoder.tokenise(["mto " * 50], "passage").lengths.tolist() == [20]


def test_a_text_of_a_megabyte_is_cut(tiny_model: Path):
    encoder = Encoder.load(str(tiny_model))
    tokens = encoder.tokenise(["mto mrefu " * 100_000, "x" * 1_000_000, "kato"], "passage")
    assert tokens.lengths[:2].tolist() == [130, 130]  # all of its positions
    assert np.isfinite(encoder.encode(["x" * 1_000_000], "passage")).all()


def test_length_beyond_the_positions_is_capped_with_a_note(tmp_path: Path):
    for family, positions in (
        ("bert", 130),
        ("xlm-roberta", 128),
        ("mpnet", 128),
        ("modernbert", 130),
    ):
        report = RecordingReporter()
        encoder = Encoder.load(str(write_tiny_model(tmp_path / family, family)), report=report)
        assert encoder.max_tokens == {"query": 64, "passage": positions}
        assert any(f"has {positions} positions" in note for note in report.notes)
        assert np.isfinite(encoder.encode(["mto " * 500], "passage")).all()


def test_bad_unicode_is_named_by_index(tiny_model: Path):
    with pytest.raises(DataError, match="text 1 is not valid Unicode"):
        Encoder.load(str(tiny_model)).tokenise(["fine", "lone \ud800 surrogate"], "query")


def test_damaged_weights_are_named_with_the_text(tiny_model: Path):
    encoder = Encoder.load(str(tiny_model))
    with torch.no_grad():
        encoder.model.get_input_embeddings().weight[:] = float("nan")
    with pytest.raises(ModelError, match=r"2 of 2 embeddings are not finite numbers.*'mto'"):
        encoder.encode(["mto", "kato"], "query")


def test_precision_auto_is_a_known_one():
    assert resolve_precision("auto", torch.device("cpu")) in ("fp32", "bf16")
    assert resolve_precision("fp32", torch.device("cpu")) == "fp32"


def test_encoding_from_threads_is_safe_for_the_weights(tiny_model: Path):
    encoder = Encoder.load(str(tiny_model))
    expected, results = encoder.encode(PASSAGES, "passage", precision="fp32"), []
    threads = [
        threading.Thread(
            target=lambda: results.append(encoder.encode(PASSAGES, "passage", precision="fp32"))
        )
        for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 3
    assert all(np.array_equal(result, expected) for result in results)


# Saving


@pytest.mark.parametrize("family", ["bert", "xlm-roberta", "distilbert", "modernbert", "mpnet"])
@pytest.mark.parametrize("pooling", ["mean", "cls"])
def test_saved_folder_gives_the_same_everywhere(tmp_path: Path, family: str, pooling: str):
    encoder = Encoder.load(
        str(write_tiny_model(tmp_path / "start", family)),
        pooling=pooling,
        query_prompt="frage: ",
        passage_prompt="text: ",
    )
    encoder.tokenise(["leaves its truncation behind"], "query")
    saved = tmp_path / "saved"
    encoder.save(saved, "# A card\n")
    queries, passages = (encoder.encode(texts, side, precision="fp32") for texts, side in
                         ((QUERIES, "query"), (PASSAGES, "passage")))  # fmt: skip

    peer = SentenceTransformer(str(saved), device="cpu")
    np.testing.assert_allclose(peer.encode_query(QUERIES), queries, atol=1e-5)
    np.testing.assert_allclose(peer.encode_document(PASSAGES), passages, atol=1e-5)
    assert peer.max_seq_length == 128  # as the model said before

    model, tokenizer = AutoModel.from_pretrained(saved), AutoTokenizer.from_pretrained(saved)
    batch = tokenizer([f"frage: {text}" for text in QUERIES], padding=True, return_tensors="pt")
    with torch.no_grad():
        hidden = model(
            input_ids=batch.input_ids, attention_mask=batch.attention_mask
        ).last_hidden_state
    mask = batch.attention_mask[..., None]
    pooled = hidden[:, 0] if pooling == "cls" else (hidden * mask).sum(1) / mask.sum(1)
    np.testing.assert_allclose(
        torch.nn.functional.normalize(pooled, dim=1).numpy(), queries, atol=1e-5
    )
    assert len(tokenizer("mto " * 200).input_ids) > 128

    again = Encoder.load(str(saved))
    assert (again.pooling, again.prompts) == (
        pooling,
        {"query": "frage: ", "passage": "text: "},
    )
    assert again.fingerprint() == encoder.fingerprint()
    np.testing.assert_array_equal(again.encode(QUERIES, "query", precision="fp32"), queries)
    assert (saved / "README.md").read_text() == "# A card\n"
    assert "hybridbatch_packed" not in (saved / "config.json").read_text()


def test_saving_replaces_an_older_folder(tiny_model: Path, tmp_path: Path):
    encoder = Encoder.load(str(tiny_model))
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "old.txt").write_text("old")
    encoder.save(tmp_path / "out", "card")
    assert not (tmp_path / "out" / "old.txt").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_full_disk_leaves_nothing(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    from safetensors import SafetensorError

    encoder = Encoder.load(str(tiny_model))

    def full(*_, **__):
        raise SafetensorError(
            'IoError(Os { code: 28, kind: StorageFull, message: "No space left on device" })'
        )

    monkeypatch.setattr(encoder.model, "save_pretrained", full)
    with pytest.raises(
        OutputError, match=r"out: the weights cannot be written .*No space left"
    ):
        encoder.save(tmp_path / "out", "card")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "setting", ["weights", "query_prompt", "pooling", "max_query_tokens", "tokenizer"]
)
def test_fingerprint_sees_everything_that_decides_an_embedding(folder: Path, setting: str):
    before = Encoder.load(str(folder)).fingerprint()
    assert Encoder.load(str(folder)).fingerprint() == before
    changes: dict = {"query_prompt": "Q", "pooling": "cls", "max_query_tokens": 32}
    if setting == "weights":
        weights = load_file(folder / "model.safetensors")
        weights["embeddings.LayerNorm.bias"][0] += 1e-3
        save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    if setting == "tokenizer":
        tokenizer = json.loads((folder / "tokenizer.json").read_text())
        tokenizer["model"]["vocab"][20][1] -= 1.0
        (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    settings = {setting: changes[setting]} if setting in changes else {}
    assert Encoder.load(str(folder), **settings).fingerprint() != before


# What a model folder may say


def test_a_dense_layer_after_pooling_is_part_of_the_encoder(tiny_model: Path, tmp_path: Path):
    """LaBSE's shape: transformer, CLS pooling, dense with tanh, norm."""
    transformer = st_models.Transformer(str(tiny_model))
    peer = SentenceTransformer(
        modules=[
            transformer,
            st_models.Pooling(32, pooling_mode="cls"),
            st_models.Dense(32, 24, activation_function=torch.nn.Tanh()),
            st_models.Normalize(),
        ],
        device="cpu",
    )
    peer.save(str(tmp_path / "labse"))
    encoder = Encoder.load(str(tmp_path / "labse"), query_prompt="", passage_prompt="")
    assert (encoder.dimension, encoder.pooling) == (24, "cls")
    expected = peer.encode(PASSAGES)
    np.testing.assert_allclose(
        encoder.encode(PASSAGES, "passage", precision="fp32"), expected, atol=1e-5
    )

    encoder.embed(encoder.tokenise(PASSAGES, "passage"))[:, 0].sum().backward()
    assert all(parameter.grad is not None for parameter in encoder.head.parameters())
    with torch.no_grad():
        encoder.head[0].linear.weight.mul_(1.5)
    trained = encoder.encode(PASSAGES, "passage", precision="fp32")
    assert not np.allclose(trained, expected, atol=1e-3)
    encoder.save(tmp_path / "saved", "card")
    saved = SentenceTransformer(str(tmp_path / "saved"), device="cpu")
    np.testing.assert_allclose(saved.encode_document(PASSAGES), trained, atol=1e-5)
    again = Encoder.load(str(tmp_path / "saved"))
    assert again.fingerprint() == encoder.fingerprint()


def test_dense_weights_of_the_older_format(tiny_model: Path, tmp_path: Path):
    peer = SentenceTransformer(
        modules=[
            st_models.Transformer(str(tiny_model)),
            st_models.Pooling(32),
            st_models.Dense(32, 8),
        ],
        device="cpu",
    )
    peer.save(str(tmp_path / "m"), safe_serialization=False)
    assert list((tmp_path / "m" / "2_Dense").glob("*.bin"))
    encoder = Encoder.load(str(tmp_path / "m"), passage_prompt="")
    expected = peer.encode(PASSAGES, normalize_embeddings=True)
    np.testing.assert_allclose(
        encoder.encode(PASSAGES, "passage", precision="fp32"), expected, atol=1e-5
    )


@pytest.mark.parametrize("stated", ["new", "legacy"])
def test_pooling_is_read_from_either_format(folder: Path, stated: str):
    config = {"pooling_mode": "cls"} if stated == "new" else {"pooling_mode_cls_token": True}
    (folder / "1_Pooling" / "config.json").write_text(
        json.dumps({"word_embedding_dimension": 32} | config)
    )
    assert Encoder.load(str(folder)).pooling == "cls"
    assert Encoder.load(str(folder), pooling="mean").pooling == "mean"


def test_unknown_pooling_needs_a_choice(folder: Path):
    edit(folder / "1_Pooling" / "config.json", pooling_mode_max_tokens=True)
    with pytest.raises(ModelError, match=r"pools by (mean \+ max|max \+ mean).*--pooling"):
        Encoder.load(str(folder))
    assert Encoder.load(str(folder), pooling="mean").pooling == "mean"


def test_unknown_modules_are_refused(folder: Path):
    modules = json.loads((folder / "modules.json").read_text())
    modules[2]["type"] = "sentence_transformers.models.LayerNorm"
    (folder / "modules.json").write_text(json.dumps(modules))
    with pytest.raises(ModelError, match="asks for a LayerNorm module"):
        Encoder.load(str(folder))


@pytest.mark.parametrize(
    ("prompts", "expected"),
    [
        (None, ("query: ", "passage: ")),
        ({}, ("query: ", "passage: ")),
        ({"query": None, "document": None}, ("query: ", "passage: ")),
        ({"query": "", "document": ""}, ("", "")),
        ({"query": "Represent: "}, ("Represent: ", "")),
        ({"query": "q: ", "passage": "p: "}, ("q: ", "p: ")),
        ({"query": "q: ", "document": "d: ", "passage": "p: "}, ("q: ", "d: ")),
        ({"STS": "sts: "}, ("query: ", "passage: ")),
    ],
)
def test_prompts_are_the_models_own_or_the_papers(
    folder: Path, prompts: dict | None, expected: tuple[str, str]
):
    if prompts is not None:
        (folder / "config_sentence_transformers.json").write_text(
            json.dumps({"prompts": prompts})
        )
    encoder = Encoder.load(str(folder))
    assert (encoder.prompts["query"], encoder.prompts["passage"]) == expected
    assert Encoder.load(str(folder), query_prompt="mine ").prompts["query"] == "mine "


def test_a_run_folder_gives_the_model_inside_it(tiny_model: Path, tmp_path: Path):
    shutil.copytree(tiny_model, tmp_path / "run" / "model")
    inside, direct = Encoder.load(str(tmp_path / "run")), Encoder.load(str(tiny_model))
    assert inside.fingerprint() == direct.fingerprint()


def test_a_missing_pooler_is_no_matter_of_chance(tmp_path: Path):
    """Checkpoints such as xlm-roberta-base come with a language-model head and no pooler."""
    folder = write_tiny_model(tmp_path / "m", "xlm-roberta")
    weights = {
        k: v
        for k, v in load_file(folder / "model.safetensors").items()
        if not k.startswith("pooler.")
    }
    save_file({f"roberta.{k}": v for k, v in weights.items()} | {"lm_head.bias": torch.ones(3)},
              folder / "model.safetensors", metadata={"format": "pt"})  # fmt: skip
    one, other = Encoder.load(str(folder)), Encoder.load(str(folder))
    assert one.fingerprint() == other.fingerprint()


def test_half_precision_weights_are_trained_in_fp32(folder: Path):
    weights = load_file(folder / "model.safetensors")
    save_file(
        {k: v.half() for k, v in weights.items()},
        folder / "model.safetensors",
        metadata={"format": "pt"},
    )
    edit(folder / "config.json", dtype="float16")
    assert {parameter.dtype for parameter in Encoder.load(str(folder)).parameters()} == {
        torch.float32
    }


# Bad input: one line that names the model and the mend


def refused(name: Path | str) -> str:
    with pytest.raises(ModelError) as caught:
        Encoder.load(str(name))
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith(str(name))
    return message


def test_a_missing_folder(tmp_path: Path):
    assert "no such folder" in refused(tmp_path / "nowhere" / "model")


def test_a_misspelt_built_in_name():
    assert "did you mean e5-small-q4" in refused("e5-smal-q4")


def test_a_folder_without_a_model(tmp_path: Path):
    assert "neither config.json nor model/config.json" in refused(tmp_path)


def test_a_file_in_place_of_a_folder(tmp_path: Path):
    (tmp_path / "file").write_text("x")
    assert "neither config.json" in refused(tmp_path / "file")


def test_a_folder_without_tokenizer(folder: Path):
    for path in folder.glob("tokenizer*"):
        path.unlink()
    assert "has no tokenizer" in refused(folder)


def test_a_broken_tokenizer(folder: Path):
    text = (folder / "tokenizer.json").read_text()
    (folder / "tokenizer.json").write_text(text[: len(text) // 2])
    assert "tokenizer cannot be loaded" in refused(folder)


@pytest.mark.parametrize("size", [0, 5, 1000])
def test_truncated_weights(folder: Path, size: int):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:size])
    assert "weights cannot be loaded" in refused(folder)


def test_absent_weights(folder: Path):
    (folder / "model.safetensors").unlink()
    assert "weights cannot be loaded" in refused(folder)


def test_weights_of_another_shape(folder: Path):
    edit(folder / "config.json", num_hidden_layers=3)
    assert (
        "16 weights of the bert are missing or misshapen (first: encoder.layer.2."
        in refused(folder)
    )
    edit(folder / "config.json", num_hidden_layers=2, intermediate_size=48)
    assert "misshapen" in refused(folder)


def test_a_tokenizer_of_another_model(folder: Path):
    weights = load_file(folder / "model.safetensors")
    weights["embeddings.word_embeddings.weight"] = weights["embeddings.word_embeddings.weight"][
        :50
    ].clone()
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    edit(folder / "config.json", vocab_size=50)
    assert "tokenizer has 204 pieces but the model has 50 embeddings" in refused(folder)


def test_broken_config(folder: Path):
    (folder / "config.json").write_text("{")
    assert "config.json is not valid JSON" in refused(folder)
    (folder / "config.json").write_text(
        '{"model_type": "new", "auto_map": {"AutoConfig": "x.Y"}}'
    )
    assert "model type 'new' is not part of transformers" in refused(folder)


def test_an_encoder_decoder(folder: Path):
    (folder / "config.json").write_text(json.dumps({"model_type": "t5", "d_model": 8}))
    assert "encoder-decoder" in refused(folder)


def test_a_dense_layer_without_its_files(folder: Path):
    modules = json.loads((folder / "modules.json").read_text())
    modules.insert(
        2,
        {
            "idx": 2,
            "name": "2",
            "path": "2_Dense",
            "type": "sentence_transformers.models.Dense",
        },
    )
    (folder / "modules.json").write_text(json.dumps(modules))
    assert "2_Dense/config.json is missing" in refused(folder)
    (folder / "2_Dense").mkdir()
    (folder / "2_Dense" / "config.json").write_text(
        json.dumps({"in_features": 32, "out_features": 8})
    )
    assert "2_Dense has no model.safetensors" in refused(folder)
    edit(folder / "2_Dense" / "config.json", activation_function="os.system")
    assert "activation 'os.system' is not one of torch.nn" in refused(folder)


def plain_tokenizer(folder: Path, pad: str | None) -> None:
    """A word tokenizer without special tokens, so that an empty text has no token at all."""
    for path in folder.glob("tokenizer*"):
        path.unlink()
    tokenizer = Tokenizer(
        models.WordLevel({"[UNK]": 0, "mto": 1, "kato": 2, "[PAD]": 3}, unk_token="[UNK]")
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token="[UNK]", pad_token=pad
    ).save_pretrained(folder)


def test_a_tokenizer_without_padding_token_serves(folder: Path):
    plain_tokenizer(folder, pad=None)
    encoder = Encoder.load(str(folder), query_prompt="")
    assert encoder.tokenizer.pad_token_id is None
    vectors = encoder.encode(["mto kato mto", "kato"], "query")
    assert np.isfinite(vectors).all()


def test_a_text_without_tokens_is_named(folder: Path):
    plain_tokenizer(folder, pad="[PAD]")
    encoder = Encoder.load(str(folder), query_prompt="")
    with pytest.raises(DataError, match="query sequence 1 has no tokens"):
        encoder.tokenise(["mto", " ", "kato"], "query")
