"""NewsQA (Maluuba, Microsoft): questions on CNN articles.

The articles may not be passed on, so the user makes the data by hand. Layout read on 2026-11-24
from the README of the repository at the commit below: ``combined-newsqa-data-v1.json`` is {"data":
[{storyId, text, type: train, dev or test, questions: [{q, consensus: {s, e} or {badQuestion} or
{noAnswer}, ...}]}], "version"}; s and e are character positions in the text. The passage is the
part of the article where the consensus starts (`long_documents.passage_at`). Questions without a
consensus have no row.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path

from hybridbatch.common.errors import DataError
from hybridbatch.common.files import read_json
from hybridbatch.common.records import BadRow, Row
from hybridbatch.data.formats.tables import (
    Record,
    RowProblem,
    convert_records,
    identifier,
    split,
    text,
)
from hybridbatch.data.pairs.long_documents import passage_at
from hybridbatch.data.source import Source, SourceContext

URL, REVISION = "https://github.com/Maluuba/newsqa", "d5bb9e9640e2ed7a31e209393376549d737d276b"
FILE = "combined-newsqa-data-v1.json"


def _inputs(context: SourceContext) -> list[Path]:
    path = (context.data_root or Path("DATA_ROOT")) / "newsqa" / FILE
    if context.data_root is None or not path.is_file():
        raise DataError(
            f"{path}: does not exist, and cannot be downloaded, because its articles may not"
            f" be passed on. Clone {URL} at {REVISION}, put the questions"
            " (newsqa-data-v1.tar.gz, from"
            " microsoft.com/en-us/research/project/newsqa-dataset/) and the articles"
            " (cnn_stories.tgz, from cs.nyu.edu/~kcho/DMQA/) into maluuba/newsqa, run"
            " `docker build -t maluuba/newsqa . && docker run --rm -it -v"
            f" ${{PWD}}:/usr/src/newsqa maluuba/newsqa`, copy the {FILE} that it writes to"
            " DATA_ROOT/newsqa/, and give --data-root DATA_ROOT"
        )
    return [path]


def _rows(context: SourceContext) -> Iterator[Row | BadRow]:
    (path,) = _inputs(context)
    whole = read_json(path)
    stories = whole.get("data") if isinstance(whole, Mapping) else None
    if not isinstance(stories, list):
        raise DataError(
            f"{path}: must be an object with a list of stories as 'data'; make the file again"
            f" as {URL} describes"
        )
    yield from convert_records(enumerate(stories, 1), f"newsqa/{FILE}", _parse)


def _parse(number: int, story: Record) -> Iterator[Row | BadRow]:
    if not isinstance(story, Mapping):
        raise RowProblem("data", "must be an object")
    name, article, part = (
        identifier(story, "storyId"),
        text(story, "text"),
        split(story, "type"),
    )
    questions = story.get("questions")
    if not isinstance(questions, list):
        raise RowProblem("questions", "must be a list")
    for at, question in enumerate(questions):
        consensus = question.get("consensus") if isinstance(question, Mapping) else None
        if not isinstance(consensus, Mapping):
            yield BadRow(f"newsqa/{FILE}", number, "consensus", "must be an object")
        elif isinstance(consensus.get("s"), int):
            passage = passage_at(article, consensus["s"])
            if passage is None:
                yield BadRow(
                    f"newsqa/{FILE}", number, "consensus", "starts outside of the text"
                )
            else:
                yield Row(
                    "newsqa", f"{name}:{at}", "eng", text(question, "q"), passage, split=part
                )


SOURCES = (
    Source(
        name="newsqa",
        title="NewsQA, questions on CNN articles",
        licence="Microsoft Research: non-commercial; articles: CNN",
        url=URL,
        revision=REVISION,
        languages="en",
        size="those of 119,633 questions that have an agreed answer",
        yields="question -> part of the article that holds the answer",
        rows=_rows,
        inputs=_inputs,
    ),
)
