"""Keep what other libraries remark about their own internals from the user."""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def without_remarks(logger: str) -> Iterator[None]:
    """Hide Python's warnings, and what is below an error in the log `logger`."""
    log = logging.getLogger(logger)
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        log.setLevel(level)
