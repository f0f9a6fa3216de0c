"""Reads any text by language, to estimate language vectors; needs no questions and no labels.

It reads:

- a folder of a retrieval task (``LANG/corpus.jsonl`` or ``corpus.LANG.jsonl``; for queries
  ``queries``), without its judgements;
- a folder with a file for each language: ``LANG.txt`` (one text a line), or ``LANG.jsonl``,
  ``.tsv``, ``.csv``, ``.parquet``, also with ``.gz``; or, if it has no such files, with a folder of
  them for each language, where they have any names: ``LANG/NAME.txt``;
- one such file, with a column for the language of each row. Without this column, the language is
  identified.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hybridbatch.common.errors import DataError
from hybridbatch.common.files import text_lines
from hybridbatch.common.languages import canonical
from hybridbatch.common.progress import SILENT, Reporter
from hybridbatch.common.records import BadRow
from hybridbatch.common.seeding import stream
from hybridbatch.data.filters.language_id import identifier, long_enough
from hybridbatch.data.formats.tables import bare_name, kind, read_records
from hybridbatch.data.tasks.layouts import files_by_code
from hybridbatch.data.tasks.texts_and_qrels import existing
from hybridbatch.debias.vectors_file import Side

TEXT_COLUMNS = {
    "passage": ("text", "passage", "contents", "content", "body", "sentence", "document"),
    "query": ("text", "query", "question", "sentence"),
}
LANGUAGE_COLUMNS = ("lang", "language", "lang_code", "language_code", "locale")
TASK_FILES: dict[Side, str] = {"passage": "corpus", "query": "queries"}


@dataclass
class TextsByLanguage:
    """Distinct texts by canonical language, and counts of identified texts and unusable rows."""

    texts: dict[str, list[str]] = field(default_factory=dict)
    identified: int = 0  # texts whose language was identified, not named
    # rows that cannot be used, by reason, and where the first of them is
    left_out: Counter[str] = field(default_factory=Counter)
    first: dict[str, str] = field(default_factory=dict)

    def leave_out(self, reason: str, place: str) -> None:
        """Count one row that cannot be used."""
        self.left_out[reason] += 1
        self.first.setdefault(reason, place)

    def reasons(self, most: int) -> list[str]:
        """The most frequent reasons why rows cannot be used, in words."""
        return [
            f"{count:,} rows were left out: {reason}"
            + (f" (the first: {self.first[reason]})" if reason in self.first else "")
            for reason, count in self.left_out.most_common(most)
        ]

    def add(self, language: str, text: str) -> None:
        """Add one text."""
        self.texts.setdefault(language, []).append(text)

    def sample(self, most: int, seed: int) -> dict[str, list[str]]:
        """Draw at most `most` distinct texts of each language at random, and keep their order."""
        chosen = {}
        for language, texts in sorted(self.texts.items()):
            distinct = list(dict.fromkeys(texts))
            order = stream(seed, "language vectors").permutation(len(distinct))[:most]
            chosen[language] = [distinct[place] for place in sorted(order.tolist())]
        return chosen

    def tell(self, origin: Path, report: Reporter) -> None:
        """Report what was identified and what was left out."""
        if self.identified:
            report.note(
                f"{origin}: {identifier().name}, which knows {len(identifier().languages)}"
                f" languages, identified the languages of {self.identified:,} texts"
            )
        for sentence in self.reasons(5):
            report.warn(f"{origin}: {sentence}")


def read_texts_by_language(
    path: Path, side: Side, report: Reporter = SILENT
) -> TextsByLanguage:
    """Read all texts of a folder or file, by language.

    Args:
        side: which files and columns of a retrieval task are read.

    Raises:
        DataError: a path that does not exist, holds no text, or names unknown languages.
    """
    if not path.exists():
        raise DataError(f"{path}: does not exist; name a folder or file of texts")
    found = TextsByLanguage()
    if path.is_file():
        _read_file(path, None, side, found)
    else:
        for file, language in _files(path, side):
            _read_file(file, language, side, found)
    if not found.texts:
        reasons = "; ".join(found.reasons(3))
        raise DataError(
            f"{path}: holds no text that can be used" + (f" ({reasons})" if reasons else "")
        )
    found.tell(path, report)
    return found


def has_texts(folder: Path, side: Side) -> bool:
    """Whether a folder is a retrieval task that has files of this side."""
    return folder.is_dir() and bool(_task_files(folder, side))


def _files(folder: Path, side: Side) -> list[tuple[Path, str | None]]:
    """The files of a folder that hold texts of a side, each with its language, if it names one."""
    of_task = _task_files(folder, side)
    if of_task:
        return [(path, _named(code, path) if code else None) for code, path in of_task]
    files: list[tuple[Path, str | None]] = [
        (path, _named(_stem(path), path)) for path in _text_files(folder)
    ]
    if files:
        return files
    for part in sorted(folder.iterdir()):
        inside = _text_files(part) if part.is_dir() and part.name[0] not in "._" else []
        files += [(path, _named(part.name, part)) for path in inside]
    if not files:
        raise DataError(
            f"{folder}: holds no texts; expected a file or folder for each language, such as"
            " swh.txt, swh.jsonl or swh/, or the folder of a retrieval task"
        )
    return files


def _text_files(folder: Path) -> list[Path]:
    """The files of a folder that can be read as texts, without those about the folder."""
    return [
        path
        for path in sorted(folder.iterdir())
        if path.is_file()
        and path.name[0] not in "._"
        and not path.name.lower().startswith(("readme", "license"))
        and _readable(path)
    ]


def _task_files(folder: Path, side: Side) -> list[tuple[str, Path]]:
    """(language code, file) of a retrieval task's corpora or queries; no code: one BEIR folder."""
    name = TASK_FILES[side]
    if path := existing(folder, f"{name}.jsonl"):
        return [("", path)]
    if flat := files_by_code(folder, name):
        return list(flat.items())
    parts = [part for part in sorted(folder.iterdir()) if part.is_dir()]
    inside = [(part.name, existing(part, f"{name}.jsonl")) for part in parts]
    return [(code, path) for code, path in inside if path is not None]


def _readable(path: Path) -> bool:
    return kind(path) is not None or _is_plain(path)


def _is_plain(path: Path) -> bool:
    return path.name.removesuffix(".gz").endswith(".txt")


def _stem(path: Path) -> str:
    return (
        path.name.removesuffix(".gz").removesuffix(".txt")
        if _is_plain(path)
        else bare_name(path)
    )


def _named(code: str, path: Path) -> str:
    try:
        return canonical(code)
    except DataError as error:
        raise DataError(f"{path}: {error}; name it by its language") from error


def _read_file(path: Path, language: str | None, side: Side, found: TextsByLanguage) -> None:
    nameless: list[str] = []
    rows = _plain_rows(path) if _is_plain(path) else _table_rows(path, side, found)
    for number, own, text in rows:
        if language is not None:
            found.add(language, text)
        elif own:
            try:
                found.add(canonical(own), text)
            except DataError:
                found.leave_out(f"unknown language {own!r}", f"{path.name}:{number}")
        else:
            nameless.append(text)
    _identify(nameless, found)


def _identify(texts: Sequence[str], found: TextsByLanguage) -> None:
    long = [text for text in texts if long_enough(text)]
    found.left_out["too short to identify their language"] += len(texts) - len(long)
    if len(long) == len(texts):
        del found.left_out["too short to identify their language"]
    if not long:
        return
    judge = identifier()
    names, _ = judge.identify(long)
    for name, text in zip(names, long, strict=True):
        if name in judge.languages:
            found.add(name, text)
            found.identified += 1
        else:
            found.left_out["language not identified"] += 1


def _plain_rows(path: Path) -> Iterator[tuple[int, str, str]]:
    """(line number, "", text) of each line that is not empty."""
    for number, line in text_lines(path):
        if text := line.strip():
            yield number, "", text


def _table_rows(
    path: Path, side: Side, found: TextsByLanguage
) -> Iterator[tuple[int, str, str]]:
    """(number, language or "", text) of the rows of a table; rows without a text are counted."""
    for item in read_records(path):
        if isinstance(item, BadRow):
            found.leave_out(item.reason, f"{path.name}:{item.line}")
            continue
        number, record = item
        text = _text(record, side)
        if text:
            yield number, _language(record), text
        else:
            reason = f"no text in any of {', '.join(TEXT_COLUMNS[side])}"
            found.leave_out(reason, f"{path.name}:{number}")


def _text(record: Mapping[str, Any], side: Side) -> str:
    for name in TEXT_COLUMNS[side]:
        value = record.get(name)
        if isinstance(value, str) and value.strip():
            title = record.get("title")
            parts = [title if isinstance(title, str) else "", value]
            return " ".join(part.strip() for part in parts).strip()
    return ""


def _language(record: Mapping[str, Any]) -> str:
    for name in LANGUAGE_COLUMNS:
        value = record.get(name)
        if isinstance(value, str) and value.strip():
            return value.strip()
    return ""
