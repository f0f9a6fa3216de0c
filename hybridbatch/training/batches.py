"""Turns the rows of a schedule into the token arrays of batches.

All texts are tokenised once, before training starts.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import chain, pairwise
from typing import Literal

import numpy as np

from hybridbatch.common.errors import DataError
from hybridbatch.common.progress import SILENT, Bar, Reporter
from hybridbatch.common.seeding import stream
from hybridbatch.common.tokens import TokenArrays
from hybridbatch.model.layout import Side
from hybridbatch.sampling.index import shared_passage_groups
from hybridbatch.sampling.schedule import Schedule
from hybridbatch.sampling.streams import COPIES
from hybridbatch.training.alignment import Translations
from hybridbatch.training.rows import Rows, Tokenise

CHUNK = 10_000  # texts handed to the tokenizer at a time
NegativesLanguage = Literal["passage", "query", "both"]


def no_tokens() -> TokenArrays:
    """No sequence."""
    return TokenArrays.concatenate([])


def no_rows() -> np.ndarray:
    """int64 [0]."""
    return np.empty(0, np.int64)


@dataclass(frozen=True)
class Batch:
    """B queries and their P passages.

    The passages are the B positives, in the order of the queries, and then the hard negatives, pair
    by pair.
    """

    queries: TokenArrays
    passages: TokenArrays
    # int64 [P]: the pair that each passage belongs to, ascending among the hard negatives
    owner: np.ndarray
    # int64 [B]: the record of each pair, if a record may have several pairs
    records: np.ndarray | None = None
    # [M]: translations of queries and positives into other languages
    translations: TokenArrays = field(default_factory=no_tokens)
    # int64 [M]: the query (< B) or positive (B to 2B - 1) that each translation translates
    translates: np.ndarray = field(default_factory=no_rows)
    # int64 [P]: a pair that each passage is known to answer, -1 if none; None: not known
    answers: np.ndarray | None = None

    @property
    def pairs(self) -> int:
        """B, the number of pairs."""
        return len(self.queries)

    @cached_property
    def tokens(self) -> TokenArrays:
        """The tokens of queries, passages and translations: B + P + M sequences."""
        return TokenArrays.concatenate([self.queries, self.passages, self.translations])

    @cached_property
    def keys(self) -> np.ndarray:
        """int64 [P]: equal for passages that must not be each other's negatives.

        Passages with the same tokens have equal keys, because the encoder cannot tell them apart.
        So have translations of one record: in mtt batches, and if a hard negative is known to be a
        translation of another pair's positive.
        """
        seen: dict[bytes, int] = {}
        tokens = (self.passages[i].tobytes() for i in range(len(self.passages)))
        keys = np.array([seen.setdefault(each, len(seen)) for each in tokens])
        if self.records is not None:
            shared = shared_passage_groups(keys[: self.pairs], self.records + 1, len(seen))
            keys = shared.astype(np.int64)[keys]
        if self.answers is not None:
            translated = (self.answers >= 0) & ~np.isin(keys, keys[: self.pairs])
            keys[translated] = keys[self.answers[translated]]
        return keys

    def shares(self, workers: int) -> list[np.ndarray]:
        """The positions in `tokens` that each worker embeds.

        Each share is a contiguous part of the pairs. The sizes differ by one at most.
        """
        owner = np.concatenate(
            [np.arange(self.pairs), self.owner, self.translates % self.pairs]
        )
        bounds = [rank * self.pairs // workers for rank in range(workers + 1)]
        return [
            np.flatnonzero((owner >= low) & (owner < high)) for low, high in pairwise(bounds)
        ]

    def padded_tokens(self) -> int:
        """The number of tokens that a padding trainer would compute.

        Such a trainer pads queries, passages and translations each to their longest text.
        """
        sides = (self.queries, self.passages, self.translations)
        return sum(len(side) * int(side.lengths.max(initial=0)) for side in sides)


class Batches:
    """The batches of a schedule, by step.

    Args:
        schedule: plan of the batches; its row numbers are the row numbers of `rows`.
        rows: gives the texts.
        tokenise: texts and side -> token arrays.
        translations: rows of the translations of every query and passage, if batches contain
            translations.
        hard_negatives: largest number per pair; a pair with fewer brings all it has.
        negatives_language: source of the hard negatives of a cross-lingual pair: the row of its
            passage, the row of its query, or both.
        seed: seed of the choice among the hard negatives of a row.
    Raises: `DataError` that names the record whose text the tokenizer refuses.
    """

    def __init__(
        self,
        schedule: Schedule,
        rows: Rows,
        tokenise: Tokenise,
        *,
        translations: Translations | None = None,
        hard_negatives: int = 0,
        negatives_language: NegativesLanguage = "passage",
        seed: int = 0,
        report: Reporter = SILENT,
    ) -> None:
        self.schedule = schedule
        self.rows = rows
        self._translations = translations
        self._query_rows = np.unique(schedule.query_row)
        self._passage_rows = np.unique(schedule.passage_row)
        if translations is not None:
            queries, passages = translations
            self._query_rows = np.union1d(self._query_rows, queries[queries >= 0])
            self._passage_rows = np.union1d(self._passage_rows, passages[passages >= 0])
        total = len(self._query_rows) + len(self._passage_rows)
        with report.bar("tokenising", total, "texts") as bar:
            self._queries = self._all_tokens(tokenise, "query", bar)
            self._passages = self._all_tokens(tokenise, "passage", bar)
        table = _negatives_table(schedule, negatives_language)
        self._negatives = HardNegatives(table, rows, tokenise, hard_negatives, seed)

    def _all_tokens(self, tokenise: Tokenise, side: Side, bar: Bar) -> TokenArrays:
        """Tokens of all texts of a side, in the order of their row numbers."""
        if side == "query":
            wanted, texts = self._query_rows, self.rows.queries
        else:
            wanted, texts = self._passage_rows, self.rows.passages
        stored = self.rows.stored_tokens(wanted, side)
        if stored is not None:
            return stored
        parts = []
        for begin in range(0, len(wanted), CHUNK):
            chunk = wanted[begin : begin + CHUNK]
            parts.append(self._tokenise(tokenise, chunk, texts(chunk), side))
            bar.advance(len(chunk))
        return TokenArrays.concatenate(parts)

    def _tokenise(
        self, tokenise: Tokenise, rows: np.ndarray, texts: Sequence[str], side: Side
    ) -> TokenArrays:
        """Tokens of `texts`.

        Raises: `DataError` that names the record of a text that the tokenizer refuses.
        """
        try:
            return tokenise(texts, side)
        except DataError:
            for row, text in zip(rows, texts, strict=True):
                try:
                    tokenise([text], side)
                except DataError as error:
                    (name,) = self.rows.record_ids(np.array([row]))
                    raise DataError(f"record {name!r}: {error}") from error
            raise

    @property
    def hard_negatives(self) -> int:
        """The number of hard negatives of the rows of the schedule, drawn or not."""
        return self._negatives.known

    def __len__(self) -> int:
        """T, the number of batches."""
        return self.schedule.steps

    def __getitem__(self, step: int) -> Batch:
        """The whole batch of `step`. It does not depend on the number of workers."""
        positives = self._passages.take(
            np.searchsorted(self._passage_rows, self.schedule.passage_row[step])
        )
        owner, negatives, groups = self._negatives.of(step)
        return Batch(
            self._queries.take(
                np.searchsorted(self._query_rows, self.schedule.query_row[step])
            ),
            TokenArrays.concatenate([positives, negatives]) if len(negatives) else positives,
            np.concatenate([np.arange(len(positives)), owner]),
            self._shared_records(step),
            *self._translated(step),
            answers=None if groups is None else self._answers(step, groups),
        )

    def _answers(self, step: int, groups: np.ndarray) -> np.ndarray:
        """int64 [P]: for every passage, a pair whose positive is in its group; -1 if none.

        `groups` are the groups of the hard negatives.
        """
        mine = self.rows.groups(self.schedule.passage_row[step])
        found, first = np.unique(mine, return_index=True)
        at = np.minimum(np.searchsorted(found, groups), len(found) - 1)
        return np.concatenate(
            [np.arange(len(mine)), np.where(found[at] == groups, first[at], -1)]
        )

    def _translated(self, step: int) -> tuple[TokenArrays, np.ndarray]:
        """The translations of a batch, and the position of the text that each one translates."""
        if self._translations is None:
            return no_tokens(), no_rows()
        queries, passages = (rows[step] for rows in self._translations)
        tokens = (
            self._queries.take(np.searchsorted(self._query_rows, queries[queries >= 0])),
            self._passages.take(np.searchsorted(self._passage_rows, passages[passages >= 0])),
        )
        return TokenArrays.concatenate(tokens), np.flatnonzero(
            np.concatenate([queries, passages]) >= 0
        )

    def _shared_records(self, step: int) -> np.ndarray | None:
        """int64 [B]: the record of each pair of an mtt batch; None for other batches.

        Only mtt batches may hold several pairs of one record.
        """
        if self.schedule.kind[step] != COPIES:
            return None
        return self.rows.records(self.schedule.query_row[step])

    @property
    def longest(self) -> int:
        """The number of tokens of the longest sequence of any batch."""
        return max(
            int(part.lengths.max(initial=0))
            for part in (self._queries, self._passages, self._negatives.tokens)
        )

    def tokens_left(self, first: int) -> float:
        """About how many tokens the batches have from step `first` on, without translations."""
        schedule, total = self.schedule, 0.0
        sides = (
            (self._queries, self._query_rows, schedule.query_row),
            (self._passages, self._passage_rows, schedule.passage_row),
        )
        for tokens, known, rows in sides:
            total += float(tokens.lengths[np.searchsorted(known, rows[first:])].sum())
        negatives = self._negatives
        if negatives.known and len(negatives.tokens):
            pairs = schedule.query_row[first:].size
            total += pairs * negatives.most * float(negatives.tokens.lengths.mean())
        return total

    def words(self, size: int) -> np.ndarray:
        """bool [size]: which of `size` token ids occur in any batch."""
        seen = np.zeros(size, bool)
        for tokens in (self._queries, self._passages, self._negatives.tokens):
            seen[tokens.ids] = True
        return seen

    def pair_ids(self, step: int) -> list[str]:
        """The record ids of a batch's pairs."""
        return self.rows.record_ids(self.schedule.query_row[step])


def _negatives_table(schedule: Schedule, language: NegativesLanguage) -> np.ndarray:
    """int64 [T, B, S]: the rows whose hard negatives each pair draws from; -1 for none."""
    if language == "query":
        return schedule.query_row[..., None]
    if language == "passage":
        return schedule.passage_row[..., None]
    different = schedule.query_row != schedule.passage_row
    return np.stack(
        [schedule.passage_row, np.where(different, schedule.query_row, -1)], axis=-1
    )


class HardNegatives:
    """The hard negatives of every step.

    Each pair gets at most `most` hard negatives. They are drawn from the lists of its rows, as a
    function of (seed, step).

    Args:
        table: int [T, B, S]: the rows of every pair, -1 for none.
        rows: gives the lists of hard negatives.
        tokenise: texts and side -> token arrays.
        most: largest number per pair.
        seed: seed of the choice.
    """

    def __init__(
        self,
        table: np.ndarray,
        rows: Rows,
        tokenise: Tokenise,
        most: int,
        seed: int,
    ) -> None:
        self._table, self.most, self._seed = table, most, seed
        self._rows = np.unique(table[table >= 0])
        lists = rows.negatives(self._rows) if most else []
        counts = [len(texts) for texts in lists]
        self._start = np.concatenate([np.zeros(1, np.int64), np.cumsum(counts, dtype=np.int64)])
        known = rows.negative_groups(self._rows) if self._start[-1] else None
        self._groups = None if known is None else np.concatenate(known)
        drawn = [self._draw(step)[1] for step in range(len(table))] if self._start[-1] else []
        self._numbers = np.unique(np.concatenate(drawn)) if drawn else np.empty(0, np.int64)
        flat = list(chain.from_iterable(lists))
        parts = []
        for begin in range(0, len(self._numbers), CHUNK):
            chosen = [flat[number] for number in self._numbers[begin : begin + CHUNK]]
            parts.append(tokenise(chosen, "passage"))
        self.tokens = TokenArrays.concatenate(parts)

    @property
    def known(self) -> int:
        """The number of hard negatives that the rows have, drawn or not."""
        return int(self._start[-1])

    def of(self, step: int) -> tuple[np.ndarray, TokenArrays, np.ndarray | None]:
        """The hard negatives of `step`.

        Returns: the pair of each hard negative, ascending; their tokens; their groups, if any group
            is known.
        """
        owner, numbers = self._draw(step)
        tokens = self.tokens.take(np.searchsorted(self._numbers, numbers))
        return owner, tokens, None if self._groups is None else self._groups[numbers]

    def _draw(self, step: int) -> tuple[np.ndarray, np.ndarray]:
        """The hard negatives drawn for `step`, as (pairs, numbers of the hard negatives).

        They are drawn uniformly without replacement for each pair.
        """
        if not self._start[-1]:
            return np.empty(0, np.int64), np.empty(0, np.int64)
        rows = self._table[step]
        at = np.searchsorted(self._rows, rows)
        ends = np.cumsum(np.where(rows < 0, 0, self._start[at + 1] - self._start[at]), axis=1)
        count = ends[:, -1]
        keys = stream(self._seed, "hard negatives", step).random(
            (len(rows), int(count.max(initial=0)))
        )
        keys[np.arange(keys.shape[1]) >= count[:, None]] = np.inf
        order = np.argsort(keys, axis=1, kind="stable")[:, : self.most]
        owner, column = np.nonzero(np.arange(order.shape[1]) < count[:, None])
        place = order[owner, column]
        which = (place[:, None] >= ends[owner]).sum(axis=1)
        return owner, self._start[at[owner, which] + 1] - (ends[owner, which] - place)
