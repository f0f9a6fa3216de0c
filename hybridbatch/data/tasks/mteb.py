"""Loads mteb's tasks by name or benchmark without changing the process's random state."""

import copy
import os
import random
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, partial
from typing import Any, overload

import numpy as np

from hybridbatch.common.errors import (
    ConfigError,
    DataError,
    HybridBatchError,
    first_line,
    nearest,
)
from hybridbatch.common.languages import canonical
from hybridbatch.common.retries import is_connection_error, patiently
from hybridbatch.data.tasks.corpus_file import StoredStrings

TEXTS_AT_ONCE = 1_000_000  # most texts of subsets that are in memory together
LARGE_CORPUS = 250_000  # passages; the texts of a larger corpus are never in memory together
ROWS = 1 << 16  # of a table that are read together
# Retrieval tasks with a loader of their own in mteb, which holds all texts in memory, though their
# data is in the layout that mteb's common loader reads from disk: 33 million passages in English.
IN_STANDARD_LAYOUT = ("MrTidyRetrieval",)
RETRIEVAL_TYPES = ("Retrieval", "Reranking", "InstructionReranking", "InstructionRetrieval")


@contextmanager
def fenced() -> Iterator[None]:
    """Keep the global random states of python, numpy and torch.

    mteb's constructors reseed all three with 42. When it is imported, mteb also makes a result
    cache in the home folder; this function redirects the cache to a folder of hybridbatch.
    """
    import torch

    from hybridbatch.common.files import cache_folder

    os.environ.setdefault("MTEB_CACHE", str(cache_folder() / "mteb"))
    python = random.getstate()
    legacy = np.random.get_state()  # noqa: NPY002
    devices = range(torch.cuda.device_count())
    with torch.random.fork_rng(devices=devices):
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(legacy)  # noqa: NPY002


def is_mteb_task(name: str) -> bool:
    """Whether mteb has a task of this name. Imports mteb."""
    with fenced():
        import mteb

        return name in mteb.get_tasks.__globals__["_TASKS_REGISTRY"]


@dataclass(frozen=True)
class Subset:
    """One split and subset of a task, in the form that mteb's retriever sees."""

    split: str
    name: str
    query_ids: list[str]
    queries: list[str]  # with the instruction appended, if the task has one
    # of a large corpus: read from disk on demand
    passage_ids: Sequence[str]
    passages: Sequence[str]  # title and text joined
    qrels: dict[str, dict[str, int]]
    # reranking tasks: the passages that each query is scored against
    candidates: dict[str, list[str]] | None

    @property
    def is_large(self) -> bool:
        """Whether the corpus is read from disk in blocks."""
        return isinstance(self.passages, JoinedTexts)


@dataclass(frozen=True)
class LeftOut:
    """A task of a benchmark that has no score, and why."""

    task: str
    type: str
    reason: str

    @classmethod
    def of(cls, task: Any, reason: str) -> "LeftOut":
        """A task of mteb."""
        return cls(task.metadata.name, task.metadata.type, reason)


def find_tasks(names: Sequence[str]) -> list[Any]:
    """mteb task objects, in the requested order.

    Raises:
        ConfigError: A name is unknown; the message has the nearest names.
    """
    with fenced():
        return [_task(name) for name in names]


def find_benchmark(name: str) -> tuple[list[Any], list[LeftOut]]:
    """The tasks of a benchmark, by its name or an alias, and those that no text encoder can run.

    Raises:
        ConfigError: The name is unknown, or no task is on text.
    """
    with fenced():
        known = _benchmarks()
        if name not in known:
            raise ConfigError(f"unknown mteb benchmark {name!r}{nearest(name, list(known))}")
        tasks: list[Any] = []
        others: list[LeftOut] = []
        for task in known[name].tasks:
            if not is_on_text(task):
                needed = ", ".join(task.metadata.modalities)
                others.append(LeftOut.of(task, f"needs {needed}, not only text"))
            elif not task.metadata.is_public:
                others.append(LeftOut.of(task, "its data is not public"))
            else:
                tasks.append(task)
    if not tasks:
        raise ConfigError(f"mteb benchmark {name!r} has no tasks on public text")
    return tasks, others


def _benchmarks() -> dict[str, Any]:
    """mteb's benchmarks by name and alias.

    mteb 2.26 defines some, such as MTEB(Africa, v1), that its own `get_benchmark` does not find,
    because their package does not export them.
    """
    import mteb
    from mteb.benchmarks.benchmarks import benchmarks as module

    found: dict[str, Any] = {}
    for one in (*mteb.get_benchmarks(), *vars(module).values()):
        if isinstance(one, mteb.Benchmark):
            for name in (one.name, *(one.aliases or ())):
                found.setdefault(name, one)
    return found


def _task(name: str) -> Any:
    import mteb

    try:
        task = mteb.get_task(name)
    except KeyError:
        every = [other.metadata.name for other in mteb.get_tasks(modalities=["text"])]
        raise ConfigError(f"unknown task {name!r}{nearest(name, every)}") from None
    if not is_on_text(task):
        needed = ", ".join(task.metadata.modalities)
        raise ConfigError(
            f"mteb task {name} needs {needed}, which a text encoder cannot handle; leave the task"
            " out"
        )
    return task


def is_on_text(task: Any) -> bool:
    """Whether an encoder of text can run a task of mteb."""
    return list(task.metadata.modalities) == ["text"]


def is_retrieval(task: Any) -> bool:
    """Whether a task ranks passages; hybridbatch itself scores these tasks."""
    return task.metadata.type in RETRIEVAL_TYPES


def keep_languages(task: Any, wanted: Sequence[str] | None) -> None:
    """Restrict a task to the subsets whose languages are all wanted.

    Languages are canonical ids. None means no restriction.
    """
    if wanted is None:
        return
    if not task.metadata.is_multilingual:
        return
    listed = task.metadata.eval_langs
    kept = [subset for subset in task.hf_subsets if _all_wanted(listed[subset], wanted)]
    if not kept:
        raise ConfigError(
            f"{task.metadata.name}: no subset lies within the languages asked for; widen"
            " --languages"
        )
    task.hf_subsets = kept


def _all_wanted(codes: Sequence[str], wanted: Sequence[str]) -> bool:
    return all(canonical(code) in wanted for code in codes)


def languages_of(task: Any, subset: str) -> tuple[str, str] | None:
    """(query language, corpus language) of a subset, canonical; None if mteb does not state them.

    The order of the two `eval_langs` of a cross-lingual subset differs by task, and mteb's metadata
    does not state it. ``data/mteb_directions.tsv`` has the order, with the place it was read from.
    """
    listed = task.metadata.eval_langs
    codes = list(
        dict.fromkeys(
            canonical(code)
            for code in (listed[subset] if isinstance(listed, Mapping) else listed)
        )
    )
    if len(codes) == 1:
        return codes[0], codes[0]
    order = _directions().get(task.metadata.name)
    if order is None and task.metadata.type == "BitextMining":
        order = "query-corpus"  # sentences of the first language search those of the second
    if order is None or len(codes) != 2:
        return None
    return (codes[0], codes[1]) if order == "query-corpus" else (codes[1], codes[0])


@cache
def _directions() -> dict[str, str]:
    from importlib.resources import files

    lines = (
        files(__package__)
        .joinpath("mteb_directions.tsv")
        .read_text(encoding="utf-8")
        .splitlines()
    )
    return dict(line.split("\t")[:2] for line in lines[1:])


def parts(task: Any, most_texts: int = TEXTS_AT_ONCE) -> Iterator[Any]:
    """Copies of a task with some of its subsets each, of at most `most_texts` texts together.

    mteb states the number of texts of a subset. A subset with more texts becomes a separate part,
    so that memory holds one such subset at a time.
    """
    if not task.metadata.is_multilingual:
        yield task
        return
    sizes = _texts_by_subset(task)
    group: list[str] = []
    held = 0
    for name in task.hf_subsets:
        size = sizes.get(name, 0)
        if group and held + size > most_texts:
            yield _restricted(task, group)
            group, held = [], 0
        group.append(name)
        held += size
    if group:
        yield _restricted(task, group)


def _restricted(task: Any, subsets: list[str]) -> Any:
    if len(subsets) == len(task.hf_subsets):
        return task
    with fenced():
        part = copy.copy(task)
        part.hf_subsets = list(subsets)
        part.dataset = None
        part.data_loaded = False
        return part


def _texts_by_subset(task: Any) -> dict[str, int]:
    """The number of texts that mteb states for each subset, over the evaluated splits."""
    stated = task.metadata.descriptive_stats or {}
    sizes: dict[str, int] = {}
    for split in task.eval_splits:
        by_subset = (stated.get(split) or {}).get("hf_subset_descriptive_stats") or {}
        for name, numbers in by_subset.items():
            sizes[name] = sizes.get(name, 0) + int(numbers.get("num_samples") or 0)
    return sizes


def stated_texts(task: Any) -> tuple[int, int] | None:
    """The distinct texts that mteb states for a task, and their characters; None if it states none.

    Texts that subsets share count once for each subset, unless the task is whole or its subsets
    are pairs of one parallel text.
    """
    stated = task.metadata.descriptive_stats or {}
    texts = characters = 0.0
    for split in task.eval_splits:
        whole = stated.get(split) or {}
        by_subset = whole.get("hf_subset_descriptive_stats") or {}
        chosen = [by_subset[name] for name in task.hf_subsets if name in by_subset]
        share = 1.0
        if getattr(task, "parallel_subsets", False) and task.metadata.is_multilingual:
            # Every pair has two of the columns of one table.
            languages = {code for pair in task.hf_subsets for code in pair.split("-")}
            share = len(languages) / (2 * len(task.hf_subsets))
        for numbers in chosen if 0 < len(chosen) < len(by_subset) else [whole]:
            for name, side in numbers.items():
                if name.endswith("statistics") and isinstance(side, Mapping):
                    unique = share * int(side.get("unique_texts") or 0)
                    texts += unique
                    characters += unique * float(side.get("average_text_length") or 0)
    return (round(texts), round(characters)) if texts else None


def load(task: Any) -> None:
    """Load a task's data with mteb's loader, patiently where the hub fails for a moment.

    Raises:
        DataError: The data cannot be loaded; the message names the task and the address.
    """
    with fenced():
        from datasets.utils.logging import disable_progress_bar

        disable_progress_bar()
        try:
            if not task.data_loaded:
                patiently(partial(_load_data, task))
            if is_retrieval(task):
                task.convert_v1_dataset_format_to_v2(num_proc=None)
        except HybridBatchError:
            raise
        # errors of a hub, a network or a parquet reader have no common base
        except Exception as error:
            raise _failure(task, error) from error


def _failure(task: Any, error: Exception) -> DataError:
    hint = "; check that the hub can be reached (HF_ENDPOINT)"
    return DataError(
        f"{task.metadata.name}: its data {task.metadata.dataset['path']} cannot be loaded"
        f" ({in_words(error)}){hint if is_connection_error(error) else ''}"
    )


def in_words(error: Exception) -> str:
    """The type of an error of mteb and the first line of its message."""
    return f"{type(error).__name__}: {first_line(error)}"


def _load_data(task: Any) -> None:
    """Load as the task does, but for `IN_STANDARD_LAYOUT`: these build dictionaries of texts."""
    from mteb.abstasks.retrieval import AbsTaskRetrieval

    try:
        if task.metadata.name in IN_STANDARD_LAYOUT:
            AbsTaskRetrieval.load_data(task)
        else:
            task.load_data()
    except ConnectionError as error:
        # `datasets` raises it after many tries of the hub's client; a further try is in vain.
        raise _failure(task, error) from error


def subsets(task: Any) -> Iterator[Subset]:
    """Every split and subset of a loaded task."""
    for split in task.eval_splits:
        for name in task.hf_subsets if task.metadata.is_multilingual else ["default"]:
            data = task.dataset[name][split]
            qrels = {
                query: relevant for query, relevant in data["relevant_docs"].items() if relevant
            }
            queries = [
                (i, text)
                for i, text in zip(*_query_columns(data["queries"]), strict=True)
                if i in qrels
            ]
            passage_ids, passages = _passages(data["corpus"], data["top_ranked"])
            yield Subset(
                split=split,
                name=name,
                query_ids=[i for i, _ in queries],
                queries=[text for _, text in queries],
                passage_ids=passage_ids,
                passages=passages,
                qrels=qrels,
                candidates=data["top_ranked"],
            )


def _columns(data: Any, *names: str) -> list[list[Any]]:
    """Whole columns of a `datasets.Dataset` as lists; an absent column becomes a list of Nones."""
    table = data.with_format("arrow")[:]
    return [
        table[name].to_pylist() if name in table.column_names else [None] * len(table)
        for name in names
    ]


def _query_columns(queries: Any) -> tuple[list[str], list[str]]:
    """The ids, and the texts followed by their instructions.

    They are joined as in mteb's `_combine_queries_with_instruction_text`.
    """
    ids, texts, instructions = _columns(queries, "id", "text", "instruction")
    return ids, [
        text if more is None else f"{text} {more}"
        for text, more in zip(texts, instructions, strict=True)
    ]


def _passages(
    corpus: Any, candidates: Mapping[str, Sequence[str]] | None
) -> tuple[Sequence[str], Sequence[str]]:
    """The ids and texts of a corpus; those of a large one stay on disk.

    Of a large corpus only the passages that are a candidate of a query count, if there are
    candidates.
    """
    if len(corpus) <= LARGE_CORPUS:
        return _passage_columns(corpus)
    ids = StoredStrings(_column_on_disk(corpus, "id"))
    if candidates is None:
        return ids, JoinedTexts(corpus)
    wanted = {passage for listed in candidates.values() for passage in listed}
    return _passage_columns(
        corpus.select([row for row, identifier in enumerate(ids) if identifier in wanted])
    )


def _passage_columns(corpus: Any) -> tuple[list[str], list[str]]:
    """The ids, and title and text joined as in mteb's `_corpus_to_dict`."""
    ids, titles, texts = _columns(corpus, "id", "title", "text")
    return ids, [
        (f"{title} {text}" if title else text).strip()
        for title, text in zip(titles, texts, strict=True)
    ]


def _column_on_disk(data: Any, name: str) -> Any:
    """A column of text as a chunked Arrow array, which is mapped into memory where it can be."""
    import pyarrow as pa

    rows = data.select_columns([name]).with_format("arrow")
    chunks: list[Any] = []
    for start in range(0, len(rows), ROWS):
        chunks += rows[start : start + ROWS][name].cast(pa.string()).chunks
    return pa.chunked_array(chunks, pa.string())


class JoinedTexts(Sequence[str]):
    """The texts of a large corpus, with their titles, read from disk in parts."""

    def __init__(self, corpus: Any) -> None:
        self._corpus = corpus

    def __len__(self) -> int:
        return len(self._corpus)

    @overload
    def __getitem__(self, place: int) -> str: ...
    @overload
    def __getitem__(self, place: slice) -> list[str]: ...
    def __getitem__(self, place: int | slice) -> str | list[str]:
        if isinstance(place, slice):
            rows = range(len(self))[place]
            return _passage_columns(self._corpus.select(rows))[1]
        return self[place : place + 1 or None][0]

    def __iter__(self) -> Iterator[str]:
        for start in range(0, len(self), ROWS):
            yield from self[start : start + ROWS]
