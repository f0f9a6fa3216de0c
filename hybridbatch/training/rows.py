"""The contents of the row numbers of a schedule: texts, names, records, groups, stored tokens."""

from collections.abc import Callable, Sequence

import numpy as np

from hybridbatch.common.errors import DataError
from hybridbatch.common.files import cache_folder
from hybridbatch.common.progress import SILENT, Reporter
from hybridbatch.common.records import Split
from hybridbatch.common.tokens import TokenArrays
from hybridbatch.data.store.reader import Store
from hybridbatch.model import Encoder
from hybridbatch.model.layout import Side
from hybridbatch.sampling.index import RecordIndex

Tokenise = Callable[[Sequence[str], Side], TokenArrays]


class Rows:
    """The rows that a schedule numbers. Every method takes row numbers, int64 [n].

    A kind of data must implement `queries`, `passages` and `record_ids`. By default the other
    methods report that there is nothing more.
    """

    languages: tuple[str, ...] = ()  # the names of the schedule's language numbers

    def queries(self, rows: np.ndarray) -> list[str]:
        """The query of each row."""
        raise NotImplementedError

    def passages(self, rows: np.ndarray) -> list[str]:
        """The passage of each row."""
        raise NotImplementedError

    def record_ids(self, rows: np.ndarray) -> list[str]:
        """The name of each row's record, for error messages."""
        raise NotImplementedError

    def negatives(self, rows: np.ndarray) -> list[tuple[str, ...]]:
        """The hard negatives of each row, in the row's language."""
        return [()] * len(rows)

    def records(self, rows: np.ndarray) -> np.ndarray:
        """int64 [n]: the number of the record of each row; mtt batches need it."""
        raise ValueError("mtt batches need the records of their rows")

    def groups(self, rows: np.ndarray) -> np.ndarray:
        """The group of each row (int [n]), as in `RecordIndex`; negatives with groups need it."""
        raise ValueError("negatives with groups need the groups of rows")

    def negative_groups(self, rows: np.ndarray) -> list[np.ndarray] | None:
        """The group of every hard negative of each row, -1 if unknown; None if none is known."""
        return None

    def stored_tokens(self, rows: np.ndarray, side: Side) -> TokenArrays | None:
        """The stored tokens of the text of each row; None: the texts must be tokenised."""
        return None


class StoredRows(Rows):
    """The rows of an index over prepared data.

    Args:
        store: the data.
        split: of the data.
        index: gives the place in the split of every row that it numbers.
        encoder: whose tokens are kept beside the data; None: texts are tokenised for each run.
        report: told of the tokenising of the whole data.
    """

    def __init__(
        self,
        store: Store,
        split: Split,
        index: RecordIndex,
        encoder: Encoder | None = None,
        report: Reporter = SILENT,
    ) -> None:
        self._store, self._split, self._index = store, split, index
        self._encoder, self._report = encoder, report
        self.languages = index.languages

    def queries(self, rows: np.ndarray) -> list[str]:
        """The query of each row."""
        return self._store.queries(self._split, self._index.store_rows(rows))

    def passages(self, rows: np.ndarray) -> list[str]:
        """The passage of each row."""
        return self._store.passages(self._split, self._index.store_rows(rows))

    def record_ids(self, rows: np.ndarray) -> list[str]:
        """The name of each row's record."""
        return self._store.record_ids(self._split, self._index.store_rows(rows))

    def negatives(self, rows: np.ndarray) -> list[tuple[str, ...]]:
        """The hard negatives of each row."""
        return self._store.negatives(self._split, self._index.store_rows(rows))

    def records(self, rows: np.ndarray) -> np.ndarray:
        """The number of each row's record in the index."""
        return self._index.record_of(rows)

    def groups(self, rows: np.ndarray) -> np.ndarray:
        """The group of each row's record."""
        return self._index.group[self._index.record_of(rows)]

    def negative_groups(self, rows: np.ndarray) -> list[np.ndarray] | None:
        """The group of every hard negative of each row."""
        return self._store.negative_groups(self._split, self._index.store_rows(rows))

    def stored_tokens(self, rows: np.ndarray, side: Side) -> TokenArrays | None:
        """The tokens of each row's text; the first call for a tokenizer tokenises all of the data.

        Raises: `DataError` for a text that the tokenizer refuses.
        """
        if self._encoder is None:
            return None
        try:
            tokens = self._store.tokens(
                self._split,
                side,
                tokenise=self._encoder.tokenise,
                key=self._encoder.tokens_key(),
                cache=cache_folder() / "tokens",
                report=self._report,
            )
        except DataError as error:
            raise DataError(
                f"{self._store.folder}: {error}; run without --store-tokens to see which"
                " record it is"
            ) from error
        return tokens.take(self._index.store_rows(rows))
