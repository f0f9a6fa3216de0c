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
)

# what `eval` takes in place of an encoder: `hybridbatch.scoring.baselines`
BM25, RANDOM = "bm25", "random"


class EvalConfig(EncoderSettings, DataRootSettings, MachineSettings, KernelSettings, CacheSettings):
    """Settings of `hybridbatch eval`."""

    name: str | None = setting(
        None, "Run", "Name of the evaluation; default: made from model and tasks."
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
        "Language vectors to take off the embeddings: what `hybridbatch debias` wrote.",
    )
    tasks: tuple[str, ...] = setting(
        ("atlas",),
        "Tasks",
        "Built-in tasks, folders in BEIR layout (one folder per language), or mteb's retrieval"
        " tasks by name.",
    )
    benchmark: str | None = setting(
        None,
        "Tasks",
        "All tasks on text of an mteb benchmark, by name or alias, such as 'MTEB(Indic, v1)'.",
    )
    verify: int = setting(
        0,
        "Tasks",
        "Send so many random subsets of each mteb task through stock mteb, on its own loader of the"
        " model, and demand equal scores.",
        ge=0,
    )
    languages: str = setting(
        "all",
        "Tasks",
        "Languages to evaluate: ids, groups and exclusions, such as 'low-resource,-swh'. Each of"
        " several tasks is scored"
        " in those that it has.",
    )
    parallel: Literal["auto", "yes", "no"] = setting(
        "auto",
        "Tasks",
        "Of folders: whether equal ids mean equal questions in all languages, as cross-lingual and"
        " pool scores need; auto: yes, unless the lengths of the texts say otherwise.",
    )
    ignore_identical_ids: bool = setting(
        False,
        "Tasks",
        "Leave the passage with the query's own id out of its rankings, as BEIR does (ArguAna,"
        " Quora).",
    )
    trained_languages: str | None = setting(
        None,
        "Tasks",
        "Languages the model was trained on; default: as its train.json says, else none.",
    )
    pool: Sequence[str] = setting(
        (),
        "Tasks",
        "Further pools, each of the corpus languages of a group, beside the pool of all; separated"
        " by ';', such as"
        " 'low-resource;script:Arab'.",
    )
    index: Literal["auto", "exact", "flat", "ivf", "hnsw", "ivfpq"] = setting(
        "auto",
        "Search",
        "auto: rank all passages, or search as with exact where memory is too small for that;"
        " exact: the first --depth"
        " passages from vectors on disk; else a FAISS index, whose loss is measured.",
    )
    recall: float = setting(
        0.95,
        "Search",
        "Share of the true first --depth passages that an approximate index is to find; it is tuned"
        " to that on a sample of queries.",
        gt=0,
        le=1,
    )
    depth: int = setting(
        1000, "Search", "Passages listed of a corpus that is searched, not ranked whole.", ge=10
    )
    stored_as: Literal["float32", "float16"] = setting(
        "float32",
        "Search",
        "Type of stored vectors; float16 halves them and moves cosines by up to 0.001.",
    )
    shards: str | None = setting(
        None,
        "Search",
        "i/n: only encode the i-th of n parts of the corpora that are searched, and score nothing;"
        " for many machines.",
    )
    rerank: str | None = setting(
        None,
        "Reranking",
        "Second stage on the first passages of every ranking: folder or hub id of a cross-encoder"
        " (sequence"
        " classification, one output) or of a causal language model, which ranks lists (RankGPT).",
    )
    rerank_depth: int = setting(
        100, "Reranking", "Passages of every ranking that the second stage orders.", ge=2
    )
    cutoffs: tuple[int, ...] = setting(
        (1, 10, 100), "Metrics", "The k of recall@k; nDCG@10 and mAP are always there."
    )
    cache_limit: str | None = setting(
        None,
        "Machine",
        "Drop the embeddings unused for longest beyond this size ('20GB'); never those of a running"
        " process.",
    )
    seed: int = setting(
        13, "Reproduction", "Seed of verified samples and of the model random.", ge=0
    )

    @property
    def several(self) -> bool:
        """Whether more than one task is evaluated."""
        return self.benchmark is not None or len(self.tasks) > 1

    @property
    def task_languages(self) -> str:
        """What each task is asked for: one of several need not have every language that is named."""
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
                "ignore_identical_ids does not go with rerank: the second stage orders all passages"
                " that the first one lists; leave one of them out"
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
