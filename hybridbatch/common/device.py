"""Which device computes, and which number format is fast on it."""

import os

import numpy as np
import torch

from hybridbatch.common.errors import ConfigError
from hybridbatch.common.machine import BACKEND, FRACTION, of_torchrun
from hybridbatch.common.settings import Precision, ResolvedPrecision


def gpu_fraction() -> float:
    """The share of the GPU memory that this process may use, above 0 and at most 1."""
    text = os.environ.get(FRACTION, "1")
    try:
        share = float(text)
    except ValueError:
        share = 0.0
    if not 0 < share <= 1:
        raise ConfigError(f"{FRACTION} = {text!r}: must be a number over 0 and at most 1")
    return share


KINDS = ("cpu", "cuda", "mps")
HALF = {"bf16": torch.bfloat16, "fp16": torch.float16}


def resolve_precision(precision: Precision, device: torch.device) -> ResolvedPrecision:
    """The number format of the matrix products on `device`.

    `auto` is bf16 where the device has instructions for it (AMX, AVX512-BF16, Ampere and later),
    fp16 on GPUs that have fast products of that only (Volta, Turing), else fp32. Emulated bf16 is
    slower than fp32.

    Raises: `ConfigError` for a format that the device lacks.
    """
    if device.type == "cuda":
        return _precision_of_gpu(precision, device)
    if precision == "fp16":
        raise ConfigError(
            "precision = 'fp16': works on GPUs only; use bf16, fp32 or auto on this device"
        )
    if precision != "auto":
        return precision
    if device.type == "cpu":
        able = torch.cpu.get_capabilities()
        return "bf16" if able.get("amx_bf16") or able.get("avx512_bf16") else "fp32"
    return "fp32"


def _precision_of_gpu(precision: Precision, device: torch.device) -> ResolvedPrecision:
    properties = torch.cuda.get_device_properties(device)
    # Of this GPU: torch.cuda.is_bf16_supported speaks of the current one.
    has_bf16 = properties.major >= 8 or bool(torch.version.hip)
    if precision == "auto":
        if has_bf16:
            return "bf16"
        return "fp16" if properties.major >= 7 else "fp32"
    if precision == "bf16" and not has_bf16:
        raise ConfigError(
            f"precision = 'bf16': the {properties.name} cannot compute bf16 (its compute"
            f" capability is {properties.major}.{properties.minor}, and bf16 needs 8.0); use"
            " fp16, fp32 or auto"
        )
    return precision


def upload(values: np.ndarray, device: torch.device) -> torch.Tensor:
    """Copy `values` to a tensor on `device`; the host does not wait for the copy to a GPU."""
    tensor = torch.from_numpy(np.ascontiguousarray(values))
    if device.type == "cuda":
        # The copy is asynchronous from pinned memory only. torch keeps the memory till it is done.
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)


def autocast(precision: ResolvedPrecision, device: torch.device) -> torch.autocast:
    """The context that computes matrix products in `precision`; weights stay as they are."""
    dtype = HALF.get(precision, torch.bfloat16)
    return torch.autocast(device.type, dtype, enabled=precision != "fp32")


def resolve_device(name: str) -> torch.device:
    """The device that `name` means in this process; ``auto`` is CUDA or MPS where there is one.

    Under torchrun each process has the GPU of its local rank.

    Raises: `ConfigError`.
    """
    if name == "auto":
        name = "cpu"
        if torch.cuda.is_available():
            name = "cuda"
        elif torch.backends.mps.is_available():
            name = "mps"
    device = _named(name)
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise ConfigError(f"device = {name!r}: torch sees no Apple GPU here; use --device cpu")
    if device.type != "cuda":
        return device
    device = _gpu(name, device)
    if gpu_fraction() < 1:
        torch.cuda.set_per_process_memory_fraction(gpu_fraction(), device)
    return device


def _named(name: str) -> torch.device:
    """A device of a kind that this package runs on. Raises `ConfigError`."""
    try:
        device = torch.device(name)
    except RuntimeError:
        device = None
    if device is None or device.type not in KINDS or (device.type == "cpu" and device.index):
        raise ConfigError(
            f"device = {name!r}: is not a device; use cpu, cuda, cuda:0 ..., mps or auto"
        )
    return device


def _gpu(name: str, device: torch.device) -> torch.device:
    """The GPU of this process. Raises `ConfigError`."""
    if not torch.cuda.is_available():
        raise ConfigError(f"device = {name!r}: {_why_no_gpu()}; use --device cpu")
    count = torch.cuda.device_count()
    if of_torchrun("WORLD_SIZE", 1) > 1:
        if device.index is not None:
            raise ConfigError(
                f"device = {name!r}: under torchrun each process takes the GPU of its own"
                " rank; use --device cuda, and choose among the GPUs with"
                " CUDA_VISIBLE_DEVICES"
            )
        local = of_torchrun("LOCAL_RANK")
        if os.environ.get(BACKEND):
            local %= count  # over gloo several processes may share a GPU
        if local >= count:
            raise ConfigError(
                f"device = {name!r}: process {local} of this machine has no GPU, because"
                f" there are {count}; use torchrun --nproc-per-node {count}"
            )
        return torch.device("cuda", local)
    device = torch.device("cuda", device.index or 0)
    if device.index >= count:
        raise ConfigError(
            f"device = {name!r}: there {'is 1 GPU' if count == 1 else f'are {count} GPUs'};"
            " the numbers start at cuda:0"
        )
    return device


def _why_no_gpu() -> str:
    """Why torch can use no GPU here, in words."""
    if torch.version.cuda is None and torch.version.hip is None:
        return f"torch sees no GPU here ({torch.__version__} is a build without CUDA)"
    try:
        torch.cuda.init()
    except (RuntimeError, AssertionError) as error:
        reason = " ".join(str(error).split()).split(". ")[0].rstrip(".")
        return f"torch sees no GPU here ({reason})"
    return "torch sees no GPU here"
