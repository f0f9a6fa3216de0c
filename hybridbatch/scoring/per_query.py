"""Scores of every query, kept as Parquet; all averages and comparisons are made from this file."""

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from hybridbatch.common.errors import DataError, first_line, nearest
from hybridbatch.common.files import atomic_path
from hybridbatch.scoring.averages import setting_of
from hybridbatch.scoring.documents import check_scores

if TYPE_CHECKING:
    import pyarrow

FILE = "per_query.parquet"
# rows written at a time; a row group for every language pair would take most of the time
ROW_GROUP = 100_000
KEYS = ("task", "setting", "query_language", "corpus_language", "query_id")
# names of the means that differ from the name of the column
MEANS = {"average_precision": "mAP", "reciprocal_rank": "MRR"}


def mean_name(column: str) -> str:
    """The name of a column's mean: ``mAP``, or ``mAP@1000`` if rankings are cut."""
    name, at, depth = column.partition("@")
    return MEANS.get(name, name) + at + depth


@dataclass(frozen=True)
class QueryScores:
    """The scores of n queries of one language in one corpus language or pool."""

    query_language: str
    corpus_language: str
    query_ids: tuple[str, ...]  # [n]
    # float64 [n] by column name; NaN where a query has no such score
    metrics: dict[str, np.ndarray]
    # for a pool: means by name of the measure and language of the pool
    by_language: dict[str, dict[str, float]] = field(default_factory=dict)

    def means(self) -> dict[str, float]:
        """Mean over the queries that have a score, by the name of the mean."""
        present = {name: values[~np.isnan(values)] for name, values in self.metrics.items()}
        return {
            mean_name(name): float(values.mean())
            for name, values in present.items()
            if len(values)
        }


class Writer:
    """Appends scores to a Parquet file. Use `writing`."""

    def __init__(self, path: Path, metrics: Iterable[str]) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        self._arrow = pa
        self.metrics = tuple(metrics)
        fields = [pa.field(name, pa.string(), nullable=False) for name in KEYS]
        self.schema = pa.schema(
            [*fields, *(pa.field(name, pa.float64()) for name in self.metrics)]
        )
        self.file = pq.ParquetWriter(path, self.schema, compression="zstd")
        self.waiting: list[Any] = []  # record batches of the next row group
        self.rows = 0  # number of rows in `waiting`

    def add(self, task: str, scores: QueryScores) -> None:
        """Append scores of a task; metrics that the scores lack are null."""
        size = len(scores.query_ids)
        setting = setting_of(scores.query_language, scores.corpus_language)
        texts = (task, setting, scores.query_language, scores.corpus_language)
        none = self._arrow.nulls(size, self._arrow.float64())
        columns = [
            *(self._arrow.repeat(text, size) for text in texts),
            self._arrow.array(scores.query_ids, self._arrow.string()),
            *(
                self._arrow.array(scores.metrics[name], from_pandas=True)
                if name in scores.metrics
                else none
                for name in self.metrics
            ),
        ]
        self.waiting.append(self._arrow.record_batch(columns, schema=self.schema))
        self.rows += size
        if self.rows >= ROW_GROUP:
            self.flush()

    def flush(self) -> None:
        """Write the waiting rows as one row group."""
        self.file.write_table(self._arrow.Table.from_batches(self.waiting, self.schema))
        self.waiting, self.rows = [], 0


@contextmanager
def writing(path: Path, metrics: Iterable[str]) -> Iterator[Writer]:
    """A `Writer` whose file appears at `path` only when the block succeeds. Raises `OutputError`."""
    with atomic_path(path) as temporary:
        writer = Writer(temporary, metrics)
        try:
            yield writer
            writer.flush()
        finally:
            writer.file.close()


def read(folder: Path, metric: str) -> "pyarrow.Table":
    """Read the `KEYS` of an evaluation's queries, and one metric as `value`.

    Queries without the metric are left out.

    Args:
        folder: of the evaluation.
        metric: a column, or the name of its mean such as ``mAP``.

    Raises:
        DataError: the file is absent, damaged, or has no such metric.
    """
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    path = folder / FILE
    column = next(
        (
            name + metric[len(shown) :]
            for name, shown in MEANS.items()
            if metric.partition("@")[0] == shown
        ),
        metric,
    )
    if not path.is_file():
        raise DataError(
            f"{path}: does not exist; run `hybridbatch eval` first and give its folder"
        )
    check_scores(folder, FILE)
    try:
        known = [
            name
            for name in pq.read_schema(pa.OSFile(os.fsencode(path))).names
            if name not in KEYS
        ]
        if column not in known:
            raise DataError(
                f"{path}: has no metric {metric!r}{nearest(metric, known)}; it has"
                f" {', '.join(known)}"
            )
        table = pq.read_table(pa.OSFile(os.fsencode(path)), columns=[*KEYS, column])
    except (pa.ArrowException, OSError) as error:
        raise DataError(
            f"{path}: is damaged ({first_line(error)}); run the evaluation again"
        ) from error
    return table.rename_columns([*KEYS, "value"]).filter(pc.is_valid(pc.field("value")))
