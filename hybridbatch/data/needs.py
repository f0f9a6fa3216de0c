"""What `prepare` will download and write, told before it does."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hybridbatch.common.sizes import free_bytes, gigabytes
from hybridbatch.data.download.sizes import Size, size_of, text_bytes
from hybridbatch.data.selection import Selection
from hybridbatch.data.settings import PrepareConfig
from hybridbatch.data.source import Source, SourceContext

MEMORY = 4e9  # bytes that `prepare` stays below, but for what follows
# Bytes of memory a row beyond that: of the user's tables, of the removal of duplicates, and of
# translation, and bytes of text of a row, about.
OWN, DISTINCT, TRANSLATED, ROW = 24, 16, 500, 300
LARGE = 2e9  # bytes of a download or of prepared data that are told before
# bytes of source texts a second on one core of 2026, from reading to the finished store
BYTES_A_SECOND = 8e6
EMBEDDED = 5e6  # bytes of prepared data of a source without files


@dataclass(frozen=True)
class Need:
    """What one source takes. Bytes; None where a server does not tell a size."""

    source: str
    absent: int | None  # to download
    stored: int | None  # of its prepared rows
    about: str = ""  # the size in the words of the source

    def row(self) -> dict[str, Any]:
        """A row of the table for people."""
        return {
            "source": self.source,
            "to download": "here" if self.absent == 0 else gigabytes(self.absent),
            "prepared data": gigabytes(self.stored),
            "size": self.about,
        }


@dataclass(frozen=True)
class Needs:
    """What a preparation takes."""

    sources: tuple[Need, ...]
    folder: Path
    memory: float = MEMORY  # bytes at most

    @property
    def absent(self) -> int:
        """Bytes to download, as far as they are known."""
        return sum(need.absent or 0 for need in self.sources)

    @property
    def stored(self) -> int:
        """Bytes of prepared data, as far as they are known."""
        return sum(need.stored or 0 for need in self.sources)

    @property
    def unknown(self) -> tuple[str, ...]:
        """The sources whose size no server told."""
        return tuple(need.source for need in self.sources if need.absent is None)

    @property
    def free(self) -> int:
        """Free bytes where the data is written."""
        return free_bytes(self.folder)

    @property
    def is_large(self) -> bool:
        """Whether to tell before the work starts."""
        return max(self.absent, self.stored) > LARGE

    def sentence(self) -> str:
        """Everything in one line."""
        unknown = f" (of {', '.join(self.unknown)}: unknown)" if self.unknown else ""
        hours = self.stored / BYTES_A_SECOND / 3600
        return (
            f"to download: {gigabytes(self.absent)}{unknown}; prepared data: about"
            f" {gigabytes(self.stored)}, and as much again while it is written;"
            f" {gigabytes(self.free)} are free there; about"
            f" {hours:.1f} hours on one core; less than {gigabytes(self.memory)} of memory"
        )

    def warning(self) -> str | None:
        """A sentence if the disk is too small."""
        if 2 * self.stored <= self.free:
            return None
        return (
            f"{self.folder}: about {gigabytes(2 * self.stored)} are needed there while the data"
            f" is written, and {gigabytes(self.free)} are free; choose another disk with --out,"
            " or less data with --languages, --limit or --record-share"
        )


def needs_of(
    config: PrepareConfig,
    chosen: Sequence[Source],
    selection: Selection,
    context: SourceContext,
    folder: Path,
) -> Needs:
    """What a preparation takes. It downloads nothing, and asks servers for sizes only."""
    found = []
    memory = MEMORY
    for one in chosen:
        own = selection.context(one, context)
        size = _size(one, own)
        stored = None
        if size is not None:
            translated = _translated(config, one)
            kept = size.text * one.stored * config.record_share
            stored = round(kept * (1 + translated))
            a_row = OWN * one.own + DISTINCT * (config.duplicates == "remove")
            memory += kept / ROW * (a_row + TRANSLATED * (translated > 0))
        found.append(Need(one.name, None if size is None else size.absent, stored, one.size))
    return Needs(tuple(found), folder, memory)


def _size(one: Source, context: SourceContext) -> Size | None:
    """The size of the files of a source, downloaded or the user's own."""
    files = one.files(context)
    if files:
        return size_of(files)
    if one.own and one.commit is None:
        text = 0
        for path in one.inputs(context):
            text += text_bytes(path.name, path.stat().st_size)
        return Size(0, text, text)
    return Size(0, 0, round(EMBEDDED))


def _translated(config: PrepareConfig, one: Source) -> float:
    """The number of translations of a record, at most."""
    named = config.translate_sources
    return float(len(config.translate_to)) if not named or one.name in named else 0.0


def needs_table(needs: Needs) -> list[Mapping[str, Any]]:
    """The rows of ``prepare --dry-run``."""
    return [need.row() for need in needs.sources]
