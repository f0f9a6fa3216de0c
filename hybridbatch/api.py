"""hybridbatch from Python: every stage of the command line as a function.

    import hybridbatch as hb

    data = hb.prepare("my-data.jsonl")
    run = hb.train(data=data, mix=0.5, steps=200)
    evaluation = hb.evaluate(run, tasks="xquad-r")
    evaluation.table()

Settings have the names that they have on the command line, with ``_`` for ``-``, and are checked in
the same way. A run that was interrupted goes on when its function is called again. Every function
raises `HybridBatchError` for what the user can mend. Nothing is printed: give a `Reporter` as
`progress` to be told of it.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hybridbatch.common.files import read_json
from hybridbatch.common.progress import SILENT, Reporter
from hybridbatch.common.settings import build

if TYPE_CHECKING:
    import pandas as pd

    from hybridbatch.model import Encoder


@dataclass(frozen=True)
class PreparedData:
    """A folder of training data."""

    folder: Path

    def __fspath__(self) -> str:
        return str(self.folder)

    @cached_property
    def manifest(self) -> dict[str, Any]:
        """What is in it: sources, languages, counts, what was left out and why."""
        return read_json(self.folder / "manifest.json")

    @property
    def fingerprint(self) -> str:
        """Hex sha256 of all rows."""
        return self.manifest["fingerprint"]

    @property
    def languages(self) -> tuple[str, ...]:
        """Canonical ids of the languages."""
        return tuple(self.manifest["languages"])


@dataclass(frozen=True)
class Run:
    """A training run that has ended."""

    folder: Path

    def __fspath__(self) -> str:
        return str(self.folder)

    @property
    def model(self) -> Path:
        """The folder of the trained model, for `SentenceTransformer` or `AutoModel`."""
        return self.folder / "model"

    @cached_property
    def facts(self) -> dict[str, Any]:
        """The content of train.json: settings, data, losses, versions."""
        return read_json(self.folder / "train.json")

    def encoder(self) -> "Encoder":
        """The trained encoder. Raises `ModelError`."""
        from hybridbatch.model import Encoder

        return Encoder.load(str(self.folder))


@dataclass(frozen=True)
class Evaluation:
    """The scores of one model."""

    folder: Path

    def __fspath__(self) -> str:
        return str(self.folder)

    @cached_property
    def facts(self) -> dict[str, Any]:
        """The content of eval.json: settings, means by setting, group and language, versions."""
        return read_json(self.folder / "eval.json")

    def table(self) -> "pd.DataFrame":
        """mAP by setting, and rank distance: a row for each task and group of languages."""
        import pandas as pd

        from hybridbatch.scoring.summary import summary_rows

        return pd.DataFrame(summary_rows(self.facts))

    def per_query(self, metric: str = "mAP") -> "pd.DataFrame":
        """The score of every query in every setting.

        Columns: task, setting, query_language, corpus_language, query_id, value. Queries without
        this metric are left out. Raises `DataError` for an unknown metric.
        """
        from hybridbatch.scoring.per_query import read

        return read(self.folder, metric).to_pandas()


@dataclass(frozen=True)
class Comparison:
    """Which of several evaluations is better, with questions as the unit."""

    facts: dict[str, Any]  # as `hybridbatch.scoring.compare.compare` gives it

    @property
    def sentences(self) -> tuple[str, ...]:
        """The verdicts, one for each task and pair of runs."""
        return tuple(self.facts["summaries"])

    def table(self) -> "pd.DataFrame":
        """A row for each task, setting and pair of runs: means, difference, interval, p value."""
        import pandas as pd

        return pd.DataFrame(self.facts["rows"])


def prepare(*sources: str | Path, progress: Reporter = SILENT, **settings: Any) -> PreparedData:
    """Build training data from built-in sources or your own parallel files.

    Args:
        sources: names of built-in sources, files or folders; none: the atlas.
        progress: is told of notes and progress.
        settings: those of `hybridbatch prepare`.
    Raises: `ConfigError`, `DataError`, `OutputError`.
    """
    from hybridbatch.data.prepare import prepare as run
    from hybridbatch.data.settings import PrepareConfig

    if sources:
        settings["sources"] = tuple(str(source) for source in sources)
    return PreparedData(run(build(PrepareConfig, None, _plain(settings)), progress))


def train(*, progress: Reporter = SILENT, **settings: Any) -> Run:
    """Fine-tune one encoder with hybrid batches.

    Args:
        progress: is told of notes and progress.
        settings: those of `hybridbatch train`, such as ``data``, ``model``, ``mix`` and ``steps``.
    Raises: `ConfigError`, `DataError`, `ModelError`, `OutputError`.
    """
    from hybridbatch.training.settings import TrainConfig
    from hybridbatch.training.train import train as run

    return Run(run(build(TrainConfig, None, _plain(settings)), progress))


def evaluate(
    model: str | Path | Run = "e5-small-q4", *, progress: Reporter = SILENT, **settings: Any
) -> Evaluation:
    """Score an encoder on every language pair and on the multilingual pool.

    Args:
        model: a run, a folder, a built-in name, a hub id, or a baseline (``"bm25"``, ``"random"``).
        progress: is told of notes and progress.
        settings: those of `hybridbatch eval`, such as ``tasks`` and ``languages``.
    Raises: `ConfigError`, `DataError`, `ModelError`, `OutputError`.
    """
    from hybridbatch.scoring.evaluate import evaluate as run
    from hybridbatch.scoring.settings import EvalConfig

    settings["model"] = model
    return Evaluation(run(build(EvalConfig, None, _plain(settings)), progress))


def compare(
    *evaluations: Evaluation | Path | str | Sequence[Evaluation | Path | str],
    metric: str = "mAP",
    seed: int = 13,
) -> Comparison:
    """Test which of several evaluations is better, with questions as the unit.

    Args:
        evaluations: two or more; one may be a sequence, an evaluation for each training seed.
        metric: such as ``"mAP"``, ``"ndcg@10"`` or ``"rank_distance"``.
        seed: of the randomisation test and the bootstrap.
    Raises: `ConfigError` for fewer than two, `DataError` for evaluations that share no task.
    """
    from hybridbatch.scoring.compare import compare as run

    groups: list[list[Path]] = []
    for each in evaluations:
        if isinstance(each, str | Path | Evaluation):
            each = [each]
        groups.append([Path(part) for part in each])
    return Comparison(run(groups, metric, seed=seed))


def _plain(value: Any) -> Any:
    """A setting as a YAML file would hold it: paths, and folders of results, as text."""
    if isinstance(value, dict):
        return {name: _plain(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return tuple(_plain(part) for part in value)
    return os.fspath(value) if isinstance(value, os.PathLike) else value
