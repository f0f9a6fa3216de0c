"""Report of experiment B from its finished cells: ``B/report.json``.

    python experiments/study2/report_B.py [FOLDER]

Counts the largest size alone, of which families B1, B2 and C1 are, and seeds that have the mixes 0,
0.5 and 1 there. Until the five planned seeds are there, the report is interim: it gives means,
intervals and detectable differences, and no verdict (plan.md).
"""

import sys
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from contrasts import Row, contrast, margin_of, over_languages, settle

from hybridbatch.common.errors import HybridBatchError
from hybridbatch.common.files import read_yaml, write_json
from hybridbatch.scaling.analysis import Measure, Sweep

HERE = Path(__file__).parent
MIXES = (0.0, 0.5, 1.0)
TASKS = ("belebele-sib", "atlas")
MEASURES = (
    ("monolingual", "mAP"), ("cross-lingual", "mAP"), ("multilingual", "mAP"),
    ("multilingual", "rank_distance"),
)  # fmt: skip
DEBIASED = {"raw": "{}", "debiased": "{} (debiased)"}  # names of a task's scores


class Grid:
    """The cells of the largest size, and the untrained ones."""

    def __init__(self, sweep: Sweep) -> None:
        self.sweep = sweep
        trained = [cell["axes"] | {"key": cell["key"]} for cell in sweep.trained]
        self.trained = len(trained)
        self.largest = max(axes["pairs"] for axes in trained)
        keys = {(a["mix"], a["seed"]): a["key"] for a in trained if a["pairs"] == self.largest}
        seeds = sorted({seed for _, seed in keys})
        self.seeds = [seed for seed in seeds if all((mix, seed) in keys for mix in MIXES)]
        self.keys = {f"{mix:g}": [keys[mix, seed] for seed in self.seeds] for mix in MIXES}
        untrained = sweep.untrained(trained[0]["model"])
        assert untrained, "the untrained encoder is scored before any training"
        self.keys["untrained"] = [untrained["key"]] * len(self.seeds)

    def differences(self, ours: list[str], theirs: list[str], measure: Measure) -> np.ndarray:
        """Of cell and cell, float64 [seeds, questions]."""
        values = self.sweep.matrix([*ours, *theirs], measure)
        return np.asarray(values[: len(ours)] - values[len(ours) :])

    def by_language(self, keys: list[str], measure: Measure) -> np.ndarray:
        """The mean over seeds of each query language, float64 [languages]."""
        _, means = self.sweep.by_language(keys, measure.task, measure.setting, measure.metric)
        return np.asarray(means.mean(axis=0))

    def mean(self, keys: list[str], measure: Measure) -> float:
        """Over seeds and query languages."""
        return float(self.by_language(keys, measure).mean())


def compared(grid: Grid, scores: str, ours: str, theirs: str) -> Iterator[Row]:
    """Two sides in every measure of a task's scores, raw or debiased."""
    first, second = grid.keys[ours], grid.keys[theirs]
    for setting, metric in MEASURES:
        measure = Measure(scores, setting, metric)
        languages = grid.by_language(first, measure) - grid.by_language(second, measure)
        differences = grid.differences(first, second, measure)
        row = tested(f"{ours} - {theirs}", measure, differences, grid.mean(second, measure))
        yield row | over_languages(languages)


def gaps(grid: Grid, task: str) -> Iterator[Row]:
    """How much smaller the difference of the pure kinds is after debiasing: C1."""
    for setting, metric in MEASURES[2:]:
        raw, after = (
            grid.differences(grid.keys["0"], grid.keys["1"], Measure(name.format(task), setting, metric))
            for name in DEBIASED.values()
        )  # fmt: skip
        measure = Measure(task, setting, metric)
        against = grid.mean(grid.keys["1"], measure)
        row = tested("(0 - 1 raw) - (0 - 1 debiased)", measure, raw - after, against)
        yield row | {"gap_raw": float(raw.mean()), "gap_debiased": float(after.mean())}


def tested(name: str, measure: Measure, differences: np.ndarray, against: float) -> Row:
    """A contrast of [seeds, questions]; `against`: the mean of the other side."""
    margin = margin_of(measure.metric, against)
    return {
        "contrast": name, "task": measure.task, "setting": measure.setting, "metric": measure.metric,
        "mean_against": against, **contrast(differences, margin, "questions"),
    }  # fmt: skip


def means(grid: Grid) -> Iterator[dict[str, Any]]:
    """Of every mix, raw and debiased."""
    for mix, (vectors, name) in product(MIXES, DEBIASED.items()):
        line: dict[str, Any] = {"mix": mix, "vectors": vectors}
        for task, (setting, metric) in product(TASKS, MEASURES):
            value = grid.mean(
                grid.keys[f"{mix:g}"], Measure(name.format(task), setting, metric)
            )
            line[f"{task} {setting} {metric}"] = value
        yield line


def report(sweep: Sweep) -> dict[str, Any]:
    """The figures of the cells there are."""
    settings = read_yaml(HERE / "B.yaml")
    grid = Grid(sweep)
    planned = settings["seeds"]
    final = grid.seeds == planned
    cells = len(settings["mix"]) * len(settings["pairs"]) * len(planned)
    result: dict[str, Any] = {
        "schema_version": 1, "kind": "grid-report", "final": final, "seeds": grid.seeds,
        "planned_seeds": planned, "largest": grid.largest, "trained": grid.trained, "planned": cells,
    }  # fmt: skip
    if not grid.seeds:
        return result | {"means": [], "families": {}, "exploratory": {}}
    families: dict[str, list[Row]] = {}
    exploratory: dict[str, list[Row]] = {}
    for task in TASKS:
        debiased = DEBIASED["debiased"].format(task)
        for name, scores in (
            (f"B1 hybrid against pure kinds, raw, {task}", task),
            (f"B2 the same, debiased, {task}", debiased),
        ):
            families[name] = [
                row for pure in ("0", "1") for row in compared(grid, scores, "0.5", pure)
            ]
        families[f"C1 does debiasing close the gap, {task}"] = list(gaps(grid, task))
        exploratory[f"is training worth it, debiased, {task}"] = [
            row
            for mix in ("0", "0.5", "1")
            for row in compared(grid, debiased, mix, "untrained")
        ]
    return result | {
        "means": list(means(grid)),
        "families": {name: settle(rows, final) for name, rows in families.items()},
        "exploratory": {name: settle(rows, False) for name, rows in exploratory.items()},
    }


def main() -> None:
    """Write the report."""
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else HERE / "B"
    try:
        sweep = Sweep.open(folder)
        if sweep.trained:
            write_json(folder / "report.json", report(sweep))
        else:
            sys.stdout.write(f"{folder}: no trained cell is finished yet; nothing to report\n")
    except HybridBatchError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
