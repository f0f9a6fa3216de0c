"""Quality of texts: markup, too long rows and duplicates, counted in every manifest.

The defaults only count. `prepare --markup remove --max-characters N --duplicates remove` changes
rows.
"""

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from hybridbatch.common.progress import Reporter
from hybridbatch.common.records import BadRow, Row
from hybridbatch.common.texts import clean_text
from hybridbatch.data.filters.decontamination import batches
from hybridbatch.data.filters.hashes import HashLog, HashSet, repeats
from hybridbatch.data.filters.markup import without_markup
from hybridbatch.data.settings import PrepareConfig


class Quality:
    """Counts rows with markup, too long rows and duplicates by source, and acts as set.

    A row is a duplicate if an earlier row in the same language has an equal query and an equal
    passage, apart from case, white space and normal form. The earlier row is in the same source
    (``within``) or in an earlier source (``across``). A row that lacks a side is never a duplicate,
    because it is paired with texts in other languages.
    """

    def __init__(self, config: PrepareConfig) -> None:
        self._settings = config.model_dump(include={"markup", "max_characters", "duplicates"})
        self._longest = config.max_characters
        self._counts: dict[str, Counter[str]] = {}
        self._earlier = HashSet()  # of rows that are removed
        self._logs: list[tuple[str, HashLog]] = []  # by source, of rows that are only counted

    def rows(self, rows: Iterable[Row | BadRow]) -> Iterator[Row | BadRow]:
        """The rows of the next source: changed, replaced by bad rows, or left out."""
        if self._settings["duplicates"] == "keep":
            yield from self._logged(rows)
            return
        here = HashSet()
        for batch in batches(map(self._checked, rows)):
            yield from self._distinct(batch, here)
        self._earlier.update(here)

    def _logged(self, rows: Iterable[Row | BadRow]) -> Iterator[Row | BadRow]:
        """The rows, which are compared at the end: so memory does not grow with them."""
        log = HashLog()
        named = ""
        for batch in batches(map(self._checked, rows)):
            keys = []
            for row in batch:
                if isinstance(row, Row) and (key := pair_hash(row)) is not None:
                    keys.append(key)
                    named = row.source
            log.append(np.array(keys, np.uint64))
            yield from batch
        if len(log):
            self._logs.append((named, log))

    def _compare(self) -> None:
        """Count the repeats of the rows that were logged."""
        logs, self._logs = self._logs, []
        counted = repeats([log for _, log in logs])
        for (source, _), (within, across) in zip(logs, counted, strict=True):
            self._counts[source]["within"] += within
            self._counts[source]["across"] += across

    def _checked(self, row: Row | BadRow) -> Row | BadRow:
        if isinstance(row, BadRow):
            return row
        counts = self._counts.setdefault(row.source, Counter())
        plain = _plain(row)
        if plain is not row:
            counts["markup"] += 1
            if self._settings["markup"] == "remove":
                for side, before, after in (
                    ("query", row.query, plain.query),
                    ("passage", row.passage, plain.passage),
                ):
                    if clean_text(before) and not clean_text(after):
                        return _bad(row, side, "nothing but markup")
                row = plain
        if self._longest is None:
            return row
        for side, text in (("query", row.query), ("passage", row.passage)):
            if self._is_long(text):
                counts["too_long"] += 1
                return _bad(row, side, f"longer than {self._longest} characters")
        kept = tuple(text for text in row.negatives if not self._is_long(text))
        return row if len(kept) == len(row.negatives) else row._replace(negatives=kept)

    def _is_long(self, text: str | None) -> bool:
        """Whether a text is too long after cleaning."""
        return self._longest is not None and len(clean_text(text) or "") > self._longest

    def _distinct(self, batch: list[Row | BadRow], here: "HashSet") -> Iterator[Row | BadRow]:
        """The rows of a batch, without duplicates if `remove` is set; all rows are added to `here`."""
        keys = [pair_hash(row) if isinstance(row, Row) else None for row in batch]
        places = np.flatnonzero([key is not None for key in keys])
        distinct, first, inverse = np.unique(
            np.array([key for key in keys if key is not None], np.uint64),
            return_index=True,
            return_inverse=True,
        )
        known = here.contains(distinct)
        within = known[inverse] | (first[inverse] != np.arange(len(places)))
        across = ~within & self._earlier.contains(distinct)[inverse]
        here.add(distinct[~known])
        verdicts: dict[int, str] = dict.fromkeys(places[within].tolist(), "within")
        verdicts.update(dict.fromkeys(places[across].tolist(), "across"))
        for place, row in enumerate(batch):
            verdict = verdicts.get(place)
            if verdict and isinstance(row, Row):
                self._counts[row.source][verdict] += 1
                if self._settings["duplicates"] == "remove":
                    continue
            yield row

    def describe(self) -> dict[str, Any]:
        """The settings that change rows; none by default, so that older data is still recognized."""
        return {
            name: value for name, value in self._settings.items() if value not in ("keep", None)
        }

    def as_json(self) -> dict[str, Any]:
        """The settings, and rows by source.

        The counts are ``markup``, ``too_long``, and ``duplicates`` within and across sources.
        """
        self._compare()
        counts = sorted(self._counts.items())
        return {
            "settings": self._settings,
            "markup": {source: count["markup"] for source, count in counts},
            "too_long": {source: count["too_long"] for source, count in counts},
            "duplicates": {
                source: {"within": count["within"], "across": count["across"]}
                for source, count in counts
            },
        }

    def tell(self, report: Reporter) -> None:
        """Report the findings and their handling; too long rows are reported as bad rows."""
        self._compare()
        total: Counter[str] = Counter()
        for counts in self._counts.values():
            total.update(counts)
        if total["markup"]:
            done = (
                "removed"
                if self._settings["markup"] == "remove"
                else "kept; --markup remove takes it out"
            )
            report.note(f"{total['markup']:,} rows with markup ({done})")
        if total["within"] or total["across"]:
            done = (
                "left out"
                if self._settings["duplicates"] == "remove"
                else "kept; --duplicates remove leaves them out"
            )
            report.note(
                f"{total['within']:,} rows repeat an earlier row of their source, and"
                f" {total['across']:,} rows repeat a row of an earlier source ({done})"
            )


def pair_hash(row: Row) -> int | None:
    """A 64-bit hash of a row's language, query and passage; None if a side is missing.

    Case, white space and normal form do not count. Among 40 million different pairs, the
    probability that two have one hash is 1 in 20,000.
    """
    query, passage = clean_text(row.query), clean_text(row.passage)
    if query is None or passage is None:
        return None
    key = "\0".join(
        (row.language, *(" ".join(text.casefold().split()) for text in (query, passage)))
    )
    return int.from_bytes(hashlib.blake2b(key.encode(), digest_size=8).digest(), "little")


def _plain(row: Row) -> Row:
    """The row without markup; `row` unchanged if it has none."""
    query, passage = (text and without_markup(text) for text in (row.query, row.passage))
    negatives = tuple(without_markup(text) for text in row.negatives)
    if (query, passage, negatives) == (row.query, row.passage, row.negatives):
        return row
    return row._replace(query=query, passage=passage, negatives=negatives)


def _bad(row: Row, side: str, reason: str) -> BadRow:
    return BadRow(
        f"source {row.source}, record {row.record_id!r}, language {row.language}",
        0,
        side,
        reason,
    )
