"""Language vectors of a task's own texts, each text turned by an estimate made without it."""

from collections.abc import Mapping

import numpy as np

from hybridbatch.common.errors import DataError
from hybridbatch.common.records import Task, Texts
from hybridbatch.debias.cross_fit import Fit, cross_fit, fold_of_groups

Vectors = Mapping[str, np.ndarray]  # [n, D] by language
HALVES = 2


def halves(task: Task, seed: int) -> dict[str, dict[str, int]]:
    """The half, 0 or 1, of every text of a task: ``{"query": {id: half}, "passage": {...}}``.

    Texts that judgements connect are in one half: a question, its relevant passages in all
    languages, and the other questions about these passages. So no text is turned by an estimate
    from its own translation, whether or not translations have equal ids.

    Raises:
        DataError: all texts hang together, so they cannot be halved.
    """
    groups = _Groups()
    for judged in task.qrels.values():
        for question, row in judged.items():
            for passage, grade in row.items():
                if grade > 0:
                    groups.join(f"q {question}", f"p {passage}")
    names = {
        "query": _ids(task.queries),
        "passage": _ids(task.corpus),
    }
    of = {
        side: {name: groups.root(f"{side[0]} {name}") for name in ids}
        for side, ids in names.items()
    }
    try:
        half = fold_of_groups(
            [root for one in of.values() for root in one.values()], HALVES, seed
        )
    except DataError as error:
        raise DataError(
            f"{task.name}: cannot be halved for cross-fitted language vectors, because"
            " judgements connect all of its texts; estimate them from other text"
        ) from error
    return {side: {name: half[root] for name, root in one.items()} for side, one in of.items()}


def turned(
    task: Task, queries: Vectors, passages: Vectors, fits: Mapping[str, Fit], seed: int
) -> tuple[Vectors, Vectors]:
    """Queries and passages of a task, each turned by the estimate from the other half.

    Args:
        queries, passages: [n, D] by language, in the order of the task's ids.
        fits: what estimates a side's map, by side; a side without one stays as it is.
        seed: of the halves.

    Returns:
        float32 [n, D] by language, rows of length 1.
    """
    half = halves(task, seed)

    def side(name: str, vectors: Vectors, texts: Mapping[str, Texts]) -> Vectors:
        if name not in fits:
            return vectors
        folds = {}
        for language in vectors:
            folds[language] = np.array(
                [half[name][id_] for id_ in texts[language].ids], dtype=int
            )
        return cross_fit(vectors, folds, fits[name])

    return side("query", queries, task.queries), side("passage", passages, task.corpus)


def _ids(side: Mapping[str, Texts]) -> list[str]:
    return list(dict.fromkeys(name for texts in side.values() for name in texts.ids))


class _Groups:
    """Disjoint sets of names (union-find)."""

    def __init__(self) -> None:
        self._above: dict[str, str] = {}

    def root(self, name: str) -> str:
        """The name that stands for the set of a name."""
        path = []
        while (above := self._above.get(name, name)) != name:
            path.append(name)
            name = above
        for each in path:
            self._above[each] = name
        return name

    def join(self, one: str, other: str) -> None:
        """Put two names, and all in their sets, into one set."""
        first, second = sorted((self.root(one), self.root(other)))
        self._above[second] = first
