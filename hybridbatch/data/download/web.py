"""Downloads files from plain web addresses once, and keeps them.

Only the hub has another downloader. An interrupted download continues where it stopped, in the next
try and in a later run. If the checksum is known, a file with other content is never kept.
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
    """The path where `web_file` keeps the file of an address."""
    name = Path(urlsplit(address).path).name
    key = hashlib.sha256(address.encode()).hexdigest()[:16]
    return cache_folder() / "downloads" / key / name


def web_file(address: str, sha256: str | None = None, target: Path | None = None) -> Path:
    """The local copy of a file of the web, downloaded if it does not exist yet.

    Args:
        address: address whose content never changes, such as a file at a commit.
        sha256: hex; a file with another hash is refused.
        target: where to keep the file; default: `web_path`.

    Raises:
        DataError: The file cannot be downloaded, or does not have the hash `sha256`.
        OutputError: The file cannot be stored.
    """
    target = target or web_path(address)
    if not target.is_file():
        fetch(lambda: _download(address, target, sha256), address)
    return target


def _download(address: str, target: Path, sha256: str | None) -> None:
    """Try once; the fetched part stays in a file beside `target`, and the next try adds the rest."""
    part = make_folder(target.parent) / f".{target.name}.part"
    with part.open("ab") as file:
        # One of several processes downloads, and the others wait.
        lock(file.fileno())
        if target.is_file():
            part.unlink(missing_ok=True)
            return
        _add_rest(address, file, target.name)
        if sha256 and sha256_file(part) != sha256:
            part.unlink()
            raise DataError(
                f"{address}: the download differs from the expected content (sha256"
                f" {sha256[:12]}...), so something on the way changed it; try again later or"
                " from another network"
            )
        os.replace(part, target)


def _add_rest(address: str, file: BinaryIO, name: str) -> None:
    from huggingface_hub.errors import HfHubHTTPError
    from huggingface_hub.file_download import http_get

    have = file.seek(0, os.SEEK_END)
    # With compression in transit, the bytes already here could not be counted.
    headers = {"Accept-Encoding": "identity"}
    try:
        http_get(address, file, resume_size=have, headers=headers, displayed_filename=name)
    except HfHubHTTPError as error:
        # 416: nothing is left to fetch, so the file is whole, or belongs to other content.
        if error.response.status_code != 416:
            raise
        file.truncate(0)
        http_get(address, file, headers=headers, displayed_filename=name)
    finally:
        file.flush()
    os.fsync(file.fileno())
