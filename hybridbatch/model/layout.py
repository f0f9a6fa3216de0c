"""The sentence-transformers layout of a model folder: what stands beside the transformer's own
files.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from hybridbatch.common.errors import ModelError
from hybridbatch.common.files import read_json, write_json

Pooling = Literal["mean", "cls"]
Side = Literal["query", "passage"]
# the order in which sentence-transformers looks for a prompt
PASSAGE_KEYS = ("document", "passage", "corpus")
# sentence-transformers < 6 writes one flag per mode: pooling_mode_mean_tokens ...
LEGACY_POOLING = "pooling_mode_"


@dataclass(frozen=True)
class Layout:
    """What a model says about its use; None where it says nothing."""

    pooling: Pooling | None = None
    query_prompt: str | None = None
    passage_prompt: str | None = None
    dense: tuple[str, ...] = ()  # folders of the dense layers after pooling, in order


def read_layout(
    name: str, find: Callable[[str], Path | None], *, pooling: Pooling | None = None
) -> Layout:
    """The layout of the model `name`, whose files `find` gives (None: no such file).

    Args:
        pooling: chosen by the user; the model's own is not read then.
    Raises: `ModelError` for modules and poolings that `Encoder` does not have, never ignoring one.
    """
    dense, pooling_found = [], pooling
    for module in _read(find("modules.json"), []):
        kind, path = str(module["type"]).rpartition(".")[2], str(module["path"])
        if kind == "Pooling" and pooling is None:
            pooling_found = _read_pooling(name, _read(find(f"{path}/config.json"), {}))
        elif kind == "Dense":
            dense.append(path)
        elif kind not in ("Transformer", "Pooling", "Normalize"):
            raise ModelError(
                f"{name}: its modules.json asks for a {kind} module; known are Transformer, Pooling"
                " (mean or cls),"
                " Dense and Normalize"
            )
    stated = _read(find("config_sentence_transformers.json"), {}).get("prompts") or {}
    prompts = {key: text for key, text in stated.items() if text is not None}
    passage = next((prompts[key] for key in PASSAGE_KEYS if key in prompts), None)
    query = prompts.get("query")
    if query is None and passage is None:
        return Layout(pooling_found, None, None, tuple(dense))
    return Layout(pooling_found, query or "", passage or "", tuple(dense))


def _read(path: Path | None, default: Any) -> Any:
    return default if path is None else read_json(path)


def _read_pooling(name: str, config: Mapping[str, Any]) -> Pooling:
    stated = config.get("pooling_mode")
    if stated is None:
        stated = [
            key.removeprefix(LEGACY_POOLING)
            for key, on in config.items()
            if key.startswith(LEGACY_POOLING) and on
        ]
        stated = [mode.removesuffix("_tokens").removesuffix("_token") for mode in stated]
    modes = [stated] if isinstance(stated, str) else list(stated)
    if modes == ["mean"]:
        pooling: Pooling = "mean"
    elif modes == ["cls"]:
        pooling = "cls"
    else:
        raise ModelError(
            f"{name}: pools by {' + '.join(modes) or 'nothing'}, known are mean and cls; choose one"
            " with --pooling"
        )
    if config.get("include_prompt", True) is False:
        raise ModelError(
            f"{name}: leaves the prompt out of its pooling (include_prompt), which is not supported"
        )
    return pooling


def write_layout(
    folder: Path,
    *,
    dimension: int,
    pooling: Pooling,
    prompts: Mapping[Side, str],
    max_tokens: int,
    dense: Sequence[str] = (),
) -> None:
    """Write what `SentenceTransformer(folder)` reads beside a transformers model and its tokenizer.

    Args:
        dimension: of the token embeddings that are pooled.
        max_tokens: where texts are cut; one number for both sides, as sentence-transformers has no
            other.
        dense: folders (already written) of the dense layers after pooling.
    """
    steps = [("", "Transformer"), ("1_Pooling", "Pooling"), *((path, "Dense") for path in dense)]
    steps.append((f"{len(steps)}_Normalize", "Normalize"))
    write_json(
        folder / "modules.json",
        [
            {
                "idx": index,
                "name": str(index),
                "path": path,
                "type": f"sentence_transformers.models.{kind}",
            }
            for index, (path, kind) in enumerate(steps)
        ],
    )
    (folder / steps[-1][0]).mkdir(exist_ok=True)
    write_json(
        folder / "sentence_bert_config.json", {"max_seq_length": max_tokens, "do_lower_case": False}
    )
    flags = {"cls_token": pooling == "cls", "mean_tokens": pooling == "mean", "max_tokens": False}
    write_json(
        folder / "1_Pooling" / "config.json",
        {"word_embedding_dimension": dimension}
        | {LEGACY_POOLING + mode: on for mode, on in flags.items()},
    )
    texts = {
        "query": prompts["query"],
        "document": prompts["passage"],
        "passage": prompts["passage"],
    }
    write_json(
        folder / "config_sentence_transformers.json",
        {"prompts": texts, "default_prompt_name": None, "similarity_fn_name": "cosine"},
    )
