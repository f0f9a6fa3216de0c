"""A sweep's results as tables and arrays, for people at a Python prompt and for `findings`.

from hybridbatch.scaling.analysis import Measure, Sweep
sweep = Sweep.open(Path("experiments/scale-sweep"))
sweep.frame()  # one row per cell, task, setting, metric and query language, as a pandas DataFrame
sweep.responses(Measure("atlas", "cross-lingual", "mAP"))[0].values  # [mixes, sizes, seeds, questions]
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from hybridbatch.averages import SETTINGS
from hybridbatch.languages import language
from hybridbatch.scaling.cells import SweepFolder

if TYPE_CHECKING:
    import pandas as pd

MAIN_METRICS = ("mAP", "rank_distance", "contrastive_entropy")
LOWER_IS_BETTER = ("rank_distance", "contrastive_entropy")
PRETRAINING = "xlm-r"  # the published list nearest to most multilingual encoders, multilingual E5 among them


@dataclass(frozen=True)
class Measure:
    """One number of a run: a metric of a task in a setting, averaged over the query languages of a group."""

    task: str
    setting: str
    metric: str
    group: str = "all"

    @property
    def lower_is_better(self) -> bool:
        """True for losses and rank distance."""
        return self.metric in LOWER_IS_BETTER

    def __str__(self) -> str:
        """The measure in words."""
        return f"{self.setting} {self.metric} on {self.task} ({self.group} query languages)"


@dataclass(frozen=True)
class Responses:
    """One measure over the part of the grid where nothing but mix, pairs and seed changes."""

    measure: Measure
    fixed: Mapping[str, Any]  # the other axes that vary in the sweep, with their value here
    mixes: tuple[float, ...]
    sizes: tuple[int, ...]  # training records
    seeds: tuple[int, ...]
    values: np.ndarray  # float64 [M, N, S, Q]
    untrained: np.ndarray  # float64 [Q], of the model before training
    keys: np.ndarray  # str [M, N, S], of the cells


@dataclass(frozen=True)
class Sweep:
    """The finished cells of a sweep, and the entries of its plan that have none."""

    folder: SweepFolder
    settings: Mapping[str, Any]
    cells: tuple[dict[str, Any], ...]
    missing: tuple[dict[str, Any], ...]

    @classmethod
    def open(cls, path: Path) -> "Sweep":
        """Read a sweep. Raises: DataError if `path` is none, or holds results of another schema version."""
        folder = SweepFolder(path)
        plan = folder.read_plan()
        done = [entry for entry in plan["cells"] if folder.result(entry["key"]).exists()]
        missing = [
            {**entry["axes"], "key": entry["key"], "state": folder.state(entry["key"])}
            for entry in plan["cells"]
            if entry not in done
        ]
        return cls(folder, plan["settings"], tuple(folder.read(entry["key"]) for entry in done), tuple(missing))

    @cached_property
    def varying(self) -> tuple[str, ...]:
        """Axes with more than one value among the trained cells."""
        trained = [cell["axes"] for cell in self.cells if cell["train"]]
        names = dict.fromkeys(name for axes in trained for name in axes)
        return tuple(name for name in names if len({axes.get(name) for axes in trained}) > 1)

    def frame(self) -> "pd.DataFrame":
        """Long table: the axes of the cell, its key, task, setting, metric, query language and value."""
        import pandas as pd

        return pd.DataFrame(
            {**cell["axes"], "key": cell["key"], "task": task["name"], "setting": setting, "language": code,
             "metric": metric, "value": value}
            for cell in self.cells
            for task in cell["eval"]["tasks"]
            for setting, languages in task["settings"].items()
            for code, metrics in languages.items()
            for metric, value in metrics.items()
        )  # fmt: skip

    def measures(self, metrics: Sequence[str]) -> list[Measure]:
        """Every (task, setting, metric, group) of the targets, the whole first; a group that equals another is left out."""
        if not self.cells:
            return []
        found = []
        for task in self.cells[0]["eval"]["tasks"]:
            codes = self.languages(task["name"])
            names = sorted(
                dict.fromkeys(group for code in codes for group in groups_of(code)), key=lambda name: name != "all"
            )
            groups: dict[tuple[str, ...], str] = {}
            for name in names:
                groups.setdefault(self.languages(task["name"], name), name)
            for group, setting, metric in product(groups.values(), SETTINGS, metrics):
                if any(metric in values for values in task["settings"].get(setting, {}).values()):
                    found.append(Measure(task["name"], setting, metric, group))
        return found

    def languages(self, task: str, group: str = "all") -> tuple[str, ...]:
        """Query languages of a task that are in a group."""
        known = next(entry for entry in self.cells[0]["eval"]["tasks"] if entry["name"] == task)
        codes = dict.fromkeys(code for languages in known["settings"].values() for code in languages)
        return tuple(code for code in codes if group in groups_of(code))

    def responses(self, measure: Measure) -> list[Responses]:
        """The measure over mix, pairs and seed, for every combination of the other axes.

        Cells that are missing cost the fewest others: of all ways to leave out seeds, the one that keeps the most
        cells at sizes where every mix is there. A combination of which nothing complete is left is left out.
        """
        others = [name for name in self.varying if name not in ("mix", "pairs", "seed")]
        trained = [cell for cell in self.cells if cell["train"]]
        combinations = dict.fromkeys(tuple(cell["axes"].get(name) for name in others) for cell in trained)
        found = []
        for values in combinations:
            fixed = dict(zip(others, values, strict=True))
            part = [cell for cell in trained if all(cell["axes"].get(name) == value for name, value in fixed.items())]
            cells = {(cell["axes"]["mix"], cell["axes"]["pairs"], cell["axes"]["seed"]): cell for cell in part}
            mixes = tuple(sorted({mix for mix, _, _ in cells}))
            sizes, seeds = _complete(cells, mixes)
            if sizes:
                found.append(self._array(measure, fixed, cells, mixes, sizes, seeds))
        return found

    def questions(self, key: str, measure: Measure) -> "pd.Series":
        """A cell's values by question, averaged over the query languages of the group that have the question.

        A sweep that was copied without its Parquet files gives one value, the mean: intervals then cover seeds alone.
        """
        import pandas as pd

        codes = self.languages(measure.task, measure.group)
        table = self._tables.get(key)
        if table is None:
            cell = next(cell for cell in self.cells if cell["key"] == key)
            task = next(task for task in cell["eval"]["tasks"] if task["name"] == measure.task)
            by_language = task["settings"][measure.setting]
            return pd.Series({"mean": np.mean([by_language[code][measure.metric] for code in codes])})
        chosen = table[
            (table["task"] == measure.task)
            & (table["setting"] == measure.setting)
            & table["query_language"].isin(codes)
        ]
        return chosen.groupby("query_id", observed=True)[measure.metric].mean().dropna()

    def untrained(self, model: str) -> dict[str, Any] | None:
        """The cell of a model before training."""
        return next((cell for cell in self.cells if not cell["train"] and cell["axes"]["model"] == model), None)

    @cached_property
    def _tables(self) -> dict[str, "pd.DataFrame"]:
        import pandas as pd

        paths = {cell["key"]: self.folder.queries(cell["key"]) for cell in self.cells}
        return (
            {key: pd.read_parquet(path) for key, path in paths.items()} if all(map(Path.exists, paths.values())) else {}
        )

    def _array(
        self,
        measure: Measure,
        fixed: Mapping[str, Any],
        cells: Mapping[tuple[float, int, int], dict[str, Any]],
        mixes: tuple[float, ...],
        sizes: tuple[int, ...],
        seeds: tuple[int, ...],
    ) -> Responses:
        import pandas as pd

        points = list(product(mixes, sizes, seeds))
        keys = [cells[point]["key"] for point in points]
        untrained = self.untrained(cells[points[0]]["axes"]["model"])
        columns = [self.questions(key, measure) for key in [*keys, *([untrained["key"]] if untrained else [])]]
        table = pd.concat(columns, axis=1, join="inner").to_numpy(dtype=float).T  # [cells, Q]
        shape = (len(mixes), len(sizes), len(seeds))
        return Responses(
            measure=measure,
            fixed=fixed,
            mixes=mixes,
            sizes=sizes,
            seeds=seeds,
            values=table[: len(keys)].reshape(*shape, -1),
            untrained=table[-1] if untrained else np.full(table.shape[1], np.nan),
            keys=np.array(keys).reshape(shape),
        )


def groups_of(code: str) -> tuple[str, ...]:
    """The groups a query language counts in: all, its resource class, its script, and whether XLM-R read it."""
    facts = language(code)
    read = facts.pretrained and PRETRAINING in facts.pretrained
    return (
        "all",
        f"{facts.resource_class}-resource" if facts.joshi_class is not None else "unlisted",
        f"script:{facts.script}",
        f"pretrained:{PRETRAINING}" if read else f"not pretrained:{PRETRAINING}",
    )


def _complete(
    cells: Mapping[tuple[float, int, int], Any], mixes: Sequence[float]
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Sizes and seeds, as many cells as possible, at which every mix is there."""
    whole: dict[int, set[int]] = {}  # sizes that a seed has in all mixes
    for _, size, seed in cells:
        if all((mix, size, seed) in cells for mix in mixes):
            whole.setdefault(seed, set()).add(size)
    by_completeness = sorted(whole, key=lambda seed: (-len(whole[seed]), seed))
    best: tuple[tuple[int, ...], tuple[int, ...]] = ((), ())
    for count in range(1, len(by_completeness) + 1):
        seeds = by_completeness[:count]
        sizes = set.intersection(*(whole[seed] for seed in seeds))
        if len(sizes) * count > len(best[0]) * len(best[1]):
            best = (tuple(sorted(sizes)), tuple(sorted(seeds)))
    return best
