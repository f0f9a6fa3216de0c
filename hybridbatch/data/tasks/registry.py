"""Finds retrieval tasks by name or in the user's folders."""

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import cast

from hybridbatch.common.errors import ConfigError, nearest
from hybridbatch.common.records import Split, Task
from hybridbatch.common.texts import writable
from hybridbatch.data.homes.registry import HOMES
from hybridbatch.data.tasks.catalogue import CATALOGUE, local_folder, read_named, whereabouts
from hybridbatch.data.tasks.layouts import read_folder
from hybridbatch.data.tasks.parallel import Parallel
from hybridbatch.data.tasks.texts_and_qrels import select
from hybridbatch.data.tasks.thinning import thinned

TASKS = ("atlas", *CATALOGUE)


def is_task(name: str) -> bool:
    """Whether `load_task` knows a name: a built-in task or a folder, possibly with a split."""
    base, _, split = name.partition(":")
    return base in TASKS or Path(name).is_dir() or (bool(split) and Path(base).is_dir())


def load_task(
    name: str,
    *,
    data_root: Path | None = None,
    languages: str = "all",
    trained: Iterable[str] = (),
    parallel: Parallel = "auto",
    passage_share: float = 1.0,
) -> Task:
    """A retrieval task in the wanted languages, checked and fingerprinted.

    Args:
        name: one of `TASKS`, possibly with a split (``afriqa:train``), or a folder. The folder has
            one of the layouts of `hybridbatch.data.tasks.layouts`, or is prepared data, possibly
            with a split (``data/mine:validation``). A built-in name takes precedence over a folder
            of that name; write ``./atlas`` for the folder.
        data_root: folder that holds copies of public data sets, checked before any download.
        languages: names, groups and exclusions, such as ``low-resource,-swh``; see
            `texts_and_qrels.select`.
        trained: training languages of the model, for the group ``unseen``.
        passage_share: share of the passages of large corpora to search; see `thinning.thinned`.
        parallel: for a folder, whether equal ids mean equal questions in all its languages.

    Raises:
        ConfigError: A task, split or language is unknown.
        DataError: Data is absent or faulty.
    """
    base, _, split = name.partition(":")
    if base == "atlas":
        from hybridbatch.data.atlas.task import read_atlas

        task = replace(read_atlas(cast(Split, split or "test")), name=name)
    elif base in CATALOGUE:
        task = replace(read_named(base, split, data_root, languages, trained), name=name)
    elif Path(name).is_dir():
        task = read_folder(Path(name), languages, parallel=parallel)
    elif split and Path(base).is_dir():
        task = replace(
            read_folder(Path(base), languages, split, parallel), name=Path(name).name
        )
    else:
        raise ConfigError(
            f"task {name!r}: is neither a built-in task{nearest(base, TASKS)} nor a folder;"
            f" the built-in tasks are {', '.join(TASKS)}"
        )
    task = replace(
        task,
        name=writable(task.name),
        provenance={key: writable(str(value)) for key, value in task.provenance.items()},
    )
    return select(thinned(task, passage_share), languages, trained)


def is_here(name: str, data_root: Path | None = None) -> bool:
    """Whether a task can be loaded without a download."""
    base = name.partition(":")[0]
    if base not in CATALOGUE:
        return True  # the atlas, or one of the user's folders
    home = HOMES.get(CATALOGUE[base].folder or base)
    return bool(local_folder(base, data_root)) or (home is not None and home.cloned(data_root))


def describe_tasks(data_root: Path | None = None) -> list[dict[str, str]]:
    """A row for each built-in task: languages, size, splits, location of its data, licence, source."""
    from hybridbatch.data.atlas.source import LICENCE

    atlas = {"task": "atlas", "languages": "137", "size": "a territory's card in each; several questions each",
             "splits": "test, train, validation", "data": "here", "licence": LICENCE, "source": "embedded; cldr.unicode.org"}  # fmt: skip
    return [atlas] + [
        {
            "task": name,
            "languages": one.languages,
            "size": one.size,
            "splits": ", ".join(one.splits),
            "data": whereabouts(name, data_root),
            "licence": one.licence,
            "source": one.source,
        }
        for name, one in CATALOGUE.items()
    ]
