"""Engines that run the cells of a sweep: this process, worker processes, Ray, Slurm.

A launcher is a function that takes the work and the cells. It yields every cell with the error that
ended it, or None. `work` runs one cell and writes its result to the sweep's folder, so only errors
travel back. If cells run on several machines, this folder must be on a file system that the
machines share. Launchers do not try cells again; `sweep.run_sweep` does.
"""

import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from importlib.util import find_spec
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from hybridbatch.common.errors import ConfigError
from hybridbatch.common.machine import FRACTION
from hybridbatch.common.progress import SILENT, Reporter
from hybridbatch.scaling.cells.grid import Cell
from hybridbatch.scaling.settings import SweepConfig, slurm_minutes

ONE_DAY = 24 * 60  # minutes
Work = Callable[[Cell], None]
Outcome = tuple[Cell, BaseException | None]
Launcher = Callable[[Work, Iterable[Cell]], Iterator[Outcome]]


def launcher(config: SweepConfig, logs: Path, report: Reporter = SILENT) -> Launcher:
    """The engine that the settings choose. Slurm writes to `logs`."""
    if config.launcher == "ray":
        if not config.gpus:
            report.note(
                "Ray gives the cells no GPU; with --gpus 1 each cell has one, and with"
                " --gpus 0.5 two cells share one"
            )
        return partial(on_ray, address=config.address, jobs=config.jobs, gpus=config.gpus)
    if config.launcher == "slurm":
        parameters = slurm_parameters(config)
        return partial(
            on_slurm, logs=logs, jobs=config.jobs, gpus=config.gpus, parameters=parameters
        )
    if config.jobs == 1:
        return in_process
    gpus = visible_gpus()
    if len(gpus) and config.jobs > len(gpus):
        most = -(-config.jobs // len(gpus))
        report.note(
            f"{config.jobs} cells run at a time on {len(gpus)} GPU{'s' * (len(gpus) > 1)}: up"
            f" to {most} cells share a GPU, and each gets its part of the memory"
        )
    return partial(in_processes, jobs=config.jobs, gpus=gpus)


def slurm_parameters(config: SweepConfig) -> dict[str, Any]:
    """The parameters for submitit. Parameters that it does not know go to sbatch unchanged."""
    parameters: dict[str, Any] = {"timeout_min": ONE_DAY}
    if config.partition:
        parameters["slurm_partition"] = config.partition
    further: dict[str, str | bool] = {}
    for name, value in config.slurm.items():
        if name == "time":
            parameters["timeout_min"] = slurm_minutes(value)
        elif name in ("cpus", "cpus-per-task"):
            parameters["cpus_per_task"] = int(value)
        elif name in ("account", "qos", "mem", "partition", "constraint", "gres", "exclude"):
            parameters[f"slurm_{name}"] = value
        else:
            further[name] = value or True  # submitit's way to write an option without a value
    if further:
        parameters["slurm_additional_parameters"] = further
    return parameters


def in_process(work: Work, cells: Iterable[Cell]) -> Iterator[Outcome]:
    """Run one cell after the other in this process. Model, data and tokens stay loaded."""
    for cell in cells:
        try:
            work(cell)
        except Exception as error:
            yield cell, error
        else:
            yield cell, None


def visible_gpus() -> list[str]:
    """The GPUs that this process sees, as ``CUDA_VISIBLE_DEVICES`` names them."""
    import torch

    count = torch.cuda.device_count()
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    if named is None:
        return [str(number) for number in range(count)]
    # CUDA takes the names up to the first that is no GPU of this machine.
    return [name.strip() for name in named.split(",")][:count]


def in_processes(
    work: Work, cells: Iterable[Cell], *, jobs: int, gpus: Sequence[str] = ()
) -> Iterator[Outcome]:
    """Run `jobs` cells at a time, each in the worker process of its slot.

    A worker that dies is replaced. Each slot has its own process, because a pool that loses one
    worker gives up all its running cells.

    Args:
        gpus: each slot has one of these GPUs. If there are too few, several slots share a GPU.
    """
    threads = max(1, (os.cpu_count() or 1) // jobs)

    def start(slot: int) -> ProcessPoolExecutor:
        gpu, share = None, 1.0
        if gpus:
            gpu = gpus[slot % len(gpus)]
            share = 1 / len(range(slot % len(gpus), jobs, len(gpus)))
        return ProcessPoolExecutor(
            1,
            mp_context=get_context("spawn"),
            initializer=_limit,
            initargs=(threads, gpu, share),
        )

    slots = [start(slot) for slot in range(jobs)]
    waiting = iter(cells)
    running: dict[Future[None], tuple[int, Cell]] = {}

    def submit(slot: int) -> None:
        for cell in waiting:
            running[slots[slot].submit(work, cell)] = (slot, cell)
            return

    try:
        for slot in range(jobs):
            submit(slot)
        while running:
            done, _ = wait(running, return_when=FIRST_COMPLETED)
            for future in done:
                slot, cell = running.pop(future)
                error = future.exception()
                if isinstance(error, BrokenProcessPool):
                    slots[slot].shutdown(wait=False)
                    slots[slot] = start(slot)
                submit(slot)
                yield cell, error
    finally:
        for pool in slots:
            workers = list((pool._processes or {}).values())
            pool.shutdown(wait=False, cancel_futures=True)
            # cells of a stopped sweep still run; a training that is told to end writes a checkpoint
            for worker in workers if running else ():
                worker.terminate()


def on_ray(
    work: Work, cells: Iterable[Cell], *, address: str | None, jobs: int, gpus: float
) -> Iterator[Outcome]:
    """Run one Ray task per cell.

    Tasks run on a running cluster (`address`), or on a cluster started here for `jobs` cells at a
    time. Ray itself reruns a cell whose worker or node is lost.
    """
    import ray

    if not ray.is_initialized():
        ray.init(address=address, log_to_driver=False)
    cores = 1 if address else max(1, (os.cpu_count() or 1) // jobs)
    task = ray.remote(num_cpus=cores, num_gpus=gpus, max_retries=3)(_in_folder)
    share = gpus if 0 < gpus < 1 else 1.0
    running = {task.remote(Path.cwd(), share, work, cell): cell for cell in cells}
    try:
        while running:
            done, _ = ray.wait(list(running), num_returns=1)
            for reference in done:
                cell = running.pop(reference)
                try:
                    ray.get(reference)
                except Exception as error:
                    yield cell, error
                else:
                    yield cell, None
    finally:
        for reference in running:
            ray.cancel(reference, force=True)


def on_slurm(
    work: Work,
    cells: Iterable[Cell],
    *,
    logs: Path,
    jobs: int,
    gpus: float,
    cluster: str = "slurm",
    parameters: dict[str, Any] | None = None,
    poll_seconds: float = 5.0,
) -> Iterator[Outcome]:
    """Run one array job with a task per cell through submitit, at most `jobs` tasks at a time.

    Args:
        cluster: submitit's executor; ``local`` and ``debug`` run without Slurm.
        parameters: further parameters of submitit's `AutoExecutor`, such as ``slurm_partition``.
    """
    import time

    import submitit

    executor = submitit.AutoExecutor(folder=logs, cluster=cluster)
    executor.update_parameters(
        name="hybridbatch", gpus_per_node=round(gpus), slurm_array_parallelism=jobs,
        **({"timeout_min": ONE_DAY} | (parameters or {})),
    )  # fmt: skip
    queued = list(cells)
    running = list(zip(executor.map_array(work, queued), queued, strict=True))
    while running:
        finished = [(job, cell) for job, cell in running if job.done()]
        running = [pair for pair in running if pair not in finished]
        for job, cell in finished:
            yield cell, job.exception()
        if running and not finished:
            time.sleep(poll_seconds)


def _in_folder(folder: Path, share: float, work: Work, cell: Cell) -> None:
    """Run a cell in the working folder of the driver.

    Ray's workers start in other folders, and settings may have relative paths.

    Args:
        share: the part of the GPU's memory that the cell may use. Ray only counts such parts.
    """
    os.chdir(folder)
    os.environ[FRACTION] = str(share)
    work(cell)


def _limit(threads: int, gpu: str | None = None, share: float = 1.0) -> None:
    """Share cores and GPUs between worker processes. It runs before a worker imports torch."""
    os.environ["OMP_NUM_THREADS"] = str(threads)
    if gpu is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = gpu
        os.environ[FRACTION] = str(share)


def require_engine(name: str) -> None:
    """Refuse a launcher that cannot run here, before any work.

    Raises: `ConfigError`: a package or a program is missing.
    """
    engine = {"ray": "ray", "slurm": "submitit"}.get(name)
    if engine and find_spec(engine) is None:
        raise ConfigError(
            f"launcher = {name!r}: needs {engine}, which is not installed; run pip install"
            " 'hybridbatch[cluster]'"
        )
    missing = [program for program in ("sbatch", "srun") if shutil.which(program) is None]
    if name == "slurm" and missing:
        raise ConfigError(
            f"launcher = 'slurm': this machine has no {missing[0]}; run the command on a machine"
            " from which jobs are submitted, or use --launcher local"
        )
