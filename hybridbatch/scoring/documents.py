"""The shapes of ``eval.json`` and of its file of scores, and the functions that read them."""

from pathlib import Path
from typing import Any, ClassVar

from pydantic import Field

from hybridbatch.common.documents import Shape, read_document
from hybridbatch.common.integrity import check_file

RESULT = "eval.json"
SCHEMA_VERSION = 1
AGAIN = "run `hybridbatch eval` again"
Number = float | int | None


class Provenance(Shape):
    """Where a task comes from."""

    fingerprint: str


class Setting(Shape):
    """Averages of one setting."""

    query_languages: int
    metrics: dict[str, Number]
    groups: dict[str, Any]
    by_query_language: dict[str, dict[str, Number]]


class Pairs(Shape):
    """Scores of every pair of languages, as matrices."""

    query_languages: list[str]
    corpus_languages: list[str]
    metrics: dict[str, list[list[Number]]]


class EvaluatedTask(Shape):
    """A task of an evaluation: the part that comparisons need."""

    name: str
    provenance: Provenance


class TaskScores(EvaluatedTask):
    """A task of an evaluation with all its averages."""

    counts: dict[str, Any]
    settings: dict[str, Setting]
    pairs: Pairs


class Scored(Shape):
    """The model that was evaluated."""

    name: str


class Evaluated(Shape):
    """``eval.json``: the part that comparisons need."""

    kind_name: ClassVar[str] = "eval"
    versions: ClassVar[tuple[int, ...]] = (SCHEMA_VERSION,)
    what: ClassVar[str] = "JSON of an evaluation"

    tasks: list[EvaluatedTask]
    files: dict[str, str] = Field(default_factory=dict)  # XXH3 of the files beside it


class Averages(Evaluated):
    """``eval.json``: the part that tables and figures need."""

    model: Scored
    tasks: list[TaskScores]  # type: ignore[assignment]
    official: list[dict[str, Any]]
    left_out: list[dict[str, Any]] = Field(default_factory=list)  # mteb's tasks without a score


def read_evaluation(folder: Path, shape: type[Evaluated] = Averages) -> dict[str, Any]:
    """The ``eval.json`` of a folder. Raises `DataError`."""
    return read_document(folder / RESULT, shape, AGAIN)


def check_scores(folder: Path, name: str, facts: dict[str, Any] | None = None) -> None:
    """Compare a file of an evaluation with the checksum in its ``eval.json``.

    Evaluations of earlier versions have no checksums.

    Args:
        facts: the result of `read_evaluation`, if known.

    Raises:
        DataError: the file is damaged or belongs to another evaluation.
    """
    if facts is None:
        if not (folder / RESULT).is_file():
            return
        facts = read_evaluation(folder, Evaluated)
    check_file(folder / name, facts.get("files", {}).get(name), AGAIN)
