"""`hybridbatch scale-sweep`: run the missing cells of a grid, keep one JSON per cell, and sum them up."""

import shutil
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from hybridbatch.config import SweepConfig, seconds
from hybridbatch.errors import ConfigError, Interrupted, OutputError
from hybridbatch.files import write_json
from hybridbatch.provenance import versions
from hybridbatch.reporting import SILENT, Reporter
from hybridbatch.scaling.cells import DEFAULT_NAME, SWEEP_SCHEMA, Runner, SweepFolder, execute
from hybridbatch.scaling.cost import CALIBRATION_STEPS, Cost, calibrate, measured
from hybridbatch.scaling.grid import Cell, Facts, plan_cells, spread
from hybridbatch.scaling.launchers import launcher
from hybridbatch.scaling.runner import gather_facts, run_cell
from hybridbatch.scaling.summary import write_summary

ASK_ABOVE = 10_000  # cells; a grid of more is more likely a slip than a wish


def run_sweep(
    config: SweepConfig,
    report: Reporter = SILENT,
    *,
    runner: Runner = run_cell,
    facts: Facts | None = None,
    confirmed: bool = False,
) -> Path:
    """Run the cells that have no result yet and write the summary; a killed sweep goes on where it stopped.

    A cell that fails `config.tries` times is set aside with its log; the others go on, and the summary says what is
    missing. Running the same command again tries it again.

    Args:
        config: axes, and what the cells share.
        report: progress.
        runner: does one cell, see `scaling.cells.Runner`.
        facts: contents of data, tasks and models; default: looked up.
        confirmed: run a grid of more than 10,000 cells.

    Returns: the folder with ``sweep.json``, ``cells/KEY.json`` and ``summary.json``, ``.csv`` and ``.md``.
    Raises: ConfigError for contradictions and unconfirmed huge grids; DataError for results of another schema version;
        OutputError, at once, where results cannot be written; Interrupted.
    """
    cells = _cells(config, report, facts, confirmed)
    folder = SweepFolder(sweep_path(config))
    _write_plan(config, cells, folder)
    for other in config.reuse:
        taken = sum(
            folder.adopt(cell.key, SweepFolder(other)) for cell in cells if not folder.result(cell.key).exists()
        )
        report.note(f"{taken} finished cells taken over from {other}")
    try:
        _run_missing(config, cells, folder, runner, report)
    except KeyboardInterrupt:
        raise Interrupted(f"{folder.path}: stopped; finished cells are kept, run the same command to go on") from None
    for path in write_summary(folder.path):
        report.note(f"wrote {path}")
    return folder.path


def dry_run(
    config: SweepConfig,
    report: Reporter = SILENT,
    *,
    runner: Runner = run_cell,
    facts: Facts | None = None,
) -> dict[str, Any]:
    """What `run_sweep` would do and cost, from its finished cells or, where there are none, from a run of three steps.

    Returns: ``cells`` (one row each, with its state and seconds), ``total``, ``done``, ``hours_left``, ``disk_mib`` of
        the results (trained models are removed after their evaluation; None before the first), and ``measured_on``.
    Raises: ConfigError.
    """
    cells = _cells(config, report, facts, confirmed=True)
    folder = SweepFolder(sweep_path(config))
    finished = [(cell, folder.read(cell.key)) for cell in cells if folder.result(cell.key).exists()]
    cost, measured_on = measured(finished), f"{len(finished)} finished cells"
    if cost is None:
        measured_on = f"a run of {CALIBRATION_STEPS} steps and its evaluation"
        report.note(f"measuring {measured_on}")
        cost = next(calibrate(cell, cell.train, runner) for cell in cells if cell.train)
    left = [cell for cell in cells if not folder.result(cell.key).exists()]
    sizes = [path.stat().st_size for cell, _ in finished for path in folder.files(cell.key)]
    return {
        "cells": [
            {**axes, "state": folder.state(cell.key), "seconds": round(cost.of(cell), 1)}
            for cell, axes in zip(cells, _aligned([cell.axes for cell in cells]), strict=True)
        ],
        "total": len(cells),
        "done": len(finished),
        "hours_left": round(sum(map(cost.of, left)) / config.jobs / 3600, 2),
        "disk_mib": round(sum(sizes) / len(finished) * len(cells) / 2**20, 1) if finished else None,
        "measured_on": measured_on,
    }


def status(path: Path) -> list[dict[str, Any]]:
    """Every cell of a sweep with its state and axes, readable by any process while the sweep runs.

    Raises: DataError if `path` is no sweep.
    """
    folder = SweepFolder(path)
    cells = folder.read_plan()["cells"]
    return [
        {"cell": entry["key"], "state": folder.state(entry["key"]), **axes}
        for entry, axes in zip(cells, _aligned([entry["axes"] for entry in cells]), strict=True)
    ]


def sweep_path(config: SweepConfig) -> Path:
    """The folder of a sweep."""
    return config.out or Path("experiments") / (config.name or DEFAULT_NAME)


def _cells(config: SweepConfig, report: Reporter, facts: Facts | None, confirmed: bool) -> list[Cell]:
    if config.cells > ASK_ABOVE and not confirmed:
        raise ConfigError(f"the grid has {config.cells:,} cells; take values off its axes, or run them all with --yes")
    cells = plan_cells(config, facts or gather_facts(config, report))
    return spread(cells) if config.budget else cells


def _aligned(cells: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The axes of all cells with the same names; None where a cell (an untrained model) has no such axis."""
    names = dict.fromkeys(name for axes in cells for name in axes)
    return [{name: axes.get(name) for name in names} for axes in cells]


def _write_plan(config: SweepConfig, cells: Sequence[Cell], folder: SweepFolder) -> None:
    plan = {
        "schema_version": SWEEP_SCHEMA,
        "kind": "sweep",
        "settings": config.as_json(),
        "versions": versions(),
        "cells": [{"key": cell.key, "axes": dict(cell.axes), "settings": cell.settings()} for cell in cells],
    }
    write_json(folder.plan, plan)


def _run_missing(
    config: SweepConfig, cells: Sequence[Cell], folder: SweepFolder, runner: Runner, report: Reporter
) -> None:
    """Run what has no result, in rounds: a failed cell comes again after all others, until its tries are used up."""
    finished = [(cell, folder.read(cell.key)) for cell in cells if folder.result(cell.key).exists()]
    missing = [cell for cell in cells if not folder.result(cell.key).exists()]
    for cell in missing:
        folder.log(cell.key).unlink(missing_ok=True)
    launch = launcher(config, folder.path / "slurm")
    work = partial(execute, folder=folder, runner=runner)
    deadline = time.monotonic() + seconds(config.budget) if config.budget else float("inf")
    tries: Counter[str] = Counter()
    with report.bar("cells", len(cells), done=len(finished)) as bar:
        while missing:
            again: list[Cell] = []
            for cell, error in launch(work, _in_time(missing, deadline, finished)):
                if error is None:
                    finished.append((cell, folder.read(cell.key)))
                    bar.advance(1, last=cell.label)
                    report.note(_progress(cell, len(cells), finished, config.jobs))
                    continue
                if isinstance(error, OutputError | Interrupted):
                    raise error
                folder.record_failure(cell, error)
                tries[cell.key] += 1
                if tries[cell.key] < config.tries:
                    again.append(cell)
                else:
                    shutil.rmtree(folder.work(cell.key), ignore_errors=True)
                    report.warn(f"{cell.label}: failed {config.tries} times ({error}); see {folder.log(cell.key)}")
            missing = again


def _in_time(cells: Sequence[Cell], deadline: float, finished: list[tuple[Cell, dict[str, Any]]]) -> Iterator[Cell]:
    """The cells one by one, as long as the next should be done before the deadline; `finished` grows meanwhile."""
    for cell in cells:
        cost = measured(finished) or Cost(0, 0)
        if time.monotonic() + cost.of(cell) > deadline:
            return
        yield cell


def _progress(cell: Cell, total: int, finished: Sequence[tuple[Cell, dict[str, Any]]], jobs: int) -> str:
    took = sum(finished[-1][1]["seconds"].values())
    line = f"[{len(finished)}/{total}] {cell.label}: {took:.0f} s"
    cost = measured(finished)
    if cost is None or len(finished) == total:
        return line
    average = sum(sum(result["seconds"].values()) for _, result in finished) / len(finished)
    return f"{line}; about {(total - len(finished)) * average / jobs / 60:.0f} min left"
