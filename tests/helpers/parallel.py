"""Made-up parallel data in two or more languages: small enough for tiny encoders to learn something
in a few steps.
"""

import numpy as np

from hybridbatch.common.records import Row
from hybridbatch.sampling.index import HAS_PASSAGE, HAS_QUERY, RecordIndex

LANGUAGES = ("deu", "eng", "swh")
SUFFIX = {"deu": "en", "eng": "s", "swh": "wa"}


def rows(records: int, split: str = "train", seed: int = 0) -> list[Row]:
    """One record per made-up topic in every language, with three hard negatives; record 1 has the
    passage of record 0.
    """
    rng = np.random.default_rng([seed, len(split)])
    words = ["".join(rng.choice(list("bdfgklmnprst"), 1)[0] + rng.choice(list("aeiou"), 1)[0] for _ in range(3)) for _ in range(4 * records)]  # fmt: skip
    found = []
    for number in range(records):
        topic, place, year, other = words[4 * number : 4 * number + 4]
        for language in LANGUAGES:
            end = SUFFIX[language]
            passage = f"{topic}{end} {place}{end} {year} {other} {'ba ' * int(rng.integers(0, 12))}".strip()
            if number == 1:
                passage = found[len(found) - len(LANGUAGES)].passage
            negatives = tuple(f"{other}{end} {place} {i}" for i in range(3))
            found.append(
                Row(
                    "toy",
                    f"{split}-{number}",
                    language,
                    f"{topic}{end} {year}",
                    passage,
                    negatives,
                    split,
                )
            )
    return found


class Table:
    """Rows in memory, with the index a schedule needs and the text functions that batches need."""

    def __init__(self, table: list[Row]) -> None:
        self.rows = table
        records = len(table) // len(LANGUAGES)
        passages: dict[str, int] = {}
        self.index = RecordIndex(
            sources=("toy",),
            languages=LANGUAGES,
            record_start=np.arange(records + 1, dtype=np.int64) * len(LANGUAGES),
            source=np.zeros(records, np.int16),
            group=np.array(
                [
                    passages.setdefault(row.passage, len(passages))
                    for row in table[:: len(LANGUAGES)]
                ],
                np.int32,
            ),
            language=np.tile(np.arange(len(LANGUAGES), dtype=np.int16), records),
            has=np.full(len(table), HAS_QUERY | HAS_PASSAGE, np.uint8),
        )

    def texts(self) -> dict:
        """The text functions, as keyword arguments of `Batches`."""
        return {
            "queries": lambda at: [self.rows[i].query for i in at],
            "passages": lambda at: [self.rows[i].passage for i in at],
            "negatives": lambda at: [self.rows[i].negatives for i in at],
            "record_ids": lambda at: [self.rows[i].record_id for i in at],
            "records": self.index.record_of,
        }
