"""Which records and languages of the sources `prepare` keeps."""

import re
from collections.abc import Collection, Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from heapq import heappush, heapreplace

from hybridbatch.common.errors import DataError
from hybridbatch.common.languages import canonical, known_languages, resolve
from hybridbatch.common.progress import SILENT
from hybridbatch.common.records import BadRow, Row
from hybridbatch.data.filters.decontamination import Findings, LeakFinder, watched
from hybridbatch.data.source import Source, SourceContext
from hybridbatch.data.stages import Stage

LEAST_RECORDS = 200  # of a source that `record_share` keeps


class LanguageFilter:
    """The languages that a spec selects, while the languages of the data are not yet known.

    They are known only after all rows have been read.
    """

    def __init__(self, spec: str) -> None:
        """Parse the spec.

        Raises:
            ConfigError: A term of `spec` is unknown, or no language can match it.
        """
        self.spec = spec
        self.met: dict[str, None] = {}  # languages seen so far, in order
        self._known = dict.fromkeys((*known_languages(), *_named_languages(spec)))
        self._wanted = set(resolve(spec, self._known))

    def __call__(self, language: str) -> bool:
        """Whether rows of a canonical language are wanted."""
        self.met[language] = None
        if language not in self._known:  # a language in an unusual script
            self._known[language] = None
            self._wanted = set(resolve(self.spec, self._known))
        return language in self._wanted

    def check(self) -> None:
        """Check the spec after all rows have been read.

        Raises:
            ConfigError: The data lacks a language that the spec names, or all of its languages.
        """
        if self.met:
            resolve(self.spec, self.met)


def _named_languages(spec: str) -> Iterator[str]:
    for term in re.split("[,&]", spec):
        try:
            yield canonical(term.strip().removeprefix("-"))
        except DataError:  # a group, or a mistake that `resolve` will report
            continue


def sample_records(
    rows: Iterable[Row | BadRow], limit: int, context: SourceContext
) -> set[str]:
    """Ids of at most `limit` records, by the order of a hash.

    The records of a smaller limit are among those of a larger limit.
    """
    kept: set[str] = set()
    worst_first: list[tuple[float, str]] = []  # a heap of (-chance, record id)
    for row in rows:
        if isinstance(row, BadRow) or row.record_id in kept or not context.keeps(row.language):
            continue
        candidate = (-context.chance("limit", row.source, row.record_id), row.record_id)
        if len(kept) < limit:
            heappush(worst_first, candidate)
        elif candidate > worst_first[0]:
            kept.remove(heapreplace(worst_first, candidate)[1])
        else:
            continue
        kept.add(row.record_id)
    return kept


@dataclass(frozen=True)
class Selection:
    """Which records and languages of the sources are wanted.

    Attributes:
        limit, share: see `PrepareConfig.limit` and `PrepareConfig.record_share`.
        keeps: the wanted languages of every source.
        single: the wanted languages of single sources, by their names.
    """

    limit: int | None
    share: float
    keeps: LanguageFilter
    single: Mapping[str, LanguageFilter]

    def context(self, one: Source, context: SourceContext) -> SourceContext:
        """The context of a source, whose languages are those wanted of this source."""
        narrow = self.single.get(one.name)
        if narrow is None:
            return replace(context, keeps=self.keeps)

        def keeps(language: str) -> bool:
            # Both filters are asked, because each also notes the languages that the data has.
            wanted, narrowly = self.keeps(language), narrow(language)
            return wanted and narrowly

        return replace(context, keeps=keeps)

    def records(self, one: Source, context: SourceContext) -> Container[str] | None:
        """The ids of the wanted records; None for all records."""
        if self.limit is None and self.share == 1:
            return None
        silent = replace(context, report=SILENT)
        if self.limit is not None:
            return sample_records(one.rows(silent), self.limit, context)
        least = sample_records(one.rows(silent), LEAST_RECORDS, context)
        return Drawn(least, self.share, one.name, context)

    def check(self) -> None:
        """Raise `ConfigError` if the data lacks a language that a filter names."""
        for keeps in (self.keeps, *self.single.values()):
            keeps.check()


@dataclass(frozen=True)
class Drawn:
    """The ids of a share of the records of a source, as a container."""

    least: Collection[str]  # ids that are in it, whatever the share
    share: float
    source: str
    context: SourceContext

    def __contains__(self, record_id: object) -> bool:
        """Whether a record is in the share."""
        if record_id in self.least:
            return True
        return self.context.chance("limit", self.source, str(record_id)) < self.share


def selected_rows(
    chosen: Sequence[Source],
    selection: Selection,
    context: SourceContext,
    leak_finder: LeakFinder | None,
    found: Findings,
    stages: Iterable[Stage] = (),
) -> Iterator[Row | BadRow]:
    """The rows of all sources in the wanted languages, of the wanted records.

    The leaks of the rows are added to `found`. Errors of the sources pass through.

    Raises:
        ConfigError: No source has a named language; raised at the end.
    """
    with context.report.bar("Reading sources", total=len(chosen), unit="sources") as bar:
        for one in chosen:
            rows = source_rows(one, selection, context)
            for stage in stages:
                rows = stage.rows(rows)
            yield from watched(rows, leak_finder, found) if leak_finder else rows
            bar.advance()
    selection.check()


def source_rows(
    one: Source, selection: Selection, context: SourceContext
) -> Iterator[Row | BadRow]:
    """The wanted rows of one source."""
    context = selection.context(one, context)
    kept = selection.records(one, context)
    for row in one.rows(context):
        if isinstance(row, BadRow) or (
            context.keeps(row.language) and (kept is None or row.record_id in kept)
        ):
            yield row
