"""Question -> passage rows of retrieval sets: ``corpus.X``, ``qrels.X`` and ``queries.X`` files of JSON Lines."""

from collections.abc import Iterator, Mapping
from pathlib import Path

from hybridbatch.records import BadRow, Row, Split
from hybridbatch.sources import Source, SourceContext, local_files
from hybridbatch.sources.reading import Record, RowProblem, absorb, convert, identifier, language, text

Passages = dict[str, tuple[str, str]]  # passage id -> canonical language, text with its title


def retrieval_source(
    name: str,
    folder: str,
    parts: Mapping[str, Split],
    *,
    title: str,
    licence: str,
    url: str,
    revision: str,
    languages: str,
    size: str,
) -> Source:
    """A source of questions with the passages that answer them, both in one language.

    Args:
        folder: the data set's folder under the data root.
        parts: what its files are cut by (languages, splits or domains), and the split that each belongs to.
    """

    def inputs(context: SourceContext) -> list[Path]:
        patterns = [f"{kind}.{part}.jsonl.gz" for part in parts for kind in ("corpus", "qrels", "queries")]
        return local_files(context, folder, patterns, f"{url} at {revision} ({licence})")

    def rows(context: SourceContext) -> Iterator[Row | BadRow]:
        files = inputs(context)
        for corpus, qrels, queries, split in zip(files[::3], files[1::3], files[2::3], parts.values(), strict=True):
            yield from question_rows(name, corpus, qrels, queries, split)

    return Source(name, title, licence, url, languages, "question -> passage", rows, revision, inputs, size)


def question_rows(source: str, corpus: Path, qrels: Path, queries: Path, split: Split) -> Iterator[Row | BadRow]:
    """A row for every question and passage that answers it; further passages of a question make records of their own."""
    passages: Passages = {}
    relevant: dict[str, list[str]] = {}
    yield from absorb(corpus, display_name(corpus), lambda record: take_passage(passages, record))

    def take_relevant(record: Record) -> None:
        if record.get("rel") != 0:
            relevant.setdefault(identifier(record, "query_id"), []).append(identifier(record, "doc_id"))

    yield from absorb(qrels, display_name(qrels), take_relevant)

    def parse(number: int, record: Record) -> Iterator[Row]:
        question, code, query = identifier(record, "id"), language(record, "lang"), text(record, "text")
        if question not in relevant:
            raise RowProblem("id", "no passage is relevant to the question")
        for further, passage_id in enumerate(relevant[question]):
            passage = find_passage(passages, passage_id, "id")[1]
            record_id = f"{question}#{further + 1}" if further else question
            yield Row(source, record_id, code, query, passage, split=split)

    yield from convert(queries, display_name(queries), parse)


def take_passage(passages: Passages, record: Record) -> None:
    """Add a corpus record; its title, if it has one, goes before the text as mteb joins them: with a blank."""
    title = str(record.get("title") or "").replace("_", " ")
    passages[identifier(record, "id")] = (language(record, "lang"), f"{title} {text(record, 'text')}".strip())


def find_passage(passages: Passages, passage_id: str, field: str) -> tuple[str, str]:
    """(language, text) of a passage. Raises `RowProblem` for `field` if there is none of that id."""
    if passage_id not in passages:
        raise RowProblem(field, "the corpus has no such passage")
    return passages[passage_id]


def display_name(path: Path) -> str:
    """How a file of a data set is called in reports: the same on every machine."""
    return f"{path.parent.name}/{path.name}"
