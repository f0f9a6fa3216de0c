"""Hybrid batches for a plain PyTorch `DataLoader`.

A `PairReader` holds the rows: a record in one language each. A `HybridBatchSampler` plans which
rows meet in a batch. A pair of a batch is one whole number, its `key`, which names the row of the
query and the row of the passage; so no pair of languages is ever copied:

    pairs = PairReader.open("data/mine")
    loader = DataLoader(pairs, batch_sampler=HybridBatchSampler(pairs, batch_size=64, mix=0.5))
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch.distributed
from torch.utils.data import BatchSampler

from hybridbatch.common.errors import ConfigError
from hybridbatch.common.languages import resolve
from hybridbatch.common.machine import of_torchrun
from hybridbatch.common.records import Split
from hybridbatch.data.store.reader import Store
from hybridbatch.sampling.index import RecordIndex
from hybridbatch.sampling.plan import plan_schedule
from hybridbatch.sampling.schedule import Schedule
from hybridbatch.sampling.strategies import Strategy

ReadTexts = Callable[[np.ndarray], list[str]]  # store rows -> their texts


class PairReader:
    """Reads the texts of pairs, by key. A map-style dataset of ``{"query": ..., "passage": ...}``.

    `index` has R rows; the pair of query row q and passage row p has the key ``q + R * ((p - q) %
    R)``, so that the keys below R are the pairs within one row.
    """

    def __init__(self, index: RecordIndex, queries: ReadTexts, passages: ReadTexts) -> None:
        self.index = index
        self._queries = queries
        self._passages = passages

    @classmethod
    def open(
        cls, folder: Path | str, split: Split = "train", languages: str | None = None
    ) -> "PairReader":
        """The rows of a folder that `hybridbatch prepare` made; texts are read as they are needed.

        Args:
            languages: ids and groups such as ``"low-resource,-swh"``; None: all.
        Raises: `DataError`, `ConfigError`.
        """
        store = Store.open(Path(folder))
        kept = None if languages is None else resolve(languages, store.languages)
        return cls(
            store.index(split, kept),
            lambda rows: store.queries(split, rows),
            lambda rows: store.passages(split, rows),
        )

    @classmethod
    def from_rows(cls, rows: Sequence[Mapping[str, Any]]) -> "PairReader":
        """Rows of your own, as `RecordIndex.from_rows` takes them."""
        return cls(
            RecordIndex.from_rows(rows),
            lambda numbers: [rows[number]["query"] for number in numbers.tolist()],
            lambda numbers: [rows[number]["passage"] for number in numbers.tolist()],
        )

    def __len__(self) -> int:
        """R, the number of rows: the pairs within one row."""
        return self.index.rows

    def __iter__(self) -> Iterator[dict[str, str]]:
        """The pairs within one row, row after row."""
        for key in range(len(self)):
            yield self[key]

    def __getitem__(self, key: int) -> dict[str, str]:
        """The pair of one key. Raises `IndexError` for a number that is no key."""
        return self.__getitems__([key])[0]

    def __getitems__(self, keys: Sequence[int]) -> list[dict[str, str]]:
        """The pairs of a batch. Raises `IndexError` for a number that is no key."""
        queries, passages = self.texts(keys)
        return [
            {"query": query, "passage": passage}
            for query, passage in zip(queries, passages, strict=True)
        ]

    def texts(self, keys: Sequence[int]) -> tuple[list[str], list[str]]:
        """The queries and the passages of pairs. Raises `IndexError` for a number that is no key."""
        rows = self.index.rows
        numbers = np.asarray(keys, np.int64)
        if np.any((numbers < 0) | (numbers >= rows * rows)):
            raise IndexError(f"the keys of pairs of {rows} rows are 0 to {rows * rows - 1}")
        query_rows, passage_rows = rows_of_keys(numbers, rows)
        queries = self._queries(self.index.store_rows(query_rows))
        passages = self._passages(self.index.store_rows(passage_rows))
        return queries, passages


def keys_of_rows(query_rows: np.ndarray, passage_rows: np.ndarray, rows: int) -> np.ndarray:
    """int64: the keys of pairs of index rows, of `rows` rows in all."""
    query_rows = query_rows.astype(np.int64)
    return query_rows + rows * ((passage_rows - query_rows) % rows)


def rows_of_keys(keys: np.ndarray, rows: int) -> tuple[np.ndarray, np.ndarray]:
    """int64: the query rows and the passage rows of keys."""
    query_rows = keys % rows
    return query_rows, (query_rows + keys // rows) % rows


class HasIndex(Protocol):
    """What a sampler needs of a dataset."""

    index: RecordIndex


class HybridBatchSampler(BatchSampler):
    """Yields batches of keys, each monolingual with probability `mix`, else cross-lingual.

    The batches are those of `plan_schedule`, and so those of `hybridbatch train` with the same
    data, settings and seed. An epoch is as many steps as its records fill; the next one goes on
    where it ended. Batch t depends on the seed and t alone, so that a run which skips the batches
    it has seen goes on with the batches it would have had.

    With P processes a step is one batch of ``batch_size * P`` pairs, given out in P equal parts:
    the losses that gather embeddings from all processes see one hybrid batch, not P different ones.

    Args:
        dataset: a `PairReader`, or what has an `index` of R rows and takes keys.
        batch_size: pairs of one process and step.
        mix: chance of a monolingual batch, 0 to 1.
        seed: >= 0.
        steps: steps of an epoch; None: as many as the records fill.
        strategy, copies, source_weights: as in `plan_schedule`.
        processes: P; None: as `torch.distributed` or the environment variable ``WORLD_SIZE`` says.

    Raises: `ConfigError` for a setting out of bounds, `DataError` where the data cannot fill a
    batch.
    """

    def __init__(
        self,
        dataset: HasIndex,
        batch_size: int,
        *,
        mix: float = 0.5,
        seed: int = 13,
        steps: int | None = None,
        strategy: Strategy = "hybrid",
        processes: int | None = None,
        **schedule: Any,
    ) -> None:
        index = getattr(dataset, "index", None)
        if not isinstance(index, RecordIndex):
            raise ConfigError(
                f"dataset: a {type(dataset).__name__} does not say which rows are of one record;"
                " make it with `open` or `from_rows` of HybridDataset or PairReader, and choose"
                " rows there (split, languages), not with select or shuffle"
            )
        if steps is not None and steps < 1:
            raise ConfigError(f"steps {steps} must be at least 1")
        self.index = index
        self.batch_size = batch_size
        self.drop_last = True
        self.epoch = 0
        self.sampler = self  # accelerate tells the epoch to the sampler of a batch sampler
        self._processes = process_count() if processes is None else processes
        self._settings = {"mix": mix, "seed": seed, "strategy": strategy, **schedule}
        global_batch = batch_size * self._processes
        self._steps = self.index.records // max(1, global_batch) if steps is None else steps
        if self._steps < 1:
            raise ConfigError(
                f"batch_size: a step takes {global_batch} pairs, but the data has only"
                f" {self.index.records} records; lower the batch size"
            )
        self._plan(1)  # raises now, not in the first epoch

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch that the next iteration gives, from 0."""
        self.epoch = epoch

    def schedule(self) -> Schedule:
        """The steps of this epoch, of all processes together."""
        first = self.epoch * self._steps
        return self._plan(first + self._steps).slice(first, first + self._steps)

    def __len__(self) -> int:
        """Batches of an epoch, of all processes together."""
        return self._steps * self._processes

    def __iter__(self) -> Iterator[list[int]]:
        """The batches of this epoch: the parts of a step follow each other."""
        schedule = self.schedule()
        parts = [schedule.for_rank(rank, self._processes) for rank in range(self._processes)]
        for step in range(schedule.steps):
            for part in parts:
                query_rows, passage_rows = part.query_row[step], part.passage_row[step]
                yield keys_of_rows(query_rows, passage_rows, self.index.rows).tolist()

    def _plan(self, steps: int) -> Schedule:
        batch_size = self.batch_size * self._processes
        return plan_schedule(self.index, batch_size=batch_size, steps=steps, **self._settings)


def process_count() -> int:
    """How many processes train together."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        return torch.distributed.get_world_size()
    return of_torchrun("WORLD_SIZE", 1)


def collate_texts(pairs: Iterable[Mapping[str, str]]) -> dict[str, list[str]]:
    """A batch as two lists, ``{"query": [...], "passage": [...]}``, for tokenizers."""
    batch: dict[str, list[str]] = {"query": [], "passage": []}
    for pair in pairs:
        for side, texts in batch.items():
            texts.append(pair[side])
    return batch
