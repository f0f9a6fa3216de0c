"""The disk store of embeddings: each distinct text is encoded once per model.

A *space* is a folder for the vectors of one model fingerprint, side (query or passage), precision
of the forward pass and stored type, so two checkpoints can never get each other's vectors. It
contains append-only *shards*: ``N.vectors.npy`` [n, D] and ``N.keys.npy`` [n], the 128-bit hashes
of the texts. The keys of a shard are written last and atomically, and a shard without keys does not
exist. So several processes may add shards at once, and an interrupted encoding loses at most two
shards. What it left is removed by the next process that has the space to itself.
"""

import hashlib
import os
import shutil
import uuid
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO, Any, ClassVar, Literal, Protocol

import numpy as np

from hybridbatch.common.behind import Behind
from hybridbatch.common.documents import Shape, read_document
from hybridbatch.common.errors import DataError
from hybridbatch.common.files import (
    atomic_path,
    cache_folder,
    make_folder,
    output_errors,
    write_json,
)
from hybridbatch.common.integrity import add_trailer, damage, load_array
from hybridbatch.common.locks import lock
from hybridbatch.common.progress import SILENT, PartOf, Reporter
from hybridbatch.common.settings import Precision, ResolvedPrecision
from hybridbatch.common.vectors import require_finite_embeddings

Side = Literal["query", "passage"]
# Texts encoded between two writes. A shard is written while the next is encoded, so an interruption
# loses two at most.
SHARD_TEXTS = 4096
SPACE_FILE = "space.json"
IN_USE = "in-use"  # file that every process which uses the space holds with a shared lock


class Encodes(Protocol):
    """The part of an encoder that the store needs; `hybridbatch.model.Encoder` has it."""

    @property
    def dimension(self) -> int:
        """D, the length of an embedding."""

    def fingerprint(self) -> str:
        """A hash of all that the vectors depend on: weights, tokenizer, prompts, pooling, lengths."""

    def encode(
        self,
        texts: Sequence[str],
        side: Side,
        *,
        precision: Precision,
        report: Reporter,
    ) -> np.ndarray:
        """float32 [n, D], rows L2-normalised."""


class SpaceFacts(Shape):
    """``space.json``."""

    kind_name: ClassVar[str] = "embeddings"
    versions: ClassVar[tuple[int, ...]] = (1,)
    what: ClassVar[str] = "description of stored embeddings"

    model: str
    fingerprint: str
    side: str
    precision: str


@dataclass(frozen=True)
class Space:
    """One folder of the store, as `hybridbatch cache` lists it."""

    folder: Path
    model: str
    fingerprint: str
    side: str
    precision: str
    vectors: int
    bytes: int
    last_used: float  # seconds since the epoch


def default_folder() -> Path:
    """The folder of the embeddings, unless the user names another."""
    return cache_folder() / "embeddings"


class EmbeddingStore:
    """The stored embeddings of one encoder.

    Tasks, settings, runs and concurrent processes share them.
    """

    def __init__(
        self,
        encoder: Encodes,
        folder: Path | None = None,
        *,
        precision: ResolvedPrecision = "fp32",
        dtype: Literal["float32", "float16"] = "float32",
        max_bytes: int | None = None,
        kernels: str = "plain",
        fingerprint: str | None = None,
    ) -> None:
        """Open the store; nothing is written before the first text is encoded.

        Args:
            encoder: its weights must not change while the store is in use, because they are hashed
                once, here.
            folder: default: `default_folder()`.
            precision: of the forward pass.
            dtype: stored type. float32 returns exactly what the encoder gave, so scores and ties
                are the same as without a store. float16 halves the size and changes cosines by up
                to 1e-3.
            max_bytes: after an encoding, the spaces unused for longest are removed until the others
                fit. A space that a running process uses is never removed.
            kernels: the kernels of the encoder, if it has a choice (`hybridbatch.model.inference`).
                Vectors of different kernels have different spaces.
            fingerprint: the name of the encoder's vectors in this folder, at least as distinctive
                as its fingerprint, which is computed by default.
        """
        self.encoder = encoder
        self.fingerprint = encoder.fingerprint() if fingerprint is None else fingerprint
        self.precision = precision
        self.folder = folder or default_folder()
        self.dtype = np.dtype(dtype)
        self.max_bytes = max_bytes
        self.kernels = kernels
        self.held: dict[Path, IO[bytes]] = {}  # locked for as long as this store exists

    def embed(self, texts: Sequence[str], side: Side, report: Reporter = SILENT) -> np.ndarray:
        """Return the embeddings of `texts`; only distinct texts that the store lacks are encoded.

        Returns:
            [n, D] of the stored type, in the order of `texts`.

        Raises:
            ModelError: an embedding is not finite; the error names its text.
            DataError: a damaged store.
            OutputError: the store cannot be written.
        """
        if not texts:
            return np.empty((0, self.encoder.dimension), dtype=self.dtype)
        space = self.space(side)
        self.hold(space, side)
        keys, first, inverse = np.unique(
            text_keys(texts), return_index=True, return_inverse=True
        )
        vectors = np.empty((len(keys), self.encoder.dimension), dtype=self.dtype)
        # by length, so that an encoder that batches within a shard still meets texts of one length
        # together
        missing = sorted(
            _look_up(space, keys, vectors).tolist(), key=lambda row: len(texts[int(first[row])])
        )
        with (
            Behind() as writer,
            report.bar(
                f"encode {side} texts", len(keys), "texts", len(keys) - len(missing)
            ) as bar,
        ):
            for start in range(0, len(missing), SHARD_TEXTS):
                rows = missing[start : start + SHARD_TEXTS]
                wanted = [texts[int(first[row])] for row in rows]
                part = PartOf(bar)
                vectors[rows] = self.encode(wanted, side, part)
                shard = keys[rows], vectors[rows], uuid.uuid4().hex
                writer.start(partial(self.add, space, *shard))
                bar.advance(len(rows) - part.done)
        if missing and self.max_bytes is not None:
            prune(self.folder, self.max_bytes)
        return vectors[inverse]

    def encode(self, texts: Sequence[str], side: Side, report: Reporter = SILENT) -> np.ndarray:
        """Encode distinct texts without storing their vectors: float32 [n, D].

        Raises:
            ModelError: an embedding is not finite; the error names its text.
        """
        choice = {} if self.kernels == "plain" else {"kernels": self.kernels}
        encode: Any = self.encoder.encode
        vectors = encode(texts, side, precision=self.precision, report=report, **choice)
        require_finite_embeddings(
            vectors, texts, str(getattr(self.encoder, "name", "the model"))
        )
        return vectors

    def space(self, kind: str) -> Path:
        """The folder of the vectors of this encoder.

        Args:
            kind: the side, with ``-blocks`` for large corpora.
        """
        name = f"{self.fingerprint[:32]}-{kind}-{self.precision}-{self.dtype}"
        return self.folder / (name if self.kernels == "plain" else f"{name}-{self.kernels}")

    def hold(self, space: Path, side: Side) -> None:
        """Create a space if it is missing, mark it as used, and protect it from `prune`.

        The protection ends with this store.
        """
        with output_errors(space):
            while space not in self.held:
                make_folder(space)
                with suppress(
                    FileNotFoundError
                ):  # removed by another process at this very moment
                    handle = (space / IN_USE).open("ab")
                    if lock(handle.fileno(), wait=False):  # no other process writes here
                        _clear_incomplete(space)
                    lock(handle.fileno(), shared=True)
                    if os.path.samestat(os.fstat(handle.fileno()), (space / IN_USE).stat()):
                        self.held[space] = handle
            if not (space / SPACE_FILE).is_file():
                facts = {
                    "model": str(getattr(self.encoder, "name", "")),
                    "fingerprint": self.fingerprint,
                    "side": side,
                }
                facts |= {"precision": self.precision, "dtype": str(self.dtype)}
                described = {"schema_version": 1, "kind": "embeddings", **facts}
                write_json(space / SPACE_FILE, described, sealed=True)
            os.utime(space / SPACE_FILE)

    def add(self, space: Path, keys: np.ndarray, vectors: np.ndarray, shard: str) -> None:
        """Write a shard of the store. Raises: `OutputError`."""
        for kind, values in (("vectors", vectors), ("keys", keys)):
            with (
                atomic_path(space / f"{shard}.{kind}.npy") as temporary,
                temporary.open("wb") as handle,
            ):
                np.save(handle, values, allow_pickle=False)
                handle.flush()
                add_trailer(temporary)


def text_keys(texts: Sequence[str]) -> np.ndarray:
    """S16 [n]: a 128-bit hash of each text.

    numpy ignores final NULs of such strings. This does no harm, because all are 16 bytes long.
    """
    return np.array(
        [hashlib.blake2b(text.encode(), digest_size=16).digest() for text in texts], dtype="S16"
    )


def _shards(space: Path) -> Iterator[tuple[np.ndarray, np.ndarray, Path]]:
    """Yield (keys, memory-mapped vectors, path of the vectors) of every complete shard.

    Shards come in the order of their names.
    """
    for keys_path in sorted(space.glob("*.keys.npy")):
        path = keys_path.with_name(keys_path.name.replace(".keys.", ".vectors."))
        mend = mend_of(path)
        try:
            keys = load_array(keys_path, mend)
            vectors = load_array(path, mend, memory_map=True)
        except FileNotFoundError:
            continue  # pruned by another process since it was listed
        if keys.dtype != "S16" or keys.ndim != 1 or vectors.ndim != 2:
            raise damage(path, "it holds something other than embeddings", mend)
        yield keys, vectors, path


def _clear_incomplete(space: Path) -> None:
    """Remove the vectors without keys that a killed process left."""
    for path in space.glob("*.vectors.npy"):
        if not path.with_name(path.name.replace(".vectors.", ".keys.")).exists():
            path.unlink(missing_ok=True)


def mend_of(vectors: Path) -> str:
    """Say how to fix a damaged file of vectors or of keys."""
    pair = vectors.with_name(vectors.name.replace(".vectors.npy", ".*.npy"))
    return f"delete {pair} and run the same command again, which encodes these texts anew"


def _look_up(space: Path, keys: np.ndarray, out: np.ndarray) -> np.ndarray:
    """Copy the stored vectors of the ascending `keys` into `out`.

    Returns:
        The rows of the keys that are not stored.
    """
    lacking = np.ones(len(keys), dtype=bool)
    for stored, vectors, path in _shards(space):
        if vectors.shape != (len(stored), out.shape[1]):
            raise DataError(
                f"{path}: holds {vectors.shape} numbers, but the model has {out.shape[1]}"
                f" dimensions and the shard has {len(stored)} texts; {mend_of(path)}"
            )
        rows = np.searchsorted(keys, stored)
        rows[rows == len(keys)] = 0  # a key beyond the last one equals none of them
        hits = np.flatnonzero((keys[rows] == stored) & lacking[rows])
        out[rows[hits]] = vectors[hits]
        lacking[rows[hits]] = False
    return np.flatnonzero(lacking)


def list_spaces(folder: Path | None = None) -> list[Space]:
    """The spaces of the store, the most recently used space first."""
    spaces = []
    for described in (folder or default_folder()).glob(f"*/{SPACE_FILE}"):
        mend = f"delete {described.parent} and run again"
        try:
            facts = read_document(described, SpaceFacts, mend)
            files = [path.stat().st_size for path in described.parent.iterdir()]
            last_used = described.stat().st_mtime
        except FileNotFoundError:  # pruned by another process since it was listed
            continue
        spaces.append(
            Space(
                folder=described.parent,
                model=facts["model"],
                fingerprint=facts["fingerprint"],
                side=facts["side"],
                precision=facts["precision"],
                vectors=sum(len(keys) for keys, _, _ in _shards(described.parent)),
                bytes=sum(files),
                last_used=last_used,
            )
        )
    return sorted(spaces, key=lambda space: space.last_used, reverse=True)


def prune(folder: Path | None = None, max_bytes: int = 0) -> list[Space]:
    """Remove the spaces unused for longest until the rest is within `max_bytes`.

    A space that a process uses is never removed.

    Returns:
        The removed spaces.

    Raises:
        OutputError: a space cannot be removed.
    """
    spaces = list_spaces(folder)
    total = sum(space.bytes for space in spaces)
    removed = []
    for space in reversed(spaces):
        if total > max_bytes and _remove(space.folder):
            total -= space.bytes
            removed.append(space)
    return removed


def _remove(space: Path) -> bool:
    """Remove a space unless a process holds it."""
    with output_errors(space), (space / IN_USE).open("ab") as handle:
        if lock(handle.fileno(), wait=False) is False:
            return False
        shutil.rmtree(space)
        return True
