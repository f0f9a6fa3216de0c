"""The command search: passages for queries, once, line by line, or in a dialogue."""

import json
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hybridbatch.cli import console
from hybridbatch.cli.base import SEARCH, command, reporter
from hybridbatch.common.errors import ConfigError, HybridBatchError
from hybridbatch.search.settings import SearchConfig

if TYPE_CHECKING:
    from hybridbatch.search.passages import Hit, PassageSearch

Choose = Callable[[str], Sequence[str] | None]
SHOWN = 300  # characters of a passage on a terminal
HELP = ":k 5 shows five passages, :language swh,fra searches these only, :q ends"


@command(
    SEARCH,
    SearchConfig,
    {"model": "MODEL", "corpus": "CORPUS"},
    examples=[
        "hybridbatch search experiments/first passages.jsonl --query 'Mto mrefu zaidi'",
        "hybridbatch search e5-small-q4 atlas --language swh,fra",
    ],
)
def search(
    config: SearchConfig,
    query: Annotated[
        list[str] | None,
        typer.Option("--query", help="What to search for; can be repeated."),
    ] = None,
) -> None:
    """Search passages in any languages, with --query, lines of standard input, or a dialogue.

    Write one query a line to standard input. If the output goes to a pipe, every passage found is
    a line of JSON. Vectors are stored, so only the first search of a corpus encodes it.
    """
    dialogue = _is_dialogue(query)
    found, choose = _open(config)
    asked_in = _asked_in(config)
    languages = choose(config.language)
    if dialogue:
        _converse(found, choose, languages, config.k, asked_in)
        return
    given = query or _lines()
    count = 0
    for text in given:
        if not text.strip():
            continue
        _show(text, found.find([text], config.k, languages, asked_in([text]))[0])
        count += 1
    if not count:
        raise ConfigError(
            "search: there is no query; give --query TEXT, or write one query a line to standard"
            " input"
        )


def _is_dialogue(query: list[str] | None) -> bool:
    return not query and sys.stdin.isatty()


def _open(config: SearchConfig) -> "tuple[PassageSearch, Choose]":
    """Encode the corpus; return its search, and a function that resolves a list of languages."""
    if config.corpus is None:
        raise ConfigError(
            "search: there is no corpus; give MODEL and CORPUS (see hybridbatch search --help)"
        )
    from hybridbatch.common.languages import resolve
    from hybridbatch.data.tasks.passages import UNDETERMINED, read_passages

    report = reporter()
    corpora = read_passages(
        config.corpus, language=config.corpus_language, data_root=config.data_root
    )

    def choose(spec: str) -> Sequence[str] | None:
        if spec == "all":
            return None
        known = [language for language in corpora if language != UNDETERMINED]
        if not known:
            raise ConfigError(
                f"language = {spec!r}: the passages state no language; name it with"
                " --corpus-language, or give the passages a column 'language'"
            )
        return resolve(spec, known)

    choose(config.language)  # a mistake is told before the model is loaded
    from hybridbatch.common.device import resolve_device, resolve_precision
    from hybridbatch.model import Encoder
    from hybridbatch.model.inference import resolve_kernels
    from hybridbatch.scoring.forecast import tell
    from hybridbatch.search.embeddings import EmbeddingStore
    from hybridbatch.search.passages import PassageSearch

    tell(config, [], [texts.texts for texts in corpora.values()], "the search", report)
    device = resolve_device(config.device)
    encoder = Encoder.load(config.model, **config.encoder_options, report=report).to(device)
    precision = resolve_precision(config.precision, device)
    kernels = resolve_kernels(config.kernels, device)
    store = EmbeddingStore(encoder, config.cache, precision=precision, kernels=kernels)
    debias = None
    if config.debias:
        from hybridbatch.debias.vectors_file import read_vectors

        debias = read_vectors(config.debias)
        debias.require_model(store.fingerprint, config.model)
    return PassageSearch(store, corpora, str(device), report, debias), choose


def _asked_in(config: SearchConfig) -> Callable[[Sequence[str]], list[str]]:
    """Return a function that gives the language of each query, which language vectors need.

    The language comes from the settings, else from identification, which errs on short queries.
    """
    if config.debias is None:
        return lambda queries: ["und"] * len(queries)
    from hybridbatch.common.languages import canonical
    from hybridbatch.data.filters.language_id import identifier

    if config.query_language:
        given = canonical(config.query_language)
        return lambda queries: [given] * len(queries)
    return lambda queries: identifier().identify(queries)[0]


def _lines() -> Iterator[str]:
    """The queries on standard input, as they come."""
    for number, raw in enumerate(sys.stdin.buffer, 1):
        try:
            yield raw.decode("utf-8-sig" if number == 1 else "utf-8").strip()
        except UnicodeDecodeError as error:
            raise ConfigError(
                f"standard input, line {number}: is not valid UTF-8; convert the input to UTF-8"
            ) from error


def _show(query: str, hits: "Sequence[Hit]") -> None:
    """A table on a terminal, JSON if asked, else a line of JSON for every passage."""
    records: list[dict[str, Any]] = [{"query": query, **asdict(hit)} for hit in hits]
    if console.mode.json:
        console.mode.collected.setdefault("rows", []).extend(records)
    elif console.out.is_terminal:
        rows = [{**record, "text": _shortened(record["text"])} for record in records]
        for row in rows:
            del row["query"]
        console.table(rows, title=query)
    else:
        console.lines([json.dumps(record, ensure_ascii=False) for record in records])
        sys.stdout.flush()


def _shortened(text: str) -> str:
    return text if len(text) <= SHOWN else f"{text[: SHOWN - 1]}…"


def _converse(
    found: "PassageSearch",
    choose: Choose,
    languages: Sequence[str] | None,
    k: int,
    asked_in: Callable[[Sequence[str]], list[str]],
) -> None:
    """Ask for queries until the user ends the dialogue; an error does not end it."""
    counts = {language: len(texts.ids) for language, texts in found.corpora.items()}
    total = sum(counts.values())
    console.TerminalReporter().note(
        f"{total:,} {'passage' if total == 1 else 'passages'} ({_listed(counts)}); {HELP}"
    )
    while True:
        try:
            line = _asked()
        except (EOFError, KeyboardInterrupt):
            console.err.print()
            return
        word, _, value = line.partition(" ")
        try:
            if word in (":q", ":quit"):
                return
            if word == ":k" and value.strip().isdecimal() and int(value) > 0:
                k = int(value)
            elif word == ":language":
                languages = choose(value.strip() or "all")
            elif word.startswith(":"):
                console.TerminalReporter().note(HELP)
            elif line:
                _show(line, found.find([line], k, languages, asked_in([line]))[0])
        except HybridBatchError as mistake:
            console.error(str(mistake))


def _asked() -> str:
    """The user's next line. Output that is no terminal holds results only, so it has no prompt."""
    prompt = "query> "
    if not console.out.is_terminal:
        console.err.print(prompt, end="")
        prompt = ""
    return input(prompt).strip()


def _listed(counts: dict[str, int]) -> str:
    names = sorted(counts, key=lambda name: -counts[name])
    return ", ".join(names[:12]) + (", ..." if len(names) > 12 else "")
