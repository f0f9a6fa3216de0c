"""Results of sweeps as tables and arrays, for use from Python and by `findings`.

from hybridbatch.scaling.analysis import Measure, Sweep
sweep = Sweep.open(Path("experiments/scale-sweep"))
sweep.frame()  # one row per cell, task, setting, metric and query language, as a pandas DataFrame
sweep.responses(Measure("atlas", "cross-lingual", "mAP"))[0].values  # [mixes, sizes, seeds,
questions]
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import compress, pairwise, product
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from hybridbatch.common.errors import DataError
from hybridbatch.common.languages import language
from hybridbatch.sampling.strategies import MIXING
from hybridbatch.scaling.cells.folder import SweepFolder
from hybridbatch.scoring.averages import SETTINGS

if TYPE_CHECKING:
    import pandas as pd

MAIN_METRICS = ("mAP", "rank_distance", "contrastive_entropy")
FURTHER_METRICS = ("ndcg@10", "recall@10", "same_language_share@10")  # shown, not tested
LOWER_IS_BETTER = ("rank_distance", "contrastive_entropy")
# the published list nearest to most multilingual encoders, multilingual E5 among them
PRETRAINING = "xlm-r"
# axes that may be numbers on a scale
SCALES = ("pairs", "train_languages", "batch_size", "steps", "epochs")


@dataclass(frozen=True)
class Measure:
    """A metric of a task in a setting, averaged over the query languages of a group."""

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
    """One measure over a part of the grid: only mix, one axis of scale, and seed vary in it."""

    measure: Measure
    fixed: Mapping[str, Any]  # the other axes that vary in the sweep, with their value here
    mixes: tuple[float | None, ...]  # (None,) for a strategy that has no mix
    sizes: tuple[float, ...]  # on the axis of scale (`over`)
    seeds: tuple[int, ...]
    values: np.ndarray  # float64 [M, N, S, Q]
    untrained: np.ndarray  # float64 [Q], of the model before training
    keys: np.ndarray  # str [M, N, S], of the cells
    over: str = "pairs"  # the axis of scale

    @property
    def pure(self) -> bool:
        """Whether the mixes include both pure strategies and a hybrid between them."""
        return len(self.mixes) > 2 and self.mixes[0] == 0 and self.mixes[-1] == 1


@dataclass(frozen=True)
class Sweep:
    """The finished cells of one or more sweeps with the same evaluation targets.

    It also holds the planned cells that are not finished.
    """

    folders: tuple[SweepFolder, ...]
    settings: tuple[Mapping[str, Any], ...]  # of each folder's latest command
    cells: tuple[dict[str, Any], ...]  # finished; each has every axis that any of them has
    missing: tuple[dict[str, Any], ...]
    homes: Mapping[str, SweepFolder]  # of the finished cells, by key

    @classmethod
    def open(cls, *paths: Path) -> "Sweep":
        """Read the sweeps in some folders as one sweep; a cell in several folders counts once.

        Cells of earlier grids in a folder count too, so a star-shaped grid can be run arm by arm.

        Raises:
            DataError: a path is no sweep, has results of another schema version, or evaluates
                other languages or tasks than the first path.
        """
        folders = tuple(map(SweepFolder, dict.fromkeys(paths)))
        plans = [folder.read_plan() for folder in folders]
        cells: dict[str, dict[str, Any]] = {}
        homes: dict[str, SweepFolder] = {}
        missing: dict[str, dict[str, Any]] = {}
        for folder, plan in zip(folders, plans, strict=True):
            planned = [entry["key"] for entry in plan["cells"]]
            earlier = sorted(
                {path.stem for path in (folder.path / "cells").glob("*.json")} - set(planned)
            )
            for key in [*planned, *earlier]:
                if key not in cells and folder.result(key).exists():
                    cells[key] = folder.read(key)
                    homes[key] = folder
            for entry in plan["cells"]:
                key = entry["key"]
                missing.setdefault(
                    key, {**entry["axes"], "key": key, "state": folder.state(key)}
                )
        _require_same_targets(cells.values(), homes)
        return cls(
            folders,
            tuple(plan["settings"] for plan in plans),
            tuple(_with_all_axes(list(cells.values()))),
            tuple(entry for key, entry in missing.items() if key not in cells),
            homes,
        )

    @cached_property
    def trained(self) -> list[dict[str, Any]]:
        """The cells with a training."""
        return [cell for cell in self.cells if cell["train"]]

    @cached_property
    def varying(self) -> tuple[str, ...]:
        """Axes with more than one value among the trained cells."""
        names = dict.fromkeys(name for cell in self.trained for name in cell["axes"])
        found = []
        for name in names:
            if len({cell["axes"].get(name) for cell in self.trained}) > 1:
                found.append(name)
        return tuple(found)

    @cached_property
    def scales(self) -> tuple[str, ...]:
        """Varying axes whose values are sizes.

        Training languages are such an axis if every set of them holds all smaller sets.
        """
        sets = sorted({frozenset(trained_languages(cell)) for cell in self.trained}, key=len)
        nested = all(one < two for one, two in pairwise(sets))
        found = []
        for name in SCALES:
            if name not in self.varying:
                continue
            sized = all(size_of(cell, name) is not None for cell in self.trained)
            if nested if name == "train_languages" else sized:
                found.append(name)
        return tuple(found)

    def frame(self) -> "pd.DataFrame":
        """A long table with the columns axes, key, task, setting, language, metric and value."""
        import pandas as pd

        return pd.DataFrame(
            {
                **cell["axes"],
                "key": cell["key"],
                "task": task["name"],
                "setting": setting,
                "language": code,
                "metric": metric,
                "value": value,
            }
            for cell in self.cells
            for task in cell["eval"]["tasks"]
            for setting, languages in task["settings"].items()
            for code, metrics in languages.items()
            for metric, value in metrics.items()
        )

    def measures(self, metrics: Sequence[str]) -> list[Measure]:
        """Every (task, setting, metric, group) of the targets; the group of all languages is first.

        A group with the same languages as an earlier group is left out.
        """
        if not self.cells:
            return []
        found = []
        for task in self.tasks:
            codes = self.languages(task["name"])
            names = sorted(
                dict.fromkeys(group for code in codes for group in self.groups_of(code)),
                key=lambda name: name != "all",
            )
            groups: dict[tuple[str, ...], str] = {}
            for name in names:
                groups.setdefault(self.languages(task["name"], name), name)
            for group, setting, metric in product(groups.values(), SETTINGS, metrics):
                languages = task["settings"].get(setting, {})
                if any(
                    metric in languages.get(code, {})
                    for code in self.languages(task["name"], group)
                ):
                    found.append(Measure(task["name"], setting, metric, group))
        return found

    def languages(self, task: str, group: str = "all") -> tuple[str, ...]:
        """The query languages of a task that belong to a group."""
        known = next(entry for entry in self.tasks if entry["name"] == task)
        codes = dict.fromkeys(
            code for languages in known["settings"].values() for code in languages
        )
        return tuple(code for code in codes if group in self.groups_of(code))

    def groups_of(self, code: str) -> tuple[str, ...]:
        """The groups that a query language belongs to in this sweep.

        They are the groups of `groups_of`, and a group for "seen", "partly seen" or "unseen" in
        the trainings of the sweep.
        """
        saw = [code in trained_languages(cell) for cell in self.trained]
        seen = (
            "seen in training"
            if saw and all(saw)
            else "partly seen"
            if any(saw)
            else "unseen in training"
        )
        return (*groups_of(code), seen)

    def responses(self, measure: Measure, over: str = "pairs") -> list[Responses]:
        """The measure over mix, an axis of scale and seed, for every combination of the other axes.

        An array needs every mix at every size and seed. If cells are missing, the choice of seeds
        and sizes that keeps the most cells is used. A combination without any complete array is
        left out. If some sizes have fewer mixes than others, a second array covers the mixes that
        all sizes have. A strategy that has no mix is a combination of its own.
        """
        others = [name for name in self.varying if name not in ("mix", over, "seed")]
        combinations: dict[tuple[Any, ...], dict[tuple[Any, float, int], dict[str, Any]]] = {}
        for cell in self.trained:
            size = size_of(cell, over)
            if size is not None:
                part = combinations.setdefault(
                    tuple(cell["axes"].get(name) for name in others), {}
                )
                part.setdefault((cell["axes"]["mix"], size, cell["axes"]["seed"]), cell)
        found = []
        for values, cells in combinations.items():
            fixed = dict(zip(others, values, strict=True))
            at_size: dict[float, set[Any]] = {}
            for mix, size, _ in cells:
                at_size.setdefault(size, set()).add(mix)
            for choice in dict.fromkeys(
                tuple(sorted(mixes))
                for mixes in (set.union(*at_size.values()), set.intersection(*at_size.values()))
            ):
                sizes, seeds = _complete(cells, choice)
                if choice and sizes:
                    found.append(self._array(measure, fixed, cells, choice, sizes, seeds, over))
        return found

    def matrix(self, keys: Sequence[str], measure: Measure) -> np.ndarray:
        """Values of some cells by question, averaged over the group's languages with the question.

        A sweep without its Parquet files gives one value per cell, the mean. Intervals then cover
        seeds alone.

        Returns:
            float64 [cells, Q], for the questions that all cells have.
        """
        return self.by_question(keys, measure)[1]

    def by_question(
        self, keys: Sequence[str], measure: Measure
    ) -> tuple[tuple[str, ...], np.ndarray]:
        """The ids of the questions that all of some cells have, and `matrix`, float64 [cells, Q].

        A sweep without its Parquet files has one question, the mean, with an empty id.
        """
        table = self._values(measure.task, measure.setting)
        rows = [table.row[key] for key in keys]
        columns = [
            table.languages.index(code)
            for code in self._codes(measure)
            if code in table.languages
        ]
        chosen = table.values[measure.metric][np.ix_(rows, columns)]
        known = np.isfinite(chosen)
        counts = known.sum(axis=1)
        whole = (counts > 0).all(axis=0)
        means = np.where(known, chosen, 0).sum(axis=1)[:, whole] / counts[:, whole]
        return tuple(compress(table.questions, whole)), means

    def by_language(
        self, keys: Sequence[str], task: str, setting: str, metric: str
    ) -> tuple[tuple[str, ...], np.ndarray]:
        """The query languages, and the mean of every cell in each of them, float64 [cells, L]."""
        table = self._values(task, setting)
        chosen = table.values[metric][[table.row[key] for key in keys]]
        known = np.isfinite(chosen)
        counts = known.sum(axis=2)
        whole = (counts > 0).all(axis=0)
        means = np.where(known, chosen, 0).sum(axis=2)[:, whole] / counts[:, whole]
        return tuple(
            code for code, kept in zip(table.languages, whole, strict=True) if kept
        ), means

    def untrained(self, model: str) -> dict[str, Any] | None:
        """The cell of a model before training."""
        for cell in self.starts:
            if cell["axes"]["model"] == model and not cell["axes"].get("baseline"):
                return cell
        return None

    @cached_property
    def starts(self) -> list[dict[str, Any]]:
        """The cells without a training: the starting models, then the baselines."""
        found = [cell for cell in self.cells if not cell["train"]]
        return sorted(found, key=lambda cell: bool(cell["axes"].get("baseline")))

    @cached_property
    def debiased(self) -> dict[str, str]:
        """The name of the debiased scores of each task that has some, by the name of the task."""
        return {task["of"]: task["name"] for task in self.tasks if task.get("of")}

    @cached_property
    def tasks(self) -> list[dict[str, Any]]:
        """The tasks of the sweep with one cell's scores; debiased scores are tasks of their own."""
        whole = [cell for cell in self.cells if not cell["axes"].get("baseline")]
        tasks: list[dict[str, Any]] = (whole or list(self.cells))[0]["eval"]["tasks"]
        return tasks

    def _codes(self, measure: Measure) -> tuple[str, ...]:
        wanted = (measure.task, measure.group)
        if wanted not in self._members:
            self._members[wanted] = self.languages(*wanted)
        return self._members[wanted]

    @cached_property
    def _members(self) -> dict[tuple[str, str], tuple[str, ...]]:
        return {}

    @cached_property
    def _dense(self) -> dict[tuple[str, str], "_Values"]:
        return {}

    def _values(self, task: str, setting: str) -> "_Values":
        if (task, setting) not in self._dense:
            self._dense[task, setting] = _Values.of(self, task, setting)
        return self._dense[task, setting]

    @cached_property
    def _tables(self) -> dict[str, "pd.DataFrame"]:
        homes = {cell["key"]: self.homes[cell["key"]] for cell in self.cells}
        if not all(home.queries(key).exists() for key, home in homes.items()):
            return {}
        return {key: home.read_queries(key) for key, home in homes.items()}

    def _array(
        self,
        measure: Measure,
        fixed: Mapping[str, Any],
        cells: Mapping[tuple[Any, float, int], dict[str, Any]],
        mixes: tuple[float | None, ...],
        sizes: tuple[float, ...],
        seeds: tuple[int, ...],
        over: str,
    ) -> Responses:
        points = list(product(mixes, sizes, seeds))
        keys = [cells[point]["key"] for point in points]
        untrained = self.untrained(cells[points[0]]["axes"]["model"])
        table = self.matrix([*keys, *([untrained["key"]] if untrained else [])], measure)
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
            over=over,
        )


@dataclass(frozen=True)
class _Values:
    """All values of a task in a setting; NaN if a cell has no value for a language and question."""

    row: Mapping[str, int]  # of a cell's key
    languages: tuple[str, ...]  # [L]
    questions: tuple[str, ...]  # [Q]; an empty id if only means are known
    # by metric, float64 [C, L, Q]; Q is 1 if only means are known
    values: Mapping[str, np.ndarray]

    @classmethod
    def of(cls, sweep: Sweep, task: str, setting: str) -> "_Values":
        import pandas as pd

        row = {cell["key"]: number for number, cell in enumerate(sweep.cells)}
        languages = sweep.languages(task)
        tables = {
            key: table[(table["task"] == task) & (table["setting"] == setting)]
            for key, table in sweep._tables.items()
        }
        if not tables:
            return cls(row, languages, ("",), _from_means(sweep, languages, task, setting))
        questions = pd.Index(
            dict.fromkeys(name for table in tables.values() for name in table["query_id"])
        )
        values: dict[str, np.ndarray] = {}
        for key, table in tables.items():
            place = (
                pd.Index(languages).get_indexer(table["query_language"]),
                questions.get_indexer(table["query_id"]),
            )
            for metric in table.columns.difference(
                ["task", "setting", "query_language", "query_id"]
            ):
                whole = values.setdefault(
                    metric, np.full((len(row), len(languages), len(questions)), np.nan)
                )
                whole[row[key]][place] = table[metric].to_numpy(dtype=float)
        return cls(row, languages, tuple(questions), values)


def _from_means(
    sweep: Sweep, languages: Sequence[str], task: str, setting: str
) -> dict[str, np.ndarray]:
    values: dict[str, np.ndarray] = {}
    for number, cell in enumerate(sweep.cells):
        scored = {entry["name"]: entry["settings"] for entry in cell["eval"]["tasks"]}
        known = scored.get(task, {}).get(setting, {})
        for code, metrics in known.items():
            for metric, value in metrics.items():
                whole = values.setdefault(
                    metric, np.full((len(sweep.cells), len(languages), 1), np.nan)
                )
                whole[number, languages.index(code), 0] = value
    return values


def groups_of(code: str) -> tuple[str, ...]:
    """The groups that a query language belongs to.

    They are all languages, its resource class, its script, and whether XLM-R's pretraining has it.
    """
    facts = language(code)
    read = facts.pretrained and PRETRAINING in facts.pretrained
    return (
        "all",
        f"{facts.resource_class}-resource" if facts.joshi_class is not None else "unlisted",
        f"script:{facts.script}",
        f"pretrained:{PRETRAINING}" if read else f"not pretrained:{PRETRAINING}",
    )


def trained_languages(cell: Mapping[str, Any]) -> tuple[str, ...]:
    """The languages of a cell's training."""
    return tuple(cell["settings"]["train"]["languages"].split(","))


def size_of(cell: Mapping[str, Any], axis: str) -> float | None:
    """A trained cell's value on an axis of scale; None if the value is no number.

    The value on the axis of training languages is their number.
    """
    if axis == "train_languages":
        return len(trained_languages(cell))
    value = cell["axes"].get(axis)
    return value if isinstance(value, int | float) else None


def _with_all_axes(cells: Sequence[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """The cells, each with the axes of all cells.

    If a grid did not vary an axis, its cells get the value from their settings.
    """
    names = dict.fromkeys(name for cell in cells if cell["train"] for name in cell["axes"])
    for cell in cells:
        if not cell["train"]:
            yield cell
            continue
        settings = cell["settings"]["train"]
        axes = {name: _plain(cell["axes"].get(name, settings.get(name))) for name in names}
        if settings.get("strategy", MIXING[0]) not in MIXING:
            axes["mix"] = None
        yield {**cell, "axes": axes}


def _plain(value: Any) -> Any:
    """A value of an axis in a form that can be compared: lists and mappings become text."""
    if isinstance(value, Mapping):
        return ",".join(f"{name}={each}" for name, each in sorted(value.items()))
    return ",".join(map(str, value)) if isinstance(value, list | tuple) else value


def _require_same_targets(
    cells: Iterable[Mapping[str, Any]], homes: Mapping[str, SweepFolder]
) -> None:
    """Raise DataError if cells were evaluated on different targets."""
    first = None
    for cell in sorted(cells, key=lambda cell: bool(cell["axes"].get("baseline"))):
        settings = cell["settings"]["eval"]
        targets = (
            settings["tasks"],
            sorted(settings["languages"].split(",")),
            *([] if cell["axes"].get("baseline") else [cell["settings"].get("debias")]),
        )
        first = first or (targets, homes[cell["key"]])
        if targets != first[0][: len(targets)]:
            raise DataError(
                f"{homes[cell['key']].result(cell['key'])}: has other languages, tasks or language"
                f" vectors (--debias) than the cells of {first[1].path}; report sweeps of"
                " different targets separately, and keep them in separate folders"
            )


def _complete(
    cells: Mapping[tuple[Any, float, int], Any], mixes: Sequence[Any]
) -> tuple[tuple[float, ...], tuple[int, ...]]:
    """The sizes and seeds that have every mix and keep as many cells as possible."""
    whole: dict[int, set[float]] = {}  # the sizes at which a seed has every mix
    for _, size, seed in cells:
        if all((mix, size, seed) in cells for mix in mixes):
            whole.setdefault(seed, set()).add(size)
    by_completeness = sorted(whole, key=lambda seed: (-len(whole[seed]), seed))
    best: tuple[tuple[float, ...], tuple[int, ...]] = ((), ())
    for count in range(1, len(by_completeness) + 1):
        seeds = by_completeness[:count]
        sizes = set.intersection(*(whole[seed] for seed in seeds))
        if len(sizes) * count > len(best[0]) * len(best[1]):
            best = (tuple(sorted(sizes)), tuple(sorted(seeds)))
    return best
