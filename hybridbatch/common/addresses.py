"""Addresses that may hold secrets: what of them may be written down."""

import re
from urllib.parse import SplitResult, urlsplit, urlunsplit


def without_secrets(address: str) -> str:
    """An address as results, caches, logs and messages may show it: without name and password, and
    without the query, in which some services want their key.

    What is no address comes back as it is.
    """
    parts = split_address(address)
    if parts is None:  # perhaps one with a slip in it
        return re.sub(r"//[^/@\s]*@", "//", address)
    if not (parts.username or parts.password or parts.query):
        return address
    return urlunsplit((parts.scheme, place_of(parts), parts.path, "", parts.fragment))


def split_address(address: str) -> SplitResult | None:
    """The parts of an address; None for other texts."""
    try:
        parts = urlsplit(address)
        _ = parts.port  # looks whether it is a number
    except ValueError:
        return None
    return parts if parts.scheme and parts.netloc else None


def place_of(parts: SplitResult) -> str:
    """Host and port, without name and password."""
    return parts.netloc.rpartition("@")[2]
