"""The texts of evaluation tasks that training data is compared with: which tasks, where they are,
what is in them.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal

from hybridbatch.common.files import fingerprint, read_bytes
from hybridbatch.common.records import Task
from hybridbatch.data.sources.registry import sources
from hybridbatch.data.tasks.catalogue import CATALOGUE, find_folder, local_folder
from hybridbatch.data.tasks.registry import TASKS, load_task

ALL, NONE = "all", "none"
Side = Literal["query", "passage"]


@dataclass(frozen=True, slots=True)
class EvaluationText:
    """A query or passage of an evaluation task."""

    task: str
    language: str  # canonical; of an mteb task the name of its subset
    kind: Side
    id: str
    text: str


@dataclass(frozen=True)
class Checks:
    """What data is compared with.

    Attributes:
        names: of the tasks.
        fingerprints: of their data, by the name that reports use.
        absent: tasks that would have been compared with, too, but are not on this machine.
        optional: whether a task that turns out to be unreadable is passed over with a warning.
    """

    names: tuple[str, ...]
    fingerprints: dict[str, str]
    absent: tuple[str, ...] = ()
    optional: bool = False

    def as_json(self) -> dict[str, Any]:
        """For the provenance of data: if this changes, the data is prepared anew."""
        return {"tasks": self.fingerprints, "absent": list(self.absent)}


def evaluation_only() -> tuple[str, ...]:
    """The tasks that are made of no training source: not, for instance, `ntrex`, whose texts are
    those of a source.
    """
    trained = {source.name for source in sources()}
    return tuple(name for name in CATALOGUE if name not in trained)


def choose_checks(names: Sequence[str], data_root: Path | None) -> Checks:
    """The checks that were asked for.

    Args:
        names: of tasks, as `load_task` takes them, or of mteb's; ``all`` alone: every task of
            `evaluation_only` that is on this machine, for nothing is downloaded; ``none`` alone: no
            check.
        data_root: folder of local copies of public data sets.
    Raises: `ConfigError` for an unknown task, `DataError` for one without data, which is downloaded
        where it can be.
    """
    if tuple(names) == (NONE,):
        return Checks((), {})
    if tuple(names) == (ALL,):
        known = evaluation_only()
        here = tuple(name for name in known if local_folder(name, data_root))
        absent = tuple(name for name in known if name not in here)
        return Checks(
            here, {name: _fingerprint(name, data_root) for name in here}, absent, optional=True
        )
    return Checks(tuple(names), {_shown(name): _fingerprint(name, data_root) for name in names})


def _shown(name: str) -> str:
    """A task's name in reports: of a folder, its own name only."""
    return (
        name
        if name.partition(":")[0] in TASKS or not Path(name).is_dir()
        else Path(name).resolve().name
    )


def _fingerprint(name: str, data_root: Path | None) -> str:
    """Of the task's files, which takes no reading of texts; of an mteb task, its revision. Raises
    as `choose_checks`.
    """
    base = name.partition(":")[0]
    if base in CATALOGUE:
        folder = find_folder(base, data_root)
    elif base not in TASKS and Path(name).is_dir():
        folder = Path(name)
    else:
        task = _mteb_task(name) if base not in TASKS else None
        return (
            task.metadata.dataset["revision"]
            if task
            else load_task(name, parallel="yes").provenance["fingerprint"]
        )
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return fingerprint(
        [
            [path.relative_to(folder).as_posix(), sha256(read_bytes(path)).hexdigest()]
            for path in files
        ]
    )


def _mteb_task(name: str) -> Any:
    from hybridbatch.data.tasks.mteb import find_tasks, is_mteb_task

    if not is_mteb_task(name):
        load_task(name, parallel="yes")  # raises, naming the tasks that there are
    return find_tasks([name])[0]


def evaluation_texts(
    name: str, data_root: Path | None, languages: str = "all"
) -> list[EvaluationText]:
    """The queries and passages of a task, of mteb's tasks only the passages that answer a query, in
    all languages.

    Raises: as `load_task`.
    """
    if name.partition(":")[0] in TASKS or Path(name).is_dir():
        return list(
            _texts_of(load_task(name, data_root=data_root, languages=languages, parallel="yes"))
        )
    return list(_mteb_texts(name))


def _texts_of(task: Task) -> Iterator[EvaluationText]:
    sides: tuple[tuple[Side, Any], ...] = (("query", task.queries), ("passage", task.corpus))
    for kind, side in sides:
        for language, texts in side.items():
            for key, text in zip(texts.ids, texts.texts, strict=True):
                yield EvaluationText(task.name, language, kind, key, text)


def _mteb_texts(name: str) -> Iterator[EvaluationText]:
    from hybridbatch.data.tasks.mteb import load, subsets

    task = _mteb_task(name)
    load(task)
    for subset in subsets(task):
        for key, text in zip(subset.query_ids, subset.queries, strict=True):
            yield EvaluationText(name, subset.name, "query", key, text)
        answers = {
            key for judged in subset.qrels.values() for key, grade in judged.items() if grade > 0
        }
        for key, text in zip(subset.passage_ids, subset.passages, strict=True):
            if key in answers:  # a corpus may be all of Wikipedia, which is no evaluation set
                yield EvaluationText(name, subset.name, "passage", key, text)
