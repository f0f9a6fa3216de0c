"""The errors a person can act on: one line that names the place, the value and the mend."""


class HybridBatchError(Exception):
    """Something the user can mend. The command line prints it as one line and exits with code 2."""


class ConfigError(HybridBatchError):
    """A setting is unknown, out of bounds, or contradicts another."""


class DataError(HybridBatchError):
    """A data set, task or result file cannot be used as it is."""


class ModelError(HybridBatchError):
    """A model cannot be found, read, or used as an encoder."""


class OutputError(HybridBatchError):
    """A result cannot be written: no permission, no space, or a file in the way."""


class PeerStopped(HybridBatchError):
    """Another process of a distributed run has gone; if that was by a mistake, it tells of it."""


class Interrupted(HybridBatchError):
    """The user stopped the run; its state is saved and the message says how to go on."""


def nearest(name: str, known: "list[str] | tuple[str, ...]", count: int = 3) -> str:
    """A phrase ` (did you mean a, b?)` with the known names closest to `name`, or an empty string."""
    from difflib import get_close_matches

    close = get_close_matches(name, known, n=count, cutoff=0.5)
    return f" (did you mean {', '.join(close)}?)" if close else ""
