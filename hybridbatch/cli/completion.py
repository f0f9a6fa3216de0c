"""What the shell completes: sources, tasks, languages, models, and the choices of settings."""

from collections.abc import Callable, Iterable
from typing import Any, Literal, get_args, get_origin

Complete = Callable[[str], list[str]]


def sources() -> Iterable[str]:
    """Names of the built-in training sources."""
    from hybridbatch.data.sources.registry import sources as registered

    return [source.name for source in registered()]


def tasks() -> Iterable[str]:
    """Names of the built-in evaluation tasks."""
    from hybridbatch.data.tasks.registry import TASKS

    return TASKS


def languages() -> Iterable[str]:
    """Names of groups of languages, and ids of languages."""
    from hybridbatch.common.languages import GROUPS, known_languages

    return [*GROUPS, *known_languages()]


def models() -> Iterable[str]:
    """Built-in encoders. The names are repeated here because their module imports torch."""
    return ("e5-small-q4", "e5-small-q4-reset6")


# The settings that take names; several are separated by commas.
NAMED: dict[str, Callable[[], Iterable[str]]] = {
    "sources": sources,
    "data": sources,
    "tasks": tasks,
    "task": tasks,
    "corpus": tasks,
    "text": tasks,
    "debias_text": tasks,
    "languages": languages,
    "language": languages,
    "corpus_language": languages,
    "query_language": languages,
    "pivot": languages,
    "trained_languages": languages,
    "train_languages": languages,
    "translate_to": languages,
    "translate_from": languages,
    "query_languages": languages,
    "teacher_language": languages,
    "model": models,
    "teacher": models,
}


def completer(name: str, annotation: Any) -> Complete | None:
    """Return the function that completes a setting, or None if there is none."""
    choices = _choices(annotation)
    if choices and get_origin(annotation) is tuple:
        return of(lambda: choices)
    if choices:
        return lambda incomplete: [each for each in choices if each.startswith(incomplete)]
    if name in NAMED:
        return of(NAMED[name])
    return None


def of(known: Callable[[], Iterable[str]]) -> Complete:
    """Complete the last of several names that are separated by commas."""

    def complete(incomplete: str) -> list[str]:
        before, comma, last = incomplete.rpartition(",")
        exclusion = "-" if last.startswith("-") else ""
        prefix = f"{before}{comma}{exclusion}"
        wanted = last.removeprefix("-")
        return [f"{prefix}{each}" for each in known() if each.startswith(wanted)]

    return complete


def _choices(annotation: Any) -> tuple[str, ...]:
    if get_origin(annotation) is Literal:
        return tuple(map(str, get_args(annotation)))
    found: tuple[str, ...] = ()
    for part in get_args(annotation):
        found += _choices(part)
    return found
