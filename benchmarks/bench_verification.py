"""What it costs to see damage: the share of a command's CPU time that goes into checksums.

The functions that compare or write checksums are timed while commands run: a training (its start
apart), an evaluation with an empty and with a full cache, a cell of a sweep, and opening prepared
data of many rows. Each runs in a process of its own, as on the command line. `share` is of all CPU
time of the process, `share_of_work` leaves out its start, which is mostly loading PyTorch. The
files are in the system's cache, where reading costs least and the checksums weigh most.
"""

import multiprocessing
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from common import finish, parser

from hybridbatch.common import documents, files, integrity
from hybridbatch.common.progress import SILENT
from hybridbatch.common.records import Row
from hybridbatch.data.prepare import ensure_prepared
from hybridbatch.data.store.reader import Store
from hybridbatch.data.store.writer import write_store
from hybridbatch.model import encoder as _encoder  # noqa: F401  its functions are timed
from hybridbatch.scaling.cells.folder import SweepFolder
from hybridbatch.scaling.cells.runner import run_cell
from hybridbatch.scaling.sweep import run_sweep
from hybridbatch.scoring.evaluate import evaluate
from hybridbatch.scoring.settings import EvalConfig
from hybridbatch.training import checkpoint, loop
from hybridbatch.training.settings import TrainConfig
from hybridbatch.training.train import train

COMPARE = (
    (integrity.Blocks, "check"),
    (integrity.Blocks, "check_all"),
    (integrity, "check_file"),
    (integrity, "check_sums"),
    (integrity, "check_tensors"),
    (integrity, "read_sums"),
    (integrity, "read_trailer"),
    (integrity, "_check_before_trailer"),
    (files, "_seal_fits"),
    (checkpoint, "_content_checksum"),
    (documents, "require_shape"),
)
WRITE = (
    (integrity, "block_sums"),
    (integrity, "file_checksum"),
    (integrity, "add_trailer"),
    (integrity, "write_sums"),
    (files, "_seal"),
)


class Clock:
    """CPU seconds spent in some functions, each counted once however they call each other."""

    def __init__(self) -> None:
        self.seconds, self._depth = 0.0, 0

    def timed(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """The function, with its time counted."""

        def called(*arguments: Any, **options: Any) -> Any:
            self._depth += 1
            started = time.process_time()
            try:
                return function(*arguments, **options)
            finally:
                self._depth -= 1
                if not self._depth:
                    self.seconds += time.process_time() - started

        return called


@contextmanager
def counted() -> Iterator[Clock]:
    """A clock of all work on checksums, wherever modules have imported it."""
    import sys

    clock, undo = Clock(), []
    for owner, name in (*COMPARE, *WRITE):
        function = getattr(owner, name)
        timed = clock.timed(function)
        places = [owner, *(m for n, m in sys.modules.items() if n.startswith("hybridbatch"))]
        for place in places:
            if vars(place).get(name) is function:
                setattr(place, name, timed)
                undo.append((place, name, function))
    try:
        yield clock
    finally:
        for place, name, function in undo:
            setattr(place, name, function)


def share(work: Callable[[], object]) -> dict[str, float]:
    """CPU seconds of `work` in a new process, of them for checksums, and their share."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(_share, work).result()


def _share(work: Callable[[], object]) -> dict[str, float]:
    start = time.process_time()
    first: dict[str, float] = {}
    with counted() as clock:
        step = loop.Trainer._step

        def first_step(trainer: Any, *arguments: Any) -> None:
            if not first:
                first["cpu_seconds_to_first_step"] = round(time.process_time(), 3)
                first["share_to_first_step"] = round(clock.seconds / time.process_time(), 5)
            step(trainer, *arguments)

        loop.Trainer._step = first_step  # type: ignore[method-assign]
        work()
        loop.Trainer._step = step  # type: ignore[method-assign]
        end = time.process_time()
    return {
        "cpu_seconds": round(end, 3),
        "checksum_cpu_seconds": round(clock.seconds, 4),
        "share": round(clock.seconds / end, 5),
        "share_of_work": round(clock.seconds / (end - start), 5),
        **first,
    }


def main() -> None:
    """Measure all."""
    options_parser = parser(__doc__ or "")
    options_parser.add_argument("--model", default="e5-small-q4")
    options_parser.add_argument("--steps", type=int, default=6)
    options_parser.add_argument(
        "--rows", type=int, default=1_000_000, help="of the store opened"
    )
    options = options_parser.parse_args()
    figures: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        run, data = (
            folder / "run",
            str(ensure_prepared("atlas", None, SILENT, folder / "atlas")),
        )
        config = TrainConfig(
            model=options.model, data=data, out=run, steps=options.steps, batch_size=16, log_to="none",
            validation_batches=1, checkpoint_every=max(1, options.steps // 2),
        )  # fmt: skip
        figures["train"] = share(partial(train, config))
        scored = EvalConfig(
            model=str(run),
            languages="eng,swh,amh,deu",
            out=folder / "eval",
            cache=folder / "cache",
        )
        figures["eval"] = share(partial(evaluate, scored))
        figures["eval with stored embeddings"] = share(partial(evaluate, scored))
        built_in = scored.model_copy(update={"model": options.model, "out": folder / "eval-2"})
        figures["eval of the built-in model"] = share(partial(evaluate, built_in))
        figures["the same with stored embeddings"] = share(partial(evaluate, built_in))
        figures["sweep cell"] = share(partial(cell, folder / "sweep", options.model, data))
        figures["open a sweep's cells"] = share(partial(read_cells, folder / "sweep"))
        store = folder / "data"
        write_store(store, rows(options.rows), provenance={}, validation_share=0)
        figures["open and index"] = share(partial(open_index, store))
        figures["read 10,000 random passages"] = share(partial(read_at_random, store))
    settings = {name: value for name, value in vars(options).items() if name != "out"}
    finish("verification", settings, figures, options.out)


def open_index(folder: Path) -> None:
    """The index of prepared data."""
    Store.open(folder).index("train")


def cell(folder: Path, model: str, data: str) -> None:
    """A sweep of one short cell."""
    from hybridbatch.common.settings import build
    from hybridbatch.scaling.settings import SweepConfig

    values = {
        "languages": "eng,swh", "mix": "0.5", "pairs": "100", "batch_size": "16", "steps": "4", "seeds": "13",
        "model": model, "out": str(folder), "data": data, "tasks": "atlas",
    }  # fmt: skip
    run_sweep(build(SweepConfig, None, values), runner=run_cell)


def read_cells(folder: Path) -> None:
    """What a report reads of a sweep."""
    sweep = SweepFolder(folder)
    for entry in sweep.read_plan()["cells"]:
        sweep.read(entry["key"])
        sweep.read_queries(entry["key"])


def rows(number: int) -> Iterator[Row]:
    """Synthetic rows."""
    for record in range(number // 4):
        for language in ("eng", "deu", "swh", "amh"):
            text = f"{language} {record} " + "words of a passage " * 10
            yield Row("s", str(record), language, f"question {record}", text)


def read_at_random(folder: Path) -> None:
    """10,000 random passages."""
    store = Store.open(folder)
    chosen = np.random.default_rng(0).integers(0, store.index("train").rows, 10_000)
    store.passages("train", chosen)


if __name__ == "__main__":
    main()
