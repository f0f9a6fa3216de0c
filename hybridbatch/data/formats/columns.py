"""The names of columns in a user's table, and the role of each column.

Case and spelling do not matter: ``Record ID``, ``recordId`` and ``record-id`` are ``record_id``.
"""

import re
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from hybridbatch.common.errors import ConfigError, DataError, nearest
from hybridbatch.common.texts import listed, shortened
from hybridbatch.data.formats.tables import RowProblem, known_language

# Names that a column may have. If a table has several, the first name in the list wins; two others
# are an error.
ALIASES = {
    "record_id": ("record_id", "id", "_id", "qid", "query_id", "question_id"),
    "language": ("language", "lang", "locale", "language_code", "lang_code"),
    "query": ("query", "question", "anchor", "query_text", "question_text"),
    "passage": (
        "passage",
        "positive",
        "context",
        "answer",
        "pos",
        "positive_passages",
        "positives",
        "passage_text",
        "answer_text",
    ),
    "negatives": (
        "negatives",
        "hard_negatives",
        "negative",
        "neg",
        "negs",
        "negative_passages",
        "hard_negative",
    ),
    "split": ("split",),
    "document": ("doc", "document", "document_id", "doc_id"),
    "position": ("pos", "position"),
    "text": ("text", "sentence"),
    "translation": ("translation",),
}
_ROLE_OF_SIDE = {
    alias: role for role in ("query", "passage", "negatives") for alias in ALIASES[role]
}
_SIDE_NAMES = "|".join(sorted(map(re.escape, _ROLE_OF_SIDE), key=len, reverse=True))
# query_sw, query.sw, query-zh-Hans, Query (Swahili), query [sw]
# Possessive (`+`), so that a long run of separators takes one pass.
_SIDED = re.compile(
    rf"({_SIDE_NAMES})[\s._\-:/(\[]++([^()\[\]]*[^()\[\]\s])\s*+[)\]]?", re.IGNORECASE
)
_NUMBERED_NEGATIVE = re.compile(rf"({'|'.join(ALIASES['negatives'])})_?(\d+)")
NO_LANGUAGE = frozenset(alias for aliases in ALIASES.values() for alias in aliases)
# Codes of languages that are also common column names: question_no, passage_id, context_len; the
# names of roles are, too (passage_neg). Such a column is text in that language only if a column of
# the other side has it too.
_COMMON_WORDS = frozenset(
    [
        "abs",
        "age",
        "body",
        "bin",
        "cat",
        "cid",
        "cnt",
        "code",
        "col",
        "count",
        "csv",
        "date",
        "day",
        "dev",
        "dis",
        "dist",
        "doc",
        "docs",
        "emb",
        "end",
        "err",
        "first",
        "form",
        "full",
        "gen",
        "gold",
        "hash",
        "head",
        "hit",
        "hits",
        "html",
        "id",
        "idf",
        "ids",
        "idx",
        "index",
        "item",
        "json",
        "key",
        "kind",
        "label",
        "lang",
        "last",
        "lbl",
        "len",
        "length",
        "line",
        "link",
        "list",
        "log",
        "lon",
        "long",
        "loc",
        "man",
        "map",
        "max",
        "mean",
        "meta",
        "mid",
        "min",
        "name",
        "ner",
        "new",
        "no",
        "norm",
        "not",
        "num",
        "old",
        "one",
        "order",
        "out",
        "page",
        "par",
        "part",
        "pid",
        "pos",
        "pred",
        "qa",
        "qid",
        "rank",
        "rate",
        "raw",
        "ref",
        "rel",
        "res",
        "row",
        "score",
        "sep",
        "set",
        "short",
        "sid",
        "sim",
        "size",
        "source",
        "src",
        "start",
        "std",
        "sum",
        "tag",
        "tags",
        "tail",
        "text",
        "tgt",
        "time",
        "title",
        "toc",
        "tok",
        "tokens",
        "top",
        "topic",
        "true",
        "tsv",
        "two",
        "txt",
        "type",
        "uid",
        "uri",
        "url",
        "user",
        "val",
        "value",
        "var",
        "vec",
        "ver",
        "vid",
        "word",
        "words",
        "xml",
        "year",
    ]
)


def plain(name: str) -> str:
    """A column's name in the form that is compared: lower case, words joined by underscores."""
    parted = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name.strip())
    lowered = re.sub(r"[\s\-./]+", "_", parted).casefold()
    return re.sub(r"(?<=.)_+", "_", lowered).rstrip("_")


class Columns(NamedTuple):
    """The columns of a table by role."""

    roles: dict[str, str]  # role -> column
    negatives: tuple[str, ...]  # columns of hard negatives, in order


def is_known(name: str) -> bool:
    """Whether a header cell is a usual column name: a role, a side in a language, or a language."""
    if plain(name) in NO_LANGUAGE or _NUMBERED_NEGATIVE.fullmatch(plain(name)):
        return True
    match = _SIDED.fullmatch(name.strip())
    return (match is not None and _is_language(match[2])) or (
        plain(name) not in _COMMON_WORDS and _is_language(name)
    )


def roles_of(columns: Iterable[str], chosen: Mapping[str, str], place: str) -> Columns:
    """The role of each column.

    Args:
        chosen: role -> column, as the user states; these win over what names suggest.
        place: the table, for errors.

    Raises:
        ConfigError: A role or column does not exist.
        DataError: Two columns fit one role.
    """
    columns = list(columns)
    roles = {role: _chosen(role, name, columns, place) for role, name in chosen.items()}
    free = [column for column in columns if column not in roles.values()]
    by_name: dict[str, list[str]] = {}
    for column in free:
        by_name.setdefault(plain(column), []).append(column)
    for role, aliases in ALIASES.items():
        if role in roles:
            continue
        found = [column for alias in aliases for column in by_name.get(alias, ())]
        if role == "negatives":
            if found:
                roles[role] = found[0]
            continue
        if len(found) > 1 and (plain(found[0]) != aliases[0] or plain(found[1]) == aliases[0]):
            raise DataError(
                f"{place}: the columns {' and '.join(map(shortened, found[:4]))} could both be the"
                f" {role}; rename the right one to {aliases[0]}, or give --columns"
                f" {role}={shortened(found[0])}"
            )
        if found:
            roles[role] = found[0]
    _settle(roles, chosen)
    negatives = [column for alias in ALIASES["negatives"] for column in by_name.get(alias, ())]
    if "negatives" in chosen:
        negatives = [roles["negatives"], *negatives]
    numbered = []
    for column in free:
        if match := _NUMBERED_NEGATIVE.fullmatch(plain(column)):
            numbered.append((int(match[2]), column))
    negatives += [column for _, column in sorted(numbered)]
    return Columns(roles, tuple(dict.fromkeys(negatives)))


def _chosen(role: str, name: str, columns: list[str], place: str) -> str:
    if role not in ALIASES:
        raise ConfigError(
            f"columns = {role}={name}: unknown part {role!r}{nearest(role, list(ALIASES))}; use"
            f" {', '.join(ALIASES)}"
        )
    if name in columns:
        return name
    alike = [column for column in columns if plain(column) == plain(name)]
    if len(alike) == 1:
        return alike[0]
    close = nearest(name, [shortened(column) for column in columns])
    raise ConfigError(
        f"columns = {role}={name}: {place} has no column {name!r}{close}; it has {listed(columns)}"
    )


def _settle(roles: dict[str, str], chosen: Mapping[str, str]) -> None:
    """Settle ``pos`` and ``text``, whose meaning depends on whether the table has queries."""
    if "query" not in roles:
        if roles.get("passage") == roles.get("position") and "passage" not in chosen:
            roles.pop("passage", None)
        return
    if "passage" not in roles and "text" in roles:
        roles["passage"] = roles.pop("text")
    if roles.get("passage") == roles.get("position"):
        roles.pop("position", None)


class Sided(NamedTuple):
    """A column of one side in one language."""

    role: str
    language: str  # canonical


def sided_columns(
    columns: Iterable[str],
    sample: Iterable[Mapping[str, object]],
    place: str,
    *,
    strict: bool,
) -> dict[str, Sided]:
    """The columns such as query_sw, by name.

    A language that is also a common word (``question_no``, ``passage_id``) counts only if columns
    of both sides have it, and their cells are texts, not numbers or single words. A column without
    a letter in its cells (``answer_ts`` with times) counts only if columns of both sides have its
    language.

    Args:
        sample: some records.
        strict: an unknown language in a column name is an error.

    Raises:
        DataError: Two columns have one side and language, or a language is unknown and `strict` is
            set.
    """
    sided: dict[str, Sided] = {}
    unsure: dict[str, Sided] = {}
    for column in columns:
        match = _SIDED.fullmatch(column.strip())
        if not match:
            continue
        role = _ROLE_OF_SIDE[match[1].casefold()]
        common = plain(match[2]) in _COMMON_WORDS | NO_LANGUAGE
        if plain(column) in NO_LANGUAGE and not common:
            continue
        if _NUMBERED_NEGATIVE.fullmatch(plain(column)):
            continue
        try:
            side = Sided(role, known_language(match[2], column))
        except RowProblem as problem:
            if strict and not common:
                raise DataError(
                    f"{place}: column {shortened(column)!r}: {problem.reason}; rename or remove it"
                ) from None
            continue
        known = sided | unsure
        twin = next((other for other, taken in known.items() if taken == side), None)
        if twin:
            raise DataError(
                f"{place}: the columns {shortened(twin)} and {shortened(column)} hold the same"
                " language; remove one"
            )
        (unsure if common else sided)[column] = side
    sample = list(sample)
    for language in {side.language for side in (*sided.values(), *unsure.values())}:
        sure = {column: side for column, side in sided.items() if side.language == language}
        pair = {column: side for column, side in unsure.items() if side.language == language}
        both = {"query", "passage"} <= {side.role for side in (sure | pair).values()}
        if both and any(_holds_texts(column, sample) for column in pair):
            sided.update(pair)
        for column in () if both else sure:
            if _lacks_letters(column, sample):
                del sided[column]
    return {column: sided[column] for column in columns if column in sided}


def _lacks_letters(column: str, sample: list[Mapping[str, object]]) -> bool:
    """Whether the column has cells, and no letter in them: numbers, dates or times."""
    cells = [str(record[column]) for record in sample if record.get(column) not in (None, "")]
    return bool(cells) and not any(map(str.isalpha, "".join(cells)))


def _holds_texts(column: str, sample: list[Mapping[str, object]]) -> bool:
    """Whether most cells are texts of several words, or in a script without blanks."""
    cells = [record.get(column) for record in sample]
    filled = [cell for cell in cells if cell not in (None, "")]
    texts = [
        cell
        for cell in filled
        if isinstance(cell, str) and (" " in cell.strip() or not cell.isascii())
    ]
    return 2 * len(texts) > len(filled)


def _is_language(code: str) -> bool:
    try:
        known_language(code, "")
    except RowProblem:
        return False
    return True
