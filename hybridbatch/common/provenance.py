"""The package versions and the hardware that made a result, as JSON."""

import os
import platform
from importlib import metadata
from pathlib import Path
from typing import Any

import hybridbatch
from hybridbatch.common.memory import machine_bytes

PACKAGES = ("torch", "transformers", "tokenizers", "numpy", "pyarrow", "babel", "mteb")


def versions() -> dict[str, str]:
    """Versions of hybridbatch, Python and the packages that can change a result; absent ones are
    left out.
    """
    found = {"hybridbatch": hybridbatch.__version__, "python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def hardware(device: str = "cpu") -> dict[str, Any]:
    """Processor, cores, threads, memory, and the GPU where `device` is one."""
    import torch

    found: dict[str, Any] = {
        "cpu": _cpu_model(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "memory_gib": round(machine_bytes() / 2**30, 1),
        "bf16": [flag for flag in ("amx_bf16", "avx512_bf16") if flag in _cpu_flags()],
    }
    if device.startswith("cuda"):
        properties = torch.cuda.get_device_properties(torch.device(device))
        found["gpu"] = {
            "name": properties.name,
            "memory_gib": round(properties.total_memory / 2**30, 1),
        }
    return found


def _cpu_model() -> str:
    return _cpuinfo("model name") or platform.processor() or platform.machine()


def _cpu_flags() -> set[str]:
    return set(_cpuinfo("flags").split())


def _cpuinfo(field: str) -> str:
    path = Path("/proc/cpuinfo")
    if not path.exists():
        return ""
    for line in path.read_text().splitlines():
        name, _, value = line.partition(":")
        if name.strip() == field:
            return value.strip()
    return ""
