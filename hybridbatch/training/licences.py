"""The licence of a trained model, from the licences of its base model and training data."""

import re
from collections.abc import Mapping

OTHER = "other"
# The hub's names of licences, from the freest to the strictest, and how they are written.
KNOWN = (
    ("cc0-1.0", r"\bcc0\b|public domain"),
    ("mit", r"\bmit\b"),
    ("unicode", r"\bunicode license\b"),
    ("apache-2.0", r"\bapache"),
    ("cc-by-4.0", r"\bcc[ -]by(?![ -](sa|nc|nd))"),
    ("cc-by-sa-3.0", r"\bcc[ -]by[ -]sa[ -]3"),
    ("cc-by-sa-4.0", r"\bcc[ -]by[ -]sa(?![ -]3)"),
    ("cc-by-nc-4.0", r"\bcc[ -]by[ -]nc(?![ -]sa)"),
    ("cc-by-nc-sa-4.0", r"\bcc[ -]by[ -]nc[ -]sa"),
)
# Words that no licence of the list above covers.
OPEN = re.compile(
    r"research|non-commercial|owner|origin|sites|none|not stated|yours|unknown|webscope|cnn|per story"
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
        ranks = [
            rank for rank, (_, pattern) in enumerate(KNOWN) if re.search(pattern, text.lower())
        ]
        if not ranks or OPEN.search(text.lower()):
            unknown.append(f"{name}: {text}")
        elif max(ranks) > strictest:
            strictest, deciding = max(ranks), [f"{name}: {text}"]
        elif max(ranks) == strictest:
            deciding.append(f"{name}: {text}")
    if unknown or strictest < 0:
        return OTHER, unknown or ["no part states a licence"]
    found = KNOWN[strictest][0]
    return PERMISSIVE.get(found, found), deciding
