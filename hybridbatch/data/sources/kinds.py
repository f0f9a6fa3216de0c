"""Kinds of sources: from a hub repository, from retrieval files, from aligned tables."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from hybridbatch.common.records import BadRow, Row, Split
from hybridbatch.data.download.hub import _COMMIT, Repository
from hybridbatch.data.download.sizes import HubFiles
from hybridbatch.data.formats.retrieval_sets import question_rows
from hybridbatch.data.formats.tables import (
    Record,
    identifier,
    known_language,
    language,
    position,
    text,
)
from hybridbatch.data.pairs.aligned_text import Entry, file_rows
from hybridbatch.data.source import Source, SourceContext
from hybridbatch.data.sources.local_copies import home_files, local_files


def table_source(
    name: str,
    title: str,
    licence: str,
    url: str,
    revision: str,
    languages: str,
    size: str,
    yields: str,
) -> Source:
    """A source of aligned tables: one JSON Lines file per language, {id, lang, doc, pos, text}."""

    def inputs(context: SourceContext) -> list[Path]:
        return local_files(context, name, ["*.jsonl.gz"], f"{url} at {revision} ({licence})")

    def rows(context: SourceContext) -> Iterator[Row | BadRow]:
        for path in inputs(context):
            yield from file_rows(name, path, f"{name}/{path.name}", _table_entry, context)

    return Source(
        name,
        title,
        licence,
        url,
        languages,
        yields,
        rows,
        revision,
        inputs,
        size,
        files=partial(home_files, name),
    )


def _table_entry(number: int, record: Record) -> Iterator[Entry]:
    yield Entry(
        identifier(record, "doc"),
        language(record, "lang"),
        position(record, "pos"),
        text(record, "text"),
    )


def wanted(context: SourceContext, codes: Iterable[str]) -> list[tuple[str, str]]:
    """(code, canonical language) of the data set's codes whose languages are wanted."""
    pairs = [(code, known_language(code, "language")) for code in codes]
    return [(code, language) for code, language in pairs if context.keeps(language)]


def hub_source(
    repository: Repository,
    *,
    name: str,
    rows: Callable[[SourceContext], Iterator[Row | BadRow]],
    files: Callable[[SourceContext], Iterable[str | HubFiles]],
    stored: float = 1.0,
    **about: Any,
) -> Source:
    """A source whose rows come from one repository.

    If the repository names a branch, `rows` must read it at the commit of
    `SourceContext.revisions`.

    Args:
        files: patterns of the paths of the files that `rows` reads, and files of other
            repositories; see `Source.files`.
        stored: see `Source.stored`.
        about: title, licence, languages, size and yields; see `Source`.
    """

    def at(context: SourceContext) -> Repository:
        return repository.at(context.revisions.get(name))

    commit = (
        None if _COMMIT.fullmatch(repository.revision) else lambda context: at(context).commit()
    )
    return Source(
        name=name,
        url=repository.url,
        revision=repository.revision,
        rows=rows,
        inputs=lambda context: at(context).inputs(),
        files=lambda context: [_in(at(context), one) for one in files(context)],
        stored=stored,
        commit=commit,
        **about,
    )


def _in(repository: Repository, files: str | HubFiles) -> HubFiles:
    return HubFiles(repository, files) if isinstance(files, str) else files


def retrieval_source(
    name: str,
    folder: str,
    parts: Mapping[str, Split],
    *,
    title: str,
    licence: str,
    origin: tuple[str, str],
    languages: str,
    size: str,
) -> Source:
    """A source of questions with the passages that answer them, both in one language.

    Args:
        folder: the data set's folder under the data root.
        parts: the parts of its files (languages, splits or domains), with the split of each part.
        origin: address and revision of its public home.
    """
    url, revision = origin

    def inputs(context: SourceContext) -> list[Path]:
        patterns = [
            f"{kind}.{part}.jsonl.gz"
            for part in parts
            for kind in ("corpus", "qrels", "queries")
        ]
        return local_files(context, folder, patterns, f"{url} at {revision} ({licence})")

    def rows(context: SourceContext) -> Iterator[Row | BadRow]:
        files = inputs(context)
        for corpus, qrels, queries, split in zip(
            files[::3], files[1::3], files[2::3], parts.values(), strict=True
        ):
            yield from question_rows(name, corpus, qrels, queries, split)

    return Source(
        name,
        title,
        licence,
        url,
        languages,
        "question -> passage",
        rows,
        revision,
        inputs,
        size,
        files=partial(home_files, folder),
    )
