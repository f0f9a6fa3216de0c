"""`hybridbatch mine`: hard negatives for prepared data, found by BM25 or by any encoder.

Every row gets passages in its language that a search ranks high for its question. Passages that are
known or likely to answer the question are left out. A cross-lingual pair joins two rows of a
record. So training can choose negatives in the language of the passage or of the query.
docs/negatives.md has the method.
"""

import json
import os
import shutil
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

import hybridbatch
from hybridbatch.common.errors import ConfigError, DataError, Interrupted, OutputError
from hybridbatch.common.files import atomic_path, fingerprint, make_folder
from hybridbatch.common.languages import resolve
from hybridbatch.common.locks import lock
from hybridbatch.common.progress import LONG, SILENT, Bar, Reporter
from hybridbatch.common.records import Split
from hybridbatch.common.sizes import duration
from hybridbatch.data.hard_negatives import (
    REASONS,
    Corpus,
    DenseCorpus,
    KnownAnswers,
    LexicalCorpus,
    Mining,
    Texts,
    Turn,
)
from hybridbatch.data.settings import MineConfig
from hybridbatch.data.store.negatives import FoundNegatives, write_with_negatives
from hybridbatch.data.store.reader import Store
from hybridbatch.data.store.writer import check_free
from hybridbatch.debias.vectors_file import read_vectors
from hybridbatch.model.reckoning import BYTES_A_TOKEN, reckon
from hybridbatch.sampling.index import HAS_PASSAGE, HAS_QUERY, RecordIndex
from hybridbatch.search.embeddings import EmbeddingStore

MINED = "mined"  # in the manifest's provenance
OUTCOME = "outcome"  # in there: the counts
CHUNK = 1 << 13  # number of questions searched at a time
SAMPLE = 200  # rows whose lengths stand for all


def mine(config: MineConfig, report: Reporter = SILENT) -> Path:
    """Write prepared data with hard negatives as `config` describes, unless it exists already.

    Finished languages are kept when the command is interrupted and run again, and the result is
    equal.

    Returns:
        The folder of the data.

    Raises:
        ConfigError, DataError, ModelError: The settings, the data or the model cannot be used.
        OutputError: The folder cannot be written, or is the folder of the input data.
        Interrupted: The command was stopped.
    """
    from hybridbatch.data.prepare import ensure_prepared

    store = Store.open(ensure_prepared(config.data, config.data_root, report))
    folder = config.out or Path("data") / f"{store.folder.name}-{config.method}"
    if folder.resolve() == store.folder.resolve():
        raise OutputError(
            f"{folder}: holds the data to mine itself; choose another folder with --out"
        )
    check_free(folder)
    languages = resolve(config.languages, store.languages)
    asked = (
        None
        if config.query_languages == "own"
        else resolve(config.query_languages, store.languages)
    )
    searching = _searching(config, languages, asked or languages, report)
    identity = _identity(config, store, languages, asked, searching)
    work = folder.parent / f".{folder.name}.{fingerprint(identity)}.mining"
    if _is_there(folder, identity, report):
        report.note(
            f"{folder}: these negatives were mined before, from the same data with the same"
            " settings; there is nothing to do"
        )
        if not work.exists():
            return folder
    with _alone(work, report):
        # written by another process just now, or by one that was killed before it cleared its work
        if _is_there(folder, identity, report):
            shutil.rmtree(work, ignore_errors=True)
            return folder
        try:
            found = {}
            for split in store.splits:
                found[split] = _mine_split(
                    config, store, split, languages, asked, searching, work, report
                )
        except KeyboardInterrupt:
            raise Interrupted(
                f"{folder}: stopped; the languages so far are kept in {work}, run the same command"
                " to go on"
            ) from None
        outcome: dict[Split, dict[str, Any]] = {}
        negatives = {}
        for split, parts in found.items():
            outcome[split] = {language: part.outcome() for language, part in parts.items()}
            negatives[split] = _found(store, split, list(parts.values()), config.keep_given)
        provenance = dict(store.manifest["provenance"])
        provenance[MINED] = [*provenance.get(MINED, []), {**identity, OUTCOME: outcome}]
        write_with_negatives(store, folder, negatives, provenance=provenance, report=report)
        shutil.rmtree(work)
    _tell(folder, outcome, report)
    return folder


@contextmanager
def _alone(work: Path, report: Reporter) -> Iterator[None]:
    """The folder of unfinished work, held by one process at a time.

    Another process waits and reports that it waits.
    """
    told = False
    while True:
        handle = os.open(make_folder(work), os.O_RDONLY)
        try:
            if lock(handle, wait=False) is False:
                if not told:
                    report.note(
                        f"{work}: another process mines the same negatives; waiting for it"
                    )
                    told = True
                lock(handle)
            # the other process removed the folder when it finished
            if work.is_dir() and os.path.samestat(os.fstat(handle), work.stat()):
                yield
                return
        finally:
            os.close(handle)


@dataclass(frozen=True)
class Searching:
    """A search method."""

    about: dict[str, Any]  # everything that the results depend on, as JSON
    # the passages, their number, a folder to work in, their language
    corpus: Callable[[Texts, int, Path, str], Corpus]
    words: bool  # whether score 0 means that no word is shared


def _searching(
    config: MineConfig, languages: Sequence[str], asked: Sequence[str], report: Reporter
) -> Searching:
    """The search method, for passages in some languages and queries asked in others or the same."""
    if config.method == "bm25":
        if config.debias:
            raise ConfigError(
                "debias: bm25 has no embeddings; add --method dense, or leave --debias out"
            )
        return Searching(
            {"method": "bm25"},
            lambda texts, size, work, language: LexicalCorpus(texts(np.arange(size))),
            True,
        )
    from hybridbatch.common.device import resolve_device, resolve_precision
    from hybridbatch.model import Encoder

    device = resolve_device(config.device)
    encoder = Encoder.load(config.model, **config.encoder_options, report=report).to(device)
    store = EmbeddingStore(
        encoder, config.cache, precision=resolve_precision(config.precision, device)
    )
    model: dict[str, Any] = {
        "name": config.model,
        "fingerprint": store.fingerprint,
        "precision": store.precision,
    }
    debias = None
    if config.debias:
        debias = read_vectors(config.debias)
        debias.require_model(store.fingerprint, config.model)
        for sentence in debias.tell({"query": asked, "passage": languages}):
            report.warn(sentence)
        model["debias"] = debias.summary()
    about: dict[str, Any] = {
        "method": "dense",
        "model": model,
        "index": config.index,
        "seed": config.seed,
    }
    if config.index != "exact":
        about["recall"] = config.recall
    return Searching(
        about,
        lambda texts, size, work, language: DenseCorpus(
            store,
            texts,
            size,
            work,
            config,
            str(device),
            Turn(debias, language) if debias else None,
        ),
        False,
    )


@dataclass(frozen=True)
class Part:
    """The negatives of one language's rows of a split."""

    rows: np.ndarray  # int64 [m]: all rows of the language, ascending
    start: np.ndarray  # int64 [m + 1]: row i has the negatives start[i] to start[i + 1] - 1
    negatives: np.ndarray  # int64: rows with the negative passages, the hardest first
    asked: int  # number of rows with a question to search with
    counts: np.ndarray  # int64 [REASONS]: passages found, over all rows, by outcome
    # of an approximate index, as JSON, by source; by "all" if one corpus has all sources
    tuning: dict[str, Any] = field(default_factory=dict)

    def outcome(self) -> dict[str, Any]:
        """The counts, and the tuning of an approximate index, as JSON."""
        widths = np.diff(self.start)
        outcome = {
            "rows": len(self.rows),
            "rows_with_question": self.asked,
            "rows_with_negatives": int((widths > 0).sum()),
            "negatives": int(widths.sum()),
            "removed": {
                REASONS[i]: int(self.counts[i])
                for i in range(1, len(REASONS))
                if self.counts[i]
            },
        }
        return outcome | {"tuning": self.tuning} if self.tuning else outcome


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
    """The parts of a split by language; finished parts come from the work folder."""
    index = store.index(split)
    numbers = [index.languages.index(language) for language in languages]
    total = int(np.isin(index.language, numbers).sum())
    paths = {language: work / f"{split}-{language}.npz" for language in languages}
    missing = [language for language in languages if not paths[language].is_file()]
    if missing:
        known = KnownAnswers.read(store, split, report)
        mining = _SplitMining(config, store, split, asked, known, searching, work, report)
        done = total - int(
            np.isin(index.language, [index.languages.index(one) for one in missing]).sum()
        )
        if config.method == "dense":
            _tell_length(config, store, split, total - done, report)
        with report.bar(f"mining {split}", total, "rows", done) as bar:
            for language in missing:
                _save(paths[language], _mine_language(mining, language, bar))
    return {language: _load(path) for language, path in paths.items()}


def _save(path: Path, part: Part) -> None:
    with atomic_path(path) as temporary, temporary.open("wb") as handle:
        texts = {"tuning": np.array(json.dumps(part.tuning)), "asked": np.array(part.asked)}
        np.savez(handle, allow_pickle=False, **{**vars(part), **texts})


def _load(path: Path) -> Part:
    try:
        with np.load(path, allow_pickle=False) as arrays:
            values = {
                "asked": int(arrays["asked"]),
                "tuning": json.loads(str(arrays["tuning"])),
            }
            return Part(**{**arrays, **values})
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise DataError(
            f"{path}: is damaged ({error}); remove {path.parent} and run the command again"
        ) from error


@dataclass(frozen=True)
class _SplitMining:
    """The inputs for mining every language of a split."""

    config: MineConfig
    store: Store
    split: Split
    asked: Sequence[str] | None  # languages of the queries; None: the language of each row
    known: KnownAnswers
    searching: Searching
    work: Path
    report: Reporter


def _tell_length(
    config: MineConfig, store: Store, split: Split, rows: int, report: Reporter
) -> None:
    """Tell about how long encoding takes, before it begins, if it is over a minute."""
    of_split = store.index(split).rows
    chosen = np.arange(0, of_split, max(1, of_split // SAMPLE))
    lengths = []
    for row in store.rows(split, chosen):
        for text, most in (
            (row.query, config.max_query_tokens),
            (row.passage, config.max_passage_tokens),
        ):
            lengths.append(min(most, len((text or "").encode()) / BYTES_A_TOKEN))
    model = reckon(config.model, config.device, config.precision)
    if model is None or not lengths:
        return
    seconds = model.encode_seconds(sum(lengths) / len(chosen) * rows)
    if seconds > LONG:
        report.note(
            f"mining {split} takes about {duration(seconds)} if no vector is stored ({rows:,} rows)"
        )


def _mine_language(job: _SplitMining, language: str, bar: Bar) -> Part:
    """The negatives of all rows in one language."""
    store, split, known = job.store, job.split, job.known
    index = store.index(split)
    rows = np.flatnonzero(index.language == index.languages.index(language))
    numbers = None
    if job.asked is not None:
        numbers = np.array([index.languages.index(one) for one in job.asked])
    targets, questions = _questions(index, known.owner, rows, numbers)
    of_row: list[np.ndarray] = []
    negatives: list[np.ndarray] = []
    counts = np.zeros(len(REASONS), np.int64)
    tunings: dict[str, Any] = {}
    for source, members in _corpora(index, known.owner, rows, job.config.corpus):
        with_passage = members[(index.has[members] & HAS_PASSAGE) > 0]
        if len(with_passage):
            first = np.sort(np.unique(known.passage[with_passage], return_index=True)[1])
            passages = with_passage[first]  # each distinct question once
            texts = partial(_passages, store, split, passages)
            corpus = job.searching.corpus(texts, len(passages), job.work, language)
            words = job.searching.words
            mining = Mining(job.config, store, split, known, corpus, passages, words)
            mine = np.isin(targets, members)
            tuning = mining.tune(questions[mine]) if mine.any() else None
            if tuning:
                tunings[source] = asdict(tuning)
                tell = job.report.note if tuning.recall >= tuning.wanted else job.report.warn
                tell(f"{split} in {language} ({source}): {tuning.sentence()}")
            for chunk in _chunks(targets[mine]):
                kept_rows, kept, removed = mining.negatives(
                    targets[mine][chunk], questions[mine][chunk]
                )
                of_row.append(kept_rows)
                negatives.append(kept)
                counts += removed
        bar.advance(len(members))
    owners = np.concatenate([np.empty(0, np.int64), *of_row])
    order = np.argsort(owners, kind="stable")
    start = np.concatenate([np.searchsorted(owners[order], rows), [len(owners)]])
    flat = np.concatenate([np.empty(0, np.int64), *negatives])[order]
    return Part(rows, start, flat, len(np.unique(targets)), counts, tunings)


def _passages(store: Store, split: Split, rows: np.ndarray, numbers: np.ndarray) -> list[str]:
    return store.passages(split, rows[numbers])


def _questions(
    index: RecordIndex, owner: np.ndarray, rows: np.ndarray, languages: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray]:
    """(row of `rows`, row whose query is searched for it), by row.

    The query is the row's query, or the record's queries in `languages`.
    """
    if languages is None:
        with_query = rows[(index.has[rows] & HAS_QUERY) > 0]
        return with_query, with_query
    record = owner[rows]
    widths = np.diff(index.record_start)[record]
    targets = np.repeat(rows, widths)
    ends = np.cumsum(widths)
    others = np.arange(ends[-1] if len(ends) else 0) + np.repeat(
        index.record_start[record] - ends + widths, widths
    )
    useful = ((index.has[others] & HAS_QUERY) > 0) & np.isin(index.language[others], languages)
    return targets[useful], others[useful]


def _corpora(
    index: RecordIndex, owner: np.ndarray, rows: np.ndarray, corpus: str
) -> Iterator[tuple[str, np.ndarray]]:
    """The source of each corpus, or "all", and the rows of a language that it contains."""
    if corpus == "language":
        yield "all", rows
    else:
        source = index.source[owner[rows]]
        for number in np.unique(source).tolist():
            yield index.sources[number], rows[source == number]


def _chunks(targets: np.ndarray) -> Iterator[slice]:
    """Slices of about `CHUNK` questions that never separate questions of one row; `targets` ascend."""
    start = 0
    while start < len(targets):
        stop = (
            len(targets)
            if start + CHUNK >= len(targets)
            else int(np.searchsorted(targets, targets[start + CHUNK]))
        )
        if stop <= start:  # one row with more questions than a slice
            stop = int(np.searchsorted(targets, targets[start], side="right"))
        yield slice(start, stop)
        start = stop


def _identity(
    config: MineConfig,
    store: Store,
    languages: Sequence[str],
    asked: Sequence[str] | None,
    searching: Searching,
) -> dict[str, Any]:
    """Everything that the result depends on, as JSON."""
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


def _is_there(folder: Path, identity: dict[str, Any], report: Reporter) -> bool:
    """Whether complete and undamaged data of this identity is at `folder`."""
    if not (folder / "manifest.json").is_file():
        return False
    try:
        there = Store.open(folder)
        mined = there.manifest["provenance"].get(MINED)
        if not isinstance(mined, list) or not mined or not isinstance(mined[-1], dict):
            return False
        same = {name: value for name, value in mined[-1].items() if name != OUTCOME} == identity
        if same:
            there.verify()
    except DataError as error:
        report.warn(f"{error}. This part is mined again")
        return False
    return same


def _found(
    store: Store, split: Split, parts: Sequence[Part], keep_given: bool
) -> FoundNegatives:
    """The parts of all languages together; rows in other languages keep their negatives."""
    rows = store.index(split).rows
    widths, keeps = np.zeros(rows, np.int64), np.ones(rows, bool)
    for part in parts:
        widths[part.rows] = np.diff(part.start)
        keeps[part.rows] = keep_given
    start = np.concatenate([[0], np.cumsum(widths)])
    row = np.empty(start[-1], np.int64)
    for part in parts:
        counts = np.diff(part.start)
        row[
            np.arange(len(part.negatives))
            + np.repeat(start[part.rows] - part.start[:-1], counts)
        ] = part.negatives
    return FoundNegatives(start, row, keeps)


def _tell(folder: Path, outcome: Mapping[Split, dict[str, Any]], report: Reporter) -> None:
    for split, languages in outcome.items():
        total = {
            name: sum(one[name] for one in languages.values())
            for name in ("rows", "rows_with_question", "rows_with_negatives", "negatives")
        }
        removed: Counter[str] = Counter()
        for one in languages.values():
            removed.update(one["removed"])
        report.note(
            f"{split}: {total['rows_with_negatives']:,} of {total['rows_with_question']:,}"
            f" rows with a question got {total['negatives']:,} negatives ({total['rows']:,}"
            f" rows in {len(languages)} languages)"
        )
        if removed:
            report.note(
                f"{split}: no negatives because "
                + "; ".join(f"{why}: {n:,}" for why, n in removed.items())
            )
    report.note(f"{folder}: manifest.json has the counts by language")
