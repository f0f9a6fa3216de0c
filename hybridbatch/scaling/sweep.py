"""`hybridbatch scale-sweep`: run the missing cells of a grid and write a summary of all cells."""

import shutil
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from hybridbatch.common.addresses import without_secrets
from hybridbatch.common.errors import ConfigError, Interrupted, OutputError
from hybridbatch.common.files import write_json
from hybridbatch.common.progress import LONG, SILENT, Reporter
from hybridbatch.common.provenance import versions
from hybridbatch.common.sizes import duration
from hybridbatch.scaling.cells.cost import CALIBRATION_STEPS, Cost, calibrate, measured
from hybridbatch.scaling.cells.documents import SWEEP_SCHEMA
from hybridbatch.scaling.cells.folder import (
    DEFAULT_NAME,
    Runner,
    SweepFolder,
    execute,
)
from hybridbatch.scaling.cells.grid import Cell, Facts, in_words, plan_cells, spread
from hybridbatch.scaling.cells.launchers import launcher, require_engine
from hybridbatch.scaling.cells.probe import Estimate, estimate
from hybridbatch.scaling.cells.runner import absent_inputs, gather_facts, run_cell
from hybridbatch.scaling.predict import Fertility, forecast, settle
from hybridbatch.scaling.report.tables import write_summary
from hybridbatch.scaling.settings import SweepConfig, seconds
from hybridbatch.training.settings import AUTO

AXES = ("mix", "pairs", "train_languages", "batch_size", "model", "steps", "epochs", "seeds")
# training settings that make a kind of batches
KINDS = ("mix", "strategy", "copies", "same_records", "source_weights", "hard_negatives")
LISTED = 6  # cells of a state that the live view lists
PROBED = 1_000  # pairs to train on, a minute of a CPU; a smaller grid starts without a probe
ASK_ABOVE = 10_000  # cells; a larger grid is more likely a mistake than an intention


def run_sweep(
    config: SweepConfig,
    report: Reporter = SILENT,
    *,
    runner: Runner = run_cell,
    facts: Facts | None = None,
    confirmed: bool = False,
    fertility: Fertility | None = None,
) -> Path:
    """Run the cells that have no result yet and write the summary.

    A killed sweep goes on where it stopped. A cell that fails `config.tries` times is set aside
    with its log. The other cells go on, and the summary names the missing cells. A further run of
    the same command tries a failed cell again.

    Args:
        config: the axes, and the settings that all cells share.
        report: receives progress.
        runner: runs one cell, see `scaling.cells.folder.Runner`.
        facts: contents of data, tasks and models; by default they are looked up.
        confirmed: run a grid of more than 10,000 cells.
        fertility: tokens per word by task and language, for forecasts; by default they are counted.

    Returns:
        The folder with ``sweep.json``, ``cells/KEY.json`` and ``summary.json``, ``.csv`` and
        ``.md``.

    Raises:
        ConfigError: settings contradict each other, a launcher's engine is missing, or a huge grid
            is not confirmed.
        DataError: results have another schema version.
        OutputError: results cannot be written; the sweep stops at once.
        Interrupted: the user stopped the sweep.
    """
    if config.cells > ASK_ABOVE and not confirmed:
        raise ConfigError(_question(config, report, facts, runner))
    require_engine(config.launcher)
    _refuse_other_folders(config)
    facts = facts or gather_facts(config, report)
    cells = _cells(config, report, facts)
    folder = SweepFolder(sweep_path(config))
    _write_plan(config, cells, folder)
    for other in config.reuse:
        taken = sum(
            folder.adopt(cell.key, SweepFolder(other))
            for cell in cells
            if not folder.result(cell.key).exists()
        )
        report.note(f"copied {taken} finished cells from {other}")
    _tell_length(config, cells, folder, facts, runner, report)
    try:
        if config.predict:
            starts = [cell for cell in cells if cell.train is None]
            _run_missing(config, starts, folder, runner, report)
            forecast(config, cells, folder, report, fertility)
        _run_missing(config, cells, folder, runner, report)
    except (KeyboardInterrupt, Interrupted):
        raise Interrupted(
            f"{folder.path}: stopped; finished cells and the checkpoints of unfinished ones are"
            " kept, run the same command to go on"
        ) from None
    for path in write_summary(folder.path):
        report.note(f"wrote {path}")
    settle(folder, report)
    return folder.path


def dry_run(
    config: SweepConfig,
    report: Reporter = SILENT,
    *,
    runner: Runner = run_cell,
    facts: Facts | None = None,
) -> dict[str, Any]:
    """Tell what `run_sweep` would do and cost.

    Nothing is downloaded: if data, a task or a model is not here, the result says what is missing,
    and the cost is unknown. The cost comes from the finished cells. Without finished cells, it
    comes from a probe of the model and the number of tokens.

    Returns: ``cells`` (one row each, with its state and seconds), ``total``, ``done``,
        ``hours_left``, ``disk_mib`` of the results (trained models are removed after their
        evaluation; None before the first), and ``measured_on``.
    Raises: ConfigError.
    """
    _refuse_other_folders(config)
    if facts is None:
        if absent := absent_inputs(config):
            return {"cells": [], "total": config.cells, "to download first": absent}
        facts = gather_facts(config, report)
    cells = _cells(config, report, facts)
    folder = SweepFolder(sweep_path(config))
    finished = [
        (cell, folder.read(cell.key)) for cell in cells if folder.result(cell.key).exists()
    ]
    cost: Cost | Estimate | None = measured(finished)
    measured_on = f"{len(finished)} finished cells"
    if cost is None:
        cost, measured_on = _expected(config, cells, facts, runner, report)
    left = [cell for cell in cells if not folder.result(cell.key).exists()]
    sizes = [path.stat().st_size for cell, _ in finished for path in folder.files(cell.key)]
    rows = []
    for cell, axes in zip(cells, _aligned([cell.axes for cell in cells]), strict=True):
        seconds_of_cell = round(cost.of(cell), 1)
        rows.append({**axes, "state": folder.state(cell.key), "seconds": seconds_of_cell})
    return {
        "cells": rows,
        "total": len(cells),
        "done": len(finished),
        "hours_left": round(sum(map(cost.of, left)) / config.jobs / 3600, 2),
        "disk_mib": round(sum(sizes) / len(finished) * len(cells) / 2**20, 1)
        if finished
        else None,
        "measured_on": measured_on,
    }


def status(path: Path) -> list[dict[str, Any]]:
    """Every cell of a sweep with its state and axes. Any process may ask while the sweep runs.

    Raises:
        DataError: `path` is no sweep.
    """
    folder = SweepFolder(path)
    cells = folder.read_plan()["cells"]
    rows = []
    for entry, axes in zip(cells, _aligned([entry["axes"] for entry in cells]), strict=True):
        rows.append({"cell": entry["key"], "state": folder.state(entry["key"]), **axes})
    return rows


def varying(rows: Sequence[Mapping[str, Any]]) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Cut the axes that are equal in every trained cell from rows of `dry_run` or `status`.

    Returns:
        The shorter rows, and the axes that were cut.
    """
    names = dict.fromkeys(
        name for row in rows for name in row if name not in ("cell", "state", "seconds")
    )
    same: dict[str, Any] = {}
    for name in names:
        values = {str(row[name]): row[name] for row in rows if row[name] is not None}
        if len(values) == 1:
            (same[name],) = values.values()
    shorter = []
    for row in rows:
        shorter.append({name: value for name, value in row.items() if name not in same})
    return shorter, same


def sweep_path(config: SweepConfig) -> Path:
    """The folder of a sweep."""
    return config.out or Path("experiments") / (config.name or DEFAULT_NAME)


def _question(
    config: SweepConfig, report: Reporter, facts: Facts | None, runner: Runner
) -> str:
    """The message about a huge grid: its size, and its cost by a measurement of one cell."""
    first = {name: getattr(config, name)[:1] for name in AXES} | {
        "set": {n: v[:1] for n, v in config.set.items()}
    }
    smallest = config.model_copy(update=first)
    facts = facts or gather_facts(smallest, report)
    cell = next(each for each in _cells(smallest, report, facts) if each.train)
    cost, _ = _expected(config.model_copy(update=first), [cell], facts, runner, report)
    hours = cost.of(cell) * config.cells / config.jobs / 3600
    return (
        f"the grid has {config.cells:,} cells, about {hours:,.1f} hours if all cost what the first"
        " one does; take values off its axes, or run them all with --yes"
    )


def _expected(
    config: SweepConfig, cells: Sequence[Cell], facts: Facts, runner: Runner, report: Reporter
) -> tuple[Cost | Estimate, str]:
    """The expected cost of cells if none is finished, and the origin of this estimate in words.

    The cost of real cells comes from a probe of the model and the number of tokens. With another
    runner, it comes from a short run of the first trained cell.
    """
    if runner is run_cell:
        found = estimate(config, cells, facts, report)
        return found, found.measured_on
    measured_on = f"a run of {CALIBRATION_STEPS} steps and its evaluation"
    report.note(f"measuring {measured_on}")
    return next(
        calibrate(cell, cell.train, runner) for cell in cells if cell.train
    ), measured_on


def _tell_length(
    config: SweepConfig,
    cells: Sequence[Cell],
    folder: SweepFolder,
    facts: Facts,
    runner: Runner,
    report: Reporter,
) -> None:
    """Tell about how long the missing cells take, before they run, if it is over a minute."""
    there = [
        (cell, folder.read(cell.key)) for cell in cells if folder.result(cell.key).exists()
    ]
    missing = [cell for cell in cells if not folder.result(cell.key).exists()]
    cost: Cost | Estimate | None = measured(there)
    pairs = sum(cell.drawn_pairs for cell in missing)
    if cost is None and pairs >= PROBED and runner is run_cell:
        cost = estimate(config, cells, facts, report)
    total = sum(map(cost.of, missing)) / config.jobs if cost else 0.0
    if total > LONG:
        report.note(
            f"{len(missing):,} cells take about {duration(total)} at this machine's speed"
        )


def _refuse_other_folders(config: SweepConfig) -> None:
    """Refuse a folder of `predict` that is no sweep, before data is prepared for anything."""
    for path in config.predict:
        SweepFolder(path).read_plan()


def _cells(config: SweepConfig, report: Reporter, facts: Facts | None) -> list[Cell]:
    cells = plan_cells(config, facts or gather_facts(config, report))
    _warn_of_own_temperatures(cells, report)
    return spread(cells) if config.budget else cells


def _warn_of_own_temperatures(cells: Sequence[Cell], report: Reporter) -> None:
    """Warn if kinds of batches are compared while each training finds its own temperature."""
    found = [cell.train for cell in cells if cell.train and cell.train.temperature == AUTO]
    compared = [name for name in KINDS if len({str(getattr(one, name)) for one in found}) > 1]
    if compared:
        report.warn(
            "temperature auto is found for each training from its own first batches, so it may"
            f" differ between cells of another {' or '.join(compared)}; to compare them, name one"
            " value for all with --set temperature=VALUE, such as the value that `train"
            " --mix 0.5` prints"
        )


def _aligned(cells: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The axes of all cells, with the same names in every cell.

    A cell that lacks an axis, such as an untrained model, gets None.
    """
    names = dict.fromkeys(
        name for axes in sorted(cells, key=len, reverse=True) for name in axes
    )
    found = []
    for axes in cells:
        found.append({name: axes.get(name) for name in names})
    return found


def _write_plan(config: SweepConfig, cells: Sequence[Cell], folder: SweepFolder) -> None:
    settings = config.model_dump(mode="json", exclude={"data_root", "reuse", "predict"})
    if config.address:
        settings["address"] = without_secrets(config.address)
    plan = {
        "schema_version": SWEEP_SCHEMA,
        "kind": "sweep",
        "settings": settings,
        "versions": versions(),
        "cells": [
            {"key": cell.key, "axes": dict(cell.axes), "settings": cell.settings()}
            for cell in cells
        ],
    }
    write_json(folder.plan, plan, sealed=True)


def _run_missing(
    config: SweepConfig,
    cells: Sequence[Cell],
    folder: SweepFolder,
    runner: Runner,
    report: Reporter,
) -> None:
    """Run the cells without a result, in rounds.

    A failed cell runs again after all other cells, until it has used up its tries.
    """
    finished = [
        (cell, folder.read(cell.key)) for cell in cells if folder.result(cell.key).exists()
    ]
    missing = [cell for cell in cells if not folder.result(cell.key).exists()]
    for cell in missing:
        folder.log(cell.key).unlink(missing_ok=True)
    launch = launcher(config, folder.path / "slurm", report)
    work = partial(execute, folder=folder, runner=runner)
    deadline = time.monotonic() + seconds(config.budget) if config.budget else float("inf")
    tries: Counter[str] = Counter()
    axes = _told_apart(cells)
    with report.live(
        str(folder.path), partial(_overview, cells, axes, folder, finished, config.jobs)
    ):
        while missing:
            again: list[Cell] = []
            for cell, error in launch(work, _in_time(missing, deadline, finished)):
                if error is None:
                    finished.append((cell, folder.read(cell.key)))
                    report.note(_progress(axes, finished, config.jobs))
                    continue
                if isinstance(error, OutputError | Interrupted):
                    raise error
                folder.record_failure(cell, error)
                tries[cell.key] += 1
                if tries[cell.key] < config.tries:
                    again.append(cell)
                else:
                    shutil.rmtree(folder.work(cell.key), ignore_errors=True)
                    report.warn(
                        f"{cell.label}: failed {config.tries} times ({error}); see"
                        f" {folder.log(cell.key)}"
                    )
            missing = again


def _in_time(
    cells: Sequence[Cell], deadline: float, finished: list[tuple[Cell, dict[str, Any]]]
) -> Iterator[Cell]:
    """The cells one by one, as long as the next one should end before the deadline.

    `finished` grows while the cells run.
    """
    for cell in cells:
        cost = measured(finished) or Cost(0, 0, 0)
        if time.monotonic() + cost.of(cell) > deadline:
            return
        yield cell


def _overview(
    cells: Sequence[Cell],
    axes: Mapping[str, Mapping[str, Any]],
    folder: SweepFolder,
    finished: Sequence[tuple[Cell, dict[str, Any]]],
    jobs: int,
) -> tuple[list[dict[str, Any]], str]:
    """The rows and the caption of the live view.

    The rows are cells that run, failed, finished last and come next. The caption has the counts,
    the best cells and the time left.
    """
    finished = list(finished)
    done = {cell.key: result for cell, result in finished}
    states = {
        cell.key: "done" if cell.key in done else folder.state(cell.key) for cell in cells
    }
    by_state: dict[str, list[Cell]] = {"running": [], "failed": [], "waiting": []}
    for cell in cells:
        if states[cell.key] in by_state:
            by_state[states[cell.key]].append(cell)
    last = [cell for cell, _ in finished[-LISTED:]]
    shown = [
        *by_state["running"][:LISTED],
        *by_state["failed"][:LISTED],
        *last[::-1],
        *by_state["waiting"][:LISTED],
    ]
    rows = [
        {
            "state": states[cell.key] if cell.train else f"{states[cell.key]}, untrained",
            **axes[cell.key],
            "seconds": _took(done[cell.key]) if cell.key in done else None,
        }
        for cell in shown
    ]
    counts = ", ".join(
        [
            f"{len(done)} of {len(cells)} done",
            *(f"{len(found)} {state}" for state, found in by_state.items() if found),
        ]
    )
    return rows, "\n".join(
        [counts, *_best(finished, axes), *_time_left(len(cells), finished, jobs)]
    )


def _told_apart(cells: Sequence[Cell]) -> dict[str, dict[str, Any]]:
    """The axes in which the cells of a sweep differ, by key of the cell."""
    rows, _ = varying(_aligned([cell.axes for cell in cells]))
    return {cell.key: row for cell, row in zip(cells, rows, strict=True)}


def _best(
    finished: Sequence[tuple[Cell, dict[str, Any]]], axes: Mapping[str, Mapping[str, Any]]
) -> Iterator[str]:
    """The trained cell with the highest mAP so far, for each task and setting."""
    values: dict[str, list[tuple[float, str]]] = {}
    for cell, result in finished:
        for task in result["eval"]["tasks"] if cell.train else ():
            for setting, languages in task["settings"].items():
                scores = [metrics["mAP"] for metrics in languages.values()]
                values.setdefault(f"{task['name']} {setting}", []).append(
                    (sum(scores) / len(scores), in_words(axes[cell.key]))
                )
    for what, found in values.items():
        score, label = max(found)
        yield f"best {what} mAP so far: {score:.3f} ({label})"


def _took(result: Mapping[str, Any]) -> int:
    return round(sum(result["seconds"].values()))


def _time_left(
    total: int, finished: Sequence[tuple[Cell, dict[str, Any]]], jobs: int
) -> Iterator[str]:
    if finished and len(finished) < total:
        average = sum(sum(result["seconds"].values()) for _, result in finished) / len(finished)
        yield f"about {(total - len(finished)) * average / jobs / 60:.0f} min left"


def _progress(
    axes: Mapping[str, Mapping[str, Any]],
    finished: Sequence[tuple[Cell, dict[str, Any]]],
    jobs: int,
) -> str:
    """The cell that finished last."""
    cell, result = finished[-1]
    line = f"[{len(finished)}/{len(axes)}] {in_words(axes[cell.key]) or cell.label}: {_took(result)} s"
    return "; ".join([line, *_time_left(len(axes), finished, jobs)])
