"""Distillation from a teacher that reads every record in one language, by default English.

The teacher embeds each text once, before training. Its vectors never change, and no gradient
reaches the teacher.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from hybridbatch.common.device import upload
from hybridbatch.common.errors import ConfigError, DataError, nearest
from hybridbatch.common.progress import SILENT, Reporter
from hybridbatch.model import Encoder
from hybridbatch.model.layout import Side
from hybridbatch.model.shared import SharedEncoder
from hybridbatch.sampling.index import HAS_PASSAGE, HAS_QUERY, RecordIndex
from hybridbatch.training.checkpoint import load_tensors, save_tensors
from hybridbatch.training.loss import false_negatives

Form = Literal["scores", "embeddings", "cosines"]
ALIKE: tuple[Form, ...] = ("embeddings", "cosines")  # need a teacher of the same dimension
SIDES: tuple[tuple[Side, int], ...] = (("query", HAS_QUERY), ("passage", HAS_PASSAGE))


@dataclass(frozen=True)
class Targets:
    """The rows that the teacher reads instead of the rows of a schedule, by side.

    -1 marks a record that has no row in the teacher's language.
    """

    rows: Mapping[Side, np.ndarray]  # int64 [T, B] each

    @classmethod
    def plan(
        cls, whole: RecordIndex, scheduled: Mapping[Side, np.ndarray], language: str | None
    ) -> "Targets":
        """Look up the texts of each record in `language`.

        Args:
            whole: index of all rows of the split, in all languages.
            scheduled: row numbers of `whole`, int [T, B], by side.
            language: the language that the teacher reads; None: the scheduled texts themselves.
        Raises: `DataError` if the data does not have the language, or if no scheduled record has
            it.
        """
        if language is None:
            return cls({side: np.asarray(rows, np.int64) for side, rows in scheduled.items()})
        if language not in whole.languages:
            raise DataError(
                f"teacher_language = {language!r}: the data has no such"
                f" language{nearest(language, whole.languages)}"
            )
        spoken = np.asarray(whole.language) == whole.languages.index(language)
        found: dict[Side, np.ndarray] = {}
        for side, bit in SIDES:
            rows = np.flatnonzero(spoken & ((np.asarray(whole.has) & bit) > 0))
            own = np.full(whole.records, -1, np.int64)
            own[whole.record_of(rows)] = rows
            found[side] = own[whole.record_of(scheduled[side])]
        targets = cls(found)
        if not targets.coverage:
            raise DataError(
                f"teacher_language = {language!r}: no training record has a query and a"
                " passage in this language; choose another language, or none to let the"
                " teacher read the batch's own texts"
            )
        return targets

    @property
    def coverage(self) -> float:
        """The share of pairs whose query and passage the teacher can read."""
        return float(np.mean((self.rows["query"] >= 0) & (self.rows["passage"] >= 0)))

    def distinct(self, side: Side) -> np.ndarray:
        """int64 [n]: the rows that the teacher reads, ascending."""
        rows = np.unique(self.rows[side])
        return rows[rows >= 0]


class Teacher:
    """A frozen teacher's embeddings of the texts of a schedule, and the loss that they give.

    Args:
        targets: the row that the teacher reads for each text.
        vectors: by side, float32 [n, D'], rows L2-normalised: the vectors of the distinct rows.
        form: what the student learns from.
        temperature: divides the teacher's cosines; used with the form "scores" only.
    """

    def __init__(
        self, targets: Targets, vectors: Mapping[str, Tensor], form: Form, temperature: float
    ) -> None:
        self.targets, self.form, self.temperature = targets, form, temperature
        self._vectors = vectors
        self._distinct = {side: targets.distinct(side) for side, _ in SIDES}

    def loss(
        self,
        step: int,
        queries: Tensor,
        positives: Tensor,
        keys: Tensor,
        temperature: float | Tensor,
    ) -> Tensor:
        """The distillation loss of a batch, by `score_loss`, `embedding_loss` or `cosine_loss`.

        Args:
            step: the step of the batch.
            queries, positives: [B, D], embeddings by the student, rows L2-normalised.
            keys: int64 [B], equal for positives that must not be each other's negatives.
            temperature: temperature of the student.
        """
        known = {side: self.targets.rows[side][step] >= 0 for side, _ in SIDES}
        taught = {side: self._of(side, step, queries) for side, _ in SIDES}
        if self.form in ALIKE:
            compared = embedding_loss if self.form == "embeddings" else cosine_loss
            return compared(
                torch.cat([queries, positives]),
                torch.cat([taught[side] for side, _ in SIDES]),
                torch.cat([upload(known[side], queries.device) for side, _ in SIDES]),
            )
        # Counted on the host, because the host would have to wait for a GPU.
        both = upload(np.flatnonzero(known["query"] & known["passage"]), queries.device)
        q, p, k, teacher_q, teacher_p = (
            values.index_select(0, both)
            for values in (queries, positives, keys, taught["query"], taught["passage"])
        )
        teacher_scores = teacher_q @ teacher_p.T / self.temperature
        return score_loss(q @ p.T / temperature, teacher_scores, false_negatives(k, len(k)))

    def _of(self, side: Side, step: int, like: Tensor) -> Tensor:
        """The teacher's vectors [B, D'] of a batch's texts; 0 for texts that it has not read."""
        rows = self.targets.rows[side][step]
        at = torch.from_numpy(np.searchsorted(self._distinct[side], rows[rows >= 0]))
        taught = self._vectors[side].new_zeros(len(rows), self._vectors[side].shape[1])
        taught[torch.from_numpy(rows >= 0)] = self._vectors[side][at]
        return upload(taught.numpy(), like.device).to(like.dtype)


def score_loss(student: Tensor, teacher: Tensor, masked: Tensor) -> Tensor:
    """KL(teacher || student) over the passages of the batch, in nats, averaged over queries.

    With P_i = softmax_j(teacher_ij) and S_i = softmax_j(student_ij) over all j that are not
    masked::

        loss = mean_i sum_j P_ij (log P_ij - log S_ij)

    This is the score distillation of Translate-Distill (Yang et al. 2024, arXiv:2401.04810), in
    which the teacher scores the English texts and the student scores their translations. Here the
    teacher is a dual encoder and the passages are the passages of the batch.

    Args:
        student, teacher: [n, n], cosines divided by the temperature; the positives are on the
            diagonal.
        masked: bool [n, n]: passages that are not negatives of the query.
    Returns: scalar; 0 for n = 0.
    """
    logs = [
        scores.masked_fill(masked, -torch.inf).log_softmax(1) for scores in (teacher, student)
    ]
    of_teacher, of_student = (
        log.masked_fill(masked, 0.0) for log in logs
    )  # 0 x infinity is not 0
    return (logs[0].exp() * (of_teacher - of_student)).sum() / max(1, len(student))


def embedding_loss(student: Tensor, teacher: Tensor, known: Tensor) -> Tensor:
    """The mean squared distance of student and teacher vectors, mean_i ||s_i - t_i||^2.

    Both vectors embed the same record. In Reimers and Gurevych 2020 (arXiv:2004.09813) the
    student's embeddings of a sentence and of its translation both learn the teacher's embedding of
    the sentence. Their loss also averages over the D dimensions; this one does not.

    Args:
        student, teacher: [n, D], rows L2-normalised.
        known: bool [n]: whether the teacher has a vector. Rows without one do not count.
    Returns: scalar; 0 if no vector is known.
    """
    return ((student - teacher) * known[:, None]).square().sum() / known.sum().clamp(min=1)


def cosine_loss(student: Tensor, teacher: Tensor, known: Tensor) -> Tensor:
    """The mean cosine distance of student and teacher vectors, mean_i (1 - s_i . t_i).

    This is L_Distill of MIMO (Jang et al. 2026, arXiv:2605.31171, its second stage). Its loss is
    ``L = lambda L_XLCO + (1 - lambda) L_Distill`` with lambda 0.2. L_XLCO is the InfoNCE of
    cross-lingual pairs at temperature 0.05. So MIMO's second stage is mix 0, distill_weight 0.8 and
    temperature 0.05. The authors compare vectors after a linear projection to the teacher's
    dimension. Here both have one dimension, and there is no projection.

    Args: as `embedding_loss`, whose value is twice this one.
    Returns: scalar; 0 if no vector is known.
    """
    distances = 1 - (student * teacher).sum(1)
    return (distances * known).sum() / known.sum().clamp(min=1)


def check_dimensions(form: Form, teacher: Encoder, dimension: int) -> None:
    """Check that a student of `dimension` can learn from the teacher in this form.

    Raises: `ConfigError` if it cannot.
    """
    if form in ALIKE and teacher.dimension != dimension:
        raise ConfigError(
            f"teacher = {teacher.name!r}: its embeddings have {teacher.dimension} dimensions,"
            f" but the model's have {dimension}; use --distill-from scores"
        )


def write_vectors(
    path: Path,
    teacher: SharedEncoder,
    targets: Targets,
    texts: Mapping[Side, Callable[[np.ndarray], list[str]]],
    report: Reporter = SILENT,
) -> None:
    """Embed every distinct text that the teacher reads, and store the vectors in `path`.

    The file is written whole or not at all. Every process embeds its share, and the first process
    writes.

    Args:
        texts: rows -> texts, by side.
    Raises: `OutputError` if the file cannot be written; `ModelError` for an embedding that is not
        finite.
    """
    vectors: dict[str, Tensor] = {}
    for side, _ in SIDES:
        found = teacher.encode(texts[side](targets.distinct(side)), side, report)
        if found is not None:
            vectors[side] = torch.from_numpy(found)
    if vectors:
        save_tensors(path, vectors)


def read_vectors(path: Path) -> dict[str, Tensor]:
    """Read the vectors that `write_vectors` stored.

    Raises: `DataError` if the file is damaged.
    """
    return load_tensors(path, "remove the file to have the teacher read the texts again")
