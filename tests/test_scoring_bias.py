"""Language bias, computed by hand."""

import numpy as np
import pytest

from hybridbatch.errors import DataError
from hybridbatch.scoring import bias


def test_rank_distance_is_greatest_minus_smallest_rank() -> None:
    ranks = np.array([[3, 9, 1], [4, 0, 6], [0, 7, 0]])
    assert bias.rank_distance(ranks).tolist() == [8, 2, 0]
    with pytest.raises(DataError, match="row 1"):
        bias.rank_distance(np.array([[1], [0]]))


def test_language_distribution_counts_the_first_k() -> None:
    top = np.array([[0, 0, 2, 1], [2, 2, 2, 2]])
    assert bias.language_distribution(top, 3).tolist() == [[0.5, 0.25, 0.25], [0, 0, 1]]
    assert bias.same_language_share(top, 2).tolist() == [0.25, 1]
