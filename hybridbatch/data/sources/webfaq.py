"""WebFAQ (University of Passau): questions and answers of FAQ pages in 75 languages.

The languages are not parallel. Layout read on 2026-11-24 from the authors' upload script
(padas-lab-de/webfaq, cli/huggingface/upload_base.py @ 6122579) and from public code that loads the
data: a configuration per language (ISO 639-3), split ``default``, columns id, origin, url,
question, answer and more. The script writes one file per language, ``data/LANG.parquet``. It
belongs to the second release, so no file name is assumed: the files that the card lists are read,
Parquet or JSON Lines.

No commit was found in public material. So the source names the branch, and the provenance has the
branch's commit. mteb's WebFAQRetrieval is drawn from these pairs. After training on them without
decontamination, do not report WebFAQRetrieval.
"""

from collections.abc import Iterator
from functools import partial

from hybridbatch.common.records import BadRow, Row
from hybridbatch.data.download.hub import Repository
from hybridbatch.data.formats.tables import Record, RowProblem, known_language, text
from hybridbatch.data.source import SourceContext
from hybridbatch.data.sources.kinds import hub_source

HUB = Repository("PaDaS-Lab/webfaq")


def _rows(context: SourceContext) -> Iterator[Row | BadRow]:
    repository = HUB.at(context.revisions.get("webfaq"))
    for name in repository.configs():
        try:
            language = known_language(name, "language")
        except RowProblem as problem:
            yield BadRow(repository.label(name), 0, problem.field, problem.reason)
            continue
        if context.keeps(language):
            yield from repository.read(
                repository.config(name, "default"), partial(_parse, name, language)
            )


def _files(context: SourceContext) -> list[str]:
    """All files: the names of the languages are known only to the repository."""
    return [r"data/.*"]


def _parse(name: str, language: str, place: str, record: Record) -> Iterator[Row]:
    yield Row(
        "webfaq", f"{name}:{place}", language, text(record, "question"), text(record, "answer")
    )


SOURCES = (
    hub_source(
        HUB,
        name="webfaq",
        title="WebFAQ, frequently asked questions of the web",
        licence="CC BY 4.0",
        languages="75",
        size="96 million pairs",
        yields="question -> answer",
        rows=_rows,
        files=_files,
    ),
)
