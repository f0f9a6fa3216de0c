"""The files of a data set: a local copy, else built from its public home.

`hybridbatch.data.homes` builds them. Both ways give equal rows, so prepared data has one
fingerprint.
"""

from collections.abc import Iterable
from pathlib import Path

from hybridbatch.common.errors import DataError
from hybridbatch.data.download.sizes import KnownSize
from hybridbatch.data.homes.registry import HOMES
from hybridbatch.data.source import SourceContext


def local_files(
    context: SourceContext, folder: str, patterns: Iterable[str], origin: str
) -> list[Path]:
    """The files of a data set's local copy, sorted by name, or built from its public home.

    Args:
        folder: the data set's folder under `context.data_root`.
        patterns: globs; each must match a file.
        origin: the public address of the data set, for the error message.

    Raises:
        DataError: There is neither a local copy nor a home to build it from, or one of its files is
            missing.
    """
    mend = (
        f"get it from {origin}, lay it out as docs/data.md says, and name its parent folder with"
        " --data-root"
    )
    place = local_copy(context.data_root, folder)
    if place is None and folder in HOMES:
        place = HOMES[folder].obtain(context.data_root)
    if place is None:
        raise DataError(f"{folder}: this source needs a local copy of its files; {mend}")
    found: list[Path] = []
    for pattern in patterns:
        matches = sorted(place.glob(pattern))
        if not matches:
            raise DataError(f"{place}: no file {pattern}; {mend}")
        found += matches
    return found


def home_files(folder: str, context: SourceContext) -> list[KnownSize]:
    """The files of a data set for `Source.files`: those of its public home, if it has one."""
    home = HOMES.get(folder)
    if home is None:
        return []
    here = (
        local_copy(context.data_root, folder) or home.built() or home.cloned(context.data_root)
    )
    return [KnownSize(home.megabytes, bool(here))]


def local_copy(data_root: Path | None, folder: str) -> Path | None:
    """The folder of our files of a data set under the data root; a clone is not one."""
    place = data_root / folder if data_root else None
    if place is None or not place.is_dir():
        return None
    home = HOMES.get(folder)
    is_clone = home is not None and home.cloned(data_root) and not any(place.glob("*.jsonl*"))
    return None if is_clone else place
