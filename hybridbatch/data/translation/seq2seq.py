"""Translators of the NLLB-200 and M2M-100 families, run on this machine.

Sources: arXiv:2207.04672 (NLLB-200), arXiv:2010.11125 (M2M-100). Both models were trained on single
sentences, so they translate sentence by sentence.
"""

import re
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer, GenerationConfig

from hybridbatch.common.device import autocast, resolve_device, resolve_precision
from hybridbatch.common.errors import DataError, ModelError
from hybridbatch.common.files import fingerprint, sha256_file
from hybridbatch.common.languages import canonical
from hybridbatch.common.progress import Reporter
from hybridbatch.data.translation.sentences import split
from hybridbatch.data.translation.translators import Decoding
from hybridbatch.model.loading import first_line, load_config, load_weights, locate, quiet

MAX_TOKENS = 512  # of a sentence, special tokens included: the models' training length
_FLORES = re.compile(r"[a-z]{3}_[A-Z][a-z]{3}")  # how NLLB's tokenizer names languages
_FILES = re.compile(r".*\.(json|bin|model|safetensors|txt)")


class Seq2SeqTranslator:
    """An encoder-decoder with a token for every language, decoded greedily or with beams."""

    def __init__(self, name: str, decoding: Decoding, report: Reporter) -> None:
        """Find the model and load its tokenizer; the first text loads the weights.

        Raises:
            ModelError: The model cannot be loaded, or belongs to an unknown family.
        """
        self.name = name
        self._source, self._decoding = locate(name, report), decoding
        self._device = resolve_device(decoding.device)
        self._precision = resolve_precision(decoding.precision, self._device)
        try:
            with quiet():
                self._tokenizer: Any = AutoTokenizer.from_pretrained(
                    self._source.location, trust_remote_code=False
                )
        except (
            Exception
        ) as error:  # third-party readers of several formats raise any type of error
            raise ModelError(
                f"{name}: its tokenizer cannot be loaded ({first_line(error)})"
            ) from error
        self._codes = dict(_language_codes(self._tokenizer))
        if not self._codes:
            raise ModelError(
                f"{name}: its {type(self._tokenizer).__name__} has no language tokens of"
                " NLLB-200 or M2M-100; give a model of these two families"
            )

    def describe(self) -> dict[str, Any]:
        """The model by commit or content, and the decoding.

        Batch size, device and library are left out, because they change only rounding.
        """
        return {
            "kind": "seq2seq",
            "name": self._source.repository or Path(self._source.location).name,
            "revision": self._source.commit or self._content,
            "beams": self._decoding.beams,
            "max_tokens": MAX_TOKENS,
            "precision": self._precision,
        }

    def speaks(self, language: str) -> bool:
        """Whether the tokenizer has a token for a canonical language."""
        return language in self._codes

    def pieces(self, text: str, language: str) -> list[tuple[str, str]]:
        """The sentences of a text."""
        return split(text, language)

    def batches(self, pieces: Sequence[str], source: str) -> list[list[int]]:
        """Batches of pieces of similar length, longest first.

        A batch has at most `Decoding.batch_tokens` tokens.
        """
        lengths = (
            [len(ids) for ids in self._encode(pieces, source)["input_ids"]] if pieces else []
        )
        order = sorted(
            range(len(pieces)), key=lambda number: (-lengths[number], pieces[number])
        )
        batches: list[list[int]] = []
        for number in order:
            if (
                not batches
                or (len(batches[-1]) + 1) * lengths[batches[-1][0]]
                > self._decoding.batch_tokens
            ):
                batches.append([])
            batches[-1].append(number)
        return batches

    def translate(self, pieces: Sequence[str], source: str, target: str) -> list[str | None]:
        """Translations of one batch.

        None marks a piece whose source or translation has more tokens than the model takes.
        """
        encoded = self._encode(pieces, source)["input_ids"]
        fitting = [number for number, ids in enumerate(encoded) if len(ids) <= MAX_TOKENS]
        found: list[str | None] = [None] * len(pieces)
        if fitting:
            batch = self._tokenizer.pad(
                {"input_ids": [encoded[number] for number in fitting]}, return_tensors="pt"
            )
            tokens = self._generate(
                batch, target, max(len(encoded[number]) for number in fitting)
            )
            ends = (tokens == self._tokenizer.eos_token_id).any(1).tolist()
            texts = self._tokenizer.batch_decode(tokens, skip_special_tokens=True)
            for number, text, ended in zip(fitting, texts, ends, strict=True):
                found[number] = text.strip() if ended else None
        return found

    def _encode(self, pieces: Sequence[str], source: str) -> Any:
        self._tokenizer.src_lang = self._codes[source][0]
        return self._tokenizer(list(pieces), truncation=False, verbose=False)

    def _generate(self, batch: Any, target: str, longest: int) -> torch.Tensor:
        """Token ids [n, T] of the translations, without the start token and the language token."""
        model, settings = self._model
        config = GenerationConfig(
            **settings,
            forced_bos_token_id=self._codes[target][1],
            max_new_tokens=min(3 * longest + 16, MAX_TOKENS),
        )
        with torch.inference_mode(), autocast(self._precision, self._device):
            tokens = model.generate(
                input_ids=batch["input_ids"].to(self._device),
                attention_mask=batch["attention_mask"].to(self._device),
                generation_config=config,
            )
        return tokens[:, 2:]

    @cached_property
    def _model(self) -> tuple[Any, dict[str, Any]]:
        model, _ = load_weights(AutoModelForSeq2SeqLM, self._source, load_config(self._source))
        given = model.generation_config
        settings = {
            "num_beams": self._decoding.beams,
            "do_sample": False,
            "length_penalty": 1.0,
            "early_stopping": False,
            "decoder_start_token_id": given.decoder_start_token_id,
            **{
                name: getattr(self._tokenizer, name)
                for name in ("pad_token_id", "bos_token_id", "eos_token_id")
            },
        }
        # ignore the repository's decoding settings
        model.generation_config = GenerationConfig()
        return model.to(self._device), settings

    @cached_property
    def _content(self) -> str:
        """Hash of the files of a model folder."""
        folder = Path(self._source.location)
        files = sorted(
            path for path in folder.iterdir() if path.is_file() and _FILES.fullmatch(path.name)
        )
        return fingerprint([[path.name, sha256_file(path)] for path in files], 40)


def _language_codes(tokenizer: Any) -> Iterator[tuple[str, tuple[str, int]]]:
    """(canonical language, (the tokenizer's code, the id of the language token))."""
    known = getattr(tokenizer, "lang_code_to_id", None)  # of M2M-100
    if known is None:
        known = {
            token: number
            for token, number in tokenizer.get_added_vocab().items()
            if _FLORES.fullmatch(token)
        }
    for code, number in known.items():
        try:
            yield canonical(code), (code, number)
        except DataError:
            continue  # unknown to the registry, so nobody can ask for it
