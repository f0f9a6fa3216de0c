"""MAFAND-MT: news in English or French and an African language, one pair per record.

``doc.*`` files have documents whose line 0 is the headline. ``sent.*`` files have only an order of
lines, so each split of a file is one document. The splits come from the source.
"""

from collections.abc import Iterator
from functools import partial
from pathlib import Path

from hybridbatch.common.records import BadRow, Row
from hybridbatch.data.formats.tables import (
    Record,
    bare_name,
    identifier,
    language,
    position,
    split,
    text,
)
from hybridbatch.data.pairs.aligned_text import Entry, file_rows
from hybridbatch.data.source import Source, SourceContext
from hybridbatch.data.sources.local_copies import home_files, local_files

URL, REVISION = (
    "https://github.com/masakhane-io/lafand-mt",
    "d441f8b063d63e95eafb72e84317359e27abf95e",
)
LICENCE = "CC BY-NC 4.0 (data set); texts: as the news sites say"


def _inputs(context: SourceContext) -> list[Path]:
    return local_files(
        context,
        "lafand-mt",
        ["doc.*.jsonl.gz", "sent.*.jsonl.gz"],
        f"{URL} at {REVISION} ({LICENCE})",
    )


def _rows(context: SourceContext) -> Iterator[Row | BadRow]:
    for path in _inputs(context):
        yield from file_rows(
            "lafand-mt",
            path,
            f"lafand-mt/{path.name}",
            partial(_entries, bare_name(path)),
            context,
        )


def _entries(pair: str, number: int, record: Record) -> Iterator[Entry]:
    part = split(record, "split")
    # The document's name includes the file's: swa and ewe have a doc.* and a sent.* file.
    document = f"{pair}/{identifier(record, 'doc') if 'doc' in record else part}"
    at = position(record, "pos")
    for code, words in (("src_lang", "src"), ("lang", "text")):
        yield Entry(document, language(record, code), at, text(record, words), part)


SOURCES = (
    Source(
        name="lafand-mt",
        title="MAFAND-MT, news translated from English and French",
        licence=LICENCE,
        url=URL,
        revision=REVISION,
        languages="15 African languages, each with en or fr",
        size="29,498 records, 58,812 rows",
        yields="pseudo pairs: headline -> body, sentence -> neighbouring sentences",
        rows=_rows,
        inputs=_inputs,
        files=partial(home_files, "lafand-mt"),
    ),
)
