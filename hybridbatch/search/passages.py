"""The first passages for queries in any language, among passages of any languages at once.

Vectors come from the store (`hybridbatch.search.embeddings`). So a corpus is encoded once, by
`eval` or by `search`, whichever is first. Search is exact.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, Protocol

import numpy as np

from hybridbatch.common.errors import ConfigError
from hybridbatch.common.progress import SILENT, Reporter
from hybridbatch.common.records import Texts
from hybridbatch.search.blocked_vectors import encode_blocks
from hybridbatch.search.embeddings import EmbeddingStore, Side
from hybridbatch.search.exact import search
from hybridbatch.search.order import precedence_of_corpora
from hybridbatch.search.vectors import Vectors

IN_MEMORY = (
    200_000  # passages of a language; a larger corpus is read from disk for every search
)


class Debias(Protocol):
    """Takes the language out of vectors, as `hybridbatch.debias.vectors_file.LanguageVectors`."""

    def apply(
        self, vectors: np.ndarray, side: Side, languages: str | Sequence[str]
    ) -> np.ndarray:
        """Turn `vectors` [n, D] of a side, given their language or languages: float32 [n, D]."""

    def tell(self, used: Mapping[Side, Iterable[str]]) -> list[str]:
        """A sentence for each kind of borrowed vector among the languages of each side."""


class DebiasedVectors:
    """[P, D] float32: stored passages of one language, turned as they are read."""

    def __init__(self, stored: Vectors, debias: Debias, language: str) -> None:
        self.stored, self.debias, self.language = stored, debias, language
        self.shape = tuple(stored.shape)

    def __len__(self) -> int:
        return len(self.stored)

    def __getitem__(self, rows: Any) -> np.ndarray:
        """[n, D] of a slice, or of ascending row numbers."""
        return self.debias.apply(np.asarray(self.stored[rows]), "passage", self.language)


@dataclass(frozen=True)
class Hit:
    """A passage that was found."""

    rank: int  # from 1
    score: float  # cosine of query and passage, -1 .. 1
    language: str
    id: str
    text: str


class PassageSearch:
    """Corpora of several languages, encoded and ready to be searched."""

    def __init__(
        self,
        store: EmbeddingStore,
        corpora: Mapping[str, Texts],
        device: str = "cpu",
        report: Reporter = SILENT,
        debias: Debias | None = None,
    ) -> None:
        """Encode what the store lacks.

        Args:
            corpora: passages by language, with distinct ids within a language.
            device: where scores are computed.
            debias: language vectors, subtracted from passages here and from queries in `find`. Both
                report which languages borrow a vector.

        Raises:
            ModelError: an embedding is not finite; the error names its text.
            DataError: a repeated id or a damaged store.
            OutputError: the store cannot be written.
        """
        self.store = store
        self.corpora = dict(corpora)
        self.device = device
        self.report = report
        self.vectors: dict[str, Vectors] = {}
        small: dict[str, Texts] = {}
        for language, texts in corpora.items():
            if len(texts.ids) > IN_MEMORY:
                self.vectors[language] = encode_blocks(
                    store, texts.texts, "passage", report=report
                )
            else:
                small[language] = texts
        joined: list[str] = []
        for texts in small.values():
            joined += texts.texts
        embedded = store.embed(joined, "passage", report)
        start = 0
        for language, texts in small.items():
            self.vectors[language] = embedded[start : start + len(texts.ids)]
            start += len(texts.ids)
        self.debias = debias
        self.asked_in: set[str] = set()  # languages of queries that were told
        if debias:
            self._tell(debias, "passage", corpora)
            self.vectors = {
                language: DebiasedVectors(stored, debias, language)
                for language, stored in self.vectors.items()
            }
        self.places: dict[tuple[str, ...], np.ndarray] = {}  # precedences, by languages

    def find(
        self,
        queries: Sequence[str],
        k: int = 10,
        languages: Sequence[str] | None = None,
        asked_in: Sequence[str] | None = None,
    ) -> list[list[Hit]]:
        """The first k passages of every query, best first; equal scores by descending id.

        Args:
            asked_in: the language of each query, which language vectors need; None: unknown.
            languages: search only the passages in these languages; None: in all languages.

        Raises:
            ConfigError: a language that has no passages.
            DataError: a query without any token.
        """
        chosen = tuple(self.corpora if languages is None else languages)
        if unknown := [language for language in chosen if language not in self.corpora]:
            raise ConfigError(
                f"language {unknown[0]!r}: has no passages; the corpus has"
                f" {', '.join(self.corpora)}"
            )
        if not queries:
            return []
        if chosen not in self.places:
            self.places[chosen] = precedence_of_corpora(
                {language: self.corpora[language] for language in chosen}
            )
        rows = JoinedVectors([self.vectors[language] for language in chosen])
        vectors = self.store.encode(queries, "query")
        if self.debias:
            of_query = asked_in or ["und"] * len(queries)
            self._tell(self.debias, "query", sorted({*of_query} - self.asked_in))
            self.asked_in.update(of_query)
            vectors = self.debias.apply(vectors, "query", of_query)
        found = search(
            vectors,
            rows,
            k,
            places=self.places[chosen],
            device=self.device,
        )
        hits = []
        for numbers, scores in zip(found.rows.tolist(), found.scores.tolist(), strict=True):
            listed = []
            for rank, (row, score) in enumerate(zip(numbers, scores, strict=True), 1):
                part, place = rows.locate(row)
                texts = self.corpora[chosen[part]]
                listed.append(
                    Hit(rank, score, chosen[part], texts.ids[place], texts.texts[place])
                )
            hits.append(listed)
        return hits

    def _tell(self, debias: Debias, side: Side, languages: Iterable[str]) -> None:
        for sentence in debias.tell({side: languages}):
            self.report.warn(sentence)


class JoinedVectors:
    """Vectors of several corpora as if they were one, without a copy."""

    def __init__(self, parts: Sequence[Vectors]) -> None:
        self.parts = parts
        self.starts = [0, *accumulate(len(part) for part in parts)]
        self.shape = (self.starts[-1], parts[0].shape[1])

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: slice) -> np.ndarray:
        """[n, D] of a slice without step."""
        first, last, _ = rows.indices(len(self))
        found = []
        for part, start in zip(self.parts, self.starts, strict=False):
            low, high = max(first - start, 0), min(last - start, len(part))
            if low < high:
                found.append(np.asarray(part[low:high]))
        if len(found) == 1:
            return found[0]
        return np.concatenate(found) if found else np.empty((0, self.shape[1]), np.float32)

    def locate(self, row: int) -> tuple[int, int]:
        """The number of the part that holds a row, and the row's place in this part."""
        part = int(np.searchsorted(self.starts, row, side="right")) - 1
        return part, row - self.starts[part]
