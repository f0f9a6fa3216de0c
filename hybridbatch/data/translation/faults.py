"""Faults of a translation that can be found without understanding it."""

from typing import Literal

from hybridbatch.common.languages import language
from hybridbatch.data.filters.language_id import identifier, long_enough

Fault = Literal["empty", "copy", "length", "repetition", "wrong_language"]
FAULTS: tuple[Fault, ...] = ("empty", "copy", "length", "repetition", "wrong_language")
# Letters and digits of a translation per letter or digit of the English text: medians over the
# 1,997 lines of NTREX-128 (arXiv:2212.05604) and over the languages of a script.
_LETTERS = {
    "Arab": 0.94, "Beng": 0.63, "Cyrl": 1.09, "Deva": 0.66, "Ethi": 0.64, "Geor": 1.13, "Grek": 1.23, "Gujr": 0.61,
    "Guru": 0.60, "Hang": 0.49, "Hans": 0.38, "Hant": 0.36, "Hebr": 0.79, "Jpan": 0.52, "Khmr": 0.83, "Knda": 0.68,
    "Laoo": 0.89, "Mlym": 0.80, "Sinh": 0.70, "Taml": 0.81, "Telu": 0.60, "Thaa": 0.69, "Thai": 0.90, "Tibt": 0.70,
}  # fmt: skip
_LETTERS_ELSEWHERE = 1.1
# factor on the expected length, and a difference in letters that is always allowed
LONGEST, SLACK = 2.5, 10
GRAM, REPEATED, FEWEST_GRAMS = 10, 0.4, 8


def fault(
    source: str, translation: str, source_language: str, target_language: str
) -> Fault | None:
    """The first fault of a translation, or None.

    - ``empty``: no letter or digit.
    - ``copy``: equal to the source, apart from case and punctuation. Short texts are not judged,
      because they may be names.
    - ``length``: more than `LONGEST` times longer or shorter than usual between the scripts, and by
      more than `SLACK` letters.
    - ``repetition``: `repeated` exceeds `REPEATED`, and exceeds the source's value by half of
      `REPEATED`.
    - ``wrong_language``: see `language_id.LanguageIdentifier.is_wrong`.
    """
    letters, expected = _letters(translation), _letters(source)
    if not letters:
        return "empty"
    if letters == expected and long_enough(source):
        return "copy"
    usual = len(expected) / _ratio(source_language) * _ratio(target_language)
    if len(letters) > LONGEST * usual + SLACK or len(letters) < usual / LONGEST - SLACK:
        return "length"
    share = repeated(letters)
    if share > REPEATED and share > repeated(expected) + REPEATED / 2:
        return "repetition"
    if identifier().is_wrong(translation, target_language):
        return "wrong_language"
    return None


def repeated(letters: str) -> float:
    """The share of a text's sequences of `GRAM` letters that occurred earlier in the text.

    Short texts have 0.
    """
    grams = len(letters) - GRAM + 1
    if grams < FEWEST_GRAMS:
        return 0.0
    return 1 - len({letters[start : start + GRAM] for start in range(grams)}) / grams


def _letters(text: str) -> str:
    return "".join(letter for letter in text.casefold() if letter.isalnum())


def _ratio(code: str) -> float:
    return _LETTERS.get(language(code).script, _LETTERS_ELSEWHERE)
