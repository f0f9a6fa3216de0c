"""The shapes of a sweep's JSON, on which its readers rely."""

from typing import Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from hybridbatch.common.documents import Shape
from hybridbatch.scaling.cells.grid import CELL_SCHEMA

SWEEP_SCHEMA = 1
AGAIN = "remove the file and run the sweep again, which does this cell anew"
Number = float | int | None
Scalar = str | int | float | bool | None


class CellTask(Shape):
    """The scores of a task: mean of every metric by setting and query language."""

    name: str
    counts: dict[str, Any]
    provenance: dict[str, Any]
    settings: dict[str, dict[str, dict[str, Number]]]


class CellEvaluation(Shape):
    """The evaluation of a cell."""

    tasks: list[CellTask]


class CellTraining(Shape):
    """The training settings of a cell."""

    languages: str


class CellScoring(Shape):
    """The scoring settings of a cell."""

    languages: str
    tasks: list[str]
    parallel: Literal["auto", "yes", "no"] = "auto"


class CellSettings(Shape):
    """The training settings of a cell (None for an untrained model) and its scoring settings."""

    train: CellTraining | None
    eval: CellScoring
    debias: str | None = None  # where language vectors come from; None: raw scores alone
    baseline: str | None = None  # what replaces the raw scores of an untrained model


class CellDocument(Shape):
    """``cells/KEY.json``."""

    kind_name: ClassVar[str] = "cell"
    versions: ClassVar[tuple[int, ...]] = (CELL_SCHEMA,)
    what: ClassVar[str] = "JSON of a cell"

    key: str
    axes: dict[str, Scalar | list[Scalar] | dict[str, Scalar]]
    settings: CellSettings
    train: dict[str, Any] | None
    eval: CellEvaluation
    seconds: dict[str, float | int]
    files: dict[str, str] = Field(default_factory=dict)  # XXH3 of the files beside it

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if (self.train is None) != (self.settings.train is None):
            raise ValueError("train and settings.train must both be null, or neither")
        needed: dict[str, Any] = {"model": str, "pairs": int}
        if self.train is not None:
            needed |= {"seed": int, "mix": int | float | None}
        for name, kind in needed.items():
            if name not in self.axes or not isinstance(self.axes[name], kind):
                raise ValueError(f"axes.{name} is missing, or of another type")
        return self


class PlannedCell(Shape):
    """A planned cell of a sweep."""

    key: str = Field(pattern="^[0-9a-z-]+$")
    axes: dict[str, Any]


class SweepDocument(Shape):
    """``sweep.json``."""

    kind_name: ClassVar[str] = "sweep"
    versions: ClassVar[tuple[int, ...]] = (SWEEP_SCHEMA,)
    what: ClassVar[str] = "JSON of a sweep"

    settings: dict[str, Any]
    cells: list[PlannedCell]


class Trace(Shape):
    """``process.json``: the process that works on a cell."""

    what: ClassVar[str] = "trace of a process"

    host: str
    pid: int = Field(gt=0, lt=2**31)
    started: float | int
