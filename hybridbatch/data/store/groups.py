"""Groups of records that share a text, for any number of rows.

`sampling.index.shared_text_groups` gives the same groups for rows in memory.
"""

from pathlib import Path

import numpy as np

from hybridbatch.data.store.disk_arrays import CHUNK, DiskArray

PART_PAIRS = 1 << 22  # pairs of text and record that are sorted together
MOST_PARTS = 128  # files of one kind of text that are open together
_PAIR = np.dtype([("text", "<u8"), ("record", "<i8")])


class TextPairs:
    """Pairs of the hash of a text and its record, in parts by the hash."""

    def __init__(self, folder: Path, name: str, pairs: int) -> None:
        """Set the folder of the parts, and the number of pairs that is expected."""
        count = min(MOST_PARTS, max(1, -(-pairs // PART_PAIRS)))
        self.parts = [DiskArray(folder / f"{name}-{part}", _PAIR) for part in range(count)]

    def append(self, texts: np.ndarray, records: np.ndarray) -> None:
        """Add pairs; a hash of 0 stands for no text (uint64 [n], int64 [n])."""
        there = np.flatnonzero(texts)
        pairs = np.empty(len(there), _PAIR)
        pairs["text"], pairs["record"] = texts[there], records[there]
        home = pairs["text"] % np.uint64(len(self.parts))
        for number, part in enumerate(self.parts):
            part.append(pairs[home == number])


def groups_of(pairs: list[TextPairs], records: int) -> np.ndarray:
    """int32 [records]: the group of each record, numbered by its first record.

    Memory is eight bytes a record, and one part of the pairs.
    """
    kind = np.int32 if records < 2**31 else np.int64
    parent = np.arange(records, dtype=kind)  # a forest; each tree's root is its first record
    for one in pairs:
        for part in one.parts:
            _join(parent, part[:])
            part.path.unlink()
    number = np.zeros(records, kind)
    found = 0
    for start in range(0, records, CHUNK):
        chunk = slice(start, min(start + CHUNK, records))
        parent[chunk] = _roots(parent, np.arange(chunk.start, chunk.stop))
        is_root = parent[chunk] == np.arange(chunk.start, chunk.stop)
        number[chunk][is_root] = found + np.arange(int(is_root.sum()))
        found += int(is_root.sum())
    for start in range(0, records, CHUNK):
        chunk = slice(start, start + CHUNK)
        parent[chunk] = number[parent[chunk]]
    return parent.astype(np.int32, copy=False)


def _join(parent: np.ndarray, pairs: np.ndarray) -> None:
    """Join the trees of records that have a text in common."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    pairs = pairs[np.argsort(pairs["text"], kind="stable")]
    same = pairs["text"][1:] == pairs["text"][:-1]
    left = _roots(parent, pairs["record"][:-1][same])
    right = _roots(parent, pairs["record"][1:][same])
    differ = left != right
    left, right = left[differ], right[differ]
    if not len(left):
        return
    trees, place = np.unique(np.concatenate([left, right]), return_inverse=True)
    ends = place[: len(left)], place[len(left) :]
    links = coo_array((np.ones(len(left), np.int8), ends), shape=(len(trees), len(trees)))
    label = connected_components(links, directed=False)[1]
    # Trees ascend, so the first of a component is its smallest.
    _, first = np.unique(label, return_index=True)
    parent[trees] = trees[first][label]


def _roots(parent: np.ndarray, records: np.ndarray) -> np.ndarray:
    """The root of the tree of each record."""
    found = parent[records]
    while True:
        above = parent[found]
        if np.array_equal(above, found):
            return found
        found = above
