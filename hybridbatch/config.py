"""The settings of every command: built once, checked, then frozen.

A field's description, bounds and panel are its only documentation: the command line's options, `--config` files
and the JSON of a run are all made from these classes.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Self, TypeVar, get_args, get_origin

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from hybridbatch.errors import ConfigError, nearest
from hybridbatch.files import read_yaml

Precision = Literal["auto", "fp32", "bf16"]
S = TypeVar("S", bound="Settings")


def setting(default: Any, panel: str, description: str, **bounds: Any) -> Any:
    """A field with its help text, the panel of `--help` it belongs to, and bounds such as ``ge=0``."""
    return Field(default, description=description, json_schema_extra={"panel": panel}, **bounds)


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
    strict: bool = setting(False, "Bad rows", "Stop at the first bad row instead of counting and listing it.")
    seed: int = setting(13, "Reproduction", "Seed of every random choice.", ge=0)


class TrainConfig(Settings):
    """Settings of `hybridbatch train`."""

    name: str | None = setting(None, "Run", "Name of the run; default: made from data, mix and seed.")
    out: Path | None = setting(None, "Run", "Folder of the run; default: experiments/NAME.")
    data: str = setting("atlas", "Data", "Prepared data folder, or a built-in source that is then prepared first.")
    data_root: Path | None = setting(
        None, "Data", "Folder that holds local copies of public data sets, looked at before any download."
    )
    languages: str = setting("all", "Data", "Training languages: ids, groups and exclusions, such as 'ar,zh,en,de'.")
    max_records: int | None = setting(
        None, "Data", "Use a nested random subset of so many training records, the same for every mix.", ge=1
    )
    source_weights: dict[str, float] = setting(
        {},
        "Data",
        "Factors on the sources' chance to be drawn (chance = records x factor), such as 'afriqa=2,ntrex=0.5'.",
    )

    model: str = setting("e5-small-q4", "Model", "Built-in name, local folder, or hub id of the encoder to start from.")
    pooling: Literal["auto", "mean", "cls"] = setting("auto", "Model", "Pooling; auto: as the model says, else mean.")
    query_prompt: str | None = setting(
        None, "Model", "Text put before every query; default: as the model says, else 'query: '."
    )
    passage_prompt: str | None = setting(
        None, "Model", "Text put before every passage; default: as the model says, else 'passage: '."
    )
    max_query_tokens: int = setting(64, "Model", "Tokens kept of a query, special ones included.", ge=3)
    max_passage_tokens: int = setting(256, "Model", "Tokens kept of a passage, special ones included.", ge=3)

    strategy: Literal["hybrid", "mixed"] = setting(
        "hybrid",
        "Batches",
        "hybrid: whole batches monolingual or cross-lingual by --mix; mixed: same-language pairs of many languages in"
        " one batch (X-X of LAReQA).",
    )
    mix: float = setting(
        0.5,
        "Batches",
        "Chance that a batch is monolingual (alpha); 1: X-X-mono, 0: X-Y, between: hybrid.",
        ge=0,
        le=1,
    )
    batch_size: int = setting(100, "Batches", "Query-passage pairs per optimizer step, over all devices.", ge=2)
    hard_negatives: int = setting(0, "Batches", "Hard negatives per pair, drawn from the row's own list.", ge=0)

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

    temperature: float = setting(0.05, "Loss", "Divides the cosine scores (the paper's Eq. 1 has none).", gt=0)
    learn_temperature: bool = setting(False, "Loss", "Train the temperature, starting from --temperature.")
    symmetric: bool = setting(False, "Loss", "Average the loss with that of passages against queries.")
    margin: float = setting(0.0, "Loss", "Additive margin taken off the positive's cosine.", ge=0)
    matryoshka_dims: tuple[int, ...] = setting(
        (), "Loss", "Also train these prefixes of the embedding, such as '64,128'."
    )

    validate_every: int | None = setting(
        None, "Validation", "Steps between validations; default: a tenth of the steps.", ge=1
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
        "Tokens per forward pass; default: found from the memory. Does not change the result.",
        ge=16,
    )
    checkpoint_every: int | None = setting(
        None, "Machine", "Steps between checkpoints; default: as often as validation.", ge=1
    )
    log_to: Literal["none", "jsonl", "tensorboard", "wandb"] = setting("jsonl", "Machine", "Where each step is logged.")
    seed: int = setting(13, "Reproduction", "Seed of schedule, dropout and hard negatives.", ge=0)

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
        return self

    @property
    def warmup(self) -> int:
        """Warm-up steps after the default is applied."""
        return self.steps // 10 if self.warmup_steps is None else self.warmup_steps


class EvalConfig(Settings):
    """Settings of `hybridbatch eval`."""

    name: str | None = setting(None, "Run", "Name of the evaluation; default: made from model and tasks.")
    out: Path | None = setting(None, "Run", "Folder of the results; default: experiments/NAME.")
    model: str = setting("e5-small-q4", "Model", "Run folder, built-in name, local folder, or hub id.")
    pooling: Literal["auto", "mean", "cls"] = setting("auto", "Model", "Pooling; auto: as the model says, else mean.")
    query_prompt: str | None = setting(
        None, "Model", "Text put before every query; default: as the model says, else 'query: '."
    )
    passage_prompt: str | None = setting(
        None, "Model", "Text put before every passage; default: as the model says, else 'passage: '."
    )
    max_query_tokens: int = setting(64, "Model", "Tokens kept of a query, special ones included.", ge=3)
    max_passage_tokens: int = setting(256, "Model", "Tokens kept of a passage, special ones included.", ge=3)
    tasks: tuple[str, ...] = setting(
        ("atlas",), "Tasks", "Built-in tasks, or folders in BEIR layout, one folder per language."
    )
    data_root: Path | None = setting(
        None, "Tasks", "Folder that holds local copies of public data sets, looked at before any download."
    )
    languages: str = setting(
        "all", "Tasks", "Languages to evaluate: ids, groups and exclusions, such as 'low-resource,-swh'."
    )
    trained_languages: str | None = setting(
        None, "Tasks", "Languages the model was trained on; default: as its train.json says, else none."
    )
    cutoffs: tuple[int, ...] = setting((1, 10, 100), "Metrics", "The k of recall@k; nDCG@10 and mAP are always there.")
    device: str = setting("auto", "Machine", "cpu, cuda, cuda:1 ...; auto: CUDA where there is one.")
    precision: Precision = setting("auto", "Machine", "auto: bf16 where the machine computes it fast, else fp32.")
    cache: Path | None = setting(None, "Machine", "Folder of stored embeddings; default: the user's cache folder.")
    seed: int = setting(13, "Reproduction", "Seed of bootstrap intervals.", ge=0)


def build(cls: type[S], file: Path | None = None, overrides: Mapping[str, Any] | None = None) -> S:
    """Settings from a YAML file (if any) with `overrides` on top.

    Raises `ConfigError`: one line naming every bad setting, its value, its place and the mend.
    """
    values = read_yaml(file) if file else {}
    place = f"{file}: " if file else ""
    fields = cls.model_fields
    values = {str(name).replace("-", "_"): value for name, value in values.items()}
    for name in values:
        if name not in fields:
            raise ConfigError(f"{place}unknown setting {name!r}{nearest(name, list(fields))}")
    merged = {**values, **(overrides or {})}
    try:
        return cls(**{name: _split(fields[name].annotation, value) for name, value in merged.items()})
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
