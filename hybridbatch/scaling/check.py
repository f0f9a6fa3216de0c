"""Run a few cells of a sweep again and compare the results with the recorded ones."""

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hybridbatch.common.errors import DataError
from hybridbatch.common.progress import SILENT, Reporter
from hybridbatch.common.seeding import stream
from hybridbatch.common.settings import build
from hybridbatch.scaling.cells.folder import Runner, SweepFolder
from hybridbatch.scaling.cells.grid import Cell, Facts, plan_cells
from hybridbatch.scaling.cells.runner import gather_facts, run_cell
from hybridbatch.scaling.settings import SweepConfig


@dataclass(frozen=True)
class Check:
    """One cell that was run again."""

    cell: Cell
    # by task, setting and metric: means over languages, and the largest difference of a language
    rows: list[dict[str, Any]]

    @property
    def identical(self) -> bool:
        """Whether every number equals the recorded one to the last bit."""
        return all(row["largest_difference"] == 0 for row in self.rows)

    def within(self, tolerance: float) -> bool:
        """Whether every language's mAP is within `tolerance` of the recorded one."""
        return all(
            row["largest_difference"] <= tolerance
            for row in self.rows
            if row["metric"] == "mAP"
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

    Args:
        path: the folder of the sweep.
        count: the number of cells.
        seed: the seed of the draw.
        data, data_root: the places of the training data and of the evaluation data; by default, the
            places in the sweep's settings.
        runner, facts: as in `hybridbatch.scaling.sweep.run_sweep`.

    Raises:
        DataError: `path` is no sweep, or no cell can be run again, because data, tasks or models
            here differ from those of the sweep.
    """
    folder = SweepFolder(path)
    defaults, planned = SweepConfig().as_json(), folder.read_plan()["settings"]
    given = {name: value for name, value in planned.items() if value != defaults.get(name)}
    places = {
        name: place for name, place in {"data": data, "data_root": data_root}.items() if place
    }
    config = build(SweepConfig, None, given | places)
    facts = facts or gather_facts(config, report)
    cells = [cell for cell in plan_cells(config, facts) if folder.result(cell.key).exists()]
    if not cells:
        raise DataError(
            f"{path}: none of its finished cells can be run again with what is here (the"
            f" training data {config.data} has the fingerprint {facts.data}); prepare the"
            " same data, install the same models, or run the sweep again"
        )
    chosen = stream(seed, "check").choice(
        len(cells), size=min(count, len(cells)), replace=False
    )
    checks = []
    for cell in (cells[number] for number in sorted(chosen)):
        report.note(f"running again: {cell.label}")
        with tempfile.TemporaryDirectory(prefix="hybridbatch-") as work:
            again = runner(cell, Path(work))
        checks.append(Check(cell, _compare(folder.read(cell.key)["eval"], again["eval"])))
    return checks


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
