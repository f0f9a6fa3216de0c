"""Cuts texts into sentences for translation, and joins the translations."""

from collections.abc import Sequence

from hybridbatch.common.languages import language

_UNSPACED = ("Hans", "Hant", "Jpan")  # scripts without white space between sentences


def split(text: str, code: str) -> list[tuple[str, str]]:
    """(sentence, white space after it) of a text in a canonical language.

    The rules of sentencex decide where a sentence ends. For an unknown language, sentencex uses the
    rules of a related language or of English.
    """
    import sentencex

    known = next((alias for alias in language(code).aliases if len(alias) == 2), code)
    sentences: list[str] = []
    spaces: list[str] = []
    for part in sentencex.segment(known, text):
        bare = part.strip()
        before, after = part[: len(part) - len(part.lstrip())], part[len(part.rstrip()) :]
        if spaces:
            spaces[-1] += before
        if bare:
            sentences.append(bare)
            spaces.append(after)
    return list(zip(sentences, spaces, strict=True))


def join(sentences: Sequence[str], spaces: Sequence[str], code: str) -> str:
    """The text of translated sentences in a canonical language, the target.

    Args:
        spaces: the white space after each sentence of the source; its line breaks are kept.
    """
    gap = "" if language(code).script in _UNSPACED else " "
    between = ["\n" * space.count("\n") or gap for space in spaces]
    return "".join(
        part for pair in zip(sentences, between, strict=True) for part in pair
    ).strip()
