"""Files of public data sets in repositories of the Hugging Face hub.

No code of a repository is run. If a repository is a table that the `datasets` library knows without
a script, that library decides which files make a configuration (`Repository.config`). If its loader
is a script, the source names the files itself. The hub's client fetches whole files once into its
cache ($HF_HOME). The files are then read record by record (`hybridbatch.data.formats.tables`). So
memory stays small, and a bad record is reported by its line.
"""

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from hybridbatch.common.errors import DataError
from hybridbatch.common.records import BadRow, Row
from hybridbatch.data.download.failures import fetch
from hybridbatch.data.formats.tables import Record, convert

_COMMIT = re.compile("[0-9a-f]{40}")
_HF_FILE = re.compile(r"hf://datasets/([^/@]+/[^/@]+)@[^/]+/(.+)")
Parse = Callable[[str, Record], Iterable[Row | BadRow]]


@dataclass(frozen=True)
class Repository:
    """A data set repository of the hub.

    Attributes:
        name: ``organisation/name``.
        revision: a commit, or a branch where no commit is known from public material.
    """

    name: str
    revision: str = "main"

    @property
    def url(self) -> str:
        """The address for people."""
        return f"https://huggingface.co/datasets/{self.name}"

    def at(self, commit: str | None) -> "Repository":
        """This repository at a commit; None leaves the revision unchanged."""
        return replace(self, revision=commit) if commit else self

    def commit(self) -> str:
        """The commit of the revision; for a branch, its present commit.

        Errors are those of `file`.
        """
        (readme,) = self.inputs() or (Path(self.revision, "README.md"),)
        return readme.parent.name

    def inputs(self) -> list[Path]:
        """The result for a source's `inputs`.

        For a branch it is a file whose path in the hub's cache contains the commit.
        """
        return [] if _COMMIT.fullmatch(self.revision) else [self.file("README.md")]

    def file(self, path: str) -> Path:
        """The local copy of a file, downloaded if it does not exist yet.

        Raises:
            DataError: The file cannot be downloaded.
            OutputError: The file cannot be stored.
        """
        from huggingface_hub import hf_hub_download

        def download() -> Path:
            return Path(
                hf_hub_download(self.name, path, repo_type="dataset", revision=self.revision)
            )

        return fetch(download, f"{self.name}@{self.revision}: {path}")

    def folder(self, path: str) -> list[str]:
        """The paths of the files in a folder, sorted by name and number.

        Errors are those of `file`.
        """
        from huggingface_hub import HfApi

        def ask() -> list[str]:
            tree = HfApi().list_repo_tree(
                self.name, path, repo_type="dataset", revision=self.revision
            )
            return sorted(
                (entry.path for entry in tree if hasattr(entry, "size")), key=_by_number
            )

        return fetch(ask, f"{self.name}@{self.revision}: {path}")

    def config(self, name: str, split: str = "train") -> list[str]:
        """The paths of the files of a split of a configuration, in the order of `datasets`.

        Errors are those of `file`.
        """

        def ask() -> list[str]:
            from datasets import load_dataset_builder

            builder = load_dataset_builder(self.name, name, revision=self.revision)
            return [
                _path_in(address)
                for address in (builder.config.data_files or {}).get(split, [])
            ]

        where = f"{self.name}@{self.revision}: configuration {name!r}"
        self._check()
        found = fetch(ask, where)
        if not found:
            raise DataError(
                f"{where} has no split {split!r}; {self.url} has changed since this version"
                " of hybridbatch"
            )
        return found

    def splits(self, name: str) -> dict[str, list[str]]:
        """The paths of the files of every split of a configuration; errors are those of `file`."""

        def ask() -> dict[str, list[str]]:
            from datasets import load_dataset_builder

            builder = load_dataset_builder(self.name, name, revision=self.revision)
            found: dict[str, list[str]] = {}
            for split, addresses in (builder.config.data_files or {}).items():
                found[str(split)] = [_path_in(address) for address in addresses]
            return found

        return fetch(ask, f"{self.name}@{self.revision}: configuration {name!r}")

    def present_commit(self) -> str:
        """The present commit of the revision; errors are those of `file`."""
        from huggingface_hub import HfApi

        def ask() -> str:
            found = HfApi().dataset_info(self.name, revision=self.revision).sha
            if not found:
                raise DataError(
                    f"{self.name}@{self.revision}: the hub reports no commit for this revision"
                )
            return found

        return fetch(ask, f"{self.name}@{self.revision}")

    def configs(self, *, card: bool = True) -> list[str]:
        """The names of all configurations.

        Errors are those of `file`.

        Args:
            card: whether the repository has a card (README.md), as all repositories of sources do.
        """

        def ask() -> list[str]:
            from datasets import get_dataset_config_names

            return get_dataset_config_names(self.name, revision=self.revision)

        if card:
            self._check()
        return fetch(ask, f"{self.name}@{self.revision}")

    def _check(self) -> None:
        """Check that repository and revision exist, with a clearer error than that of `datasets`.

        `datasets` needs the card anyway. Errors are those of `file`.
        """
        self.file("README.md")

    def label(self, path: str) -> str:
        """The name of a file in bad rows; it is equal on every machine."""
        return f"{self.name}/{path}"

    def read(self, paths: Iterable[str], parse: Parse) -> Iterator[Row | BadRow]:
        """The rows of several files.

        Args:
            parse: makes rows of (place, record), where place is ``number of file:line``, unique in
                the table; may raise `RowProblem`.

        Raises:
            DataError: A file cannot be downloaded or read (see `file` and `read_records`).
            OutputError: A file cannot be stored.
        """
        for number, path in enumerate(paths):
            yield from convert(self.file(path), self.label(path), _placed(parse, number))


def _placed(parse: Parse, file: int) -> Callable[[int, Record], Iterable[Row | BadRow]]:
    return lambda number, record: parse(f"{file}:{number}", record)


def _path_in(address: str) -> str:
    match = _HF_FILE.fullmatch(address)
    if match is None:
        raise DataError(
            f"{address}: the data file lies outside of the repository; this source cannot be"
            " read as it is"
        )
    return match[2]


def _by_number(path: str) -> list[tuple[bool, int, str]]:
    """Sorts docs-2 before docs-10."""
    return [
        (part.isdigit(), int(part) if part.isdigit() else 0, part)
        for part in re.split(r"(\d+)", path)
    ]
