"""Errors that a user can act on: one line names the place, the value and the remedy."""


class HybridBatchError(Exception):
    """An error the user can fix. The command line prints it as one line and exits with code 2."""


class ConfigError(HybridBatchError):
    """A setting is unknown, out of bounds, or contradicts another."""


class DataError(HybridBatchError):
    """A data set, task or result file cannot be used as it is."""


class ModelError(HybridBatchError):
    """A model cannot be found, read, or used as an encoder."""


class OutputError(HybridBatchError):
    """A result cannot be written: no permission, no space, or a file in the way."""


class PeerStopped(HybridBatchError):
    """Another process of a distributed run has ended; if it failed, it reports the error."""


class Interrupted(HybridBatchError):
    """The user stopped the run; its state is saved, and the message says how to continue."""


def first_line(error: BaseException) -> str:
    """The first line of an error of another library, or its type if it says nothing.

    At most 200 characters, for a sentence of ours.
    """
    lines = str(error).strip().splitlines()
    return lines[0][:200] if lines else type(error).__name__


def nearest(name: str, known: "list[str] | tuple[str, ...]", count: int = 3) -> str:
    """Return ` (did you mean a, b?)` with the known names closest to `name`, or an empty string."""
    from difflib import get_close_matches

    close = get_close_matches(name, known, n=count, cutoff=0.5)
    return f" (did you mean {', '.join(close)}?)" if close else ""
