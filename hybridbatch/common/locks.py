"""Locks that the system frees when their process ends, where the system has any."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]


def lock(handle: int, *, shared: bool = False, wait: bool = True) -> bool | None:
    """Lock an open file or folder until it is closed.

    Returns: whether this process has the lock; None where there are no locks (Windows, and some
    network file systems).
    """
    if fcntl is None:
        return None
    kind = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
    try:
        fcntl.flock(handle, kind if wait else kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True


@contextmanager
def locked(place: Path, *, wait: bool = True) -> Iterator[bool | None]:
    """`lock` of a file or folder that is there, as long as the block takes."""
    try:
        handle = os.open(place, os.O_RDONLY)
    except PermissionError:  # Windows opens no folders
        yield None
        return
    try:
        yield lock(handle, wait=wait)
    finally:
        os.close(handle)
