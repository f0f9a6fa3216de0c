"""Validation by retrieval: mean average precision in all three settings, on the validation split.

A few batches cannot choose between close models: a query meets a hundred passages in them, and most
queries are right. Here every query is ranked against all passages of a set, in its own language
(monolingual), in each other language (cross-lingual) and in the pool of all languages.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from hybridbatch.common.errors import DataError
from hybridbatch.common.seeding import stream
from hybridbatch.common.tokens import TokenArrays
from hybridbatch.data.store.reader import Store
from hybridbatch.model import Encoder
from hybridbatch.sampling.index import HAS_PASSAGE, HAS_QUERY, RecordIndex

SEED = 0  # the same set for every seed and mix of a data set, so that runs can be compared
METRIC = "map"
SETTINGS = ("monolingual", "cross-lingual", "multilingual")


@dataclass(frozen=True)
class RetrievalSet:
    """Distinct queries and passages of the validation split, and the relevant pairs.

    Attributes:
        queries, passages: the tokens of Q queries and P passages.
        query_language, passage_language: int [Q] and int [P], numbers of languages.
        relevant: for each query, int [r]: the relevant passages, in all languages.
        languages: names of the languages.
    """

    queries: TokenArrays
    passages: TokenArrays
    query_language: np.ndarray
    passage_language: np.ndarray
    relevant: Sequence[np.ndarray]
    languages: tuple[str, ...]

    @property
    def about(self) -> str:
        """The size of the set as a sentence."""
        spoken = len(np.unique(self.passage_language))
        return (
            f"retrieval validation: {len(self.queries):,} queries against {len(self.passages):,}"
            f" passages in {spoken} languages; every validation encodes them all"
        )

    def words(self, size: int) -> np.ndarray:
        """bool [size]: which of `size` token ids occur in any text."""
        seen = np.zeros(size, bool)
        for tokens in (self.queries, self.passages):
            seen[tokens.ids] = True
        return seen

    def measure(self, embed: Callable[[TokenArrays], Tensor]) -> dict[str, float]:
        """Measure ``map/SETTING`` for the settings that there are, and ``map``, their plain mean.

        A setting's value is the mean over query languages of the mean over their queries. In the
        cross-lingual setting a query counts with its mean over the other languages. A tie counts
        against the relevant passage.

        Args:
            embed: tokens of n sequences -> [n, D], rows of unit length.
        """
        queries = embed(self.queries).double().cpu().numpy()
        passages = embed(self.passages).double().cpu().numpy()
        values: dict[str, list[list[float]]] = {
            setting: [[] for _ in self.languages] for setting in SETTINGS
        }
        of_language = [
            np.flatnonzero(self.passage_language == n) for n in range(len(self.languages))
        ]
        for number, own in enumerate(self.query_language.tolist()):
            scores = passages @ queries[number]
            wanted = self.relevant[number]
            across = []
            for other, rows in enumerate(of_language):
                found = wanted[self.passage_language[wanted] == other]
                if not len(found):
                    continue
                precision = average_precision(scores[rows], scores[found])
                if other == own:
                    values["monolingual"][own].append(precision)
                else:
                    across.append(precision)
            if across:
                values["cross-lingual"][own].append(float(np.mean(across)))
                values["multilingual"][own].append(average_precision(scores, scores[wanted]))
        measured = {}
        for setting, by_language in values.items():
            means = [float(np.mean(each)) for each in by_language if each]
            if means:
                measured[f"{METRIC}/{setting}"] = float(np.mean(means))
        return measured | {METRIC: float(np.mean(list(measured.values())))}


def average_precision(scores: np.ndarray, relevant: np.ndarray) -> float:
    """The average precision of a ranking of all `scores`, which include the `relevant` ones.

    Passages with the score of a relevant passage stand before it, so equal scores never help.
    """
    ranks = np.sort(np.count_nonzero(scores[None] >= relevant[:, None], axis=1))
    # Relevant passages with equal scores share the last of their ranks.
    hits = np.searchsorted(ranks, ranks, side="right")
    return float(np.mean(hits / ranks))


def plan_retrieval(
    store: Store,
    index: RecordIndex,
    encoder: Encoder,
    *,
    queries: int,
    passages: int,
) -> RetrievalSet:
    """Choose records of the validation split in a fixed random order, and tokenise their texts.

    The first records give the queries, until there are `queries` of them. Further records add their
    passages, until there are `passages`. Equal texts of a language are one text.

    Args:
        store: the prepared data.
        index: the validation split in the training languages.
        encoder: its tokenizer and prompts.
        queries, passages: the wanted numbers over all languages; fewer if the split has fewer.

    Raises:
        DataError: no record of the split has a query and a passage.
    """
    has = np.asarray(index.has)
    both = np.zeros(index.records, bool)
    record = np.asarray(index.record_of(np.arange(index.rows)))
    asked = np.zeros(index.records, bool)
    answered = np.zeros(index.records, bool)
    asked[record[(has & HAS_QUERY) > 0]] = True
    answered[record[(has & HAS_PASSAGE) > 0]] = True
    both = asked & answered
    if not both.any():
        raise DataError(
            "validation_metric = map: no record of the validation split has a query and a passage"
            " in the training languages; choose loss or mrr"
        )
    order = stream(SEED, "retrieval validation").permutation(index.records)
    ranked = np.concatenate([order[both[order]], order[~both[order]]])
    query_rows = _first_rows(index, ranked[: int(both.sum())], HAS_QUERY, queries)
    first = np.unique(record[query_rows])
    rest = ranked[~np.isin(ranked, first)]
    needed = np.concatenate([first, rest])
    least = _count(index, first, HAS_PASSAGE)
    passage_rows = _first_rows(index, needed, HAS_PASSAGE, max(passages, least))
    spoken_q, text_q = _distinct(store, index, query_rows, "query")
    spoken_p, text_p = _distinct(store, index, passage_rows, "passage")
    places: dict[int, set[int]] = {}
    for row, text in zip(passage_rows.tolist(), text_p.of_row, strict=True):
        places.setdefault(int(record[row]), set()).add(text)
    wanted: list[set[int]] = [set() for _ in text_q.texts]
    for row, text in zip(query_rows.tolist(), text_q.of_row, strict=True):
        wanted[text] |= places.get(int(record[row]), set())
    kept = [number for number, found in enumerate(wanted) if found]
    return RetrievalSet(
        queries=encoder.tokenise([text_q.texts[number] for number in kept], "query"),
        passages=encoder.tokenise(text_p.texts, "passage"),
        query_language=spoken_q[kept],
        passage_language=spoken_p,
        relevant=[np.array(sorted(wanted[number])) for number in kept],
        languages=index.languages,
    )


@dataclass(frozen=True)
class _Texts:
    """Distinct texts, and the text of every row."""

    texts: list[str]
    of_row: list[int]


def _rows_of(index: RecordIndex, record: int, side: int) -> np.ndarray:
    begin, end = int(index.record_start[record]), int(index.record_start[record + 1])
    return begin + np.flatnonzero((np.asarray(index.has[begin:end]) & side) > 0)


def _count(index: RecordIndex, records: np.ndarray, side: int) -> int:
    return sum(len(_rows_of(index, number, side)) for number in records.tolist())


def _first_rows(index: RecordIndex, records: np.ndarray, side: int, count: int) -> np.ndarray:
    """The rows of whole records in their order, until there are `count` rows."""
    found: list[np.ndarray] = []
    total = 0
    for number in records.tolist():
        if total >= count:
            break
        rows = _rows_of(index, number, side)
        found.append(rows)
        total += len(rows)
    return np.concatenate(found) if found else np.empty(0, np.int64)


def _distinct(
    store: Store, index: RecordIndex, rows: np.ndarray, side: str
) -> tuple[np.ndarray, _Texts]:
    """The languages of distinct texts, and the texts. A text of two languages counts as two."""
    read = store.queries if side == "query" else store.passages
    texts = read("validation", index.store_rows(rows))
    spoken = np.asarray(index.language)[rows].tolist()
    places: dict[tuple[int, str], int] = {}
    of_row = [places.setdefault(key, len(places)) for key in zip(spoken, texts, strict=True)]
    languages = np.array([language for language, _ in places], dtype=int)
    return languages, _Texts([text for _, text in places], of_row)
