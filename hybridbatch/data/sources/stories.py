"""African Storybook, Global ASP and Pratham Books: picture books; page 0 is the title.

The versions of a story differ in length in some languages. A version joins the English record only
if its pages match the English pages (``aligned_en`` in docs.jsonl.gz). Every other version makes
separate records.
"""

from collections.abc import Iterator
from functools import partial
from pathlib import Path

from hybridbatch.common.records import BadRow, Row
from hybridbatch.data.formats.tables import (
    Record,
    RowProblem,
    absorb,
    identifier,
    language,
    position,
    text,
)
from hybridbatch.data.pairs.aligned_text import Entry, file_rows
from hybridbatch.data.source import Source, SourceContext
from hybridbatch.data.sources.local_copies import home_files, local_files

URL, REVISION = (
    "https://github.com/global-asp",
    "global-asp b0193c31, asp-source 99e02236, pb-source 9ea530df, global-pb f910f185",
)
LICENCE = "per story: CC BY (most), CC BY-NC, CC BY-NC-SA, public domain"
# (story, canonical language) -> the source's code of the version taken
Versions = dict[tuple[str, str], str]


def _inputs(context: SourceContext) -> list[Path]:
    return local_files(
        context,
        "stories",
        ["docs.jsonl.gz", "pages.jsonl.gz"],
        f"{URL} at {REVISION} ({LICENCE})",
    )


def _rows(context: SourceContext) -> Iterator[Row | BadRow]:
    docs, pages = _inputs(context)
    aligned: set[tuple[str, str]] = set()

    def take(record: Record) -> None:
        if record.get("aligned_en") is True:
            aligned.add((identifier(record, "doc"), text(record, "lang")))

    yield from absorb(docs, "stories/docs.jsonl.gz", take)
    parse = partial(_entries, aligned, {})
    yield from file_rows("stories", pages, "stories/pages.jsonl.gz", parse, context)


def _entries(
    aligned: set[tuple[str, str]], versions: Versions, number: int, record: Record
) -> Iterator[Entry]:
    story, code = identifier(record, "doc"), text(record, "lang")
    canonical = language(record, "lang")
    taken = versions.setdefault((story, canonical), code)
    if taken != code:  # two spellings of one language, such as tw-akua and tw-asan
        raise RowProblem("lang", f"the story is already there in {canonical}, as {taken}")
    document = story if (story, code) in aligned else f"{story}/{canonical}"
    yield Entry(document, canonical, position(record, "pos"), text(record, "text"))


SOURCES = (
    Source(
        name="stories",
        title="African Storybook, Global ASP and Pratham Books, picture books",
        licence=LICENCE,
        url=URL,
        revision=REVISION,
        languages="about 150",
        size="7,224 records, 26,146 rows",
        yields="pseudo pairs: title -> first pages, page -> neighbouring pages",
        rows=_rows,
        inputs=_inputs,
        files=partial(home_files, "stories"),
    ),
)
