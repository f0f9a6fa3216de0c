"""The registry of training sources, one small module each.

A source module defines `SOURCES`, a tuple of `Source`, which yields rows and names their origin. It
imports nothing heavy at its top level, so that listing the registry is quick. To add a source,
write a module and add its name to `_MODULES`.
"""

from concurrent.futures import ThreadPoolExecutor
from functools import cache, partial
from importlib import import_module
from pathlib import Path

from hybridbatch.common.errors import ConfigError, nearest
from hybridbatch.common.sizes import gigabytes
from hybridbatch.data.download.sizes import size_of
from hybridbatch.data.homes.registry import HOMES
from hybridbatch.data.source import Source, SourceContext
from hybridbatch.data.sources.local_copies import local_copy

_MODULES = (
    "atlas.source",
    "sources.afriqa",
    "sources.tydi",
    "sources.amqa",
    "sources.mkqa",
    "sources.exams",
    "sources.ntrex",
    "sources.tico19",
    "sources.stories",
    "sources.bible",
    "sources.lafand",
    "sources.squadshifts",
    "sources.mmarco",
    "sources.mrtydi",
    "sources.mfaq",
    "sources.nq",
    "sources.duorc",
    "sources.newsqa",
    "sources.wikiqa",
    "sources.yahoo",
    "sources.entityquestions",
    "sources.miracl",
    "sources.mintaka",
    "sources.xor_tydi",
    "sources.tydiqa",
    "sources.webfaq",
    "sources.swim_ir",
    "sources.opus",
)

# Names of some sources in papers and in speech.
OTHER_NAMES = {
    "mr-tydi": "mrtydi",
    "mr.tydi": "mrtydi",
    "mr_tydi": "mrtydi",
    "wiki-qa": "wikiqa",
    "news-qa": "newsqa",
    "natural-questions": "nq",
    "google-nq": "nq",
    "yahoo-qa": "yahoo",
    "yahoo-answers": "yahoo",
    "entity-questions": "entityquestions",
    "ms-marco": "mmarco",
    "xor-tydi-qa": "xor-tydi",
}


@cache
def sources() -> tuple[Source, ...]:
    """All registered sources, in the order of the catalogue."""
    return tuple(
        source
        for module in _MODULES
        for source in import_module(f"hybridbatch.data.{module}").SOURCES
    )


def source(name: str) -> Source:
    """The registered source of a name, or of a name that papers use.

    Raises:
        ConfigError: The name is unknown; the message has the nearest names.
    """
    known = {source.name: source for source in sources()}
    name = OTHER_NAMES.get(name.lower(), name)
    if name not in known:
        raise ConfigError(
            f"unknown source {name!r}{nearest(name, list(known))}; `hybridbatch prepare"
            " --list` shows all sources"
        )
    return known[name]


def catalogue(data_root: Path | None = None) -> list[dict[str, str]]:
    """A line per registered source, for people; ``data`` is the location of its files.

    Servers are asked for the sizes of what is not here, all at once, with little patience.
    """
    with ThreadPoolExecutor(len(sources())) as pool:
        places = pool.map(partial(_whereabouts, data_root=data_root), sources())
    return [
        {
            "source": source.name,
            "holds": source.title,
            "languages": source.languages,
            "size": source.size,
            "yields": source.yields,
            "data": place,
            "licence": source.licence,
            "url": source.url,
        }
        for source, place in zip(sources(), places, strict=True)
    ]


# The folders of the sources whose files are built from a public home.
_FOLDERS = {
    "afriqa": "afriqa",
    "afriqa-questions": "afriqa",
    "amqa": "amharic-qa",
    "bible": "bible",
    "exams": "exams",
    "lafand-mt": "lafand-mt",
    "mkqa": "mkqa-mia",
    "ntrex": "ntrex",
    "stories": "stories",
    "tico19": "tico19",
    "tydi": "tydi-goldp",
}


def _whereabouts(source: Source, data_root: Path | None) -> str:
    """Where the data is, and how much is to be downloaded for all languages."""
    if source.name == "atlas":
        return "here"
    folder = _FOLDERS.get(source.name)
    if folder is None:
        files = source.files(SourceContext(data_root))
        if not files:
            return "to get by hand, and to name with --data-root"
        size = size_of(files)
        if size is None:
            return "to download: the server does not tell how much"
        return f"to download: {gigabytes(size.absent)}" if size.absent else "here"
    if local_copy(data_root, folder):
        return "here"
    return HOMES[folder].whereabouts(data_root)
