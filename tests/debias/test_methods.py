import numpy as np
import pytest

from hybridbatch.common.errors import ConfigError, DataError
from hybridbatch.debias import methods
from hybridbatch.debias.cross_fit import cross_fit, fold_of_groups
from hybridbatch.debias.methods import EVERY, Moments


@pytest.fixture
def biased() -> dict[str, np.ndarray]:
    """Three languages of unit vectors that share a topic part and have a language part each."""
    rng = np.random.default_rng(5)
    topics = rng.normal(size=(60, 12))
    out = {}
    for name in ("deu", "eng", "swh"):
        rows = topics + 2 * rng.normal(size=12) + 0.3 * rng.normal(size=(60, 12)) + 1
        out[name] = methods.unit_rows(rows).astype(np.float32)
    return out


def unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def test_centring_by_language_subtracts_each_mean(biased):
    turn = methods.centre(biased, shrink=False)
    for name, rows in biased.items():
        dense = rows.astype(np.float64)
        expected = unit(dense - dense.mean(axis=0))
        np.testing.assert_allclose(turn.apply(rows, name), expected, atol=1e-6)


def test_global_centring_gives_every_language_the_same_weight(biased):
    uneven = {**biased, "eng": biased["eng"][:10]}
    turn = methods.centre(uneven, "global")
    means = np.stack([rows.astype(np.float64).mean(axis=0) for rows in uneven.values()])
    for name, rows in uneven.items():
        np.testing.assert_allclose(
            turn.apply(rows, name), unit(rows - means.mean(axis=0)), atol=1e-6
        )


@pytest.mark.parametrize("rank", [1, 3])
def test_lir_removes_the_right_singular_vectors_of_each_language(biased, rank):
    turn = methods.remove_directions(biased, rank, shrink=False)
    for name, rows in biased.items():
        dense = rows.astype(np.float64)
        right = np.linalg.svd(dense, full_matrices=False)[2][:rank]
        expected = unit(dense - dense @ right.T @ right)
        np.testing.assert_allclose(turn.apply(rows, name), expected, atol=2e-6)


@pytest.mark.parametrize("rank", [1, 2])
def test_lsar_splits_the_means_into_a_common_vector_and_a_subspace_orthogonal_to_it(
    biased, rank
):
    # algorithm 1 of arXiv:2401.05792, as it is written there, with a matrix of means [D, L]
    means = np.stack([rows.astype(np.float64).mean(axis=0) for rows in biased.values()], axis=1)
    ones = np.ones((3, 1))
    first = means @ ones / 3
    u, s, vt = np.linalg.svd(means - first @ ones.T, full_matrices=False)
    close = first @ ones.T + u[:, :rank] @ np.diag(s[:rank]) @ vt[:rank]
    inverse = np.linalg.pinv(close).T @ ones
    mu = inverse / np.linalg.norm(inverse) ** 2
    subspace = np.linalg.svd(close - mu @ ones.T, full_matrices=False)[0][:, :rank]
    np.testing.assert_allclose(subspace.T @ mu, 0, atol=1e-10)
    turn = methods.remove_subspace(biased, rank, shrink=False)
    for name, rows in biased.items():
        expected = unit(rows - rows @ subspace @ subspace.T)
        np.testing.assert_allclose(turn.apply(rows, name), expected, atol=2e-6)


def test_after_lsar_of_full_rank_all_languages_have_one_mean(biased):
    turn = methods.remove_subspace(biased, shrink=False)
    directions = turn.directions[EVERY]
    left = [
        rows.mean(axis=0) - rows.mean(axis=0) @ directions.T @ directions
        for rows in biased.values()
    ]
    np.testing.assert_allclose(left[0], left[1], atol=1e-6)
    np.testing.assert_allclose(left[0], left[2], atol=1e-6)


def test_shift_is_the_mean_difference_of_parallel_texts(biased):
    turn = methods.shift(biased, "eng", 0.5, shrink=False)
    for name, rows in biased.items():
        vector = (rows.astype(np.float64) - biased["eng"]).mean(axis=0)
        np.testing.assert_allclose(turn.apply(rows, name), unit(rows - 0.5 * vector), atol=1e-6)
    np.testing.assert_array_equal(turn.offsets["eng"], 0)


def test_shift_of_no_strength_changes_nothing(biased):
    turn = methods.shift(biased, "eng", 0.0)
    np.testing.assert_allclose(turn.apply(biased["swh"], "swh"), biased["swh"], atol=1e-6)


@pytest.mark.parametrize("scope", ["language", "global"])
def test_whitened_vectors_have_the_identity_as_covariance(biased, scope):
    turn = methods.whiten(biased, scope, shrink=False)
    white = []
    for name, rows in biased.items():
        known = turn.offsets.get(name, turn.offsets[EVERY])
        white.append((rows.astype(np.float64) - known) @ turn.matrix.T)
        np.testing.assert_allclose(turn.apply(rows, name), unit(white[-1]), atol=1e-5)
    pooled = np.concatenate(white)
    np.testing.assert_allclose(pooled.T @ pooled / len(pooled), np.eye(12), atol=1e-3)


def test_whitening_fewer_texts_than_dimensions_needs_shrinking(biased):
    few = {name: rows[:3] for name, rows in biased.items()}
    with pytest.raises(DataError, match="give more texts"):
        methods.whiten(few, shrink=False)
    assert np.isfinite(methods.whiten(few).apply(biased["eng"], "eng")).all()


def test_moments_collected_in_blocks_are_those_of_the_whole(biased, monkeypatch):
    monkeypatch.setattr(methods, "BLOCK_ROWS", 7)
    names = tuple(biased)
    mixed = np.concatenate(list(biased.values()))
    numbers = np.repeat(np.arange(3), 60)
    order = np.random.default_rng(1).permutation(len(mixed))
    blocks = Moments.empty(names, 12, products=True)
    blocks.add(mixed[order], numbers[order])
    whole = Moments.of(biased, products=True)
    for got, expected in zip(
        (blocks.counts, blocks.sums, blocks.squares, blocks.products),
        (whole.counts, whole.sums, whole.squares, whole.products),
        strict=True,
    ):
        np.testing.assert_allclose(got, expected, rtol=1e-12, atol=1e-12)


def test_the_weight_of_a_mean_grows_with_its_texts_and_is_that_of_the_variances():
    rng = np.random.default_rng(2)
    sizes = [2, 10, 100, 2000]
    tau, sigma, width = 0.5, 2.0, 64
    drawn: dict[str, np.ndarray] = {}
    for number in range(40):
        mean = tau * rng.normal(size=width)
        drawn[f"l{number}"] = mean + sigma * rng.normal(size=(sizes[number % 4], width))
    weights = Moments.of(drawn).weights()
    expected = [tau**2 / (tau**2 + sigma**2 / sizes[number % 4]) for number in range(40)]
    np.testing.assert_allclose(weights, expected, atol=0.04)


@pytest.mark.parametrize("texts", [1, 3, 10, 100])
def test_a_shrunk_mean_is_nearer_the_truth_than_the_plain_and_the_global_one(texts):
    rng = np.random.default_rng(3)
    truth = 0.2 * rng.normal(size=(30, 48))
    noise = {1: 400}.get(texts, texts)
    counts = [texts if number % 2 else noise for number in range(30)]
    drawn = {
        f"l{number}": truth[number] + rng.normal(size=(count, 48))
        for number, count in enumerate(counts)
    }
    moments = Moments.of(drawn)
    few = np.arange(30) % 2 == 1

    def error(means: np.ndarray) -> float:
        return float(((means - truth)[few] ** 2).sum(axis=1).mean())

    shrunk = error(moments.shrunk_means())
    assert shrunk <= error(moments.means)
    assert shrunk <= error(np.broadcast_to(moments.global_mean, truth.shape))


def test_languages_that_do_not_differ_get_the_global_mean():
    rng = np.random.default_rng(4)
    drawn = {f"l{number}": rng.normal(size=(5, 300)) for number in range(200)}
    assert Moments.of(drawn).weights().max() < 0.1


def test_one_text_of_each_language_gives_the_global_mean():
    drawn = {f"l{number}": np.eye(4)[number : number + 1] for number in range(4)}
    turn = methods.centre(drawn)
    np.testing.assert_allclose(turn.offsets["l2"], turn.offsets[EVERY])


def test_one_language_keeps_its_own_mean(biased):
    only = {"eng": biased["eng"]}
    np.testing.assert_array_equal(Moments.of(only).weights(), 1)
    turn = methods.centre(only)
    np.testing.assert_allclose(turn.offsets["eng"], turn.offsets[EVERY])


def test_a_language_without_vectors_is_turned_by_the_global_entry(biased):
    turn = methods.centre(biased)
    other = turn.apply(biased["swh"], "yor")
    expected = unit(biased["swh"] - turn.offsets[EVERY].astype(np.float64))
    np.testing.assert_allclose(other, expected, atol=1e-6)


def test_a_language_for_each_vector_gives_what_one_language_at_a_time_gives(biased):
    turn = methods.centre(biased)
    mixed = np.concatenate(list(biased.values()))
    names = np.repeat(list(biased), 60).tolist()
    expected = np.concatenate([turn.apply(rows, name) for name, rows in biased.items()])
    np.testing.assert_array_equal(turn.apply(mixed, names), expected)


def test_a_vector_that_is_its_own_mean_becomes_zero_not_nan():
    rows = {"eng": np.ones((1, 4), dtype=np.float32) / 2}
    np.testing.assert_array_equal(methods.centre(rows).apply(rows["eng"], "eng"), 0)


def test_bad_input_is_named(biased):
    with pytest.raises(DataError, match="there is none"):
        methods.centre({"eng": np.empty((0, 4))})
    with pytest.raises(DataError, match="vector 3 holds NaN"):
        methods.centre({"eng": np.where(np.arange(5)[:, None] == 3, np.nan, biased["eng"][:5])})
    with pytest.raises(DataError, match="another model"):
        methods.centre(biased).apply(np.ones((2, 5)), "eng")
    with pytest.raises(DataError, match="each needs one"):
        methods.centre(biased).apply(biased["eng"], ["eng"])
    with pytest.raises(ConfigError, match="from 1 to 2"):
        methods.remove_subspace(biased, 3)
    with pytest.raises(ConfigError, match="from 1 to 11"):
        methods.remove_directions(biased, 12)
    with pytest.raises(ConfigError, match="only in eng"):
        methods.remove_subspace({"eng": biased["eng"]})
    with pytest.raises(ConfigError, match="pivot = 'fra'"):
        methods.shift(biased, "fra")


def test_a_cross_fitted_vector_took_no_part_in_its_estimate(biased):
    folds = {name: np.arange(60) % 3 for name in biased}
    turned = cross_fit(biased, folds, lambda part: methods.centre(part, shrink=False))
    for name, rows in biased.items():
        for fold in range(3):
            own = folds[name] == fold
            expected = unit(rows[own] - rows[~own].astype(np.float64).mean(axis=0))
            np.testing.assert_allclose(turned[name][own], expected, atol=1e-6)


def test_groups_are_dealt_evenly_and_the_same_for_one_seed():
    names = [f"article {number}" for number in range(10)]
    folds = fold_of_groups(names * 3, 3, seed=13)
    assert sorted(np.bincount(list(folds.values())).tolist()) == [3, 3, 4]
    assert folds == fold_of_groups(names, 3, seed=13)
    assert folds != fold_of_groups(names, 3, seed=14)
    with pytest.raises(DataError, match="2 groups"):
        fold_of_groups(["a", "b"], 3, seed=13)
