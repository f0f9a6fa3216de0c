"""Trying again: which failures of a download may pass, and what to say of those that do not."""

import errno
import os
import time
from collections.abc import Callable
from typing import TypeVar

from hybridbatch.common.errors import DataError, HybridBatchError, OutputError

# seconds before each further try, beyond the waiting of the hub's client itself
PAUSES = (1.0, 4.0, 16.0)
_PASSING = (408, 429, 500, 502, 503, 504)  # statuses that may be others soon
_NO_WRITING = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM)
_LATER = "what was fetched is kept; run the same command again later"
Result = TypeVar("Result")


def patiently(action: Callable[[], Result], address: str) -> Result:
    """What `action` gives, tried again after each of `PAUSES` while it fails for a reason that may
    pass.

    Args:
        action: a call of the hub's client or of `datasets`.
        address: what it fetches, for the message.
    Raises: `DataError` saying what failed, of which address, and the mend; `OutputError` if the
        cache cannot be written.
    """
    # of the client's transport library, whichever it is
    from huggingface_hub.errors import HTTPError

    pauses = iter(PAUSES)
    while True:
        try:
            return action()
        except HybridBatchError:
            raise
        except (OSError, HTTPError, ValueError, RuntimeError) as error:
            pause = next(pauses, None) if _may_pass(error) else None
            if pause is None:
                raise _failure(error, address) from error
            time.sleep(pause)


def _may_pass(error: Exception) -> bool:
    from huggingface_hub import errors as hub

    status = _status(error)
    if status is not None:
        return status in _PASSING
    if isinstance(error, hub.OfflineModeIsEnabled) or _is_offline():
        return False
    if isinstance(
        error, hub.LocalEntryNotFoundError | hub.HTTPError | ConnectionError | TimeoutError
    ):
        return True
    # The client tells a file that came short by an OSError without a number.
    return (
        isinstance(error, OSError)
        and error.errno is None
        and not isinstance(error, FileNotFoundError)
    )


def _failure(error: Exception, address: str) -> DataError | OutputError:
    if isinstance(error, OSError) and error.errno in _NO_WRITING:
        return OutputError(
            f"{address}: cannot be stored ({error.strerror}); free some space, or name other"
            " folders with HF_HOME and"
            " HYBRIDBATCH_CACHE, and run the same command again"
        )
    return DataError(f"{address}: {_reason(error)}")


def _reason(error: Exception) -> str:
    from huggingface_hub import errors as hub

    status = _status(error)
    if isinstance(error, hub.GatedRepoError) or (
        status in (401, 403) and not isinstance(error, hub.RepositoryNotFoundError)
    ):
        return "may not be read without an account; accept its terms on its page and set HF_TOKEN"
    if isinstance(error, hub.RepositoryNotFoundError):
        return "no such data set there (or a private one); it was moved or removed, so look for its new home"
    if isinstance(error, hub.RevisionNotFoundError):
        return "this revision is gone there; look for a newer version of hybridbatch"
    if status == 404:
        return "no such file there (404); it was moved or removed"
    if status is not None:
        return f"the server keeps answering {status}; {_LATER}"
    if _is_offline():
        return "not in the cache, and HF_HUB_OFFLINE forbids to fetch it"
    if isinstance(
        error, hub.LocalEntryNotFoundError | hub.HTTPError | ConnectionError | TimeoutError
    ):
        return f"the server cannot be reached; check the network (HF_ENDPOINT is {_endpoint()}); {_LATER}"
    first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    return f"cannot be fetched ({first[:200]}); {_LATER}"


def _status(error: Exception) -> int | None:
    """The status of the answer that `error` tells of, if it tells of one."""
    return getattr(getattr(error, "response", None), "status_code", None)


def _is_offline() -> bool:
    from huggingface_hub import constants

    return bool(constants.HF_HUB_OFFLINE)


def _endpoint() -> str:
    return os.environ.get("HF_ENDPOINT", "not set")
