"""The task of the embedded atlas: find the territory that a partial description without its name is
about.
"""

from functools import cache

from hybridbatch.common.errors import ConfigError, nearest
from hybridbatch.common.records import SPLITS, Split, Task, Texts
from hybridbatch.data.atlas.source import LICENCE, atlas, territory_of


@cache
def read_atlas(split: Split = "test") -> Task:
    """Queries and cards of the territories of one split, in every language of the atlas.

    A query ``KE-0`` has one relevant passage, ``KE``, in each language that has this card.

    Raises: `ConfigError` for an unknown split.
    """
    if split not in SPLITS:
        raise ConfigError(
            f"atlas split {split!r}{nearest(split, SPLITS)}; it has {', '.join(SPLITS)}"
        )
    world = atlas()
    wanted = {territory for territory, its_split in world.splits.items() if its_split == split}
    queries = {
        language: {record: text for record, text in texts.items() if territory_of(record) in wanted}
        for language, texts in world.queries.items()
    }
    corpus = {
        language: {territory: card for territory, card in cards.items() if territory in wanted}
        for language, cards in world.cards.items()
    }
    records = sorted({record for texts in queries.values() for record in texts})
    return Task(
        name="atlas",
        queries={
            language: Texts(tuple(texts), tuple(texts.values()))
            for language, texts in queries.items()
        },
        corpus={
            language: Texts(tuple(cards), tuple(cards.values()))
            for language, cards in corpus.items()
        },
        qrels={
            language: {
                record: {territory_of(record): 1}
                for record in records
                if territory_of(record) in cards
            }
            for language, cards in corpus.items()
        },
        about="Measures cross-lingual matching of names (CLDR's of territories and what belongs to them), not general"
        " retrieval.",
        parallel=True,
        provenance={
            "source": "https://cldr.unicode.org",
            "revision": world.version,
            "licence": LICENCE,
            "fingerprint": world.fingerprint,
            "split": split,
        },
    )
