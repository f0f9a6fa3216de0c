"""What a training source is, and what it may ask of its surroundings."""

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from hybridbatch.common.progress import SILENT, Reporter
from hybridbatch.common.records import BadRow, Row


@dataclass(frozen=True)
class SourceContext:
    """What a source may ask of its surroundings.

    Attributes:
        data_root: folder with local copies of public data sets, one sub-folder per data set.
        seed: of every random choice.
        keeps: whether rows of a canonical language are wanted; all rows may be yielded all the
            same.
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
        digest = hashlib.blake2b(
            "\0".join((str(self.seed), *names)).encode(), digest_size=8
        ).digest()
        return int.from_bytes(digest, "big") / 2**64


@dataclass(frozen=True)
class Source:
    """A training source: what it is, and a function that yields its rows.

    Attributes:
        name: how the command line and `Row.source` call it.
        title: one line saying what it holds.
        licence, url, revision: where it comes from; the revision pins it (commit, version).
        languages, yields: for people: which languages, and what its pairs are.
        rows: the rows of the source, good and bad, in any order. A source without splits of its own
            says train; the store then sets validation records aside.
        inputs: the local files that `rows` will read, as far as the revision does not pin their
            content. Raises `DataError` if they are not there.
        size: how much it is, for people.
        own: whether it is the user's own data: where that comes with a test split and no validation
            split, the store sets validation records aside all the same.
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
    own: bool = False
