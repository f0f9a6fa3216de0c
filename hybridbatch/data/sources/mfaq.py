"""MFAQ (CLiPS): questions and answers of FAQ pages in 21 languages, from Common Crawl.

The languages are not parallel. Layout read on 2026-11-24 from the data set's card and from public
code that reads the files: ``data/LANG/train.jsonl``, a page a line: {id, language, num_pairs,
domain, qa_pairs: [{question, answer, language}]}. The language of the pair counts, not that of the
page. The commit is the last one of the main branch on public pages.
"""

from collections.abc import Iterator, Mapping
from functools import partial

from hybridbatch.common.records import BadRow, Row
from hybridbatch.data.download.hub import Repository
from hybridbatch.data.formats.tables import Record, RowProblem, known_language, text
from hybridbatch.data.source import SourceContext
from hybridbatch.data.sources.kinds import hub_source, wanted

HUB = Repository("clips/mfaq", "08eb2bf10b9818601b5c3822bd76afb0db0082b0")
CODES = [
    "cs",
    "da",
    "de",
    "en",
    "es",
    "fi",
    "fr",
    "he",
    "hr",
    "hu",
    "id",
    "it",
    "nl",
    "no",
    "pl",
    "pt",
    "ro",
    "ru",
    "sv",
    "tr",
    "vi",
]


def _rows(context: SourceContext) -> Iterator[Row | BadRow]:
    for code, _ in wanted(context, CODES):
        yield from HUB.read([f"data/{code}/train.jsonl"], partial(_parse, code))


def _parse(code: str, place: str, page: Record) -> Iterator[Row]:
    pairs = page.get("qa_pairs")
    if not isinstance(pairs, list):
        raise RowProblem("qa_pairs", "must be a list of pairs")
    for at, pair in enumerate(pairs):
        if not isinstance(pair, Mapping):
            raise RowProblem("qa_pairs", "must be a list of objects")
        language = known_language(pair.get("language") or code, "language")
        yield Row(
            "mfaq",
            f"{code}:{place}:{at}",
            language,
            text(pair, "question"),
            text(pair, "answer"),
        )


SOURCES = (
    hub_source(
        HUB,
        name="mfaq",
        title="MFAQ, frequently asked questions of the web",
        licence="CC0 1.0 (packaging; the texts are the sites')",
        languages="21",
        size="6,346,693 pairs, 3,719,484 of them in English",
        yields="question -> answer",
        rows=_rows,
        files=lambda context: [f"data/{code}/train.*" for code, _ in wanted(context, CODES)],
    ),
)
