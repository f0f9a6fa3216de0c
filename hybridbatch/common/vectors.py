"""The check that every encoder's vectors pass."""

from collections.abc import Sequence

import numpy as np

from hybridbatch.common.errors import ModelError


def require_finite_embeddings(vectors: np.ndarray, texts: Sequence[str], model: str) -> None:
    """Raise `ModelError` naming the first of `texts` whose row of `vectors` [n, D] is not finite.

    Args:
        model: name of the model that made the vectors.
    """
    bad = np.flatnonzero(~np.isfinite(vectors).all(axis=1))
    if len(bad):
        raise ModelError(
            f"{model}: {len(bad)} of {len(texts)} embeddings are not finite numbers (the"
            f" first is of the text {texts[bad[0]][:60]!r}); the weights are damaged,"
            " training diverged, or bf16 overflows (try --precision fp32 to find out)"
        )
