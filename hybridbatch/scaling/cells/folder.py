"""The folder of a sweep.

It has one JSON for each finished cell, named by its key, and traces of running and failed cells.
"""

import gc
import os
import shutil
import socket
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from hybridbatch.common.documents import read_document
from hybridbatch.common.errors import DataError, first_line
from hybridbatch.common.files import make_folder, output_errors, write_json, write_text
from hybridbatch.common.integrity import check_file, damage, file_checksum
from hybridbatch.common.memory import return_freed_memory
from hybridbatch.scaling.cells.documents import (
    AGAIN,
    CellDocument,
    SweepDocument,
    Trace,
)
from hybridbatch.scaling.cells.grid import CELL_SCHEMA, Cell

if TYPE_CHECKING:
    import pandas as pd

DEFAULT_NAME = "scale-sweep"
QUERIES = "queries.parquet"
State = Literal["done", "running", "failed", "waiting"]
# A runner runs one cell in a work folder and returns the parts of its JSON: ``train`` (None for an
# untrained model), ``eval`` (with ``tasks`` as in eval.json) and ``seconds`` of both. If it leaves
# a `QUERIES` file in the folder, the sweep keeps this file.
Runner = Callable[[Cell, Path], Mapping[str, Any]]


@dataclass(frozen=True)
class SweepFolder:
    """The paths of a sweep, and the content of its files."""

    path: Path

    def result(self, key: str) -> Path:
        """JSON of a finished cell."""
        return self.path / "cells" / f"{key}.json"

    def queries(self, key: str) -> Path:
        """Per-query values of a finished cell."""
        return self.path / "cells" / f"{key}.parquet"

    def log(self, key: str) -> Path:
        """Tracebacks of a cell's failed attempts."""
        return self.path / "failed" / f"{key}.log"

    def work(self, key: str) -> Path:
        """The work folder of a cell, which is removed when the cell is done."""
        return self.path / "work" / key

    @property
    def plan(self) -> Path:
        """JSON of the sweep's settings and cells."""
        return self.path / "sweep.json"

    def files(self, key: str) -> list[Path]:
        """The files of a finished cell."""
        return [path for path in (self.result(key), self.queries(key)) if path.exists()]

    def state(self, key: str) -> State:
        """The state of a cell, which any process can read."""
        if self.result(key).exists():
            return "done"
        if _alive(self.work(key) / "process.json"):
            return "running"
        return "failed" if self.log(key).exists() else "waiting"

    def read(self, key: str) -> dict[str, Any]:
        """A finished cell. Raises `DataError` for another schema version, shape or kind of file,
        and for damage to it or to its per-query values.
        """
        cell = read_document(self.result(key), CellDocument, AGAIN)
        name = self.queries(key).name
        if self.queries(key).exists():
            check_file(self.queries(key), cell.get("files", {}).get(name), AGAIN)
        return cell

    def read_queries(self, key: str) -> "pd.DataFrame":
        """The per-query values of a finished cell. Raises `DataError` for a damaged file."""
        import pandas as pd
        import pyarrow as pa

        path = self.queries(key)
        try:
            return pd.read_parquet(path)
        except (pa.ArrowException, OSError, ValueError, KeyError) as error:
            raise damage(path, first_line(error), AGAIN) from error

    def read_plan(self) -> dict[str, Any]:
        """The sweep's settings and cells. Raises `DataError`, too where the folder is no sweep."""
        if not self.plan.exists():
            raise DataError(
                f"{self.path}: is not the folder of a sweep, because it has no {self.plan.name}"
            )
        return read_document(
            self.plan, SweepDocument, "run the sweep again, which writes it anew"
        )

    def adopt(self, key: str, other: "SweepFolder") -> bool:
        """Take a finished cell over from another sweep; False where it has none."""
        if not other.result(key).exists():
            return False
        cell = other.read(key)
        if other.queries(key).exists():
            make_folder(self.path / "cells")
            with output_errors(self.queries(key)):
                shutil.copyfile(other.queries(key), self.queries(key))
        write_json(self.result(key), cell, sealed=True)
        return True

    def record_failure(self, cell: Cell, error: BaseException) -> None:
        """Append an attempt's traceback to the cell's log."""
        log = self.log(cell.key)
        earlier = log.read_text(encoding="utf-8") if log.exists() else ""
        write_text(
            log, f"{earlier}{cell.label}\n{''.join(traceback.format_exception(error))}\n"
        )


def execute(cell: Cell, folder: SweepFolder, runner: Runner) -> None:
    """Run one cell. Its JSON is written last, so a cell without JSON is not done."""
    work = make_folder(folder.work(cell.key))
    trace = work / "process.json"
    write_json(
        trace, {"host": socket.gethostname(), "pid": os.getpid(), "started": time.time()}
    )
    try:
        result = runner(cell, work)
    finally:
        trace.unlink(missing_ok=True)
        _give_memory_back()
    per_query = work / QUERIES
    files = {}
    if per_query.exists():
        files[folder.queries(cell.key).name] = file_checksum(per_query)
        make_folder(folder.path / "cells")
        with output_errors(folder.queries(cell.key)):
            os.replace(per_query, folder.queries(cell.key))
    write_json(
        folder.result(cell.key),
        {
            "schema_version": CELL_SCHEMA,
            "kind": "cell",
            "key": cell.key,
            "axes": dict(cell.axes),
            "settings": cell.settings(),
            **result,
            "files": files,
        },
        sealed=True,
    )
    folder.log(cell.key).unlink(missing_ok=True)
    shutil.rmtree(work, ignore_errors=True)


def _give_memory_back() -> None:
    """Free the memory of a cell.

    Models are in reference cycles. Without this call, a process grows by some hundred MB per cell.
    """
    gc.collect()
    return_freed_memory()


def _alive(trace: Path) -> bool:
    """Whether the process of a trace still runs.

    A process on another machine counts as running if its trace is less than a day old.
    """
    if not trace.exists():
        return False
    try:
        process = read_document(trace, Trace)
    except DataError:  # the trace was just removed, or is damaged: no process works there
        return False
    if process["host"] != socket.gethostname():
        return time.time() - process["started"] < 86400
    import psutil  # os.kill(pid, 0) would end a process on Windows

    return psutil.pid_exists(process["pid"])
