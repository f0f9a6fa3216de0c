"""BM25 against its formula computed term by term, and what counts as a term in the scripts of the
world.
"""

import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hybridbatch.common.errors import DataError
from hybridbatch.search.bm25 import BM25, terms


def formula(texts: list[list[str]], query: list[str], k1: float, b: float) -> list[float]:
    mean = sum(map(len, texts)) / len(texts)
    scores = []
    for text in texts:
        score = 0.0
        for term in query:
            df = sum(term in other for other in texts)
            tf = Counter(text)[term]
            idf = math.log(1 + (len(texts) - df + 0.5) / (df + 0.5))
            score += idf * tf / (tf + k1 * (1 - b + b * len(text) / mean)) if tf else 0.0
        scores.append(score)
    return scores


words = st.lists(st.sampled_from("abcdefgh"), max_size=9)


@settings(deadline=None, max_examples=60)
@given(texts=st.lists(words, min_size=1, max_size=12), query=words, k=st.integers(1, 14))
def test_scores_and_order_are_those_of_the_formula(texts, query, k):
    index = BM25.build([" ".join(text) for text in texts], k1=1.2, b=0.75)
    scores = index.scores([" ".join(query)])
    assert scores.dtype == np.float32
    assert scores.shape == (1, len(texts))
    if any(texts):
        np.testing.assert_allclose(
            scores[0], formula(texts, query, 1.2, 0.75), rtol=1e-5, atol=1e-6
        )
    numbers, found = index.top([" ".join(query)], k)
    order = sorted(range(len(texts)), key=lambda text: (-scores[0][text], text))[:k]
    assert numbers.dtype == np.int64
    assert numbers[0].tolist() == order
    assert found[0].tolist() == scores[0][order].tolist()
    every = np.arange(len(texts))
    assert index.of([" ".join(query)] * len(texts), every).tolist() == scores[0].tolist()


def test_the_default_parameters_are_those_of_the_published_baselines():
    texts = ["a b b", "b c", "c c c a"]
    expected = formula([text.split() for text in texts], ["a", "c"], 0.9, 0.4)
    np.testing.assert_allclose(BM25.build(texts).scores(["a c"])[0], expected, rtol=1e-6)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("The Quick-brown fox, 42!", ["the", "quick", "brown", "fox", "42"]),
        ("Straße STRASSE", ["strasse", "strasse"]),
        ("e\u0301te\u0301 ÉTÉ", ["été", "été"]),
        ("ọ̀rọ̀ Ọ̀RỌ̀", ["ọ̀rọ̀", "ọ̀rọ̀"]),  # a mark without a composed form stays with its letter
        ("हिन्दी भाषा", ["हिन्दी", "भाषा"]),
        ("ሰላም፡ዓለም።", ["ሰላም", "ዓለም"]),
        ("می\u200cخواهم میخواهم", ["میخواهم", "میخواهم"]),
        ("서울은 수도", ["서울은", "수도"]),
        ("北京大学", ["北京", "京大", "大学"]),
        ("水", ["水"]),
        ("GPU東京2020年", ["gpu", "東京", "2020", "年"]),
        ("コーヒー", ["コー", "ーヒ", "ヒー"]),
        ("ﾃﾞｰﾀ １２", ["デー", "ータ", "12"]),  # half-width kana, full-width digits
        ("ที่นี่", ["ที่นี่"]),  # two clusters, one pair
        ("ภาษาไทย", ["ภา", "าษ", "ษา", "าไ", "ไท", "ทย"]),
        ("ภาษา\u200bไทย", ["ภา", "าษ", "ษา", "าไ", "ไท", "ทย"]),
        ("བོད་སྐད", ["བོད", "སྐད"]),
        ("…—!", []),
    ],
)
def test_terms(text, expected):
    assert terms(text) == expected


@pytest.mark.parametrize("text", ["ភាសាខ្មែរ", "မြန်မာဘာသာ", "ພາສາລາວ", "日本語の文"])
def test_unspaced_texts_find_their_parts(text):
    found = terms(text)
    assert len(found) > 2
    numbers, scores = BM25.build(["something else", text, "42"]).top(
        [text[: len(text) // 2 + 1]], 3
    )
    assert numbers[0].tolist() == [1, 0, 2]
    assert scores[0][0] > 0 == scores[0][1] == scores[0][2]


def test_nothing_to_index_is_refused_and_texts_without_terms_are_not():
    with pytest.raises(DataError, match="no text to index"):
        BM25.build([])
    numbers, scores = BM25.build(["...", "!"]).top(["a", "?"], 5)
    assert numbers.tolist() == [[0, 1], [0, 1]]
    assert not scores.any()
    assert BM25.build(["a"]).scores([]).shape == (0, 1)
