"""A model as mteb itself uses it: its own length, its own prompts for each task, fp32.

mteb reads a model with sentence-transformers. That cuts texts where the model's files say, puts
before them what the files say for the task (`mteb.models.abs_encoder.get_prompt_name` has the order
of names), and changes nothing else. Our own evaluation departs from it: shorter queries, default
prompts for a model without any, text in NFC. For mteb's tasks mteb's way holds, but for settings
that the user names; those are written into the result.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, runtime_checkable

import numpy as np

from hybridbatch.common.errors import ModelError, first_line
from hybridbatch.common.progress import SILENT, Reporter
from hybridbatch.common.remarks import without_remarks
from hybridbatch.data.tasks.mteb import fenced, is_retrieval
from hybridbatch.model.layout import read_layout
from hybridbatch.scoring.settings import EvalConfig
from hybridbatch.search.blocked_vectors import encode_blocks
from hybridbatch.search.embeddings import EmbeddingStore
from hybridbatch.search.vectors import Vectors

if TYPE_CHECKING:
    from hybridbatch.model import Encoder

Side = Literal["query", "passage"]
# texts, "query" | "passage" | "text" (of a task that has neither) -> float32 [n, D]
Embed = Callable[[Sequence[str], str], np.ndarray]


@runtime_checkable
class OnDisk(Protocol):
    """An `Embed` that can also leave the vectors of a large corpus on disk."""

    def __call__(self, texts: Sequence[str], side: str) -> np.ndarray:
        """float32 [n, D]."""

    def on_disk(self, texts: Sequence[str]) -> Vectors:
        """The vectors of passages, read from disk as they are asked for."""


# mteb remarks there on prompts whose names are none of its own, such as "passage".
PROMPTS_LOG = "mteb.models.abs_encoder"
# Settings that change the last digits of a vector only: mteb's own loader can check their scores.
ROUNDING = ("precision", "stored_as")
_PROMPT_TYPES = {"query": "query", "passage": "document", "text": None}


@dataclass
class Published:
    """The model of an evaluation, for mteb's tasks.

    Attributes:
        store: of the model as the project's own tasks use it.
        departures: settings of the user that differ from the model's files: name, the value here,
            and the model's own.
    """

    config: EvalConfig
    store: EmbeddingStore
    report: Reporter = SILENT
    departures: dict[str, dict[str, Any]] = field(default_factory=dict)
    _stores: dict[tuple[str, str, bool], EmbeddingStore] = field(default_factory=dict)

    def __post_init__(self) -> None:
        encoder = self.encoder
        if encoder is None:
            return
        own: dict[str, Any] = {
            "max_query_tokens": encoder.usage.own_max_tokens,
            "max_passage_tokens": encoder.usage.own_max_tokens,
            "query_prompt": self._prompts["query"],
            "passage_prompt": self._prompts["document"],
            "precision": "fp32",
            "stored_as": "float32",
        }
        if self.config.pooling != "auto":
            own["pooling"] = _own_pooling(encoder)
        for name, published in own.items():
            here = self.precision if name == "precision" else getattr(self.config, name)
            if name in self.config.model_fields_set and here is not None and here != published:
                self.departures[name] = {"here": here, "published": published}
        if self.departures:
            told = ", ".join(
                f"{name} = {both['here']!r}" for name, both in self.departures.items()
            )
            self.report.warn(
                f"mteb's tasks: {told} differs from the model as mteb uses it, so these scores"
                " are not comparable with those of mteb; the results record this"
            )
        else:
            stated = [name for name, prompt in self._prompts.items() if prompt]
            prompts = f"its own prompts ({', '.join(stated)})" if stated else "no prompt"
            self.report.note(
                f"mteb's tasks: the model is used as its own files say, with {prompts} and at"
                f" most {encoder.usage.own_max_tokens:,} tokens a text"
            )

    @property
    def encoder(self) -> "Encoder | None":
        """None for the random baseline, which has no files."""
        from hybridbatch.model import Encoder

        return self.store.encoder if isinstance(self.store.encoder, Encoder) else None

    @property
    def precision(self) -> str:
        """fp32, as mteb computes, unless the user names another."""
        named = "precision" in self.config.model_fields_set
        return self.store.precision if named or self.encoder is None else "fp32"

    @property
    def fingerprint(self) -> str:
        """Of the model as it is published, with the user's departures."""
        if self.encoder is None:
            return self.store.fingerprint
        return self._store(*self._sides({}), self.encoder.usage.stated.normalized).fingerprint

    def embed_for(self, task: Any) -> Embed:
        """Embeds the texts of a task with the prompts that the model states for it.

        Vectors have the model's own lengths, which classifiers and some measures see. Where passages
        are ranked by cosine the lengths do not matter, and rows are L2-normalised.
        """
        if self.encoder is None:
            return _Embedder(lambda side: self.store, self.report)
        stated = self.encoder.usage.stated
        by_cosine = stated.similarity == "cosine" and is_retrieval(task)
        unit = stated.normalized or by_cosine
        chosen = {
            side: self._prompt(task.metadata, kind) for side, kind in _PROMPT_TYPES.items()
        }

        def store(side: str) -> EmbeddingStore:
            if side == "text":
                return self._store(chosen["text"], chosen["text"], unit)
            return self._store(*self._sides(chosen), unit)

        return _Embedder(store, self.report)

    def own_loader(self, meta: Any) -> Any:
        """The model as mteb loads it by itself, through sentence-transformers; None where the
        user's settings cannot be told to that library, or there are no files.

        Raises: `ModelError` if that library cannot load it.
        """
        encoder = self.encoder
        if encoder is None or not set(self.departures) <= set(ROUNDING):
            return None
        with fenced(), without_remarks(PROMPTS_LOG):
            from mteb.models.sentence_transformer_wrapper import (
                SentenceTransformerEncoderWrapper,
            )
            from sentence_transformers import SentenceTransformer

            try:
                model = SentenceTransformer(
                    str(Path(encoder.source.location)),
                    device=str(encoder.device),
                    trust_remote_code=encoder.source.trusted,
                    local_files_only=True,
                )
            except Exception as error:  # readers of several formats raise anything
                raise ModelError(
                    f"{encoder.name}: sentence-transformers cannot load it"
                    f" ({first_line(error)}), so --verify has nothing to compare with; leave it out"
                ) from error
            wrapped = SentenceTransformerEncoderWrapper(model)
            wrapped.mteb_model_meta = meta
            return wrapped

    @property
    def _prompts(self) -> dict[str, str]:
        """All prompts by name, as sentence-transformers reads them: "" for a side that has none."""
        assert self.encoder
        return {"query": "", "document": "", **self.encoder.usage.stated.prompts}

    def _prompt(self, metadata: Any, kind: str | None) -> str:
        """What mteb puts before the texts of a kind (query, document, None) in a task."""
        assert self.encoder
        with fenced(), without_remarks(PROMPTS_LOG):
            from mteb.models.abs_encoder import AbsEncoder, get_prompt_name
            from mteb.types import PromptType

            valid, _ = AbsEncoder.validate_task_to_prompt_name(
                self._prompts, raise_for_invalid_keys=False
            )
            valid = valid or {}
            name = get_prompt_name(valid, metadata, PromptType(kind) if kind else None)
        if name is not None:
            return valid[name]
        return self._prompts.get(self.encoder.usage.stated.default_prompt or "", "")

    def _sides(self, chosen: Mapping[str, str]) -> tuple[str, str]:
        """The prompts of queries and passages: the user's, else those of the task."""
        query = self.departures.get("query_prompt", {}).get("here")
        passage = self.departures.get("passage_prompt", {}).get("here")
        return (
            chosen.get("query", self._prompts["query"]) if query is None else query,
            chosen.get("passage", self._prompts["document"]) if passage is None else passage,
        )

    def _store(self, query: str, passage: str, unit: bool) -> EmbeddingStore:
        """The stored embeddings of the model with these prompts, with rows of length 1 or not."""
        key = (query, passage, unit)
        if key not in self._stores:
            encoder = self.encoder
            assert encoder
            own = encoder.usage.own_max_tokens
            lengths = {
                side: self.departures.get(f"max_{side}_tokens", {}).get("here", own)
                for side in ("query", "passage")
            }
            published = encoder.using(
                prompts={"query": query, "passage": passage},
                max_tokens=lengths,
                composed=False,
                normalized=unit,
            )
            self._stores[key] = EmbeddingStore(
                published,
                self.store.folder,
                precision=self.precision,  # type: ignore[arg-type]
                dtype=self.config.stored_as,
                max_bytes=self.store.max_bytes,
            )
        return self._stores[key]


def _own_pooling(encoder: "Encoder") -> str:
    """The pooling that a model's files state, whatever the user chose."""
    try:
        return read_layout(encoder.name, encoder.source.find).pooling or "mean"
    except ModelError:
        return "one that is not known here"


@dataclass(frozen=True)
class _Embedder:
    """The stored embeddings of a model with the prompts for one task.

    Attributes:
        store: of the texts of a side.
    """

    store: Callable[[str], EmbeddingStore]
    report: Reporter

    def __call__(self, texts: Sequence[str], side: str) -> np.ndarray:
        """float32 [n, D]."""
        kind: Side = "passage" if side == "passage" else "query"
        return self.store(side).embed(texts, kind, self.report)

    def on_disk(self, texts: Sequence[str]) -> Vectors:
        """The vectors of passages, encoded block by block."""
        return encode_blocks(self.store("passage"), texts, "passage", report=self.report)
