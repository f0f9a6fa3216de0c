"""Amounts of memory, disk and time as people write them."""

import math
import re
import shutil
from pathlib import Path


def memory_bytes(size: str) -> int:
    """``8GB``, ``512MB`` or ``1.5GiB`` in bytes. Raises `ValueError`."""
    match = re.fullmatch(r"([0-9.]{1,20})\s*([kmgt])(i?)b", size.strip().lower())
    try:
        value = float(match[1]) if match else math.nan
    except ValueError:
        value = math.nan
    if match:
        value *= (1024 if match[3] else 1000) ** ("kmgt".index(match[2]) + 1)
    if not 1e6 <= value < math.inf:
        raise ValueError(f"{size[:60]!r} is not an amount of memory; write 512MB, 8GB or 16GiB")
    return int(value)


def free_bytes(path: Path) -> int:
    """Free bytes of the disk that a path is on, or will be on."""
    place = path.absolute()
    while not place.exists():
        place = place.parent
    return shutil.disk_usage(place).free


def gigabytes(size: float | None) -> str:
    """Bytes in MB, GB or TB, with two digits; `unknown` for None."""
    if size is None:
        return "unknown"
    for unit, name in ((1e12, "TB"), (1e9, "GB"), (1e6, "MB")):
        if size >= unit:
            value = size / unit
            return f"{value:.1f} {name}" if value < 10 else f"{value:,.0f} {name}"
    return f"{size / 1e6:.1f} MB" if size >= 1e5 else "less than 0.1 MB"


def duration(seconds: float) -> str:
    """``48 s``, ``5 min 03 s``, ``2 h 05 min`` or ``3 d 04 h``."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02} s"
    if whole < 86400:
        return f"{whole // 3600} h {whole % 3600 // 60:02} min"
    return f"{whole // 86400} d {whole % 86400 // 3600:02} h"
