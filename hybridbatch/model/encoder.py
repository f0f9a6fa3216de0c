"""The encoder: text in, unit vectors out, with the same weights for queries and passages."""

import copy
import hashlib
import json
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from safetensors import SafetensorError
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import PreTrainedModel, PreTrainedTokenizerFast
from xxhash import xxh3_128

from hybridbatch.common.device import (
    HALF,
    ResolvedPrecision,
    autocast,
    resolve_precision,
    upload,
)
from hybridbatch.common.errors import DataError, ModelError, OutputError
from hybridbatch.common.files import atomic_folder, fingerprint, write_text
from hybridbatch.common.integrity import (
    SUMS,
    check_file,
    check_sums,
    check_tensors,
    read_sums,
    write_sums,
)
from hybridbatch.common.memory import in_parts
from hybridbatch.common.progress import SILENT, Reporter
from hybridbatch.common.settings import Precision
from hybridbatch.common.tokens import TokenArrays
from hybridbatch.common.vectors import require_finite_embeddings
from hybridbatch.model.builtin import BUILTIN
from hybridbatch.model.casts import HalfWeights
from hybridbatch.model.compiled import CompiledLayers
from hybridbatch.model.dropout import use_cheap_dropout
from hybridbatch.model.head import load_head, write_head
from hybridbatch.model.inference import PLAIN, Kernels, inference_kernels
from hybridbatch.model.layout import Layout, Pooling, Side, read_layout, write_layout
from hybridbatch.model.loading import (
    Source,
    load_tokenizer,
    load_transformer,
    locate,
    plain_json,
    quiet,
    save_tokenizer,
)
from hybridbatch.model.packed import forward_packed, forward_padded, use_packed_attention
from hybridbatch.model.rotary import fused_rotary

DEFAULT_PROMPTS: dict[Side, str] = {"query": "query: ", "passage": "passage: "}
TEXTS_PER_CALL = 1024  # bounds the tokenizer's temporary objects
TEXTS_AHEAD = 2048  # tokenised for a GPU while it computes the previous texts
TOKENS_PER_BATCH = {"cpu": 4096, "cuda": 131_072}  # of `encode`; as many as fit in caches


@dataclass(frozen=True)
class Usage:
    """How texts become vectors, apart from the weights.

    Attributes:
        pooling: pooling over the last hidden states.
        prompts: prompt in front of every text, by side.
        max_tokens: number of tokens kept of a text, by side, including prompt and special tokens.
        own_max_tokens: number of tokens at which the model itself cuts texts.
        stated: what the model's files state.
        composed: whether texts are converted to NFC first. The tokenizer of a saved folder does the
            conversion itself.
        normalized: whether vectors are scaled to length 1.
    """

    pooling: Pooling
    prompts: dict[Side, str]
    max_tokens: dict[Side, int]
    own_max_tokens: int
    stated: Layout
    composed: bool = True
    normalized: bool = True


class Encoder(nn.Module):
    """A dual encoder with shared weights.

    It consists of prompt, tokenizer, transformer, pooling, dense layers (if any) and L2 norm.
    `model` is the unmodified transformers module. `head` holds the dense layers after pooling
    (empty for most models). Both train. `Encoder.load` loads an encoder.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerFast,
        head: nn.Sequential,
        usage: Usage,
        *,
        source: Source,
        packs: bool,
    ):
        super().__init__()
        self.model = model
        self.head = head
        self.tokenizer = tokenizer
        self.source = source
        self.name = source.name
        self.commit = source.commit  # of a hub model; identifies exactly what was loaded
        self.usage = usage
        self._packs = packs
        self._halved: HalfWeights | None = None
        self.compiled: CompiledLayers | None = None
        self._first_position, _ = positions(model)

    @property
    def pooling(self) -> Pooling:
        """The pooling over the last hidden states."""
        return self.usage.pooling

    @property
    def prompts(self) -> dict[Side, str]:
        """The prompt in front of every text, by side."""
        return self.usage.prompts

    @property
    def max_tokens(self) -> dict[Side, int]:
        """The tokens kept of a text, by side, including prompt and special tokens."""
        return self.usage.max_tokens

    @classmethod
    def load(
        cls,
        name: str,
        *,
        pooling: Literal["auto"] | Pooling = "auto",
        query_prompt: str | None = None,
        passage_prompt: str | None = None,
        max_query_tokens: int = 64,
        max_passage_tokens: int = 256,
        trust_remote_code: bool = False,
        report: Reporter = SILENT,
    ) -> "Encoder":
        """Load an encoder in fp32 and evaluation mode, on the CPU.

        Args:
            name: a built-in model, a model folder, a run folder (the model inside it), or a hub id
                (``id@revision``).
            pooling: pooling over the last hidden states; auto: as the model's sentence-transformers
                files state, else mean.
            query_prompt, passage_prompt: prompt in front of every text; None: the model's own, else
                ``query: `` or ``passage: ``, with a note. A model that states a prompt for one side
                has none on the other.
            max_query_tokens, max_passage_tokens: tokens kept of a text, including prompt and
                special tokens; lowered with a note if the model has fewer positions.
            trust_remote_code: run code that comes with the model. Without it, no code of a model
                ever runs.
            report: notes.
        Raises: `ModelError`, in one line, for anything missing, damaged or not supported.
        """
        source = locate(name, report, trusted=trust_remote_code)
        sums = _require_whole(source)
        stated = read_layout(name, source.find, pooling=None if pooling == "auto" else pooling)
        model = _whole_transformer(source, sums)
        tokenizer = load_tokenizer(source, lower_case=stated.lower_case)
        rows = model.get_input_embeddings().weight.shape[0]
        if len(tokenizer) > rows:
            raise ModelError(
                f"{name}: its tokenizer has {len(tokenizer)} pieces but the model has {rows}"
                " embeddings; they do not belong together"
            )
        usage = Usage(
            pooling=stated.pooling or "mean",
            prompts={
                "query": _prompt("query", query_prompt, stated, name, report),
                "passage": _prompt("passage", passage_prompt, stated, name, report),
            },
            max_tokens=_lengths(model, name, max_query_tokens, max_passage_tokens, report),
            own_max_tokens=_own_length(model, tokenizer, stated),
            stated=stated,
        )
        use_cheap_dropout(model)
        packs = use_packed_attention(model)
        if not packs:
            report.note(
                f"{name}: sequences of a {model.config.model_type} cannot be packed. Texts of"
                " similar length are padded together instead, with the same result, but a"
                " little slower"
            )
        head = load_head(source, stated.dense)
        encoder = cls(model, tokenizer, head, usage, source=source, packs=packs)
        if stated.truncate_dim is not None and stated.truncate_dim < encoder.dimension:
            raise ModelError(
                f"{name}: its config_sentence_transformers.json cuts vectors to truncate_dim"
                f" {stated.truncate_dim}, which is not supported; take this field out of a copy"
                f" of the model to use all {encoder.dimension} values"
            )
        return encoder.eval()

    def using(self, **changes: Any) -> "Encoder":
        """An encoder with the same weights and another usage: `changes` to the fields of `Usage`.

        The result shares its modules with this encoder, so it trains and moves with it.
        """
        other = copy.copy(self)
        other.usage = replace(self.usage, **changes)
        return other

    def saved_and_loaded(
        self,
        *,
        pooling: Literal["auto"] | Pooling = "auto",
        query_prompt: str | None = None,
        passage_prompt: str | None = None,
        max_query_tokens: int = 64,
        max_passage_tokens: int = 256,
        trust_remote_code: bool = False,
    ) -> "Encoder":
        """The encoder that `load`, with these arguments, would read from a folder of `save`.

        It embeds texts with the same bits as that one, and shares its modules with this encoder.
        """
        stated = replace(self.usage.stated, normalized=True, similarity="cosine")
        prompts = dict(self.prompts)
        if query_prompt is not None:
            prompts["query"] = unicodedata.normalize("NFC", query_prompt)
        if passage_prompt is not None:
            prompts["passage"] = unicodedata.normalize("NFC", passage_prompt)
        return self.using(
            pooling=self.pooling if pooling == "auto" else pooling,
            prompts=prompts,
            max_tokens=_lengths(
                self.model, self.name, max_query_tokens, max_passage_tokens, SILENT
            ),
            stated=stated,
        )

    def weights_checksum(self) -> str:
        """Hex XXH3 of the names and bits of all weights; ten times as fast as `fingerprint`."""
        digest = xxh3_128()
        for name, weight in self.state_dict().items():
            values = weight.detach().cpu().contiguous().reshape(-1)
            digest.update(f"{name} {weight.dtype} {tuple(weight.shape)}\n".encode())
            digest.update(values.view(torch.uint8).numpy().data if len(values) else b"")
        return digest.hexdigest()

    @property
    def dimension(self) -> int:
        """D, the length of an embedding."""
        return (
            self.head[-1].linear.out_features
            if len(self.head)
            else self.model.config.hidden_size
        )

    @property
    def device(self) -> torch.device:
        """The device of the weights."""
        return next(self.model.parameters()).device

    def tokenise(self, texts: Sequence[str], side: Side) -> TokenArrays:
        """Token ids of n texts, with prompt and special tokens, cut to the length of the side.

        Texts are converted to NFC first.

        Raises: `DataError` that names the index of a text that is not valid Unicode or gives no
            token.
        """
        prompt, parts = self.prompts[side], []
        for start in range(0, len(texts), TEXTS_PER_CALL):
            chunk = [prompt + text for text in texts[start : start + TEXTS_PER_CALL]]
            if self.usage.composed:
                chunk = [unicodedata.normalize("NFC", text) for text in chunk]
            try:
                encoded = self.tokenizer(
                    chunk,
                    truncation=True,
                    max_length=self.max_tokens[side],
                    return_attention_mask=False,
                    return_token_type_ids=False,
                )
            except (TypeError, UnicodeEncodeError) as error:
                raise _bad_text(texts, start, error) from error
            parts.append(TokenArrays.of(encoded["input_ids"]))
        tokens = TokenArrays.concatenate(parts)
        _refuse_empty(tokens, side)
        return tokens

    def embed(self, tokens: TokenArrays, precision: ResolvedPrecision = "fp32") -> Tensor:
        """Embeddings [n, D] of n token sequences, in the given order.

        Rows are L2-normalised, but for a usage that says otherwise.

        The result is differentiable, and no padding is computed (see `hybridbatch.model.packed`).
        The modules decide between training and evaluation mode. In training mode dropout draws from
        torch's current generator, so restoring its state repeats the masks. Word embeddings are
        read only through ``model.get_input_embeddings()``, which may hold fewer rows if the ids
        match.

        Args:
            tokens: the sequences.
            precision: precision of the matrix products; sums, norms and the result are at least
                fp32.
        Raises: `DataError` for an empty sequence.
        """
        vectors = self.pooled(tokens, precision)
        return F.normalize(vectors, dim=1) if self.usage.normalized else vectors

    def pooled(self, tokens: TokenArrays, precision: ResolvedPrecision = "fp32") -> Tensor:
        """The result of `embed` before the vectors are normalised to length 1."""
        _refuse_empty(tokens, "token")
        if not len(tokens):
            return torch.empty(0, self.dimension, device=self.device)
        order = np.argsort(tokens.lengths, kind="stable")
        ordered = tokens.take(order)
        ids = upload(ordered.ids.astype(np.int64), self.device)
        with autocast(precision, self.device), self._half_weights(precision):
            if self._packs:
                with self._rotary():
                    hidden = forward_packed(
                        self.model, ids, ordered.lengths, self._first_position
                    )
            else:
                hidden = forward_padded(self.model, ids, ordered.lengths)
            pooled = self.head(self._pool(hidden, ordered.offsets))
        values = _at_least_fp32(pooled)
        return values.index_select(0, upload(np.argsort(order), self.device))

    @contextmanager
    def weights_fixed(self, precision: ResolvedPrecision) -> Iterator[None]:
        """State that the weights do not change inside the block.

        On a GPU, all forward passes in it share one copy of the weights in `precision`.
        """
        if not self._halves(precision) or self._halved is not None:
            yield
            return
        self._halved = HalfWeights(self, HALF[precision])
        try:
            yield
        finally:
            self._halved = None

    def _half_weights(self, precision: ResolvedPrecision) -> AbstractContextManager[None]:
        """Use copies of the weights in `precision` for a forward pass on a GPU."""
        if not self._halves(precision):
            return nullcontext()
        return (self._halved or HalfWeights(self, HALF[precision])).used()

    def _halves(self, precision: ResolvedPrecision) -> bool:
        """Whether this encoder makes copies of its weights; compiled layers cast them themselves."""
        return precision != "fp32" and self.device.type == "cuda" and self.compiled is None

    def compile_layers(self) -> None:
        """Compile the transformer's layers, until `restore_layers`.

        Raises: `ConfigError` if its layers are not found.
        """
        self.compiled = CompiledLayers(self.model)

    def restore_layers(self) -> None:
        """Undo `compile_layers`."""
        if self.compiled is not None:
            self.compiled.remove()
            self.compiled = None

    def _rotary(self) -> AbstractContextManager[None]:
        """Turn queries and keys with few kernels on a GPU."""
        if self.device.type != "cuda" or self.compiled is not None:
            return nullcontext()
        return fused_rotary(self.model)

    def _pool(self, hidden: Tensor, offsets: np.ndarray) -> Tensor:
        """[n, D] from token states [T, D].

        The sums are in at least fp32 and always in the same order.
        """
        if self.pooling in ("cls", "lasttoken"):
            places = offsets[:-1] if self.pooling == "cls" else offsets[1:] - 1
            return _at_least_fp32(hidden.index_select(0, upload(places, hidden.device)))
        lengths, states = upload(np.diff(offsets), hidden.device), _at_least_fp32(hidden)
        # unsafe: the lengths are right, and checking them would mean waiting for the GPU
        return torch.segment_reduce(states, "mean", lengths=lengths, axis=0, unsafe=True)

    def encode(
        self,
        texts: Sequence[str],
        side: Side,
        *,
        precision: Precision = "auto",
        kernels: Kernels = PLAIN,
        report: Reporter = SILENT,
    ) -> np.ndarray:
        """Embeddings for search, float32 [n, D], in the order of `texts`.

        Rows are L2-normalised, but for a usage that says otherwise. Each distinct text is embedded once.

        Args:
            texts: the texts, without prompts.
            side: queries or passages.
            precision: auto: bf16 if the machine computes it fast, else fp32.
            kernels: a result of `hybridbatch.model.inference.resolve_kernels`; vectors of other
                kernels differ by about 1e-7 in fp32.
            report: progress.
        Raises: `DataError` as in `tokenise`; `ModelError` that names the first text whose embedding
            is not finite.
        """
        place = {text: row for row, text in enumerate(dict.fromkeys(texts))}
        distinct = list(place)
        result = np.empty((len(distinct), self.dimension), np.float32)
        resolved = resolve_precision(precision, self.device)
        training = self.model.training
        self.eval()
        try:
            # The outer autocast keeps its bf16 copies of the weights from batch to batch.
            with (
                torch.no_grad(),
                autocast(resolved, self.device),
                self.weights_fixed(resolved),
                inference_kernels(self, kernels, resolved),
                report.bar("encode", total=len(distinct), unit="texts") as bar,
            ):
                arrivals = Arrivals(result)
                for start, tokens in self._tokenised(distinct, side):

                    def fill(
                        rows: np.ndarray, start: int = start, tokens: TokenArrays = tokens
                    ) -> None:
                        arrivals.put(start + rows, self.embed(tokens.take(rows), resolved))
                        bar.advance(len(rows))

                    budget = TOKENS_PER_BATCH.get(self.device.type, 8192)
                    for rows in _batches(tokens.lengths, budget):
                        in_parts(rows, fill)
                arrivals.finish()
        finally:
            self.train(training)
        require_finite_embeddings(result, distinct, self.name)
        return result[[place[text] for text in texts]] if len(distinct) < len(texts) else result

    def _tokenised(self, texts: Sequence[str], side: Side) -> Iterator[tuple[int, TokenArrays]]:
        """The tokens of all texts, each part with the number of its first text.

        For a GPU the tokens come in parts. Another thread makes the next part while the GPU
        computes.
        """
        if self.device.type != "cuda" or len(texts) <= TEXTS_AHEAD:
            yield 0, self.tokenise(texts, side)
            return
        starts = range(0, len(texts), TEXTS_AHEAD)
        with ThreadPoolExecutor(1) as thread:
            waiting = thread.submit(self.tokenise, texts[:TEXTS_AHEAD], side)
            for start in starts:
                try:
                    tokens = waiting.result()
                except DataError:
                    self.tokenise(texts, side)  # names the text by its place among all
                    raise
                after = texts[start + TEXTS_AHEAD : start + 2 * TEXTS_AHEAD]
                waiting = thread.submit(self.tokenise, after, side)
                yield start, tokens

    def fingerprint(self) -> str:
        """Hex sha256 of everything that decides an embedding, except precision.

        That is weights, tokenizer, prompts, pooling and lengths.
        """
        digest = hashlib.sha256()
        for name, weight in self.state_dict().items():
            digest.update(f"{name} {tuple(weight.shape)} ".encode())
            digest.update(weight.detach().float().cpu().contiguous().numpy().data)
        settings: dict[str, Any] = {
            "pooling": self.pooling,
            "prompts": self.prompts,
            "max_tokens": self.max_tokens,
        }
        if not self.usage.composed:
            settings["composed"] = False
        if not self.usage.normalized:
            settings["normalized"] = False
        digest.update(json.dumps([settings, *map(str, self.head)], sort_keys=True).encode())
        digest.update(self._tokenizer_text().encode())
        return digest.hexdigest()

    def tokens_key(self) -> str:
        """Hex hash of everything that decides the tokens of a text: tokenizer, prompts, lengths."""
        parts = [self.prompts, self.max_tokens, self._tokenizer_text()]
        return fingerprint(parts, length=32)

    def _tokenizer_text(self) -> str:
        """The tokenizer as JSON, without the NFC step that `save` puts in front.

        Texts are already in NFC when they reach the tokenizer.
        """
        text = self._plain_tokenizer().backend_tokenizer.to_str()
        return plain_json(text) if self.usage.composed else text

    def save(self, folder: Path, card: str) -> None:
        """Write a folder that `SentenceTransformer`, `AutoModel` + `AutoTokenizer` and `load` read.

        The folder appears whole or not at all.

        Args:
            folder: the folder to write.
            card: text of the model card (README.md).
        Raises: `OutputError` if it cannot be written.
        """
        with atomic_folder(folder) as temporary, quiet():
            try:
                self.model.save_pretrained(temporary)
                save_tokenizer(self._plain_tokenizer(), temporary)
                dense = write_head(temporary, self.head)
            except SafetensorError as error:  # safetensors raises it when the disk is full
                raise OutputError(
                    f"{folder}: the weights cannot be written ({error})"
                ) from error
            write_layout(
                temporary,
                dimension=self.model.config.hidden_size,
                pooling=self.pooling,
                prompts=self.prompts,
                max_tokens=self.usage.own_max_tokens,
                dense=dense,
                stated=self.usage.stated,
            )
            write_text(temporary / "README.md", card)
            write_sums(temporary)

    def _plain_tokenizer(self) -> PreTrainedTokenizerFast:
        """The tokenizer with the truncation of its last call switched off."""
        self.tokenizer.backend_tokenizer.no_truncation()
        self.tokenizer.backend_tokenizer.no_padding()
        return self.tokenizer


def _prompt(side: Side, wanted: str | None, stated: Layout, name: str, report: Reporter) -> str:
    """The prompt of a side, in NFC.

    It is the user's, else the model's, else the default, which is announced.
    """
    if wanted is None and not stated.states_prompts:
        report.note(
            f"{name}: states no prompt for a {side}, so {DEFAULT_PROMPTS[side]!r} is put"
            f" before each; --{side}-prompt '' leaves it out"
        )
    prompt = stated.prompt(side) if wanted is None else wanted
    return unicodedata.normalize("NFC", DEFAULT_PROMPTS[side] if prompt is None else prompt)


def _lengths(
    model: PreTrainedModel, name: str, query: int, passage: int, report: Reporter
) -> dict[Side, int]:
    """Tokens kept of a text, by side: the wanted number, at most the model's positions."""
    _, places = positions(model)
    lengths: dict[Side, int] = {"query": query, "passage": passage}
    for side, length in lengths.items():
        if length > places:
            lengths[side] = places
            report.note(
                f"{name}: has {places} positions, so max_{side}_tokens is {places}, not {length}"
            )
    return lengths


def _own_length(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, stated: Layout
) -> int:
    """The length at which sentence-transformers cuts the texts of a model.

    The model's files state it; else it is the limit of the tokenizer or of the positions.
    """
    _, places = positions(model)
    if stated.max_tokens is not None:
        return min(stated.max_tokens, places)
    table = getattr(model.config, "max_position_embeddings", None) or places
    return min(tokenizer.model_max_length, table, places)


class Arrivals:
    """Moves embeddings to the host.

    From a GPU, each part is copied while the next one is computed.

    Args:
        result: float32 [n, D], filled in place.
    """

    def __init__(self, result: np.ndarray) -> None:
        self._result = result
        self._travelling: tuple[np.ndarray, Tensor, Any] | None = None

    def put(self, rows: np.ndarray, values: Tensor) -> None:
        """Take `values` [m, D] as the values of `rows` (int [m])."""
        if values.device.type != "cuda":
            self._result[rows] = values.cpu().numpy()
            return
        copy = values.to("cpu", non_blocking=True)  # into pinned memory
        arrived = torch.cuda.current_stream(values.device).record_event()
        self.finish()
        self._travelling = rows, copy, arrived

    def finish(self) -> None:
        """Wait for the copies that are not complete."""
        if self._travelling is not None:
            rows, copy, arrived = self._travelling
            arrived.synchronize()
            self._result[rows] = copy.numpy()
            self._travelling = None


def positions(model: PreTrainedModel) -> tuple[int, int]:
    """The position id of a first token, and the number of tokens that the model has positions for.

    RoBERTa's descendants have a padding row in their table of positions and count from the row
    after it.
    """
    for name, module in model.named_modules():
        if name.endswith("position_embeddings") and isinstance(module, nn.Embedding):
            first = 0 if module.padding_idx is None else module.padding_idx + 1
            return first, module.num_embeddings - first
    return 0, getattr(model.config, "max_position_embeddings", None) or 1 << 30


def _batches(lengths: np.ndarray, budget: int) -> list[np.ndarray]:
    """Rows in batches of about `budget` tokens, longest texts first."""
    order = np.argsort(-lengths, kind="stable")
    batch = (np.cumsum(lengths[order]) - 1) // budget
    return np.split(order, np.flatnonzero(np.diff(batch)) + 1) if len(order) else []


def _at_least_fp32(values: Tensor) -> Tensor:
    return values.to(torch.promote_types(values.dtype, torch.float32))


def _require_whole(source: Source) -> Mapping[str, str]:
    """Compare a model's files, but not its weights, with the checksums that `Encoder.save` wrote.

    Returns: the checksums of the weights by file; empty if there are none.
    Raises: `ModelError` that names the changed file.
    """
    folder = Path(source.location)
    weights = {
        name: expected
        for name, expected in read_sums(folder).items()
        if "/" not in name and name.endswith(".safetensors")
    }
    try:
        check_sums(folder, _mend(source), without=weights)
    except DataError as error:
        raise ModelError(str(error)) from error
    return weights


def _whole_transformer(source: Source, sums: Mapping[str, str]) -> PreTrainedModel:
    """The transformer, whose weights have the checksums `sums`.

    Raises: `ModelError` for damaged weights.
    """
    folder, tensors = Path(source.location), {}
    try:
        try:
            model = load_transformer(source)
        except ModelError:
            for name, expected in sums.items():  # this error says more
                check_file(folder / name, expected, _mend(source))
            raise
        for name, weight in model.state_dict().items():
            bytes_ = weight.detach().contiguous().reshape(-1).view(torch.uint8)
            tensors[name] = bytes_.numpy().data if len(bytes_) else b""
        for name, expected in sums.items():
            check_tensors(folder / name, expected, tensors, _mend(source))
    except DataError as error:
        raise ModelError(str(error)) from error
    return model


def _mend(source: Source) -> str:
    again = "delete the folder" if source.name in BUILTIN else "train or fetch the model again"
    return f"{again}; to keep an edit, delete {Path(source.location, SUMS)}"


def _refuse_empty(tokens: TokenArrays, kind: str) -> None:
    empty = np.flatnonzero(tokens.lengths == 0)
    if len(empty):
        raise DataError(
            f"{kind} sequence {empty[0]} has no tokens: the text is empty, or the tokenizer"
            " drops all of it"
        )


def _bad_text(texts: Sequence[str], start: int, error: Exception) -> DataError:
    for index in range(start, min(start + TEXTS_PER_CALL, len(texts))):
        try:
            texts[index].encode()
        except (AttributeError, UnicodeEncodeError):
            return DataError(f"text {index} is not valid Unicode text: {texts[index]!r:.80}")
    return DataError(
        f"texts {start} to {start + TEXTS_PER_CALL}: cannot be tokenised ({error})"
    )
