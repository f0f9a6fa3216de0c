"""Evaluation data in repositories of the hub, read like training sources but strictly.

A bad record is an error.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

from hybridbatch.common.errors import DataError
from hybridbatch.common.records import BadRow
from hybridbatch.data.download.hub import Repository
from hybridbatch.data.formats.tables import Record, RowProblem, headless_records, read_records

T = TypeVar("T")


def local_copy(repository: Repository, data_root: Path | None, path: str) -> Path | None:
    """A file or folder of a local copy of the repository under the data root, if it exists.

    The copy has the name of the repository.
    """
    found = data_root / repository.name.rpartition("/")[2] / path if data_root else None
    return found if found and found.exists() else None


def rows_of(
    repository: Repository,
    data_root: Path | None,
    path: str,
    parse: Callable[[Record], T],
    columns: list[str] | None = None,
) -> Iterator[tuple[str, T]]:
    """(``file:line``, result of `parse`) for each record of a local copy, else of the hub.

    Args:
        columns: the columns of a table without a header.

    Raises:
        DataError: A record is bad, or a file cannot be downloaded or read.
    """
    file, label = (
        local_copy(repository, data_root, path) or repository.file(path),
        repository.label(path),
    )
    for item in (
        headless_records(file, label, columns) if columns else read_records(file, label)
    ):
        if isinstance(item, BadRow):
            raise DataError(
                f"{item.file}:{item.line}: {item.field}: {item.reason}; get the file again"
            )
        number, record = item
        try:
            made = parse(record)
        except RowProblem as problem:
            raise DataError(
                f"{label}:{number}: {problem.field}: {problem}; get the file again"
            ) from problem
        yield f"{label}:{number}", made
