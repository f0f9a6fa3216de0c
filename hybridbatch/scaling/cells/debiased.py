"""Scores of a cell after the language is taken out of its vectors, beside the raw scores.

The vectors come from stated text, or are cross-fitted: each half of a task's texts is turned by the
estimate from the other half. No judgement is used beyond keeping texts that belong together in one
half.
"""

from collections.abc import Mapping, Sequence
from functools import lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from hybridbatch.common.errors import HybridBatchError
from hybridbatch.common.files import fingerprint
from hybridbatch.common.progress import Reporter
from hybridbatch.common.records import Task
from hybridbatch.common.settings import build
from hybridbatch.debias.fit import Method, MethodName
from hybridbatch.debias.methods import Debiasing, Embeddings, Moments
from hybridbatch.debias.vectors_file import Side
from hybridbatch.scaling.settings import CROSS_FIT
from hybridbatch.scoring.debias import language_vectors, texts_by_side
from hybridbatch.scoring.debias_settings import DebiasConfig

if TYPE_CHECKING:
    from hybridbatch.search.embeddings import EmbeddingStore

SUFFIX = " (debiased)"  # of the name under which a cell keeps the debiased scores of a task
SEED = 13  # of the halves and of the sample of stated text: the same for all cells
Texts = Mapping[Side, Mapping[str, Sequence[str]]]
Vectors = Mapping[str, np.ndarray]  # [n, D] by language
Sides = tuple[Vectors, Vectors]  # queries, passages


def debiased_name(task: str) -> str:
    """The name of a task's debiased scores."""
    return f"{task}{SUFFIX}"


def about(task: Task, source: str) -> str:
    """A sentence on the debiased scores of a task."""
    where = (
        "the other half of the task's own texts"
        if source == CROSS_FIT
        else f"other text ({Path(source).name})"
    )
    return (
        f"The scores of {task.name} after the mean vector of each language was subtracted from"
        f" queries and passages. The means come from {where}, without labels. {task.about}"
    ).strip()


def text_fingerprint(source: str, data_root: Path | None, report: Reporter) -> str:
    """A hash of the stated text. Raises `HybridBatchError` for text that cannot be used."""
    try:
        texts, _ = texts_by_side(_config(source, data_root), report)
    except HybridBatchError as error:
        raise type(error)(f"debias: {error}; or write {CROSS_FIT}") from error
    return fingerprint({side: dict(by_language) for side, by_language in texts.items()})


def turned(
    task: Task,
    raw: Sides,
    *,
    source: str,
    method: MethodName,
    pivot: str | None,
    store: "EmbeddingStore",
    data_root: Path | None,
) -> Sides:
    """Queries and passages of a task without their language.

    Args:
        raw: vectors of queries and passages, [n, D] by language, rows L2-normalised.
        source: ``cross-fit``, or text as for `hybridbatch debias --text`.
        method: of `hybridbatch debias`.
        pivot: of the method ``shift``.
        store: encodes the stated text.
        data_root: folder with copies of public data.

    Returns:
        float32 [n, D] by language, rows of length 1.
    """
    how = Method(method, pivot=pivot or "eng")
    if source == CROSS_FIT:
        from hybridbatch.scoring import cross_fitted

        sides = ("passage",) if method == "shift" else ("query", "passage")
        fits = dict.fromkeys(sides, partial(_fit, how))
        return cross_fitted.turned(task, *raw, fits, SEED)
    texts, sources = _read(source, data_root)
    config = _config(source, data_root).model_copy(
        update={"method": method, "pivot": pivot or "eng"}
    )
    vectors = language_vectors(config, texts, sources, store)
    found = []
    sides_of: tuple[tuple[Side, Vectors], ...] = (("query", raw[0]), ("passage", raw[1]))
    for side, by_language in sides_of:
        found.append(
            {name: vectors.apply(own, side, name) for name, own in by_language.items()}
        )
    return found[0], found[1]


def _fit(how: Method, vectors: Embeddings) -> Debiasing:
    return how.fit(Moments.of(vectors, how.products))


def _config(source: str, data_root: Path | None) -> DebiasConfig:
    given = {"text": source, "data_root": data_root, "seed": SEED}
    return build(DebiasConfig, None, given)


@lru_cache(maxsize=1)
def _read(source: str, data_root: Path | None) -> tuple[Texts, dict[str, str]]:
    """The stated text by side and language, and a description of its sources."""
    return texts_by_side(_config(source, data_root))
