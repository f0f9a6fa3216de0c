"""`hybridbatch mine`: hard negatives for prepared data, found by BM25 or by any encoder.

Every row gets passages in its own language that a search ranks high for its question and that are not known, and not
likely, to answer it. So a cross-lingual pair, which joins two rows of a record, can have negatives in the language of
its passage or of its query, whichever training asks for. docs/negatives.md has the method.
"""

import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from hashlib import blake2b
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np

import hybridbatch
from hybridbatch.arrangement import shared_passage_groups
from hybridbatch.config import MineConfig, TrainConfig
from hybridbatch.embeddings import EmbeddingStore
from hybridbatch.errors import DataError, OutputError
from hybridbatch.files import atomic_path, fingerprint, make_folder, output_errors
from hybridbatch.languages import resolve
from hybridbatch.lexical import BM25
from hybridbatch.overlap import normal_form
from hybridbatch.records import HAS_PASSAGE, HAS_QUERY, RecordIndex, Split
from hybridbatch.reporting import SILENT, Bar, Reporter
from hybridbatch.scoring.search import FaissIndex, search
from hybridbatch.store import FoundNegatives, Store, write_with_negatives

MINED = "mined"  # in the manifest's provenance
OUTCOME = "outcome"  # in there: the counts
CHUNK = 1 << 13  # questions searched at a time
READ = 1 << 15  # texts read or embedded at a time
# Why a passage that a search found is no negative, in the order in which the reasons are looked at.
KEPT = 0
REASONS = (
    "kept",
    "same record or passage",
    "same question",
    "among the first ranks",
    "no word in common",
    "too close to the positive (share)",
    "too close to the positive (margin)",
    "above the greatest score",
    "no positive to compare with",
)
SAME_TEXT, SAME_QUESTION, FIRST, NO_WORD, SHARE, MARGIN, ABOVE, NO_POSITIVE = range(1, len(REASONS))


def mine(config: MineConfig, report: Reporter = SILENT) -> Path:
    """Write prepared data with hard negatives as `config` says, unless it is there already; returns its folder.

    Languages that are finished stay so when the command is interrupted and run again, and the result is the same.

    Raises: `ConfigError`, `DataError` and `ModelError` for what cannot work; `OutputError` if the folder cannot be
        written or is the data's own.
    """
    from hybridbatch.train import prepare_data

    store = Store.open(prepare_data(TrainConfig(data=config.data, data_root=config.data_root), report))
    folder = config.out or Path("data") / f"{store.folder.name}-{config.method}"
    if folder.resolve() == store.folder.resolve():
        raise OutputError(f"{folder}: is the data itself; choose another folder with --out")
    languages = resolve(config.languages, store.languages)
    asked = None if config.query_languages == "own" else resolve(config.query_languages, store.languages)
    searching = _searching(config, report)
    identity = _identity(config, store, languages, asked, searching)
    if _is_there(folder, identity):
        report.note(f"{folder}: mined before from the same data with the same settings; nothing to do")
        return folder
    work = make_folder(folder.parent / f".{folder.name}.{fingerprint(identity)}.mining")
    found = {
        split: _mine_split(config, store, split, languages, asked, searching, work, report) for split in store.splits
    }
    outcome = {split: {language: part.outcome() for language, part in parts.items()} for split, parts in found.items()}
    provenance = dict(store.manifest["provenance"])
    provenance[MINED] = [*provenance.get(MINED, []), {**identity, OUTCOME: outcome}]
    write_with_negatives(
        store,
        folder,
        {split: _found(store, split, list(parts.values()), config.keep_given) for split, parts in found.items()},
        provenance=provenance,
        report=report,
    )
    shutil.rmtree(work)
    _tell(folder, outcome, report)
    return folder


Texts = Callable[[np.ndarray], list[str]]  # numbers from 0 -> passages


class Corpus(Protocol):
    """The passages of one language (and source), to be searched."""

    def search(
        self, queries: Sequence[str], k: int, positives: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """The first k passages of each query, the score of one passage more, and the base of scores.

        Args:
            positives: int64 [Q]: number of the passage to score; -1: none.
        Returns: numbers (int64 [Q, k], -1 where an index found fewer) and scores (float32 [Q, k]), the best first, equal
            scores in the order of numbers unless approximate; the scores of `positives` (float32 [Q], NaN: none); and
            what a passage scores that has nothing to do with the query (float32 [Q]).
        """


@dataclass(frozen=True)
class Searching:
    """A way to search."""

    about: dict[str, Any]  # all that its results depend on, as JSON
    corpus: Callable[[Texts, int, Path], Corpus]  # the passages, their number, a folder to work in
    words: bool  # whether score 0 says that no word is shared


def _searching(config: MineConfig, report: Reporter) -> Searching:
    if config.method == "bm25":
        return Searching({"method": "bm25"}, lambda texts, size, work: LexicalCorpus(texts(np.arange(size))), True)
    from hybridbatch.model import Encoder, resolve_precision
    from hybridbatch.training.distributed import resolve_device

    device = resolve_device(config.device)
    encoder = Encoder.load(config.model, **config.encoder_options, report=report).to(device)
    store = EmbeddingStore(encoder, config.cache, precision=resolve_precision(config.precision, device))
    model = {"name": config.model, "fingerprint": store.fingerprint, "precision": store.precision}
    return Searching(
        {"method": "dense", "model": model, "index": config.index, "seed": config.seed},
        lambda texts, size, work: DenseCorpus(store, texts, size, work, config.index, str(device), config.seed),
        False,
    )


class LexicalCorpus:
    """Passages by BM25."""

    def __init__(self, texts: Sequence[str]) -> None:
        self._index = BM25.build(texts)

    def search(
        self, queries: Sequence[str], k: int, positives: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """As `Corpus.search`."""
        scores = np.full(len(queries), np.nan, np.float32)
        there = np.flatnonzero(positives >= 0)
        scores[there] = self._index.of([queries[i] for i in there], positives[there])
        return *self._index.top(queries, k), scores, np.zeros_like(scores)


class DenseCorpus:
    """Passages by the inner product of their embeddings with a query's; the vectors are on disk, memory-mapped."""

    def __init__(
        self,
        store: EmbeddingStore,
        texts: Texts,
        size: int,
        work: Path,
        index: Literal["exact", "ivf", "ivfpq"],
        device: str,
        seed: int,
    ) -> None:
        self._store, self._device = store, device
        path = work / "vectors.npy"
        with output_errors(path):
            self._vectors = np.lib.format.open_memmap(path, "w+", np.float32, (size, store.encoder.dimension))
        for start in range(0, size, READ):
            numbers = np.arange(start, min(start + READ, size))
            self._vectors[numbers] = store.embed(texts(numbers), "passage")
        self._mean = self._vectors.mean(axis=0, dtype=np.float64).astype(np.float32)
        self._index = None if index == "exact" else FaissIndex(self._vectors, index, seed=seed)

    def search(
        self, queries: Sequence[str], k: int, positives: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """As `Corpus.search`."""
        vectors = self._store.embed(queries, "query")
        if self._index is None:
            found = search(vectors, self._vectors, k, device=self._device)
        else:
            found = self._index.search(vectors, k)
        scores = np.einsum("qd,qd->q", vectors, self._vectors[positives])
        return found.rows, found.scores, np.where(positives >= 0, scores, np.float32(np.nan)), vectors @ self._mean


@dataclass(frozen=True)
class Part:
    """The negatives of one language's rows of a split."""

    rows: np.ndarray  # int64 [m]: all rows of the language, ascending
    start: np.ndarray  # int64 [m + 1]: row i has the negatives start[i] to start[i + 1] - 1
    negatives: np.ndarray  # int64: rows whose passages they are, the hardest first
    asked: int  # rows for which there was a question to search with
    counts: np.ndarray  # int64 [REASONS]: passages found, over all rows, by what became of them

    def outcome(self) -> dict[str, Any]:
        """Counts, as JSON."""
        widths = np.diff(self.start)
        return {
            "rows": len(self.rows),
            "rows_with_question": self.asked,
            "rows_with_negatives": int((widths > 0).sum()),
            "negatives": int(widths.sum()),
            "removed": {REASONS[i]: int(self.counts[i]) for i in range(1, len(REASONS)) if self.counts[i]},
        }


def _mine_split(
    config: MineConfig,
    store: Store,
    split: Split,
    languages: Sequence[str],
    asked: Sequence[str] | None,
    searching: Searching,
    work: Path,
    report: Reporter,
) -> dict[str, Part]:
    """The parts of a split by language; those that are in the work folder are taken from there."""
    index = store.index(split)
    numbers = [index.languages.index(language) for language in languages]
    total = int(np.isin(index.language, numbers).sum())
    paths = {language: work / f"{split}-{language}.npz" for language in languages}
    missing = [language for language in languages if not paths[language].is_file()]
    if missing:
        known = KnownAnswers.read(store, split, report)
        done = total - int(np.isin(index.language, [index.languages.index(one) for one in missing]).sum())
        with report.bar(f"mining {split}", total, "rows", done) as bar:
            for language in missing:
                part = _mine_language(config, store, split, language, asked, known, searching, work, bar)
                _save(paths[language], part)
    return {language: _load(path) for language, path in paths.items()}


def _save(path: Path, part: Part) -> None:
    with atomic_path(path) as temporary, temporary.open("wb") as handle:
        np.savez(handle, allow_pickle=False, **{**vars(part), "asked": np.array(part.asked)})


def _load(path: Path) -> Part:
    try:
        with np.load(path, allow_pickle=False) as arrays:
            return Part(**{**arrays, "asked": int(arrays["asked"])})
    except (OSError, ValueError, KeyError) as error:
        raise DataError(f"{path}: damaged ({error}); remove {path.parent} and run again") from error


@dataclass(frozen=True)
class KnownAnswers:
    """Which passages of a split are known to answer which rows' questions. R rows, N records.

    Texts are compared in their normal form (`overlap.normal_form`). Records with a passage in common in any language,
    directly or through others, form a *group*, so that copies and translations of a row's passage are known, across
    sources too.
    """

    owner: np.ndarray  # int64 [R]: record of each row
    group: np.ndarray  # int32 [N]
    passage: np.ndarray  # uint64 [R]: hash of the passage; 0 where there is none
    question: np.ndarray  # int64 [R]: equal for rows with the same query; -1 where there is none
    answered: np.ndarray  # int64, ascending: question * N + group, where several groups have a question

    @classmethod
    def read(cls, store: Store, split: Split, report: Reporter = SILENT) -> "KnownAnswers":
        """Reads all texts of a split."""
        index = store.index(split)
        owner = np.repeat(np.arange(index.records), np.diff(index.record_start))
        with report.bar(f"comparing texts of {split}", 2 * index.rows, "texts") as bar:
            passage = _hashes((index.has & HAS_PASSAGE) > 0, lambda rows: store.passages(split, rows), bar)
            query = _hashes((index.has & HAS_QUERY) > 0, lambda rows: store.queries(split, rows), bar)
        group = shared_passage_groups(owner, passage, index.records)
        question = np.unique(query, return_inverse=True)[1] - int(not query.all())
        asked = query > 0
        question = np.where(asked, question, -1)
        answered = np.unique(question[asked] * index.records + group[owner[asked]])
        which = answered // max(1, index.records)
        answered = answered[np.bincount(which, minlength=1)[which] > 1]
        return cls(owner, group, passage, question, answered)

    def same_group(self, rows: np.ndarray, others: np.ndarray) -> np.ndarray:
        """bool: whether the records of rows and of other rows (broadcast) are in one group."""
        return self.group[self.owner[rows]] == self.group[self.owner[others]]

    def same_question(self, rows: np.ndarray, others: np.ndarray) -> np.ndarray:
        """bool: whether a record in the group of the other rows' has the query of `rows` (broadcast; all have one)."""
        codes = self.question[rows] * len(self.group) + self.group[self.owner[others]]
        if not len(self.answered):
            return np.zeros(codes.shape, bool)
        at = np.minimum(np.searchsorted(self.answered, codes), len(self.answered) - 1)
        return self.answered[at] == codes


def _hashes(present: np.ndarray, texts: Callable[[np.ndarray], list[str]], bar: Bar) -> np.ndarray:
    """uint64 [R]: a hash of the normal form of each text, 0 where there is none."""
    hashes = np.zeros(len(present), np.uint64)
    for start in range(0, len(present), READ):
        rows = start + np.flatnonzero(present[start : start + READ])
        digests = [blake2b((normal_form(text) or text).encode(), digest_size=8).digest() for text in texts(rows)]
        hashes[rows] = np.maximum(np.frombuffer(b"".join(digests), "<u8"), 1)
        bar.advance(min(READ, len(present) - start))
    return hashes


def _mine_language(
    config: MineConfig,
    store: Store,
    split: Split,
    language: str,
    asked: Sequence[str] | None,
    known: KnownAnswers,
    searching: Searching,
    work: Path,
    bar: Bar,
) -> Part:
    index = store.index(split)
    rows = np.flatnonzero(index.language == index.languages.index(language))
    numbers = None if asked is None else np.array([index.languages.index(one) for one in asked])
    targets, questions = _questions(index, known.owner, rows, numbers)
    of_row: list[np.ndarray] = []
    negatives: list[np.ndarray] = []
    counts = np.zeros(len(REASONS), np.int64)
    for members in _corpora(index, known.owner, rows, config.corpus):
        with_passage = members[(index.has[members] & HAS_PASSAGE) > 0]
        if len(with_passage):
            first = np.sort(np.unique(known.passage[with_passage], return_index=True)[1])
            passages = with_passage[first]  # each distinct one once
            texts = partial(_passages, store, split, passages)
            corpus = searching.corpus(texts, len(passages), work)
            mining = _Mining(config, store, split, known, corpus, passages, searching.words)
            mine = np.isin(targets, members)
            for chunk in _chunks(targets[mine]):
                kept_rows, kept, removed = mining.negatives(targets[mine][chunk], questions[mine][chunk])
                of_row.append(kept_rows)
                negatives.append(kept)
                counts += removed
        bar.advance(len(members))
    owners = np.concatenate([np.empty(0, np.int64), *of_row])
    order = np.argsort(owners, kind="stable")
    start = np.concatenate([np.searchsorted(owners[order], rows), [len(owners)]])
    flat = np.concatenate([np.empty(0, np.int64), *negatives])[order]
    return Part(rows, start, flat, len(np.unique(targets)), counts)


def _passages(store: Store, split: Split, rows: np.ndarray, numbers: np.ndarray) -> list[str]:
    return store.passages(split, rows[numbers])


def _questions(
    index: RecordIndex, owner: np.ndarray, rows: np.ndarray, languages: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray]:
    """(row of `rows`, row whose query is searched for it), by row: its own query, or its record's in `languages`."""
    if languages is None:
        with_query = rows[(index.has[rows] & HAS_QUERY) > 0]
        return with_query, with_query
    record = owner[rows]
    widths = np.diff(index.record_start)[record]
    targets = np.repeat(rows, widths)
    ends = np.cumsum(widths)
    others = np.arange(ends[-1] if len(ends) else 0) + np.repeat(index.record_start[record] - ends + widths, widths)
    useful = ((index.has[others] & HAS_QUERY) > 0) & np.isin(index.language[others], languages)
    return targets[useful], others[useful]


def _corpora(index: RecordIndex, owner: np.ndarray, rows: np.ndarray, corpus: str) -> Iterator[np.ndarray]:
    """The rows of a language that are searched together."""
    if corpus == "language":
        yield rows
    else:
        source = index.source[owner[rows]]
        for number in np.unique(source):
            yield rows[source == number]


def _chunks(targets: np.ndarray) -> Iterator[slice]:
    """Cuts of about `CHUNK` questions, never between two of one row. `targets` ascend."""
    start = 0
    while start < len(targets):
        stop = len(targets) if start + CHUNK >= len(targets) else int(np.searchsorted(targets, targets[start + CHUNK]))
        if stop <= start:  # one row with more questions than that
            stop = int(np.searchsorted(targets, targets[start], side="right"))
        yield slice(start, stop)
        start = stop


class _Mining:
    """Searches one corpus, and judges what is found."""

    def __init__(
        self,
        config: MineConfig,
        store: Store,
        split: Split,
        known: KnownAnswers,
        corpus: Corpus,
        passages: np.ndarray,
        words: bool,
    ) -> None:
        self._config, self._store, self._split = config, store, split
        self._known, self._corpus, self._passages, self._words = known, corpus, passages, words
        order = np.argsort(known.passage[passages])
        self._order, self._sorted = order, known.passage[passages][order]

    def negatives(self, targets: np.ndarray, questions: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """What is kept for some rows: (row, row of the negative), by row and hardness; counts by reason.

        Args:
            targets: int64 [Q], ascending: the row that each question is searched for.
            questions: int64 [Q]: the row whose query it is.
        """
        found = self._find(targets, questions)
        reasons = self._judge(found)
        kept = reasons == KEPT
        rows, numbers = found.row[kept], found.number[kept]
        most = _places(rows) < self._config.negatives
        return rows[most], self._passages[numbers[most]], np.bincount(reasons, minlength=len(REASONS))

    def _find(self, targets: np.ndarray, questions: np.ndarray) -> "_Found":
        texts = self._store.queries(self._split, questions)
        numbers, scores, positives, bases = self._corpus.search(texts, self._config.depth, self._positives(targets))
        if self._config.share_of == "score":
            bases = np.zeros_like(bases)
        there = numbers >= 0
        row = np.broadcast_to(targets[:, None], numbers.shape)[there]
        same_question = self._known.same_question(questions[:, None], self._passages[numbers])[there]
        height = (scores - bases[:, None].astype(np.float64))[there]
        number, score = numbers[there], scores[there]
        order = np.lexsort((number, row))
        row, number, score, height = row[order], number[order], score[order], height[order]
        starts = _first(row, number)
        best = np.maximum.reduceat(height, starts)
        rows, first = np.unique(targets, return_index=True)
        positive = np.maximum.reduceat(positives - bases.astype(np.float64), first)  # NaN where a row has none
        row, number = row[starts], number[starts]
        ranked = np.lexsort((number, -best, row))
        return _Found(
            row[ranked],
            number[ranked],
            np.maximum.reduceat(score, starts)[ranked],
            best[ranked],
            positive[np.searchsorted(rows, row)][ranked],
            np.logical_or.reduceat(same_question[order], starts)[ranked],
        )

    def _judge(self, found: "_Found") -> np.ndarray:
        """int64 [n]: the first reason against each passage found."""
        config = self._config
        reasons = np.full(len(found.row), KEPT)

        def remove(against: np.ndarray, reason: int) -> None:
            reasons[(reasons == KEPT) & against] = reason

        remove(self._known.same_group(found.row, self._passages[found.number]), SAME_TEXT)
        remove(found.same_question, SAME_QUESTION)
        unknown = np.flatnonzero(reasons == KEPT)
        reasons[unknown[_places(found.row[unknown]) < config.skip_first]] = FIRST
        if self._words:
            remove(found.score <= 0, NO_WORD)
        if config.positive_share is not None:
            limit = np.minimum(config.positive_share * found.positive, found.positive)
            remove(found.height >= limit, SHARE)
        if config.positive_margin is not None:
            remove(found.height >= found.positive - config.positive_margin, MARGIN)
        if config.positive_share is not None or config.positive_margin is not None:
            remove(np.isnan(found.positive), NO_POSITIVE)
        if config.max_score is not None:
            remove(found.score >= config.max_score, ABOVE)
        return reasons

    def _positives(self, targets: np.ndarray) -> np.ndarray:
        """int64 [Q]: the number of the rows' own passages, -1 where they have none."""
        wanted = self._known.passage[targets]
        return np.where(wanted > 0, self._order[np.searchsorted(self._sorted, np.maximum(wanted, self._sorted[0]))], -1)


@dataclass(frozen=True)
class _Found:
    """The passages that the questions of some rows found: n pairs of row and passage, by row, the highest first.

    Where several questions found a passage for a row, its scores are the best ones.
    """

    row: np.ndarray  # int64 [n]
    number: np.ndarray  # int64 [n]: of the passage
    score: np.ndarray  # float32 [n]
    height: np.ndarray  # float64 [n]: score above the base of the question
    positive: np.ndarray  # float64 [n]: height of the row's own passage; NaN where it has none
    same_question: np.ndarray  # bool [n]: whether a record with the passage has one of the questions


def _first(*keys: np.ndarray) -> np.ndarray:
    """Positions where sorted keys differ from those before."""
    differs = np.ones(len(keys[0]), bool)
    differs[1:] = np.any([key[1:] != key[:-1] for key in keys], axis=0)
    return np.flatnonzero(differs)


def _places(rows: np.ndarray) -> np.ndarray:
    """The place of each entry among those of its row, from 0; `rows` ascend."""
    return np.arange(len(rows)) - np.searchsorted(rows, rows)


def _identity(
    config: MineConfig, store: Store, languages: Sequence[str], asked: Sequence[str] | None, searching: Searching
) -> dict[str, Any]:
    """What the result depends on, as JSON."""
    names = {
        "negatives", "depth", "skip_first", "positive_share", "positive_margin", "max_score", "corpus", "keep_given",
        "share_of",
    }  # fmt: skip
    return {
        "hybridbatch": hybridbatch.__version__,
        "from": store.fingerprint,
        **searching.about,
        **config.model_dump(mode="json", include=names),
        "languages": list(languages),
        "query_languages": "own" if asked is None else list(asked),
    }


def _is_there(folder: Path, identity: dict[str, Any]) -> bool:
    try:
        mined = Store.open(folder).manifest["provenance"].get(MINED)
    except DataError:
        return False
    return bool(mined) and {name: value for name, value in mined[-1].items() if name != OUTCOME} == identity


def _found(store: Store, split: Split, parts: Sequence[Part], keep_given: bool) -> FoundNegatives:
    """The parts of all languages as one; rows in other languages keep what they have."""
    rows = store.index(split).rows
    widths, keeps = np.zeros(rows, np.int64), np.ones(rows, bool)
    for part in parts:
        widths[part.rows] = np.diff(part.start)
        keeps[part.rows] = keep_given
    start = np.concatenate([[0], np.cumsum(widths)])
    row = np.empty(start[-1], np.int64)
    for part in parts:
        counts = np.diff(part.start)
        row[np.arange(len(part.negatives)) + np.repeat(start[part.rows] - part.start[:-1], counts)] = part.negatives
    return FoundNegatives(start, row, keeps)


def _tell(folder: Path, outcome: dict[str, dict[str, Any]], report: Reporter) -> None:
    for split, languages in outcome.items():
        total = {
            name: sum(one[name] for one in languages.values())
            for name in ("rows", "rows_with_question", "rows_with_negatives", "negatives")
        }
        removed: Counter[str] = Counter()
        for one in languages.values():
            removed.update(one["removed"])
        report.note(
            f"{split}: {total['negatives']:,} negatives for {total['rows_with_negatives']:,} of"
            f" {total['rows_with_question']:,} rows with a question ({total['rows']:,} rows in {len(languages)} languages)"
        )
        if removed:
            report.note(f"{split}: no negatives because " + "; ".join(f"{why}: {n:,}" for why, n in removed.items()))
    report.note(f"{folder}: counts by language are in manifest.json")
