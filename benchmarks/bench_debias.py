"""Rewriting a stored index without what tells languages apart, against copying the file.

Both read every vector and write every vector, durably; the copy is the disk's speed. Runs are
interleaved, so that only the ratio within one run means something.
"""

import os
import shutil
import tempfile
from pathlib import Path

import numpy as np
from common import finish, parser, spread, timed

from hybridbatch.debias.fit import Method
from hybridbatch.debias.index_files import open_index
from hybridbatch.debias.rewrite import RowLanguages, rewrite
from hybridbatch.debias.vectors_file import read_vectors


def main() -> None:
    """Measure and print."""
    arguments = parser(__doc__ or "")
    arguments.add_argument("--vectors", type=int, default=1_000_000)
    arguments.add_argument("--dimension", type=int, default=384)
    arguments.add_argument("--languages", type=int, default=100)
    arguments.add_argument("--repeats", type=int, default=3)
    options = arguments.parse_args()
    figures = {}
    with tempfile.TemporaryDirectory() as folder:
        for dtype in ("float32", "float16"):
            figures[dtype] = measure(Path(folder), np.dtype(dtype), options)
    settings = {
        name: getattr(options, name)
        for name in ("vectors", "dimension", "languages", "repeats")
    }
    finish("debias", settings, figures, options.out)


def measure(folder: Path, dtype: np.dtype, options) -> dict:
    """Seconds of the copy, of rewriting with given vectors, and with estimating them first."""
    source, out = folder / f"{dtype}.npy", folder / f"{dtype}-new.npy"
    numbers = write(source, dtype, options)
    names = tuple(f"x{number:03d}" for number in range(options.languages))
    languages = RowLanguages((*names, "und"), numbers)
    index = open_index(source)
    vectors = read_vectors(rewrite(index, languages, out, method=Method()))
    runs = {
        "copy": lambda: copy(source, out),
        "rewrite": lambda: rewrite(index, languages, out, vectors=vectors),
        "estimate and rewrite": lambda: rewrite(index, languages, out, method=Method()),
    }
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    processor: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(options.repeats):
        for name, run in runs.items():
            took = timed(run)
            seconds[name].append(took["wall_seconds"])
            processor[name].append(took["cpu_seconds"])
    size = source.stat().st_size
    best = {name: min(values) for name, values in seconds.items()}
    return {
        "bytes": size,
        "seconds": {name: spread(values) for name, values in seconds.items()},
        # of a busy machine, the better measure
        "cpu_seconds": {name: min(values) for name, values in processor.items()},
        "megabytes_per_second": {name: size / 1e6 / value for name, value in best.items()},
        "times_the_copy": {name: value / best["copy"] for name, value in best.items()},
    }


def write(path: Path, dtype: np.dtype, options) -> np.ndarray:
    """Random unit vectors with a mean for each language; returns the language of each."""
    rng = np.random.default_rng(13)
    means = rng.normal(size=(options.languages, options.dimension)).astype(np.float32)
    numbers = rng.integers(0, options.languages, options.vectors).astype(np.int32)
    stored = np.lib.format.open_memmap(path, "w+", dtype, (options.vectors, options.dimension))
    for start in range(0, options.vectors, 65_536):
        own = numbers[start : start + 65_536]
        rows = rng.normal(size=(len(own), options.dimension)).astype(np.float32) + means[own]
        stored[start : start + len(own)] = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    stored.flush()
    return numbers


def copy(source: Path, out: Path) -> None:
    """A copy that is on the disk when it returns, in place of what was there."""
    temporary = out.with_suffix(".tmp")
    shutil.copyfile(source, temporary)
    with temporary.open("rb+") as file:
        os.fsync(file.fileno())
    os.replace(temporary, out)


if __name__ == "__main__":
    main()
