"""Damage is seen: fast checksums of what is written, compared once per process when it is read.

XXH3 (64 bits; Collet 2019) reads as fast as memory, so that a check costs about as much as reading.
It finds accidents, not forgers: identity stays with sha256. Three ways to keep the checksums:

- `Blocks`: one checksum for every 16 KiB of a file, compared when a block is first touched.
  Prepared data of many GB opens at once, and a training run checks only what it reads.
- a trailer behind the arrays of ``.npy`` files (`save_array`, `load_array`). NumPy does not look at
  it.
- ``XXH3SUMS`` beside the files of a folder, which ``xxhsum -c XXH3SUMS`` understands too.

Files without checksums, written by earlier versions, are read as they are.
"""

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from tokenize import TokenError
from typing import Any

import numpy as np
import xxhash

from hybridbatch.common.errors import DataError

BLOCK = 1 << 14  # bytes: little enough for random rows, and 8 bytes of checksum each
SUMS = "XXH3SUMS"
_READ = 1 << 20
_LONGEST_HEADER = 100_000_000  # bytes, as the safetensors library allows
_MAGIC = b"HBXXH3v1"
_TRAILER = np.dtype([("bytes", "<u8"), ("sums", "<u8"), ("magic", "S8")])
# what this process has compared: (path, inode, size, time of change) -> bool by block
_seen: dict[tuple[str, int, int, int], np.ndarray] = {}


def checksum(data: Any) -> str:
    """16 hex digits of XXH3 of bytes, or of any contiguous array."""
    return xxhash.xxh3_64_hexdigest(_bytes_of(data))


def file_checksum(path: Path) -> str:
    """`checksum` of a file's bytes, read in pieces. Raises `OSError`."""
    digest = xxhash.xxh3_64()
    with path.open("rb") as handle:
        while piece := handle.read(_READ):
            digest.update(piece)
    return digest.hexdigest()


def block_sums(path: Path) -> np.ndarray:
    """uint64 [blocks]: the checksum of every `BLOCK` bytes of a file. Raises `OSError`."""
    sums = []
    with path.open("rb") as handle:
        while piece := handle.read(_READ):
            view = memoryview(piece)
            for start in range(0, len(view), BLOCK):
                sums.append(xxhash.xxh3_64_intdigest(view[start : start + BLOCK]))
    return np.array(sums, "<u8")


def forget() -> None:
    """Forget which files were compared, so that all are compared again."""
    _seen.clear()


class Blocks:
    """The bytes of one file with the checksums of its blocks; each block is compared once."""

    def __init__(self, path: Path, sums: np.ndarray | None, mend: str) -> None:
        """Args:
        sums: of `block_sums`; None: the file has none, and is taken as it is.
        mend: what the user can do about damage, for the error.
        """
        self.path, self.sums, self.mend = path, sums, mend
        state = path.stat()
        key = (str(path), state.st_ino, state.st_size, state.st_mtime_ns)
        number = -(-state.st_size // BLOCK)
        self._seen = _seen.setdefault(key, np.zeros(number, bool))
        if sums is not None and len(sums) != number:
            raise damage(
                path, f"it has {state.st_size:,} bytes, and checksums of another size", mend
            )

    def check(self, data: memoryview, starts: np.ndarray, stops: np.ndarray) -> None:
        """Compare the blocks in which the bytes ``starts[i]`` to ``stops[i]`` of the file lie.

        Args:
            data: the whole file.
        Raises: `DataError` naming the file, the place and the mend.
        """
        if self.sums is None or not len(starts):
            return
        first = np.asarray(starts, np.int64) // BLOCK
        last = (np.maximum(stops, np.asarray(starts) + 1) - 1) // BLOCK
        for block in _untouched(first, last, self._seen):
            piece = data[block * BLOCK : (block + 1) * BLOCK]
            if xxhash.xxh3_64_intdigest(piece) != int(self.sums[block]):
                place = (
                    f"bytes {block * BLOCK:,} to {block * BLOCK + len(piece):,} have changed"
                )
                raise damage(self.path, place, self.mend)
            self._seen[block] = True

    def check_all(self) -> None:
        """Compare the whole file. Raises `DataError`."""
        if self.sums is None or self._seen.all():
            return
        found = block_sums(self.path)
        if len(found) != len(self.sums):
            raise damage(self.path, "its size has changed", self.mend)
        wrong = np.flatnonzero(found != self.sums)
        if len(wrong):
            start = int(wrong[0]) * BLOCK
            place = f"bytes {start:,} to {start + BLOCK:,} have changed"
            raise damage(self.path, place, self.mend)
        self._seen[:] = True


def _untouched(first: np.ndarray, last: np.ndarray, seen: np.ndarray) -> Iterator[int]:
    """The blocks of all ranges ``first[i]`` to ``last[i]`` that have not been seen, ascending."""
    if len(seen) == 0 or seen.all():
        return
    # +1 where a range begins, -1 behind its end: what sums up to more than 0 is touched
    edges = np.zeros(len(seen) + 1, np.int64)
    np.add.at(edges, first.clip(0, len(seen)), 1)
    np.add.at(edges, (last + 1).clip(0, len(seen)), -1)
    touched = np.cumsum(edges[:-1]) > 0
    yield from np.flatnonzero(touched & ~seen).tolist()


def damage(path: Path, what: str, mend: str) -> DataError:
    """The error for a damaged file."""
    return DataError(f"{path}: is damaged ({what}); {mend}")


def check_file(path: Path, expected: str | None, mend: str) -> None:
    """Compare a whole file with its `checksum`, once per process; None: it has none.

    Raises: `DataError` naming the file and the mend.
    """
    if expected is None:
        return
    try:
        state = path.stat()
        key = (str(path), state.st_ino, state.st_size, state.st_mtime_ns)
        if key in _seen and _seen[key].all():
            return
        found = file_checksum(path)
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); {mend}") from error
    if found != expected:
        raise damage(path, "its bytes have changed", mend)
    _seen[key] = np.ones(1, bool)


# Arrays with a trailer
# ------------------------------------------------------------------------------------------------


def save_array(path: Path, array: np.ndarray) -> None:
    """Write a ``.npy`` file with the checksums of its blocks behind the array. Raises `OSError`."""
    with path.open("wb") as handle:
        np.save(handle, array, allow_pickle=False)
    add_trailer(path)


def add_trailer(path: Path) -> None:
    """Append the checksums of a file's blocks to it. Raises `OSError`."""
    sums = block_sums(path)
    trailer = np.zeros(1, _TRAILER)
    trailer["bytes"] = path.stat().st_size
    trailer["sums"] = xxhash.xxh3_64_intdigest(_bytes_of(sums))
    trailer["magic"] = _MAGIC
    with path.open("ab") as handle:
        handle.write(sums.tobytes() + trailer.tobytes())


def read_trailer(path: Path, mend: str) -> tuple[int, np.ndarray] | None:
    """(bytes before the trailer, checksums of their blocks); None where a file has none.

    Raises: `DataError` for a damaged trailer, `OSError`.
    """
    size = path.stat().st_size
    with path.open("rb") as handle:
        handle.seek(max(0, size - _TRAILER.itemsize))
        raw = handle.read()
        if len(raw) < _TRAILER.itemsize or not raw.endswith(_MAGIC):
            return None
        trailer = np.frombuffer(raw, _TRAILER)[0]
        length = int(trailer["bytes"])
        expected = length + 8 * -(-length // BLOCK) + _TRAILER.itemsize
        if expected != size:
            raise damage(path, "its size has changed", mend)
        handle.seek(length)
        sums = np.frombuffer(handle.read(expected - length - _TRAILER.itemsize), "<u8")
    if xxhash.xxh3_64_intdigest(_bytes_of(sums)) != int(trailer["sums"]):
        raise damage(path, "its checksums have changed", mend)
    return length, sums


def load_array(path: Path, mend: str, *, memory_map: bool = False) -> np.ndarray:
    """An array of `save_array`, or of ``numpy.save``, which has no checksums.

    The whole file is compared, once per process. Raises: `DataError` for damage and for what is no
    array; `FileNotFoundError`.
    """
    try:
        trailer = read_trailer(path, mend)
        if trailer is not None:
            _check_before_trailer(path, *trailer, mend)
        return np.load(path, mmap_mode="r" if memory_map else None, allow_pickle=False)
    except FileNotFoundError:
        raise
    except (OSError, ValueError, EOFError, SyntaxError, TokenError) as error:
        # the last two come from NumPy's reader of headers
        raise damage(path, str(error)[:200], mend) from error


def _check_before_trailer(path: Path, length: int, sums: np.ndarray, mend: str) -> None:
    state = path.stat()
    key = (str(path), state.st_ino, state.st_size, state.st_mtime_ns)
    if key in _seen:
        return
    with path.open("rb") as handle:
        for first in range(0, length, _READ):
            view = memoryview(handle.read(min(_READ, length - first)))
            for start in range(0, len(view), BLOCK):
                block = (first + start) // BLOCK
                if xxhash.xxh3_64_intdigest(view[start : start + BLOCK]) != int(sums[block]):
                    at = block * BLOCK
                    raise damage(path, f"bytes {at:,} to {at + BLOCK:,} have changed", mend)
    _seen[key] = np.ones(1, bool)


# The files of a folder
# ------------------------------------------------------------------------------------------------


def write_sums(folder: Path) -> None:
    """Write ``XXH3SUMS``: the checksum of every file of a folder and of the folders in it, but of
    texts for people (``.md``), which may be edited. Raises `OSError`.
    """
    lines = []
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.name != SUMS and path.suffix != ".md":
            lines.append(
                f"XXH3 ({path.relative_to(folder).as_posix()}) = {file_checksum(path)}"
            )
    (folder / SUMS).write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def check_sums(folder: Path, mend: str, *, without: Iterable[str] = ()) -> bool:
    """Compare the files of a folder with its ``XXH3SUMS``; False where it has none.

    Args:
        without: names of files that are not compared.
    Raises: `DataError` naming the file that is missing or has changed.
    """
    for name, expected in read_sums(folder).items():
        if name not in without:
            check_file(folder / name, expected, mend)
    return (folder / SUMS).is_file()


def check_tensors(path: Path, expected: str, tensors: Mapping[str, Any], mend: str) -> None:
    """`check_file` of a safetensors file whose tensors are in memory already.

    Hashing memory is several times as fast as reading the file again. The file is read only if
    `tensors` (contiguous buffers, by name) lacks some of its bytes, or has other bytes.
    """
    with suppress(OSError):  # `check_file` tells of it
        state = path.stat()
        key = (str(path), state.st_ino, state.st_size, state.st_mtime_ns)
        if key not in _seen and _tensors_checksum(path, tensors) == expected:
            _seen[key] = np.ones(1, bool)
    check_file(path, expected, mend)


def _tensors_checksum(path: Path, tensors: Mapping[str, Any]) -> str | None:
    """`file_checksum` from a file's header and its tensors in memory; None without all of them."""
    digest = xxhash.xxh3_64()
    try:
        with path.open("rb") as handle:
            start = handle.read(8)
            header = handle.read(min(int.from_bytes(start, "little"), _LONGEST_HEADER))
        told = json.loads(header)
        told.pop("__metadata__", None)
        places = sorted((entry["data_offsets"], name) for name, entry in told.items())
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None
    digest.update(start + header)
    end = 0
    for (first, last), name in places:
        values = tensors.get(name)
        if values is None or first != end or memoryview(values).nbytes != last - first:
            return None
        digest.update(values)
        end = last
    whole = path.stat().st_size == 8 + len(header) + end
    return digest.hexdigest() if whole else None


def read_sums(folder: Path) -> Mapping[str, str]:
    """The checksums of a folder's files by name; empty where there are none, or in another form."""
    try:
        text = (folder / SUMS).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return {}
    found: Iterable[re.Match[str]] = re.finditer(
        r"^XXH3 \((.+)\) = ([0-9a-f]{16})$", text, re.M
    )
    return {match[1]: match[2] for match in found}


def _bytes_of(data: Any) -> Any:
    return (
        np.ascontiguousarray(data).view(np.uint8).data if isinstance(data, np.ndarray) else data
    )
