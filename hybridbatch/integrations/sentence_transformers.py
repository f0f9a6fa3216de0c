"""Hybrid batches for `SentenceTransformerTrainer`.

    from hybridbatch.integrations.sentence_transformers import HybridBatchSampler, HybridDataset

    args = SentenceTransformerTrainingArguments(
        ..., batch_sampler=partial(HybridBatchSampler, mix=0.5)
    )
    trainer = SentenceTransformerTrainer(
        model=model, args=args, train_dataset=HybridDataset.open("data/mine"), loss=loss
    )

The trainer's own `seed` is the seed of the batches, and `per_device_train_batch_size` their size.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from datasets import Dataset
from datasets.table import InMemoryTable

from hybridbatch.common.errors import ConfigError
from hybridbatch.common.records import Split
from hybridbatch.data.store.reader import Store
from hybridbatch.integrations import pytorch
from hybridbatch.integrations.pytorch import PairReader

# sentence-transformers reads the columns of a dataset in their order
COLUMNS = ("anchor", "positive")


class HybridDataset(Dataset):
    """Pairs for `SentenceTransformerTrainer`, read by key; see `PairReader` for what a key is.

    As a `datasets.Dataset` it has one row for each row of the data: a query and a passage in one
    language, the empty text where a row has no such side. A pair of two languages is put together
    when it is asked for by its key.
    """

    def __init__(self, pairs: PairReader, queries: pa.ChunkedArray, passages: pa.ChunkedArray):
        texts = [_without_nulls(column) for column in (queries, passages)]
        chosen = pairs.index.store_rows(np.arange(pairs.index.rows)).astype(np.uint64)
        indices = InMemoryTable(pa.table({"indices": chosen}))
        super().__init__(InMemoryTable(pa.table(texts, names=COLUMNS)), indices_table=indices)
        self.pairs = pairs
        self.index = pairs.index

    @classmethod
    def open(
        cls, folder: Path | str, split: Split = "train", languages: str | None = None
    ) -> "HybridDataset":
        """The rows of a folder that `hybridbatch prepare` made.

        The texts stay in the folder's files and are read as they are needed.

        Args:
            languages: ids and groups such as ``"low-resource,-swh"``; None: all.
        Raises: `DataError`, `ConfigError`.
        """
        columns = Store.open(Path(folder)).columns(split, ["query", "passage"])
        return cls(PairReader.open(folder, split, languages), *columns.columns)

    @classmethod
    def from_rows(cls, rows: Sequence[Mapping[str, Any]]) -> "HybridDataset":
        """Rows of your own, as `RecordIndex.from_rows` takes them."""
        queries = pa.array([row.get("query") for row in rows], pa.large_string())
        passages = pa.array([row.get("passage") for row in rows], pa.large_string())
        pairs = PairReader.from_rows(rows)
        return cls(pairs, pa.chunked_array([queries]), pa.chunked_array([passages]))

    def __getitem__(self, key: Any) -> Any:
        """As in `Dataset`; besides, the pair of a key beyond the rows."""
        if isinstance(key, int | np.integer) and key >= len(self):
            return self.__getitems__([int(key)])[0]
        return super().__getitem__(key)

    def __getitems__(self, keys: Sequence[int]) -> list[dict[str, str]]:
        """The pairs of a batch."""
        texts = self.pairs.texts(keys)
        return [dict(zip(COLUMNS, pair, strict=True)) for pair in zip(*texts, strict=True)]


def _without_nulls(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """The empty text for what is missing; chunks where nothing is missing stay as they are."""
    chunks = [pc.fill_null(chunk, "") if chunk.null_count else chunk for chunk in column.chunks]
    return pa.chunked_array(chunks, column.type)


class Key(int):
    """A key as the trainer gets it. It names a pair of one dataset, and cannot be moved by the rows
    of the datasets before it, as the trainer does with places.
    """

    def __add__(self, rows: int) -> NoReturn:
        """Raise `ConfigError`."""
        raise ConfigError(
            "train_dataset: hybrid batches come from one dataset, not from several; give one"
            " HybridDataset, over data that `hybridbatch prepare` made from several sources"
        )


class HybridBatchSampler(pytorch.HybridBatchSampler):
    """`pytorch.HybridBatchSampler` as sentence-transformers calls it.

    Give ``batch_sampler=partial(HybridBatchSampler, mix=0.5)`` to the training arguments. A batch
    is always full, so `drop_last` changes nothing; labels and the trainer's generator are not
    needed.
    """

    def __init__(
        self,
        dataset: HybridDataset,
        batch_size: int,
        drop_last: bool = True,
        valid_label_columns: list[str] | None = None,
        generator: Any = None,
        seed: int = 13,
        **settings: Any,
    ) -> None:
        super().__init__(dataset, batch_size, seed=seed, **settings)

    def __iter__(self) -> Iterator[list[int]]:
        """The batches of this epoch."""
        for batch in super().__iter__():
            yield [Key(key) for key in batch]
