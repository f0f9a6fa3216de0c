"""The settings of `hybridbatch eval`."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import field_validator, model_validator

from hybridbatch.common.languages import optional
from hybridbatch.common.settings import (
    CacheSettings,
    DataRootSettings,
    EncoderSettings,
    KernelSettings,
    MachineSettings,
    checked_memory_size,
    separated,
    setting,
    wanted_recall,
)

# names that `eval` takes in place of an encoder: `hybridbatch.scoring.baselines`
BM25, RANDOM = "bm25", "random"


class EvalConfig(
    EncoderSettings, DataRootSettings, MachineSettings, KernelSettings, CacheSettings
):
    """Settings of `hybridbatch eval`."""

    name: str | None = setting(
        None, "Run", "Name of the evaluation; default: made from the model and the tasks."
    )
    out: Path | None = setting(None, "Run", "Folder of the results; default: experiments/NAME.")
    model: str = setting(
        "e5-small-q4",
        "Model",
        "Run folder, built-in name, local folder, or hub id; or a baseline: bm25, random.",
    )
    debias: Path | None = setting(
        None,
        "Model",
        "Language vectors to subtract from the embeddings, as written by `hybridbatch debias`.",
    )
    tasks: tuple[str, ...] = setting(
        ("atlas",),
        "Tasks",
        "Built-in tasks, folders in BEIR layout (one folder per language), or mteb retrieval"
        " tasks by name.",
    )
    benchmark: str | None = setting(
        None,
        "Tasks",
        "Evaluate all text tasks of an mteb benchmark, by name or alias, such as"
        " 'MTEB(Africa, v1)'; a task that cannot be scored is named at the end.",
    )
    verify: int = setting(
        0,
        "Tasks",
        "Number of random subsets of each mteb task that stock mteb also scores, with its"
        " own loader of the model; the scores must be equal.",
        ge=0,
    )
    languages: str = setting(
        "all",
        "Tasks",
        "Languages to evaluate: ids, groups and exclusions, such as 'low-resource,-swh'. If"
        " there are several tasks, each is scored in the languages that it has.",
    )
    parallel: Literal["auto", "yes", "no"] = setting(
        "auto",
        "Tasks",
        "Whether equal ids in a folder mean equal questions in all languages, which"
        " cross-lingual and pool scores need; auto: yes, unless the lengths of the texts"
        " contradict it.",
    )
    passage_share: float = setting(
        1.0,
        "Tasks",
        "Share of the passages of large corpora that is searched, for trials: judged passages"
        " all stay, and at least 20,000 of a corpus. Fewer passages make questions easier.",
        gt=0,
        le=1,
    )
    ignore_identical_ids: bool = setting(
        False,
        "Tasks",
        "Leave the passage that has the query's id out of the query's ranking, as BEIR does"
        " (ArguAna, Quora).",
    )
    trained_languages: str | None = setting(
        None,
        "Tasks",
        "Languages the model was trained on; default: the languages in its train.json, else none.",
    )
    pool: Sequence[str] = setting(
        (),
        "Tasks",
        "Further pools beside the pool of all languages: each joins the corpora of one group"
        " of languages; separated by ';', such as 'low-resource;script:Arab'.",
    )
    index: Literal["auto", "exact", "flat", "ivf", "hnsw", "ivfpq"] = setting(
        "auto",
        "Search",
        "How passages are ranked. auto: rank all passages, or search as with exact if memory"
        " is too small; exact: find the first --depth passages from vectors on disk; others:"
        " a FAISS index, whose loss is measured.",
    )
    recall: float = wanted_recall()
    depth: int = setting(
        1000,
        "Search",
        "Number of passages listed per query when a corpus is searched and not ranked whole.",
        ge=10,
    )
    stored_as: Literal["float32", "float16"] = setting(
        "float32",
        "Search",
        "Type of stored vectors; float16 needs half the space and moves cosines by up to 0.001.",
    )
    shards: str | None = setting(
        None,
        "Search",
        "i/n: encode only the i-th of n parts of the searched corpora, and score nothing;"
        " for work on many machines.",
    )
    rerank: str | None = setting(
        None,
        "Reranking",
        "Model that reorders the first passages of every ranking: folder or hub id of a"
        " cross-encoder (sequence classification, one output), or of a causal language"
        " model, which ranks lists (RankGPT).",
    )
    rerank_depth: int = setting(
        100, "Reranking", "Number of passages of every ranking that --rerank reorders.", ge=2
    )
    cutoffs: tuple[int, ...] = setting(
        (1, 10, 100),
        "Metrics",
        "Values of k for recall@k; nDCG@10 and mAP are always computed.",
    )
    cache_limit: str | None = setting(
        None,
        "Machine",
        "Largest size of the embedding cache ('20GB'): the embeddings unused for longest are"
        " removed, except those that a running process uses.",
    )
    seed: int = setting(
        13,
        "Reproduction",
        "Seed of the subsets that stock mteb checks, and of the baseline random.",
        ge=0,
    )

    @property
    def several(self) -> bool:
        """Whether more than one task is evaluated."""
        return self.benchmark is not None or len(self.tasks) > 1

    @property
    def task_languages(self) -> str:
        """The languages to ask each task for; one of several tasks need not have all of them."""
        return optional(self.languages) if self.several else self.languages

    @field_validator("pool", mode="before")
    @classmethod
    def _groups(cls, values: Any) -> Any:
        return tuple(dict.fromkeys(separated(values, ";")))

    _cache = field_validator("cache_limit")(checked_memory_size)

    @field_validator("shards")
    @classmethod
    def _part(cls, value: str | None) -> str | None:
        match = re.fullmatch(r"(\d+)/(\d+)", value or "1/1")
        if not match or not 1 <= int(match[1]) <= int(match[2]):
            raise ValueError("must be written i/n, such as 2/8, with i from 1 to n")
        return value

    @model_validator(mode="after")
    def _ranked_once(self) -> Self:
        if self.ignore_identical_ids and self.rerank:
            raise ValueError(
                "ignore_identical_ids does not go with rerank, because the second stage"
                " orders all passages that the first stage lists; leave one of them out"
            )
        return self

    @model_validator(mode="after")
    def _deep_enough(self) -> Self:
        if self.index != "auto" and self.depth < max(self.cutoffs, default=0):
            raise ValueError(
                f"cutoffs go to {max(self.cutoffs)}, but only {self.depth} passages are listed;"
                " raise --depth"
            )
        return self
