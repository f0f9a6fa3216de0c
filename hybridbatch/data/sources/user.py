"""The user's own parallel data: a file, or a folder of files, in one of four forms that are told
apart by themselves.

- long: a row per record and language, with columns for record id, language, query, passage [,
negatives] [, split];
- wide: a row per record, with columns ``query_sw``, ``passage_sw``, ``query_en`` ... or JSON
objects
  ``{"query": {"sw": ...}, "passage": {"sw": ...}}``;
- aligned lines, long: a row per line and language, with columns for language, position, text [,
document];
- aligned lines, wide: a row per line, with one column per language [and document and position].

The last two have no queries: pseudo pairs are made as `hybridbatch.data.pairs.aligned_text` says.
So they are of parallel text in the forms of OPUS and of translators' tools
(`hybridbatch.data.sources.opus`).
"""

from array import array
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np

from hybridbatch.common.errors import DataError
from hybridbatch.common.records import BadRow, Row
from hybridbatch.data.formats.tables import (
    UNKNOWN_KIND,
    Record,
    RowProblem,
    bare_name,
    convert,
    kind,
)
from hybridbatch.data.formats.user_tables import AlignedForm, LongForm, WideForm, detect
from hybridbatch.data.pairs.aligned_text import Entry, file_rows
from hybridbatch.data.source import Source, SourceContext
from hybridbatch.data.sources.opus import own_parallel_text


def user_source(path: Path) -> Source:
    """The data at `path` as a source named like it. Raises `DataError` if there is nothing that can
    be read.
    """
    parallel = own_parallel_text(path) if path.exists() else None
    if parallel:
        return parallel
    files = _files(path)
    name = bare_name(path) if path.is_file() else path.resolve().name
    return Source(
        name=name,
        title=f"your own data, {path.name}",
        licence="yours to know",
        url="",
        languages="as its rows say",
        yields="as its form says",
        rows=lambda context: _rows(name, files, context),
        inputs=lambda context: files,
    )


def _files(path: Path) -> list[Path]:
    if path.is_dir():
        files = sorted(file for file in path.iterdir() if file.is_file() and kind(file))
        if not files:
            raise DataError(
                f"{path}: holds no .jsonl, .tsv, .csv (also .gz, .zst) or .parquet file"
            )
        return files
    if not path.exists():
        raise DataError(f"{path}: no such file or folder")
    if kind(path) is None:
        raise DataError(f"{path}: {UNKNOWN_KIND}")
    return [path]


def _rows(source: str, files: list[Path], context: SourceContext) -> Iterator[Row | BadRow]:
    # hash of record id and language of every row: eight bytes each, whatever the rows hold
    seen = array("q")
    for path in files:
        form = detect(path)
        context.report.note(f"{path}: {form.about}")
        if isinstance(form, AlignedForm):
            parse_lines = partial(_entries, form, path)
            yield from file_rows(source, path, str(path), parse_lines, context)
        else:
            for row in convert(path, str(path), partial(_pairs, form, source, path)):
                if isinstance(row, Row):
                    seen.append(hash((row.record_id, row.language)))
                yield row
    hashes = np.frombuffer(seen, np.int64)
    hashes.sort()
    twice = hashes[1:][hashes[1:] == hashes[:-1]]
    if len(twice):
        _refuse_twins(files, set(twice.tolist()))


def _refuse_twins(files: list[Path], hashes: set[int]) -> None:
    """Read again, now for rows of these hashes alone; raises `DataError` naming both places of one
    that is there twice.
    """
    places: dict[tuple[str, str], str] = {}

    def look(
        form: LongForm | WideForm, path: Path, number: int, record: Record
    ) -> Iterator[Row | BadRow]:
        for row in _pairs(form, "", path, number, record):
            if isinstance(row, Row) and hash((row.record_id, row.language)) in hashes:
                here = f"{path}:{number}"
                twin = places.setdefault((row.record_id, row.language), here)
                if twin != here:
                    raise DataError(
                        f"{here}: record {row.record_id!r} in language {row.language!r} is already"
                        f" at {twin};"
                        " remove one, or give it another record id"
                    )
            yield row

    for path in files:
        form = detect(path)
        if not isinstance(form, AlignedForm):
            for _ in convert(path, str(path), partial(look, form, path)):
                pass


def _pairs(
    form: LongForm | WideForm, source: str, path: Path, number: int, record: Record
) -> Iterator[Row | BadRow]:
    for item in form.items(number, record):
        if isinstance(item, RowProblem):
            yield BadRow(str(path), number, item.field, item.reason)
            continue
        record_id = item.record_id or f"{bare_name(path)}:{number}"
        yield Row(
            source, record_id, item.language, item.query, item.passage, item.negatives, item.split
        )


def _entries(form: AlignedForm, path: Path, number: int, record: Record) -> Iterator[Entry]:
    # Without a document column a file of all languages is a document, and files of one language
    # each are versions of one.
    default = bare_name(path) if form.texts else "all"
    for line in form.lines(number, record):
        yield Entry(line.document or default, line.language, line.position, line.text, line.split)
