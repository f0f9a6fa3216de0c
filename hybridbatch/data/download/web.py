"""Files from plain web addresses, downloaded once and kept: the one downloader beside the hub's.

A download that breaks off goes on where it stopped, in the next try and in a later run. Where the
checksum is known, a file of other content is never kept.
"""

import hashlib
import os
from pathlib import Path
from typing import BinaryIO
from urllib.parse import urlsplit

from hybridbatch.common.errors import DataError
from hybridbatch.common.files import cache_folder, make_folder, sha256_file
from hybridbatch.common.locks import lock
from hybridbatch.data.download.failures import fetch


def web_path(address: str) -> Path:
    """Where `web_file` keeps the file of an address."""
    name = Path(urlsplit(address).path).name
    key = hashlib.sha256(address.encode()).hexdigest()[:16]
    return cache_folder() / "downloads" / key / name


def web_file(address: str, sha256: str | None = None, target: Path | None = None) -> Path:
    """The local copy of a file of the web, downloaded if it is not there yet.

    Args:
        address: of one content for ever, such as a file at a commit.
        sha256: hex; a file of other content is refused.
        target: where to keep it; default: `web_path`.
    Raises: as `Repository.file`; `DataError` for other content than `sha256` says.
    """
    target = target or web_path(address)
    if not target.is_file():
        fetch(lambda: _download(address, target, sha256), address)
    return target


def _download(address: str, target: Path, sha256: str | None) -> None:
    """One try. What it fetched stays in a file beside `target`, and the next try adds the rest."""
    part = make_folder(target.parent) / f".{target.name}.part"
    with part.open("ab") as file:
        # Of several processes one downloads and the others wait.
        lock(file.fileno())
        if target.is_file():
            part.unlink(missing_ok=True)
            return
        _add_rest(address, file, target.name)
        if sha256 and sha256_file(part) != sha256:
            part.unlink()
            raise DataError(
                f"{address}: gave other content than expected (sha256 {sha256[:12]}...); something"
                " between here and there changed it, so try again later or from another network"
            )
        os.replace(part, target)


def _add_rest(address: str, file: BinaryIO, name: str) -> None:
    from huggingface_hub.errors import HfHubHTTPError
    from huggingface_hub.file_download import http_get

    have = file.seek(0, os.SEEK_END)
    # Packed on the way, the bytes that are there could not be counted.
    headers = {"Accept-Encoding": "identity"}
    try:
        http_get(address, file, resume_size=have, headers=headers, displayed_filename=name)
    except HfHubHTTPError as error:
        # 416: nothing is left to fetch, so what is there is whole, or not of this file at all.
        if error.response.status_code != 416:
            raise
        file.truncate(0)
        http_get(address, file, headers=headers, displayed_filename=name)
    finally:
        file.flush()
    os.fsync(file.fileno())
