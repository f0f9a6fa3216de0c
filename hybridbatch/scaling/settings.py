"""The settings of `hybridbatch scale-sweep` and `hybridbatch reproduce`."""

import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import TypeAdapter, ValidationError, field_validator, model_validator

from hybridbatch.common.settings import (
    DataRootSettings,
    checked_language,
    separated,
    setting,
    shortened,
)

CROSS_FIT = "cross-fit"
BM25 = "bm25"
Baseline = Literal["bm25", "centre", "lir", "lsar", "shift", "whiten"]


class SweepConfig(DataRootSettings):
    """Settings of `hybridbatch scale-sweep`: axes of a grid, and settings of all cells."""

    name: str | None = setting(None, "Run", "Name of the sweep; default: scale-sweep.")
    out: Path | None = setting(None, "Run", "Folder of the sweep; default: experiments/NAME.")
    predict: tuple[Path, ...] = setting(
        (),
        "Run",
        "Folders of finished sweeps with the same tasks: before training, forecast each language's"
        " mAP from them; afterwards, tell the miss.",
    )
    reuse: tuple[Path, ...] = setting(
        (), "Run", "Folders of other sweeps, from which finished cells are copied."
    )

    languages: str = setting(
        "low-resource",
        "Targets",
        "Languages to evaluate; without --allow-seen they are kept out of training.",
    )
    allow_seen: bool = setting(
        False, "Targets", "Also train on the languages that are evaluated."
    )
    tasks: tuple[str, ...] = setting(
        ("atlas",),
        "Targets",
        "Built-in tasks, or folders in BEIR layout with one folder per language.",
    )
    parallel: Literal["auto", "yes", "no"] = setting(
        "auto",
        "Targets",
        "Whether equal ids in a folder mean equal questions in all languages; see `eval --help`.",
    )
    data: str = setting(
        "atlas", "Data", "Prepared data folder, or a built-in source, which is prepared first."
    )

    margin: float = setting(
        0.01,
        "Targets",
        "Largest difference of mAP that counts as none in the report's equivalence tests;"
        " set it before the sweep runs.",
        gt=0,
        lt=1,
    )

    debias: str | None = setting(
        None,
        "Targets",
        "Also score every model after the mean vector of each language is subtracted."
        " cross-fit: means of the other half of each task's own texts; or text by language as"
        " for `debias --text`: a folder, a file or a built-in task.",
    )
    baselines: tuple[Baseline, ...] = setting(
        (),
        "Targets",
        "Lines without training beside the trained cells: bm25, and the starting models after a"
        " method of `debias` (centre, lir, lsar, shift, whiten), with vectors as --debias says.",
    )
    pivot: str = setting(
        "eng",
        "Targets",
        "Language to which the baseline shift moves passages; it is evaluated.",
    )

    mix: tuple[float, ...] = setting(
        (0.0, 0.5, 1.0), "Axes", "Probabilities that a batch is monolingual, such as '0,0.5,1'."
    )
    pairs: tuple[int | None, ...] = setting(
        (100, 200, None),
        "Axes",
        "Sizes of the nested subsets of training records, such as '500,2k,8k' or 'all'.",
    )
    train_languages: Sequence[int | str] = setting(
        ("all",),
        "Axes",
        "Numbers of training languages ('2,4,8': nested sets, the best resourced first), or"
        " language groups separated by ';'.",
    )
    batch_size: tuple[int, ...] = setting(
        (64,), "Axes", "Query-passage pairs per optimizer step."
    )
    model: tuple[str, ...] = setting(("e5-small-q4",), "Axes", "Encoders to start from.")
    steps: tuple[int, ...] = setting((40,), "Axes", "Optimizer steps.")
    epochs: tuple[float, ...] = setting(
        (), "Axes", "Numbers of passes over the subset of records, instead of --steps."
    )
    seeds: tuple[int, ...] = setting((13, 14), "Axes", "Seeds of the runs.")
    set: Mapping[str, tuple[Any, ...]] = setting(
        {},
        "Axes",
        "Other training settings to vary, such as 'learning_rate=1e-5,3e-5;"
        " temperature=0.02,0.05'.",
    )

    launcher: Literal["local", "ray", "slurm"] = setting(
        "local", "Execution", "Engine that runs the cells."
    )
    jobs: int = setting(
        1,
        "Execution",
        "Number of cells that run at a time; with 1, the local launcher runs them in this process.",
        ge=1,
    )
    address: str | None = setting(
        None,
        "Execution",
        "Ray cluster to connect to, such as 'auto'; default: start one on this machine.",
    )
    partition: str | None = setting(
        None, "Execution", "Slurm partition; default: the default of the cluster."
    )
    slurm: dict[str, str] = setting(
        {},
        "Execution",
        "Resources that Slurm gives each cell, such as"
        " 'account=ABC,time=4:00:00,mem=16GB,cpus=4,qos=normal'; other names are passed to"
        " sbatch unchanged. The default time is one day.",
    )
    gpus: float = setting(0, "Execution", "GPUs per cell; Ray accepts fractions.", ge=0)
    tries: int = setting(
        2,
        "Execution",
        "Number of attempts at a cell; then the cell is set aside and its log kept.",
        ge=1,
    )
    budget: str | None = setting(
        None,
        "Execution",
        "Stop before this time is over ('45m', '2h'); cells that cover the grid evenly run first.",
    )

    @field_validator("pairs", mode="before")
    @classmethod
    def _sizes(cls, values: Any) -> Any:
        return tuple(
            _size(value) for value in (values if isinstance(values, list | tuple) else [values])
        )

    @field_validator("train_languages", mode="before")
    @classmethod
    def _language_sets(cls, values: Any) -> Any:
        numbers = isinstance(values, str) and re.fullmatch(r"[\d,\s]+", values)
        if isinstance(values, int):
            values = [values]
        parts = separated(values, "," if numbers else ";")
        return tuple(int(part) if part.isdigit() else part for part in parts)

    @field_validator("debias", mode="before")
    @classmethod
    def _nothing(cls, value: Any) -> Any:
        """``none`` in a file or on the command line is no debiasing."""
        return (
            None if isinstance(value, str) and value.strip().lower() in ("", "none") else value
        )

    _language = field_validator("pivot")(checked_language)

    @field_validator("set", mode="before")
    @classmethod
    def _named_values(cls, values: Any) -> Any:
        if isinstance(values, str):
            parts = [part.partition("=") for part in values.split(";") if part.strip()]
            values = {name.strip(): text for name, _, text in parts}
        if not isinstance(values, Mapping):
            raise ValueError("must be written as name=value,value; name=value")
        axes = {}
        for name, given in values.items():
            value = given.split(",") if isinstance(given, str) else given
            axes[name] = tuple(value) if isinstance(value, list | tuple) else (value,)
        return axes

    @field_validator("slurm", mode="before")
    @classmethod
    def _texts(cls, values: Any) -> Any:
        if not isinstance(values, Mapping):
            raise ValueError("must be written as name=value,name=value")
        texts = {}
        for name, value in values.items():
            if value is None or value is False:
                continue
            if value is True:  # an option without a value, such as exclusive
                value = ""
            if isinstance(value, list | tuple):
                value = ",".join(map(str, value))
            texts[str(name).replace("_", "-")] = str(value)
        if "time" in texts:
            slurm_minutes(texts["time"])
        for name in ("cpus", "cpus-per-task"):
            if name in texts and not re.fullmatch("0*[1-9][0-9]{0,5}", texts[name]):
                raise ValueError(f"{name}: {shortened(texts[name])!r} is not a number of cores")
        return texts

    @field_validator("budget")
    @classmethod
    def _duration(cls, value: str | None) -> str | None:
        if value is not None:
            seconds(value)
        return value

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.epochs and "steps" in self.model_fields_set:
            raise ValueError(
                "steps and epochs both set the length of training; give one of them"
            )
        axes = ("mix", "pairs", "train_languages", "batch_size", "model", "seeds", "tasks")
        for axis in (*axes, "baselines"):
            values = getattr(self, axis)
            if not values and axis != "baselines":
                raise ValueError(f"{axis} has no value; give at least one")
            if len(set(values)) < len(values):
                raise ValueError(f"{axis} names a value twice: {', '.join(map(str, values))}")
        self._require_givable_gpus()
        return self

    def _require_givable_gpus(self) -> None:
        """Raises: `ValueError` if the launcher cannot give a cell so many GPUs."""
        if self.launcher == "local" and self.gpus:
            raise ValueError(
                f"gpus = {self.gpus:g}: cells on this machine share the GPUs that"
                " CUDA_VISIBLE_DEVICES names; leave --gpus out, or choose --launcher ray or slurm"
            )
        if self.launcher == "ray" and self.gpus > 1:
            raise ValueError(
                f"gpus = {self.gpus:g}: a cell uses at most one GPU; give 1 or a fraction"
            )
        if self.launcher == "slurm" and self.gpus not in (0, 1):
            raise ValueError(
                f"gpus = {self.gpus:g}: Slurm gives whole GPUs, and a cell uses one; use"
                " --gpus 1, or --launcher ray for fractions of GPUs"
            )

    @property
    def cells(self) -> int:
        """Number of trained cells of the grid."""
        axes = [
            self.mix,
            self.pairs,
            self.train_languages,
            self.batch_size,
            self.model,
            self.epochs or self.steps,
        ]
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


def slurm_minutes(time: str) -> int:
    """A time as Slurm writes it (``90``, ``4:00:00``, ``1-12``, ``1-12:30:00``) or as ``2h``, in
    whole minutes; 0 is no limit. Raises `ValueError`.
    """
    text = time.strip()
    if text[-1:].lower() in ("m", "h", "d"):
        return max(1, math.ceil(seconds(text) / 60))
    days, dash, rest = text.rpartition("-")
    parts = rest.split(":")
    if (
        not all(part.isdigit() for part in [*parts, *([days] if dash else [])])
        or len(parts) > 3
    ):
        raise ValueError(
            f"{shortened(time)!r} is not a time; write 90, 4:00:00, 1-12:00:00 or 2h"
        )
    numbers = [int(part) for part in parts]
    if dash:  # days-hours[:minutes[:seconds]]
        hours, minutes, rest_seconds = (*numbers, 0, 0)[:3]
    elif len(numbers) == 3:
        hours, minutes, rest_seconds = numbers
    else:  # minutes[:seconds]
        hours, minutes, rest_seconds = 0, numbers[0], (*numbers, 0)[1]
    return 1440 * int(days or 0) + 60 * hours + minutes + math.ceil(rest_seconds / 60)


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


class ReproduceConfig(DataRootSettings):
    """Settings of `hybridbatch reproduce`."""

    name: str = setting(
        "reproduce", "Run", "Name of the experiment; its data is prepared in data/NAME."
    )
    out: Path | None = setting(
        None, "Run", "Folder of the experiment; default: experiments/NAME."
    )
    model: str | None = setting(
        None, "Experiment", "Encoder to start from; default: the default of `train`."
    )
    sources: tuple[str, ...] = setting(
        ("atlas",), "Experiment", "Training sources, written as for `prepare`."
    )
    mixes: tuple[float, ...] = setting(
        (1.0, 0.0, 0.5),
        "Experiment",
        "Mixes to compare; 1: monolingual, 0: cross-lingual, between: hybrid.",
    )
    seeds: tuple[int, ...] = setting(
        (13,), "Experiment", "Seeds; every mix is trained once with each seed."
    )
    tasks: tuple[str, ...] = setting(
        ("atlas",), "Experiment", "Evaluation tasks, written as for `eval`."
    )
    languages: str | None = setting(
        None,
        "Experiment",
        "Evaluation languages ('all' for all); default: for the atlas about 20, spread over"
        " scripts and resource classes.",
    )
    proportions: dict[str, float] = setting(
        {},
        "Experiment",
        "Pairs that each source counts for when the source of a batch is drawn, such as"
        " 'mmarco=39780811'; default: its own number of records.",
    )
    scale: float = setting(
        1.0,
        "Experiment",
        "Share of the experiment to run, such as 0.01: of the records of each source, of the"
        " steps, and of the passages of large corpora. Downloads stay as they are.",
        gt=0,
        le=1,
    )
    published: dict[str, Any] = setting(
        {},
        "Experiment",
        "Values to put beside the results: task, measure and batches with a number, as in"
        " experiments/paper/xlm-r.yaml.",
    )
    preparation: dict[str, Any] = setting(
        {}, "Stages", "Further settings of `prepare`, such as 'limit=500'."
    )
    train: dict[str, Any] = setting(
        {"steps": 60, "batch_size": 64},
        "Stages",
        "Further settings of `train`, the same for every mix.",
    )
    evaluation: dict[str, Any] = setting(
        {}, "Stages", "Further settings of `eval`, such as 'cutoffs=1;10'."
    )

    @model_validator(mode="after")
    def _distinct(self) -> Self:
        for name in ("mixes", "seeds"):
            values = getattr(self, name)
            if not values or len(set(values)) < len(values):
                raise ValueError(f"{name} must hold at least one value, and no value twice")
        if any(count <= 0 for count in self.proportions.values()):
            raise ValueError("proportions must be more than 0")
        return self

    @field_validator("published")
    @classmethod
    def _values(cls, published: dict[str, Any]) -> dict[str, Any]:
        """Numbers by task, measure and batches."""
        try:
            return TypeAdapter(dict[str, dict[str, dict[str, float]]]).validate_python(
                published
            )
        except ValidationError as error:
            first = error.errors()[0]
            place = ".".join(map(str, first["loc"]))
            raise ValueError(
                f"{place}: must hold numbers by task, measure and batches"
            ) from None
