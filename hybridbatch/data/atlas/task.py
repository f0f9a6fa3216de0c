"""The task of the embedded atlas: find a territory by a partial description without its name."""

from functools import cache

from hybridbatch.common.errors import ConfigError, nearest
from hybridbatch.common.records import SPLITS, Qrels, Split, Task, Texts
from hybridbatch.data.atlas.source import LICENCE, atlas, territory_of


@cache
def read_atlas(split: Split = "test") -> Task:
    """Queries and cards of the territories of one split, in every language of the atlas.

    A query ``KE-0`` has one relevant passage, ``KE``, in each language that has this card.

    Raises:
        ConfigError: The split is unknown.
    """
    if split not in SPLITS:
        raise ConfigError(
            f"atlas: unknown split {split!r}{nearest(split, SPLITS)}; use one of"
            f" {', '.join(SPLITS)}"
        )
    world = atlas()
    wanted = {territory for territory, its_split in world.splits.items() if its_split == split}
    queries: dict[str, Texts] = {}
    corpus: dict[str, Texts] = {}
    qrels: dict[str, Qrels] = {}
    records: set[str] = set()
    for language, texts in world.queries.items():
        kept = {name: text for name, text in texts.items() if territory_of(name) in wanted}
        queries[language] = Texts(tuple(kept), tuple(kept.values()))
        records.update(kept)
    for language, cards in world.cards.items():
        shown = {territory: card for territory, card in cards.items() if territory in wanted}
        corpus[language] = Texts(tuple(shown), tuple(shown.values()))
        answered = [name for name in sorted(records) if territory_of(name) in shown]
        qrels[language] = {name: {territory_of(name): 1} for name in answered}
    return Task(
        name="atlas",
        queries=queries,
        corpus=corpus,
        qrels=qrels,
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
