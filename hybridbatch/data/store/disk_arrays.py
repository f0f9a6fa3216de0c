"""Arrays that grow on disk and are read in parts, for more rows than memory holds."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

CHUNK = 1 << 20  # values that are read together


class DiskArray:
    """Values of one type in a file; add them at the end, then read any part."""

    def __init__(self, path: Path, dtype: Any) -> None:
        self.path, self.dtype = path, np.dtype(dtype)
        self._length = 0
        self._file: Any = path.open("wb")

    def __len__(self) -> int:
        return self._length

    def append(self, values: np.ndarray) -> None:
        """Add values at the end."""
        self._file.write(np.ascontiguousarray(values, self.dtype).tobytes())
        self._length += len(values)

    def close(self) -> None:
        """Finish writing; reading does so, too."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def __getitem__(self, part: slice) -> np.ndarray:
        self.close()
        start, stop, _ = part.indices(self._length)
        size = self.dtype.itemsize
        return np.fromfile(self.path, self.dtype, max(0, stop - start), offset=start * size)

    def chunks(self) -> Iterator[np.ndarray]:
        """All values, in parts."""
        for start in range(0, self._length, CHUNK):
            yield self[start : start + CHUNK]


class NpyFile:
    """A file as `numpy.save` writes it, of a length that is known before."""

    def __init__(self, path: Path, dtype: Any, length: int) -> None:
        self._dtype = np.dtype(dtype)
        self._file: Any = path.open("wb")
        descr = np.lib.format.dtype_to_descr(self._dtype)
        header = {"descr": descr, "fortran_order": False, "shape": (length,)}
        np.lib.format.write_array_header_1_0(self._file, header)

    def append(self, values: np.ndarray) -> None:
        """Add values at the end."""
        self._file.write(np.ascontiguousarray(values, self._dtype).tobytes())

    def close(self) -> None:
        """Finish the file."""
        self._file.close()
