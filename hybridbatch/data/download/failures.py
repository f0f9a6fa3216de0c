"""Downloads of data: repeats tries that may succeed, and reports a failure in one clear line."""

import errno
from collections.abc import Callable
from typing import TypeVar

from hybridbatch.common.errors import DataError, HybridBatchError, OutputError, first_line
from hybridbatch.common.retries import (
    LATER,
    endpoint,
    is_connection_error,
    is_offline,
    patiently,
    status_of,
)

_NO_WRITING = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM)
Result = TypeVar("Result")


def fetch(action: Callable[[], Result], address: str) -> Result:
    """The result of `action`, tried again as `patiently` does.

    Args:
        action: a call of the hub's client or of `datasets`.
        address: the address that it fetches, for the message.

    Raises:
        DataError: The download failed; the message has the reason, the address and the remedy.
        OutputError: The cache cannot be written.
    """
    from huggingface_hub.errors import HTTPError, XetDownloadError

    try:
        return patiently(action)
    except HybridBatchError:
        raise
    except (OSError, HTTPError, XetDownloadError, ValueError, RuntimeError) as error:
        raise _failure(error, address) from error


def _failure(error: Exception, address: str) -> DataError | OutputError:
    if isinstance(error, OSError) and error.errno in _NO_WRITING:
        return OutputError(
            f"{address}: cannot be stored ({error.strerror}); free some space, or name other"
            " folders with HF_HOME and HYBRIDBATCH_CACHE, and run the same command again"
        )
    return DataError(f"{address}: {_reason(error)}")


def _reason(error: Exception) -> str:
    from huggingface_hub import errors as hub

    status = status_of(error)
    is_absent = isinstance(error, hub.RepositoryNotFoundError)
    if isinstance(error, hub.GatedRepoError) or (status in (401, 403) and not is_absent):
        return (
            "may not be read without an account; accept its terms on its page and set HF_TOKEN"
        )
    if is_absent:
        return (
            "no such data set there (or a private one); it was moved or removed, so look for its"
            " new home"
        )
    if isinstance(error, hub.RevisionNotFoundError):
        return "this revision is gone there; look for a newer version of hybridbatch"
    if status == 404:
        return "no such file there (404); it was moved or removed"
    if status is not None:
        return f"the server keeps answering {status}; {LATER}"
    if is_offline():
        return "not in the cache, and HF_HUB_OFFLINE forbids to fetch it"
    if is_connection_error(error):
        return f"the server cannot be reached; check the network (HF_ENDPOINT is {endpoint()}); {LATER}"
    return f"cannot be fetched ({first_line(error)}); {LATER}"
