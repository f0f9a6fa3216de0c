"""BM25 over texts of any language: a baseline for dense encoders and a source of hard negatives.

A *term* is a run of letters, marks and digits, in compatibility form (NFKC) and case-folded.
Apostrophes and hyphens separate words, however they are typed. Nothing is stemmed and no diacritic
is dropped, because both need to know the language, and in tonal languages another diacritic makes
another word.

Scripts without spaces between words (Han, kana, Thai, Lao, Khmer, Burmese and others) are cut into
overlapping pairs of neighbouring characters, as in Lucene's CJKAnalyzer. A character is then a
grapheme cluster, which is a letter with its marks. Tibetan separates syllables, and these are its
terms.
"""

import unicodedata
from collections.abc import Iterable, Sequence
from functools import cache
from itertools import pairwise
from typing import Any

import numpy as np

from hybridbatch.common.errors import DataError
from hybridbatch.common.files import fingerprint

K1, B = 0.9, 0.4  # of the BM25 baselines of Mr. TyDi and MIRACL (Anserini's defaults)
# Codes of the scripts without spaces between words, from ISO 15924.
UNSPACED = (
    "Hani",
    "Hira",
    "Kana",
    "Bopo",
    "Yiii",
    "Thai",
    "Laoo",
    "Khmr",
    "Mymr",
    "Tale",
    "Talu",
    "Lana",
    "Tavt",
)
# hyphenation, joiners, zero-width spaces
_INVISIBLE = dict.fromkeys((0xAD, 0x200B, 0x200C, 0x200D, 0x2060, 0xFEFF))


def bm25_fingerprint() -> str:
    """A hash of everything that the scores of BM25 depend on, except the texts."""
    return fingerprint(["bm25", K1, B, "lucene"], 64)


def terms(text: str) -> list[str]:
    """The terms of a text, in order, repeats included."""
    words, characters = _patterns()
    folded = unicodedata.normalize(
        "NFKC", unicodedata.normalize("NFKC", text).casefold()
    ).translate(_INVISIBLE)
    found: list[str] = []
    for match in words.finditer(folded):
        if match["unspaced"] is None:
            found.append(match[0])
        else:
            units = characters.findall(match[0])
            found += ["".join(pair) for pair in pairwise(units)] or units
    return found


@cache
def _patterns() -> tuple[Any, Any]:
    """Words (group "unspaced": a run of scripts without spaces), and grapheme clusters."""
    import regex

    unspaced = "".join(rf"\p{{Script_Extensions={code}}}" for code in UNSPACED)
    some = r"[\p{L}\p{N}]"  # each with its marks, some of which serve both kinds of script
    words = rf"(?V1)(?P<unspaced>(?:[{some}&&[{unspaced}]]\p{{M}}*)+)|(?:[{some}--[{unspaced}]]\p{{M}}*)+"
    return regex.compile(words), regex.compile(r"\X")


class BM25:
    """An index of n texts of one language: Lucene's BM25 (Kamphuis et al. 2020, ECIR, "accurate").

    The score of text d for query q is the sum over the terms t of q, repeats included, of ``log(1 +
    (n - df(t) + 0.5) / (df(t) + 0.5)) * tf(t, d) / (tf(t, d) + k1 * (1 - b + b * |d| / mean
    |d|))``. Here tf(t, d) is the number of times that t is in d, df(t) is the number of texts with
    t, and |d| is the number of terms of d.
    """

    def __init__(self, index: Any, vocabulary: dict[str, int], size: int) -> None:
        self._index = index  # bm25s.BM25; None where no text has a term
        self._vocabulary = vocabulary
        self._size = size

    @classmethod
    def build(cls, texts: Sequence[str], *, k1: float = K1, b: float = B) -> "BM25":
        """Index texts.

        For each different term of each text, the index takes about 75 bytes, and 125 while it is
        built.

        Raises:
            DataError: there is no text.
        """
        if not len(texts):
            raise DataError("BM25: there is no text to index")
        vocabulary: dict[str, int] = {}
        numbers = []
        for text in texts:
            found = terms(text)
            numbers.append([vocabulary.setdefault(term, len(vocabulary)) for term in found])
        if not vocabulary:
            return cls(None, vocabulary, len(texts))
        import bm25s

        index = bm25s.BM25(k1=k1, b=b, method="lucene")
        index.index((numbers, vocabulary), create_empty_token=False, show_progress=False)
        return cls(index, vocabulary, len(texts))

    def __len__(self) -> int:
        """n."""
        return self._size

    def scores(self, queries: Iterable[str]) -> np.ndarray:
        """float32 [Q, n]: the score of every text; 0 where it shares no term with the query."""
        rows = [self._scores(query) for query in queries]
        return np.stack(rows) if rows else np.empty((0, self._size), np.float32)

    def parts(self) -> tuple[tuple[str, ...], Any]:
        """The V terms, and how much each term of a query adds to the score of each text.

        The second is float32 csr [V, n], for a term that is in the query once.
        """
        from scipy.sparse import csr_array

        shape = (len(self._vocabulary), self._size)
        if self._index is None:
            return (), csr_array(shape, dtype=np.float32)
        found = self._index.scores
        return tuple(self._vocabulary), csr_array(
            (found["data"], found["indices"], found["indptr"]), shape=shape
        )

    def top(self, queries: Sequence[str], k: int) -> tuple[np.ndarray, np.ndarray]:
        """The best texts of each query, the best first, equal scores in the order of texts.

        Args:
            k: at least 1; cut to n.

        Returns:
            Numbers of texts, int64 [Q, k], and their scores, float32 [Q, k]. Texts that share no
            term with the query come last, with score 0.
        """
        k = min(k, self._size)
        numbers = np.empty((len(queries), k), np.int64)
        found = np.empty((len(queries), k), np.float32)
        for place, query in enumerate(queries):
            scores = self._scores(query)
            kth = np.partition(scores, self._size - k)[self._size - k]
            able = np.flatnonzero(scores > kth)
            tied = np.flatnonzero(scores == kth)[: k - len(able)]
            best = np.concatenate([able[np.argsort(-scores[able], kind="stable")], tied])
            numbers[place], found[place] = best, scores[best]
        return numbers, found

    def of(self, queries: Sequence[str], numbers: np.ndarray) -> np.ndarray:
        """float32 [Q]: the score of one text (int [Q]) for each query, as in `scores`."""
        found = np.zeros(len(queries), np.float32)
        for place, (query, number) in enumerate(zip(queries, numbers.tolist(), strict=True)):
            for term in self._known(query):
                first, last = self._index.scores["indptr"][term : term + 2]
                at = first + np.searchsorted(self._index.scores["indices"][first:last], number)
                if at < last and self._index.scores["indices"][at] == number:
                    found[place] += self._index.scores["data"][at]
        return found

    def _known(self, query: str) -> list[int]:
        return [self._vocabulary[term] for term in terms(query) if term in self._vocabulary]

    def _scores(self, query: str) -> np.ndarray:
        known = self._known(query)
        return (
            self._index.get_scores_from_ids(known)
            if known
            else np.zeros(self._size, np.float32)
        )
