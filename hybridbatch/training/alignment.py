"""The language-alignment regulariser.

It pulls the texts of a batch towards their translations in other languages.
"""

import numpy as np
from torch import Tensor

from hybridbatch.common.errors import DataError
from hybridbatch.common.seeding import stream
from hybridbatch.sampling.index import HAS_PASSAGE, HAS_QUERY, RecordIndex
from hybridbatch.sampling.pairs import draw_translations
from hybridbatch.sampling.schedule import Schedule

# int [T, B] each: the row of another language for each query and passage
Translations = tuple[np.ndarray, np.ndarray]


def plan_translations(index: RecordIndex, schedule: Schedule, seed: int) -> Translations:
    """For the query and passage of every pair, draw another row of the record with that side.

    -1 means that there is none. The draw is uniform among these rows and independent for each text.
    It is a function of (seed, step).

    Raises: `DataError` if no text of the schedule has a translation in the training languages.
    """
    uniform = stream(seed, "translations").random((schedule.steps, 2, schedule.batch_size))
    sides = ((schedule.query_row, HAS_QUERY), (schedule.passage_row, HAS_PASSAGE))
    queries, passages = (
        draw_translations(index, rows, side, uniform[:, number])
        for number, (rows, side) in enumerate(sides)
    )
    if schedule.steps and max(queries.max(), passages.max()) < 0:
        raise DataError(
            "align_weight: no training record has a text in two of the training languages;"
            " use 0, or data in more languages"
        )
    return queries, passages


def alignment(texts: Tensor, translations: Tensor) -> Tensor:
    """The mean squared distance of unit vectors.

    It is mean_i ||f(x_i) - f(y_i)||^2 = 2 - 2 mean_i cos(x_i, y_i): the alignment loss of Wang and
    Isola 2020 (arXiv:2005.10242, alpha = 2) with translations as the positive pairs. For the same
    purpose, Hu et al. 2023 (arXiv:2210.06633) add a contrastive loss of parallel texts to a
    retrieval loss.

    Args:
        texts, translations: [n, D], rows L2-normalised.
    Returns: scalar; 0 for n = 0.
    """
    return (texts - translations).square().sum() / max(1, len(texts))
