"""CLDR's facts about territories, and each language's names of things.

The names come with the package (``names.json.xz``, made by `make_names`; Unicode License v3), so
the atlas does not depend on the CLDR version of a machine.

Only names that a locale itself defines count. For an untranslated name, CLDR falls back to a parent
locale or to English, which would put English text into another language.
"""

import json
import lzma
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from typing import Any

from hybridbatch.common.errors import DataError
from hybridbatch.common.languages import canonical, language
from hybridbatch.common.texts import nfc

FILE = "names.json.xz"
SOURCE = "babel 2.18.0"  # the origin of the names; `make_names` needs this version
# Invisible marks of writing direction: they belong to the lines that CLDR prints, not to the names
_MARKS = dict.fromkeys(map(ord, "\u200e\u200f\u061c"))


@dataclass(frozen=True)
class Territory:
    """Facts of a territory, as CLDR codes that any language may have a name for."""

    code: str  # ISO 3166
    currencies: tuple[str, ...]  # legal tender without a known end date, ISO 4217
    languages: tuple[str, ...]  # spoken by at least 1 % of the people, most speakers first
    cities: tuple[str, ...]  # IANA time zones, which CLDR names by an exemplar city
    regions: tuple[str, ...]  # UN M49 subregion, then continent


@dataclass(frozen=True)
class Names:
    """The names that one locale itself defines, by code; NFC."""

    language: str  # canonical id
    territory: dict[str, str] = field(repr=False)  # regions and continents included
    currency: dict[str, str] = field(repr=False)
    spoken: dict[str, str] = field(repr=False)
    city: dict[str, str] = field(repr=False)

    def names(self, kind: str) -> dict[str, str]:
        """The names of a kind of thing: currency, language, city or region."""
        return {
            "currency": self.currency,
            "language": self.spoken,
            "city": self.city,
            "region": self.territory,
        }[kind]

    def has_card(self, territory: str, card: Mapping[tuple[str, int], str]) -> bool:
        """Whether the locale names a territory and all things on its card (kind and place: code)."""
        return territory in self.territory and all(
            code in self.names(kind) for (kind, _), code in card.items()
        )

    def share_equal(self, other: "Names") -> float:
        """The share of territory and currency names that are spelt as in `other`."""
        pairs = [
            (name, theirs[code])
            for mine, theirs in (
                (self.territory, other.territory),
                (self.currency, other.currency),
            )
            for code, name in mine.items()
            if code in theirs
        ]
        return sum(name == their for name, their in pairs) / len(pairs)


@cache
def _content() -> dict[str, Any]:
    """The content of the file of names.

    Raises:
        DataError: The file is damaged.
    """
    place = files(__package__).joinpath(FILE)
    try:
        content = json.loads(lzma.decompress(place.read_bytes()))
    except (OSError, EOFError, ValueError, lzma.LZMAError) as error:
        raise DataError(f"{place}: is damaged ({error}); install hybridbatch again") from error
    return dict(content)


def cldr_version() -> str:
    """The versions of CLDR and of babel that the names come from."""
    return str(_content()["version"])


@cache
def territories() -> tuple[Territory, ...]:
    """The territories of ISO 3166 with a time zone and inhabitants with a language, by code.

    The result does not depend on today's date: a currency counts unless CLDR has an end date for
    it.
    """
    tender, speakers, zones = (_content()[name] for name in ("tender", "speakers", "zones"))
    regions = _regions()
    found = []
    for code in sorted(set(zones) & set(regions)):
        shares = speakers.get(code, {})
        spoken = sorted(
            (name for name in shares if shares[name] >= 1),
            key=lambda name: (-shares[name], name),
        )
        spoken = list(dict.fromkeys(name.split("_")[0] for name in spoken))
        money = tuple(tender.get(code, ()))
        if spoken:
            found.append(
                Territory(code, money, tuple(spoken), tuple(sorted(zones[code])), regions[code])
            )
    return tuple(found)


def locales() -> Iterator[Names]:
    """The names of every language of CLDR, and of each script that it is written in.

    Variants by territory are left out.
    """
    zones = sorted({zone for territory in territories() for zone in territory.cities})
    for locale, own in _content()["locales"].items():
        found = canonical(locale)
        yield Names(
            language=found,
            territory=_clean(own["territories"]),
            currency=_clean(own["currencies"]),
            spoken=_clean(own["languages"]),
            city=_cities(own["cities"], zones, latin=language(found).script == "Latn"),
        )


def _cities(own: dict[str, str], zones: list[str], latin: bool) -> dict[str, str]:
    """Exemplar cities.

    A Latin-script locale leaves out a city whose spelling is that of the time zone's id (CLDR, UTS
    35).
    """
    named = {zone: own[zone] for zone in zones if zone in own}
    if latin:
        named = {zone: zone.rpartition("/")[2].replace("_", " ") for zone in zones} | named
    return _clean(named)


def _clean(names: dict[str, str]) -> dict[str, str]:
    return {code: nfc(name.translate(_MARKS)) for code, name in names.items()}


def _regions() -> dict[str, tuple[str, ...]]:
    """(subregion, continent) of each territory.

    The regions are UN M49, which CLDR follows. Babel leaves this table out.
    """
    table = (
        files(__package__).joinpath("regions.tsv").read_text(encoding="utf-8").splitlines()[1:]
    )
    rows = (line.split("\t") for line in table)
    return {
        code: (region, continent) for region, continent, codes in rows for code in codes.split()
    }
