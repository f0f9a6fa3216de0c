"""Builders of aligned tables: a file for each language, with one id for one text."""

import re
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from hybridbatch.common.errors import DataError
from hybridbatch.data.formats.tables import spaced
from hybridbatch.data.homes.home import Files, write

Record = dict[str, Any]


def sib_sentences(files: Files) -> dict[str, dict[int, Record]]:
    """By language and id, the records of SIB-200: {id, lang, text}."""
    sentences: dict[str, dict[int, Record]] = {}
    for name, text in files.matching(r"data/annotated/[^/]+/(train|dev|test)\.tsv"):
        language = name.split("/")[2]
        table = sentences.setdefault(language, {})
        lines = files.numbered(text.removesuffix("\n").split("\n"))
        for line in islice(lines, 1, None):  # without the header
            cells = line.split("\t")
            if len(cells) != 3:
                raise ValueError(f"{len(cells)} columns, not index_id, category and text")
            number, _, sentence = cells
            table[int(number)] = {
                "id": int(number),
                "lang": language,
                "text": spaced(unquoted(sentence)),
            }
    return sentences


def unquoted(cell: str) -> str:
    """A cell of a table, without the quotes that a CSV writer puts around a cell with quotes."""
    cell = cell.strip()
    if len(cell) > 1 and cell[0] == cell[-1] == '"':
        cell = cell[1:-1].replace('""', '"')
    return cell.strip()


def build_sib200(files: Files, folder: Path) -> None:
    """Write a file for each language."""
    for language, table in sib_sentences(files).items():
        write(folder / f"{language}.jsonl.gz", [table[number] for number in sorted(table)])


def build_tatoeba(files: Files, folder: Path) -> None:
    """Write a file for each language, with its own English side."""
    for language in TATOEBA:
        place = f"data/tatoeba/v1/tatoeba.{language}-eng"
        texts = files.lines(f"{place}.{language}")
        english = files.lines(f"{place}.eng")
        if len(texts) != len(english):
            raise ValueError(f"has {len(english)} lines, but {language} has {len(texts)}")
        records: list[Record] = []
        for number, (text, other) in enumerate(zip(texts, english, strict=True)):
            records.append(
                {"id": number, "lang": language, "text": spaced(text), "en": spaced(other)}
            )
        write(folder / f"{language}.jsonl.gz", records)


# NTREX without Burmese, which is in Zawgyi's encoding, and without regional variants.
NTREX_LANGUAGES = (
    "afr", "amh", "arb", "aze-Latn", "bak", "bem", "ben", "bod", "ckb-Arab", "cym", "deu", "div", "dzo", "ell",
    "eng", "eus", "ewe", "fas", "fij", "fil", "fin", "fra", "fuc", "gle", "guj", "hau", "heb", "hin", "hmn", "hye",
    "ibo", "ind", "jpn", "kan", "kat", "kaz", "khm", "kin", "kir", "kmr", "kor", "lao", "mal", "mar", "mey", "mlg",
    "mlt", "mon", "mri", "msa", "nde", "nep", "nso", "nya", "orm", "pan", "prs", "pus", "rus", "shi", "sin", "smo",
    "sna-Latn", "snd-Arab", "som", "spa", "ssw", "swa", "tah", "tam", "tat", "tel", "tgk-Cyrl", "tha", "tir", "ton",
    "tsn", "tuk", "tur", "uig", "ukr", "urd", "uzb", "ven", "vie", "wol", "xho", "yor", "yue", "zho-CN", "zul",
)  # fmt: skip
TICO19_LANGUAGES = (
    "ar", "bn", "ckb", "din", "es-LA", "fa", "fuv", "ha", "hi", "id", "km", "kr", "ku", "lg", "ln", "mr", "ms",
    "my", "ne", "nus", "om", "prs", "ps", "ru", "rw", "so", "sw", "ta", "ti", "tl", "ur", "zh", "zu",
)  # fmt: skip
# MAFAND-MT: (English or French, African language) with documents, and with lines alone.
DOCUMENTS = (("en", "kin"), ("en", "pcm"), ("en", "sna"), ("en", "swa"), ("en", "xho"), ("en", "yor"),
             ("fr", "ewe"), ("fr", "fon"))  # fmt: skip
SENTENCES = (("en", "amh"), ("en", "hau"), ("en", "ibo"), ("en", "lug"), ("en", "swa"), ("en", "twi"),
             ("en", "zul"), ("fr", "ewe"), ("fr", "wol"))  # fmt: skip
TRAIN_LINES, MOST_DOCUMENTS, TEST_LINES = 2500, 200, 1000
TATOEBA = ["afr", "amh", "ara", "arq", "arz", "awa", "aze", "bel", "ben", "ber", "bos", "bre", "bul", "cat", "cbk", "ceb", "ces", "cha", "cmn", "cor", "cym", "dan", "deu", "dtp", "ell", "epo", "est", "eus", "fin", "fra", "gla", "gle", "glg", "heb", "hin", "hrv", "hun", "hye", "ind", "isl", "ita", "jav", "jpn", "kab", "kat", "kaz", "khm", "kor", "kur", "kzj", "lit", "lvs", "mal", "mar", "max", "mhr", "mkd", "mon", "nld", "nno", "nob", "oci", "pam", "pes", "pol", "por", "ron", "rus", "slk", "slv", "spa", "sqi", "srp", "swe", "swh", "tam", "tat", "tel", "tgl", "tha", "tuk", "tur", "uig", "ukr", "urd", "uzb", "vie", "war", "wuu", "xho", "yid", "yue", "zsm"]  # fmt: skip


def build_lafand(files: Files, folder: Path) -> None:
    """Write ``doc.*`` files, whose documents are separated by blank lines, and ``sent.*`` files.

    The ``sent.*`` files have lines alone.
    """
    for source, language in DOCUMENTS:
        records: list[Record] = []
        side = {"en": "eng", "fr": "fra"}[source]
        for split in SPLITS_OF_DOCUMENTS.get(language, ("test", "dev")):
            lines = files.lines(f"data/doc_level_tsv/{side}-{language}/{split}.tsv")
            records += _document_lines(lines[1:], source, language, split)
        write(folder / f"doc.{source}-{language}.jsonl.gz", records)
    for source, language in SENTENCES:
        records = []
        seen: set[tuple[str, str]] = set()
        for split in SPLITS_OF_SENTENCES.get(language, ("test", "dev", "train")):
            place = f"data/text_files/{source}-{language}/{split}"
            pairs = zip(
                files.lines(f"{place}.{source}"),
                files.lines(f"{place}.{language}"),
                strict=False,
            )
            most = TRAIN_LINES if split == "train" else TEST_LINES
            held = len(records)
            for at, (text, other) in enumerate(pairs):
                key = f"{language}-{split}-{at}"
                record = _pair(key, split, at, (source, text), (language, other))
                said = (record["src"], record["text"])
                if said in seen or not all(said) or said[0] == said[1]:
                    continue
                # Lines beyond the cut count, too: a split has no pair of an earlier split.
                seen.add(said)
                if len(records) - held == most:
                    continue
                records.append(record)
        write(folder / f"sent.{source}-{language}.jsonl.gz", records)


def _document_lines(
    lines: Iterable[str], source: str, language: str, split: str
) -> Iterator[Record]:
    number = at = held = 0
    for line in lines:
        text, _, other = line.partition("\t")
        if not text.strip() or not other.strip():
            number, at, held = number + (held > 0), 0, 0
            continue
        if split != "test" and number >= MOST_DOCUMENTS:
            return
        document = f"{language}-{split}-d{number}"
        record = _pair(f"{document}-{at}", split, at, (source, text), (language, other))
        if record["text"]:
            yield {**record, "doc": document}
        at, held = at + 1, held + 1


def _pair(
    key: str, split: str, at: int, source: tuple[str, str], target: tuple[str, str]
) -> Record:
    return {
        "id": key, "split": split, "pos": at, "src_lang": source[0], "src": spaced(source[1]),
        "lang": target[0], "text": _NUMBER.sub("", spaced(target[1])),
    }  # fmt: skip


_NUMBER = re.compile(r"^\d{3,}\s*-\s*")  # before each line of the Fon documents


SPLITS_OF_DOCUMENTS = dict.fromkeys(("pcm", "yor", "fon"), ("test", "dev", "train"))
SPLITS_OF_SENTENCES = {"amh": ("test", "dev"), "swa": ("train",), "ewe": ("train",)}


def build_ntrex(files: Files, folder: Path) -> None:
    """Write NTREX from ``NTREX-128/newstest2019-ref.LANG.txt``.

    Its lines are parallel to ``DOCUMENT_IDS.tsv``. English is the source side.
    """
    documents = [spaced(line) for line in files.lines("DOCUMENT_IDS.tsv")]
    positions: list[int] = []
    seen = dict.fromkeys(documents, 0)
    for document in documents:
        positions.append(seen[document])
        seen[document] += 1
    for code in NTREX_LANGUAGES:
        side = "src" if code == "eng" else "ref"
        lines = files.lines(f"NTREX-128/newstest2019-{side}.{code}.txt")
        if len(lines) != len(documents):
            raise ValueError(
                f"has {len(lines)} lines, but DOCUMENT_IDS.tsv has {len(documents)}"
            )
        table = zip(documents, positions, lines, strict=True)
        records: list[Record] = []
        for number, (document, at, text) in enumerate(table):
            records.append(
                {"id": number, "lang": code, "doc": document, "pos": at, "text": spaced(text)}
            )
        write(folder / f"{code}.jsonl.gz", records)


_UNIT = re.compile(r".+:[0-9]+")


def build_tico19(files: Files, folder: Path) -> None:
    """Write TICO-19 from ``data/TM/all.en-LANG.tmx.zip``.

    The translation units have ids ``DOCUMENT:NUMBER``.
    """
    english: dict[str, str] = {}
    for code in TICO19_LANGUAGES:
        translated: dict[str, str] = {}
        units = _units(files.path(f"data/TM/all.en-{code}.tmx.zip"))
        for unit in files.numbered(units, "unit"):
            source, target = (
                spaced("".join(segment.itertext())) for segment in unit.iter("seg")
            )
            if not _UNIT.fullmatch(unit.attrib["tuid"]):
                raise ValueError("tuid must be DOCUMENT:NUMBER")
            english.setdefault(unit.attrib["tuid"], source)
            translated[unit.attrib["tuid"]] = target
        write(folder / f"{code}.jsonl.gz", _segments(code, translated))
    write(folder / "en.jsonl.gz", _segments("en", english))


def _units(path: Path) -> Iterable[ElementTree.Element]:
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
            (name,) = (name for name in names if name.endswith(".tmx") and "/" not in name)
            return ElementTree.fromstring(archive.read(name)).iter("tu")
    except (
        zipfile.BadZipFile,
        zlib.error,
        EOFError,
        ValueError,
        ElementTree.ParseError,
    ) as error:
        raise DataError(
            f"{path}: is not a zip with one TMX file ({error}); delete it and run the command again"
        ) from error


def _segments(code: str, texts: Mapping[str, str]) -> Iterator[Record]:
    placed = [(*name.rsplit(":", 1), text) for name, text in texts.items()]
    for document, number, text in sorted(placed, key=lambda unit: (unit[0], int(unit[1]))):
        yield {"lang": code, "doc": document, "pos": int(number), "text": text}
