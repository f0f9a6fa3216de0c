"""Tests whether the languages of a user's task are parallel.

A task is parallel if equal ids mean equal questions. Only then do cross-lingual scores and the pool
of all languages make sense. But languages with unrelated questions often share running numbers,
too. A text and its translation have similar lengths, so over many ids the lengths show the
difference.
"""

from collections.abc import Mapping
from dataclasses import replace
from itertools import combinations
from typing import Literal, NamedTuple

import numpy as np

from hybridbatch.common.errors import ConfigError
from hybridbatch.common.records import Qrels, Task, Texts

Parallel = Literal["auto", "yes", "no"]
FEWEST = (
    50  # least number of texts with shared ids; with fewer, chance can look like either case
)
PAIRS = 20  # most pairs of languages to compare, those with the most shared ids
TEXTS = 2000  # most texts of a pair to compare
SIGNIFICANT = 2.33  # standard errors; unrelated texts exceed them one time in a hundred
LEAST = 0.15  # correlation of translations, in any number of texts
SPREAD = 0.05  # texts of nearly equal lengths carry no information


class Likeness(NamedTuple):
    """How similar the lengths of two languages' texts with shared ids are."""

    languages: tuple[str, str]
    texts: int  # with shared ids
    correlation: float | None  # of the logarithms of their lengths; None: unknown

    @property
    def unlike(self) -> bool:
        """Whether the texts are unlikely to be translations of each other."""
        if self.correlation is None or self.texts < FEWEST:
            return False
        return self.correlation < max(LEAST, SIGNIFICANT / np.sqrt(self.texts - 3))

    @property
    def unsure(self) -> bool:
        """Whether the lengths do not decide."""
        if self.correlation is None or self.texts < 4:
            return True
        return self.correlation < SIGNIFICANT / np.sqrt(self.texts - 3)


def settle_parallel(task: Task, choice: Parallel) -> Task:
    """The task with its languages kept together, or separated.

    Args:
        choice: ``yes``: equal ids are equal questions; ``no``: they are not, so every language is
            searched only with its own questions; ``auto``: they are, unless the lengths contradict.

    Raises:
        ConfigError: The lengths do not decide, and the user must choose.
    """
    languages = list(dict.fromkeys([*task.queries, *task.corpus]))
    if len(languages) < 2 or choice == "yes":
        return task
    if choice == "no":
        return _apart(task)
    found = likenesses(task)
    if not found:
        return task
    if unlike := next((pair for pair in found if pair.unlike), None):
        raise ConfigError(
            f"task {task.name}: {' and '.join(unlike.languages)} share the ids of"
            f" {unlike.texts:,} texts, but the lengths of these texts hardly correlate"
            f" ({unlike.correlation:.2f}), so equal ids may not mean equal questions; give"
            " --parallel no to score each language by itself, or --parallel yes if equal ids"
            " do mean equal questions"
        )
    if unsure := next((pair for pair in found if pair.unsure), None):
        texts = f"{unsure.texts:,} texts of {' and '.join(unsure.languages)} with equal ids"
        reason = (
            f"the {texts} are too few for a check"
            if unsure.texts < FEWEST
            else f"the lengths of the {texts} hardly differ, so they cannot be checked"
        )
        note = (
            f"task {task.name}: equal ids are assumed to mean the same question or passage in every"
            f" language, because {reason}; give --parallel no if the assumption is wrong, because"
            " cross-lingual and pool scores would mean nothing, or --parallel yes if it is right"
        )
        return replace(task, notes=(*task.notes, note))
    return task


def likenesses(task: Task) -> list[Likeness]:
    """The likenesses of the pairs of languages that share the most ids of questions and passages.

    Passages count only if a question of one language is judged in the corpus of the other.
    """
    shared: list[tuple[int, str, str]] = []
    asked = {language: set(texts.ids) for language, texts in task.queries.items()}
    held = {language: set(texts.ids) for language, texts in task.corpus.items()}
    none: set[str] = set()
    for one, other in combinations(dict.fromkeys([*asked, *held]), 2):
        count = len(asked.get(one, none) & asked.get(other, none))
        if count or _judged_across(task, one, other) or _judged_across(task, other, one):
            count += len(held.get(one, none) & held.get(other, none))
        if count:
            shared.append((-count, one, other))
    return [_likeness(task, one, other) for _, one, other in sorted(shared)[:PAIRS]]


def _judged_across(task: Task, one: str, other: str) -> bool:
    """Whether a question of one language is judged in the corpus of the other."""
    asked = task.queries[one].ids if one in task.queries else ()
    return not task.qrels.get(other, {}).keys().isdisjoint(asked)


def _likeness(task: Task, one: str, other: str) -> Likeness:
    """The likeness of two languages; questions and passages are compared separately, then pooled."""
    products: list[np.ndarray] = []
    count = 0
    for side in (task.queries, task.corpus):
        lengths = _shared_lengths(side, one, other)
        count += len(lengths)
        if len(lengths) < 2:
            continue
        spread = lengths.std(axis=0)
        if spread.min() > SPREAD:
            scores = (lengths - lengths.mean(axis=0)) / spread
            products.append(scores[:, 0] * scores[:, 1])
    correlation = float(np.concatenate(products).mean()) if products else None
    return Likeness((one, other), count, correlation)


def _shared_lengths(side: Mapping[str, Texts], one: str, other: str) -> np.ndarray:
    """float64 [n, 2]: logarithms of the lengths of texts with one id in two languages."""
    if one not in side or other not in side:
        return np.empty((0, 2))
    lengths = []
    there = dict(zip(side[other].ids, range(len(side[other].ids)), strict=True))
    for place, key in enumerate(side[one].ids):
        if key in there:
            pair = (side[one].texts[place], side[other].texts[there[key]])
            lengths.append([1 + len(text) for text in pair])
            if len(lengths) == TEXTS:
                break
    return np.log(np.array(lengths, np.float64).reshape(-1, 2))


def _apart(task: Task) -> Task:
    """The task with ids that no two languages share."""
    queries = {}
    qrels: dict[str, Qrels] = {}
    for language, texts in task.queries.items():
        ids = tuple(f"{language}:{key}" for key in texts.ids)
        queries[language] = Texts(ids, texts.texts)
        if language in task.qrels:
            judged = task.qrels[language]
            qrels[language] = {f"{language}:{key}": row for key, row in judged.items()}
    return replace(task, queries=queries, qrels=qrels, parallel=False)
