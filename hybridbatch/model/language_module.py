"""Language vectors inside a sentence-transformers model.

`SentenceTransformer(folder)` loads them where this package is installed. `modules.json` of the
folder names two classes of this file:

- `LanguageTransformer` is the library's Transformer that also finds the language and side of each
  text. If the prompt of a language was asked for (``prompt_name="query-swh"``), both come from the
  prompt. Otherwise the side comes from the prompt, and the language from identification.
- `LanguageVectors` subtracts the vectors of that side and language from the pooled embedding.

A machine without this package cannot import the classes and says so. The plain model in the same
folder still loads with `AutoModel`.
"""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

import torch
from sentence_transformers.models import Transformer
from torch import Tensor, nn

try:
    from sentence_transformers.models import Module  # sentence-transformers 5 and later
except ImportError:  # pragma: no cover
    from sentence_transformers.base.modules import Module

from hybridbatch.common.errors import DataError, ModelError
from hybridbatch.common.languages import canonical

SIDES = ("query", "passage")
# They enclose the name of a prompt, in front of its text. No tokenizer sees them.
OPEN, CLOSE = "\u2063", "\u2064"
SIDE, LANGUAGE = "debias_side", "debias_language"
NO_LANGUAGE = -1


def marked(name: str, text: str) -> str:
    """A prompt that tells `LanguageTransformer` its name, such as ``query-swh``."""
    return f"{OPEN}{name}{CLOSE}{text}"


def unmarked(prompt: str | None) -> tuple[str, str, str]:
    """(side, language, text) of a prompt; without a mark, ``query`` and no language."""
    if not prompt or not prompt.startswith(OPEN) or CLOSE not in prompt:
        return "query", "", prompt or ""
    name, _, text = prompt.removeprefix(OPEN).partition(CLOSE)
    side, _, language = name.partition("-")
    return ("query" if side == "query" else "passage"), language, text


class LanguageTransformer(Transformer):
    """The library's Transformer, whose features also hold side and language of each text."""

    def preprocess(
        self, inputs: Sequence[Any], prompt: str | None = None, **kwargs: Any
    ) -> dict[str, Any]:
        """Token ids as usual, ``debias_side`` and ``debias_language`` int64 [n] beside.

        The language is a place in the list of known languages, `NO_LANGUAGE` where it is none.
        """
        side, language, text = unmarked(prompt)
        features = super().preprocess(inputs, prompt=text or None, **kwargs)
        known = self.known_languages
        if language:
            numbers = [known.index(language)] * len(inputs)
        else:
            numbers = [
                known.index(name) if name in known else NO_LANGUAGE
                for name in identify([str(one) for one in inputs])
            ]
        features[LANGUAGE] = torch.tensor(numbers, dtype=torch.int64)
        features[SIDE] = torch.full((len(inputs),), SIDES.index(side), dtype=torch.int64)
        return features

    @property
    def known_languages(self) -> list[str]:
        """The languages of the model's language vectors, which lie in its configuration."""
        return list(self._transformer_config().language_vectors)

    def _transformer_config(self) -> Any:
        return next(module.config for module in self.modules() if hasattr(module, "config"))


class LanguageVectors(Module):
    """Takes the vectors of its side and language off each pooled embedding.

    ``z = p / |p|``, ``x = z - b``, ``M (x - C' C x)``; a Normalize module follows.
    """

    config_keys = ("languages", "dimension", "parts")

    def __init__(
        self, languages: Sequence[str], dimension: int, parts: Mapping[str, Sequence[int]]
    ) -> None:
        """An empty module; `fill` or `load` gives it its numbers.

        Args:
            languages: L, in the order of the rows after the first.
            dimension: D.
            parts: shape of each tensor by its name: ``query_offsets`` [1 + L, D],
                ``query_directions`` [1 + L, r, D], ``query_matrix`` [D, D], and of passages.
        """
        super().__init__()
        self.languages = list(languages)
        self.dimension = dimension
        self.parts = {name: list(shape) for name, shape in parts.items()}
        for name, shape in self.parts.items():
            self.register_buffer(name, torch.zeros(*shape))

    def fill(self, tensors: Mapping[str, Tensor]) -> "LanguageVectors":
        """Take over the numbers and return the module."""
        for name in self.parts:
            getattr(self, name).copy_(tensors[name])
        return self

    def forward(self, features: dict[str, Any], **_: Any) -> dict[str, Any]:
        """Replace ``sentence_embedding`` [n, D]."""
        if SIDE not in features:
            raise ModelError(
                "this model's embeddings need the language of each text; encode with"
                " SentenceTransformer.encode, not with the modules one by one"
            )
        pooled = nn.functional.normalize(features["sentence_embedding"].float(), dim=1)
        rows = features[LANGUAGE].to(pooled.device) + 1
        sides = features[SIDE].to(pooled.device)
        out = pooled.clone()
        for number, side in enumerate(SIDES):
            own = sides == number
            if f"{side}_offsets" in self.parts and bool(own.any()):
                out[own] = self._turned(pooled[own], rows[own], side)
        features["sentence_embedding"] = out
        return features

    def _turned(self, vectors: Tensor, rows: Tensor, side: str) -> Tensor:
        turned = vectors - getattr(self, f"{side}_offsets")[rows]
        if f"{side}_directions" in self.parts:
            directions = getattr(self, f"{side}_directions")[rows]
            along = torch.einsum("nd,nrd->nr", turned, directions)
            turned = turned - torch.einsum("nr,nrd->nd", along, directions)
        if f"{side}_matrix" in self.parts:
            turned = turned @ getattr(self, f"{side}_matrix").T
        return turned

    def get_sentence_embedding_dimension(self) -> int:
        """D, the length of an embedding."""
        return self.dimension

    def get_config_dict(self) -> dict[str, Any]:
        """The content of ``config.json``."""
        return {"languages": self.languages, "dimension": self.dimension, "parts": self.parts}

    def save(
        self, output_path: str, *args: Any, safe_serialization: bool = True, **_: Any
    ) -> None:
        """Write ``config.json`` and the tensors."""
        self.save_config(output_path)
        self.save_torch_weights(output_path, safe_serialization=safe_serialization)

    @classmethod
    def load(
        cls, model_name_or_path: str, subfolder: str = "", **kwargs: Any
    ) -> "LanguageVectors":
        """Read the files that `save` wrote, from a folder or the hub."""
        names = ("token", "cache_folder", "revision", "local_files_only")
        where = {name: kwargs[name] for name in names if name in kwargs}
        config = cls.load_config(model_name_or_path, subfolder=subfolder, **where)
        module = cls(config["languages"], config["dimension"], config["parts"])
        return cls.load_torch_weights(
            model_name_or_path, subfolder=subfolder, model=module, **where
        )


def identify(texts: Sequence[str]) -> list[str]:
    """The language of each text by py3langid; empty if it is not known."""
    known = _identifier()
    found = []
    for text in texts:
        try:
            found.append(canonical(known.classify(text)[0]))
        except DataError:
            found.append("")
    return found


def identifiable() -> list[str]:
    """The languages that `identify` may find, ascending."""
    found = set()
    for code in _identifier().nb_classes:
        with suppress(DataError):
            found.add(canonical(code))
    return sorted(found)


_LOADED: list[Any] = []


def _identifier() -> Any:
    """The identifier, loaded once."""
    if not _LOADED:
        from py3langid.langid import MODEL_FILE, LanguageIdentifier

        _LOADED.append(LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True))
    return _LOADED[0]
