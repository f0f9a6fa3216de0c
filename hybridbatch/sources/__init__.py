"""The registry of training sources: one small module each, which yields rows and says where they come from.

A source module defines `SOURCES`, a tuple of `Source`. It imports nothing heavy at its top level, so that listing the
registry is quick. Adding a source is a new module and its name in `_MODULES`.
"""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib import import_module
from pathlib import Path

from hybridbatch.errors import ConfigError, DataError, nearest
from hybridbatch.records import BadRow, Row
from hybridbatch.reporting import SILENT, Reporter

_MODULES = (
    "atlas",
    "afriqa",
    "tydi",
    "amqa",
    "mkqa",
    "exams",
    "ntrex",
    "tico19",
    "stories",
    "bible",
    "lafand",
    "squadshifts",
    "mmarco",
    "mrtydi",
    "mfaq",
    "nq",
    "duorc",
    "newsqa",
    "wikiqa",
    "yahoo",
    "entityquestions",
    "miracl",
    "mintaka",
    "xor_tydi",
    "tydiqa",
    "webfaq",
    "swim_ir",
    "parallel",
)


@dataclass(frozen=True)
class SourceContext:
    """What a source may ask of its surroundings.

    Attributes:
        data_root: folder with local copies of public data sets, one sub-folder per data set.
        seed: of every random choice.
        keeps: whether rows of a canonical language are wanted; all rows may be yielded all the same.
        revisions: the commits to read of sources that follow a branch, by name.
        report: where notes and progress go.
    """

    data_root: Path | None = None
    seed: int = 13
    keeps: Callable[[str], bool] = lambda language: True
    revisions: Mapping[str, str] = field(default_factory=dict)
    report: Reporter = SILENT

    def chance(self, *names: str) -> float:
        """A number in [0, 1), uniform over names and a function of them and the seed alone."""
        digest = hashlib.blake2b("\0".join((str(self.seed), *names)).encode(), digest_size=8).digest()
        return int.from_bytes(digest, "big") / 2**64


@dataclass(frozen=True)
class Source:
    """A training source: what it is, and a function that yields its rows.

    Attributes:
        name: how the command line and `Row.source` call it.
        title: one line saying what it holds.
        licence, url, revision: where it comes from; the revision pins it (commit, version).
        languages, yields: for people: which languages, and what its pairs are.
        rows: the rows of the source, good and bad, in any order. A source without splits of its own says train; the
            store then sets validation records aside.
        inputs: the local files that `rows` will read, as far as the revision does not pin their content. Raises
            `DataError` if they are not there.
        size: how much it is, for people.
        commit: of a source whose revision is a branch, the commit that `rows` reads.
    """

    name: str
    title: str
    licence: str
    url: str
    languages: str
    yields: str
    rows: Callable[[SourceContext], Iterator[Row | BadRow]]
    revision: str = ""
    inputs: Callable[[SourceContext], Sequence[Path]] = lambda context: ()
    size: str = "as its files say"
    commit: Callable[[SourceContext], str] | None = None


@cache
def sources() -> tuple[Source, ...]:
    """All registered sources, in the order of the catalogue."""
    return tuple(source for module in _MODULES for source in import_module(f"hybridbatch.sources.{module}").SOURCES)


def source(name: str) -> Source:
    """The registered source of that name. Raises `ConfigError` with the nearest names."""
    known = {source.name: source for source in sources()}
    if name not in known:
        raise ConfigError(f"unknown source {name!r}{nearest(name, list(known))}; `hybridbatch prepare --list` has all")
    return known[name]


def catalogue() -> list[dict[str, str]]:
    """A line per registered source, for people."""
    return [
        {
            "source": source.name,
            "holds": source.title,
            "languages": source.languages,
            "size": source.size,
            "yields": source.yields,
            "licence": source.licence,
            "url": source.url,
        }
        for source in sources()
    ]


def local_files(context: SourceContext, folder: str, patterns: Iterable[str], origin: str) -> list[Path]:
    """The files of a data set's local copy, sorted by name; without one, rebuilt from its public home (sources.homes).

    Args:
        folder: the data set's folder under `context.data_root`.
        patterns: globs; each must match a file.
        origin: where the data set is public, for the error message.
    Raises: `DataError` if there is neither a local copy nor a home to rebuild it from, or a file of it is missing.
    """
    from hybridbatch.sources.homes import rebuilt

    mend = f"get it from {origin}, lay it out as docs/data.md says, and name its parent folder with --data-root"
    local = context.data_root / folder if context.data_root else None
    place = local if local and local.is_dir() else rebuilt(folder) or local
    if place is None:
        raise DataError(f"{folder}: this source needs a local copy of its files; {mend}")
    found: list[Path] = []
    for pattern in patterns:
        matches = sorted(place.glob(pattern))
        if not matches:
            raise DataError(f"{place}: no file {pattern}; {mend}")
        found += matches
    return found
