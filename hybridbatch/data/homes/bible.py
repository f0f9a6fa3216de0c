"""The builder of bible: verses by chapter, from translations of the New Testament or parts of it.

English is the King James Version. A chapter is left out if the lengths of its verses are unlike the
English lengths, because its verses are numbered differently.
"""

from pathlib import Path
from statistics import StatisticsError, correlation
from typing import Any
from xml.etree import ElementTree

from hybridbatch.common.errors import DataError
from hybridbatch.data.formats.tables import spaced
from hybridbatch.data.homes.home import Files, said, write

BIBLES = {"dik": "Dinka-NT", "eus": "Basque-NT", "ewe": "Ewe-NT", "guj": "Gujarati-NT", "kab": "Kabyle-NT",
          "lav": "Latvian-NT", "swh": "Swahili-NT", "ukr": "Ukranian-NT", "wal": "Wolaytta-NT",
          "wol": "Wolof-NT", "zul": "Zulu-NT"}  # fmt: skip
BOOKS = {"GEN": "Genesis", "RUT": "Ruth", "EST": "Esther", "JON": "Jonah", "MAT": "Matthew", "MAR": "Mark",
         "LUK": "Luke", "JOH": "John", "ACT": "Acts"}  # fmt: skip
LEAST_CORRELATION = 0.3
Verses = dict[str, dict[int, str]]  # chapter such as MAT.1 -> verse number -> text
Record = dict[str, Any]


def build_bible(corpus: Files, king_james: Files, folder: Path) -> None:
    """Write a file for each language."""
    english: Verses = {}
    for book, name in BOOKS.items():
        chapters = king_james.json(f"{name}.json")["chapters"]
        for chapter in king_james.numbered(chapters, "chapter"):
            verses = english.setdefault(f"{book}.{chapter['chapter']}", {})
            for verse in chapter["verses"]:
                verses[int(verse["verse"])] = said(verse, "text")
    write(folder / "eng.jsonl.gz", _records("eng", english))
    for language, name in BIBLES.items():
        kept: Verses = {}
        for chapter, verses in _read(corpus, f"bibles/{name}.xml").items():
            if chapter in english and _go_along(verses, english[chapter]):
                known = english[chapter]
                kept[chapter] = {n: text for n, text in verses.items() if n in known}
        write(folder / f"{language}.jsonl.gz", _records(language, kept))


def _read(files: Files, name: str) -> Verses:
    path = files.path(name)
    found: Verses = {}
    try:
        root = ElementTree.parse(path).getroot()
    except ElementTree.ParseError as error:
        raise DataError(
            f"{path}: is not valid XML ({error}); delete it and run the command again"
        ) from error
    for verse in files.numbered(root.iter("seg"), "seg"):
        _, book, chapter, number = verse.attrib["id"].split(".")
        text = spaced(verse.text or "")
        if book in BOOKS and number.isdigit() and text:
            found.setdefault(f"{book}.{chapter}", {})[int(number)] = text
    return found


def _go_along(verses: dict[int, str], english: dict[int, str]) -> bool:
    """Whether the lengths of a chapter's verses correlate with the English lengths."""
    shared = [number for number in verses if number in english]
    if len(shared) < 3:
        return False
    ours = [len(verses[number]) for number in shared]
    theirs = [len(english[number]) for number in shared]
    try:
        return correlation(ours, theirs) >= LEAST_CORRELATION
    except StatisticsError:  # all verses have one length
        return False


def _records(language: str, verses: Verses) -> list[Record]:
    records: list[Record] = []
    for chapter, texts in verses.items():
        for number, text in texts.items():
            records.append(
                {
                    "id": f"{chapter}.{number}",
                    "lang": language,
                    "doc": chapter,
                    "pos": number,
                    "text": text,
                }
            )
    return records
