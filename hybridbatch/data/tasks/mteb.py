"""Loads mteb's tasks by name or benchmark without changing the process's random state."""

import copy
import os
import random
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

from hybridbatch.common.errors import ConfigError, DataError, nearest
from hybridbatch.common.languages import canonical

TEXTS_AT_ONCE = 2_000_000  # most texts of subsets that are in memory together
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
    passage_ids: list[str]
    passages: list[str]  # title and text joined
    qrels: dict[str, dict[str, int]]
    # reranking tasks: the passages that each query is scored against
    candidates: dict[str, list[str]] | None


def find_tasks(names: Sequence[str] = (), benchmark: str | None = None) -> list[Any]:
    """mteb task objects, in the requested order.

    Raises:
        ConfigError: A name is unknown; the message has the nearest names.
    """
    with fenced():
        tasks = _tasks_of(benchmark) if benchmark else []
        return tasks + [_task(name) for name in names]


def _tasks_of(benchmark: str) -> list[Any]:
    """The tasks of a benchmark on public text, by its name or an alias."""
    import mteb

    try:
        found = mteb.get_benchmark(benchmark)
    except KeyError:
        known: list[str] = []
        for other in mteb.get_benchmarks():
            known += [other.name, *(other.aliases or ())]
        raise ConfigError(
            f"unknown mteb benchmark {benchmark!r}{nearest(benchmark, known)}"
        ) from None
    tasks = [task for task in found.tasks if is_on_text(task) and task.metadata.is_public]
    if not tasks:
        raise ConfigError(f"mteb benchmark {benchmark!r} has no tasks on text")
    return tasks


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


def load(task: Any) -> None:
    """Load a task's data with mteb's loader.

    Raises:
        DataError: The data cannot be loaded; the message names the task and the address.
    """
    with fenced():
        from datasets.utils.logging import disable_progress_bar

        disable_progress_bar()
        try:
            if not task.data_loaded:
                task.load_data()
            if is_retrieval(task):
                task.convert_v1_dataset_format_to_v2(num_proc=None)
        # errors of a hub, a network or a parquet reader have no common base
        except Exception as error:
            path = task.metadata.dataset["path"]
            raise DataError(
                f"{task.metadata.name}: its data {path} cannot be loaded ({type(error).__name__}:"
                f" {str(error).splitlines()[0] if str(error) else 'no message'}); check that the"
                " hub can be reached (HF_ENDPOINT)"
            ) from error


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
            passage_ids, passages = _passage_columns(data["corpus"])
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


def _passage_columns(corpus: Any) -> tuple[list[str], list[str]]:
    """The ids, and title and text joined as in mteb's `_corpus_to_dict`."""
    ids, titles, texts = _columns(corpus, "id", "title", "text")
    return ids, [
        (f"{title} {text}" if title else text).strip()
        for title, text in zip(titles, texts, strict=True)
    ]
