"""Layouts of published models: what `Encoder` gives is what sentence-transformers gives, and what is
saved says all that the model said before.
"""

import io
import json
import unicodedata
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import AutoModel, AutoTokenizer, PreTrainedTokenizerFast, Qwen3Config

from hybridbatch.common.errors import HybridBatchError, ModelError
from hybridbatch.common.integrity import SUMS, forget
from hybridbatch.model import Encoder
from hybridbatch.model.head import Dense
from hybridbatch.model.layout import read_layout
from hybridbatch.model.loading import Source
from tests.helpers.recording import RecordingReporter
from tests.helpers.tiny import SPECIAL, write_tiny_model

INSTRUCTION = "Instruct: find the passage\nQuery:"
TEXTS = ["wapi mto", "which lake is the deepest of all?", "mto", "река"]


def write_qwen(folder: Path, padding_side: str) -> Path:
    """A random decoder in the layout of Qwen3-Embedding: last token, a prompt for queries only."""
    letters = sorted(set("abcdefghijklmnopqrstuvwxyz ?:\nIQ" + "река"))
    vocabulary = {piece: number for number, piece in enumerate([*SPECIAL, *letters])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    tokenizer.post_processor = processors.TemplateProcessing(
        single="$A </s>", special_tokens=[("</s>", 2)]
    )
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="</s>", pad_token="<pad>", unk_token="<unk>",
        padding_side=padding_side, model_max_length=512,
    ).save_pretrained(folder)  # fmt: skip
    config = Qwen3Config(
        vocab_size=len(vocabulary), hidden_size=32, intermediate_size=48, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, head_dim=8, max_position_embeddings=512,
    )  # fmt: skip
    torch.manual_seed(3)
    AutoModel.from_config(config).save_pretrained(folder)
    modules = [("", "Transformer"), ("1_Pooling", "Pooling"), ("2_Normalize", "Normalize")]
    (folder / "modules.json").write_text(
        json.dumps(
            [
                {
                    "idx": i,
                    "name": str(i),
                    "path": path,
                    "type": f"sentence_transformers.models.{kind}",
                }
                for i, (path, kind) in enumerate(modules)
            ]
        )
    )
    (folder / "1_Pooling").mkdir()
    pooling = {
        "word_embedding_dimension": 32,
        "pooling_mode_lasttoken": True,
        "include_prompt": True,
    }
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(pooling))
    said = {"prompts": {"query": INSTRUCTION, "document": ""}, "default_prompt_name": None}
    (folder / "config_sentence_transformers.json").write_text(json.dumps(said))
    return folder


@pytest.mark.parametrize("padding_side", ["left", "right"])
def test_last_token_pooling_with_an_instruction(tmp_path: Path, padding_side: str):
    folder = write_qwen(tmp_path / "qwen", padding_side)
    encoder = Encoder.load(str(folder), max_query_tokens=512)
    assert encoder.pooling == "lasttoken"
    assert encoder.prompts == {"query": INSTRUCTION, "passage": ""}
    peer = SentenceTransformer(str(folder), device="cpu")
    for side, expected in (
        ("query", peer.encode_query(TEXTS)),
        ("passage", peer.encode_document(TEXTS)),
    ):
        ours = encoder.encode(TEXTS, side, precision="fp32")
        np.testing.assert_allclose(ours, expected, atol=1e-5)
    encoder.save(tmp_path / "saved", "card")
    saved = SentenceTransformer(str(tmp_path / "saved"), device="cpu")
    np.testing.assert_allclose(saved.encode_query(TEXTS), peer.encode_query(TEXTS), atol=1e-5)
    again = Encoder.load(str(tmp_path / "saved"), max_query_tokens=512)
    assert again.fingerprint() == encoder.fingerprint()


@pytest.fixture
def spoken(tmp_path: Path) -> Path:
    """A model that says a lot: prompts of tasks, a length beyond the passages', lower case."""
    folder = write_tiny_model(tmp_path / "spoken", "xlm-roberta")
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    tokenizer["normalizer"] = None
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    (folder / "sentence_bert_config.json").write_text(
        json.dumps({"max_seq_length": 100, "do_lower_case": True})
    )
    said = {
        "prompts": {"query": "q: ", "document": "d: ", "STS": "sts: "},
        "default_prompt_name": "STS",
    }
    (folder / "config_sentence_transformers.json").write_text(json.dumps(said))
    return folder


def test_lower_case_is_honoured_and_kept(spoken: Path, tmp_path: Path):
    encoder = Encoder.load(str(spoken))
    peer = SentenceTransformer(str(spoken), device="cpu")
    shouted = ["WAPI MTO", "Which Lake"]
    expected = peer.encode_query(shouted, normalize_embeddings=True)
    np.testing.assert_allclose(
        encoder.encode(shouted, "query", precision="fp32"), expected, atol=1e-5
    )
    encoder.save(tmp_path / "saved", "card")
    saved = SentenceTransformer(str(tmp_path / "saved"), device="cpu")
    np.testing.assert_allclose(saved.encode_query(shouted), expected, atol=1e-5)
    assert Encoder.load(str(tmp_path / "saved")).fingerprint() == encoder.fingerprint()


OWN = "sentence_transformers.models."


@pytest.mark.parametrize(
    ("types", "message"),
    [
        (
            [OWN + "Transformer", "my_code.Pooling"],
            "asks for my_code.Pooling, a class of its own",
        ),
        (["custom_st.Transformer"], "asks for custom_st.Transformer, a class of its own"),
        (
            [OWN + "Transformer", OWN + "Normalize", OWN + "Pooling"],
            "the order Transformer, Norm",
        ),
        ([OWN + "Transformer", OWN + "LSTM"], "asks for a LSTM module"),
    ],
)
def test_modules_that_would_be_replaced_are_refused(
    tmp_path: Path, types: list[str], message: str
):
    modules = [{"idx": 0, "name": "0", "path": "", "type": one} for one in types]
    (tmp_path / "modules.json").write_text(json.dumps(modules))
    with pytest.raises(ModelError, match=message):
        read_layout("model", Source("model", str(tmp_path)).find, pooling="mean")


@pytest.mark.parametrize("file", ["sentence_roberta_config.json", "sentence_xlnet_config.json"])
def test_the_length_is_read_from_files_of_older_names(spoken: Path, file: str):
    (spoken / "sentence_bert_config.json").rename(spoken / file)
    stated = read_layout("model", Source("model", str(spoken)).find)
    assert stated.max_tokens == 100
    assert stated.lower_case


def test_a_model_that_cuts_its_vectors_is_refused(spoken: Path):
    said = {"prompts": {}, "truncate_dim": 8}
    (spoken / "config_sentence_transformers.json").write_text(json.dumps(said))
    with pytest.raises(ModelError, match=r"truncate_dim 8, .*to use all 32 values"):
        Encoder.load(str(spoken))


def test_a_folder_of_old_sentence_transformers_is_told_how_to_mend(tmp_path: Path):
    write_tiny_model(tmp_path / "old" / "0_Transformer")
    with pytest.raises(ModelError, match=r"0_Transformer, .*move the files"):
        Encoder.load(str(tmp_path / "old"))


def test_what_a_model_said_is_kept_when_it_is_saved(spoken: Path, tmp_path: Path):
    encoder = Encoder.load(str(spoken), max_passage_tokens=40)
    encoder.save(tmp_path / "saved", "card")
    saved = SentenceTransformer(str(tmp_path / "saved"), device="cpu")
    assert saved.max_seq_length == 100
    assert saved.prompts == {
        "query": "q: ",
        "document": "d: ",
        "passage": "d: ",
        "STS": "sts: ",
    }
    assert saved.default_prompt_name == "STS"


@pytest.mark.parametrize("family", ["bert", "xlm-roberta", "distilbert"])
def test_a_saved_tokenizer_composes_decomposed_text(tmp_path: Path, family: str):
    folder = write_tiny_model(tmp_path / "model", family)
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    tokenizer["normalizer"] = {"type": "Lowercase"}
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    encoder = Encoder.load(str(folder))
    encoder.save(tmp_path / "saved", "card")
    composed = ["größe ñandú, áé"]
    decomposed = [unicodedata.normalize("NFD", composed[0])]
    assert composed != decomposed
    read = AutoTokenizer.from_pretrained(tmp_path / "saved")
    assert read(decomposed).input_ids == read(composed).input_ids
    assert list(read(composed)) == list(AutoTokenizer.from_pretrained(folder)(composed))
    ours = encoder.encode(decomposed, "query", precision="fp32")
    peer = SentenceTransformer(str(tmp_path / "saved"), device="cpu")
    np.testing.assert_allclose(peer.encode_query(decomposed), ours, atol=1e-5)
    assert Encoder.load(str(tmp_path / "saved")).fingerprint() == encoder.fingerprint()


def test_prompts_that_a_model_does_not_state_are_announced(tiny_model: Path, spoken: Path):
    report = RecordingReporter()
    Encoder.load(str(tiny_model), report=report)
    assert any(
        "states no prompt for a query, so 'query: ' is put before each" in n
        for n in report.notes
    )
    for name, options in (
        (spoken, {}),
        (tiny_model, {"query_prompt": "", "passage_prompt": ""}),
    ):
        report = RecordingReporter()
        Encoder.load(str(name), report=report, **options)
        assert not any("states no prompt" in note for note in report.notes)


# Code of a model


CODE = """import pathlib
pathlib.Path(__file__).with_name("MARKER").touch()
class M: pass
class C: pass
"""


@pytest.mark.parametrize("kind", ["evilmodel", "bert"])
@pytest.mark.parametrize("tokenizer", [False, True])
def test_code_of_a_model_never_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, tokenizer: bool
):
    """Whatever stands on standard input, and whatever file asks for it."""
    folder = write_tiny_model(tmp_path / "model")
    (folder / "evil.py").write_text(CODE)
    config = json.loads((folder / "config.json").read_text())
    config |= {"model_type": kind, "auto_map": {"AutoModel": "evil.M", "AutoConfig": "evil.C"}}
    (folder / "config.json").write_text(json.dumps(config))
    if tokenizer:
        path = folder / "tokenizer_config.json"
        said = json.loads(path.read_text()) | {"auto_map": {"AutoTokenizer": [None, "evil.M"]}}
        path.write_text(json.dumps(said))
    monkeypatch.setattr("sys.stdin", io.StringIO("y\n" * 9))
    if kind == "bert":  # a class of transformers, which is used
        Encoder.load(str(folder))
    else:
        with pytest.raises(
            ModelError, match=r"code that comes with a model is not run.*--trust"
        ):
            Encoder.load(str(folder))
    assert not list(tmp_path.rglob("MARKER"))


def test_the_refusal_of_gte_names_its_native_repository(tmp_path: Path):
    folder = write_tiny_model(tmp_path / "model")
    code = {"AutoModel": "Alibaba-NLP/new-impl--modeling.NewModel"}
    config = json.loads((folder / "config.json").read_text()) | {
        "model_type": "new",
        "auto_map": code,
    }
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelError, match="alibaba-nlp-community/gte-multilingual-base"):
        Encoder.load(str(folder))


BAD_LAYOUTS = [
    ("modules.json", None),
    ("modules.json", [{"type": "sentence_transformers.models.Pooling"}]),
    ("modules.json", [{"type": 1, "path": ""}]),
    ("1_Pooling/config.json", []),
    ("1_Pooling/config.json", {"pooling_mode": 7}),
    ("1_Pooling/config.json", {"pooling_mode_mean_tokens": True, "include_prompt": "no"}),
    ("config_sentence_transformers.json", {"prompts": ["query: "]}),
    ("config_sentence_transformers.json", {"prompts": {"query": {}}}),
    ("sentence_bert_config.json", 3),
    ("sentence_bert_config.json", {"max_seq_length": {"a": 1}}),
    ("sentence_bert_config.json", {"max_seq_length": -1}),
    ("2_Dense/config.json", {"in_features": "32"}),
    ("2_Dense/config.json", {"in_features": 32, "out_features": 10**15}),
    ("2_Dense/config.json", {"in_features": 32, "out_features": 16, "bias": None}),
    (
        "2_Dense/config.json",
        {"in_features": 32, "out_features": 16, "activation_function": "torch.nn.Linear"},
    ),
    ("2_Dense/model.safetensors", b"{"),
]


@pytest.fixture(scope="module")
def layered(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model with a dense layer, and no checksums that would tell of a change."""
    first, folder = (tmp_path_factory.mktemp(name) for name in ("tiny", "layered"))
    write_tiny_model(first)
    encoder = Encoder.load(str(first))
    encoder.head.append(Dense(torch.nn.Linear(encoder.dimension, 16), torch.nn.Tanh()))
    encoder.save(folder / "model", "card")
    (folder / "model" / SUMS).unlink()
    return folder / "model"


@pytest.mark.parametrize(("file", "content"), BAD_LAYOUTS)
def test_a_file_of_another_shape_is_refused_in_one_line(layered: Path, file: str, content: Any):
    path = layered / file
    before = path.read_bytes()
    try:
        path.write_bytes(
            content if isinstance(content, bytes) else json.dumps(content).encode()
        )
        with pytest.raises(HybridBatchError) as told:
            Encoder.load(str(layered))
    finally:
        path.write_bytes(before)
    assert len(str(told.value).splitlines()) == 1
    assert "memory" not in str(told.value)
    assert file.rpartition("/")[0] in str(told.value)


def test_damaged_weights_are_named_and_told_apart_from_an_edit(layered: Path, tmp_path: Path):
    folder = tmp_path / "model"
    Encoder.load(str(layered)).save(folder, "card")
    path = folder / "model.safetensors"
    raw = path.read_bytes()
    for place in (9, len(raw) - 1):
        path.write_bytes(raw[:place] + bytes([raw[place] ^ 4]) + raw[place + 1 :])
        forget()
        with pytest.raises(ModelError, match=r"model\.safetensors: is damaged .*delete .*XXH3"):
            Encoder.load(str(folder))
    (folder / SUMS).unlink()
    assert Encoder.load(str(folder)).dimension == 16
