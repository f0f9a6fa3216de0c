"""The settings of every command: built once, checked, then frozen.

A field's description, bounds and panel are its only documentation: the command line's options, `--config` files
and the JSON of a run are all made from these classes.
"""

import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Self, TypeVar, get_args, get_origin

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from hybridbatch.errors import ConfigError, nearest
from hybridbatch.files import read_yaml
from hybridbatch.languages import optional

Precision = Literal["auto", "fp32", "bf16"]
BM25, RANDOM = "bm25", "random"  # what `eval` takes in place of an encoder: `hybridbatch.baselines`
S = TypeVar("S", bound="Settings")


def setting(default: Any, panel: str, description: str, **bounds: Any) -> Any:
    """A field with its help text, the panel of `--help` it belongs to, and bounds such as ``ge=0``."""
    return Field(default, description=description, json_schema_extra={"panel": panel}, **bounds)


def _memory_size(value: str | None) -> str | None:
    if value is not None:
        memory_bytes(value)
    return value


class Settings(BaseModel):
    """Base of all settings: immutable, unknown names refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True, allow_inf_nan=False)

    def as_json(self) -> dict[str, Any]:
        """Every setting with its value, as JSON types."""
        return self.model_dump(mode="json")


class PrepareConfig(Settings):
    """Settings of `hybridbatch prepare`."""

    sources: tuple[str, ...] = setting(
        ("atlas",), "Data", "Names of built-in sources, or files and folders of your own; several are merged."
    )
    out: Path | None = setting(None, "Data", "Folder for the prepared data; default: data/NAME.")
    data_root: Path | None = setting(
        None, "Data", "Folder that holds local copies of public data sets, looked at before any download."
    )
    revision: dict[str, str] = setting(
        {}, "Data", "Commits to read of sources that follow a branch, as 'webfaq=COMMIT'; default: the present ones."
    )
    languages: str = setting(
        "all", "Selection", "Languages to keep: ids, groups and exclusions, such as 'low-resource,-swh'."
    )
    limit: int | None = setting(None, "Selection", "At most so many records of each source.", ge=1)
    validation_share: float = setting(
        0.05,
        "Selection",
        "Share of records set aside for validation where the source has no split of its own.",
        ge=0,
        lt=1,
    )
    decontaminate: tuple[str, ...] = setting(
        ("all",),
        "Decontamination",
        "Evaluation tasks whose texts are kept out, as 'xquad-r,belebele-sib'; all: every one that no source is made of"
        " and that is on this machine; none: no check.",
    )
    check_language: bool = setting(
        False, "Bad rows", "Leave out rows whose query or passage is hardly in the row's language."
    )
    markup: Literal["keep", "remove"] = setting(
        "keep", "Bad rows", "Tags, character references and link syntax in texts: counted, or taken out as well."
    )
    max_characters: int | None = setting(
        None, "Bad rows", "Leave out rows whose query or passage is longer; default: no limit.", ge=1
    )
    duplicates: Literal["keep", "remove"] = setting(
        "keep", "Bad rows", "Rows that repeat a query and its passage: counted, or left out but for the first."
    )
    strict: bool = setting(False, "Bad rows", "Stop at the first bad row instead of counting and listing it.")
    translate_to: tuple[str, ...] = setting(
        (), "Translation", "Languages that every record gets by machine translation where it lacks them: 'swh,yor,amh'."
    )
    translator: str | None = setting(
        None,
        "Translation",
        "Folder or hub id of an NLLB-200 or M2M-100 model, such as facebook/nllb-200-distilled-600M, or an"
        " OpenAI-compatible address with a model, as http://HOST/v1#MODEL.",
    )
    translate_from: tuple[str, ...] = setting(
        ("eng",), "Translation", "Languages to translate from, best first; after them the best resourced ones."
    )
    beams: int = setting(4, "Translation", "Beams of the search of a local model; 1: greedy. Nothing is sampled.", ge=1)
    batch_tokens: int = setting(4096, "Translation", "Tokens of a batch of a local model, padding included.", ge=64)
    device: str = setting(
        "auto", "Machine", "Of a local translator: cpu, cuda, cuda:1 ...; auto: CUDA if there is one."
    )
    precision: Precision = setting("auto", "Machine", "auto: bf16 where the machine computes it fast, else fp32.")
    seed: int = setting(13, "Reproduction", "Seed of every random choice.", ge=0)

    @field_validator("revision")
    @classmethod
    def _commits(cls, commits: dict[str, str]) -> dict[str, str]:
        for commit in commits.values():
            if not re.fullmatch("[0-9a-f]{40}", commit):
                raise ValueError("must name commits in full, 40 hexadecimal digits, as source=commit")
        return commits

    @model_validator(mode="after")
    def _translatable(self) -> Self:
        if bool(self.translate_to) != bool(self.translator):
            raise ValueError("translate_to and translator go together; give both, or neither")
        return self

    @field_validator("decontaminate")
    @classmethod
    def _checks(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        if not names or (len(names) > 1 and {"all", "none"} & set(names)):
            raise ValueError("must be names of tasks, or 'all' or 'none' alone")
        return names


class EncoderSettings(Settings):
    """How an encoder is loaded, for training and for evaluation."""

    pooling: Literal["auto", "mean", "cls"] = setting("auto", "Model", "Pooling; auto: as the model says, else mean.")
    query_prompt: str | None = setting(
        None, "Model", "Text put before every query; default: as the model says, else 'query: '."
    )
    passage_prompt: str | None = setting(
        None, "Model", "Text put before every passage; default: as the model says, else 'passage: '."
    )
    max_query_tokens: int = setting(64, "Model", "Tokens kept of a query, special ones included.", ge=3)
    max_passage_tokens: int = setting(256, "Model", "Tokens kept of a passage, special ones included.", ge=3)

    @property
    def encoder_options(self) -> dict[str, Any]:
        """The keyword arguments of `hybridbatch.model.Encoder.load`."""
        return {name: getattr(self, name) for name in EncoderSettings.model_fields}


class MineConfig(EncoderSettings):
    """Settings of `hybridbatch mine`."""

    data: str = setting("atlas", "Data", "Prepared data folder, or a built-in source that is then prepared first.")
    out: Path | None = setting(None, "Data", "Folder for the data with negatives; default: data/NAME-METHOD.")
    data_root: Path | None = setting(
        None, "Data", "Folder that holds local copies of public data sets, looked at before any download."
    )
    languages: str = setting(
        "all",
        "Selection",
        "Languages whose rows get negatives, such as 'low-resource,-swh'; others keep what they have.",
    )
    keep_given: bool = setting(False, "Selection", "Keep the negatives that rows have, before the mined ones.")
    corpus: Literal["source", "language"] = setting(
        "source", "Search", "Passages to search: those of the row's language and source, or of its language."
    )
    method: Literal["bm25", "dense"] = setting("bm25", "Search", "Search by words, or with the encoder --model.")
    query_languages: str = setting(
        "own",
        "Search",
        "own: search with the row's own query; else with its record's queries in these languages, such as 'all' or"
        " 'eng,swh', a passage's score being its best, for negatives that are hard across languages (dense only).",
    )
    depth: int = setting(100, "Search", "Passages looked at per query, the best first.", ge=1)
    index: Literal["exact", "ivf", "ivfpq"] = setting(
        "exact", "Search", "Dense search: exact, or through an approximate FAISS index."
    )
    model: str = setting("e5-small-q4", "Model", "Built-in name, local folder, run folder or hub id of the encoder.")
    negatives: int = setting(5, "Negatives", "Most negatives per row.", ge=1)
    positive_share: float | None = setting(
        0.95,
        "Negatives",
        "Only passages that score below this share of the positive's score (TopK-PercPos of arXiv:2407.15831); none: no"
        " such limit.",
        gt=0,
        le=1,
    )
    share_of: Literal["height", "score"] = setting(
        "height",
        "Negatives",
        "What shares are taken of: the score's height above the query's mean score over all passages, as some encoders"
        " give unrelated texts 0.7; or, as in the paper, the score. The same for BM25.",
    )
    positive_margin: float | None = setting(
        None, "Negatives", "Only passages that score below the positive's score less this (TopK-MarginPos).", ge=0
    )
    max_score: float | None = setting(None, "Negatives", "Only passages that score below this (TopK-Abs).")
    skip_first: int = setting(
        0, "Negatives", "Leave out the first so many passages of each search that are not known to be positive.", ge=0
    )
    device: str = setting("auto", "Machine", "cpu, cuda, cuda:1 ...; auto: CUDA where there is one.")
    precision: Precision = setting("auto", "Machine", "auto: bf16 where the machine computes it fast, else fp32.")
    cache: Path | None = setting(None, "Machine", "Folder of stored embeddings; default: the user's cache folder.")
    seed: int = setting(13, "Reproduction", "Seed of the sample that an approximate index is trained on.", ge=0)

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.method == "bm25" and self.query_languages != "own":
            raise ValueError(
                f"query_languages {self.query_languages!r} needs --method dense: BM25 compares words, and finds nothing"
                " with a query in another language; leave it out, and the passages of every language are searched with"
                " the record's own query in that language, which cross-lingual batches can use, too"
            )
        return self


class TrainConfig(EncoderSettings):
    """Settings of `hybridbatch train`."""

    name: str | None = setting(None, "Run", "Name of the run; default: made from data, mix and seed.")
    out: Path | None = setting(None, "Run", "Folder of the run; default: experiments/NAME.")
    data: str = setting("atlas", "Data", "Prepared data folder, or a built-in source that is then prepared first.")
    data_root: Path | None = setting(
        None, "Data", "Folder that holds local copies of public data sets, looked at before any download."
    )
    languages: str | None = setting(
        None,
        "Data",
        "Training languages: ids, groups and exclusions, such as 'ar,zh,en,de'; default: those the built-in source names"
        " (atlas: the paper's nine, so that the others stay zero-shot), else all.",
    )
    max_records: int | None = setting(
        None, "Data", "Use a nested random subset of so many training records, the same for every mix.", ge=1
    )
    source_weights: dict[str, float] = setting(
        {},
        "Data",
        "Factors on the sources' chance to be drawn (chance = records x factor), such as 'afriqa=2,ntrex=0.5'.",
    )

    model: str = setting("e5-small-q4", "Model", "Built-in name, local folder, or hub id of the encoder to start from.")

    strategy: Literal["hybrid", "mixed", "mtt"] = setting(
        "hybrid",
        "Batches",
        "hybrid: whole batches monolingual or cross-lingual by --mix; mixed: same-language pairs of many languages in"
        " one batch (X-X of LAReQA); mtt: the same, every record with its pairs in several languages (multilingual"
        " translate-train).",
    )
    copies: int | None = setting(
        None,
        "Batches",
        "Most languages of a record in an mtt batch, drawn anew each time; default: all, up to half of the batch.",
        ge=1,
    )
    mix: float = setting(
        0.5,
        "Batches",
        "Chance that a batch is monolingual (alpha); 1: X-X-mono, 0: X-Y, between: hybrid. Without effect on other"
        " strategies.",
        ge=0,
        le=1,
    )
    batch_size: int = setting(100, "Batches", "Query-passage pairs per optimizer step, over all devices.", ge=2)
    hard_negatives: int = setting(0, "Batches", "Hard negatives per pair, drawn from the row's own list.", ge=0)
    negatives_language: Literal["passage", "query", "both"] = setting(
        "passage",
        "Batches",
        "Hard negatives of a cross-lingual pair: in the language of its passage, its query, or both.",
    )

    steps: int = setting(100, "Optimisation", "Optimizer steps.", ge=1)
    learning_rate: float = setting(3e-5, "Optimisation", "Peak learning rate.", gt=0)
    lr_schedule: Literal["linear", "cosine", "constant"] = setting(
        "linear", "Optimisation", "Course of the learning rate after warm-up."
    )
    warmup_steps: int | None = setting(
        None, "Optimisation", "Steps of linear warm-up; default: a tenth of the steps.", ge=0
    )
    weight_decay: float = setting(1e-2, "Optimisation", "Decoupled weight decay of AdamW.", ge=0)
    decay_all: bool = setting(True, "Optimisation", "Decay biases and norms too, as the paper's AdamW does.")
    max_grad_norm: float | None = setting(
        1.0, "Optimisation", "Clip the gradient to this norm; none: no clipping.", gt=0
    )
    layer_lr_decay: float = setting(
        1.0, "Optimisation", "Factor on the learning rate per layer below the top.", gt=0, le=1
    )
    freeze_embeddings: bool = setting(False, "Optimisation", "Leave all embedding tables as they are.")
    ema: float | None = setting(
        None,
        "Optimisation",
        "Decay of an exponential moving average of the weights, which is saved.",
        gt=0,
        lt=1,
    )
    dropout: float | None = setting(
        None, "Optimisation", "Dropout of the encoder; default: as the model says.", ge=0, lt=1
    )
    lora_rank: int | None = setting(
        None,
        "Optimisation",
        "Train low-rank updates of this rank (LoRA) instead of the weights, with a larger --learning-rate, and merge them"
        " at the end.",
        ge=1,
    )
    lora_alpha: float | None = setting(
        None, "Optimisation", "The updates' factor is alpha / rank; default: twice the rank.", gt=0
    )

    temperature: float = setting(0.05, "Loss", "Divides the cosine scores (the paper's Eq. 1 has none).", gt=0)
    learn_temperature: bool = setting(False, "Loss", "Train the temperature, starting from --temperature.")
    symmetric: bool = setting(False, "Loss", "Average the loss with that of passages against queries.")
    margin: float = setting(0.0, "Loss", "Additive margin taken off the positive's cosine.", ge=0)
    matryoshka_dims: tuple[int, ...] = setting(
        (), "Loss", "Also train these prefixes of the embedding, such as '64,128'."
    )

    align_weight: float = setting(
        0.0,
        "Baselines",
        "Weight of a regulariser: the mean squared distance of queries and passages from their translations.",
        ge=0,
    )
    teacher: str | None = setting(
        None, "Baselines", "Built-in name, local folder, run folder or hub id of an encoder to distil from."
    )
    distill_weight: float = setting(
        0.5,
        "Baselines",
        "With --teacher: share of the loss that is distillation; 1: nothing else, 0: none.",
        ge=0,
        le=1,
    )
    distill_from: Literal["scores", "embeddings"] = setting(
        "scores",
        "Baselines",
        "What the teacher gives: scores (KL of each query's distribution over the batch) or embeddings (mean squared"
        " distance; needs equal dimensions).",
    )
    teacher_language: str | None = setting(
        "eng",
        "Baselines",
        "Language in which the teacher reads the records, trained on or not; none: that of the pair itself.",
    )
    teacher_temperature: float | None = setting(
        None, "Baselines", "Divides the teacher's scores; default: as --temperature.", gt=0
    )

    validate_every: int | None = setting(
        None, "Validation", "Steps between validations; default: a tenth of the steps.", ge=1
    )
    validation_batches: int = setting(
        2,
        "Validation",
        "Fixed validation batches of each kind (monolingual, cross-lingual); from a small split smaller ones, and more.",
        ge=1,
    )
    patience: int | None = setting(None, "Validation", "Stop after so many validations without a better one.", ge=1)
    validation_metric: Literal["loss", "mrr"] = setting(
        "loss", "Validation", "What 'better' means, on the validation split."
    )

    device: str = setting("auto", "Machine", "cpu, cuda, cuda:1 ...; auto: CUDA where there is one.")
    precision: Precision = setting("auto", "Machine", "auto: bf16 where the machine computes it fast, else fp32.")
    micro_tokens: int | None = setting(
        None,
        "Machine",
        "Tokens per forward pass; default: found from the memory. Changes the dropout masks, nothing else.",
        ge=16,
    )
    memory_limit: str | None = setting(
        None,
        "Machine",
        "Memory that each process may count on, such as 8GB, on its GPU or else in main memory; default: what is there."
        " Lowers the tokens per forward pass.",
    )
    checkpoint_every: int | None = setting(
        None, "Machine", "Steps between checkpoints; default: as often as validation.", ge=1
    )
    store_tokens: bool = setting(
        False,
        "Machine",
        "Tokenise all rows of the data once and keep that in its folder for every run with this tokenizer, instead of"
        " the scheduled rows for this run; worth it for many runs on a GPU.",
    )
    log_to: Literal["none", "jsonl", "tensorboard", "wandb"] = setting("jsonl", "Machine", "Where each step is logged.")
    seed: int = setting(13, "Reproduction", "Seed of schedule, dropout and hard negatives.", ge=0)

    _memory = field_validator("memory_limit")(_memory_size)

    @field_validator("temperature", "learning_rate")
    @classmethod
    def _sane(cls, value: float) -> float:
        if value > 1e3:
            raise ValueError("is far too large")
        return value

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.warmup_steps is not None and self.warmup_steps > self.steps:
            raise ValueError(
                f"warmup_steps {self.warmup_steps} is more than steps {self.steps}; lower it with --warmup-steps"
            )
        if any(factor < 0 for factor in self.source_weights.values()):
            raise ValueError("source_weights must not be negative")
        if self.lora_alpha is not None and self.lora_rank is None:
            raise ValueError("lora_alpha does nothing without lora_rank; set both")
        return self

    @property
    def distils(self) -> bool:
        """Whether a teacher takes part in the loss."""
        return self.teacher is not None and self.distill_weight > 0

    def without_unused(self) -> Self:
        """The same training, with settings of strategies and baselines that it does not use at their defaults."""
        unused = [
            *(["mix"] if self.strategy != "hybrid" else []),
            *(["copies"] if self.strategy != "mtt" else []),
            *([] if self.distils else ["teacher", "distill_weight", "distill_from", "teacher_language"]),
            *([] if self.distils and self.distill_from == "scores" else ["teacher_temperature"]),
        ]
        return self.model_copy(update={name: type(self).model_fields[name].default for name in unused})

    @property
    def warmup(self) -> int:
        """Warm-up steps after the default is applied."""
        return self.steps // 10 if self.warmup_steps is None else self.warmup_steps


class EvalConfig(EncoderSettings):
    """Settings of `hybridbatch eval`."""

    name: str | None = setting(None, "Run", "Name of the evaluation; default: made from model and tasks.")
    out: Path | None = setting(None, "Run", "Folder of the results; default: experiments/NAME.")
    model: str = setting(
        "e5-small-q4", "Model", "Run folder, built-in name, local folder, or hub id; or a baseline: bm25, random."
    )
    tasks: tuple[str, ...] = setting(
        ("atlas",),
        "Tasks",
        "Built-in tasks, folders in BEIR layout (one folder per language), or mteb's retrieval tasks by name.",
    )
    benchmark: str | None = setting(
        None, "Tasks", "All retrieval tasks of an mteb benchmark, such as 'MTEB(Africa, v1)'."
    )
    verify: int = setting(
        0, "Tasks", "Send so many random subsets of each mteb task through stock mteb and demand equality.", ge=0
    )
    data_root: Path | None = setting(
        None, "Tasks", "Folder that holds local copies of public data sets, looked at before any download."
    )
    languages: str = setting(
        "all",
        "Tasks",
        "Languages to evaluate: ids, groups and exclusions, such as 'low-resource,-swh'. Each of several tasks is scored"
        " in those that it has.",
    )
    trained_languages: str | None = setting(
        None, "Tasks", "Languages the model was trained on; default: as its train.json says, else none."
    )
    pool: Sequence[str] = setting(
        (),
        "Tasks",
        "Further pools, each of the corpus languages of a group, beside the pool of all; separated by ';', such as"
        " 'low-resource;script:Arab'.",
    )
    index: Literal["auto", "exact", "flat", "ivf", "hnsw", "ivfpq"] = setting(
        "auto",
        "Search",
        "auto: rank all passages, or search as with exact where memory is too small for that; exact: the first --depth"
        " passages from vectors on disk; else a FAISS index, whose loss is measured.",
    )
    depth: int = setting(1000, "Search", "Passages listed of a corpus that is searched, not ranked whole.", ge=10)
    stored_as: Literal["float32", "float16"] = setting(
        "float32", "Search", "Type of stored vectors; float16 halves them and moves cosines by up to 0.001."
    )
    shards: str | None = setting(
        None,
        "Search",
        "i/n: only encode the i-th of n parts of the corpora that are searched, and score nothing; for many machines.",
    )
    rerank: str | None = setting(
        None,
        "Reranking",
        "Second stage on the first passages of every ranking: folder or hub id of a cross-encoder (sequence"
        " classification, one output) or of a causal language model, which ranks lists (RankGPT).",
    )
    rerank_depth: int = setting(100, "Reranking", "Passages of every ranking that the second stage orders.", ge=2)
    cutoffs: tuple[int, ...] = setting((1, 10, 100), "Metrics", "The k of recall@k; nDCG@10 and mAP are always there.")
    device: str = setting("auto", "Machine", "cpu, cuda, cuda:1 ...; auto: CUDA where there is one.")
    precision: Precision = setting("auto", "Machine", "auto: bf16 where the machine computes it fast, else fp32.")
    cache: Path | None = setting(None, "Machine", "Folder of stored embeddings; default: the user's cache folder.")
    cache_limit: str | None = setting(
        None,
        "Machine",
        "Drop the embeddings unused for longest beyond this size ('20GB'); never those of a running process.",
    )
    seed: int = setting(13, "Reproduction", "Seed of verified samples and of the model random.", ge=0)

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
        parts = values.split(";") if isinstance(values, str) else values
        return tuple(dict.fromkeys(str(part).strip() for part in parts if str(part).strip()))

    _cache = field_validator("cache_limit")(_memory_size)

    @field_validator("shards")
    @classmethod
    def _part(cls, value: str | None) -> str | None:
        match = re.fullmatch(r"(\d+)/(\d+)", value or "1/1")
        if not match or not 1 <= int(match[1]) <= int(match[2]):
            raise ValueError("must be written i/n, such as 2/8, with i from 1 to n")
        return value

    @model_validator(mode="after")
    def _deep_enough(self) -> Self:
        if self.index != "auto" and self.depth < max(self.cutoffs, default=0):
            raise ValueError(
                f"cutoffs go to {max(self.cutoffs)}, but only {self.depth} passages are listed; raise --depth"
            )
        return self


class SweepConfig(Settings):
    """Settings of `hybridbatch scale-sweep`: axes of a grid (several values) and what all cells share."""

    name: str | None = setting(None, "Run", "Name of the sweep; default: scale-sweep.")
    out: Path | None = setting(None, "Run", "Folder of the sweep; default: experiments/NAME.")
    reuse: tuple[Path, ...] = setting((), "Run", "Folders of other sweeps whose finished cells are taken over.")

    languages: str = setting(
        "low-resource", "Targets", "Languages to evaluate; they are kept out of training unless --allow-seen."
    )
    allow_seen: bool = setting(False, "Targets", "Train on the languages that are evaluated, too.")
    tasks: tuple[str, ...] = setting(
        ("atlas",), "Targets", "Built-in tasks, or folders in BEIR layout, one folder per language."
    )
    data: str = setting("atlas", "Data", "Prepared data folder, or a built-in source that is then prepared first.")
    data_root: Path | None = setting(
        None, "Data", "Folder that holds local copies of public data sets, looked at before any download."
    )

    mix: tuple[float, ...] = setting((0.0, 0.5, 1.0), "Axes", "Chances that a batch is monolingual, such as '0,0.5,1'.")
    pairs: tuple[int | None, ...] = setting(
        (100, 200, None), "Axes", "Sizes of the nested subsets of training records, such as '500,2k,8k' or 'all'."
    )
    train_languages: Sequence[int | str] = setting(
        ("all",),
        "Axes",
        "Numbers of training languages ('2,4,8': nested sets, best resourced first), or groups separated by ';'.",
    )
    batch_size: tuple[int, ...] = setting((64,), "Axes", "Query-passage pairs per optimizer step.")
    model: tuple[str, ...] = setting(("e5-small-q4",), "Axes", "Encoders to start from.")
    steps: tuple[int, ...] = setting((40,), "Axes", "Optimizer steps.")
    epochs: tuple[float, ...] = setting((), "Axes", "Passes over the subset of records, instead of --steps.")
    seeds: tuple[int, ...] = setting((13, 14), "Axes", "Seeds of the runs.")
    set: Mapping[str, tuple[Any, ...]] = setting(
        {}, "Axes", "Any other training settings, such as 'learning_rate=1e-5,3e-5; temperature=0.02,0.05'."
    )

    launcher: Literal["local", "ray", "slurm"] = setting("local", "Execution", "Engine that runs the cells.")
    jobs: int = setting(1, "Execution", "Cells at a time; 1 with the local launcher: in this process.", ge=1)
    address: str | None = setting(
        None, "Execution", "Ray cluster to connect to, such as 'auto'; default: start one on this machine."
    )
    partition: str | None = setting(None, "Execution", "Slurm partition; default: the cluster's.")
    gpus: float = setting(0, "Execution", "GPUs per cell; Ray accepts fractions.", ge=0)
    tries: int = setting(2, "Execution", "Attempts at a cell before it is set aside with its log.", ge=1)
    budget: str | None = setting(
        None, "Execution", "Stop before this time is over ('45m', '2h'); cells that cover the grid evenly come first."
    )

    @field_validator("pairs", mode="before")
    @classmethod
    def _sizes(cls, values: Any) -> Any:
        return tuple(_size(value) for value in (values if isinstance(values, list | tuple) else [values]))

    @field_validator("train_languages", mode="before")
    @classmethod
    def _language_sets(cls, values: Any) -> Any:
        if isinstance(values, str):
            numbers = all(part.strip().isdigit() for part in values.split(","))
            values = values.split("," if numbers else ";")
        parts = [str(part).strip() for part in (values if isinstance(values, list | tuple) else [values])]
        return tuple(int(part) if part.isdigit() else part for part in parts if part)

    @field_validator("set", mode="before")
    @classmethod
    def _named_values(cls, values: Any) -> Any:
        if isinstance(values, str):
            values = {
                name.strip(): text for name, _, text in (part.partition("=") for part in values.split(";")) if name
            }
        if not isinstance(values, Mapping):
            raise ValueError("must be written as name=value,value; name=value")
        split = {name: text.split(",") if isinstance(text, str) else text for name, text in values.items()}
        return {name: tuple(v if isinstance(v, list | tuple) else [v]) for name, v in split.items()}

    @field_validator("budget")
    @classmethod
    def _duration(cls, value: str | None) -> str | None:
        if value is not None:
            seconds(value)
        return value

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.epochs and "steps" in self.model_fields_set:
            raise ValueError("steps and epochs both say how long to train; give one of them")
        for axis in ("mix", "pairs", "train_languages", "batch_size", "model", "seeds", "tasks"):
            values = getattr(self, axis)
            if not values:
                raise ValueError(f"{axis} has no value; give at least one")
            if len(set(values)) < len(values):
                raise ValueError(f"{axis} names a value twice: {', '.join(map(str, values))}")
        return self

    @property
    def cells(self) -> int:
        """Number of trained cells of the grid."""
        axes = [self.mix, self.pairs, self.train_languages, self.batch_size, self.model, self.epochs or self.steps]
        return math.prod(map(len, [*axes, self.seeds, *self.set.values()]))


def _size(value: Any) -> Any:
    """``2k`` is 2000, ``1.5M`` 1,500,000, ``all`` None."""
    if not isinstance(value, str):
        return value
    text = value.strip().lower()
    if text == "all":
        return None
    factor = {"k": 1_000, "m": 1_000_000}.get(text[-1:], 1)
    try:
        return round(float(text[:-1] if factor > 1 else text) * factor)
    except (ValueError, OverflowError):
        raise ValueError(f"{value!r} is not a size; write 500, 2k, 1.5M or all") from None


def seconds(duration: str) -> float:
    """``90``, ``45m``, ``2h`` or ``1d`` in seconds. Raises `ValueError`."""
    factor = {"s": 1, "m": 60, "h": 3600, "d": 86400}.get(duration.strip()[-1:].lower())
    try:
        value = float(duration.strip()[:-1] if factor else duration) * (factor or 1)
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise ValueError(f"{duration!r} is not a duration; write 90s, 45m, 2h or 1d")
    return value


def memory_bytes(size: str) -> int:
    """``8GB``, ``512MB`` or ``1.5GiB`` in bytes. Raises `ValueError`."""
    units = {
        f"{letter}{kind}": base**power
        for power, letter in enumerate("kmgt", 1)
        for kind, base in (("b", 1000), ("ib", 1024))
    }
    text = size.strip().lower()
    unit = next((unit for unit in sorted(units, key=len, reverse=True) if text.endswith(unit)), None)
    try:
        value = float(text.removesuffix(unit)) * units[unit] if unit else math.nan
    except ValueError:
        value = math.nan
    if not 1e6 <= value < math.inf:
        raise ValueError(f"{size!r} is not an amount of memory; write 512MB, 8GB or 16GiB")
    return int(value)


class ReproduceConfig(Settings):
    """Settings of `hybridbatch reproduce`."""

    name: str = setting("reproduce", "Run", "Name of the experiment; its data is prepared in data/NAME.")
    out: Path | None = setting(None, "Run", "Folder of the experiment; default: experiments/NAME.")
    model: str | None = setting(None, "Experiment", "Encoder to start from; default: as `train`.")
    sources: tuple[str, ...] = setting(("atlas",), "Experiment", "Training sources, as `prepare` takes them.")
    data_root: Path | None = setting(
        None, "Experiment", "Folder that holds local copies of public data sets, looked at before any download."
    )
    mixes: tuple[float, ...] = setting(
        (1.0, 0.0, 0.5), "Experiment", "Mixes to compare: 1 monolingual, 0 cross-lingual, between: hybrid."
    )
    seeds: tuple[int, ...] = setting((13,), "Experiment", "Seeds; every mix is trained once with each.")
    tasks: tuple[str, ...] = setting(("atlas",), "Experiment", "Evaluation tasks, as `eval` takes them.")
    languages: str | None = setting(
        None,
        "Experiment",
        "Evaluation languages ('all' for all); default: of the atlas about 20, spread over scripts and resource classes.",
    )
    preparation: dict[str, Any] = setting({}, "Stages", "Further settings of `prepare`, such as 'limit=500'.")
    train: dict[str, Any] = setting(
        {"steps": 60, "batch_size": 64}, "Stages", "Further settings of `train`, the same for every mix."
    )
    evaluation: dict[str, Any] = setting({}, "Stages", "Further settings of `eval`, such as 'cutoffs=1;10'.")

    @model_validator(mode="after")
    def _distinct(self) -> Self:
        for name in ("mixes", "seeds"):
            values = getattr(self, name)
            if not values or len(set(values)) < len(values):
                raise ValueError(f"{name} must hold different values, at least one")
        return self


def build(cls: type[S], file: Path | None = None, overrides: Mapping[str, Any] | None = None) -> S:
    """Settings from a YAML file (if any) with `overrides` on top.

    Raises `ConfigError`: one line naming every bad setting, its value, its place and the mend.
    """
    values = read_yaml(file) if file else {}
    place = f"{file}: " if file else ""
    fields = cls.model_fields
    values = {str(name).replace("-", "_"): value for name, value in values.items()}
    for name in [*values, *(overrides or {})]:
        if name not in fields:
            origin = place if name in values else ""
            raise ConfigError(f"{origin}unknown setting {name!r}{nearest(name, list(fields))}")
    layers = [
        {name: _split(fields[name].annotation, value) for name, value in each.items()}
        for each in (values, overrides or {})
    ]
    merged = {**layers[0], **layers[1]}
    for name, value in merged.items():  # a mapping is set name by name, on top of the file's and the default
        parts = [fields[name].default, *(layer.get(name) for layer in layers)]
        if isinstance(value, dict) and all(isinstance(part, dict | None) for part in parts):
            merged[name] = {key: each for part in parts if part for key, each in part.items()}
    try:
        return cls(**merged)
    except ValidationError as error:
        problems = []
        for problem in error.errors():
            name = str(problem["loc"][0]) if problem["loc"] else ""
            message = problem["msg"].removeprefix("Value error, ")
            message = message[:1].lower() + message[1:]
            origin = place if name in values and name not in (overrides or {}) else ""
            problems.append(f"{origin}{name} = {problem['input']}: {message}" if name else f"{place}{message}")
        raise ConfigError("; ".join(problems)) from error


def _split(annotation: Any, value: Any) -> Any:
    """Lists and mappings may be written as one text: ``64,128`` and ``afriqa=2,ntrex=0.5``."""
    if not isinstance(value, str):
        return value
    if value.lower() == "none" and type(None) in get_args(annotation):
        return None
    kind = get_origin(annotation)
    parts = [part.strip() for part in value.split(",") if part.strip()]
    if kind is tuple:
        return parts
    if kind is dict:
        pairs = [part.partition("=") for part in parts]
        return {name.strip(): number.strip() for name, _, number in pairs}
    return value
