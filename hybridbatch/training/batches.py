"""From the rows of a schedule to the token arrays of a batch: tokenised once, before training starts."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import numpy as np

from hybridbatch.arrangement import shared_passage_groups
from hybridbatch.errors import DataError
from hybridbatch.model.folder import Side
from hybridbatch.reporting import SILENT, Reporter
from hybridbatch.schedule import Schedule
from hybridbatch.seeding import stream
from hybridbatch.streams import COPIES
from hybridbatch.tokens import TokenArrays

CHUNK = 10_000  # texts handed to the tokenizer at a time
Tokenise = Callable[[Sequence[str], Side], TokenArrays]


@dataclass(frozen=True)
class Batch:
    """B queries and their P passages: the B positives in the same order, then the hard negatives, pair by pair."""

    queries: TokenArrays
    passages: TokenArrays
    owner: np.ndarray  # int64 [P]: the pair each passage belongs to, ascending among the hard negatives
    records: np.ndarray | None = None  # int64 [B]: the record of each pair, where a record may have several

    @property
    def pairs(self) -> int:
        """B."""
        return len(self.queries)

    @cached_property
    def tokens(self) -> TokenArrays:
        """Queries and passages, B + P sequences."""
        return TokenArrays.concatenate([self.queries, self.passages])

    @cached_property
    def keys(self) -> np.ndarray:
        """int64 [P]: equal for passages that must not be each other's negatives.

        Those are passages of the same tokens, which the encoder cannot tell apart, and the translations of a record.
        """
        seen: dict[bytes, int] = {}
        keys = np.array([seen.setdefault(self.passages[i].tobytes(), len(seen)) for i in range(len(self.passages))])
        if self.records is None:
            return keys
        return shared_passage_groups(keys[: self.pairs], self.records + 1, len(seen)).astype(np.int64)[keys]

    def shares(self, workers: int) -> list[np.ndarray]:
        """The positions in `tokens` that each worker embeds: a contiguous cut of the pairs, sizes differing by one."""
        owner = np.concatenate([np.arange(self.pairs), self.owner])
        bounds = [rank * self.pairs // workers for rank in range(workers + 1)]
        return [np.flatnonzero((owner >= low) & (owner < high)) for low, high in pairwise(bounds)]

    def padded_tokens(self) -> int:
        """What a trainer would compute that pads queries and passages to the longest of each."""
        return sum(len(side) * int(side.lengths.max()) for side in (self.queries, self.passages))


class Batches:
    """The batches of a schedule, by step.

    Args:
        schedule: its row numbers are passed to the text functions.
        queries, passages: rows (int [n]) -> texts.
        negatives: rows -> hard negatives of each.
        record_ids: rows -> names, for error messages.
        tokenise: texts and side -> token arrays.
        records: rows -> numbers of their records; needed for mtt batches only.
        hard_negatives: most per pair; a row with fewer gives all it has.
        seed: of the choice among a row's hard negatives.
    Raises: `DataError` naming the record whose text the tokenizer refuses.
    """

    def __init__(
        self,
        schedule: Schedule,
        *,
        queries: Callable[[np.ndarray], list[str]],
        passages: Callable[[np.ndarray], list[str]],
        negatives: Callable[[np.ndarray], list[tuple[str, ...]]],
        record_ids: Callable[[np.ndarray], list[str]],
        tokenise: Tokenise,
        records: Callable[[np.ndarray], np.ndarray] | None = None,
        hard_negatives: int = 0,
        seed: int = 0,
        report: Reporter = SILENT,
    ) -> None:
        self.schedule = schedule
        self.record_ids = record_ids
        self._records = records
        self._query_rows, self._passage_rows = np.unique(schedule.query_row), np.unique(schedule.passage_row)
        with report.bar("tokenising", len(self._query_rows) + len(self._passage_rows), "texts") as bar:

            def all_tokens(rows: np.ndarray, texts: Callable[[np.ndarray], list[str]], side: Side) -> TokenArrays:
                parts = []
                for begin in range(0, len(rows), CHUNK):
                    chunk = rows[begin : begin + CHUNK]
                    parts.append(self._tokenise(tokenise, chunk, texts(chunk), side))
                    bar.advance(len(chunk))
                return TokenArrays.concatenate(parts)

            self._queries = all_tokens(self._query_rows, queries, "query")
            self._passages = all_tokens(self._passage_rows, passages, "passage")
        self._negatives = HardNegatives(
            schedule.passage_row, self._passage_rows, negatives, tokenise, hard_negatives, seed
        )

    def _tokenise(self, tokenise: Tokenise, rows: np.ndarray, texts: Sequence[str], side: Side) -> TokenArrays:
        """Tokens of `texts`; a text that the tokenizer refuses is looked for and named by its record."""
        try:
            return tokenise(texts, side)
        except DataError:
            for row, text in zip(rows, texts, strict=True):
                try:
                    tokenise([text], side)
                except DataError as error:
                    raise DataError(f"record {self.record_ids(np.array([row]))[0]!r}: {error}") from error
            raise

    def __len__(self) -> int:
        """T, the number of batches."""
        return self.schedule.steps

    def __getitem__(self, step: int) -> Batch:
        """The batch of `step`, whole, whatever the number of workers."""
        positives = self._passages.take(np.searchsorted(self._passage_rows, self.schedule.passage_row[step]))
        owner, negatives = self._negatives.of(step)
        return Batch(
            self._queries.take(np.searchsorted(self._query_rows, self.schedule.query_row[step])),
            TokenArrays.concatenate([positives, negatives]) if len(negatives) else positives,
            np.concatenate([np.arange(len(positives)), owner]),
            self._shared_records(step),
        )

    def _shared_records(self, step: int) -> np.ndarray | None:
        """int64 [B]: the record of each pair of an mtt batch, the only ones where a record has more than one."""
        if self.schedule.kind[step] != COPIES:
            return None
        if self._records is None:
            raise ValueError("mtt batches need the records of their rows")
        return self._records(self.schedule.query_row[step])

    @property
    def longest(self) -> int:
        """Tokens of the longest sequence of any batch."""
        return max(int(part.lengths.max(initial=0)) for part in (self._queries, self._passages, self._negatives.tokens))

    def words(self, size: int) -> np.ndarray:
        """bool [size]: which of `size` token ids occur in any batch."""
        seen = np.zeros(size, bool)
        for tokens in (self._queries, self._passages, self._negatives.tokens):
            seen[tokens.ids] = True
        return seen

    def pair_ids(self, step: int) -> list[str]:
        """The record ids of a batch's pairs."""
        return self.record_ids(self.schedule.query_row[step])


class HardNegatives:
    """The hard negatives of every step: at most so many per pair, drawn from the passage row's list by (seed, step).

    Args:
        table: int [T, B]: the passage row of every pair.
        rows: its distinct values, ascending.
        most: per pair.
    """

    def __init__(
        self,
        table: np.ndarray,
        rows: np.ndarray,
        negatives: Callable[[np.ndarray], list[tuple[str, ...]]],
        tokenise: Tokenise,
        most: int,
        seed: int,
    ) -> None:
        self._table, self._rows, self._most, self._seed = table, rows, most, seed
        lists = negatives(rows) if most else []
        self._start = np.concatenate(
            [np.zeros(1, np.int64), np.cumsum([len(texts) for texts in lists], dtype=np.int64)]
        )
        drawn = [self._draw(step)[1] for step in range(len(table))] if self._start[-1] else []
        self._numbers = np.unique(np.concatenate(drawn)) if drawn else np.empty(0, np.int64)
        flat = [text for texts in lists for text in texts]
        parts = [self._numbers[begin : begin + CHUNK] for begin in range(0, len(self._numbers), CHUNK)]
        self.tokens = TokenArrays.concatenate([tokenise([flat[i] for i in part], "passage") for part in parts])

    def of(self, step: int) -> tuple[np.ndarray, TokenArrays]:
        """(the pair each belongs to, ascending; their tokens)."""
        owner, numbers = self._draw(step)
        return owner, self.tokens.take(np.searchsorted(self._numbers, numbers))

    def _draw(self, step: int) -> tuple[np.ndarray, np.ndarray]:
        """(pair, number of the hard negative) of those drawn for `step`: uniform without replacement per pair."""
        if not self._start[-1]:
            return np.empty(0, np.int64), np.empty(0, np.int64)
        at = np.searchsorted(self._rows, self._table[step])
        count = self._start[at + 1] - self._start[at]
        keys = stream(self._seed, "hard negatives", step).random((len(at), int(count.max(initial=0))))
        keys[np.arange(keys.shape[1]) >= count[:, None]] = np.inf
        order = np.argsort(keys, axis=1, kind="stable")[:, : self._most]
        owner, column = np.nonzero(np.arange(order.shape[1]) < count[:, None])
        return owner, self._start[at[owner]] + order[owner, column]
