"""Collect the texts that the atlas of language vectors is estimated from: news, health, scripture,
stories.

    python experiments/language_vectors/collect.py DATA OUT

DATA holds copies of NTREX-128, TICO-19, the Bible corpus and the African and Pratham storybooks
(folders ``ntrex``, ``tico19``, ``bible``, ``stories`` of JSON Lines). OUT gets a folder for each
source, with a file ``LANG.jsonl`` for each language. Of NTREX, TICO-19 and the Bible the same
sentences are taken in every language (where it has them), so that a difference of means is one of
languages.
"""

import argparse
import gzip
import json
import sys
import unicodedata
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

from hybridbatch.common.errors import DataError
from hybridbatch.common.files import write_text
from hybridbatch.common.languages import canonical
from hybridbatch.common.seeding import stream

LEAST_LETTERS = 20  # shorter lines, such as headings and page numbers, are passed over
MOST = 1000
SEED = 13


def main() -> None:
    """Read the arguments and write every source."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--texts", type=int, default=MOST, help="of each language and source")
    options = parser.parse_args()
    for source in ("ntrex", "tico19", "bible"):
        write(options.out / source, aligned(options.data / source), options.texts)
    write(options.out / "stories", stories(options.data / "stories"), options.texts)


def aligned(folder: Path) -> dict[str, dict[str, str]]:
    """Text by language and id, of a folder of aligned tables."""
    found: dict[str, dict[str, str]] = defaultdict(dict)
    for path in sorted(folder.glob("*.jsonl.gz")):
        language = known(path.name.split(".")[0])
        for row in rows(path):
            text = clean(row["text"])
            if language and text:
                found[language][str(row["id"])] = text
    return found


def stories(folder: Path) -> dict[str, dict[str, str]]:
    """Text by language and id, of the pages of all stories."""
    found: dict[str, dict[str, str]] = defaultdict(dict)
    for row in rows(folder / "pages.jsonl.gz"):
        language, text = known(row["lang"]), clean(row["text"])
        if language and text:
            found[language][f"{row['doc']} {row['pos']}"] = text
    return found


def write(folder: Path, texts: dict[str, dict[str, str]], most: int) -> None:
    """Write the first `most` ids, in an order that all languages share, of each language."""
    ids = sorted({key for own in texts.values() for key in own})
    order = [ids[place] for place in stream(SEED, folder.name).permutation(len(ids)).tolist()]
    for language, own in sorted(texts.items()):
        chosen = [key for key in order if key in own][:most]
        lines = [
            json.dumps({"id": key, "text": own[key]}, ensure_ascii=False) for key in chosen
        ]
        write_text(folder / f"{language}.jsonl", "\n".join(lines) + "\n")
    sys.stdout.write(f"{folder.name}: {len(texts)} languages\n")


def rows(path: Path) -> Iterator[dict]:
    """The objects of a JSON Lines file."""
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        for line in lines:
            yield json.loads(line)


def known(code: str) -> str | None:
    """The canonical id of a code; None where the registry lacks it."""
    try:
        return canonical(code)
    except DataError:
        return None


def clean(text: str) -> str:
    """In NFC, on one line; empty where too little is left."""
    text = " ".join(unicodedata.normalize("NFC", text).split())
    return text if sum(letter.isalpha() for letter in text) >= LEAST_LETTERS else ""


if __name__ == "__main__":
    main()
