"""The one place where text comes in: its normal form, and which texts count as empty.

Every text is brought to Unicode's normal form C, because the same letter may be one character or
two, and the encoder, the words of BM25 and the hashes of duplicates must see one spelling.
"""

import re
import unicodedata
from collections.abc import Iterable

# Control characters but tab, line feed and carriage return; lone surrogates; byte order marks.
# The joiners stay: several scripts need them.
_UNWANTED = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\ufeff]")
# Unicode's Default_Ignorable_Code_Point, white space, and the two blanks that count as letters
# (Hangul filler, empty Braille cell): a text of these alone shows nothing.
_INVISIBLE = re.compile(
    "[\\s\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e"
    "\u2060-\u206f\u2800\u3164\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufff8"
    "\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff]*"
)


def nfc(text: str) -> str:
    """`text` in normal form C, without white space around it."""
    return unicodedata.normalize("NFC", text).strip()


def is_blank(text: str) -> bool:
    """Whether `text` is invisible: it has only white space and zero-width characters."""
    if "!" <= text[:1] <= "~":  # most texts show something at once
        return False
    return _INVISIBLE.fullmatch(text) is not None


def clean_text(text: str | None) -> str | None:
    """NFC, without control characters, lone surrogates and surrounding white space.

    None if nothing is left that can be seen.
    """
    if text is None:
        return None
    # what Python calls printable holds nothing unwanted, and is found faster
    cleaned = nfc(text if text.isprintable() else _UNWANTED.sub("", text))
    return None if is_blank(cleaned) else cleaned


def writable(name: str) -> str:
    """`name` of a file with `?` for bytes that are not UTF-8: names on a disk may hold any bytes."""
    return name.encode("utf-8", "replace").decode()


def shortened(text: str, most: int = 40) -> str:
    """`text` for a message, cut after `most` characters."""
    return text if len(text) <= most else f"{text[:most]}..."


def listed(names: Iterable[object], most: int = 12) -> str:
    """Names for a message: at most `most` of them, each shortened, separated by commas."""
    shown = [shortened(str(name)) for name in names]
    more = [f"and {len(shown) - most} more"] if len(shown) > most else []
    return ", ".join(shown[:most] + more)


def comparable(text: str) -> str:
    """`text` as it is compared for containment: NFC, case folded, white space as single blanks."""
    return " ".join(nfc(text).casefold().split())
