"""The interface of a training source, and the context that it runs in."""

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from hybridbatch.common.progress import SILENT, Reporter
from hybridbatch.common.records import BadRow, Row
from hybridbatch.data.download.sizes import Files


@dataclass(frozen=True)
class SourceContext:
    """The context that a source runs in.

    Attributes:
        data_root: folder with local copies of public data sets, one sub-folder per data set.
        seed: seed of every random choice.
        keeps: whether rows of a canonical language are wanted; a source may still yield all rows.
        revisions: the commits to read, by name, of sources that follow a branch.
        report: receives notes and progress.
    """

    data_root: Path | None = None
    seed: int = 13
    keeps: Callable[[str], bool] = lambda language: True
    revisions: Mapping[str, str] = field(default_factory=dict)
    report: Reporter = SILENT

    def chance(self, *names: str) -> float:
        """A number in [0, 1), uniform over names; it depends only on the names and the seed."""
        digest = hashlib.blake2b(
            "\0".join((str(self.seed), *names)).encode(), digest_size=8
        ).digest()
        return int.from_bytes(digest, "big") / 2**64


@dataclass(frozen=True)
class Source:
    """A training source: its description, and a function that yields its rows.

    Attributes:
        name: its name on the command line and in `Row.source`.
        title: a description in one line.
        licence, url, revision: its origin; the revision pins it (commit, version).
        languages, yields: for people: the languages, and a description of the pairs.
        rows: the rows of the source, good and bad, in any order. A source without splits yields
            only train rows; the store then sets validation records aside.
        inputs: the local files that `rows` will read, if the revision does not pin their content.
            Raises `DataError` if they are absent.
        size: its size, for people.
        own: whether it is the user's own data. If own data has a test split and no validation
            split, the store still sets validation records aside.
        files: the files that `rows` will download, to tell their size before.
        stored: bytes of prepared rows for a byte of text in `files`, roughly.
        commit: for a source whose revision is a branch, the commit that `rows` reads.
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
    files: Callable[[SourceContext], Sequence[Files]] = lambda context: ()
    stored: float = 1.0
