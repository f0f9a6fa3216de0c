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
from hybridbatch.sampling.strategies import MIXING, ORDERED, Strategy

AUTO = "auto"
Temperature = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class TrainConfig(EncoderSettings, DataRootSettings, MachineSettings):
    """Settings of `hybridbatch train`."""

    name: str | None = setting(
        None, "Run", "Name of the run; default: made from the data, the mix and the seed."
    )
    out: Path | None = setting(None, "Run", "Folder of the run; default: experiments/NAME.")
    data: str = setting(
        "atlas", "Data", "Prepared data folder, or a built-in source, which is prepared first."
    )
    languages: str | None = setting(
        None,
        "Data",
        "Training languages: ids, groups and exclusions, such as 'ar,zh,en,de'; default: the"
        " languages that the built-in source names (atlas: the nine of the paper, so that"
        " all others stay zero-shot), else all.",
    )
    max_records: int | None = setting(
        None,
        "Data",
        "Train on a random subset with this number of records. Subsets are nested, and the"
        " same for every mix.",
        ge=1,
    )
    source_weights: dict[str, float] = setting(
        {},
        "Data",
        "Factors on the probability of a source (probability = records x factor), such as"
        " 'afriqa=2,ntrex=0.5'.",
    )

    model: str = setting(
        "e5-small-q4",
        "Model",
        "Encoder to start from: built-in name, local folder, or hub id.",
    )

    strategy: Strategy = setting(
        "hybrid",
        "Batches",
        "hybrid: each batch is monolingual or cross-lingual, as --mix says; monolingual-first,"
        " cross-lingual-first: the same with one kind after the other; mixed:"
        " same-language pairs of many languages in one batch (X-X of LAReQA); mtt: like"
        " mixed, but every record brings its pairs in several languages (multilingual"
        " translate-train).",
    )
    copies: int | None = setting(
        None,
        "Batches",
        "Largest number of languages of a record in an mtt batch, drawn anew each time;"
        " default: all, up to half of the batch.",
        ge=1,
    )
    mix: float = setting(
        0.5,
        "Batches",
        "Probability that a batch is monolingual (alpha); 1: X-X-mono, 0: X-Y, between:"
        " hybrid. It has no effect on other strategies.",
        ge=0,
        le=1,
    )
    same_records: bool = setting(
        False,
        "Batches",
        "Give monolingual and cross-lingual batches the same records in the same order, for"
        " comparisons of mixes. Only records that are complete in every language of their"
        " source are used.",
    )
    batch_size: int = setting(
        100, "Batches", "Query-passage pairs per optimizer step, over all devices.", ge=2
    )
    hard_negatives: int = setting(
        0, "Batches", "Number of hard negatives per pair, drawn from the list of the row.", ge=0
    )
    negatives_language: Literal["passage", "query", "both"] = setting(
        "passage",
        "Batches",
        "Language of the hard negatives of a cross-lingual pair: that of its passage, that"
        " of its query, or both.",
    )

    steps: int = setting(
        100, "Optimisation", "Number of optimizer steps.", ge=1, le=1_000_000_000
    )
    learning_rate: float = setting(2e-5, "Optimisation", "Peak learning rate.", gt=0)
    lr_schedule: Literal["linear", "cosine", "constant"] = setting(
        "linear", "Optimisation", "Course of the learning rate after warm-up."
    )
    warmup_steps: int | None = setting(
        None,
        "Optimisation",
        "Number of linear warm-up steps; default: a tenth of the steps.",
        ge=0,
    )
    weight_decay: float = setting(
        1e-2, "Optimisation", "Decoupled weight decay of AdamW.", ge=0
    )
    decay_all: bool = setting(
        True, "Optimisation", "Also decay biases and norms, as the AdamW of the paper does."
    )
    max_grad_norm: float | None = setting(
        1.0,
        "Optimisation",
        "Largest norm of the gradient, clipped beyond it; none: no clipping.",
        gt=0,
    )
    layer_lr_decay: float = setting(
        1.0,
        "Optimisation",
        "Factor on the learning rate for each layer below the top.",
        gt=0,
        le=1,
    )
    freeze_embeddings: bool = setting(
        False, "Optimisation", "Do not train any embedding table."
    )
    ema: float | None = setting(
        None,
        "Optimisation",
        "Decay of an exponential moving average of the weights; the average is saved.",
        gt=0,
        lt=1,
    )
    average_start: float = setting(
        0.0,
        "Optimisation",
        "Share of the starting weights in the saved model, an average of both (WiSE-FT); 0: the"
        " trained weights alone.",
        ge=0,
        lt=1,
    )
    dropout: float | None = setting(
        None,
        "Optimisation",
        "Dropout of the encoder; default: the value that the model states.",
        ge=0,
        lt=1,
    )
    lora_rank: int | None = setting(
        None,
        "Optimisation",
        "Rank of low-rank updates (LoRA), which are trained instead of the weights and"
        " merged at the end. Use a larger --learning-rate with them.",
        ge=1,
    )
    lora_alpha: float | None = setting(
        None,
        "Optimisation",
        "LoRA updates are multiplied by alpha / rank; default: twice the rank.",
        gt=0,
    )

    temperature: float | Literal["auto"] = setting(
        "auto",
        "Loss",
        "Temperature, which divides the cosine scores (Eq. 1 of the paper has none); auto:"
        " the temperature at which the loss of the untrained encoder is least, found before"
        " training.",
    )
    learn_temperature: bool = setting(
        False, "Loss", "Also train the temperature, starting from --temperature."
    )
    symmetric: bool = setting(
        False,
        "Loss",
        "Average the loss of queries against passages with the loss of passages against queries.",
    )
    margin: float = setting(
        0.0, "Loss", "Margin that is subtracted from the positive's cosine.", ge=0
    )
    matryoshka_dims: tuple[int, ...] = setting(
        (), "Loss", "Also train these prefixes of the embedding, such as '64,128'."
    )

    align_weight: float = setting(
        0.0,
        "Baselines",
        "Weight of a regulariser: the mean squared distance of queries and passages from"
        " their translations.",
        ge=0,
    )
    teacher: str | None = setting(
        None,
        "Baselines",
        "Encoder to distil from: built-in name, local folder, run folder or hub id.",
    )
    distill_weight: float = setting(
        0.5,
        "Baselines",
        "With --teacher: share of distillation in the loss; 1: distillation only, 0: none.",
        ge=0,
        le=1,
    )
    distill_from: Literal["scores", "embeddings", "cosines"] = setting(
        "scores",
        "Baselines",
        "What the student learns from the teacher: scores (KL divergence of each query's"
        " distribution over the batch), embeddings (mean squared distance) or cosines (mean"
        " cosine distance, as in MIMO). The last two need a teacher of the same dimension.",
    )
    teacher_language: str | None = setting(
        "eng",
        "Baselines",
        "Language in which the teacher reads the records; it need not be a training"
        " language; none: the languages of the pair.",
    )
    teacher_temperature: float | None = setting(
        None,
        "Baselines",
        "Temperature of the teacher's scores; default: the value of --temperature.",
        gt=0,
    )

    validation_share: float | None = setting(
        None,
        "Validation",
        "Share of the training records to validate with, if the data has no validation split; 0"
        " for none. Default: 0.05 if the data has a test split, else none.",
        ge=0,
        lt=1,
    )
    validate_every: int | None = setting(
        None,
        "Validation",
        "Number of steps between validations; default: a tenth of the steps.",
        ge=1,
    )
    validation_batches: int = setting(
        2,
        "Validation",
        "Number of fixed validation batches of each kind (monolingual, cross-lingual). If"
        " the split is small, the batches are smaller and there are more of them.",
        ge=1,
    )
    patience: int | None = setting(
        None,
        "Validation",
        "Stop after this number of validations without a better result.",
        ge=1,
    )
    validation_metric: Literal["loss", "mrr", "map"] = setting(
        "loss",
        "Validation",
        "Metric on the validation split that decides which model is better. loss, mrr: on the"
        " validation batches; map: mean average precision of retrieval, averaged over the"
        " monolingual, cross-lingual and multilingual setting. map costs more and tells close"
        " models apart.",
    )
    validation_queries: int = setting(
        500, "Validation", "Queries of --validation-metric map, over all languages.", ge=1
    )
    validation_passages: int = setting(
        5000,
        "Validation",
        "Passages of --validation-metric map, over all languages; at least those of the queries.",
        ge=1,
    )

    micro_tokens: int | None = setting(
        None,
        "Machine",
        "Tokens per forward pass; default: derived from the memory. It changes the dropout"
        " masks and nothing else.",
        ge=16,
    )
    memory_limit: str | None = setting(
        None,
        "Machine",
        "Memory that each process may use, such as 8GB, on its GPU or else in main memory;"
        " default: the memory that is there. A smaller value lowers the tokens per forward"
        " pass.",
    )
    compile: bool = setting(
        False,
        "Machine",
        "Compile the encoder's layers with torch.compile. The first step takes a minute more. It"
        " pays off for long runs on a GPU; the bits of a run are its own.",
    )
    checkpoint_every: int | None = setting(
        None,
        "Machine",
        "Number of steps between checkpoints; default: the value of --validate-every.",
        ge=1,
    )
    store_tokens: bool = setting(
        False,
        "Machine",
        "Tokenise all rows of the data once and store the tokens in the data folder, for"
        " every run with this tokenizer; else only the scheduled rows are tokenised, for"
        " this run. It pays off for many runs on a GPU.",
    )
    log_to: Literal["none", "jsonl", "tensorboard", "wandb"] = setting(
        "jsonl", "Machine", "Where each step is logged."
    )
    seed: int = setting(
        13, "Reproduction", "Seed of the schedule, dropout and hard negatives.", ge=0
    )

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
            *(["mix"] if self.strategy not in MIXING else []),
            *(["strategy"] if self.strategy in ORDERED and self.mix in (0, 1) else []),
            *(["copies"] if self.strategy != "mtt" else []),
            *(
                []
                if self.validation_metric == "map"
                else ["validation_queries", "validation_passages"]
            ),
            *(
                []
                if self.distils
                else ["teacher", "distill_weight", "distill_from", "teacher_language"]
            ),
            *(
                []
                if self.distils and self.distill_from == "scores"
                else ["teacher_temperature"]
            ),
        ]
        return self.model_copy(
            update={name: type(self).model_fields[name].default for name in unused}
        )

    @property
    def validation_interval(self) -> int:
        """Steps between validations after the default is applied."""
        return self.validate_every or max(1, self.steps // 10)

    @property
    def warmup(self) -> int:
        """Warm-up steps after the default is applied."""
        return self.steps // 10 if self.warmup_steps is None else self.warmup_steps
