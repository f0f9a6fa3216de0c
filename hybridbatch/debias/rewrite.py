"""Subtracts language vectors from an existing index, in blocks; a stopped run can go on.

Work in progress is in a hidden folder beside the result: the language vectors once they are
estimated, the rewritten vectors so far, and a checksum of each block of them. The same command
continues a run that was stopped, after the blocks that are as they were written. Another input or
another method starts anew. The result appears only when it is complete.
"""

import errno
import hashlib
import os
import shutil
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, ClassVar

import numpy as np
from xxhash import xxh3_64

import hybridbatch
from hybridbatch.common.documents import Shape, read_document
from hybridbatch.common.errors import ConfigError, DataError, Interrupted, OutputError
from hybridbatch.common.files import (
    make_folder,
    output_errors,
    text_lines,
    write_json,
)
from hybridbatch.common.integrity import checksum
from hybridbatch.common.languages import canonical
from hybridbatch.common.progress import SILENT, Reporter
from hybridbatch.debias.fit import Method, counts_by_language
from hybridbatch.debias.index_files import IndexFile, kind_of
from hybridbatch.debias.methods import Debiasing, Moments
from hybridbatch.debias.turn_rows import NotFinite, RowTurner, add_rows
from hybridbatch.debias.vectors_file import (
    TENSORS,
    LanguageVectors,
    read_vectors,
    with_loans,
    write_vectors,
)

BLOCK = 65_536  # rows between two marks of progress; an interruption loses at most so many
UNKNOWN = ("", "und", "unknown", "mul", "zxx")  # codes of a vector without a language
PROGRESS = "progress.json"
PARTIAL = "vectors.part"
LOCK = "lock"
NPY_HEAD = 128  # bytes; numpy pads the header of such an array to this size


class Progress(Shape):
    """``progress.json``: what is rewritten, and the checksums of the blocks on the disk."""

    what: ClassVar[str] = "note of how far the work is"

    job: dict[str, Any]
    sums: list[str]


@dataclass(frozen=True)
class RowLanguages:
    """The language of each of P rows, as a number.

    Attributes:
        names: canonical ids; the last id is ``und``, for rows without a language.
        numbers: int32 [P].
    """

    names: tuple[str, ...]
    numbers: np.ndarray

    @classmethod
    def of(cls, codes: Sequence[str], place: str) -> "RowLanguages":
        """From the code of each row. Raises `DataError` naming the first row with an unknown code."""
        distinct, numbers = np.unique(np.asarray(codes, dtype=str), return_inverse=True)
        names: dict[str, int] = {}
        mapped = np.empty(len(distinct), dtype=np.int32)
        unknown = []
        for number, code in enumerate(distinct.tolist()):
            if code.strip().lower() in UNKNOWN:
                unknown.append(number)
                continue
            try:
                mapped[number] = names.setdefault(canonical(code), len(names))
            except DataError as error:
                row = int(np.flatnonzero(numbers == number)[0])
                raise DataError(
                    f"{place}:{row + 1}: {error}; write und if the language is not known"
                ) from error
        mapped[unknown] = len(names)
        return cls((*names, "und"), mapped[numbers])


def read_row_languages(path: Path, rows: int) -> RowLanguages:
    """Read the language of each row from a text file with one line for each row.

    A line is a code, or several columns, the last of which is the code.

    Raises:
        DataError: another number of lines, or unknown codes.
    """
    if not path.is_file():
        raise DataError(
            f"{path}: does not exist; name a text file that has the language of each vector on"
            " a line"
        )
    codes = [line.rpartition("\t")[2].strip() for _, line in text_lines(path)]
    if len(codes) != rows:
        ends = f" (the first line is {codes[0]!r}, the last {codes[-1]!r})" if codes else ""
        raise DataError(
            f"{path}: has {len(codes):,} lines, but there are {rows:,} vectors{ends}; write the"
            " language of each vector on a line, in the order of the vectors, without a heading"
        )
    return RowLanguages.of(codes, str(path))


def rewrite(
    index: IndexFile,
    languages: RowLanguages,
    out: Path,
    *,
    method: Method | None = None,
    vectors: LanguageVectors | None = None,
    report: Reporter = SILENT,
) -> Path:
    """Write the index without the language vectors of its passages.

    Args:
        index: the stored vectors.
        languages: the languages of its rows.
        out: the new file, of the same kind.
        method: how to estimate the language vectors from the stored vectors; or give `vectors`.
        vectors: the language vectors to subtract.

    Returns:
        The folder of the language vectors, beside `out`.

    Raises:
        `DataError` for vectors that do not fit or are not finite, `OutputError`, `Interrupted`.
    """
    from filelock import FileLock, Timeout

    _check_out(index, out)
    work = make_folder(out.with_name(f".{out.name}.debiasing"))
    try:
        with FileLock(work / LOCK, timeout=0):
            try:
                vectors = _rewrite_in(work, index, languages, out, method, vectors, report)
            except (ConfigError, DataError):
                # nothing of it can be used: what mends the input makes it another input
                shutil.rmtree(work, ignore_errors=True)
                raise
            folder = out.with_name(f"{out.name}.language_vectors")
            write_vectors(folder, vectors)
            shutil.rmtree(work, ignore_errors=True)
    except Timeout:
        raise OutputError(
            f"{out}: another process is writing this file; wait until it ends"
        ) from None
    except KeyboardInterrupt:
        raise Interrupted(
            f"{out}: stopped; what is done is kept in {work}, run the same command to go on"
        ) from None
    return folder


def _check_out(index: IndexFile, out: Path) -> None:
    """Raise `OutputError` unless the result can be put at `out`."""
    if out.is_dir():
        raise OutputError(
            f"{out}: is a folder, where a file is needed; choose another file with --out"
        )
    if out.exists() and out.samefile(index.path):
        raise OutputError(
            f"{out}: is the index to rewrite itself; choose another file with --out"
        )
    ends = out.suffix.lower(), index.path.suffix.lower()
    if ends[0] != ends[1] and kind_of(out) != index.kind:
        raise OutputError(
            f"{out}: the new file has the format of {index.path.name}; let its name end in"
            f" {index.path.suffix or 'none of the known endings'}"
        )


def _rewrite_in(
    work: Path,
    index: IndexFile,
    languages: RowLanguages,
    out: Path,
    method: Method | None,
    vectors: LanguageVectors | None,
    report: Reporter,
) -> LanguageVectors:
    """Do the work in its folder, which this process holds, as `rewrite` says.

    Returns:
        The language vectors that were subtracted.
    """
    job = _job(index, languages, method, vectors)
    if (work / PROGRESS).is_file() and not _can_continue(work, job):
        for path in work.iterdir():
            if path.name != LOCK:
                path.unlink()
        report.note(
            f"{out}: an earlier run rewrote other vectors, used another method or left damaged"
            " files, so the work starts again"
        )
    if vectors is None:
        vectors = _estimated(index, languages, method or Method(), work, job, report)
    _check(index, languages, vectors, report)
    rewritten = _rewritten(index, languages, vectors.sides["passage"], work, job, report)
    _put(index, rewritten, work, out)
    return vectors


def _can_continue(work: Path, job: dict[str, Any]) -> bool:
    """Whether the work of an earlier run is of this job, and its files can be read."""
    try:
        if read_document(work / PROGRESS, Progress)["job"] != job:
            return False
        if (work / TENSORS).is_file():
            read_vectors(work)
    except DataError:
        return False
    return True


def _job(
    index: IndexFile,
    languages: RowLanguages,
    method: Method | None,
    vectors: LanguageVectors | None,
) -> dict[str, Any]:
    """All that the result depends on, as JSON."""
    stat = index.path.stat()
    digest = hashlib.sha256(languages.numbers.tobytes())
    digest.update("\n".join(languages.names).encode())
    return {
        "vectors": [index.path.name, stat.st_size, stat.st_mtime_ns, list(index.shape)],
        "languages": digest.hexdigest(),
        "method": method.as_json() if method and vectors is None else None,
        "debias": None if vectors is None else vectors.facts.get("sha256"),
    }


def _estimated(
    index: IndexFile,
    languages: RowLanguages,
    method: Method,
    work: Path,
    job: dict[str, Any],
    report: Reporter,
) -> LanguageVectors:
    """Estimate language vectors from the stored vectors, or read the estimate of an earlier run."""
    if (work / PROGRESS).is_file():
        return read_vectors(work)
    if len(languages.names) == 1:
        raise DataError(
            f"{index.path}: no language of its {index.shape[0]:,} vectors is known, so there is"
            " nothing to estimate from; name the languages in --languages, or give --debias"
        )
    total, width = index.shape
    moments = Moments.empty(languages.names, width, method.products)
    with report.bar("estimate language vectors", total, "vectors") as bar:
        for start in range(0, total, BLOCK):
            block = _block(index, start)
            try:
                add_rows(moments, block, languages.numbers[start : start + len(block)])
            except NotFinite as error:
                raise _not_finite(index, start + error.row) from None
            bar.advance(len(block))
    known = moments.part(np.arange(len(languages.names) - 1))
    turn = method.fit(known)
    source = f"the stored vectors of {index.path.name}"
    facts = {
        "hybridbatch": hybridbatch.__version__,
        "model": {"name": f"unknown: {source}", "fingerprint": None},
        "method": {**method.as_json(), "together": False},
        "sources": {"passage": source, "query": "no queries: the vectors of the passages"},
        "texts": {"passage": counts_by_language(known)},
    }
    sides: dict[Any, Debiasing] = {"passage": turn}
    if method.name != "shift":
        sides["query"] = turn
    write_vectors(work, LanguageVectors(sides, facts))
    write_json(work / PROGRESS, {"job": job, "sums": []}, sealed=True)
    return read_vectors(work)


def _check(
    index: IndexFile, languages: RowLanguages, vectors: LanguageVectors, report: Reporter
) -> None:
    """Refuse vectors of another width; report rows that another language's vector turns."""
    if vectors.dimension != index.shape[1]:
        raise DataError(
            f"{index.path}: its vectors have {index.shape[1]} dimensions and the language"
            f" vectors {vectors.dimension}, so they belong to different models"
        )
    if "passage" not in vectors.sides:
        raise DataError("the language vectors have no map for passages")
    nameless = int((languages.numbers == len(languages.names) - 1).sum())
    if nameless:
        report.warn(
            f"{nameless:,} vectors have no language; the global language vector is applied to them"
        )
    for sentence in vectors.tell({"passage": languages.names[:-1]}):
        report.warn(sentence)


def _rewritten(
    index: IndexFile,
    languages: RowLanguages,
    turn: Debiasing,
    work: Path,
    job: dict[str, Any],
    report: Reporter,
) -> np.ndarray:
    """The turned vectors [P, D], memory-mapped from a file in the work folder.

    They are written without waiting for the disk. In the background, they are flushed to the disk,
    and only then counted as done.
    """
    total, width = index.shape
    path = work / PARTIAL
    offset = NPY_HEAD if index.kind == "npy" else 0
    row_bytes = width * index.dtype.itemsize
    size = offset + total * row_bytes
    sums = _sound_blocks(work, size, offset, BLOCK * row_bytes)
    done = min(len(sums) * BLOCK, total)
    if done:
        report.note(f"continuing after {done:,} of {total:,} vectors")
    names = languages.names
    told = False
    turner = RowTurner.of(with_loans(turn, names[:-1]), names)
    with (
        output_errors(path),
        _PartialFile(path, size, work / PROGRESS, job, sums) as file,
        report.bar("take language vectors off", total, "vectors", done) as bar,
    ):
        file.seek(offset + done * row_bytes)
        for start in range(done, total, BLOCK):
            block = _block(index, start)
            numbers = languages.numbers[start : start + len(block)]
            try:
                for tile, lengths in turner.turn(block, numbers):
                    file.write(tile)
                    if not told:
                        told = _tell_length(index, lengths, report)
            except NotFinite as error:
                raise _not_finite(index, start + error.row) from None
            file.mark()
            bar.advance(len(block))
    return np.memmap(path, index.dtype, mode="r+", offset=offset, shape=index.shape)


def _tell_length(index: IndexFile, lengths: np.ndarray, report: Reporter) -> bool:
    """Tell of a stored vector whose length is not 1, if there is one; vectors of zeros stay zero."""
    others = lengths[(np.abs(lengths - 1) > 0.01) & (lengths > 0)]
    if not len(others):
        return False
    report.warn(
        f"{index.path}: has vectors of another length than 1, such as {others[0]:.3g}; the"
        " rewritten ones have length 1, for search by inner product or cosine"
    )
    return True


def _sound_blocks(work: Path, size: int, offset: int, block_bytes: int) -> list[str]:
    """The checksums of the blocks that an earlier run wrote, up to the first damaged one."""
    path = work / PARTIAL
    if not (work / PROGRESS).is_file() or not path.is_file() or path.stat().st_size != size:
        return []
    sound: list[str] = []
    with output_errors(path), path.open("rb") as file:
        file.seek(offset)
        for noted in read_document(work / PROGRESS, Progress)["sums"]:
            if checksum(file.read(block_bytes)) != noted:
                break
            sound.append(noted)
    return sound


class _PartialFile:
    """The file of the turned vectors, with a thread that flushes it and notes how far it is."""

    def __init__(
        self, path: Path, size: int, progress: Path, job: dict[str, Any], sums: list[str]
    ) -> None:
        """Open the file, or make it with `size` bytes on the disk. Raises `OSError`.

        Args:
            sums: the checksums of the blocks that are in the file already.
        """
        self.progress, self.job, self.sums = progress, job, sums
        fresh = not path.is_file() or path.stat().st_size != size
        self.file = path.open("wb" if fresh else "rb+", buffering=0)
        if fresh:
            _allocate(self.file, size)
        self.seek = self.file.seek
        self.thread = ThreadPoolExecutor(1)
        self.flush: Future[None] | None = None
        self.block = xxh3_64()  # of what was written since the last mark
        self.noted = len(sums)

    def __enter__(self) -> "_PartialFile":
        return self

    def __exit__(self, *_: object) -> None:
        """Flush all that was marked, and note it. Raises `OSError`."""
        try:
            self.thread.shutdown(wait=True)
            if self.flush is not None:
                self.flush.result()
            if self.noted < len(self.sums):
                self._flush(list(self.sums))
        finally:
            self.file.close()

    def write(self, tile: np.ndarray) -> None:
        """Append rows. Raises `OSError`."""
        rest = tile.data.cast("B")
        self.block.update(rest)
        while rest:
            rest = rest[self.file.write(rest) :]

    def mark(self) -> None:
        """The next block is written: flush it, unless a flush is under way."""
        self.sums.append(self.block.hexdigest())
        self.block.reset()
        if self.flush is not None:
            if not self.flush.done():
                return
            self.flush.result()
        self.flush = self.thread.submit(self._flush, list(self.sums))

    def _flush(self, sums: list[str]) -> None:
        getattr(os, "fdatasync", os.fsync)(self.file.fileno())
        write_json(self.progress, {"job": self.job, "sums": sums}, sealed=True)
        self.noted = len(sums)


def _allocate(file: IO[bytes], size: int) -> None:
    """Reserve the bytes of a new file, so that a full disk is met at once. Raises `OSError`."""
    reserve = getattr(os, "posix_fallocate", None)
    try:
        if reserve is not None:
            reserve(file.fileno(), 0, size)
            return
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.EOPNOTSUPP, errno.ENOSYS):
            raise
    file.truncate(size)


def _block(index: IndexFile, start: int) -> np.ndarray:
    return index.read(start, min(start + BLOCK, index.shape[0]))


def _not_finite(index: IndexFile, row: int) -> DataError:
    return DataError(
        f"{index.path}: vector {row} holds NaN or infinite numbers; encode its text anew"
    )


def _put(index: IndexFile, vectors: np.ndarray, work: Path, out: Path) -> None:
    """Put the result in its place; if the format allows, by moving the partial file."""
    if index.write is not None:
        index.write(out, vectors)
        return
    partial = work / PARTIAL
    with output_errors(out):
        with partial.open("rb+") as file:
            if index.kind == "npy":
                file.write(_npy_head(index))
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, out)


def _npy_head(index: IndexFile) -> bytes:
    """The header of a .npy file of these vectors, `NPY_HEAD` bytes long."""
    described = np.lib.format.dtype_to_descr(index.dtype)
    text = (
        f"{{'descr': {described!r}, 'fortran_order': False, 'shape': {tuple(index.shape)}, }}"
    )
    head = np.lib.format.magic(1, 0) + (NPY_HEAD - 10).to_bytes(2, "little")
    return head + text.ljust(NPY_HEAD - 11).encode("latin1") + b"\n"
