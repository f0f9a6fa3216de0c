"""Which device computes, and which number format is fast on it."""

import os
from typing import Literal

import torch

from hybridbatch.common.errors import ConfigError


def resolve_precision(
    precision: Literal["auto", "fp32", "bf16"], device: torch.device
) -> Literal["fp32", "bf16"]:
    """`auto` is bf16 where the device has instructions for it (AMX, AVX512-BF16, Ampere and later),
    else fp32.

    Without such instructions bf16 is emulated and slower than fp32.
    """
    if precision != "auto":
        return precision
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    if device.type == "cpu":
        able = torch.cpu.get_capabilities()
        return "bf16" if able.get("amx_bf16") or able.get("avx512_bf16") else "fp32"
    return "fp32"


def autocast(precision: Literal["fp32", "bf16"], device: torch.device) -> torch.autocast:
    """The context that computes matrix products in `precision`; weights stay as they are."""
    return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16")


def resolve_device(name: str) -> torch.device:
    """The device that `name` means on this process; ``auto`` is CUDA where there is a GPU. Raises
    `ConfigError`.
    """
    local = int(os.environ.get("LOCAL_RANK", "0"))
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ConfigError(
            f"device = {name!r}: not a device; use cpu, cuda, cuda:0 ... or auto"
        ) from error
    if device.type == "cuda":
        if not torch.cuda.is_available():
            raise ConfigError(f"device = {name!r}: torch sees no GPU here; use --device cpu")
        device = torch.device("cuda", local if device.index is None else device.index)
        if device.index >= torch.cuda.device_count():
            raise ConfigError(f"device = {device}: there are {torch.cuda.device_count()} GPUs")
    return device
