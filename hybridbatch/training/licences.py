"""The licence of a trained model, from the licences of its base model and training data."""

import re
from collections.abc import Mapping

OTHER = "other"
# The hub's names of licences, from the freest to the strictest.
KNOWN = (
    "cc0-1.0",
    "mit",
    "unicode",
    "apache-2.0",
    "cc-by-2.0",
    "cc-by-2.5",
    "cc-by-3.0",
    "cc-by-4.0",
    "cc-by-sa-3.0",
    "cc-by-sa-4.0",
    "cc-by-nc-2.0",
    "cc-by-nc-3.0",
    "cc-by-nc-4.0",
    "cc-by-nc-sa-2.0",
    "cc-by-nc-sa-3.0",
    "cc-by-nc-sa-4.0",
    "cc-by-nc-nd-3.0",
    "cc-by-nc-nd-4.0",
)
# How they are written, once all that is between two words is a hyphen.
CREATIVE_COMMONS = re.compile(r"\bcc-by((?:-(?:nc|sa|nd))*)(?:-(\d\.\d))?(?![\w.])")
WRITTEN = {
    "cc0-1.0": re.compile(r"\b(?:cc0(?:-1\.0)?|public-domain)(?![\w.])"),
    "mit": re.compile(r"\bmit(?![\w.])"),
    "unicode": re.compile(r"\bunicode-license(?:-v3)?(?![\w.])"),
    "apache-2.0": re.compile(r"\bapache(?:-license)?(?:-version)?(?:-2(?:\.0)?)?(?![\w.])"),
}
WORD = re.compile(r"\w+(?:\.\w+)*")
# Words beside a licence that say what it covers, and leave its terms as they are.
COVERED = frozenset(
    [
        "and",
        "data",
        "licence",
        "license",
        "natural",
        "passages",
        "questions",
        "set",
        "wikipedia",
    ]
)
PERMISSIVE = {"unicode": "mit"}  # the hub has no name for it; its terms are those of MIT


def licence(parts: Mapping[str, str]) -> tuple[str, list[str]]:
    """The hub's name of the licence of a model that is made from several parts.

    Args:
        parts: the stated licence of each part (the start, a source of data), by name.
    Returns: the strictest of the licences, or ``other`` if one is not known; and a reason for each
        part that decides.
    """
    strictest = -1
    unknown, deciding = [], []
    for name, text in parts.items():
        rank = _rank(text)
        if rank is None:
            unknown.append(f"{name}: {text}")
        elif rank > strictest:
            strictest, deciding = rank, [f"{name}: {text}"]
        elif rank == strictest:
            deciding.append(f"{name}: {text}")
    if unknown or strictest < 0:
        return OTHER, unknown or ["no part states a licence"]
    found = KNOWN[strictest]
    return PERMISSIVE.get(found, found), deciding


def _rank(text: str) -> int | None:
    """The place in `KNOWN` of the strictest licence that a text names.

    None if a licence, or any other word, is not known: it may be a further condition.
    """
    rest = "-".join(WORD.findall(text.lower()))
    found = []
    for match in CREATIVE_COMMONS.finditer(rest):
        found.append(f"cc-by{match[1]}-{match[2] or '4.0'}")
    rest = CREATIVE_COMMONS.sub("", rest)
    for name, pattern in WRITTEN.items():
        if pattern.search(rest):
            found.append(name)
            rest = pattern.sub("", rest)
    if not found or not set(found) <= set(KNOWN) or not set(WORD.findall(rest)) <= COVERED:
        return None
    return max(KNOWN.index(name) for name in found)
