"""Cross-fitting: every vector is turned by an estimate that was made without it."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from hybridbatch.common.errors import DataError
from hybridbatch.common.seeding import stream
from hybridbatch.debias.methods import Debiasing, Embeddings

Fit = Callable[[Embeddings], Debiasing]


def fold_of_groups(groups: Sequence[str], folds: int, seed: int) -> dict[str, int]:
    """Deal distinct groups (articles, documents) into folds: shuffled, then in turn.

    Raises:
        DataError: fewer groups than folds.
    """
    names = sorted(set(groups))
    if len(names) < folds:
        raise DataError(
            f"{len(names)} groups cannot be dealt into {folds} folds; use fewer folds"
        )
    order = stream(seed, "cross-fitting").permutation(len(names))
    return {names[number]: place % folds for place, number in enumerate(order.tolist())}


def cross_fit(
    vectors: Embeddings, folds: Mapping[str, np.ndarray], fit: Fit
) -> dict[str, np.ndarray]:
    """Turn every vector by the map that `fit` estimates from the *other* folds.

    Args:
        vectors: [n, D] by language.
        folds: int [n] by language, the fold of each vector. Texts with the same meaning must be in
            one fold, whatever their language.

    Returns:
        float32 [n, D] by language.

    Raises:
        DataError: fewer than two folds.
    """
    numbers = sorted(set(np.concatenate(list(folds.values())).tolist()))
    if len(numbers) < 2:
        raise DataError("cross-fitting needs texts in two folds or more")
    out = {name: np.empty(rows.shape, dtype=np.float32) for name, rows in vectors.items()}
    for number in numbers:
        turn = fit({name: rows[folds[name] != number] for name, rows in vectors.items()})
        for name, rows in vectors.items():
            own = folds[name] == number
            out[name][own] = turn.apply(rows[own], name)
    return out
