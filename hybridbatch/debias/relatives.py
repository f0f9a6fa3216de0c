"""What a language without text is turned by: its nearest relatives', else the global vector."""

from collections.abc import Collection

from hybridbatch.common.errors import DataError
from hybridbatch.common.languages import Language, language

# From near to far: what a relative shares with the language.
DEGREES = (
    "the language in another script",
    "family and script",
    "family",
    "script",
)


def nearest_relatives(code: str, known: Collection[str]) -> tuple[tuple[str, ...], str]:
    """The nearest of the `known` languages to one that is not among them, and what they share.

    Script and family are those of the registry (`hybridbatch.common.languages`). All languages of
    the nearest degree are given, for the registry does not rank them further.

    Args:
        code: any code of a language.
        known: canonical ids.
    Returns: the relatives, ascending, and one of `DEGREES`; no relatives and ``""`` where none
        shares anything, or the language is unknown.
    """
    try:
        wanted = language(code)
    except DataError:
        return (), ""
    others = [language(other) for other in sorted(known) if other != wanted.id]
    for degree in DEGREES:
        found = tuple(other.id for other in others if _shares(wanted, other, degree))
        if found:
            return found, degree
    return (), ""


def _shares(wanted: Language, other: Language, degree: str) -> bool:
    if degree == "the language in another script":
        return wanted.id.partition("-")[0] == other.id.partition("-")[0]
    family = bool(wanted.family) and wanted.family == other.family
    script = bool(wanted.script) and wanted.script == other.script
    if degree == "family and script":
        return family and script
    return family if degree == "family" else script
