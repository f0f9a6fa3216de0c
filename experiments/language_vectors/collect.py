"""Collect the texts that the atlas of language vectors is estimated from: news, health, scripture,
stories.

    python experiments/language_vectors/collect.py OUT [--data-root FOLDER]

NTREX-128, TICO-19, the Bible corpus and the African and Pratham storybooks come from copies or
clones under FOLDER, else from their public homes (about 75 MB, kept in the user's cache). OUT gets a
folder for each source, with a file ``LANG.jsonl`` for each language; nothing is written unless all
four can be read. Of NTREX, TICO-19 and the Bible the same sentences are taken in every language
(where it has them), so that a difference of means is one of languages.
"""

import argparse
import json
import sys
import unicodedata
from collections import defaultdict
from pathlib import Path

from huggingface_hub.utils import logging

from hybridbatch.common.errors import (
    ConfigError,
    DataError,
    HybridBatchError,
    OutputError,
    first_line,
)
from hybridbatch.common.files import atomic_folder, write_text
from hybridbatch.common.languages import canonical
from hybridbatch.common.records import BadRow
from hybridbatch.common.seeding import stream
from hybridbatch.data.formats.tables import read_records
from hybridbatch.data.source import SourceContext
from hybridbatch.data.sources.registry import source

LEAST_LETTERS = 20  # shorter lines, such as headings and page numbers, are passed over
MOST = 1000
SEED = 13
# What is the same in every language of a text; copies and homes do not always have an id.
KEYS = {"ntrex": "{id}", "tico19": "{doc}:{pos}", "bible": "{id}", "stories": "{doc} {pos}"}


def main() -> None:
    """Read the arguments and write every source."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument(
        "--data-root",
        type=Path,
        help="folder with copies or clones of the four; default: their public homes",
    )
    parser.add_argument("--texts", type=int, default=MOST, help="of each language and source")
    options = parser.parse_args()
    logging.set_verbosity_error()  # no line for each try of a download
    try:
        collect(options.out, options.data_root, options.texts)
    except HybridBatchError as error:
        sys.stderr.write(f"error: {error}\n")
        sys.exit(2)


def collect(out: Path, data_root: Path | None, most: int) -> None:
    """Write all sources, once all are read.

    Raises:
        HybridBatchError: A source is missing or cannot be read, or `out` cannot be written.
    """
    if out.exists():
        raise OutputError(f"{out}: is there already; name a new folder, or remove it")
    if most < 1:
        raise ConfigError(f"--texts {most}: must be at least 1")
    found = {name: read(name, data_root) for name in KEYS}
    with atomic_folder(out) as folder:
        for name, texts in found.items():
            write(folder / name, texts, most)


def read(name: str, data_root: Path | None) -> dict[str, dict[str, str]]:
    """Text by language and id, of a local copy of a source, else of its public home.

    Raises:
        DataError: There is neither, or a line is not as expected.
    """
    found: dict[str, dict[str, str]] = defaultdict(dict)
    for path in source(name).inputs(SourceContext(data_root)):
        if path.name == "docs.jsonl.gz":  # what is known of stories, without their text
            continue
        for item in read_records(path):
            if isinstance(item, BadRow):
                raise DataError(f"{path}:{item.line}: {item.reason}; get the file again")
            number, row = item
            try:
                language, text = known(row["lang"]), clean(row["text"])
                key = KEYS[name].format_map(row)
            except (KeyError, TypeError, AttributeError) as error:
                raise DataError(
                    f"{path}:{number}: needs lang and text, and {KEYS[name]}"
                    f" ({first_line(error)}); get the file again"
                ) from error
            if language and text:
                found[language][key] = text
    if not found:
        raise DataError(f"{name}: has no text of {LEAST_LETTERS} letters; get its files again")
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
