"""Rerankers: a cross-encoder that reads query and passage together, or a language model that ranks
lists.
"""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from typing import Any, Protocol

import numpy as np
import torch

from hybridbatch.common.device import HALF, ResolvedPrecision, autocast
from hybridbatch.common.errors import ModelError
from hybridbatch.common.memory import in_parts
from hybridbatch.common.progress import SILENT, Reporter
from hybridbatch.model.encoder import positions
from hybridbatch.model.loading import Source, load_config, load_tokenizer, load_weights, locate
from hybridbatch.scoring.reranking import lists

# of query and passage together, special tokens included; fewer where the model has fewer positions
PAIR_TOKENS = 512
# of each passage in a list; fewer where the lists would not fit into the model's positions
PASSAGE_TOKENS = 300
QUERY_TOKENS = 128
LEAST_TOKENS = 16  # of a passage in a list: with less, there is nothing to judge
CONTEXT = 8192  # of a language model that states no number of positions
TOKENS_PER_BATCH = {"cpu": 8192, "cuda": 65_536}
SAMPLE = 256  # texts that are tokenised to estimate the cost
Precision = ResolvedPrecision


class Reranker(Protocol):
    """What orders the first passages of rankings anew."""

    kind: str
    name: str

    def orders(
        self,
        queries: Sequence[str],
        tops: Mapping[str, np.ndarray],
        passages: Sequence[str],
        report: Reporter = SILENT,
    ) -> dict[str, np.ndarray]:
        """New orders of the first passages.

        Args:
            queries: Q texts.
            tops: by ranking, int [Q, k]: numbers of the first k passages; a row of -1 is left as it
                is.
            passages: texts.
        Returns: by ranking, int64 [Q, k]: the places (from 0) of the former order, best first.
        """

    def cost(
        self, rankings: int, depth: int, queries: Sequence[str], passages: Sequence[str]
    ) -> str:
        """What reranking the first `depth` passages of so many rankings takes at most, in words."""

    def facts(self) -> dict[str, Any]:
        """What it did so far, and what it is, for the results file."""


def load_reranker(
    name: str, *, device: torch.device, precision: Precision, report: Reporter = SILENT
) -> Reranker:
    """The reranker in a folder or hub repository; which kind, its config.json says.

    Raises: `ModelError` for what is neither a sequence classifier with one output nor a causal
        language model, and for missing or damaged files.
    """
    source = locate(name, report)
    config = load_config(source)
    architecture = (getattr(config, "architectures", None) or ["none"])[0]
    if architecture.endswith("ForSequenceClassification"):
        if config.num_labels != 1:
            raise ModelError(
                f"{name}: gives {config.num_labels} numbers for a pair, but a reranker gives"
                " one; choose another model"
            )
        return CrossEncoder(source, config, device, precision)
    if architecture.endswith("ForCausalLM"):
        return ListwiseReranker(source, config, device, precision)
    raise ModelError(
        f"{name}: is a {architecture}; a reranker is a model for sequence classification with one"
        " output, or a causal language model"
    )


class CrossEncoder:
    """A sequence classifier with one output: the score of query and passage read together. Equal
    scores keep their order.

    Source: Nogueira and Cho, "Passage Re-ranking with BERT", arXiv:1901.04085.
    """

    kind = "cross-encoder"

    def __init__(
        self, source: Source, config: Any, device: torch.device, precision: Precision
    ) -> None:
        from transformers import AutoModelForSequenceClassification

        self.name = source.name
        self._precision: Precision = precision
        self._model = load_weights(AutoModelForSequenceClassification, source, config)[0].to(
            device
        )
        self._tokenizer = _own_tokenizer(source, self._model)
        self._length = min(
            PAIR_TOKENS, self._tokenizer.model_max_length, positions(self._model)[1]
        )
        self._pairs = 0

    def score(self, pairs: Sequence[tuple[str, str]], report: Reporter = SILENT) -> np.ndarray:
        """float32 [n] of n pairs of query and passage. Raises: `ModelError` for a score that is not
        finite.
        """
        tokens = self._tokenizer(
            [query for query, _ in pairs],
            [passage for _, passage in pairs],
            truncation=True,
            max_length=self._length,
        )
        lengths = np.array([len(ids) for ids in tokens["input_ids"]])
        scores = np.empty(len(pairs), np.float32)
        device = self._model.device
        with (
            torch.inference_mode(),
            autocast(self._precision, device),
            report.bar("rerank", len(pairs), "pairs") as bar,
        ):

            def fill(rows: np.ndarray) -> None:
                chosen = {}
                for name, values in tokens.items():
                    chosen[name] = [values[row] for row in rows]
                batch = self._tokenizer.pad(chosen, return_tensors="pt")
                scores[rows] = (
                    self._model(**batch.to(device)).logits[:, 0].float().cpu().numpy()
                )
                bar.advance(len(rows))

            for rows in _batches(lengths, TOKENS_PER_BATCH.get(device.type, 8192)):
                in_parts(rows, fill)
        bad = np.flatnonzero(~np.isfinite(scores))
        if len(bad):
            raise ModelError(
                f"{self.name}: gives no finite score for {len(bad)} pairs (first:"
                f" {pairs[bad[0]]!r:.80})"
            )
        self._pairs += len(pairs)
        return scores

    def orders(
        self,
        queries: Sequence[str],
        tops: Mapping[str, np.ndarray],
        passages: Sequence[str],
        report: Reporter = SILENT,
    ) -> dict[str, np.ndarray]:
        """As `Reranker`; a pair that several rankings have is read once."""
        wanted: dict[tuple[str, str], int] = {}
        places = {}
        for name, top in tops.items():
            numbers = []
            for query, rows in zip(queries, top.tolist(), strict=True):
                for row in rows:
                    if row < 0:
                        numbers.append(-1)
                    else:
                        pair = (query, passages[row])
                        numbers.append(wanted.setdefault(pair, len(wanted)))
            places[name] = np.array(numbers, np.int64).reshape(top.shape)
        scores = np.append(
            self.score(list(wanted), report), 0.0
        )  # the last one for -1: all equal
        return {
            name: np.argsort(-scores[place], axis=1, kind="stable")
            for name, place in places.items()
        }

    def cost(
        self, rankings: int, depth: int, queries: Sequence[str], passages: Sequence[str]
    ) -> str:
        """As `Reranker`."""
        length = _mean_tokens(self._tokenizer, queries) + _mean_tokens(
            self._tokenizer, passages
        )
        pairs = rankings * depth
        return (
            f"at most {pairs:,} pairs, {_work(self._model, pairs * min(length, self._length))}"
        )

    def facts(self) -> dict[str, Any]:
        """As `Reranker`."""
        return {"pairs": self._pairs, "fingerprint": _fingerprint(self._model)}


class ListwiseReranker:
    """A causal language model that is shown a window of passages and answers with their order.

    Sources: RankGPT (Sun et al., EMNLP 2023, arXiv:2304.09542); for African languages, Adeyemi et
    al., ACL 2024, arXiv:2312.16159.
    """

    kind = "listwise"

    def __init__(
        self, source: Source, config: Any, device: torch.device, precision: Precision
    ) -> None:
        from transformers import AutoModelForCausalLM

        self.name = source.name
        dtype = HALF.get(precision, torch.float32)
        self._model = load_weights(AutoModelForCausalLM, source, config, dtype)[0].to(device)
        self._tokenizer = _own_tokenizer(source, self._model)
        self._tokenizer.padding_side = "left"
        # what it says itself may be a guess
        self._tokenizer.model_max_length = positions(self._model)[1]
        answer = self._tokenizer(lists.longest_answer(lists.WINDOW), add_special_tokens=False)[
            "input_ids"
        ]
        frame = self._tokenizer(
            self._framed(lists.prompt("", [""] * lists.WINDOW)), add_special_tokens=False
        )["input_ids"]
        self._new_tokens = len(answer) + 8
        context = min(positions(self._model)[1], CONTEXT)
        room = context - self._new_tokens - len(frame) - 2 * QUERY_TOKENS
        self._passage_tokens = min(PASSAGE_TOKENS, room // lists.WINDOW)
        if self._passage_tokens < LEAST_TOKENS:
            raise ModelError(
                f"{source.name}: has {context} positions, too few for lists of {lists.WINDOW}"
                " passages"
            )
        self._generate: Callable[[Sequence[str]], list[str]] = self._answers
        self.windows = self.malformed = self.unread = 0

    def orders(
        self,
        queries: Sequence[str],
        tops: Mapping[str, np.ndarray],
        passages: Sequence[str],
        report: Reporter = SILENT,
    ) -> dict[str, np.ndarray]:
        """As `Reranker`; windows of all rankings that are at the same place are asked together."""
        found = {
            name: np.tile(np.arange(top.shape[1]), (len(top), 1)) for name, top in tops.items()
        }
        jobs = [
            (name, row)
            for name, top in tops.items()
            for row in np.flatnonzero((top >= 0).all(axis=1)).tolist()
        ]
        slides = {name: lists.windows(top.shape[1]) for name, top in tops.items()}
        with report.bar("rerank", sum(len(slides[name]) for name, _ in jobs), "windows") as bar:
            for number in range(max(map(len, slides.values()), default=0)):
                asked = [
                    (name, row, *slides[name][number])
                    for name, row in jobs
                    if number < len(slides[name])
                ]
                prompts = []
                for name, row, start, end in asked:
                    shown = [
                        passages[place]
                        for place in tops[name][row][found[name][row, start:end]].tolist()
                    ]
                    prompts.append(self._prompt(queries[row], shown))
                for (name, row, start, end), answer in zip(
                    asked, self._generate(prompts), strict=True
                ):
                    order, well_formed = lists.read_answer(answer, end - start)
                    self.windows += 1
                    self.malformed += not well_formed
                    self.unread += not any(character.isdigit() for character in answer)
                    found[name][row, start:end] = found[name][row, start:end][order]
                bar.advance(len(asked))
        return found

    def _prompt(self, query: str, passages: Sequence[str]) -> str:
        return self._framed(
            lists.prompt(
                self._cut(query, QUERY_TOKENS),
                [self._cut(text, self._passage_tokens) for text in passages],
            )
        )

    def _framed(self, text: str) -> str:
        if not self._tokenizer.chat_template:
            return f"{text}\n\nRanking: "
        return self._tokenizer.apply_chat_template(
            [{"role": "user", "content": text}],
            tokenize=False,
            add_generation_prompt=True,
            enable_thinking=False,
        )

    def _cut(self, text: str, tokens: int) -> str:
        spans = self._tokenizer(
            text,
            truncation=True,
            max_length=tokens,
            add_special_tokens=False,
            return_offsets_mapping=True,
        )["offset_mapping"]
        return text[: spans[-1][1]] if spans else text

    def _answers(self, prompts: Sequence[str]) -> list[str]:
        """Greedy answers."""
        special = not self._tokenizer.chat_template  # a template brings its own special tokens
        tokens = self._tokenizer(list(prompts), add_special_tokens=special)["input_ids"]
        answers = [""] * len(prompts)
        device = self._model.device
        budget = TOKENS_PER_BATCH.get(device.type, 8192)

        def fill(rows: np.ndarray) -> None:
            batch = self._tokenizer.pad(
                {"input_ids": [tokens[row] for row in rows]}, return_tensors="pt"
            ).to(device)
            with torch.inference_mode():
                made = self._model.generate(
                    **batch,
                    max_new_tokens=self._new_tokens,
                    do_sample=False,
                    temperature=None,
                    top_p=None,
                    top_k=None,
                    pad_token_id=self._tokenizer.pad_token_id,
                )
            width = batch["input_ids"].shape[1]
            for row, text in zip(
                rows,
                self._tokenizer.batch_decode(made[:, width:], skip_special_tokens=True),
                strict=True,
            ):
                answers[row] = text

        for rows in _batches(np.array([len(ids) for ids in tokens]), budget):
            in_parts(rows, fill)
        return answers

    def cost(
        self, rankings: int, depth: int, queries: Sequence[str], passages: Sequence[str]
    ) -> str:
        """As `Reranker`."""
        count = rankings * len(lists.windows(depth))
        shown = min(depth, lists.WINDOW)
        passage = min(_mean_tokens(self._tokenizer, passages), self._passage_tokens)
        length = (
            shown * (passage + 5)
            + 2 * _mean_tokens(self._tokenizer, queries)
            + 90
            + self._new_tokens
        )
        return f"at most {count:,} lists of {shown}, {_work(self._model, count * length)}"

    def facts(self) -> dict[str, Any]:
        """As `Reranker`; ``malformed`` answers were repaired, ``unread`` ones had no number at all."""
        return {
            "windows": self.windows,
            "malformed": self.malformed,
            "unread": self.unread,
            "window": lists.WINDOW,
            "step": lists.STEP,
            "fingerprint": _fingerprint(self._model),
        }


def _own_tokenizer(source: Source, model: Any) -> Any:
    """The model's tokenizer, to be set as needed here, with a padding token that the model knows,
    too.
    """
    tokenizer = deepcopy(load_tokenizer(source))
    if tokenizer.pad_token is None:
        if tokenizer.eos_token is None:
            raise ModelError(
                f"{source.name}: its tokenizer has neither a padding token nor an end token"
            )
        tokenizer.pad_token = tokenizer.eos_token
    model.config.pad_token_id = tokenizer.pad_token_id
    return tokenizer


def _batches(lengths: np.ndarray, budget: int) -> list[np.ndarray]:
    """Rows in batches of at most `budget` tokens after padding (or one row), longest first."""
    batches: list[list[int]] = []
    for row in np.argsort(-lengths, kind="stable").tolist():
        if batches and (len(batches[-1]) + 1) * lengths[batches[-1][0]] <= budget:
            batches[-1].append(row)
        else:
            batches.append([row])
    return [np.array(batch) for batch in batches]


def _mean_tokens(tokenizer: Any, texts: Sequence[str]) -> float:
    sample = list(texts[:: max(1, len(texts) // SAMPLE)])
    return (
        float(np.mean([len(ids) for ids in tokenizer(sample)["input_ids"]])) if sample else 0.0
    )


def _work(model: Any, tokens: float) -> str:
    """Tokens and arithmetic: twice the weights beside the embeddings for each token, attention not
    counted.
    """
    weights = (
        sum(weight.numel() for weight in model.parameters())
        - model.get_input_embeddings().weight.numel()
    )
    return f"about {tokens:,.0f} tokens, {2e-9 * weights * tokens:,.1f} GFLOP"


def _fingerprint(model: Any) -> str:
    digest = hashlib.sha256()
    for name, weight in model.state_dict().items():
        digest.update(f"{name} {tuple(weight.shape)} ".encode())
        digest.update(weight.detach().cpu().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
