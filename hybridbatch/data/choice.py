"""Which sources a preparation reads: names and paths of its settings become sources."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from hybridbatch.common.errors import ConfigError, nearest
from hybridbatch.common.files import fingerprint
from hybridbatch.data.formats.own_files import own_kind
from hybridbatch.data.selection import LanguageFilter
from hybridbatch.data.settings import PrepareConfig
from hybridbatch.data.source import Source, SourceContext
from hybridbatch.data.sources.hub_sets import hub_name, hub_set
from hybridbatch.data.sources.registry import OTHER_NAMES, source, sources
from hybridbatch.data.sources.user import OwnData, user_source


def choose_sources(entries: Sequence[str], own: OwnData | None = None) -> tuple[Source, ...]:
    """The sources for names of the registry and paths of the user's data.

    Args:
        own: how to read the user's data.

    Raises:
        ConfigError: A name is unknown, two sources have one name, or there is no source.
        DataError: A path has no readable data.
    """
    registered = {known.name for known in sources()}
    chosen = []
    for entry in entries:
        path = Path(entry)
        named = path.exists() or "/" in entry or own_kind(path) is not None
        if entry in registered:
            chosen.append(source(entry))
        elif not path.exists() and hub_name(entry):
            chosen.append(hub_set(entry, own or OwnData()))
        elif named:
            chosen.append(user_source(path, own))
        else:
            chosen.append(source(entry))
    names = [one.name for one in chosen]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice or not names:
        raise ConfigError(
            f"sources = {', '.join(entries)!r}: two sources are called {twice!r}; rename a"
            " file, or leave one of them out"
            if twice
            else "sources: none is given; name built-in sources (`hybridbatch prepare --list`) or"
            " your own files"
        )
    return tuple(chosen)


def own_data(config: PrepareConfig) -> OwnData:
    """How to read the user's files, according to the settings."""
    return OwnData(config.columns, config.language, config.encoding, config.max_bad_share)


def named_sources(setting: str, names: Iterable[str], chosen: Sequence[Source]) -> list[str]:
    """The names of sources in a setting, as the sources call themselves.

    Raises:
        ConfigError: A source is not among the chosen sources.
    """
    known = {one.name for one in chosen}
    found = [
        OTHER_NAMES.get(name.lower(), name) if name not in known else name for name in names
    ]
    for name, own in zip(names, found, strict=True):
        if own not in known:
            raise ConfigError(
                f"{setting}: {name!r} is none of the sources{nearest(name, sorted(known))}; name"
                f" one of {', '.join(sorted(known))}"
            )
    return found


def single_languages(
    config: PrepareConfig, chosen: Sequence[Source]
) -> dict[str, LanguageFilter]:
    """The filters of `source_languages`, by the names of the sources.

    Raises:
        ConfigError: A source is not among the sources, or a language is unknown.
    """
    names = named_sources("source_languages", config.source_languages, chosen)
    specs = zip(names, config.source_languages.values(), strict=True)
    return {name: LanguageFilter(spec.replace(";", ",")) for name, spec in specs}


def default_name(chosen: Sequence[Source]) -> str:
    """The names of the sources joined by ``+``; for many sources, the first name and a hash of all."""
    names = [one.name for one in chosen]
    joined = "+".join(names)
    return (
        joined if len(joined) <= 80 else f"{names[0]}+{len(names) - 1}-{fingerprint(names, 8)}"
    )


def at_commits(
    context: SourceContext, chosen: Sequence[Source], wanted: Mapping[str, str]
) -> SourceContext:
    """The context with a commit for every source that follows a branch.

    The commit is the one in the settings, or the branch's present commit.

    Raises:
        ConfigError: The settings have a commit for another source.
        DataError: A branch cannot be looked up.
    """
    following = {one.name: one for one in chosen if one.commit}
    for name, commit in wanted.items():
        if name not in following:
            raise ConfigError(
                f"revision = {name}={commit}: works only for sources that are prepared here"
                f" and follow a branch ({', '.join(following) or 'there is none here'});"
                " other sources are pinned, or do not come from the hub"
            )
    context = replace(context, revisions=wanted)
    commits = {name: one.commit(context) for name, one in following.items() if one.commit}
    for name, commit in commits.items():
        if name not in wanted:
            context.report.warn(
                f"{name}: this version knows no commit of the source, so it read the branch,"
                f" at commit {commit}; --revision {name}={commit} reads the same data again"
            )
    return replace(context, revisions=commits)
