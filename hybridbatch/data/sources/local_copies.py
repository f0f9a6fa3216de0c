"""Data sets rebuilt from their public homes in the layout of a local copy, for machines that have
none.

Each is read from a repository at a pinned commit (layouts read there on 2026-11-24) and gives the
same rows as a local copy, so prepared data has the same fingerprint either way:

- ``ntrex``: ``NTREX-128/newstest2019-ref.LANG.txt``, lines parallel to ``DOCUMENT_IDS.tsv``;
English is the source side.
- ``tico19``: ``data/TM/all.en-LANG.tmx.zip``, translation units with ids ``DOCUMENT:NUMBER``.
- ``mkqa-mia``: ``data/eval/mkqa_dev.zip``, a file of questions per language, ids ``QUESTION_LANG``.
"""

import gzip
import json
import re
import zipfile
import zlib
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from hybridbatch.common.errors import DataError
from hybridbatch.common.files import atomic_folder, cache_folder, fingerprint
from hybridbatch.data.download.web import web_file
from hybridbatch.data.formats.tables import spaced
from hybridbatch.data.formats.zipped import zipped_json
from hybridbatch.data.source import SourceContext


def local_files(
    context: SourceContext, folder: str, patterns: Iterable[str], origin: str
) -> list[Path]:
    """The files of a data set's local copy, sorted by name; without one, rebuilt from its public
    home (sources.homes).

    Args:
        folder: the data set's folder under `context.data_root`.
        patterns: globs; each must match a file.
        origin: where the data set is public, for the error message.
    Raises: `DataError` if there is neither a local copy nor a home to rebuild it from, or a file of
        it is missing.
    """

    mend = f"get it from {origin}, lay it out as docs/data.md says, and name its parent folder with --data-root"
    local = context.data_root / folder if context.data_root else None
    place = local if local and local.is_dir() else rebuilt(folder) or local
    if place is None:
        raise DataError(f"{folder}: this source needs a local copy of its files; {mend}")
    found: list[Path] = []
    for pattern in patterns:
        matches = sorted(place.glob(pattern))
        if not matches:
            raise DataError(f"{place}: no file {pattern}; {mend}")
        found += matches
    return found


_RAW = "https://raw.githubusercontent.com"
NTREX = f"{_RAW}/MicrosoftTranslator/NTREX/8561f6a622db9edad1217683e5c83daefd8bb2bf"
# Without Burmese, which is in Zawgyi's encoding, and regional variants.
NTREX_LANGUAGES = (
    "afr", "amh", "arb", "aze-Latn", "bak", "bem", "ben", "bod", "ckb-Arab", "cym", "deu", "div", "dzo", "ell",
    "eng", "eus", "ewe", "fas", "fij", "fil", "fin", "fra", "fuc", "gle", "guj", "hau", "heb", "hin", "hmn", "hye",
    "ibo", "ind", "jpn", "kan", "kat", "kaz", "khm", "kin", "kir", "kmr", "kor", "lao", "mal", "mar", "mey", "mlg",
    "mlt", "mon", "mri", "msa", "nde", "nep", "nso", "nya", "orm", "pan", "prs", "pus", "rus", "shi", "sin", "smo",
    "sna-Latn", "snd-Arab", "som", "spa", "ssw", "swa", "tah", "tam", "tat", "tel", "tgk-Cyrl", "tha", "tir", "ton",
    "tsn", "tuk", "tur", "uig", "ukr", "urd", "uzb", "ven", "vie", "wol", "xho", "yor", "yue", "zho-CN", "zul",
)  # fmt: skip
TICO19 = f"{_RAW}/tico-19/tico-19.github.io/d97615f9cffa28ec7de571e00fbd513e5a1c7fc7/data/TM"
TICO19_LANGUAGES = (
    "ar", "bn", "ckb", "din", "es-LA", "fa", "fuv", "ha", "hi", "id", "km", "kr", "ku", "lg", "ln", "mr", "ms",
    "my", "ne", "nus", "om", "prs", "ps", "ru", "rw", "so", "sw", "ta", "ti", "tl", "ur", "zh", "zu",
)  # fmt: skip
MKQA_MIA = f"{_RAW}/mia-workshop/MIA-Shared-Task-2022/ea2491a3e3a588e270b2dd30ce7e044584c3eeb5/data/eval/mkqa_dev.zip"


def rebuilt(folder: str) -> Path | None:
    """The data set's files in the cache folder, downloaded and laid out if need be; None for one
    that has no home here.

    Raises: `DataError` when a file cannot be had or is not what was expected; `OutputError`.
    """
    if folder not in HOMES:
        return None
    build, home = HOMES[folder]
    target = cache_folder() / "sources" / f"{folder}-{fingerprint(home)}"
    if not target.is_dir():
        with atomic_folder(target) as temporary:
            build(temporary)
    return target


def _build_ntrex(folder: Path) -> None:
    documents = _lines(f"{NTREX}/DOCUMENT_IDS.tsv")
    positions, seen = [], dict.fromkeys(documents, 0)
    for document in documents:
        positions.append(seen[document])
        seen[document] += 1
    for code in NTREX_LANGUAGES:
        side = "src" if code == "eng" else "ref"
        lines = _lines(f"{NTREX}/NTREX-128/newstest2019-{side}.{code}.txt")
        if len(lines) != len(documents):
            raise DataError(
                f"NTREX in {code}: {len(lines)} lines, but {len(documents)} in DOCUMENT_IDS.tsv"
            )
        table = zip(documents, positions, lines, strict=True)
        _write(
            folder / f"{code}.jsonl.gz",
            ({"lang": code, "doc": d, "pos": p, "text": t} for d, p, t in table),
        )


def _lines(address: str) -> list[str]:
    text = web_file(address).read_text(encoding="utf-8")
    return [spaced(line) for line in text.removesuffix("\n").split("\n")]


def _build_tico19(folder: Path) -> None:
    english: dict[str, str] = {}
    for code in TICO19_LANGUAGES:
        translated = {}
        for unit in _units(web_file(f"{TICO19}/all.en-{code}.tmx.zip")):
            source, target = (spaced("".join(segment.itertext())) for segment in unit.iter("seg"))
            english.setdefault(unit.attrib["tuid"], source)
            translated[unit.attrib["tuid"]] = target
        _write(folder / f"{code}.jsonl.gz", _segments(code, translated))
    _write(folder / "en.jsonl.gz", _segments("en", english))


def _units(path: Path) -> Iterable[ElementTree.Element]:
    try:
        with zipfile.ZipFile(path) as archive:
            (name,) = (
                name for name in archive.namelist() if name.endswith(".tmx") and "/" not in name
            )
            return ElementTree.fromstring(archive.read(name)).iter("tu")
    except (zipfile.BadZipFile, zlib.error, EOFError, ValueError, ElementTree.ParseError) as error:
        raise DataError(
            f"{path}: not a zip with one TMX file ({error}); delete it and run the command again"
        ) from error


def _segments(code: str, texts: Mapping[str, str]) -> Iterable[dict[str, Any]]:
    placed = [(*name.rsplit(":", 1), text) for name, text in texts.items()]
    for document, number, text in sorted(placed, key=lambda unit: (unit[0], int(unit[1]))):
        yield {"lang": code, "doc": document, "pos": int(number), "text": text}


def _build_mkqa_mia(folder: Path) -> None:
    questions: dict[str, dict[str, str]] = {}
    pattern = re.compile(r"mkqa_dev/mkqa-(?P<code>\w+)\.jsonl")
    for match, records in zipped_json(web_file(MKQA_MIA), pattern, lines=True):
        code = match["code"]
        for record in records:
            questions.setdefault(record["id"].removesuffix(f"_{code}"), {})[code] = spaced(
                record["question"]
            )
    table = ({"id": name, "queries": texts} for name, texts in questions.items())
    _write(folder / "parallel_queries.dev.jsonl.gz", table)


def _write(path: Path, records: Iterable[Mapping[str, Any]]) -> None:
    with gzip.open(path, "wt", encoding="utf-8") as file:
        file.writelines(json.dumps(record, ensure_ascii=False) + "\n" for record in records)


HOMES: Mapping[str, tuple[Callable[[Path], None], str]] = {
    "ntrex": (_build_ntrex, NTREX),
    "tico19": (_build_tico19, TICO19),
    "mkqa-mia": (_build_mkqa_mia, MKQA_MIA),
}
