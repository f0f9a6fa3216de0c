"""Data sets of the hub by their id, ``owner/name`` or ``owner/name:configuration``.

They are read like the user's files. No code of a repository is run. The `datasets` library decides
which files make a configuration and its splits.
"""

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from hybridbatch.common.errors import ConfigError, DataError
from hybridbatch.common.progress import Reporter
from hybridbatch.common.records import BadRow, Row
from hybridbatch.data.download.hub import Repository
from hybridbatch.data.download.sizes import HubFiles
from hybridbatch.data.formats.own_files import (
    Table,
    open_tables,
    own_kind,
    own_name,
    split_in_name,
)
from hybridbatch.data.formats.table_forms import Form
from hybridbatch.data.formats.user_tables import form_of
from hybridbatch.data.source import Source, SourceContext
from hybridbatch.data.sources.user import OwnData, table_rows

_NAME = re.compile(r"([A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*)(?::([\w.+-]+))?")
WHOLE = "default"  # the hub's name for the only configuration of a data set


def hub_name(entry: str) -> re.Match[str] | None:
    """The match of a data set's id, if `entry` can be an id: it is no path and no file's name."""
    return None if own_kind(Path(entry)) else _NAME.fullmatch(entry)


def hub_set(entry: str, own: OwnData) -> Source:
    """The data set of the hub that `entry` names.

    Raises:
        ConfigError: `entry` cannot be a data set.
    """
    match = hub_name(entry)
    if match is None:
        raise ConfigError(f"{entry}: is not the id of a data set on the hub; write owner/name")
    repository, config = Repository(match[1]), match[2]
    name = match[1].partition("/")[2] + (f"-{config}" if config else "")

    def at(context: SourceContext) -> Repository:
        return repository.at(context.revisions.get(name))

    def commit(context: SourceContext) -> str:
        chosen = context.revisions.get(name)
        try:
            return chosen or repository.present_commit()
        except DataError as error:
            raise DataError(
                f"{error} (nor is there a file or folder {entry!r} here)"
            ) from error

    def rows(context: SourceContext) -> Iterator[Row | BadRow]:
        def tables(report: Reporter) -> Iterator[tuple[Table, Form]]:
            yield from _tables(at(context), config, own)

        return table_rows(name, tables, own, context)

    return Source(
        name=name,
        title=f"{match[1]}, a data set of the hub" + (f", {config}" if config else ""),
        licence="as its page says",
        url=repository.url,
        languages="as its rows say",
        yields="as its form says",
        rows=rows,
        revision=repository.revision,
        commit=commit,
        own=True,
        files=lambda context: [HubFiles(at(context), ".*")],
    )


def _tables(
    repository: Repository, config: str | None, own: OwnData
) -> Iterator[tuple[Table, Form]]:
    """The tables of all splits.

    Raises:
        ConfigError: The user must choose a configuration.
        DataError: Files cannot be downloaded or read.
    """
    configs = repository.configs(card=False)
    if config is None and len(configs) > 1 and WHOLE not in configs:
        shown = ", ".join(configs[:20]) + (", ..." if configs[20:] else "")
        raise ConfigError(
            f"{repository.name}: has the configurations {shown}; name one, such as"
            f" {repository.name}:{configs[0]}"
        )
    chosen = config or (WHOLE if WHOLE in configs else configs[0])
    if chosen not in configs:
        raise ConfigError(
            f"{repository.name}: has no configuration {chosen!r}; it has {', '.join(configs[:20])}"
        )
    for split, paths in repository.splits(chosen).items():
        for path in paths:
            if own_kind(Path(path)) is None:
                raise DataError(
                    f"{repository.label(path)}: this kind of file cannot be read here"
                )
            local = repository.file(path)
            for table in open_tables(local, local, own.encoding):
                place = repository.label(path)
                form = form_of(place, table.sample, own.columns, own.language)
                label = f"{Path(path).parent.as_posix()}/{own_name(Path(path))}".removeprefix(
                    "./"
                )
                yield replace(table, split=split_in_name(split), label=label), form
