"""Reads JSON files inside of a zip in place.

Nothing is unpacked, so no member can write anywhere.
"""

import json
import re
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hybridbatch.common.errors import DataError


def zipped_json(
    path: Path, pattern: re.Pattern[str], *, lines: bool = False
) -> Iterator[tuple[re.Match[str], Any]]:
    """(match of its name, content) of every member whose whole name matches, sorted by name.

    Args:
        lines: members are JSON Lines; their content is then the list of values.

    Raises:
        DataError: The zip or a member is damaged, or no member matches.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            matches = [
                match
                for name in sorted(archive.namelist())
                if (match := pattern.fullmatch(name))
            ]
            if not matches:
                raise DataError(
                    f"{path}: the archive holds no file {pattern.pattern}, so it is not the"
                    " expected one; delete it and run the same command again"
                )
            for match in matches:
                content = archive.read(match[0])
                yield (
                    match,
                    [json.loads(line) for line in content.splitlines()]
                    if lines
                    else json.loads(content),
                )
    except (ValueError, RecursionError) as error:
        raise DataError(
            f"{path}: a file in the archive is not valid JSON ({error}); delete the archive"
            " and run the same command again"
        ) from error
    except (
        zipfile.BadZipFile,
        zlib.error,
        EOFError,
        RuntimeError,
        NotImplementedError,
    ) as error:
        raise DataError(
            f"{path}: cannot be read as a zip ({error}); delete it and run the same command again"
        ) from error
