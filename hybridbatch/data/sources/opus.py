"""Parallel text of the user or of OPUS, as pseudo pairs: Moses files, TSV and TMX.

`hybridbatch.data.formats.bitext` reads the files. Only people know whether neighbouring lines
belong together, so there are two sources, each with its folder:

- `parallel-documents`: lines in the order of a text (subtitles, laws, scriptures, most translators'
  files). Pairs are made of neighbouring lines (`hybridbatch.data.pairs.aligned_text`), and every
  file is one document.
- `parallel-sentences`: lines in any order (texts mined from the web, such as CCMatrix or NLLB). A
  record is a line and its translation, and each language has only one side
  (`hybridbatch.data.pairs.translated_questions`).

A path given to `prepare` is read as documents.
"""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from hybridbatch.common.errors import DataError
from hybridbatch.common.records import BadRow, Row
from hybridbatch.common.texts import comparable, writable
from hybridbatch.data.formats.bitext import Bitext, find_bitexts
from hybridbatch.data.pairs.aligned_text import (
    BLOCK,
    QUERY_LETTERS,
    Document,
    DocumentLine,
    document_rows,
    has_letters,
)
from hybridbatch.data.pairs.translated_questions import question_rows
from hybridbatch.data.source import Source, SourceContext

Maker = Callable[[str, Bitext, SourceContext], Iterator[Row | BadRow]]
FORMS = "Moses files (NAME.en, NAME.sw), NAME.en-sw.tsv without a header, or NAME.tmx"


def own_parallel_text(path: Path, bitexts: Sequence[Bitext]) -> Source:
    """The bitexts at `path` (a TMX or TSV file or a folder) as documents."""
    name = writable(path.resolve().name if path.is_dir() else bitexts[0].name)

    def rows(context: SourceContext) -> Iterator[Row | BadRow]:
        context.report.note(
            f"{path}: this parallel text is read as documents whose lines are in order; if"
            " they are not, put it into DATA_ROOT/parallel-sentences and prepare that source"
        )
        for bitext in bitexts:
            yield from document_pairs(name, bitext, context)

    return Source(
        name=name,
        title=f"your own parallel text, {path.name}",
        licence="yours to know",
        url="",
        languages="as its files say",
        yields="pseudo pairs: line -> neighbouring lines",
        rows=rows,
        inputs=lambda context: [file for bitext in bitexts for file in bitext.files],
        own=True,
    )


def document_pairs(
    source: str, bitext: Bitext, context: SourceContext
) -> Iterator[Row | BadRow]:
    """Pairs of neighbouring lines; memory holds one block of `BLOCK` lines at a time."""
    blocks: dict[str, Document] = {}
    last = 0
    for item in bitext.units():
        if isinstance(item, BadRow):
            yield item
            continue
        number, texts = item
        if (number - 1) // BLOCK != last:
            yield from _block_rows(source, bitext, blocks)
            blocks, last = {}, (number - 1) // BLOCK
        for language, words in texts.items():
            if context.keeps(language):
                document = blocks.setdefault(language, Document(bitext.name, language))
                document.lines[number - 1] = DocumentLine(number, words, "train")
    yield from _block_rows(source, bitext, blocks)


def _block_rows(
    source: str, bitext: Bitext, blocks: dict[str, Document]
) -> Iterator[Row | BadRow]:
    for document in blocks.values():
        yield from document_rows(source, document, f"{bitext.name} ({document.language})")


def sentence_pairs(
    source: str, bitext: Bitext, context: SourceContext
) -> Iterator[Row | BadRow]:
    """A record for each unit with at least two different texts that are long enough."""
    for item in bitext.units():
        if isinstance(item, BadRow):
            yield item
            continue
        number, texts = item
        texts = {
            language: words
            for language, words in texts.items()
            if has_letters(words, QUERY_LETTERS)
        }
        if len({comparable(words) for words in texts.values()}) < len(texts):
            yield BadRow(bitext.name, number, "text", "two languages have the same text")
        else:
            yield from question_rows(context, source, f"{bitext.name}:{number}", texts, "train")


def _registered(name: str, title: str, yields: str, make: Maker) -> Source:
    def bitexts(context: SourceContext) -> list[Bitext]:
        folder = (context.data_root or Path("DATA_ROOT")) / name
        found = find_bitexts(folder.iterdir()) if folder.is_dir() else []
        if not found:
            raise DataError(
                f"{folder}: holds no parallel text; put {FORMS} into it and name its parent"
                " folder with --data-root"
            )
        return found

    def rows(context: SourceContext) -> Iterator[Row | BadRow]:
        for bitext in bitexts(context):
            yield from make(name, bitext, context)

    return Source(
        name=name,
        title=title,
        licence="as the files' origin says",
        url="https://opus.nlpl.eu",
        languages="as the files say",
        size="as much as you put there",
        yields=yields,
        rows=rows,
        inputs=lambda context: [file for bitext in bitexts(context) for file in bitext.files],
    )


SOURCES = (
    _registered(
        "parallel-documents",
        "Parallel text whose lines are in order: OPUS (Moses, TSV), TMX",
        "pseudo pairs: line -> neighbouring lines",
        document_pairs,
    ),
    _registered(
        "parallel-sentences",
        "Parallel text whose lines are in any order: OPUS (Moses, TSV), TMX",
        "line <-> its translation, for cross-lingual batches",
        sentence_pairs,
    ),
)
