"""Finds texts that contain one another, exactly or nearly, by an index of known texts.

A text's *normal form* keeps only its letters, marks and digits, so that case, punctuation and
spacing do not count. Forms are compared by their shingles, which are all runs of eight units. A
letter is one unit. A Han character is three units, because it carries as much information as three
letters. So one rule serves every script, with or without spaces between words.

The overlap of two texts is the share of the shorter text's shingles that occur in the best stretch
of the longer text. It is the overlap coefficient |A ∩ B| / min(|A|, |B|), where the longer text is
reduced to a window slightly longer than the shorter text. The Jaccard index |A ∩ B| / |A ∪ B|,
which MinHash estimates, does not fit: for a sentence in a passage of ten sentences it is 0.1.

The known texts are few enough to be indexed as they are. A sample of their shingles (those with
small hashes, as in FracMinHash, Irber et al. 2022, bioRxiv 2022.01.11.475838) finds candidates, and
all shingles decide. docs/decontamination.md has the evidence.
"""

import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import pairwise

import numpy as np

SHINGLE = 8  # units: one or two words, so that an edited word spoils few shingles
LEAST_EXACT = 10  # units; shorter texts ("See also") are equal by chance
# units; shorter questions may differ in one name only ("What is the capital of Haiti?")
LEAST_NEAR = 40
# overlap; measured: one word of a question, or two of a sentence, may differ, and different
# texts score lower
NEAR = 0.6
_WINDOW = 1.25  # length of the stretch of the longer text, in lengths of the shorter text
_SAMPLING = 4  # one of so many shingles is looked up
_COMMON = 64  # a shingle in more known texts is a common phrase, and finds no candidates
# share of the sampled shingles that makes a candidate; low, because a sample is a noisy estimate
_LIKELY = NEAR / 2
_BLOCK_LETTERS = 1 << 21
# Units of a letter by Unicode block; 1 elsewhere. A syllable is worth about two letters, and a Han
# character about three.
_UNITS = (
    (0x1200, 0x1680, 2),
    (0x3041, 0x3100, 2),
    (0x3400, 0xA000, 3),
    (0xA000, 0xA4D0, 2),
    (0x20000, 0x32400, 3),
)
# odd constants without special meaning
_BASE, _MIXER = np.uint64(0x9E3779B97F4A7C15), np.uint64(0xD6E8FEB86659FD93)


def overlap(form: str, other: str) -> float:
    """The overlap of two normal forms, from 0 to 1; 0 if one is shorter than a shingle."""
    shorter, longer = sorted((_shingles([form])[0], _shingles([other])[0]), key=len)
    places = np.flatnonzero(np.isin(longer, shorter))
    if not len(places):
        return 0.0
    in_window = np.searchsorted(places, places + _WINDOW * len(shorter)) - np.arange(
        len(places)
    )
    # fewer than the window has if a phrase is repeated
    found = np.isin(shorter, longer).sum()
    return float(min(in_window.max(), found) / len(shorter))


@dataclass(frozen=True, slots=True)
class Match:
    """A text that equals, contains, or is contained in a known text."""

    text: int  # number of the given text
    known: int  # number of the known text
    exact: bool  # whether their normal forms are equal
    overlap: float  # NEAR to 1


class _Letters(dict[int, int | None]):
    """A table for `str.translate` that keeps letters, marks and digits; it fills itself on demand."""

    def __missing__(self, code: int) -> int | None:
        self[code] = code if unicodedata.category(chr(code))[0] in "LMN" else None
        return self[code]


_LETTERS = _Letters()


def normal_form(text: str) -> str:
    """The letters, marks and digits of `text`, decomposed (NFKD) and case-folded."""
    return unicodedata.normalize("NFKD", text).casefold().translate(_LETTERS)


class OverlapIndex:
    """An index that finds known texts in other texts.

    Memory is the forms, and about 5 bytes for each of their letters.
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
        """All matches of some normal forms, in the order of the forms."""
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
        """(text, known text) that share enough of their informative sampled shingles."""
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
    """The sampled shingles of forms of at least `LEAST_NEAR` units, each once a form.

    Returns:
        The hashes and the numbers of their forms.
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
    """Bounds of runs of forms that have about `_BLOCK_LETTERS` letters together."""
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
