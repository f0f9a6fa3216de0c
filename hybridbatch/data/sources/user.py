"""The user's data: a file, or a folder of files, in forms that are recognized automatically.

- long: a row per record and language, with columns for language, query, passage [, record id] [,
  negatives] [, split]; for one language also the training files of sentence-transformers,
  FlagEmbedding, Tevatron and MS MARCO's triples.
- wide: a row per record, with columns ``query_sw``, ``passage_sw``, ``query_en`` ... or JSON
  objects ``{"query": {"sw": ...}, "passage": {"sw": ...}}``.
- translations: ``{"translation": {"sw": ..., "en": ...}}``.
- aligned lines, long: a row per line and language, with columns for language, position, text [,
  document].
- aligned lines, wide: a row per line, with one column per language [and document and position].

Aligned lines have no queries, so `hybridbatch.data.pairs.aligned_text` makes pseudo pairs of them.
It also makes pseudo pairs of parallel text in the forms of OPUS and of translators' tools
(`hybridbatch.data.sources.opus`), unless a folder has tables, too.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import islice
from pathlib import Path

import numpy as np

from hybridbatch.common.errors import ConfigError, DataError
from hybridbatch.common.files import read_json
from hybridbatch.common.progress import SILENT, Reporter
from hybridbatch.common.records import BadRow, Row
from hybridbatch.data.filters.hashes import HashSet
from hybridbatch.data.formats.bitext import find_bitexts
from hybridbatch.data.formats.encodings import AUTO
from hybridbatch.data.formats.own_files import (
    GIVE,
    Table,
    find_files,
    open_tables,
    own_name,
)
from hybridbatch.data.formats.table_forms import (
    AlignedForm,
    Form,
    LongForm,
    TranslationForm,
    WideForm,
)
from hybridbatch.data.formats.tables import Record, RowProblem
from hybridbatch.data.formats.user_tables import NoTexts, form_of
from hybridbatch.data.pairs.aligned_text import Entry, file_rows
from hybridbatch.data.pairs.translated_questions import question_rows
from hybridbatch.data.source import Source, SourceContext
from hybridbatch.data.sources.opus import own_parallel_text

BATCH_ROWS = 8192
FEW = 2  # this many bad records never stop the preparation, however small the file is
SHOWN_REASONS = 3
PairForm = LongForm | WideForm | TranslationForm
_ODD = np.uint64(0x9E3779B97F4A7C15)  # multiplication by an odd number loses no bit


@dataclass(frozen=True)
class OwnData:
    """How to read the user's files.

    Attributes:
        columns: role -> name of the column, as `hybridbatch.data.formats.columns.roles_of` takes
            them.
        language: canonical language of rows in tables that do not state one.
        encoding: encoding of text files; `AUTO`: UTF-8, or the encoding that a file's first bytes
            show.
        max_bad_share: share of a table's records; with more bad records the preparation stops.
    """

    columns: Mapping[str, str] = field(default_factory=dict)
    language: str | None = None
    encoding: str = AUTO
    max_bad_share: float = 1.0


def user_source(path: Path, own: OwnData | None = None) -> Source:
    """The data at `path` as a source with the path's name.

    Raises:
        DataError: Nothing at `path` can be read.
    """
    own = own or OwnData()
    if path.is_dir() and (path / "manifest.json").is_file():
        manifest = read_json(path / "manifest.json")
        if isinstance(manifest, dict) and manifest.get("kind") == "data":
            raise ConfigError(f"{path}: is prepared already; train with --data {path}")
    bitexts = find_bitexts(path.iterdir() if path.is_dir() else [path])
    parallel = {file for bitext in bitexts for file in bitext.files}
    files, passed = find_files(path, parallel)
    if bitexts and not files:
        others = [file for file in passed if file not in parallel]
        return _naming(others, path, own_parallel_text(path, bitexts))
    if not files:
        raise DataError(f"{path}: holds no {GIVE.replace(' or .ods', ' or .ods file')}")
    return _naming(passed, path, _tables_source(path, files, own))


def _naming(passed: Sequence[Path], path: Path, source: Source) -> Source:
    """The source of a folder, which first names the files that are not read."""

    def rows(context: SourceContext) -> Iterator[Row | BadRow]:
        if passed:
            shown = ", ".join(file.name for file in passed[:5])
            more = ", ..." if passed[5:] else ""
            context.report.note(f"{path}: not read: {shown}{more}")
        yield from source.rows(context)

    return replace(source, rows=rows)


def _tables_source(path: Path, files: Sequence[Path], own: OwnData) -> Source:
    name = own_name(path)

    def rows(context: SourceContext) -> Iterator[Row | BadRow]:
        return table_rows(
            name, lambda report: own_tables(files, path, own, report), own, context
        )

    return Source(
        name=name,
        title=f"your own data, {path.name}",
        licence="yours to know",
        url="",
        languages="as its rows say",
        yields="as its form says",
        rows=rows,
        inputs=lambda context: files,
        own=True,
    )


def own_tables(
    files: Iterable[Path], root: Path, own: OwnData, report: Reporter
) -> Iterator[tuple[Table, Form]]:
    """The tables of some files with their forms.

    If one sheet of a workbook fits a form, the sheets that fit no form are left out. If one file
    fits a form, files without texts, such as metadata, are left out. Errors are those of
    `open_tables` and `form_of`.
    """
    without_texts: list[NoTexts] = []
    fits = False
    for file in files:
        tables = open_tables(file, root, own.encoding)
        found: list[tuple[Table, Form]] = []
        problems: list[DataError] = []
        for table in tables:
            try:
                form = form_of(table.name, table.sample, own.columns, own.language)
                found.append((table, form))
            except DataError as error:
                problems.append(error)
        if problems and not found:
            if not isinstance(problems[0], NoTexts):
                raise problems[0]
            without_texts.append(problems[0])
            continue
        for problem in problems:
            report.warn(f"not read: {problem}")
        fits = True
        yield from found
    if without_texts and not fits:
        raise without_texts[0]
    for problem in without_texts:
        report.warn(f"not read: {problem}")


def table_rows(
    source: str,
    tables: Callable[[Reporter], Iterator[tuple[Table, Form]]],
    own: OwnData,
    context: SourceContext,
) -> Iterator[Row | BadRow]:
    """The rows of the user's tables.

    The second and later passages of one question under one record id become separate records, named
    ``id#2`` and so on. The schedule keeps these records out of one batch, because their queries are
    equal.

    Args:
        tables: opens the tables; called again to name the places of two questions under one id.

    Raises:
        DataError: A record occurs twice, or more records are bad than `OwnData.max_bad_share`
            allows.
    """
    places = _Places()
    for table, form in tables(context.report):
        _tell(table, form, context)
        counted = _Counted(table.name, own.max_bad_share)
        if isinstance(form, AlignedForm):
            parse_lines = partial(_entries, form, table)
            yield from file_rows(
                source,
                table.path,
                table.name,
                parse_lines,
                context,
                records=counted.records_of(table.records()),
            )
        else:
            rows = _pairs(form, source, table, context, counted)
            yield from places.numbered(rows, counted)
        counted.check()
    if places.twins:
        _refuse_twins(tables(SILENT), places.twins, context)


def _tell(table: Table, form: Form, context: SourceContext) -> None:
    """Report a table's form, and its unused columns."""
    told = form.about
    if table.split:
        told += f"; its name says {table.split}"
    unused = [column for column in table.sample.columns if column not in form.used]
    if unused:
        told += f"; columns not used: {', '.join(unused)}"
    context.report.note(f"{table.name}: {told}")


class _Counted:
    """Counts the records of a table and the bad ones among them.

    Attributes:
        records: number of records read, good or bad.
        line: number of the last good record.
    """

    def __init__(self, name: str, max_bad_share: float) -> None:
        self.name, self.max_bad_share = name, max_bad_share
        self.records = self.line = 0
        self.reasons: Counter[str] = Counter()
        self.bad_lines: set[int] = set()
        self.first: BadRow | None = None

    def records_of(
        self, records: Iterable[tuple[int, Record] | BadRow]
    ) -> Iterator[tuple[int, Record] | BadRow]:
        """The records themselves, good and bad."""
        for item in records:
            self.records += 1
            if isinstance(item, BadRow):
                self.note(item)
            yield item

    def note(self, bad: BadRow) -> None:
        """Count a bad record once, however many of its rows are bad."""
        if bad.line not in self.bad_lines:
            self.bad_lines.add(bad.line)
            self.reasons[f"{bad.field}: {bad.reason}"] += 1
            self.first = self.first or bad

    def check(self) -> None:
        """Check the share of bad records.

        Raises:
            DataError: Too many records are bad.
        """
        bad = len(self.bad_lines)
        if bad <= FEW or bad <= self.max_bad_share * self.records or self.first is None:
            return
        reasons = [
            f"{count:,} x {reason}" for reason, count in self.reasons.most_common(SHOWN_REASONS)
        ]
        hint = ""
        if any("UTF-8" in reason for reason in self.reasons):
            hint = "name its encoding if it is not UTF-8 (as in --encoding cp1252), "
        raise DataError(
            f"{self.name}: {bad:,} of {self.records:,} records cannot be used"
            f" ({'; '.join(reasons)}; first in line {self.first.line}); {hint}mend the file, or"
            f" leave these records out with --max-bad-share {_rounded_up(bad / self.records)}"
        )


def _rounded_up(share: float) -> str:
    return f"{min(1.0, int(share * 100 + 1) / 100):.2f}"


class _Places:
    """The records seen so far with their languages and questions, in 24 bytes a row."""

    def __init__(self) -> None:
        self.twins: set[int] = set()  # records that occur twice, by hash
        self._records = HashSet()
        # of all rows: hashes of record and query, and of these and the passage; sorted when needed
        self._unsorted: list[np.ndarray] = []
        self._questions, self._rows = HashSet(), HashSet()
        self._further: Counter[int] = Counter()  # further passages of a record, after its first

    def numbered(
        self, rows: Iterable[Row | BadRow], counted: _Counted
    ) -> Iterator[Row | BadRow]:
        """The rows, with further passages of a question renamed; `counted` notes bad rows."""
        rows = iter(rows)
        while batch := list(islice(rows, BATCH_ROWS)):
            good = [row for row in batch if type(row) is Row]
            hashes = (
                [hash((row.record_id, row.language)) for row in good],
                [hash(row.query) for row in good],
                [hash(row.passage) for row in good],
            )
            keys = np.array(hashes, np.int64).view(np.uint64)
            for part in (1, 2):  # of record and query, of these and the passage
                keys[part] ^= keys[part - 1] * _ODD
            again, fresh = _earlier(keys[0], self._records)
            if len(good) < len(batch) or again.any():
                self._rename(batch, counted, keys, again)
            self._unsorted.append(keys[1:])
            self._records.add(fresh)
            yield from batch

    def _rename(
        self,
        batch: list[Row | BadRow],
        counted: _Counted,
        keys: np.ndarray,
        again: np.ndarray,
    ) -> None:
        """Rename the rows of a batch whose record was seen before with an equal question.

        A record seen with another question is noted as a twin, and a bad row is noted as bad.

        Args:
            keys: uint64 [3, rows]: the hashes of each row that is not bad.
            again: bool [rows]: whether the record was seen before.
        """
        places: list[int] = []  # of the rows in the batch
        for place, row in enumerate(batch):
            if isinstance(row, BadRow):
                counted.note(row)
            else:
                places.append(place)
        if not again.any():
            return
        for pairs in self._unsorted:
            for known, hashes in ((self._questions, pairs[0]), (self._rows, pairs[1])):
                known.add(_earlier(hashes, known)[1])
        self._unsorted.clear()
        same_question, _ = _earlier(keys[1], self._questions)
        same_row, _ = _earlier(keys[2], self._rows)
        for at in np.flatnonzero(again).tolist():
            record, row = int(keys[0, at]), batch[places[at]]
            if same_question[at] and not same_row[at] and isinstance(row, Row):
                self._further[record] += 1
                further = f"{row.record_id}#{self._further[record] + 1}"
                batch[places[at]] = row._replace(record_id=further)
            else:
                self.twins.add(record)


def _earlier(keys: np.ndarray, known: HashSet) -> tuple[np.ndarray, np.ndarray]:
    """Which keys (uint64 [n]) are known or occur earlier in `keys`.

    Returns:
        bool [n], and the distinct keys that are not known, sorted.
    """
    in_order = np.sort(keys)
    if (in_order[1:] != in_order[:-1]).all() and not known.contains(in_order).any():
        return np.zeros(len(keys), bool), in_order
    distinct, first, inverse = np.unique(keys, return_index=True, return_inverse=True)
    inverse = inverse.reshape(-1)
    old = known.contains(distinct)
    return old[inverse] | (first[inverse] != np.arange(len(keys))), distinct[~old]


def _unsigned(number: int) -> int:
    """The 64 bits of a number as a number of 0 or more."""
    return number & 0xFFFF_FFFF_FFFF_FFFF


def _refuse_twins(
    tables: Iterable[tuple[Table, Form]], twins: set[int], context: SourceContext
) -> None:
    """Read the rows of these records again to find the places of one that occurs twice.

    Raises:
        DataError: Always; the message names both places.
    """
    places: dict[tuple[str, str], tuple[str, str | None, set[str | None]]] = {}

    for table, form in tables:
        if isinstance(form, AlignedForm):
            continue
        counted = _Counted(table.name, 1.0)
        for row in _pairs(form, "", table, context, counted):
            if (
                not isinstance(row, Row)
                or _unsigned(hash((row.record_id, row.language))) not in twins
            ):
                continue
            here, key = f"{table.name}:{counted.line}", (row.record_id, row.language)
            there, query, passages = places.setdefault(key, (here, row.query, set()))
            if passages and (query != row.query or row.passage in passages):
                raise DataError(
                    f"{here}: record {row.record_id!r} in language {row.language!r} is"
                    f" already at {there}; remove one, or give it another record id"
                )
            passages.add(row.passage)


def _pairs(
    form: PairForm, source: str, table: Table, context: SourceContext, counted: _Counted
) -> Iterator[Row | BadRow]:
    """The rows of a table of questions and answers; `counted` counts its records."""
    default = table.split or "train"
    for item in table.records():
        counted.records += 1
        if isinstance(item, BadRow):
            yield item
            continue
        number, record = item
        counted.line = number
        try:
            if isinstance(form, TranslationForm):
                yield from _translated(form, source, table, context, number, record)
                continue
            for row in form.items(number, record):
                if isinstance(row, RowProblem):
                    yield BadRow(table.name, number, row.field, row.reason)
                    continue
                record_id, language, query, passage, negatives, split = row
                if record_id is None:
                    record_id = f"{table.label}:{number}"
                split = split or default
                yield Row(source, record_id, language, query, passage, negatives, split)
        except RowProblem as problem:
            yield BadRow(table.name, number, problem.field, problem.reason)


def _translated(
    form: TranslationForm,
    source: str,
    table: Table,
    context: SourceContext,
    number: int,
    record: Record,
) -> Iterator[Row | BadRow]:
    texts, part = form.texts(number, record)
    name = f"{table.label}:{number}"
    yield from question_rows(context, source, name, texts, part or table.split or "train")


def _entries(form: AlignedForm, table: Table, number: int, record: Record) -> Iterator[Entry]:
    # Without a document column a file of all languages is a document, and files of one language
    # each are versions of one.
    default = table.label if form.texts else "all"
    for line in form.lines(number, record):
        part = line.split or table.split or "train"
        yield Entry(line.document or default, line.language, line.position, line.text, part)
