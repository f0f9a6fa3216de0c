"""Lists of passages for a language model to rank: windows, prompt, and reading its answer. Pure."""

import re
from collections.abc import Sequence

WINDOW, STEP = 20, 10  # as RankGPT, section 4
_BRACKETED = re.compile(r"\[\s*(\d+)\s*\]")
_NUMBER = re.compile(r"\d+")
_THOUGHT = re.compile(r"<think>.*?(</think>|$)", re.DOTALL)


def windows(count: int, size: int = WINDOW, step: int = STEP) -> list[tuple[int, int]]:
    """The (start, end) of the windows that slide over `count` passages from the last to the first,
    which the last holds.

    What is best in one window is among the first `step` of it, so it is in the next one too and can
    rise to the top.
    Source: Sun et al., "Is ChatGPT Good at Search?", EMNLP 2023, arXiv:2304.09542. (Their code
        leaves the first passages alone where `count` - `size` is no multiple of `step`; here the
        last window always starts with the first.)
    """
    found = [(max(0, count - size), count)]
    while found[-1][0] > 0:
        start, end = found[-1]
        found.append((max(0, start - step), end - step))
    return found


def prompt(query: str, passages: Sequence[str]) -> str:
    """What the model is asked, after RankGPT's instruction, as one message."""
    count = len(passages)
    listed = "\n".join(
        f"[{number}] {' '.join(passage.split())}" for number, passage in enumerate(passages, 1)
    )
    return (
        f"Below are {count} passages, each with a number in square brackets. Rank them by their"
        f" relevance to the search query: {query}\n\n{listed}\n\nSearch query: {query}\nRank the"
        f" {count} passages above by their relevance to the search query. List the numbers of all"
        " passages, the most relevant first, in the form [2] > [1]. Answer with the ranking only,"
        " without any explanation."
    )


def longest_answer(count: int) -> str:
    """A well-formed answer, to know how long one is."""
    return " > ".join(f"[{number}]" for number in range(1, count + 1))


def read_answer(answer: str, count: int) -> tuple[list[int], bool]:
    """The order (from 0) that an answer gives to `count` passages, and whether it names each once
    and nothing else.

    A malformed answer is repaired as RankGPT does: numbers out of range and repeats are dropped,
    and passages that it does not name follow in their former order.
    """
    text = _THOUGHT.sub("", answer)
    named = [int(number) - 1 for number in _BRACKETED.findall(text) or _NUMBER.findall(text)]
    order = [number for number in dict.fromkeys(named) if 0 <= number < count]
    return order + [number for number in range(count) if number not in order], sorted(
        named
    ) == list(range(count))
