"""SWIM-IR (Google, arXiv:2311.05800): Wikipedia passages, each with a model-written question.

``swim-ir`` has question and passage in one language. ``swim-ir-cross`` pairs an English passage
with a question in another language. So a record has only the question in that language, and only
the passage in English. Layout read on 2026-11-24 from the cards and the pages of the files at the
commits below: a configuration per language, split ``train``, columns _id, lang, code, query, title,
text.
"""

from collections.abc import Iterator
from functools import partial

from hybridbatch.common.records import BadRow, Row
from hybridbatch.data.download.hub import Repository
from hybridbatch.data.formats.retrieval_sets import titled
from hybridbatch.data.formats.tables import Record, text
from hybridbatch.data.source import SourceContext
from hybridbatch.data.sources.kinds import hub_source, wanted

HUB = Repository("nthakur/swim-ir-monolingual", "834c20f0ceef6a68e029fb4447d17d20bb0288c3")
CROSS = Repository("nthakur/swim-ir-cross-lingual", "1d4d91d3bb020536b4a88cc4982ae4f9dc87cc5e")
CODES = ["ar", "bn", "de", "en", "es", "fi", "fr", "hi", "id", "yo"]
CROSS_CODES = [
    "ar",
    "bn",
    "de",
    "es",
    "fa",
    "fi",
    "fr",
    "hi",
    "id",
    "ja",
    "ko",
    "ru",
    "sw",
    "te",
    "th",
    "yo",
    "zh",
]
LICENCE = "CC BY-SA 4.0"


def _rows(context: SourceContext) -> Iterator[Row | BadRow]:
    for code, language in wanted(context, CODES):
        yield from HUB.read(HUB.config(code), partial(_parse, language))


def _parse(language: str, place: str, record: Record) -> Iterator[Row]:
    yield Row("swim-ir", f"{language}:{place}", language, text(record, "query"), titled(record))


def _cross_rows(context: SourceContext) -> Iterator[Row | BadRow]:
    if context.keeps("eng"):
        for code, language in wanted(context, CROSS_CODES):
            yield from CROSS.read(CROSS.config(code), partial(_parse_cross, language))


def _parse_cross(language: str, place: str, record: Record) -> Iterator[Row]:
    record_id = f"{language}:{place}"
    yield Row("swim-ir-cross", record_id, language, text(record, "query"), None)
    yield Row("swim-ir-cross", record_id, "eng", None, titled(record))


SOURCES = (
    hub_source(
        HUB,
        name="swim-ir",
        title="SWIM-IR, monolingual",
        licence=LICENCE,
        languages="10",
        size="1 to 10 million pairs",
        yields="synthetic question -> passage",
        rows=_rows,
        files=lambda context: [f"{code}/train-.*" for code, _ in wanted(context, CODES)],
    ),
    hub_source(
        CROSS,
        name="swim-ir-cross",
        title="SWIM-IR, cross-lingual",
        licence=LICENCE,
        languages="17, and en",
        size="10 to 100 million pairs",
        yields="synthetic question -> English passage, for cross-lingual batches",
        rows=_cross_rows,
        files=lambda context: [f"{code}/train-.*" for code, _ in wanted(context, CROSS_CODES)],
    ),
)
