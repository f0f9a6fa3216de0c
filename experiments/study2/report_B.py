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
from typing import Any, NamedTuple

import numpy as np

from hybridbatch.common.errors import HybridBatchError
from hybridbatch.common.files import read_yaml, write_json
from hybridbatch.scaling.analysis import Measure, Sweep
from hybridbatch.scoring.significance import Contrast, crossed_t, decide, equivalence_p, holm

HERE = Path(__file__).parent
MARGIN, RANK_MARGIN = 0.01, 0.10
MIXES = (0.0, 0.5, 1.0)
TASKS = ("belebele-sib", "atlas")
MEASURES = (
    ("monolingual", "mAP"), ("cross-lingual", "mAP"), ("multilingual", "mAP"),
    ("multilingual", "rank_distance"),
)  # fmt: skip
DEBIASED = {"raw": "{}", "debiased": "{} (debiased)"}  # names of a task's scores


class Test(NamedTuple):
    """A contrast and the verdict's ingredients."""

    row: dict[str, Any]
    found: Contrast


class Grid:
    """The cells of the largest size, and the untrained ones."""

    def __init__(self, folder: Path) -> None:
        self.sweep = Sweep.open(folder)
        trained = [cell["axes"] | {"key": cell["key"]} for cell in self.sweep.trained]
        self.trained = len(trained)
        self.largest = max(axes["pairs"] for axes in trained)
        keys = {(a["mix"], a["seed"]): a["key"] for a in trained if a["pairs"] == self.largest}
        seeds = sorted({seed for _, seed in keys})
        self.seeds = [seed for seed in seeds if all((mix, seed) in keys for mix in MIXES)]
        self.keys = {mix: [keys[mix, seed] for seed in self.seeds] for mix in MIXES}
        untrained = self.sweep.untrained(self.sweep.trained[0]["axes"]["model"])
        assert untrained, f"{folder}: the untrained encoder is scored before any training"
        self.untrained = [untrained["key"]] * len(self.seeds)

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

    def over_languages(
        self, ours: list[str], theirs: list[str], measure: Measure
    ) -> dict[str, float]:
        """An interval with query languages as the units; empty for one language."""
        each = self.by_language(ours, measure) - self.by_language(theirs, measure)
        if len(each) < 2:
            return {}
        found = crossed_t(each[:, None])
        return {"languages_low": found.low, "languages_high": found.high}


def tests(grid: Grid, vectors: str, task: str) -> Iterator[Test]:
    """Mix 0.5 against each pure kind on a task: B1 or B2."""
    for against, (setting, metric) in product((0.0, 1.0), MEASURES):
        measure = Measure(DEBIASED[vectors].format(task), setting, metric)
        pair = grid.keys[0.5], grid.keys[against]
        mean = grid.mean(grid.keys[against], measure)
        yield test(f"0.5 - {against:g}", measure, grid.differences(*pair, measure), mean,
                   grid.over_languages(*pair, measure))  # fmt: skip


def worth(grid: Grid, task: str) -> Iterator[Test]:
    """Every mix against the untrained encoder, both debiased. Exploratory."""
    for mix, (setting, metric) in product(MIXES, MEASURES):
        measure = Measure(DEBIASED["debiased"].format(task), setting, metric)
        pair = grid.keys[mix], grid.untrained
        mean = grid.mean(grid.untrained, measure)
        yield test(f"{mix:g} - untrained", measure, grid.differences(*pair, measure), mean,
                   grid.over_languages(*pair, measure))  # fmt: skip


def gaps(grid: Grid, task: str) -> Iterator[Test]:
    """How much smaller the difference of the pure kinds is after debiasing: C1."""
    for setting, metric in MEASURES[2:]:
        raw, after = (
            grid.differences(grid.keys[0.0], grid.keys[1.0], Measure(name.format(task), setting, metric))
            for name in DEBIASED.values()
        )  # fmt: skip
        measure = Measure(task, setting, metric)
        mean = grid.mean(grid.keys[1.0], measure)
        made = test("(0 - 1 raw) - (0 - 1 debiased)", measure, raw - after, mean, {})
        made.row["gap_raw"], made.row["gap_debiased"] = float(raw.mean()), float(after.mean())
        yield made


def test(
    name: str, measure: Measure, differences: np.ndarray, against: float, languages: dict[str, float]
) -> Test:  # fmt: skip
    """A contrast with its interval, test and detectable difference."""
    found = crossed_t(differences)
    margin = RANK_MARGIN * against if measure.metric == "rank_distance" else MARGIN
    row = {
        "contrast": name, "task": measure.task, "setting": measure.setting, "metric": measure.metric,
        "mean_against": against, "difference": found.mean, "low": found.low, "high": found.high,
        "p": found.p, "degrees": found.degrees, "detectable": found.detectable, "margin": margin,
        "p_equivalence": equivalence_p(found, margin), **languages,
    }  # fmt: skip
    return Test(row, found)


def settled(made: list[Test], final: bool) -> list[dict[str, Any]]:
    """The rows of a family: with Holm's correction and verdicts once all seeds are there."""
    after = holm(np.array([each.row["p"] for each in made]))
    for each, p in zip(made, after, strict=True):
        if final:
            each.row["p_holm"] = float(p)
            each.row["verdict"] = decide(each.found, float(p), each.row["margin"])
    return [each.row for each in made]


def means(grid: Grid) -> Iterator[dict[str, Any]]:
    """Of every mix, raw and debiased."""
    for mix, (vectors, name) in product(MIXES, DEBIASED.items()):
        line: dict[str, Any] = {"mix": mix, "vectors": vectors}
        for task, (setting, metric) in product(TASKS, MEASURES):
            value = grid.mean(grid.keys[mix], Measure(name.format(task), setting, metric))
            line[f"{task} {setting} {metric}"] = value
        yield line


def report(folder: Path) -> dict[str, Any]:
    """The figures of the cells there are."""
    settings = read_yaml(HERE / "B.yaml")
    grid = Grid(folder)
    planned = settings["seeds"]
    final = grid.seeds == planned
    cells = len(settings["mix"]) * len(settings["pairs"]) * len(planned)
    result: dict[str, Any] = {
        "schema_version": 1, "kind": "grid-report", "final": final, "seeds": grid.seeds,
        "planned_seeds": planned, "largest": grid.largest, "trained": grid.trained, "planned": cells,
    }  # fmt: skip
    if not grid.seeds:
        return result | {"means": [], "families": {}, "exploratory": {}}
    families = {}
    for task in TASKS:
        families[f"B1 hybrid against pure kinds, raw, {task}"] = tests(grid, "raw", task)
        families[f"B2 the same, debiased, {task}"] = tests(grid, "debiased", task)
        families[f"C1 does debiasing close the gap, {task}"] = gaps(grid, task)
    return result | {
        "means": list(means(grid)),
        "families": {name: settled(list(made), final) for name, made in families.items()},
        "exploratory": {
            f"is training worth it, debiased, {task}": settled(list(worth(grid, task)), False)
            for task in TASKS
        },
    }


def main() -> None:
    """Write the report."""
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else HERE / "B"
    try:
        if Sweep.open(folder).trained:
            write_json(folder / "report.json", report(folder))
        else:
            sys.stdout.write(f"{folder}: no trained cell is finished yet; nothing to report\n")
    except HybridBatchError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
