"""The embedded data set: territories of the world, described in every language that CLDR covers.

A passage is the *card* of a territory in one language: its name, currencies, spoken languages,
exemplar cities and region, all by that language's CLDR names. A query gives some of these, but
never the name. Records are parallel by construction: ``KE-0`` gives equal facts in every language.
`hybridbatch.data.atlas.queries` makes the queries.

The split of the territories is fixed and does not depend on the seed of a run. The test territories
are the task of `hybridbatch.data.atlas.task` and never training data. docs/atlas.md has the numbers
and the limits.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache

from hybridbatch.common.files import fingerprint
from hybridbatch.common.records import Row, Split
from hybridbatch.common.seeding import stream
from hybridbatch.data.atlas.cldr import (
    SOURCE,
    Names,
    Territory,
    cldr_version,
    locales,
    territories,
)
from hybridbatch.data.atlas.queries import Edition, Slot, choose
from hybridbatch.data.source import Source, SourceContext

# the paper's nine (arXiv:2408.10536)
TRAINED = ("arb", "zho", "eng", "deu", "hin", "rus", "spa", "tha", "tur")
# Six of the nine and sixteen zero-shot languages, of ten scripts and every resource class
DEFAULT_EVALUATION = (
    "arb", "zho", "eng", "hin", "rus", "tha", "jpn", "ell", "vie",
    "swh", "yor", "amh", "tir", "zul", "ibo", "hau", "som", "wol", "quy", "chr", "ewe", "mri",
)  # fmt: skip
# share of the cards that a language must be able to write; languages lie above 0.84 or below 0.70
NEAR_FULL = 0.8
WIDELY_NAMED = 0.95  # share of the languages that must name a thing before it may be on a card
# most things of a kind on a card, in this order
MOST = {"currency": 2, "language": 4, "city": 3, "region": 2}
TEST, VALIDATION = 85, 15  # territories for testing and validation; the others are for training
LICENCE = "Unicode License v3"
_SPLIT_SEED = 240810536  # fixed, so that test territories stay test territories


@dataclass(frozen=True)
class Atlas:
    """Cards and queries of all languages.

    Attributes:
        cards: by language and territory.
        queries: by language and record id; the record of ``KE-0`` is about territory ``KE``.
        splits: split of each territory.
        version: version of CLDR and babel, on which all texts depend.
        fingerprint: fingerprint of the whole atlas.
    """

    cards: Mapping[str, Mapping[str, str]]
    queries: Mapping[str, Mapping[str, str]]
    splits: Mapping[str, Split]
    version: str
    fingerprint: str

    @property
    def languages(self) -> tuple[str, ...]:
        """Canonical ids, in alphabetical order."""
        return tuple(self.cards)


@cache
def atlas() -> Atlas:
    """The whole atlas, built from the names in the package in a few seconds.

    No clock or random state affects the atlas.
    """
    world = territories()
    known = [names for names in locales() if _names_most(names, world)]
    contents = {territory.code: _contents(territory, known) for territory in world}
    english = next(names for names in known if names.language == "eng")
    covered = sorted(
        (names for names in known if _covers(names, contents, english)),
        key=lambda names: names.language,
    )
    editions = [Edition.of(names, contents) for names in covered]
    asked = {code: choose(code, editions) for code in contents}
    cards = {edition.language: edition.cards for edition in editions}
    queries: dict[str, dict[str, str]] = {}
    for edition in editions:
        texts = queries.setdefault(edition.language, {})
        for code in edition.cards:
            for number, slots in enumerate(asked[code]):
                texts[f"{code}-{number}"] = edition.query(code, slots)
    splits = _split(tuple(contents))
    return Atlas(cards, queries, splits, cldr_version(), fingerprint([cards, queries, splits]))


def territory_of(record_id: str) -> str:
    """The territory that a record is about: ``KE`` of ``KE-0``."""
    return record_id.partition("-")[0]


def rows(context: SourceContext) -> Iterator[Row]:
    """Every record of the training and validation territories in every wanted language.

    Test territories are never included.
    """
    world = atlas()
    for language in world.languages:
        if context.keeps(language):
            for record_id, query in world.queries[language].items():
                territory = territory_of(record_id)
                split = world.splits[territory]
                if split != "test":
                    passage = world.cards[language][territory]
                    yield Row("atlas", record_id, language, query, passage, split=split)


def _names_most(names: Names, world: Sequence[Territory]) -> bool:
    """Whether a locale names most territories and most currencies."""
    money = {code for territory in world for code in territory.currencies}
    return sum(territory.code in names.territory for territory in world) >= NEAR_FULL * len(
        world
    ) and sum(code in names.currency for code in money) >= NEAR_FULL * len(money)


def _contents(territory: Territory, known: Sequence[Names]) -> dict[Slot, str]:
    """The things on the card of a territory: the first of each kind that nearly all languages name."""
    things = {
        "currency": territory.currencies,
        "language": territory.languages,
        "city": territory.cities,
        "region": territory.regions,
    }
    contents: dict[Slot, str] = {}
    for kind, most in MOST.items():
        named = [code for code in things[kind] if _widely_named(kind, code, known)]
        contents |= {(kind, place): code for place, code in enumerate(named[:most])}
    return contents


def _widely_named(kind: str, code: str, known: Sequence[Names]) -> bool:
    return sum(code in names.names(kind) for names in known) >= WIDELY_NAMED * len(known)


def _covers(names: Names, contents: Mapping[str, Mapping[Slot, str]], english: Names) -> bool:
    """Whether a language covers nearly all cards with names that differ from English.

    For example, CLDR's Cebuano nearly always repeats English.
    """
    complete = sum(names.has_card(code, card) for code, card in contents.items())
    return complete >= NEAR_FULL * len(contents) and (
        names is english or names.share_equal(english) < WIDELY_NAMED
    )


def _split(codes: Sequence[str]) -> dict[str, Split]:
    order = [codes[i] for i in stream(_SPLIT_SEED, "atlas territories").permutation(len(codes))]
    test, validation = set(order[:TEST]), set(order[TEST : TEST + VALIDATION])
    return {
        code: "test" if code in test else "validation" if code in validation else "train"
        for code in codes
    }


SOURCES = (
    Source(
        name="atlas",
        title="Territories described by their CLDR names; queries are partial descriptions without the name",
        licence=LICENCE,
        url="https://cldr.unicode.org",
        languages="137, each with near-full coverage of its own in CLDR (47)",
        size="436 records, 59,397 rows",
        yields="currency, languages, cities, region -> the territory's card; parallel in all languages",
        rows=rows,
        revision=SOURCE,
    ),
)
