import numpy as np
import pytest

from hybridbatch.common.errors import ConfigError
from hybridbatch.debias.fit import Method
from hybridbatch.debias.methods import Moments, unit_rows

RNG = np.random.default_rng(9)


def moments(*languages: str, rows: int = 12) -> Moments:
    return Moments.of(
        {name: unit_rows(RNG.normal(size=(rows, 6)) + RNG.normal(size=6)) for name in languages}
    )


def test_lsar_of_questions_in_one_language_uses_the_subspace_of_the_passages():
    sides = {"query": moments("eng"), "passage": moments("eng", "swh", "tir")}
    maps = Method("lsar").fit_sides(sides)
    np.testing.assert_array_equal(
        maps["query"].directions["eng"], maps["passage"].directions["eng"]
    )
    with pytest.raises(ConfigError, match="only in eng"):
        Method("lsar").fit_sides({"query": moments("eng"), "passage": moments("eng")})


def test_together_weighs_both_sides_alike_whatever_their_numbers():
    query, passage = moments("eng", rows=4), moments("eng", "swh", rows=40)
    turn = Method(shrink=False).fit_sides({"query": query, "passage": passage}, together=True)
    expected = (query.means[0] + passage.means[0]) / 2
    np.testing.assert_allclose(turn["query"].offsets["eng"], expected, atol=1e-6)
    np.testing.assert_allclose(turn["query"].offsets["swh"], passage.means[1], atol=1e-6)


def test_a_side_that_is_lacking_is_named():
    with pytest.raises(ConfigError, match="no vectors of queries"):
        Method().fit_sides({"passage": moments("eng")})
    assert set(Method("shift").fit_sides({"passage": moments("eng")})) == {"passage"}
