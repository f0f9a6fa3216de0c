"""Files from plain web addresses, downloaded once and kept."""

import hashlib
import os
from pathlib import Path
from urllib.parse import urlsplit

from hybridbatch.common.files import cache_folder, make_folder
from hybridbatch.data.download.retries import patiently


def web_file(address: str) -> Path:
    """The local copy of a file of the web, downloaded whole if it is not there yet. Raises: as
    `Repository.file`.
    """
    name = Path(urlsplit(address).path).name
    target = cache_folder() / "downloads" / hashlib.sha256(address.encode()).hexdigest()[:16] / name
    if target.is_file():
        return target

    def download() -> None:
        import fcntl

        from huggingface_hub.file_download import http_get

        part = make_folder(target.parent) / f".{name}.part"
        with part.open("ab") as file:
            # of several processes one downloads and the others wait
            fcntl.flock(file, fcntl.LOCK_EX)
            try:
                if not target.is_file():
                    file.truncate(0)  # what a killed process left
                    http_get(address, file, displayed_filename=name)
                    file.flush()
                    os.fsync(file.fileno())
                    os.replace(part, target)
            finally:
                part.unlink(missing_ok=True)

    patiently(download, address)
    return target
