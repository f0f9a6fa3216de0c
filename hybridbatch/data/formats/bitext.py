"""Parallel text in the forms of OPUS and of translators, read as a stream of numbered units.

- Moses: files whose names differ only in a last suffix, the language, such as ``Tanzil.en-sw.en``
  and ``Tanzil.en-sw.sw``; line n of one file is parallel to line n of the others.
- TSV: ``NAME.en-sw.tsv``, two columns in the order of the name, without a header.
- TMX: ``NAME.tmx``, translation units (``tu``) of variants (``tuv``) with ``xml:lang``.

Units are numbered from 1. Each file may be packed as ``.gz``, Moses and TSV also as ``.zst``.
Layouts read on 2026-11-24: Moses and TSV from the documentation of the OPUS tools, TMX from the
standard (1.4b).
"""

import gzip
import re
import xml.etree.ElementTree as ElementTree
import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from io import BufferedIOBase
from itertools import zip_longest
from pathlib import Path

from hybridbatch.common.errors import DataError
from hybridbatch.common.files import line_limit, open_lines
from hybridbatch.common.records import BadRow
from hybridbatch.data.formats.tables import (
    KINDS,
    RowProblem,
    checked_text,
    headless_records,
    known_language,
)

# number, text by canonical language; languages without a text are left out
Unit = tuple[int, dict[str, str]]
_PACKED = (".gz", ".zst")
# Suffixes of other files that are also codes of languages: notes.txt and notes.log are no Moses files.
_NO_LANGUAGE = frozenset(
    ["bak", "bin", "dat", "doc", "log", "old", "out", "src", "tar", "tex", "tgt", "txt"]
)
_PAIR = re.compile(r".+\.([^.-]+)-([^.]+)\.tsv")
_LANGUAGE = "{http://www.w3.org/XML/1998/namespace}lang"


@dataclass(frozen=True)
class Bitext:
    """Files that hold one text in two or more languages.

    Attributes:
        name: name of the files, without the suffixes of packing, kind and (Moses) language.
        kind: moses, tsv or tmx.
        files: one file, or for Moses one per language.
        languages: canonical languages of the columns or files; empty for TMX, which names them
            inside.
    """

    name: str
    kind: str
    files: tuple[Path, ...]
    languages: tuple[str, ...] = ()

    def units(self) -> Iterator[Unit | BadRow]:
        """The units in order.

        Raises:
            DataError: A file cannot be read, or Moses files differ in length.
        """
        readers = {"moses": _moses_units, "tsv": _tsv_units, "tmx": _tmx_units}
        return readers[self.kind](self)


def find_bitexts(paths: Iterable[Path]) -> list[Bitext]:
    """The bitexts among files, sorted by name; other files are left out."""
    found: list[Bitext] = []
    moses: dict[str, dict[str, Path]] = {}
    for path in sorted(paths):
        bare = path.stem if path.suffix in _PACKED else path.name
        stem, _, suffix = bare.rpartition(".")
        if suffix == "tmx":
            found.append(Bitext(stem, "tmx", (path,)))
        elif (pair := _PAIR.fullmatch(bare)) and (languages := _languages(pair[1], pair[2])):
            if not _has_header(path, languages):
                found.append(Bitext(bare.removesuffix(".tsv"), "tsv", (path,), languages))
        elif not stem or f".{suffix}" in KINDS or suffix in _NO_LANGUAGE:
            continue
        elif language := _languages(suffix):
            moses.setdefault(stem, {}).setdefault(language[0], path)
    for stem, files in moses.items():
        if len(files) > 1:
            found.append(Bitext(stem, "moses", tuple(files.values()), tuple(files)))
    return sorted(found, key=lambda bitext: (bitext.name, bitext.files))


def _languages(*codes: str) -> tuple[str, ...]:
    """The canonical ids of codes; empty if one is unknown, or two are equal."""
    try:
        known = tuple(known_language(code, "name") for code in codes)
    except RowProblem:
        return ()
    return known if len(set(known)) == len(codes) else ()


def _has_header(path: Path, languages: tuple[str, ...]) -> bool:
    """Whether the first line names the languages.

    Then the file is a table of aligned lines (`hybridbatch.data.formats.user_tables`).
    """
    with open_lines(path) as lines:
        first = next(lines, (1, b""))[1].decode("utf-8", "replace").split("\t")
    return set(_languages(*first)) == set(languages)


def _moses_units(bitext: Bitext) -> Iterator[Unit | BadRow]:
    with ExitStack() as stack:
        streams = [stack.enter_context(open_lines(path)) for path in bitext.files]
        for lines in zip_longest(*streams):
            if None in lines:
                number = max(line[0] for line in lines if line)
                short = bitext.files[lines.index(None)]
                raise DataError(
                    f"{short}: ends before line {number}, which"
                    f" {' and '.join(_others(bitext, short))} have; give files whose lines belong"
                    " together"
                )
            number = lines[0][0]
            texts: dict[str, str] = {}
            for path, language, (_, raw) in zip(
                bitext.files, bitext.languages, lines, strict=True
            ):
                try:
                    texts[language] = raw.decode()
                except UnicodeDecodeError as error:
                    yield BadRow(
                        path.name,
                        number,
                        "text",
                        f"not valid UTF-8 at byte {error.start + 1} of the line",
                    )
            yield number, _filled(texts)


def _others(bitext: Bitext, short: Path) -> list[str]:
    return [path.name for path in bitext.files if path != short]


def _tsv_units(bitext: Bitext) -> Iterator[Unit | BadRow]:
    (path,) = bitext.files
    for item in headless_records(path, path.name, list(bitext.languages)):
        if isinstance(item, BadRow):
            yield item
            continue
        try:
            yield (
                item[0],
                {
                    language: checked_text(words, language)
                    for language, words in _filled(item[1]).items()
                },
            )
        except RowProblem as problem:
            yield BadRow(path.name, item[0], problem.field, problem.reason)


def _tmx_units(bitext: Bitext) -> Iterator[Unit | BadRow]:
    (path,) = bitext.files
    number = 0
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            body = None
            source = _UnitReader(path, file)
            for event, element in ElementTree.iterparse(source, events=("start", "end")):
                tag = element.tag.rpartition("}")[2]
                if event == "start" and tag == "body":
                    body = element
                elif event == "end" and tag == "tu":
                    number += 1
                    source.bytes = 0
                    yield from _variants(element, number, path.name)
                    if body is not None:
                        body.clear()  # release the units read so far
    except (ElementTree.ParseError, EOFError, zlib.error, OSError) as error:
        raise DataError(
            f"{path}: cannot be read as TMX after unit {number} ({error}); fetch or export it again"
        ) from error
    except (ValueError, LookupError) as error:  # an encoding that the parser does not know
        raise DataError(
            f"{path}: its encoding cannot be read ({error}); save the file as UTF-8"
        ) from error


class _UnitReader:
    """The bytes of a TMX file, as long as no unit is longer than a line of text may be."""

    def __init__(self, path: Path, file: BufferedIOBase) -> None:
        self.path, self.file = path, file
        self.bytes = 0  # read since the end of the last unit
        self.most = line_limit()

    def read(self, size: int = -1) -> bytes:
        """At most `size` bytes. Raises `DataError`."""
        part = self.file.read(size)
        self.bytes += len(part)
        if self.bytes > self.most:
            raise DataError(
                f"{self.path}: has more than {self.most:,} bytes in one unit; to read longer"
                " units, set HYBRIDBATCH_MAX_LINE=1GB in the environment"
            )
        return part


def _variants(unit: ElementTree.Element, number: int, name: str) -> Iterator[Unit | BadRow]:
    texts: dict[str, str] = {}
    for variant in unit:
        if variant.tag.rpartition("}")[2] != "tuv":
            continue
        code = variant.get(_LANGUAGE) or variant.get("lang") or ""
        segment = next(
            (child for child in variant if child.tag.rpartition("}")[2] == "seg"), None
        )
        try:
            texts.setdefault(
                known_language(code, "xml:lang"),
                "".join(segment.itertext()) if segment is not None else "",
            )
        except RowProblem as problem:
            yield BadRow(name, number, problem.field, problem.reason)
    yield number, _filled(texts)


def _filled(texts: Mapping[str, str]) -> dict[str, str]:
    """The texts that are not blank, with white space (also line ends of TMX) as single blanks."""
    return {
        language: words for language, text in texts.items() if (words := " ".join(text.split()))
    }
