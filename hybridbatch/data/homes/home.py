"""Where a data set is public, and how it gets from there into the cache folder.

A home is one or more repositories of GitHub at fixed commits. A builder reads their files in the
authors' layout, and writes our files: JSON Lines. The result is compared with a checksum of all its
texts. So the data is equal on every machine, for downloaded files and for clones.
"""

import gzip
import hashlib
import json
import re
import tarfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar
from urllib.parse import quote

from hybridbatch.common.errors import DataError, first_line
from hybridbatch.common.files import atomic_folder, cache_folder
from hybridbatch.data.download.web import web_file
from hybridbatch.data.formats.json_files import json_type
from hybridbatch.data.formats.tables import spaced

RAW = "https://raw.githubusercontent.com"
ARCHIVES = "https://codeload.github.com"
BUILDER_VERSION = (
    1  # part of the cached folder's name: raise it when the written content changes
)
T = TypeVar("T")
# What a builder raises for content that it does not expect.
UNEXPECTED = (
    LookupError,
    ValueError,
    TypeError,
    AttributeError,
    ArithmeticError,
    RecursionError,
)


@dataclass(frozen=True)
class Repository:
    """A repository of GitHub at a commit.

    Attributes:
        name: ``owner/name``.
        marker: a file or folder by which a clone is recognized.
        whole: whether it is downloaded as one archive, because very many of its files are read.
    """

    name: str
    commit: str
    marker: str
    whole: bool = False

    @property
    def url(self) -> str:
        """The address for people."""
        return f"https://github.com/{self.name}"

    @property
    def archive(self) -> str:
        """The address of an archive of all files."""
        return f"{ARCHIVES}/{self.name}/tar.gz/{self.commit}"

    def address(self, path: str) -> str:
        """The address of one file."""
        return f"{RAW}/{self.name}/{self.commit}/{quote(path)}"

    def clone(self, data_root: Path | None, folder: str) -> Path | None:
        """A clone under the data root, if there is one.

        The clone is named as the repository or as `folder`, or is the data root itself. The latter
        has also the readme or the history of a repository, because markers can be common names.
        """
        if data_root is None:
            return None
        name = self.name.rpartition("/")[2]
        places = [data_root / name, data_root / name.lower(), data_root / folder]
        if (data_root / "README.md").is_file() or (data_root / ".git").exists():
            places.append(data_root)
        for place in places:
            if (place / self.marker).exists():
                return place
        return None


@dataclass
class Reading:
    """What a builder reads at the moment, for messages.

    Attributes:
        path: the file.
        part: the place in it, such as ``:12`` for a line.
    """

    path: Path | None = None
    part: str = ""


@dataclass(frozen=True)
class Files:
    """The files of a repository, from a clone or from the web.

    Builders trust the content. `Home.obtain` says where content is not as expected.
    """

    repository: Repository
    clone: Path | None = None
    reading: Reading = field(default_factory=Reading)

    def path(self, name: str) -> Path:
        """The local path of a file.

        Raises:
            DataError: The file cannot be downloaded.
        """
        path = self._fetched(name)
        self.reading.path, self.reading.part = path, ""
        return path

    def _fetched(self, name: str) -> Path:
        if self.clone is None:
            return self._download(self.repository.address(name))
        path = self.clone / name
        if not path.is_file():
            raise DataError(
                f"{path}: does not exist; {self.clone} is not a complete clone of"
                f" {self.repository.url} at {self.repository.commit[:12]}"
            )
        return path

    def _download(self, address: str) -> Path:
        try:
            return web_file(address)
        except DataError as error:
            raise DataError(
                f"{error}. Or clone {self.repository.url}, check out"
                f" {self.repository.commit}, and name the folder that holds the clone with"
                " --data-root"
            ) from error

    def text(self, name: str) -> str:
        """The text of a file.

        Raises:
            DataError: The file cannot be downloaded.
            ValueError: It is not UTF-8.
        """
        return self.path(name).read_text(encoding="utf-8")

    def lines(self, name: str) -> list[str]:
        """The lines of a file, without line ends."""
        return self.text(name).removesuffix("\n").split("\n")

    def numbered(self, values: Iterable[T], what: str | None = None) -> Iterator[T]:
        """The values one after the other; an error names the number of the value it is about.

        Args:
            values: the lines of the file that was read last, or parts of it.
            what: the name of a part.
        """
        whole = self.reading.part
        for number, value in enumerate(values, 1):
            place = f":{number}" if what is None else f": {what} {number}"
            self.reading.part = whole + place
            yield value
        self.reading.part = whole

    def records(self, name: str) -> Iterator[dict[str, Any]]:
        """The objects of a JSON Lines file.

        Raises:
            ValueError: A line is malformed.
        """
        for line in self.numbered(self.lines(name)):
            if line.strip():
                yield json.loads(line)

    def json(self, name: str) -> Any:
        """The content of a JSON file.

        Raises:
            ValueError: The file is malformed.
        """
        return json.loads(self.text(name))

    def matching(self, pattern: str) -> Iterator[tuple[str, str]]:
        """(path, text) of all files whose whole path matches `pattern`, sorted by path."""
        wanted = re.compile(pattern)
        found: dict[str, bytes] = {}
        archive: Path | None = None
        if self.clone is not None:
            for path in self.clone.rglob("*"):
                name = path.relative_to(self.clone).as_posix()
                if wanted.fullmatch(name) and path.is_file():
                    found[name] = path.read_bytes()
        else:
            archive = self._download(self.repository.archive)
            found = _members(archive, wanted)
        for name in sorted(found):
            if archive is not None:
                self.reading.path, self.reading.part = archive, f" ({name})"
            elif self.clone is not None:
                self.reading.path, self.reading.part = self.clone / name, ""
            yield name, found[name].decode("utf-8")


def _members(path: Path, wanted: re.Pattern[str]) -> dict[str, bytes]:
    """The wanted files of a GitHub archive, whose files all lie in one folder.

    Nothing is unpacked.
    """
    found: dict[str, bytes] = {}
    try:
        with tarfile.open(path, "r:gz") as archive:
            for member in archive:
                name = str(PurePosixPath(*PurePosixPath(member.name).parts[1:]))
                if member.isfile() and wanted.fullmatch(name):
                    content = archive.extractfile(member)
                    found[name] = content.read() if content else b""
    except (tarfile.TarError, EOFError, zlib.error, OSError) as error:
        raise DataError(
            f"{path}: cannot be read as an archive ({error}); delete it and run the command again"
        ) from error
    return found


# One `Files` for each repository of the home, in order, and the folder to write into.
Build = Callable[..., None]


@dataclass(frozen=True)
class Home:
    """A public data set that our files are built from.

    Attributes:
        folder: folder of our files, under a data root and in the cache.
        megabytes: size of the download.
        sha256: hash of the texts that `build` writes (`content_hash`).
        build: function of the files of each repository, in order, and the folder; it writes our
            files.
    """

    folder: str
    repositories: tuple[Repository, ...]
    licence: str
    megabytes: float
    sha256: str
    build: Build

    @property
    def origin(self) -> str:
        """Repositories and commits, for people."""
        return "; ".join(f"github.com/{one.name} @ {one.commit}" for one in self.repositories)

    @property
    def kept(self) -> Path:
        """The folder of the files after they are built."""
        commits = [self.sha256, *(repository.commit for repository in self.repositories)]
        key = hashlib.sha256("\0".join(commits).encode()).hexdigest()[:16]
        return cache_folder() / "sources" / f"{self.folder}-{key}-v{BUILDER_VERSION}"

    def built(self) -> Path | None:
        """The folder of our files, if they are built."""
        return self.kept if self.kept.is_dir() else None

    def cloned(self, data_root: Path | None) -> bool:
        """Whether all repositories of the home lie under the data root as clones."""
        return all(one.clone(data_root, self.folder) for one in self.repositories)

    def obtain(self, data_root: Path | None = None) -> Path:
        """The folder of our files: already built, else built from clones, else from downloads.

        Raises:
            DataError: A file cannot be downloaded or has unexpected content.
            OutputError: The folder cannot be written.
        """
        target = self.kept
        if target.is_dir():
            return target
        sources: list[Files] = []
        reading = Reading()
        for repository in self.repositories:
            clone = repository.clone(data_root, self.folder)
            sources.append(Files(repository, clone, reading))
        with atomic_folder(target) as temporary:
            try:
                self.build(*sources, temporary)
            except UNEXPECTED as error:
                raise DataError(self._unexpected(sources, error)) from error
            found = content_hash(temporary)
            if found != self.sha256:
                raise DataError(self._other_content(sources, found))
        return target

    def _unexpected(self, sources: Iterable[Files], error: Exception) -> str:
        reading = next(one.reading for one in sources)
        mend = f"delete {reading.path} and run the command again"
        for one in sources:
            if one.clone and reading.path and reading.path.is_relative_to(one.clone):
                mend = (
                    f"bring {one.clone} to its commit (git checkout -f {one.repository.commit})"
                )
        return f"{reading.path or self.folder}{reading.part}: {_reason(error)}; {mend}"

    def _other_content(self, sources: Iterable[Files], found: str) -> str:
        clones = [
            f"{one.clone} (git checkout {one.repository.commit})"
            for one in sources
            if one.clone
        ]
        mend = (
            f"bring the clones to their commits: {', '.join(clones)}"
            if clones
            else "delete its files in the cache's folder downloads, and run the command again"
        )
        return (
            f"{self.folder}: what was made of {self.origin} is not what was expected (sha256"
            f" {found[:12]}, not {self.sha256[:12]}); {mend}"
        )

    def whereabouts(self, data_root: Path | None = None) -> str:
        """Where the data is, for people: on this machine, in clones, or to download."""
        if self.built():
            return "here"
        if self.cloned(data_root):
            return "here, as a clone"
        return f"to download: {self.megabytes:g} MB"


def _reason(error: Exception) -> str:
    if isinstance(error, KeyError):
        return f"has no {error}"
    if isinstance(error, UnicodeDecodeError):
        return f"is not valid UTF-8 at byte {error.start}"
    if isinstance(error, json.JSONDecodeError):
        return f"malformed JSON ({error})"
    return f"does not have the expected form ({first_line(error)})"


def said(record: Mapping[str, Any], name: str) -> str:
    """The text of a field, with single blanks.

    Raises:
        KeyError: The field is missing.
        ValueError: It is not text.
    """
    value = record[name]
    if not isinstance(value, str):
        raise ValueError(f"{name} must be text, not {json_type(value)}")
    return spaced(value)


def content_hash(folder: Path) -> str:
    """Hex sha256 of the names and unpacked contents of all files in a folder, sorted by name."""
    digest = hashlib.sha256()
    for path in sorted(folder.iterdir()):
        digest.update(path.name.encode() + b"\0")
        with gzip.open(path, "rb") as file:
            digest.update(file.read())
        digest.update(b"\0")
    return digest.hexdigest()


def write(path: Path, records: Iterable[Mapping[str, Any]]) -> None:
    """Write packed JSON Lines; the bytes depend only on the records."""
    with path.open("wb") as raw, gzip.GzipFile("", "wb", fileobj=raw, mtime=0) as file:
        for record in records:
            file.write(json.dumps(record, ensure_ascii=False).encode() + b"\n")


def short_hash(text: str) -> str:
    """Ten hex digits that represent a text in ids."""
    return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()[:10]
