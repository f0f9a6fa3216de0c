"""Distillation from a teacher that reads every record in one language, English unless told
otherwise.

The teacher embeds each text once, before training; its vectors never change and no gradient reaches
it.
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

Form = Literal["scores", "embeddings"]
SIDES: tuple[tuple[Side, int], ...] = (("query", HAS_QUERY), ("passage", HAS_PASSAGE))


@dataclass(frozen=True)
class Targets:
    """The rows that the teacher reads in place of those of a schedule, by side; -1: the record has
    none.
    """

    rows: Mapping[Side, np.ndarray]  # int64 [T, B] each

    @classmethod
    def plan(
        cls, whole: RecordIndex, scheduled: Mapping[Side, np.ndarray], language: str | None
    ) -> "Targets":
        """Look for each record's texts in `language`.

        Args:
            whole: index of all rows of the split, in all languages.
            scheduled: its row numbers, int [T, B], by side.
            language: that the teacher reads; None: the scheduled texts themselves.
        Raises: `DataError` if the data does not have the language, or no scheduled record does.
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
                f"teacher_language = {language!r}: no record that is trained on has a query and a"
                " passage in it; choose"
                " another language, or none to let the teacher read the batch's own texts"
            )
        return targets

    @property
    def coverage(self) -> float:
        """The share of pairs whose query and passage the teacher can read."""
        return float(np.mean((self.rows["query"] >= 0) & (self.rows["passage"] >= 0)))

    def distinct(self, side: Side) -> np.ndarray:
        """int64 [n]: the rows that are read, ascending."""
        rows = np.unique(self.rows[side])
        return rows[rows >= 0]


class Teacher:
    """A frozen teacher's embeddings of the texts of a schedule, and what they add to the loss of a
    batch.

    Args:
        targets: which row stands for each text.
        vectors: by side, float32 [n, D'], rows L2-normalised, of the distinct rows.
        form: what the student learns from.
        temperature: divides the teacher's cosines; of the form "scores" only.
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
        """The distillation loss of a batch, by `score_loss` or `embedding_loss`.

        Args:
            queries, positives: [B, D] of the student, rows L2-normalised.
            keys: int64 [B], equal for positives that must not be each other's negatives.
            temperature: of the student.
        """
        known = {side: self.targets.rows[side][step] >= 0 for side, _ in SIDES}
        taught = {side: self._of(side, step, queries) for side, _ in SIDES}
        if self.form == "embeddings":
            return embedding_loss(
                torch.cat([queries, positives]),
                torch.cat([taught[side] for side, _ in SIDES]),
                torch.cat([upload(known[side], queries.device) for side, _ in SIDES]),
            )
        # Counted on the host: a GPU would have to be waited for.
        both = upload(np.flatnonzero(known["query"] & known["passage"]), queries.device)
        q, p, k, teacher_q, teacher_p = (
            values.index_select(0, both)
            for values in (queries, positives, keys, taught["query"], taught["passage"])
        )
        teacher_scores = teacher_q @ teacher_p.T / self.temperature
        return score_loss(q @ p.T / temperature, teacher_scores, false_negatives(k, len(k)))

    def _of(self, side: Side, step: int, like: Tensor) -> Tensor:
        """The teacher's vectors [B, D'] of a batch's texts; 0 where it has none."""
        rows = self.targets.rows[side][step]
        at = torch.from_numpy(np.searchsorted(self._distinct[side], rows[rows >= 0]))
        taught = self._vectors[side].new_zeros(len(rows), self._vectors[side].shape[1])
        taught[torch.from_numpy(rows >= 0)] = self._vectors[side][at]
        return upload(taught.numpy(), like.device).to(like.dtype)


def score_loss(student: Tensor, teacher: Tensor, masked: Tensor) -> Tensor:
    """KL(teacher || student) of each query's distribution over the passages of the batch, in nats,
    mean over queries.

    With P_i = softmax_j(teacher_ij) and S_i = softmax_j(student_ij) over the j that are not
    masked::

        loss = mean_i sum_j P_ij (log P_ij - log S_ij)

    The score distillation of Translate-Distill (Yang et al. 2024, arXiv:2401.04810), where the
    teacher scores the English texts and the student their translations, with in-batch passages and
    a dual encoder as the teacher.

    Args:
        student, teacher: [n, n], cosines over temperature; the positives on the diagonal.
        masked: bool [n, n]: passages that are no negatives of the query.
    Returns: scalar; 0 for n = 0.
    """
    logs = [scores.masked_fill(masked, -torch.inf).log_softmax(1) for scores in (teacher, student)]
    of_teacher, of_student = (log.masked_fill(masked, 0.0) for log in logs)  # 0 x infinity is not 0
    return (logs[0].exp() * (of_teacher - of_student)).sum() / max(1, len(student))


def embedding_loss(student: Tensor, teacher: Tensor, known: Tensor) -> Tensor:
    """The mean squared distance of the student's vectors from the teacher's of the same record:
    mean_i ||s_i - t_i||^2.

    Reimers and Gurevych 2020 (arXiv:2004.09813), where the student's embedding of a sentence and of
    its translation both learn the teacher's embedding of the sentence; theirs averages over the D
    dimensions, too.

    Args:
        student, teacher: [n, D], rows L2-normalised.
        known: bool [n]: whether the teacher has a vector; the others count for nothing.
    Returns: scalar; 0 where nothing is known.
    """
    return ((student - teacher) * known[:, None]).square().sum() / known.sum().clamp(min=1)


def check_dimensions(form: Form, teacher: Encoder, dimension: int) -> None:
    """Raises `ConfigError` where a student of `dimension` cannot learn from the teacher in this
    form.
    """
    if form == "embeddings" and teacher.dimension != dimension:
        raise ConfigError(
            f"teacher = {teacher.name!r}: its embeddings have {teacher.dimension} dimensions, the"
            f" model's {dimension};"
            " use --distill-from scores"
        )


def write_vectors(
    path: Path,
    teacher: SharedEncoder,
    targets: Targets,
    texts: Mapping[Side, Callable[[np.ndarray], list[str]]],
    report: Reporter = SILENT,
) -> None:
    """Embed every distinct text that the teacher is to read, and keep the vectors in `path`, whole
    or not at all. Every process reads its share; the first one writes.

    Args:
        texts: rows -> texts, by side.
    Raises: `OutputError`; `ModelError` for an embedding that is not finite.
    """
    vectors: dict[str, Tensor] = {}
    for side, _ in SIDES:
        found = teacher.encode(texts[side](targets.distinct(side)), side, report)
        if found is not None:
            vectors[side] = torch.from_numpy(found)
    if vectors:
        save_tensors(path, vectors)


def read_vectors(path: Path) -> dict[str, Tensor]:
    """What `write_vectors` kept. Raises `DataError` if it is damaged."""
    return load_tensors(path, "remove the file to have the teacher read the texts again")
