"""The settings of `hybridbatch train`."""

from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, TypeAdapter, ValidationError, field_validator, model_validator

from hybridbatch.common.settings import (
    DataRootSettings,
    EncoderSettings,
    MachineSettings,
    checked_memory_size,
    setting,
)

AUTO = "auto"
Temperature = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class TrainConfig(EncoderSettings, DataRootSettings, MachineSettings):
    """Settings of `hybridbatch train`."""

    name: str | None = setting(
        None, "Run", "Name of the run; default: made from data, mix and seed."
    )
    out: Path | None = setting(None, "Run", "Folder of the run; default: experiments/NAME.")
    data: str = setting(
        "atlas", "Data", "Prepared data folder, or a built-in source that is then prepared first."
    )
    languages: str | None = setting(
        None,
        "Data",
        "Training languages: ids, groups and exclusions, such as 'ar,zh,en,de'; default: those the"
        " built-in source names"
        " (atlas: the paper's nine, so that the others stay zero-shot), else all.",
    )
    max_records: int | None = setting(
        None,
        "Data",
        "Use a nested random subset of so many training records, the same for every mix.",
        ge=1,
    )
    source_weights: dict[str, float] = setting(
        {},
        "Data",
        "Factors on the sources' chance to be drawn (chance = records x factor), such as"
        " 'afriqa=2,ntrex=0.5'.",
    )

    model: str = setting(
        "e5-small-q4",
        "Model",
        "Built-in name, local folder, or hub id of the encoder to start from.",
    )

    strategy: Literal["hybrid", "mixed", "mtt"] = setting(
        "hybrid",
        "Batches",
        "hybrid: whole batches monolingual or cross-lingual by --mix; mixed: same-language pairs of"
        " many languages in"
        " one batch (X-X of LAReQA); mtt: the same, every record with its pairs in several"
        " languages (multilingual"
        " translate-train).",
    )
    copies: int | None = setting(
        None,
        "Batches",
        "Most languages of a record in an mtt batch, drawn anew each time; default: all, up to half"
        " of the batch.",
        ge=1,
    )
    mix: float = setting(
        0.5,
        "Batches",
        "Chance that a batch is monolingual (alpha); 1: X-X-mono, 0: X-Y, between: hybrid. Without"
        " effect on other"
        " strategies.",
        ge=0,
        le=1,
    )
    same_records: bool = setting(
        False,
        "Batches",
        "Monolingual and cross-lingual batches take the same records in the same order, of those"
        " that are whole in every language of their source; for comparisons of mixes.",
    )
    batch_size: int = setting(
        100, "Batches", "Query-passage pairs per optimizer step, over all devices.", ge=2
    )
    hard_negatives: int = setting(
        0, "Batches", "Hard negatives per pair, drawn from the row's own list.", ge=0
    )
    negatives_language: Literal["passage", "query", "both"] = setting(
        "passage",
        "Batches",
        "Hard negatives of a cross-lingual pair: in the language of its passage, its query, or"
        " both.",
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
    decay_all: bool = setting(
        True, "Optimisation", "Decay biases and norms too, as the paper's AdamW does."
    )
    max_grad_norm: float | None = setting(
        1.0, "Optimisation", "Clip the gradient to this norm; none: no clipping.", gt=0
    )
    layer_lr_decay: float = setting(
        1.0, "Optimisation", "Factor on the learning rate per layer below the top.", gt=0, le=1
    )
    freeze_embeddings: bool = setting(
        False, "Optimisation", "Leave all embedding tables as they are."
    )
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
        "Train low-rank updates of this rank (LoRA) instead of the weights, with a larger"
        " --learning-rate, and merge them"
        " at the end.",
        ge=1,
    )
    lora_alpha: float | None = setting(
        None, "Optimisation", "The updates' factor is alpha / rank; default: twice the rank.", gt=0
    )

    temperature: float | Literal["auto"] = setting(
        "auto",
        "Loss",
        "Divides the cosine scores (the paper's Eq. 1 has none); auto: found before training, the"
        " one at which the untrained encoder's loss is least.",
    )
    learn_temperature: bool = setting(
        False, "Loss", "Train the temperature, starting from --temperature."
    )
    symmetric: bool = setting(
        False, "Loss", "Average the loss with that of passages against queries."
    )
    margin: float = setting(0.0, "Loss", "Additive margin taken off the positive's cosine.", ge=0)
    matryoshka_dims: tuple[int, ...] = setting(
        (), "Loss", "Also train these prefixes of the embedding, such as '64,128'."
    )

    align_weight: float = setting(
        0.0,
        "Baselines",
        "Weight of a regulariser: the mean squared distance of queries and passages from their"
        " translations.",
        ge=0,
    )
    teacher: str | None = setting(
        None,
        "Baselines",
        "Built-in name, local folder, run folder or hub id of an encoder to distil from.",
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
        "What the teacher gives: scores (KL of each query's distribution over the batch) or"
        " embeddings (mean squared"
        " distance; needs equal dimensions).",
    )
    teacher_language: str | None = setting(
        "eng",
        "Baselines",
        "Language in which the teacher reads the records, trained on or not; none: that of the pair"
        " itself.",
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
        "Fixed validation batches of each kind (monolingual, cross-lingual); from a small split"
        " smaller ones, and more.",
        ge=1,
    )
    patience: int | None = setting(
        None, "Validation", "Stop after so many validations without a better one.", ge=1
    )
    validation_metric: Literal["loss", "mrr"] = setting(
        "loss", "Validation", "What 'better' means, on the validation split."
    )

    micro_tokens: int | None = setting(
        None,
        "Machine",
        "Tokens per forward pass; default: found from the memory. Changes the dropout masks,"
        " nothing else.",
        ge=16,
    )
    memory_limit: str | None = setting(
        None,
        "Machine",
        "Memory that each process may count on, such as 8GB, on its GPU or else in main memory;"
        " default: what is there."
        " Lowers the tokens per forward pass.",
    )
    checkpoint_every: int | None = setting(
        None, "Machine", "Steps between checkpoints; default: as often as validation.", ge=1
    )
    store_tokens: bool = setting(
        False,
        "Machine",
        "Tokenise all rows of the data once and keep that in its folder for every run with this"
        " tokenizer, instead of"
        " the scheduled rows for this run; worth it for many runs on a GPU.",
    )
    log_to: Literal["none", "jsonl", "tensorboard", "wandb"] = setting(
        "jsonl", "Machine", "Where each step is logged."
    )
    seed: int = setting(13, "Reproduction", "Seed of schedule, dropout and hard negatives.", ge=0)

    _memory = field_validator("memory_limit")(checked_memory_size)

    @field_validator("temperature", mode="before")
    @classmethod
    def _number_or_auto(cls, value: Any) -> Any:
        """One message about a bad number, where the union of types would give two."""
        if isinstance(value, str) and value.strip().lower() == AUTO:
            return AUTO
        try:
            temperature = TypeAdapter(Temperature).validate_python(value)
        except ValidationError as error:
            raise ValueError(error.errors()[0]["msg"]) from None
        return cls._sane(temperature)

    @field_validator("learning_rate")
    @classmethod
    def _sane(cls, value: float) -> float:
        if value > 1e3:
            raise ValueError("is far too large")
        return value

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.warmup_steps is not None and self.warmup_steps > self.steps:
            raise ValueError(
                f"warmup_steps {self.warmup_steps} is more than steps {self.steps}; lower it with"
                " --warmup-steps"
            )
        if any(factor < 0 for factor in self.source_weights.values()):
            raise ValueError("source_weights must not be negative")
        if self.lora_alpha is not None and self.lora_rank is None:
            raise ValueError("lora_alpha does nothing without lora_rank; set both")
        return self

    def at_temperature(self, temperature: float) -> Self:
        """The same training at a temperature that is known."""
        return self.model_copy(update={"temperature": temperature})

    @property
    def distils(self) -> bool:
        """Whether a teacher takes part in the loss."""
        return self.teacher is not None and self.distill_weight > 0

    def without_unused(self) -> Self:
        """The same training, with settings of strategies and baselines that it does not use at
        their defaults.
        """
        unused = [
            *(["mix"] if self.strategy != "hybrid" else []),
            *(["copies"] if self.strategy != "mtt" else []),
            *(
                []
                if self.distils
                else ["teacher", "distill_weight", "distill_from", "teacher_language"]
            ),
            *([] if self.distils and self.distill_from == "scores" else ["teacher_temperature"]),
        ]
        return self.model_copy(
            update={name: type(self).model_fields[name].default for name in unused}
        )

    @property
    def warmup(self) -> int:
        """Warm-up steps after the default is applied."""
        return self.steps // 10 if self.warmup_steps is None else self.warmup_steps
