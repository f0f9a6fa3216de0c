"""Texts that are in one another, exactly or nearly: an index of known texts, against which any
number are streamed.

A text's *normal form* is its letters, marks and digits alone, so that case, punctuation and spacing
do not count. Forms are compared by their shingles, all runs of eight units; a unit is a letter, and
a Han character counts as three, for it says as much. So one rule serves every script, with or
without spaces between words.

The overlap of two texts is the share of the shorter one's shingles found in the best stretch of the
longer: the overlap coefficient |A ∩ B| / min(|A|, |B|), where the longer text is a window little
longer than the shorter text. Not the Jaccard index |A ∩ B| / |A ∪ B| that MinHash estimates: that
of a sentence in a passage of ten is 0.1. The known texts are few enough to be indexed as they are;
a sample of their shingles (those with small hashes, as in FracMinHash, Irber et al. 2022, bioRxiv
2022.01.11.475838) finds candidates, and all shingles decide. docs/decontamination.md has the
evidence.
"""

import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import pairwise

import numpy as np

SHINGLE = 8  # units: one or two words, so that an edited word spoils few shingles
LEAST_EXACT = 10  # units; shorter texts ("See also") are equal by chance
# units; shorter questions differ in one name only ("What is the capital of Haiti?")
LEAST_NEAR = 40
# overlap; measured: a word of a question, or two of a sentence, may differ; different texts lie
# below
NEAR = 0.6
_WINDOW = 1.25  # length of the stretch of the longer text, in lengths of the shorter text
_SAMPLING = 4  # one shingle of so many is looked up
_COMMON = 64  # a shingle in more known texts than that is a phrase, and finds no candidates
# share of the sampled shingles that makes a candidate: low, for a sample is a noisy estimate
_LIKELY = NEAR / 2
_BLOCK_LETTERS = 1 << 21
# Units of a letter by Unicode block; 1 elsewhere. Syllables say about two letters, Han characters
# about three.
_UNITS = (
    (0x1200, 0x1680, 2),
    (0x3041, 0x3100, 2),
    (0x3400, 0xA000, 3),
    (0xA000, 0xA4D0, 2),
    (0x20000, 0x32400, 3),
)
# odd constants; any good ones will do
_BASE, _MIXER = np.uint64(0x9E3779B97F4A7C15), np.uint64(0xD6E8FEB86659FD93)


def overlap(form: str, other: str) -> float:
    """The overlap of two normal forms, 0 to 1; 0 where one is shorter than a shingle."""
    shorter, longer = sorted((_shingles([form])[0], _shingles([other])[0]), key=len)
    places = np.flatnonzero(np.isin(longer, shorter))
    if not len(places):
        return 0.0
    in_window = np.searchsorted(places, places + _WINDOW * len(shorter)) - np.arange(len(places))
    # fewer than in the window where a phrase is said again and again
    found = np.isin(shorter, longer).sum()
    return float(min(in_window.max(), found) / len(shorter))


@dataclass(frozen=True, slots=True)
class Match:
    """A text that is, or has in it, or is in a known text."""

    text: int  # number among the texts asked about
    known: int  # number among the known texts
    exact: bool  # their normal forms are equal
    overlap: float  # NEAR to 1


class _Letters(dict[int, int | None]):
    """A table for `str.translate` that keeps letters, marks and digits; filled as characters come."""

    def __missing__(self, code: int) -> int | None:
        self[code] = code if unicodedata.category(chr(code))[0] in "LMN" else None
        return self[code]


_LETTERS = _Letters()


def normal_form(text: str) -> str:
    """The letters, marks and digits of `text`, decomposed (NFKD) and case-folded."""
    return unicodedata.normalize("NFKD", text).casefold().translate(_LETTERS)


class OverlapIndex:
    """Known texts, to be found in others.

    Memory: the forms, and for each of their letters about 5 bytes.
    """

    def __init__(self, forms: Sequence[str]) -> None:
        """Args: forms: distinct normal forms."""
        self._forms = forms
        self._exact = {form: number for number, form in enumerate(forms)}
        hashes, owners = _sampled(forms)
        order = np.lexsort((owners, hashes))
        hashes, owners = hashes[order], owners[order]
        self._hashes, self._starts, self._counts = np.unique(
            hashes, return_index=True, return_counts=True
        )
        telling = np.repeat(self._counts <= _COMMON, self._counts)
        self._owners = owners
        self._telling = np.bincount(owners[telling], minlength=len(forms))  # of each known text

    def matches(self, forms: Sequence[str]) -> list[Match]:
        """All matches of some normal forms, in their order."""
        found = [
            Match(number, self._exact[form], exact=True, overlap=1.0)
            for number, form in enumerate(forms)
            if form in self._exact and units(form) >= LEAST_EXACT
        ]
        for text, known in self._candidates(forms):
            if forms[text] != self._forms[known]:
                share = overlap(forms[text], self._forms[known])
                if share >= NEAR:
                    found.append(Match(text, known, exact=False, overlap=share))
        return sorted(found, key=lambda match: (match.text, match.known))

    def _candidates(self, forms: Sequence[str]) -> Iterator[tuple[int, int]]:
        """(text, known text) that share enough of their telling sampled shingles."""
        if not len(self._hashes):
            return iter(())
        hashes, texts = _sampled(forms)
        place = np.minimum(np.searchsorted(self._hashes, hashes), len(self._hashes) - 1)
        known = self._hashes[place] == hashes
        common = known & (self._counts[place] > _COMMON)
        telling = np.bincount(texts[~common], minlength=len(forms))
        place, texts = place[known & ~common], texts[known & ~common]
        counts = self._counts[place]
        ends = np.cumsum(counts)
        posting = np.arange(ends[-1] if len(ends) else 0) + np.repeat(
            self._starts[place] - ends + counts, counts
        )
        pairs = np.repeat(texts, counts) * len(self._forms) + self._owners[posting]
        pairs, shared = np.unique(pairs, return_counts=True)
        texts, owners = np.divmod(pairs, len(self._forms))
        likely = shared >= _LIKELY * np.minimum(telling[texts], self._telling[owners])
        return zip(texts[likely].tolist(), owners[likely].tolist(), strict=True)


def _sampled(forms: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """The sampled shingles of the forms of `LEAST_NEAR` units and more, each once a form: (hashes,
    forms' numbers).
    """
    hashes, owners = [np.empty(0, np.uint64)], [np.empty(0, np.int64)]
    for first, last in pairwise(_blocks(forms)):
        shingles, owner = _shingles(forms[first:last])
        long = np.bincount(owner, minlength=last - first) > LEAST_NEAR - SHINGLE
        kept = (shingles < np.uint64(2**64 // _SAMPLING)) & long[owner]
        shingles, owner = shingles[kept], owner[kept]
        order = np.lexsort((shingles, owner))
        shingles, owner = shingles[order], owner[order]
        again = np.zeros(len(owner), bool)
        again[1:] = (shingles[1:] == shingles[:-1]) & (owner[1:] == owner[:-1])
        hashes.append(shingles[~again])
        owners.append(owner[~again] + first)
    return np.concatenate(hashes), np.concatenate(owners)


def _blocks(forms: Sequence[str]) -> list[int]:
    """Bounds of runs of forms with about `_BLOCK_LETTERS` together."""
    letters = np.cumsum([0, *map(len, forms)])
    bounds = np.searchsorted(letters, np.arange(0, letters[-1], _BLOCK_LETTERS))
    return [*np.unique(bounds).tolist(), len(forms)]


def _shingles(forms: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """The hash of every shingle in order, and the number of its form: uint64 [n], int64 [n]."""
    letters = np.frombuffer("".join(forms).encode("utf-32-le", "surrogatepass"), np.uint32)
    repeats = _unit_table()[letters]
    owner = np.repeat(np.arange(len(forms)), [len(form) for form in forms])
    spread, owner = np.repeat(letters, repeats).astype(np.uint64), np.repeat(owner, repeats)
    count = max(0, len(spread) - SHINGLE + 1)
    hashes = np.zeros(count, np.uint64)
    for place in range(SHINGLE):
        hashes = hashes * _BASE + spread[place : place + count]
    hashes ^= hashes >> np.uint64(32)
    hashes *= _MIXER
    hashes ^= hashes >> np.uint64(32)
    whole = owner[:count] == owner[SHINGLE - 1 :][:count]
    return hashes[whole], owner[:count][whole]


def units(form: str) -> int:
    """Length of a normal form in units."""
    return int(_unit_table()[[ord(letter) for letter in form]].sum())


@cache
def _unit_table() -> np.ndarray:
    """uint8: units of every code point."""
    table = np.ones(0x110000, np.uint8)
    for first, last, count in _UNITS:
        table[first:last] = count
    return table
