"""Passages to search: of a task, of a folder of corpora, or of one file of any languages."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from hybridbatch.common.errors import ConfigError, DataError, nearest
from hybridbatch.common.files import text_lines
from hybridbatch.common.languages import canonical, names_no_language
from hybridbatch.common.records import BadRow, Texts
from hybridbatch.common.texts import clean_text
from hybridbatch.data.formats.columns import ALIASES, plain
from hybridbatch.data.formats.own_files import open_records
from hybridbatch.data.formats.tables import KINDS, kind
from hybridbatch.data.tasks.layouts import files_by_code
from hybridbatch.data.tasks.prepared import is_prepared, prepared_passages
from hybridbatch.data.tasks.registry import TASKS, load_task
from hybridbatch.data.tasks.texts_and_qrels import existing, language_of

UNDETERMINED = "und"  # ISO 639's code for passages without a stated language
# Names of columns as `plain` writes them; the first one that a row fills counts.
IDS = ("_id", "id", "docid", "doc_id", "passage_id")
TEXTS = ("text", "passage", "contents", "content", "body")
LANGUAGES = ALIASES["language"]
FORMS = (
    "a file with the columns text, and where there are any id, title and language (.jsonl, .tsv,"
    " .csv, .parquet), a .txt of a passage a line, a folder with LANG/corpus.jsonl or"
    " corpus.LANG.jsonl, a folder of `hybridbatch prepare`, or a built-in task"
)


def read_passages(
    name: str, *, language: str | None = None, data_root: Path | None = None
) -> dict[str, Texts]:
    """The passages that a name stands for, by language.

    Args:
        name: a built-in task, prepared data (its passages of all splits), a folder of corpora
            (judgements are not needed), or a file.
        language: language of passages that do not state one; None: `UNDETERMINED`.
        data_root: folder of local copies of public data sets.

    Raises:
        ConfigError: The name stands for nothing.
        DataError: Something cannot be read; the message names file, line and field.
    """
    path = Path(name)
    if name.partition(":")[0] in TASKS:
        return dict(load_task(name, data_root=data_root).corpus)
    default = UNDETERMINED if language is None else canonical(language)
    if is_prepared(path):
        passages = prepared_passages(path)
    elif path.is_dir():
        passages = _read_folder(path, default)
    elif path.is_file():
        passages = _collect(_rows(path), default)
    else:
        raise ConfigError(
            f"corpus {name!r}: is neither a file, a folder nor a built-in"
            f" task{nearest(name, TASKS)}; give {FORMS}"
        )
    if not passages:
        raise DataError(f"{path}: holds no passage; give {FORMS}")
    return passages


def _read_folder(folder: Path, default: str) -> dict[str, Texts]:
    """One corpus, or one for each language."""
    if single := existing(folder, "corpus.jsonl"):
        return _collect(_rows(single), default)
    files: dict[str, Path] = {}
    for code, path in files_by_code(folder, "corpus").items():
        files[language_of(code, path)] = path
    for part in sorted(folder.iterdir()):
        corpus = existing(part, "corpus.jsonl") if part.is_dir() else None
        if corpus:
            files[language_of(part.name, part)] = corpus
    passages: dict[str, Texts] = {}
    for language, path in files.items():
        passages |= _collect(_rows(path), language)
    return passages


# place of a row, and the row
Placed = tuple[str, Mapping[str, Any]]


def _rows(path: Path) -> Iterator[Placed]:
    """(``file:line``, columns under their plain names) of every passage.

    Raises:
        DataError: A row is unreadable.
    """
    if path.name.lower().endswith((".txt", ".txt.gz", ".txt.zst")):
        yield from _lines(path)
        return
    if kind(path) is None:
        raise DataError(
            f"{path}: this kind of file is not known; give .txt or {', '.join(KINDS)}"
        )
    _, records = open_records(path)
    names: dict[str, str] = {}
    for item in records():
        if isinstance(item, BadRow):
            raise DataError(
                f"{path}:{item.line}: {item.field}: {item.reason}; mend or remove it"
            )
        number, record = item
        row: dict[str, Any] = {"_row": number}
        for column, value in record.items():
            if column not in names:
                names[column] = plain(column)
            row[names[column]] = value
        yield f"{path}:{number}", row


def _lines(path: Path) -> Iterator[Placed]:
    for number, line in text_lines(path):
        if text := line.strip():
            yield f"{path}:{number}", {"_row": number, "text": text}


def _collect(rows: Iterator[Placed], default: str) -> dict[str, Texts]:
    """Texts by language.

    Raises:
        DataError: A row has no text or an unknown language, or an id occurs twice.
    """
    found: dict[str, dict[str, str]] = {}
    codes: dict[str, str] = {}
    for place, row in rows:
        code = _first(row, LANGUAGES)
        if code is None:
            language = default
        elif not isinstance(code, str):
            raise DataError(f"{place}: the language must be a text, not {code!r}")
        else:
            if code not in codes:
                codes[code] = default if names_no_language(code) else _language(code, place)
            language = codes[code]
        stated = _first(row, IDS)
        key = str(row["_row"] if stated is None else stated)
        texts = found.setdefault(language, {})
        if key in texts:
            raise DataError(
                f"{place}: the id {key!r} occurs before; every id may occur only once in a language"
            )
        texts[key] = _text(row, place)
    return {name: Texts(tuple(texts), tuple(texts.values())) for name, texts in found.items()}


def _language(code: str, place: str) -> str:
    try:
        return canonical(code)
    except DataError as error:
        raise DataError(f"{place}: language: {error}; mend it, or leave it empty") from error


def _text(row: Mapping[str, Any], place: str) -> str:
    """Title (if any) and text, joined by a space as in tasks."""
    text = _first(row, TEXTS)
    parts = [row.get("title"), text]
    if not all(part is None or isinstance(part, str) for part in parts):
        raise DataError(f"{place}: title and text must be texts")
    if text is None:
        known = ", ".join(name for name in row if name != "_row")
        raise DataError(f"{place}: has no {' or '.join(TEXTS)} among its columns ({known})")
    cleaned = clean_text(" ".join(part.strip() for part in parts if part))
    if cleaned is None:
        raise DataError(f"{place}: the text is empty; remove the row")
    return cleaned


def _first(row: Mapping[str, Any], names: tuple[str, ...]) -> Any:
    """The first of some columns that is not empty."""
    for name in names:
        if row.get(name) not in (None, ""):
            return row[name]
    return None
