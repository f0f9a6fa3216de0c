"""Finished translations on disk, found by content.

Each translator with its decoding has one SQLite file. A batch is stored whole or not at all, even
if the process is killed. Several processes may share the file.
"""

import contextlib
import hashlib
import json
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from xxhash import xxh3_64_intdigest

from hybridbatch.common.errors import DataError, OutputError
from hybridbatch.common.files import cache_folder, fingerprint, make_folder

SCHEMA_VERSION = 1
_WAIT = 60.0  # seconds to wait for another process that writes its batch
_ASKED = 500  # keys of one query


def default_folder() -> Path:
    """The default folder of stored translations."""
    return cache_folder() / "translations"


class TranslationCache:
    """The translations of one translator."""

    def __init__(self, described: Mapping[str, Any], folder: Path | None = None) -> None:
        """Open or create the file of the translator that `described` describes.

        Raises:
            OutputError: The file cannot be created.
            DataError: The file is damaged.
        """
        name = fingerprint({"schema_version": SCHEMA_VERSION, **described}, 32)
        self.path = make_folder(folder or default_folder()) / f"{name}.sqlite"
        with self._errors():
            self._connection = sqlite3.connect(self.path, timeout=_WAIT, isolation_level=None)
            self._connection.execute("PRAGMA synchronous = FULL")
            self._connection.execute(
                "CREATE TABLE IF NOT EXISTS about (translator TEXT PRIMARY KEY)"
            )
            self._connection.execute(
                "CREATE TABLE IF NOT EXISTS translations (key BLOB PRIMARY KEY, text TEXT) WITHOUT"
                " ROWID"
            )
            self._add_checksums()
            self._connection.execute(
                "INSERT OR IGNORE INTO about VALUES (?)",
                [json.dumps(dict(described), ensure_ascii=False, sort_keys=True)],
            )

    def _add_checksums(self) -> None:
        """Add the column of checksums to a file of an earlier version, whose entries are trusted."""
        columns = [
            row[1] for row in self._connection.execute("PRAGMA table_info(translations)")
        ]
        if "sum" not in columns:
            with contextlib.suppress(sqlite3.OperationalError):  # added by another process
                self._connection.execute("ALTER TABLE translations ADD COLUMN sum INTEGER")

    def get(self, pieces: Sequence[str], source: str, target: str) -> dict[str, str | None]:
        """The stored translations of some pieces; None for an unfinished translation.

        Raises:
            DataError: The file is damaged.
        """
        keys = {_key(piece, source, target): piece for piece in pieces}
        asked, found = list(keys), {}
        with self._errors():
            for start in range(0, len(asked), _ASKED):
                part = asked[start : start + _ASKED]
                marks = ",".join("?" * len(part))
                rows = self._connection.execute(
                    f"SELECT key, text, sum FROM translations WHERE key IN ({marks})", part
                )
                for key, text, known in rows:
                    odd = not isinstance(key, bytes) or not isinstance(text, str | None)
                    if odd or (known is not None and known != _sum(key, text)):
                        raise sqlite3.DatabaseError("a translation has changed")
                    found[keys[key]] = text
        return found

    def put(self, translations: Mapping[str, str | None], source: str, target: str) -> None:
        """Store the translations of a batch.

        Raises:
            OutputError: The file cannot be written.
        """
        rows = []
        for piece, text in translations.items():
            key = _key(piece, source, target)
            rows.append((key, text, _sum(key, text)))
        with self._errors():
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                self._connection.executemany(
                    "INSERT OR IGNORE INTO translations (key, text, sum) VALUES (?, ?, ?)", rows
                )
                self._connection.execute("COMMIT")
            except BaseException:
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                raise

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.OperationalError as error:
            raise OutputError(
                f"{self.path}: cannot be used ({error}); free space, change its permissions,"
                " or name another folder with HYBRIDBATCH_CACHE, and run the same command"
                " again"
            ) from error
        except (sqlite3.DatabaseError, UnicodeDecodeError) as error:
            raise DataError(
                f"{self.path}: is damaged ({error}); delete it and run the same command again"
            ) from error


def _sum(key: bytes, text: str | None) -> int:
    """A checksum that fits into SQLite's integers."""
    content = b"" if text is None else b"1" + text.encode("utf-8", "surrogatepass")
    return xxh3_64_intdigest(key + content) >> 1


def _key(piece: str, source: str, target: str) -> bytes:
    return hashlib.blake2b(f"{source}\0{target}\0{piece}".encode(), digest_size=16).digest()
