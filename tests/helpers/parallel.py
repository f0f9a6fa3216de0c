"""Made-up parallel data in two or more languages: small enough for tiny encoders to learn something
in a few steps.
"""

import numpy as np

from hybridbatch.common.records import Row
from hybridbatch.sampling.index import HAS_PASSAGE, HAS_QUERY, RecordIndex
from hybridbatch.training.rows import Rows

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


class Table(Rows):
    """Rows in memory, with the index that a schedule needs."""

    def __init__(self, table: list[Row]) -> None:
        self.rows = table
        self.languages = LANGUAGES
        self.known_groups: list[np.ndarray] | None = None
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

    def queries(self, rows):
        return [self.rows[i].query for i in rows]

    def passages(self, rows):
        return [self.rows[i].passage for i in rows]

    def negatives(self, rows):
        return [self.rows[i].negatives for i in rows]

    def record_ids(self, rows):
        return [self.rows[i].record_id for i in rows]

    def records(self, rows):
        return self.index.record_of(rows)

    def groups(self, rows):
        return self.index.group[self.index.record_of(rows)]

    def negative_groups(self, rows):
        """Of each row's negatives, where a test has set them for all rows."""
        if self.known_groups is None:
            return None
        return [self.known_groups[i] for i in rows]
