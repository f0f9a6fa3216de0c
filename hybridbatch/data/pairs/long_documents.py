"""Passages of long documents: whole sentences, about a hundred words, none shared by two passages.

A hundred words are the passages of dense passage retrieval (Karpukhin et al. 2020,
arXiv:2004.04906). They are cut without looking at the question, so that two questions about one
place have the same passage, which the schedule keeps out of one batch, and not two that overlap.
"""

import re
from bisect import bisect_right

WORDS = 100
_SENTENCE = re.compile(r".*?(?:[.!?][\"'”’)]*(?=\s)|\n|$)", re.DOTALL)
_WORD = re.compile(r"\w+")


def cut(document: str, words: int = WORDS) -> list[tuple[int, str]]:
    """(start, text) of the passages of a document; each ends with the sentence that reaches `words`
    words.
    """
    passages: list[tuple[int, str]] = []
    start = count = 0
    for match in _SENTENCE.finditer(document):
        count += len(match[0].split())
        if count >= words or match.end() == len(document):
            if body := document[start : match.end()].strip():
                passages.append((start, body))
            start, count = match.end(), 0
    return passages


def passage_at(document: str, offset: int) -> str | None:
    """The passage that holds the character at `offset`; None if it is outside the document."""
    passages = cut(document)
    if not passages or not 0 <= offset < len(document):
        return None
    starts = [start for start, _ in passages]
    place = bisect_right(starts, offset) - 1
    return passages[max(0, place)][1]


def passage_with(document: str, answers: list[str], question: str) -> str | None:
    """Of the passages that hold an answer word by word, the one that shares most words with the
    question.

    None if no passage holds one: the answer is in other words than the document, and its place is
    not known.
    """
    asked = set(_WORD.findall(question.casefold()))
    stated = [answer for answer in answers if answer.strip()]

    def shared_words(body: str) -> int:
        return len(asked.intersection(_WORD.findall(body.casefold())))

    best: str | None = None
    for _, body in cut(document):
        holds_answer = any(answer in body for answer in stated)
        if holds_answer and (best is None or shared_words(body) > shared_words(best)):
            best = body
    return best
