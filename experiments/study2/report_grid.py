"""Report of experiments B, C and D from their finished cells: ``grid.json`` and ``grid.md``.

    python experiments/study2/report_grid.py [FOLDER]

FOLDER holds the experiments' folders (B, B-wide, C-order, ...); default: this folder. A family
counts the seeds that have all its cells. It gets verdicts when all planned seeds are there; before,
it has means, intervals and detectable differences alone (plan.md).
"""

import math
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from contrasts import contrast, margin_of, over_languages, settle, unit_table
from families import (
    MEASURES,
    MIXES,
    TASKS,
    WIDE_TASKS,
    Contrast,
    Family,
    Side,
    Term,
    families,
    shown_sides,
    side,
    wide_families,
    words,
)
from findings_grid import write_page

from hybridbatch.common.errors import HybridBatchError
from hybridbatch.common.files import read_json, read_yaml, write_json
from hybridbatch.scaling.analysis import Measure, Sweep

HERE = Path(__file__).parent
EXPERIMENTS = ("B", "B-baselines", "B-mimo", "C-mkqa", "C-teacher", "C-order", "D", "D-fixed")
WIDE = ("B-wide",)
ARTICLES = read_json(HERE / "articles.json")
# The units of a task's tests, and that of a question by its id.
UNITS: dict[str, tuple[str, Callable[[str], str]]] = {
    "belebele-sib": ("passages", lambda question: question.rpartition("-")[0]),
    "atlas": ("territories", lambda question: question.rpartition("-")[0]),
    "xquad-r": ("articles", lambda question: ARTICLES[question]),
    "afriqa": ("questions", lambda question: question),
}


class Grid:
    """The cells of sweeps with the same targets, by side and seed."""

    def __init__(self, sweep: Sweep, planned_seeds: Sequence[int]) -> None:
        self.sweep = sweep
        self.planned_seeds = list(planned_seeds)

    @cached_property
    def sizes(self) -> list[int]:
        """The numbers of records of experiment B's trainings, ascending."""
        return sorted({cell["axes"]["pairs"] for cell in self._of("B")})

    def cells(self, of: Side) -> dict[int, str]:
        """The keys of a side's cells by seed."""
        if not of.axes:
            starts = {cell["axes"]["model"] for cell in self._of(of.experiment)}
            if not starts:
                return {}
            (start,) = starts
            untrained = self.sweep.untrained(start)
            assert untrained, "the untrained encoder is scored before any training"
            return dict.fromkeys(self.planned_seeds, untrained["key"])
        return {
            cell["axes"]["seed"]: cell["key"]
            for cell in self._of(of.experiment)
            if all(cell["axes"].get(name) == value for name, value in of.axes)
        }

    def seeds(self, terms: Sequence[Term]) -> list[int]:
        """The planned seeds that have all cells of the terms."""
        known = [self.cells(term.side) for term in terms]
        return [seed for seed in self.planned_seeds if all(seed in each for each in known)]

    def values(
        self, terms: Sequence[Term], seeds: Sequence[int], of: Measure
    ) -> tuple[pd.DataFrame, np.ndarray]:
        """The weighted sum of the terms.

        Returns:
            [seeds, questions], each averaged over its query languages, and
            float64 [query languages], averaged over seeds.
        """
        questions, languages = [], []
        for debiased in (False, True):
            part = [term for term in terms if term.debiased is debiased]
            if not part:
                continue
            weights = np.array([term.weight for term in part])
            keys = [self.cells(term.side)[seed] for term in part for seed in seeds]
            task = f"{of.task} (debiased)" if debiased else of.task
            measure = Measure(task, of.setting, of.metric)
            names, table = self.sweep.by_question(keys, measure)
            _, by_language = self.sweep.by_language(keys, task, of.setting, of.metric)
            shape = (len(part), len(seeds), -1)
            sums = np.tensordot(weights, table.reshape(shape), axes=1)
            questions.append(pd.DataFrame(sums, seeds, names))
            languages.append(weights @ by_language.reshape(shape).mean(axis=1))
        return sum(questions), np.sum(languages, axis=0)

    def mean(self, of: Side, debiased: bool, seeds: Sequence[int], measure: Measure) -> float:
        """Over seeds and query languages."""
        return float(self.values([Term(1, of, debiased)], seeds, measure)[1].mean())

    def _of(self, experiment: str) -> list[dict[str, Any]]:
        return [
            cell
            for cell in self.sweep.trained
            if self.sweep.homes[cell["key"]].path.name == experiment
        ]


def reported(grid: Grid, family: Family, sizes_are_planned: bool) -> dict[str, Any] | None:
    """The rows of a family; None while no seed has all its cells."""
    seeds = grid.seeds([term for each in family.contrasts for term in each.terms])
    if not seeds:
        return None
    scaled = any(each.kind in ("trend", "law") for each in family.contrasts)
    final = seeds == grid.planned_seeds and (sizes_are_planned or not scaled)
    unit, unit_of = UNITS[family.task]
    rows = []
    for each, (setting, metric) in product(family.contrasts, family.measures):
        measure = Measure(family.task, setting, metric)
        if not measured(grid.sweep, measure):
            continue
        questions, languages = grid.values(each.terms, seeds, measure)
        against = grid.mean(each.against.side, each.against.debiased, seeds, measure)
        margin = margin_of(metric, against) / each.span
        units = unit_table(questions - each.constant, {q: unit_of(q) for q in questions})
        row = {
            "contrast": each.name, "kind": each.kind, "task": family.task, "setting": setting,
            "metric": metric, "mean_against": against, "sides": list(cells_meant(each)),
            **contrast(units, margin, unit),
            **over_languages(languages - each.constant),
        }  # fmt: skip
        if each.kind == "gap":
            raw = [term for term in each.terms if not term.debiased]
            row["gap_raw"] = float(grid.values(raw, seeds, measure)[0].to_numpy().mean())
        rows.append(row)
    return {
        "name": family.name, "seeds": seeds, "final": final and not family.exploratory,
        "exploratory": family.exploratory,
        "rows": settle(rows, final and not family.exploratory),
    }  # fmt: skip


def measured(sweep: Sweep, measure: Measure) -> bool:
    """Whether the task has the measure."""
    (task,) = (task for task in sweep.tasks if task["name"] == measure.task)
    of_setting = task["settings"].get(measure.setting, {})
    return any(measure.metric in metrics for metrics in of_setting.values())


def cells_meant(each: Contrast) -> Iterator[Mapping[str, Any]]:
    """The terms of a contrast without their weights, for who recomputes it."""
    for term in each.terms:
        yield {
            "experiment": term.side.experiment, "axes": dict(term.side.axes),
            "debiased": term.debiased, "sign": int(math.copysign(1, term.weight)),
        }  # fmt: skip


def means(grid: Grid, sides: Sequence[Side], tasks: Sequence[str]) -> Iterator[dict[str, Any]]:
    """Of every side that has a cell, raw and debiased."""
    for each, debiased in product(sides, (False, True)):
        seeds = grid.seeds([Term(1, each, debiased)])
        if not seeds:
            continue
        line: dict[str, Any] = {
            "side": each.name, "experiment": each.experiment, "axes": dict(each.axes),
            "vectors": words(debiased), "seeds": seeds,
        }  # fmt: skip
        for task, (setting, metric) in product(tasks, MEASURES):
            measure = Measure(task, setting, metric)
            if measured(grid.sweep, measure):
                line[f"{task} {setting} {metric}"] = grid.mean(each, debiased, seeds, measure)
        yield line


def opened(home: Path, names: Sequence[str]) -> Sweep | None:
    """The experiments that have been begun, as one sweep."""
    begun = [home / name for name in names if (home / name / "sweep.json").exists()]
    return Sweep.open(*begun) if begun else None


def progress(home: Path) -> Iterator[dict[str, Any]]:
    """The trainings of each experiment, planned and done."""
    for name in (*EXPERIMENTS, *WIDE):
        settings = read_yaml(HERE / f"{name}.yaml")
        axes = [
            settings["mix"],
            settings["pairs"],
            settings["seeds"],
            *settings["set"].values(),
        ]
        done = opened(home, [name])
        yield {
            "experiment": name, "planned": math.prod(map(len, axes)),
            "trained": len(done.trained) if done else 0,
        }  # fmt: skip


def report(home: Path) -> dict[str, Any]:
    """The figures of the cells there are."""
    settings = read_yaml(HERE / "B.yaml")
    result: dict[str, Any] = {
        "schema_version": 2, "kind": "grid-report", "planned_seeds": settings["seeds"],
        "experiments": list(progress(home)), "means": [], "families": [],
    }  # fmt: skip
    main, wide = opened(home, EXPERIMENTS), opened(home, WIDE)
    if main and main.trained:
        grid = Grid(main, settings["seeds"])
        result["sizes"] = grid.sizes
        whole = len(grid.sizes) == len(settings["pairs"])
        found = [reported(grid, family, whole) for family in families(grid.sizes)]
        result["families"] += filter(None, found)
        result["means"] += means(grid, list(shown_sides(grid.sizes)), TASKS)
    if wide and wide.trained:
        grid = Grid(wide, settings["seeds"])
        found = [reported(grid, family, True) for family in wide_families()]
        result["families"] += filter(None, found)
        sides = [Side("untrained", "B-wide")]
        sides += [side("B-wide", f"mix {value:g}", mix=value) for value in MIXES]
        result["means"] += means(grid, sides, WIDE_TASKS)
    return result


def main() -> None:
    """Write the report."""
    home = Path(sys.argv[1]) if len(sys.argv) > 1 else HERE
    try:
        found = report(home)
        write_json(home / "grid.json", found)
        write_page(found, home)
    except HybridBatchError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
