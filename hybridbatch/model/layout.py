"""The sentence-transformers layout of a model folder.

The layout is the files in addition to the files of the transformer itself.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import PositiveInt

from hybridbatch.common.documents import Shape, read_shape
from hybridbatch.common.errors import ModelError
from hybridbatch.common.files import write_json

Pooling = Literal["mean", "cls", "lasttoken"]
Side = Literal["query", "passage"]
Similarity = Literal["cosine", "dot", "euclidean", "manhattan"]
POOLINGS: tuple[Pooling, ...] = ("mean", "cls", "lasttoken")
SIMILARITIES: tuple[Similarity, ...] = ("cosine", "dot", "euclidean", "manhattan")
# the order in which sentence-transformers looks for a prompt
PASSAGE_KEYS = ("document", "passage", "corpus")
# The modules that are known, in the order in which a model has them.
MODULES = ("Transformer", "Pooling", "Dense", "Normalize")
# sentence-transformers takes the first of these that a model has
TEXT_SETTINGS = (
    "sentence_bert_config.json",
    "sentence_roberta_config.json",
    "sentence_distilbert_config.json",
    "sentence_camembert_config.json",
    "sentence_albert_config.json",
    "sentence_xlm-roberta_config.json",
    "sentence_xlnet_config.json",
)
# sentence-transformers < 6 writes one flag per mode: pooling_mode_mean_tokens ...
LEGACY_POOLING = "pooling_mode_"
FETCH = "fetch or train the model again"


class Module(Shape):
    """One entry of ``modules.json``."""

    type: str
    path: str


class Modules(Shape):
    """The list in ``modules.json``."""

    what: ClassVar[str] = "list of a model's modules"
    listed: ClassVar[str] = "modules"

    modules: list[Module]


class PoolingSettings(Shape):
    """The ``config.json`` of a pooling module."""

    what: ClassVar[str] = "settings of a model's pooling"

    pooling_mode: str | list[str] | None = None
    include_prompt: bool = True


class Stated(Shape):
    """``config_sentence_transformers.json``."""

    what: ClassVar[str] = "prompts of a model"

    prompts: dict[str, str | None] | None = None
    default_prompt_name: str | None = None
    similarity_fn_name: str | None = None
    truncate_dim: PositiveInt | None = None


class TextSettings(Shape):
    """``sentence_bert_config.json``, or an older name of it (`TEXT_SETTINGS`)."""

    what: ClassVar[str] = "settings of a model's texts"

    max_seq_length: PositiveInt | None = None
    do_lower_case: bool | None = None


@dataclass(frozen=True)
class Layout:
    """What a model's files state about its use.

    Attributes:
        pooling: None if nothing is stated.
        prompts: all stated prompts, by name, including prompts for single tasks.
        default_prompt: name of the prompt for texts that are neither query nor passage.
        max_tokens: number of tokens at which texts are cut; None if nothing is stated.
        lower_case: whether texts are lowercased, whatever the tokenizer does.
        dense: folders of the dense layers after pooling, in order.
        normalized: whether the model itself scales its vectors to length 1.
        similarity: how the model compares two vectors.
        truncate_dim: number of values to which the model cuts its vectors; None: all.
    """

    pooling: Pooling | None = None
    prompts: Mapping[str, str] = field(default_factory=dict)
    default_prompt: str | None = None
    max_tokens: int | None = None
    lower_case: bool = False
    dense: tuple[str, ...] = ()
    normalized: bool = False
    similarity: Similarity = "cosine"
    truncate_dim: int | None = None

    @property
    def states_prompts(self) -> bool:
        """Whether the model states a prompt for queries or for passages."""
        return any(key in self.prompts for key in ("query", *PASSAGE_KEYS))

    def prompt(self, side: Side) -> str | None:
        """The prompt of a side.

        A model that states a prompt for one side has none ("") on the other. For a model that
        states none at all, the result is None.
        """
        if not self.states_prompts:
            return None
        keys = ("query",) if side == "query" else PASSAGE_KEYS
        return next((self.prompts[key] for key in keys if key in self.prompts), "")


def read_layout(
    name: str, find: Callable[[str], Path | None], *, pooling: Pooling | None = None
) -> Layout:
    """The layout of the model `name`, whose files `find` returns (None: no such file).

    Args:
        pooling: pooling that the user chose; the model's own is then not read.
    Raises: `ModelError` for modules and poolings that `Encoder` does not have; none is ignored.
        `DataError` for a file of another shape.
    """
    dense, kinds, pooling_found = [], [], pooling
    for module in _read(find("modules.json"), Modules).get("modules", ()):
        kind, path = module["type"].rpartition(".")[2], module["path"]
        kinds.append(kind)
        if kind in ("LanguageTransformer", "LanguageVectors"):
            raise ModelError(
                f"{name}: holds language vectors by language in modules that only"
                " sentence-transformers runs; here, use the original model with --debias and"
                " this folder"
            )
        if kind not in MODULES:
            raise ModelError(
                f"{name}: its modules.json asks for a {kind} module; the known modules are"
                f" Transformer, Pooling ({', '.join(POOLINGS)}), Dense and Normalize"
            )
        if not module["type"].startswith("sentence_transformers."):
            raise ModelError(
                f"{name}: its modules.json asks for {module['type']}, a class of its own, which"
                " is never run here, also not with --trust-remote-code; use a model that has"
                " sentence-transformers' modules only"
            )
        if kind == "Pooling" and pooling is None:
            settings = _read(find(f"{path}/config.json"), PoolingSettings)
            pooling_found = _read_pooling(name, settings)
        elif kind == "Dense":
            dense.append(path)
    if kinds != sorted(kinds, key=MODULES.index):
        raise ModelError(
            f"{name}: its modules.json has the order {', '.join(kinds)}; the only one supported"
            f" is {', '.join(MODULES)}"
        )
    stated = _read(find("config_sentence_transformers.json"), Stated)
    prompts = {
        key: text for key, text in (stated.get("prompts") or {}).items() if text is not None
    }
    similarity = stated.get("similarity_fn_name")
    paths = (find(file) for file in TEXT_SETTINGS)
    transformer = _read(next((path for path in paths if path), None), TextSettings)
    return Layout(
        pooling_found,
        prompts,
        stated.get("default_prompt_name"),
        transformer.get("max_seq_length"),
        bool(transformer.get("do_lower_case")),
        tuple(dense),
        "Normalize" in kinds,
        # sentence-transformers ignores names of other similarities, too
        next((known for known in SIMILARITIES if known == similarity), "cosine"),
        stated.get("truncate_dim"),
    )


def _read(path: Path | None, shape: type[Shape]) -> dict[str, Any]:
    return {} if path is None else read_shape(path, shape, FETCH)


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
    pooling = next((known for known in POOLINGS if modes == [known]), None)
    if pooling is None:
        raise ModelError(
            f"{name}: pools by {' + '.join(modes) or 'nothing'}, but only {', '.join(POOLINGS)} are"
            " known. Another pooling gives other vectors than the model was made for; choose one"
            " with --pooling only to train the model anew"
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
    stated: Layout | None = None,
) -> None:
    """Write what `SentenceTransformer(folder)` reads beside a transformers model and its tokenizer.

    Args:
        dimension: of the token embeddings that are pooled.
        max_tokens: where texts are cut; one number for both sides, as sentence-transformers has no
            other.
        dense: folders (already written) of the dense layers after pooling.
        stated: what the model said before: its further prompts are kept.
    """
    steps = [
        ("", "Transformer"),
        ("1_Pooling", "Pooling"),
        *((path, "Dense") for path in dense),
    ]
    steps.append((f"{len(steps)}_Normalize", "Normalize"))
    modules = []
    for index, (path, kind) in enumerate(steps):
        kind_of_module = f"sentence_transformers.models.{kind}"
        modules.append({"idx": index, "name": str(index), "path": path, "type": kind_of_module})
    write_json(folder / "modules.json", modules)
    (folder / steps[-1][0]).mkdir(exist_ok=True)
    stated = stated or Layout()
    # The saved tokenizer lowercases texts itself, if the model does.
    write_json(
        folder / "sentence_bert_config.json",
        {"max_seq_length": max_tokens, "do_lower_case": False},
    )
    flags = {
        "cls_token": pooling == "cls",
        "mean_tokens": pooling == "mean",
        "max_tokens": False,
    }
    if pooling == "lasttoken":
        flags["lasttoken"] = True
    write_json(
        folder / "1_Pooling" / "config.json",
        {"word_embedding_dimension": dimension}
        | {LEGACY_POOLING + mode: on for mode, on in flags.items()},
    )
    texts = {
        **stated.prompts,
        "query": prompts["query"],
        "document": prompts["passage"],
        "passage": prompts["passage"],
    }
    if "corpus" in texts:
        texts["corpus"] = prompts["passage"]
    write_json(
        folder / "config_sentence_transformers.json",
        {
            "prompts": texts,
            "default_prompt_name": stated.default_prompt,
            "similarity_fn_name": "cosine",
        },
    )
