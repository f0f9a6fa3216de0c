"""Amounts of memory as people write them."""

import math
import re


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
