"""Run a few cells of a sweep again and compare the results with the recorded ones."""

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

from hybridbatch.common.errors import DataError
from hybridbatch.common.progress import SILENT, Reporter
from hybridbatch.common.seeding import stream
from hybridbatch.common.settings import build
from hybridbatch.scaling.cells.folder import Runner, SweepFolder
from hybridbatch.scaling.cells.grid import FIRST_DEFAULTS, Cell, Facts, plan_cells
from hybridbatch.scaling.cells.runner import gather_facts, run_cell
from hybridbatch.scaling.settings import SweepConfig

RANKS = 0.1  # difference in rank distance that is allowed, as a share of the recorded mean
# What must be equal for two runs to give the same bits, by part of a training's record.
DECISIVE = {
    "hardware": ("cpu", "bf16", "gpu", "threads"),
    "versions": ("torch", "numpy", "transformers", "tokenizers"),
}


@dataclass(frozen=True)
class Check:
    """One cell that was run again."""

    cell: Cell
    # how the machine of the record differs from this one; None: the record names no machine
    machine: tuple[str, ...] | None
    # by task, setting and metric: means over languages, and the largest difference of a language
    rows: list[dict[str, Any]]

    @property
    def identical(self) -> bool:
        """Whether every number equals the recorded one to the last bit."""
        return all(row["largest_difference"] == 0 for row in self.rows)

    @property
    def other_bits(self) -> bool:
        """Whether numbers differ although the record is of the same kind of machine."""
        return self.machine == () and not self.identical

    @property
    def verdict(self) -> str:
        """Whether the bits are the same and, if not, what of the machine differs."""
        if self.identical:
            return "the same to the last bit"
        if self.machine is None:
            return "not the same bits; the record names no machine"
        if self.machine:
            return f"not the same bits; the record is of another machine: {', '.join(self.machine)}"
        return "not the same bits, on the same kind of machine"

    def within(self, tolerance: float) -> bool:
        """Whether every language's mAP is within `tolerance` of the recorded one, and its rank
        distance within `RANKS` times the recorded mean.
        """
        allowed = {
            "mAP": lambda row: tolerance,
            "rank_distance": lambda row: RANKS * row["recorded"],
        }
        return all(
            row["largest_difference"] <= allowed[row["metric"]](row)
            for row in self.rows
            if row["metric"] in allowed
        )


def check_cells(
    path: Path,
    count: int,
    *,
    seed: int,
    data: str | None = None,
    data_root: Path | None = None,
    report: Reporter = SILENT,
    runner: Runner = run_cell,
    facts: Facts | None = None,
) -> list[Check]:
    """Run `count` randomly drawn finished cells of a sweep again, and compare the results.

    Trained cells are drawn before untrained ones.

    Args:
        path: the folder of the sweep.
        count: the number of cells.
        seed: the seed of the draw.
        data, data_root: the places of the training data and of the evaluation data; by default, the
            places in the sweep's settings.
        runner, facts: as in `hybridbatch.scaling.sweep.run_sweep`.

    Raises:
        DataError: `path` is no sweep, no cell can be run again, because data, tasks or models
            here differ from those of the sweep, or the record of a drawn cell is damaged; then
            none is run.
    """
    folder = SweepFolder(path)
    defaults, planned = SweepConfig().as_json(), folder.read_plan()["settings"]
    given = {name: value for name, value in planned.items() if value != defaults.get(name)}
    places = {
        name: place for name, place in {"data": data, "data_root": data_root}.items() if place
    }
    config = build(SweepConfig, None, given | places)
    facts = facts or gather_facts(config, report)
    cells = _finished(config, facts, folder)
    if not cells:
        raise DataError(
            f"{path}: none of its finished cells can be run again with what is here (the"
            f" training data {config.data} has the fingerprint {facts.data}); prepare the"
            " same data, install the same models, or run the sweep again"
        )
    drawn = stream(seed, "check").permutation(len(cells)).tolist()
    drawn.sort(key=lambda number: cells[number].train is None)
    chosen = [cells[number] for number in sorted(drawn[:count])]
    records = [folder.read(cell.key) for cell in chosen]  # damage shows before hours of work
    checks = []
    for cell, record in zip(chosen, records, strict=True):
        report.note(f"running again: {cell.label}")
        with tempfile.TemporaryDirectory(prefix="hybridbatch-") as work:
            again = runner(cell, Path(work))
        machine = _other_machine(record["train"] or {}, again["train"] or {})
        checks.append(Check(cell, machine, _compare(record["eval"], again["eval"])))
    return checks


def _finished(config: SweepConfig, facts: Facts, folder: SweepFolder) -> list[Cell]:
    """The finished cells of a sweep.

    A plan that does not name a setting was made with the default of its time. So the present
    default and the first one are both tried, and those that most finished cells have are taken.
    """
    unnamed = [name for name in FIRST_DEFAULTS if name not in config.set]
    found: list[Cell] = []
    for count in range(len(unnamed) + 1):
        for names in combinations(unnamed, count):
            first = {name: (FIRST_DEFAULTS[name],) for name in names}
            tried = config.model_copy(update={"set": {**config.set, **first}})
            cells = [
                cell for cell in plan_cells(tried, facts) if folder.result(cell.key).exists()
            ]
            found = max(found, cells, key=len)
    return found


def _other_machine(
    recorded: Mapping[str, Any], again: Mapping[str, Any]
) -> tuple[str, ...] | None:
    if not all(recorded.get(part) for part in DECISIVE):
        return None
    return tuple(
        f"{name} {old}, here {new}"
        for part, names in DECISIVE.items()
        for name in names
        if (old := recorded[part].get(name)) != (new := again[part].get(name))
    )


def _compare(recorded: Mapping[str, Any], again: Mapping[str, Any]) -> list[dict[str, Any]]:
    rows = []
    for old, new in zip(recorded["tasks"], again["tasks"], strict=True):
        for setting, languages in old["settings"].items():
            for metric in sorted(
                {metric for values in languages.values() for metric in values}
            ):
                pairs = [
                    (values[metric], new["settings"][setting][language][metric])
                    for language, values in languages.items()
                    if metric in values
                ]
                rows.append(
                    {
                        "task": old["name"],
                        "setting": setting,
                        "metric": metric,
                        "recorded": sum(value for value, _ in pairs) / len(pairs),
                        "again": sum(value for _, value in pairs) / len(pairs),
                        "largest_difference": max(abs(a - b) for a, b in pairs),
                    }
                )
    return rows
