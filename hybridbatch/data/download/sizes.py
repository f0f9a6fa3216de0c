"""How much of the files of public data sets is to be downloaded, without downloading them.

The hub and web servers are asked for sizes, which are a few kilobytes. Nobody waits for a server
that does not answer: then the size is unknown.
"""

import re
from collections.abc import Callable, Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple, TypeVar

from hybridbatch.data.download.hub import Repository
from hybridbatch.data.download.web import web_path

ANSWER_SECONDS = 10.0
Result = TypeVar("Result")
# bytes of text in a byte of a packed file, roughly
_UNPACKED = {".gz": 3.0, ".zip": 3.0, ".parquet": 2.0, ".bz2": 4.0, ".xz": 4.0, ".zst": 3.0}


class Size(NamedTuple):
    """Bytes of some files."""

    absent: int  # not on this machine yet
    whole: int
    text: int  # of the texts in them, roughly


NOTHING = Size(0, 0, 0)


class HubFiles(NamedTuple):
    """Files of a repository of the hub, whose paths match a pattern as a whole.

    Attributes:
        roughly: their bytes, for a machine that does not reach the hub.
    """

    repository: Repository
    pattern: str
    roughly: float | None = None

    def size(self) -> Size | None:
        """Their size; None if it is unknown."""
        listed = _listing(self.repository.name, self.repository.revision)
        if listed is None:
            # Files of an earlier download count as all of them.
            kept = [
                Size(0, size, text_bytes(path, size))
                for path, size in _cached(self.repository)
                if re.fullmatch(self.pattern, path)
            ]
            if kept or self.roughly is None:
                return add(kept) if kept else None
            whole = round(self.roughly)
            return Size(whole, whole, text_bytes(self.pattern, whole))
        found = NOTHING
        for path, size in listed:
            if re.fullmatch(self.pattern, path):
                here = _is_cached(self.repository, path)
                found = add([found, Size(0 if here else size, size, text_bytes(path, size))])
        return found


class WebFile(NamedTuple):
    """A file at a plain web address."""

    address: str

    def size(self) -> Size | None:
        """Its size; None if the server does not tell it."""
        kept = web_path(self.address)
        size = kept.stat().st_size if kept.is_file() else _content_length(self.address)
        if size is None:
            return None
        return Size(0 if kept.is_file() else size, size, text_bytes(self.address, size))


class KnownSize(NamedTuple):
    """Files whose size is known in advance."""

    megabytes: float
    here: bool

    def size(self) -> Size:
        """Their size."""
        whole = round(self.megabytes * 1e6)
        return Size(0 if self.here else whole, whole, whole * 3)


Files = HubFiles | WebFile | KnownSize


def add(sizes: Iterable[Size]) -> Size:
    """The sum of sizes."""
    return Size(*(sum(parts) for parts in zip(NOTHING, *sizes, strict=True)))


def size_of(files: Iterable[Files]) -> Size | None:
    """The size of files together; None if one of them is unknown."""
    found = []
    for one in files:
        size = one.size()
        if size is None:
            return None
        found.append(size)
    return add(found)


def text_bytes(path: str, size: int) -> int:
    """Bytes of the texts in a file, roughly."""
    suffix = "." + path.rpartition(".")[2].lower()
    return round(size * _UNPACKED.get(suffix, 1.0))


@cache
def _listing(name: str, revision: str) -> tuple[tuple[str, int], ...] | None:
    """Path and size of every file of a data set on the hub."""

    def ask() -> tuple[tuple[str, int], ...]:
        from huggingface_hub import HfApi

        info = HfApi().dataset_info(
            name, revision=revision, files_metadata=True, timeout=ANSWER_SECONDS
        )
        return tuple((one.rfilename, one.size or 0) for one in info.siblings or ())

    return _answer(ask)


def _is_cached(repository: Repository, path: str) -> bool:
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(
        repository.name, path, revision=repository.revision, repo_type="dataset"
    )
    return isinstance(found, str)


def _cached(repository: Repository) -> Iterator[tuple[str, int]]:
    """Path and size of the files of a repository in the cache of the hub's client."""
    from huggingface_hub.constants import HF_HUB_CACHE

    name = f"datasets--{repository.name.replace('/', '--')}"
    folder = Path(HF_HUB_CACHE) / name / "snapshots" / repository.revision
    for path in folder.rglob("*"):
        if path.is_file():
            yield path.relative_to(folder).as_posix(), path.stat().st_size


@cache
def _content_length(address: str) -> int | None:
    def ask() -> int | None:
        from huggingface_hub import get_session

        answer = get_session().head(address, follow_redirects=True, timeout=ANSWER_SECONDS)
        answer.raise_for_status()
        length = answer.headers.get("Content-Length")
        return int(length) if length else None

    return _answer(ask)


def _answer(ask: Callable[[], Result]) -> Result | None:
    """The result of a question to a server; None if there is none, for whatever reason."""
    from huggingface_hub.errors import HTTPError

    try:
        return ask()
    except (OSError, HTTPError, ValueError, RuntimeError):
        return None
