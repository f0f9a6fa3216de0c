"""Adds rows in further languages by translating existing rows.

A record that lacks a target language gets a row in that language. The row is the translation of one
row of the record, never a mixture of several. In `mkqa`, each language of a record holds either the
question or its translation, and a mixture would pair a question with itself. Existing rows never
change. Hard negatives are not translated.
"""

import json
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from hybridbatch.common.errors import ConfigError
from hybridbatch.common.languages import language
from hybridbatch.common.progress import Bar, Reporter
from hybridbatch.common.records import BadRow, Row
from hybridbatch.common.texts import clean_text
from hybridbatch.data.filters.language_id import identifier
from hybridbatch.data.store.intake import clean_row
from hybridbatch.data.translation.cache import TranslationCache, default_folder
from hybridbatch.data.translation.faults import FAULTS, fault
from hybridbatch.data.translation.sentences import join
from hybridbatch.data.translation.translators import Translator

LEFT_OUT = ("unfinished", *FAULTS)
CHUNK_TEXTS = 4096  # translated between two reads of the rows
_Rank = tuple[bool, int, int, str]


@dataclass(slots=True)
class _Record:
    """What is known of a record while the source is read."""

    present: tuple[str, ...] = ()  # target languages that the record has
    rank: _Rank | None = None  # language of the row to translate
    place: int = 0  # place of the row to translate among the spilled rows
    texts: int = 0  # sides of the row to translate


@dataclass(frozen=True)
class _Job:
    """The translation of one side of one row into one language."""

    row: Row
    side: str
    target: str

    @property
    def text(self) -> str:
        return getattr(self.row, self.side)


class Translation:
    """Adds translated rows to the rows of sources, and counts the results by fault."""

    def __init__(
        self,
        translator: Translator,
        targets: Sequence[str],
        prefer: Sequence[str],
        report: Reporter,
        folder: Path | None = None,
        only: Sequence[str] = (),
    ) -> None:
        """Open the stored translations of earlier runs; nothing is translated yet.

        Args:
            targets: canonical languages.
            prefer: canonical languages to translate from, best first; after them the best resourced
                (Joshi class), then by id. Rows with both query and passage come before all others.
            folder: folder of the stored translations; default: in the user's cache folder.
            only: names of the sources whose records are translated; empty: all sources.

        Raises:
            ConfigError: The translator does not know a target language.
            OutputError, DataError: See `TranslationCache`.
        """
        for target in targets:
            if not translator.speaks(target):
                raise ConfigError(
                    f"translate_to = {target}: {translator.describe()['name']} does not translate"
                    f" into {language(target).name}; choose another translator or drop the language"
                )
        self._translator, self._targets, self._prefer = (
            translator,
            tuple(dict.fromkeys(targets)),
            tuple(prefer),
        )
        self._only = tuple(only)
        self._report, self._folder = report, folder or default_folder()
        self._cache = TranslationCache(translator.describe(), folder)
        self._counts: dict[tuple[str, str, str], Counter[str]] = {}
        self._untranslatable: Counter[str] = Counter()

    def rows(self, rows: Iterable[Row | BadRow]) -> Iterator[Row | BadRow]:
        """The rows of a source, then the translated rows, which name their source language.

        Memory is about 500 bytes a record; the texts wait on disk. Errors of `Translator.translate`
        and of the cache pass through.
        """
        with tempfile.TemporaryFile(dir=self._folder) as spilled:
            records: dict[tuple[str, str], _Record] = {}
            for row in rows:
                if isinstance(row, Row) and self._wants(row.source):
                    good = clean_row(row)
                    if isinstance(good, Row):
                        self._note(good, records, spilled)
                yield row
            yield from self._translated(records, spilled)

    def describe(self) -> dict[str, Any]:
        """The translator, the languages, and the sources if not all are translated."""
        described = {
            "translator": self._translator.describe(),
            "to": list(self._targets),
            "prefer": list(self._prefer),
            "identifier": identifier().name,
        }
        return described | ({"sources": list(self._only)} if self._only else {})

    def as_json(self) -> dict[str, Any]:
        """``counts`` of texts by source and languages: translated, kept, and left out by fault."""
        told = ("rows", "texts", "kept", *LEFT_OUT, "language_not_judged")
        lines: list[dict[str, Any]] = []
        for (source, origin, target), counts in sorted(self._counts.items()):
            line: dict[str, Any] = {"source": source, "from": origin, "to": target}
            lines.append(line | {name: counts[name] for name in told})
        return {
            "counts": lines,
            "records_without_language_to_translate_from": dict(
                sorted(self._untranslatable.items())
            ),
        }

    def tell(self, report: Reporter) -> None:
        """Report the number of rows in each language, and what was left out and why."""
        rows: Counter[str] = Counter()
        faults: Counter[str] = Counter()
        for (_, _, target), counts in self._counts.items():
            rows[target] += counts["rows"]
            faults.update({name.replace("_", " "): counts[name] for name in LEFT_OUT})
        into = ", ".join(f"{target} {count:,}" for target, count in sorted(rows.items()))
        report.note(
            f"translated: {rows.total():,} rows ({into or 'no record lacks these languages'})"
        )
        if faults.total():
            told = "; ".join(
                f"{count:,} x {name}" for name, count in faults.most_common() if count
            )
            texts = sum(counts["texts"] for counts in self._counts.values())
            report.warn(
                f"{faults.total():,} of {texts:,} translated texts were left out: {told}."
                " manifest.json has the counts"
            )
        for source, count in self._untranslatable.items():
            report.warn(
                f"{source}: {count:,} records are in no language that this translator translates"
                " from"
            )

    def _wants(self, source: str) -> bool:
        return not self._only or source in self._only

    def _note(
        self, row: Row, records: dict[tuple[str, str], _Record], spilled: IO[bytes]
    ) -> None:
        record = records.setdefault((row.source, row.record_id), _Record())
        if row.language in self._targets:
            record.present = (*record.present, row.language)
        rank = self._rank(row)
        if self._translator.speaks(row.language) and (
            record.rank is None or rank < record.rank
        ):
            record.rank = rank
            record.texts = (row.query is not None) + (row.passage is not None)
            record.place = spilled.tell()
            spilled.write(
                json.dumps(row._asdict() | {"negatives": []}, ensure_ascii=False).encode()
                + b"\n"
            )

    def _rank(self, row: Row) -> _Rank:
        preferred = (
            self._prefer.index(row.language)
            if row.language in self._prefer
            else len(self._prefer)
        )
        resources = language(row.language).joshi_class
        return (
            row.query is None or row.passage is None,
            preferred,
            1 if resources is None else -resources,
            row.language,
        )

    def _translated(
        self, records: dict[tuple[str, str], _Record], spilled: IO[bytes]
    ) -> Iterator[Row]:
        wanted = []
        for (source, _), record in records.items():
            missing = tuple(target for target in self._targets if target not in record.present)
            if record.rank is not None and missing:
                wanted.append((record, missing))
            self._untranslatable[source] += record.rank is None and bool(missing)
        self._untranslatable = +self._untranslatable
        total = sum(record.texts * len(missing) for record, missing in wanted)
        if not total:
            return
        jobs: list[_Job] = []
        with self._report.bar("Translating", total, "texts") as bar:
            for record, missing in wanted:
                spilled.seek(record.place)
                row = Row(**json.loads(spilled.readline()) | {"negatives": ()})
                sides = [
                    side for side in ("query", "passage") if getattr(row, side) is not None
                ]
                jobs += [_Job(row, side, target) for target in missing for side in sides]
                if len(jobs) >= CHUNK_TEXTS:
                    yield from self._finished(jobs, bar)
                    jobs = []
            yield from self._finished(jobs, bar)

    def _finished(self, jobs: Sequence[_Job], bar: Bar) -> Iterator[Row]:
        """The rows of some jobs; jobs of one row and language must be neighbours."""
        texts: dict[
            tuple[str, str], dict[str, str | None]
        ] = {}  # by source and target language
        for job in jobs:
            texts.setdefault((job.row.language, job.target), {})[job.text] = None
        waiting = Counter((job.row.language, job.target, job.text) for job in jobs)
        for (source, target), found in texts.items():
            for text, translation in self._translate(list(found), source, target):
                found[text] = translation
                bar.advance(waiting[source, target, text])
        rows: dict[tuple[str, str, str], dict[str, Any]] = {}
        for job in jobs:
            row = rows.setdefault(
                (job.row.source, job.row.record_id, job.target), {"row": job.row}
            )
            row[job.side] = self._judged(job, texts[job.row.language, job.target][job.text])
        for (source, record_id, target), made in rows.items():
            query, passage, origin = made.get("query"), made.get("passage"), made["row"]
            if query is not None or passage is not None:
                self._counts[source, origin.language, target]["rows"] += 1
                yield Row(
                    source,
                    record_id,
                    target,
                    query,
                    passage,
                    split=origin.split,
                    translated_from=origin.language,
                )

    def _judged(self, job: _Job, translation: str | None) -> str | None:
        """The translation, or None if it cannot be used."""
        counts = self._counts.setdefault(
            (job.row.source, job.row.language, job.target), Counter()
        )
        counts["texts"] += 1
        cleaned = clean_text(translation) or ""
        found = (
            "unfinished"
            if translation is None
            else fault(job.text, cleaned, job.row.language, job.target)
        )
        counts[found or "kept"] += 1
        if found:
            return None
        counts["language_not_judged"] += identifier().is_wrong(cleaned, job.target) is None
        return cleaned

    def _translate(
        self, texts: Sequence[str], source: str, target: str
    ) -> Iterator[tuple[str, str | None]]:
        """(text, translation or None), each as soon as all its pieces are done.

        Batches depend only on the texts and are stored whole. So a run that continues makes the
        batches of an uninterrupted run, and gets equal translations.
        """
        cut = {text: self._translator.pieces(text, source) for text in texts}
        uses: dict[str, list[str]] = {}  # texts by piece
        for text, pieces in cut.items():
            for piece in dict.fromkeys(piece for piece, _ in pieces):
                uses.setdefault(piece, []).append(text)
        left = Counter(text for texts_of_piece in uses.values() for text in texts_of_piece)
        known: dict[str, str | None] = {}
        unique = list(uses)
        for batch in self._translator.batches(unique, source):
            pieces_ = [unique[number] for number in batch]
            known |= self._batch(pieces_, source, target)
            for piece in pieces_:
                for text in uses[piece]:
                    left[text] -= 1
                    if not left[text]:
                        yield text, _joined(cut[text], known, target)

    def _batch(self, pieces: Sequence[str], source: str, target: str) -> dict[str, str | None]:
        found = self._cache.get(pieces, source, target)
        lacking = [piece for piece in pieces if piece not in found]
        if lacking:
            made = dict(
                zip(lacking, self._translator.translate(lacking, source, target), strict=True)
            )
            self._cache.put(made, source, target)
            found |= made
        return found


def _joined(
    pieces: Sequence[tuple[str, str]], known: Mapping[str, str | None], target: str
) -> str | None:
    """The translation of a text, joined from its pieces; None if a piece has no translation."""
    parts = [known[piece] for piece, _ in pieces]
    whole = [part for part in parts if part is not None]
    if len(whole) < len(parts):
        return None
    return join(whole, [space for _, space in pieces], target)
