"""Passages of long documents: whole sentences, about a hundred words, without overlap.

Passages of a hundred words follow dense passage retrieval (Karpukhin et al. 2020,
arXiv:2004.04906). The cuts do not depend on the question. So two questions about one place share a
passage instead of having two overlapping passages, and the schedule keeps equal passages out of one
batch.
"""

import re
from bisect import bisect_right

WORDS = 100
_SENTENCE = re.compile(r".*?(?:[.!?][\"'”’)]*(?=\s)|\n|$)", re.DOTALL)
_WORD = re.compile(r"\w+")


def cut(document: str, words: int = WORDS) -> list[tuple[int, str]]:
    """(start, text) of the passages of a document.

    A passage ends with the sentence that reaches `words` words.
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
    """The passage that holds an answer word by word and shares the most words with the question.

    None if no passage holds an answer. Then the document expresses the answer in other words, and
    its place is unknown.
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
