"""Queries of the atlas: partial descriptions of a territory without its name.

A query gives equal facts in every language.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

from hybridbatch.common.languages import language
from hybridbatch.data.atlas.cldr import Names

Slot = tuple[str, int]  # kind of thing and its place on the card: ("city", 0)
SEPARATOR = " · "  # belongs to no language
QUERIES = 3  # per territory, at most
# other cards that a query may fit, mean over languages; each territory keeps its best query anyway
MOST_RIVALS = 0.5
# What queries may mention. The continent and a second currency reveal too little.
_ASKABLE: tuple[Slot, ...] = (
    ("currency", 0), ("language", 0), ("language", 1), ("language", 2), ("language", 3),
    ("city", 0), ("city", 1), ("region", 0),
)  # fmt: skip
_CANDIDATES = tuple(slots for size in (2, 3, 4) for slots in combinations(_ASKABLE, size))
# scripts without spaces between words
_UNSPACED = {"Hans", "Hant", "Jpan", "Khmr", "Laoo", "Mymr", "Thai", "Tibt"}
_EDGES = " ()-–,.・·’'"


@dataclass(frozen=True)
class Edition:
    """The atlas in one language.

    Attributes:
        language: canonical id.
        cards: the passage of each territory that the language can describe in full.
        parts: per territory and slot the text for a query: the name of the thing without the
            territory's name, maybe empty.
        fits: per territory and slot, the territories whose cards have this text, as bits.
    """

    language: str
    cards: Mapping[str, str]
    parts: Mapping[str, Mapping[Slot, str]]
    fits: Mapping[str, Mapping[Slot, int]]

    @staticmethod
    def of(names: Names, contents: Mapping[str, Mapping[Slot, str]]) -> "Edition":
        """The edition of a locale.

        `contents` has the CLDR codes on the card of each territory.
        """
        spaced = language(names.language).script not in _UNSPACED
        texts: dict[str, dict[Slot, str]] = {}
        cards: dict[str, str] = {}
        parts: dict[str, dict[Slot, str]] = {}
        for code, card in contents.items():
            if not names.has_card(code, card):
                continue
            territory = names.territory[code]
            texts[code] = {slot: names.names(slot[0])[thing] for slot, thing in card.items()}
            cards[code] = SEPARATOR.join((territory, *texts[code].values()))
            parts[code] = {
                slot: _nameless(slot[0], text, territory, spaced)
                for slot, text in texts[code].items()
            }
        return Edition(names.language, cards, parts, _fits(texts, parts))

    def query(self, code: str, slots: Sequence[Slot]) -> str:
        """The query about a territory that mentions these slots."""
        return SEPARATOR.join(self.parts[code][slot] for slot in slots)


def choose(code: str, editions: Sequence[Edition]) -> list[tuple[Slot, ...]]:
    """The slots of a territory's queries; every language with its card can ask all of them.

    Among all combinations, the order of preference is: those that fit the fewest other cards, then
    those unlike the queries already chosen, then those without a city, which is nearly a name, then
    the shortest.
    """
    having = [edition for edition in editions if code in edition.cards]
    if not having:
        return []

    def is_usable(slot: Slot) -> bool:
        return all(edition.parts[code][slot] for edition in having)

    def mean_rivals(slots: tuple[Slot, ...]) -> float:
        total = sum(_rivals(edition.fits[code], slots) for edition in having)
        return round(total / len(having), 1)

    usable = set(filter(is_usable, having[0].parts[code]))
    rivals = {slots: mean_rivals(slots) for slots in _CANDIDATES if usable.issuperset(slots)}
    chosen: list[tuple[Slot, ...]] = []

    def preference(slots: tuple[Slot, ...]) -> tuple[float, float, bool, int]:
        likeness = max((_overlap(slots, other) for other in chosen), default=0.0)
        names_city = any(kind == "city" for kind, _ in slots)
        return rivals[slots], likeness, names_city, len(slots)

    while rivals and len(chosen) < QUERIES:
        best = min(rivals, key=preference)
        if chosen and rivals[best] > MOST_RIVALS:
            break
        chosen.append(best)
        del rivals[best]
    return chosen


def _rivals(fits: Mapping[Slot, int], slots: Sequence[Slot]) -> int:
    """The number of other cards of the language that have all these parts."""
    common = fits[slots[0]]
    for slot in slots[1:]:
        common &= fits[slot]
    return common.bit_count() - 1


def _overlap(one: Sequence[Slot], other: Sequence[Slot]) -> float:
    return len(set(one) & set(other)) / len(set(one) | set(other))


def _fits(
    texts: Mapping[str, Mapping[Slot, str]], parts: Mapping[str, Mapping[Slot, str]]
) -> dict[str, dict[Slot, int]]:
    """The cards that a part fits, as bits.

    A part fits the cards with the same thing. If the territory's name was cut from the part, it
    fits the cards that have the rest of the text anywhere.
    """
    bits = {code: 1 << number for number, code in enumerate(texts)}
    holders: dict[str, int] = {}
    for code, card in texts.items():
        for text in card.values():
            holders[text.casefold()] = holders.get(text.casefold(), 0) | bits[code]
    folded = {code: SEPARATOR.join(card.values()).casefold() for code, card in texts.items()}
    remains: dict[str, int] = {}
    fits: dict[str, dict[Slot, int]] = {code: {} for code in texts}
    for code, card in parts.items():
        for slot, part in card.items():
            if part == texts[code][slot]:
                fits[code][slot] = holders[part.casefold()]
                continue
            rest = part.casefold()
            if rest not in remains:
                remains[rest] = sum(
                    bits[other] for other, text in folded.items() if rest in text
                )
            fits[code][slot] = remains[rest]
    return fits


def _nameless(kind: str, text: str, name: str, spaced: bool) -> str:
    """`text` without the words that spell the territory's name; maybe nothing is left.

    In unspaced scripts, and in a currency written as one word (Kuwaitdinar), the characters of the
    name are removed.
    """
    if kind == "city" and text.casefold() in name.casefold():
        return ""  # Guatemala, Kuwait, Hong Kong
    rest = _without(text, name, whole_words=spaced)
    if kind == "currency" and not rest:
        rest = _without(text, name, whole_words=False)
        return "" if spaced and len(rest) < 3 else rest  # only an ending is left: Boliviano
    return rest


def _without(text: str, name: str, whole_words: bool) -> str:
    while (start := text.casefold().find(name.casefold())) >= 0:
        end = start + len(name)
        if whole_words:
            words = [
                word
                for word in re.finditer(r"[^\s\-–]+", text)
                if word.end() <= start or word.start() >= end
            ]
            text = " ".join(word.group() for word in words)
        else:
            text = f"{text[:start]} {text[end:]}"
        text = " ".join(text.split()).strip(_EDGES)
    return text
