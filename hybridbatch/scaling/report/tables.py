"""A sweep's cells as plain tables: JSON, CSV and Markdown."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from hybridbatch.common.files import write_json, write_text
from hybridbatch.common.tables import csv_text, markdown_table
from hybridbatch.scaling.analysis import MAIN_METRICS, Sweep

SUMMARY_SCHEMA = 1
TableRow = Mapping[str, Any]  # of a table of the report


def write_summary(path: Path) -> list[Path]:
    """Write ``summary.json``, ``summary.csv`` and ``summary.md`` of a sweep; returns their paths.

    A row is a cell: its axes, the macro-averages of its main metrics, and its key. Raises:
    OutputError, DataError.
    """
    sweep = Sweep.open(path)
    rows = list(_rows(sweep))
    summary = {
        "schema_version": SUMMARY_SCHEMA,
        "kind": "sweep-summary",
        "settings": dict(sweep.settings[0]),
        "finished": len(sweep.cells),
        "missing": [dict(entry) for entry in sweep.missing],
        "cells": rows,
    }
    write_json(path / "summary.json", summary)
    write_text(path / "summary.csv", csv_text(rows))
    write_text(path / "summary.md", _markdown(rows, sweep.missing))
    return [path / f"summary.{kind}" for kind in ("json", "csv", "md")]


def _rows(sweep: Sweep) -> Iterator[dict[str, Any]]:
    axes = dict.fromkeys(name for cell in sweep.cells for name in cell["axes"])
    for cell in sweep.cells:
        row = {name: cell["axes"].get(name) for name in axes}
        for task in cell["eval"]["tasks"]:
            row.update(_task_means(task))
        yield {**row, "seconds": round(sum(cell["seconds"].values()), 1), "key": cell["key"]}


def _task_means(task: Mapping[str, Any]) -> dict[str, float]:
    """The means over query languages of a task, by setting and metric."""
    means = {}
    for setting, languages in task["settings"].items():
        for metric in MAIN_METRICS:
            values = [metrics[metric] for metrics in languages.values() if metric in metrics]
            if values:
                means[f"{task['name']} {setting} {metric}"] = float(np.mean(values))
    return means


def _markdown(rows: Sequence[Mapping[str, Any]], missing: Sequence[Mapping[str, Any]]) -> str:
    lines = ["# Cells of the sweep", "", markdown_table(rows)]
    if missing:
        lines += ["", f"## Missing: {len(missing)} cells", "", markdown_table(missing)]
    return "\n".join(lines) + "\n"
