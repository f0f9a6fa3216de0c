"""Main memory: how much this process may use, how to keep it, and what to do when it runs out.

The limits are those of the machine, its containers and the process. The last part also serves GPUs.
"""

import ctypes
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hybridbatch.common.errors import ConfigError

if TYPE_CHECKING:  # the command line reads this file before it knows whether it needs numpy
    import numpy as np

try:
    import resource
except ImportError:  # Windows
    resource = None  # type: ignore[assignment]

PAGE = os.sysconf("SC_PAGE_SIZE") if hasattr(os, "sysconf") else 4096
TRIM_THRESHOLD, MMAP_THRESHOLD, MMAP_MAX = -1, -3, -4  # parameters of glibc's mallopt(3)


@dataclass(frozen=True)
class Memory:
    """Amounts in bytes; each is the smallest of all limits that apply."""

    total: int
    free: int  # what can still be taken before a limit is met


def main_memory(root: Path = Path("/")) -> Memory:
    """Return the memory that this process may use.

    Args:
        root: of ``/proc`` and ``/sys``.
    """
    found = [_machine(root), *_containers(root)]
    limits = []
    if resource is not None:
        limits = [(resource.RLIMIT_AS, 0), (resource.RLIMIT_DATA, 5)]
    for limit, used in limits:
        most = resource.getrlimit(limit)[0]
        if most != resource.RLIM_INFINITY:
            pages = _text(root / "proc/self/statm").split() or ["0"] * 7
            found.append(Memory(most, max(0, most - PAGE * int(pages[used]))))
    return Memory(min(each.total for each in found), min(each.free for each in found))


def address_space() -> int | None:
    """Bytes of addresses that this process may use (``ulimit -v``); None without a limit."""
    if resource is None:
        return None
    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    return None if limit == resource.RLIM_INFINITY else limit


def _machine(root: Path) -> Memory:
    """The memory of the machine; where it is no Linux, as `psutil` tells it."""
    available = _fields(root / "proc/meminfo").get("MemAvailable:")
    if available is None:
        import psutil

        return Memory(machine_bytes(), psutil.virtual_memory().available)
    return Memory(machine_bytes(), available << 10)


def machine_bytes() -> int:
    """Main memory of this machine, whatever a process may have of it."""
    if hasattr(os, "sysconf"):
        return PAGE * os.sysconf("SC_PHYS_PAGES")
    import psutil  # Windows

    return int(psutil.virtual_memory().total)


def _libc() -> Any:
    """The C library of this process; None on Windows, which has no such thing."""
    return None if os.name == "nt" else ctypes.CDLL(None)


@contextmanager
def freed_memory_kept() -> Iterator[None]:
    """Inside the block this process keeps what it frees, to use it again. Nothing happens where
    there is no glibc.

    glibc asks the system for every large block and gives it back when freed. A training step frees
    and asks for the same activations again and again, and the system hands out each page anew,
    cleared: a tenth to a quarter of the time of a step on the CPU.
    """
    libc = _libc()
    if not hasattr(libc, "mallopt"):
        yield
        return
    libc.mallopt(MMAP_MAX, 0)
    libc.mallopt(TRIM_THRESHOLD, -1)
    try:
        yield
    finally:  # where glibc's own adaptation ends: it cannot be told to start over
        libc.mallopt(MMAP_MAX, 1 << 16)
        libc.mallopt(MMAP_THRESHOLD, 32 << 20)
        libc.mallopt(TRIM_THRESHOLD, 64 << 20)
        return_freed_memory()


def return_freed_memory() -> None:
    """Give back to the system what this process has freed: glibc keeps it in fragments, and torch
    the memory of a GPU.
    """
    libc = _libc()
    if hasattr(libc, "malloc_trim"):
        libc.malloc_trim(0)
    torch = sys.modules.get("torch")  # not imported: it has taken nothing
    if torch is not None and torch.cuda.is_initialized():
        torch.cuda.empty_cache()


# What an error says when memory ran out: of C++, torch on the CPU, oneDNN, the system; of CUDA
# itself, and of its libraries, which ask for memory of their own and have other words for it.
OUT_OF_MEMORY = (
    "bad_alloc",
    "DefaultCPUAllocator",
    "not enough memory",
    "could not create a memory",
    "Cannot allocate memory",
    "out of memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUBLAS_STATUS_NOT_INITIALIZED",  # no room for a handle's workspace
    "CUSOLVER_STATUS_ALLOC_FAILED",
    "CUSPARSE_STATUS_INSUFFICIENT_RESOURCES",
    "CUDNN_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_INTERNAL_ERROR_HOST_ALLOCATION_FAILED",
    "CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED",
    "cudaErrorMemoryAllocation",
    "HIPBLAS_STATUS_ALLOC_FAILED",
)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory ran out, on a GPU or on the CPU."""
    names = {kind.__name__ for kind in type(error).__mro__}
    if names & {
        "MemoryError",
        "OutOfMemoryError",
    }:  # torch's is known by its name: not imported
        return True
    text = str(error)
    # oneDNN; of an operation that it does not have it says "a primitive descriptor"
    lacking = text.endswith("could not create a primitive")
    lacking |= any(sign in text for sign in OUT_OF_MEMORY)
    return isinstance(error, RuntimeError) and lacking


def in_parts(rows: "np.ndarray", compute: "Callable[[np.ndarray], None]") -> None:
    """`compute(rows)`, or where memory runs out the same for each half of the rows, and so on.

    Raises: `ConfigError` where memory runs out for a single row.
    """
    waiting = [rows]
    while waiting:
        part = waiting.pop()
        try:
            compute(part)
            continue
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            if len(part) == 1:
                raise ConfigError(
                    "out of memory with a single text; use shorter texts"
                    " (--max-passage-tokens), a smaller model or --device cpu"
                ) from error
        # Here, where the failed attempt's tensors are gone.
        return_freed_memory()
        middle = len(part) // 2
        waiting += [part[middle:], part[:middle]]


def _containers(root: Path) -> Iterator[Memory]:
    """The limits of this process's control groups and of all that these lie in; file cache counts
    as free.
    """
    for line in _text(root / "proc/self/cgroup").splitlines():
        _, controllers, group = line.split(":", 2)
        if controllers == "":
            mount, names = (
                root / "sys/fs/cgroup",
                ("memory.max", "memory.current", "inactive_file"),
            )
        elif "memory" in controllers.split(","):
            mount = root / "sys/fs/cgroup/memory"
            names = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
        else:
            continue
        folder = mount / group.lstrip("/")
        for each in (folder, *folder.parents):
            limit, used = (_text(each / name).strip() for name in names[:2])
            if limit.isdigit() and used.isdigit():
                cached = _fields(each / "memory.stat").get(names[2], 0)
                yield Memory(int(limit), max(0, int(limit) - int(used) + cached))
            if each == mount:
                break


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:  # no such controller here, or no Linux
        return ""


def _fields(path: Path) -> dict[str, int]:
    """``NAME NUMBER ...`` lines."""
    parts = (line.split() for line in _text(path).splitlines())
    return {part[0]: int(part[1]) for part in parts if len(part) > 1 and part[1].isdigit()}
