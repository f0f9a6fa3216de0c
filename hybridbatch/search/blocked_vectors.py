"""Memory-mapped vectors of corpora too large for memory, encoded block by block.

A block is `BLOCK_TEXTS` successive texts. Its file is named by the hash of these texts, in a space
of the embedding store. So an interrupted encoding goes on with the missing blocks, and every run
and process with the same model and texts finds the blocks. Any number of processes can encode. A
process takes a block by locking it, and the lock ends with the process.
"""

import hashlib
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from hybridbatch.common.behind import Behind
from hybridbatch.common.errors import DataError
from hybridbatch.common.files import make_folder
from hybridbatch.common.integrity import damage, load_array
from hybridbatch.common.progress import SILENT, Reporter
from hybridbatch.search.embeddings import EmbeddingStore, Side, mend_of, text_keys

if TYPE_CHECKING:  # `filelock` is needed only where blocks are encoded
    from filelock import FileLock

# An interruption costs a process at most two blocks: one is written while the next is encoded.
BLOCK_TEXTS = 16_384
WAIT_SECONDS = 1.0  # between two checks of blocks that other processes are encoding


class BlockedVectors:
    """[P, D] vectors in files of `BLOCK_TEXTS` rows, read on demand.

    It has only those operations of an array that search needs.
    """

    def __init__(
        self, paths: Sequence[Path], rows: int, dimension: int, dtype: np.dtype
    ) -> None:
        self.paths = tuple(paths)
        self.shape = (rows, dimension)
        self.dtype = dtype

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: slice | np.ndarray) -> np.ndarray:
        """[n, D] of a slice without step, or of ascending row numbers.

        Raises:
            DataError: a damaged block, or one of another dimension.
        """
        if isinstance(rows, slice):
            start, stop, _ = rows.indices(len(self))
            parts = [
                self._block(block)[
                    max(0, start - block * BLOCK_TEXTS) : stop - block * BLOCK_TEXTS
                ]
                for block in range(start // BLOCK_TEXTS, -(-stop // BLOCK_TEXTS))
            ]
        else:
            blocks = rows // BLOCK_TEXTS
            parts = [
                self._block(int(block))[rows[blocks == block] - block * BLOCK_TEXTS]
                for block in np.unique(blocks)
            ]
        if len(parts) == 1:
            return parts[0]
        return np.concatenate(parts) if parts else np.empty((0, self.shape[1]), self.dtype)

    def _block(self, number: int) -> np.ndarray:
        path = self.paths[number]
        try:
            vectors = load_array(path, mend_of(path), memory_map=True)
        except FileNotFoundError as error:
            raise damage(path, "missing", mend_of(path)) from error
        wanted = (min(BLOCK_TEXTS, len(self) - number * BLOCK_TEXTS), self.shape[1])
        if vectors.shape != wanted:
            raise DataError(
                f"{path}: holds {vectors.shape} numbers, but the model and the corpus need"
                f" {wanted}; delete {path.parent} and run the command again"
            )
        return vectors


def encode_blocks(
    store: EmbeddingStore,
    texts: Sequence[str],
    side: Side,
    *,
    part: tuple[int, int] = (1, 1),
    wait: bool = True,
    report: Reporter = SILENT,
) -> BlockedVectors:
    """Encode the blocks of `texts` that are missing, and return the vectors.

    Each distinct text of a block is encoded once.

    Args:
        part: (i, n): encode only the i-th of n parts of the blocks, counted from 1.
        wait: wait until all blocks of the part are there, including blocks of other processes.

    Raises:
        ModelError: an embedding is not finite; the error names its text.
        OutputError: a block cannot be written.
    """
    from filelock import FileLock, Timeout

    space = store.space(f"{side}-blocks")
    names = list(_block_names(texts))
    made = BlockedVectors(
        [space / f"{name}.vectors.npy" for name in names],
        len(texts),
        store.encoder.dimension,
        store.dtype,
    )
    mine = range(part[0] - 1, len(names), part[1])
    missing = [block for block in mine if not (space / f"{names[block]}.keys.npy").is_file()]
    store.hold(space, side)
    if missing:
        make_folder(space / "locks")
    with (
        Behind() as writer,
        report.bar(
            f"encode {side} blocks", len(mine), "blocks", len(mine) - len(missing)
        ) as bar,
    ):
        while missing:
            busy = []
            for block in missing:
                name = names[block]
                # The thread that writes the block opens the lock.
                lock = FileLock(space / "locks" / name, timeout=0, thread_local=False)
                try:
                    lock.acquire()
                except Timeout:
                    busy.append(block)
                    continue
                with ExitStack() as held:
                    held.callback(lock.release)
                    if not (space / f"{name}.keys.npy").is_file():
                        encoded = _encode_block(store, texts, block, side)
                        writer.start(partial(_write_block, store, encoded, side, name, lock))
                        held.pop_all()
                bar.advance()
            writer.wait()
            missing = busy
            if not missing or not wait:
                break
            time.sleep(WAIT_SECONDS)
    return made


def _encode_block(
    store: EmbeddingStore, texts: Sequence[str], block: int, side: Side
) -> tuple[np.ndarray, np.ndarray]:
    """The keys and vectors of a block."""
    wanted = list(texts[block * BLOCK_TEXTS : (block + 1) * BLOCK_TEXTS])
    keys, first, inverse = np.unique(text_keys(wanted), return_index=True, return_inverse=True)
    distinct = [wanted[row] for row in first.tolist()]
    vectors = store.encode(distinct, side)
    return keys[inverse], vectors[inverse].astype(store.dtype)


def _write_block(
    store: EmbeddingStore,
    encoded: tuple[np.ndarray, np.ndarray],
    side: Side,
    name: str,
    lock: "FileLock",
) -> None:
    """Write a block, and let other processes have it."""
    try:
        store.add(store.space(f"{side}-blocks"), *encoded, name)
    finally:
        lock.release()


def _block_names(texts: Sequence[str]) -> Iterator[str]:
    for start in range(0, len(texts), BLOCK_TEXTS):
        keys = text_keys(texts[start : start + BLOCK_TEXTS])
        yield hashlib.blake2b(keys.tobytes(), digest_size=16).hexdigest()
