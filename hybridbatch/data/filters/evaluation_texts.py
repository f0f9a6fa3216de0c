"""The texts of evaluation tasks that training data is compared with."""

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
    language: str  # canonical language, or the name of an mteb task's subset
    kind: Side
    id: str
    text: str


@dataclass(frozen=True)
class Checks:
    """The tasks that data is compared with.

    Attributes:
        names: names of the tasks.
        fingerprints: fingerprints of the task data, by the name that reports use.
        absent: tasks that were wanted but are not on this machine.
        optional: whether an unreadable task is skipped with a warning.
    """

    names: tuple[str, ...]
    fingerprints: dict[str, str]
    absent: tuple[str, ...] = ()
    optional: bool = False

    def as_json(self) -> dict[str, Any]:
        """The tasks for the provenance of data; a change makes `prepare` build the data again."""
        return {"tasks": self.fingerprints, "absent": list(self.absent)}


def evaluation_only() -> tuple[str, ...]:
    """The tasks that share no texts with a training source by construction.

    For example, `ntrex` is left out, because its texts are also the texts of a source.
    """
    trained = {source.name for source in sources()}
    return tuple(name for name in CATALOGUE if name not in trained)


def choose_checks(names: Sequence[str], data_root: Path | None) -> Checks:
    """The checks that the user asked for.

    Args:
        names: names of tasks, as `load_task` takes them, or of mteb tasks. ``all`` alone means
            every task of `evaluation_only` that is on this machine, because nothing is downloaded.
            ``none`` alone means no check.
        data_root: folder of local copies of public data sets.

    Raises:
        ConfigError: A task is unknown.
        DataError: A task has no data and its data cannot be downloaded.
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
    """A task's name in reports; a folder has only its last part."""
    return (
        name
        if name.partition(":")[0] in TASKS or not Path(name).is_dir()
        else Path(name).resolve().name
    )


def _fingerprint(name: str, data_root: Path | None) -> str:
    """The fingerprint of a task's files, or the revision of an mteb task; no text is read.

    Errors are those of `choose_checks`.
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
        load_task(name, parallel="yes")  # raises an error that names the known tasks
    return find_tasks([name])[0]


def evaluation_texts(
    name: str, data_root: Path | None, languages: str = "all"
) -> list[EvaluationText]:
    """The queries and passages of a task, in all languages.

    An mteb task gives only the passages that answer a query. Errors are those of `load_task`.
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
            key
            for judged in subset.qrels.values()
            for key, grade in judged.items()
            if grade > 0
        }
        for key, text in zip(subset.passage_ids, subset.passages, strict=True):
            if key in answers:  # a corpus may be all of Wikipedia, which is not evaluation data
                yield EvaluationText(name, subset.name, "passage", key, text)
