"""One task at a time in another thread, such as writing a file while the next one is computed."""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Self


class Behind:
    """Runs tasks in their order, one behind the caller."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, "behind")
        self._running: Future[None] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Finish the last task. Raises its error, unless the block has one of its own."""
        self._thread.shutdown(wait=True)
        if kind is None:
            self.wait()

    def start(self, task: Callable[[], None]) -> None:
        """Start a task once the one before is done. Raises the error of the one before."""
        self.wait()
        self._running = self._thread.submit(task)

    def wait(self) -> None:
        """Until the last task is done. Raises its error."""
        running, self._running = self._running, None
        if running is not None:
            running.result()
