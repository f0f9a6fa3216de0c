import numpy as np
import pytest

from hybridbatch.common.errors import ConfigError
from hybridbatch.debias.fit import Method
from hybridbatch.debias.methods import EVERY, Moments, unit_rows

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
    two = {"query": moments("eng", "swh"), "passage": sides["passage"]}
    maps = Method("lsar", rank=2).fit_sides(two)
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
    for name in ("eng", "swh"):
        np.testing.assert_array_equal(
            turn["query"].offsets[name], turn["passage"].offsets[name]
        )
    moved = passage.means[1] + (query.means[0] - passage.means[0]) / 2
    np.testing.assert_allclose(turn["query"].offsets["swh"], moved, atol=1e-6)


def test_a_language_without_queries_has_the_passages_mean_moved_by_the_others():
    query, passage = moments("eng", "deu", rows=9), moments("eng", "deu", "swh", rows=9)
    turn = Method(shrink=False).fit_sides({"query": query, "passage": passage})
    away = (query.means - passage.means[:2]).mean(axis=0)
    np.testing.assert_allclose(turn["query"].offsets["swh"], passage.means[2] + away, atol=1e-6)
    np.testing.assert_allclose(turn["query"].offsets["eng"], query.means[0], atol=1e-6)
    np.testing.assert_allclose(
        turn["query"].offsets[EVERY], passage.means.mean(axis=0) + away, atol=1e-6
    )


def test_sides_are_drawn_together_as_far_as_languages_can_be_told():
    """One query language and one passage a language: English cannot be told from the side."""
    query, passage = moments("eng", rows=9), moments("eng", "deu", "swh", rows=1)
    sides = {"query": query, "passage": passage}
    apart, both = (Method().fit_sides(sides, together=one) for one in (False, True))
    for side in sides:
        for name in ("eng", "deu", EVERY):
            np.testing.assert_allclose(
                both[side].offsets[name], apart[side].offsets[name], atol=1e-6
            )
    many = {"query": query, "passage": moments("eng", "deu", "swh", rows=500)}
    turn = Method().fit_sides(many, together=True)
    np.testing.assert_allclose(
        turn["query"].offsets["eng"], turn["passage"].offsets["eng"], atol=0.01
    )
    strangers = {"query": query, "passage": moments("deu", "swh")}
    maps = Method().fit_sides(strangers, together=True)
    assert set(maps["query"].languages) == {"deu", "eng", "swh"}


@pytest.mark.parametrize("method", ["centre", "lir", "whiten"])
def test_a_language_without_queries_is_joined_as_if_its_queries_lay_where_others_do(method):
    """Against moments of queries that are made up by moving its passages."""
    passages = {
        name: RNG.normal(size=(30, 6)) + RNG.normal(size=6) for name in ("eng", "deu", "swh")
    }
    away = RNG.normal(size=6)
    queries = {
        name: rows + away + side
        for (name, rows), side in zip(passages.items(), (0.2, -0.2, 0.0), strict=True)
    }
    how = Method(method, shrink=False)
    whole = {"passage": Moments.of(passages, True), "query": Moments.of(queries, True)}
    lacking = {**whole, "query": whole["query"].part(np.array([0, 1]))}
    wanted = how.fit_sides(whole, together=True)["query"]
    made = how.fit_sides(lacking, together=True)["query"]
    rows = passages["swh"]
    np.testing.assert_allclose(made.apply(rows, "swh"), wanted.apply(rows, "swh"), atol=1e-4)
    swapped = how.fit_sides(
        {"query": lacking["passage"], "passage": lacking["query"]}, together=True
    )
    np.testing.assert_allclose(
        swapped["query"].apply(rows, "swh"), wanted.apply(rows, "swh"), atol=1e-4
    )


def test_a_side_that_is_lacking_is_named():
    with pytest.raises(ConfigError, match="no vectors of queries"):
        Method().fit_sides({"passage": moments("eng")})
    assert set(Method("shift").fit_sides({"passage": moments("eng")})) == {"passage"}


def world(spread: float, seed: int, texts: int) -> tuple[dict, dict, np.ndarray]:
    """Texts to estimate from, documents to search, and questions: 8 languages that lie `spread` of
    a text's own spread from their middle, 60 documents that all of them have.
    """
    rng = np.random.default_rng([seed, texts])
    languages = [f"x{number}" for number in range(8)]
    away = {name: spread * rng.normal(size=24) for name in languages}
    known = {name: rng.normal(size=(texts, 24)) + away[name] for name in languages}
    topics = rng.normal(size=(60, 24))
    documents = {
        name: topics + 0.5 * rng.normal(size=topics.shape) + away[name] for name in languages
    }
    questions = topics + 0.5 * rng.normal(size=topics.shape) + away["x0"]
    return known, documents, questions


def precision(questions: np.ndarray, documents: dict) -> float:
    """Mean average precision in the pool of all languages."""
    pool = unit_rows(np.concatenate(list(documents.values())))
    scores = unit_rows(questions) @ pool.T
    own = np.stack([np.arange(60) + 60 * number for number in range(len(documents))], axis=1)
    relevant = np.take_along_axis(scores, own, axis=1)
    ranks = np.sort((scores[:, None, :] > relevant[:, :, None]).sum(axis=2) + 1, axis=1)
    return float((np.arange(1, len(documents) + 1) / ranks).mean())


@pytest.mark.parametrize("asked_in", [1, 8])
@pytest.mark.parametrize("spread", [0.0, 0.1, 0.3, 1.0])
def test_ten_sentences_help_where_languages_differ_and_never_hurt(spread, asked_in):
    """Against vectors that are left alone, for languages that lie together or far from each other,
    with queries in one language or in all. The plain means of ten sentences do hurt where languages
    lie together.
    """
    gains: dict[bool, list[float]] = {True: [], False: []}
    for seed in range(4):
        known, documents, questions = world(spread, seed, 10)
        before = precision(questions, documents)
        asked = {name: rows + 0.3 for name, rows in list(known.items())[:asked_in]}
        for shrink, found in gains.items():
            sides = {"query": Moments.of(asked), "passage": Moments.of(known)}
            maps = Method(shrink=shrink).fit_sides(sides, together=True)
            turned = {n: maps["passage"].apply(rows, n) for n, rows in documents.items()}
            found.append(precision(maps["query"].apply(questions, "x0"), turned) - before)
    gain, plain = np.mean(gains[True]), np.mean(gains[False])
    assert gain > -0.01
    assert gain >= plain
    if spread == 0.0:
        assert plain < gain - 0.004
    if spread == 1.0:
        assert gain > 0.4


@pytest.mark.parametrize("texts", [1, 2, 10, 100])
def test_a_shrunk_mean_is_no_farther_from_the_truth_than_either_alternative(texts):
    """Mean over draws of the squared distance: of the global mean, of the plain and the shrunk."""
    for spread in (0.0, 0.1, 0.3, 1.0):
        errors = np.zeros(3)
        for seed in range(30):
            rng = np.random.default_rng([seed, 1])
            truth = spread * rng.normal(size=(8, 24))
            drawn = {str(n): rng.normal(size=(texts, 24)) + row for n, row in enumerate(truth)}
            own = Moments.of(drawn)
            for place, made in enumerate((own.global_mean, own.means, own.shrunk_means())):
                errors[place] += ((made - truth) ** 2).sum()
        assert errors[2] <= 1.1 * min(errors[:2])
