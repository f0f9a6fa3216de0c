"""Stored vectors seen through language vectors: turned as they are read, never written."""

from typing import Any

import numpy as np

from hybridbatch.debias.vectors_file import LanguageVectors
from hybridbatch.search.vectors import Vectors


class DebiasedPassages:
    """[P, D] float32: the stored passages of one language, without what tells it.

    As much of an array as search needs (`hybridbatch.search.vectors.Vectors`).
    """

    dtype = np.dtype(np.float32)

    def __init__(self, stored: Vectors, vectors: LanguageVectors, language: str) -> None:
        self.stored, self.vectors, self.language = stored, vectors, language
        self.shape = tuple(stored.shape)

    def __len__(self) -> int:
        return len(self.stored)

    def __getitem__(self, rows: Any) -> np.ndarray:
        """[n, D] of a slice, or of ascending row numbers."""
        return self.vectors.apply(np.asarray(self.stored[rows]), "passage", self.language)
