"""A clear message for a lack of memory: the command, what it needed, what there is, what helps."""

import contextlib
import errno
import importlib
import os
import re
import sys
import threading
import time
from collections.abc import Callable, Iterator

from hybridbatch.common.memory import (
    PAGE,
    address_space,
    is_out_of_memory,
    machine_bytes,
    main_memory,
)

_SIZE = re.compile(r"(\d[\d.,]{0,20}) ?(bytes|[KMGTP]i?B)\b")
_SIGNS = (
    "can't allocate memory",
    "cannot allocate memory",
    "not enough memory",
    "out of memory",
    "bad_alloc",
    "unable to allocate",
    "failed to map segment from shared object",
    "can't start new thread",
    "resource temporarily unavailable",
)
HELP = {
    "prepare": "prepare fewer --sources at a time, or fewer records with --limit",
    "mine": "mine fewer --languages at a time, or with --index exact",
    "train": "lower --micro-tokens or --batch-size, or choose a smaller --model",
    "eval": "evaluate fewer --tasks at a time, or with --index exact and --stored-as float16",
    "scale-sweep": "lower --jobs, or the batch sizes and models of the grid",
    "reproduce": "choose a smaller --model",
    "search": "search a smaller corpus, or with a smaller model",
    "audit-bias": "audit fewer --languages at a time, or a smaller model",
    "debias": "give fewer lines of text, or a smaller model",
}
# Bytes of address space that the libraries of a command need. With less, one of them aborts, or
# waits for ever. Those of HELP but `prepare` load PyTorch, the others only SciPy and Arrow.
LEAST = dict.fromkeys((*HELP, "export", "push"), 1_500_000_000) | {
    "prepare": 600_000_000,
    "inspect": 600_000_000,
    "audit": 600_000_000,
    "figures": 600_000_000,
    "cache": 600_000_000,
    "compare": 1_000_000_000,
    "report": 1_000_000_000,
    "audit-bias": 2_000_000_000,
}
ONLY_NUMPY = ("prepare", "inspect", "audit", "cache")
RESERVE = 32 << 20  # bytes that are given back to tell of a lack of memory
_held: list[bytearray] = []
WATCH_SECONDS = 0.1
NEARLY = 0.98  # of a container's limit: beyond it the system ends processes without a word


def shortage(error: BaseException) -> str | None:
    """What a lack of memory at the root of an error asked for; None if that is not its cause."""
    _held.clear()
    for each in _chain(error):
        text = str(each)
        lacking = isinstance(each, MemoryError) or type(each).__name__ == "OutOfMemoryError"
        lacking |= isinstance(each, OSError) and each.errno == errno.ENOMEM
        lacking |= is_out_of_memory(each)
        if not lacking and isinstance(each, RuntimeError | OSError | ImportError):
            lacking = any(sign in text.lower() for sign in _SIGNS)
        if not lacking and type(each).__name__ == "SafetensorError":
            lacking = "os error 12" in text
        if lacking:
            size = _SIZE.search(text)
            if size and size[2] == "bytes":
                number = int(re.sub("[.,]", "", size[1]))
                return f"{max(1, number >> 20):,} MiB more"
            most = f"more than the {main_memory().total / 2**30:.1f} GiB that it may use"
            return f"{size[1]} {size[2]} more" if size else most
    return None


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """An error and all errors that caused it."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__


def least() -> str | None:
    """Return a message if the memory may not even suffice to load the libraries, else None.

    Asked for limits of the process itself (``ulimit -v``), in which a library would abort. If the
    limit suffices, `load_first` is called.
    """
    asks = {"--help", "--dry-run", "--list"} & set(sys.argv)
    command = _command()
    enough, limit = LEAST.get(command), address_space()
    if asks or enough is None or limit is None:
        return None
    if limit < enough:
        return in_words(f"at least {enough / 2**30:.1f} GiB to load its libraries")
    load_first(command)
    return None


def load_first(command: str) -> None:
    """Load the libraries that a lack of address space would stop for ever.

    OpenBLAS, which NumPy, SciPy and Faiss each bring along, asks for its buffers when it is loaded,
    and asks again and again if the system refuses. So it is loaded while there is room. Arrow's
    allocators reserve 1 GiB of addresses at once; the system's does not. A part is kept back for
    the message.
    """
    os.environ.setdefault("ARROW_DEFAULT_MEMORY_POOL", "system")
    _held.append(bytearray(RESERVE))
    for name in ("numpy",) if command in ONLY_NUMPY else ("numpy", "scipy.linalg", "faiss"):
        with contextlib.suppress(ImportError):  # Faiss is optional
            importlib.import_module(name)


def in_words(needed: str) -> str:
    """Describe a shortage in the running command in one line."""
    memory = main_memory()
    command = _command()
    there = (
        f"{memory.free / 2**30:.1f} of {memory.total / 2**30:.1f} GiB are free for this process"
    )
    mend = HELP.get(command, "free some memory, or run it on a machine with more")
    what = f"`hybridbatch {command}`" if command else "hybridbatch"
    return f"out of memory: {what} needed {needed}; {there}; {mend}"


def _command() -> str:
    return next((word for word in sys.argv[1:] if not word.startswith("-")), "")


def watch_container(tell: Callable[[str], None]) -> None:
    """End the process with one line just before its container's memory is full.

    The system would kill it without a word then. Nothing is watched where there is no limit below
    the machine's memory. Only a process that holds most of the memory itself is ended.
    """
    machine = machine_bytes()
    found = _container_files()
    if found is None:
        return
    limit, statistics = found
    if limit >= machine:
        return

    def watch() -> None:
        while True:
            time.sleep(WATCH_SECONDS)
            try:
                used, own = _anonymous(statistics), _resident()
            except (OSError, ValueError):
                return
            if used > NEARLY * limit and own > limit / 2:
                size = f"more than the {limit / 2**30:.1f} GiB that its container may use"
                tell(in_words(size))
                os._exit(2)

    threading.Thread(target=watch, daemon=True, name="memory of the container").start()


def _container_files() -> tuple[int, str] | None:
    """(limit in bytes, file of statistics) of this process's control group, of version 1 or 2."""
    for line in _groups():
        _, controllers, group = line.strip().split(":", 2)
        if controllers == "":
            folder, name = f"/sys/fs/cgroup{group}".rstrip("/"), "memory.max"
        elif "memory" in controllers.split(","):
            folder, name = f"/sys/fs/cgroup/memory{group}".rstrip("/"), "memory.limit_in_bytes"
        else:
            continue
        try:
            with open(f"{folder}/{name}") as file:
                limit = file.read().strip()
        except OSError:  # of the other version, or not mounted
            continue
        if limit.isdigit():
            return int(limit), f"{folder}/memory.stat"
    return None


def _groups() -> list[str]:
    try:
        with open("/proc/self/cgroup") as file:
            return file.readlines()
    except OSError:  # no Linux
        return []


def _anonymous(statistics: str) -> int:
    """Bytes that the system cannot take back: no file cache."""
    with open(statistics) as file:
        fields = dict(line.split() for line in file)
    if "total_rss" in fields:  # version 1
        return int(fields["total_rss"]) + int(fields.get("total_shmem", 0))
    return int(fields["anon"]) + int(fields.get("shmem", 0)) + int(fields.get("kernel", 0))


def _resident() -> int:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * PAGE
