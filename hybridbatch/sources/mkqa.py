"""MKQA: open-domain questions translated by people; question <-> question records, as it has no passages."""

from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path

from hybridbatch.records import BadRow, Row
from hybridbatch.sources import Source, SourceContext, local_files
from hybridbatch.sources.questions import question_rows
from hybridbatch.sources.reading import Record, RowProblem, checked_text, convert, identifier, known_language

URL, REVISION = "https://github.com/mia-workshop/MIA-Shared-Task-2022", "ea2491a3e3a588e270b2dd30ce7e044584c3eeb5"
LICENCE = "CC BY-SA 3.0"
FILE = "parallel_queries.dev.jsonl.gz"


def _inputs(context: SourceContext) -> list[Path]:
    return local_files(context, "mkqa-mia", [FILE], f"{URL} at {REVISION} ({LICENCE})")


def _rows(context: SourceContext) -> Iterator[Row | BadRow]:
    (path,) = _inputs(context)
    yield from convert(path, f"mkqa-mia/{FILE}", partial(_parse, context))


def _parse(context: SourceContext, number: int, record: Record) -> Iterator[Row]:
    queries = record.get("queries")
    if not isinstance(queries, Mapping):
        raise RowProblem("queries", "must be an object of texts by language")
    record_id = identifier(record, "id")
    texts = {known_language(code, "queries"): checked_text(query, f"queries.{code}") for code, query in queries.items()}
    # The file is a development set as a whole, so its split says nothing here.
    yield from question_rows(context, "mkqa", record_id, texts, "train")


SOURCES = (
    Source(
        name="mkqa",
        title="MKQA, development set of the MIA 2022 shared task",
        licence=LICENCE,
        url=URL,
        revision=REVISION,
        languages="12",
        yields="question <-> its translation, for cross-lingual batches",
        rows=_rows,
        inputs=_inputs,
    ),
)
