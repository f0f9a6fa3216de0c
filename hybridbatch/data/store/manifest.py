"""The shape of ``manifest.json``, which the readers of prepared data rely on."""

from typing import ClassVar, Literal

from pydantic import Field

from hybridbatch.common.documents import Shape
from hybridbatch.common.records import Split

SCHEMA_VERSION = 1


class FileEntry(Shape):
    """A file of prepared data, as the manifest names it."""

    # within the folder; no part of a path begins with a dot
    file: str = Field(pattern=r"^\w[\w.-]*(/\w[\w.-]*)*$")
    bytes: int = Field(ge=0)
    sha256: str = Field(pattern="^[0-9a-f]{64}$")


class ShardEntry(FileEntry):
    """A file of rows."""

    split: Split
    rows: int = Field(ge=0)


class SumsEntry(Shape):
    """The file of checksums."""

    file: Literal["checksums"]
    block: int = Field(gt=0)
    xxh3: str = Field(pattern="^[0-9a-f]{16}$")


class SplitCounts(Shape):
    """The contents of a split."""

    records: int = Field(ge=0)
    rows: int = Field(ge=0)
    groups: int = Field(ge=0)
    counts: dict[str, dict[str, int]]


class BadRowEntry(Shape):
    """A row that was left out."""

    file: str
    line: int
    field: str
    reason: str


class Dropped(Shape):
    """The rows that were left out."""

    rows: int = Field(ge=0)
    reasons: dict[str, int]
    examples: list[BadRowEntry]


class SourceEntry(Shape):
    """A source of the rows."""

    name: str


class Provenance(Shape):
    """The origin of the rows."""

    sources: list[SourceEntry] = Field(default_factory=list)


class Manifest(Shape):
    """``manifest.json`` of prepared data."""

    kind_name: ClassVar[str] = "data"
    versions: ClassVar[tuple[int, ...]] = (SCHEMA_VERSION,)
    what: ClassVar[str] = "manifest of prepared data"

    hybridbatch: str = "unknown"  # the version that prepared it
    fingerprint: str = Field(pattern="^[0-9a-f]{64}$")
    sources: list[str]
    languages: list[str]
    licences: dict[str, str | None] = Field(default_factory=dict)
    provenance: Provenance
    splits: dict[Split, SplitCounts] = Field(min_length=1)
    dropped: Dropped
    shards: list[ShardEntry]
    index: list[FileEntry]
    checksums: SumsEntry | None = None
