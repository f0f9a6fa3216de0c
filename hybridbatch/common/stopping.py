"""Stopping on request: SIGTERM (`kill`, a batch system) is treated as Ctrl-C.

The first request raises `KeyboardInterrupt`, so that every command ends in an orderly way and says
how to go on. A second Ctrl-C ends the process at once, whatever it is doing; the next run clears
what that leaves behind.
"""

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

SIGNALS = (signal.SIGINT, signal.SIGTERM)
_of_command = False  # whether the signals are handled for a command


@contextmanager
def command_signals() -> Iterator[None]:
    """Treat SIGTERM as Ctrl-C inside the block, and let a second Ctrl-C end the process at once.

    For a command of the command line, in the main thread; in another thread nothing changes. When
    the block ends, the signals are handled as before.
    """
    global _of_command
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before: dict[int, Any] = {number: signal.signal(number, _stop) for number in SIGNALS}
    outer, _of_command = _of_command, True
    try:
        yield
    finally:
        _of_command = outer
        for number, handler in before.items():
            # None: a handler that was not set in Python
            signal.signal(number, signal.SIG_DFL if handler is None else handler)


def _stop(number: int, frame: FrameType | None) -> None:
    end_at_next_interrupt()
    raise KeyboardInterrupt


def end_at_next_interrupt() -> None:
    """Let the next Ctrl-C end this process at once.

    The system does it, not Python: Python's own handlers wait until a long operation is over. Not
    under torchrun, which repeats the signals that its processes have had from the terminal.
    """
    if os.environ.get("WORLD_SIZE", "1") == "1":
        signal.signal(signal.SIGINT, signal.SIG_DFL)


@contextmanager
def stop_requests() -> Iterator[Callable[[], bool]]:
    """Inside the block SIGINT and SIGTERM only set a flag, which the given function reads; a second
    SIGINT stops at once.

    A request that nobody has read when the block ends well raises `KeyboardInterrupt` there, so
    that none is lost. Signals can be caught in the main thread only; elsewhere the flag stays down.
    """
    if threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return
    requested, read = threading.Event(), threading.Event()

    def request(number: int, frame: FrameType | None) -> None:
        if requested.is_set() and number == signal.SIGINT:
            raise KeyboardInterrupt
        requested.set()
        if _of_command:
            end_at_next_interrupt()

    def asked() -> bool:
        if requested.is_set():
            read.set()
        return requested.is_set()

    before: dict[int, Any] = {number: signal.signal(number, request) for number in SIGNALS}
    try:
        yield asked
    finally:
        for number, handler in before.items():
            if not (requested.is_set() and number == signal.SIGINT and _of_command):
                signal.signal(number, handler)
    if requested.is_set() and not read.is_set():
        raise KeyboardInterrupt
