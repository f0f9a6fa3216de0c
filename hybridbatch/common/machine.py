"""Environment variables by which one process tells another what part of the machine it has."""

import os

from hybridbatch.common.errors import ConfigError

# The share of its GPU's memory that a process may use, where several have one GPU.
FRACTION = "HYBRIDBATCH_GPU_FRACTION"
# The library by which processes meet, in place of NCCL on GPUs (gloo).
BACKEND = "HYBRIDBATCH_BACKEND"


def of_torchrun(name: str, without: int = 0) -> int:
    """A number that torchrun gives to its processes, such as ``WORLD_SIZE``; `without` it if absent.

    Raises: `ConfigError` for anything but a whole number from `without` on.
    """
    text = os.environ.get(name)
    if text is None:
        return without
    if not text.strip().isdecimal() or int(text) < without:
        raise ConfigError(
            f"{name} = {text!r}: must be a whole number from {without} on; torchrun sets it, so"
            " start several processes with torchrun, or unset it"
        )
    return int(text)
