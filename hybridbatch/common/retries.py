"""The one retry function: every download, of data and of models, goes through `patiently`.

A failure is tried again where it may pass: a broken or refused connection, an answer such as 503,
a file that came short, an error of the Xet transport. Everything else is raised at once.
"""

import os
from collections.abc import Callable
from typing import TypeVar

from tenacity import RetryCallState, Retrying, retry_if_exception, stop_after_attempt

from hybridbatch.common.errors import HybridBatchError

# seconds before each further try, beyond the waiting of the hub's client itself
PAUSES = (1.0, 4.0, 16.0)
PASSING_STATUSES = (408, 429, 500, 502, 503, 504)
LATER = "what was fetched is kept; run the same command again later"
# words in the errors of the Xet transport, which have no class of their own
_XET_WORDS = ("xet", "cas ", "data processing error", "reconstruct", "network error")
Result = TypeVar("Result")


def patiently(action: Callable[[], Result]) -> Result:
    """Return the result of `action`; after a temporary failure, try again after each of `PAUSES`.

    After a failure of the Xet transport the further tries use plain HTTP: the same bytes, checked
    in the same way, over another road.

    Raises: the last error of `action`.
    """
    pauses = PAUSES

    def wait(state: RetryCallState) -> float:
        # Asked after the last try as well, where the answer is not used.
        return dict(enumerate(pauses, 1)).get(state.attempt_number, 0.0)

    def before_next(state: RetryCallState) -> None:
        error = state.outcome.exception() if state.outcome else None
        if error is not None and is_xet_error(error):
            _use_plain_http()

    retrying = Retrying(
        retry=retry_if_exception(may_pass),
        stop=stop_after_attempt(len(pauses) + 1),
        wait=wait,
        before_sleep=before_next,
        reraise=True,
    )
    return retrying(action)


def may_pass(error: BaseException) -> bool:
    """Whether the same call may succeed later."""
    from huggingface_hub import errors as hub

    if isinstance(error, HybridBatchError) or not isinstance(error, Exception):
        return False
    status = status_of(error)
    if status is not None:
        return status in PASSING_STATUSES
    if isinstance(error, hub.OfflineModeIsEnabled) or is_offline():
        return False
    if is_xet_error(error) or is_connection_error(error):
        return True
    # The hub's client tells of a file that came short by an OSError without a number.
    is_short = isinstance(error, OSError) and error.errno is None
    return is_short and not isinstance(error, FileNotFoundError)


def is_connection_error(error: BaseException) -> bool:
    """Whether the server was not reached, or the connection broke."""
    from huggingface_hub import errors as hub

    # `hub.HTTPError` is the base of all errors of the transport library that the client uses.
    kinds = (hub.LocalEntryNotFoundError, hub.HTTPError, ConnectionError, TimeoutError)
    if isinstance(error, kinds):
        return True
    library = type(error).__module__.partition(".")[0]
    return library in (
        "httpx",
        "httpx2",
        "httpcore",
        "httpcore2",
        "requests",
        "urllib3",
        "aiohttp",
    )


def is_xet_error(error: BaseException) -> bool:
    """Whether the error is one of the hub's Xet transport."""
    if type(error).__name__ == "XetDownloadError" or "xet" in type(error).__module__:
        return True
    text = str(error).lower()
    return isinstance(error, RuntimeError) and any(word in text for word in _XET_WORDS)


def status_of(error: BaseException) -> int | None:
    """The HTTP status in `error`, if it has one."""
    return getattr(getattr(error, "response", None), "status_code", None)


def is_offline() -> bool:
    """Whether the user forbids the hub's client to use the network."""
    from huggingface_hub import constants

    return bool(constants.HF_HUB_OFFLINE)


def endpoint() -> str:
    """Which hub is asked, for messages."""
    return os.environ.get("HF_ENDPOINT", "not set")


def _use_plain_http() -> None:
    from huggingface_hub import constants

    constants.HF_HUB_DISABLE_XET = True
