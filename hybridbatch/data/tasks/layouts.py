"""The three file layouts a retrieval task may have on disk, each read into one `Task` of all its
languages.

- **BEIR per language**: ``FOLDER/LANG/{corpus.jsonl, queries.jsonl, qrels/test.tsv}``, or one such
folder alone.
- **flat**: ``queries.LANG.jsonl``, ``corpus.LANG.jsonl`` and either ``qrels.LANG.jsonl`` or one
``qrels.jsonl``.
- **aligned sentences** (bitext): ``LANG.jsonl``, the same id for the same sentence in every
  language.

Every file may be gzip'ed (``.gz``). The same query id in two languages must mean the same question.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hybridbatch.common.errors import ConfigError, DataError
from hybridbatch.common.languages import canonical
from hybridbatch.common.records import Qrels, Task, Texts
from hybridbatch.data.tasks.texts_and_qrels import (
    Judgement,
    collect,
    existing,
    identifier,
    json_rows,
    language_of,
    make_task,
    qrels_of,
    read_judgements,
    read_texts,
    required,
    text_of,
)

LAYOUTS = (
    "LANG/corpus.jsonl + LANG/queries.jsonl + LANG/qrels/test.tsv, or "
    "corpus.LANG.jsonl + queries.LANG.jsonl + qrels.LANG.jsonl (any of them .gz)"
)


def read_folder(folder: Path, languages: str) -> Task:
    """The user's own task, in whichever layout `folder` has.

    A BEIR folder without language folders is in one language, which `languages` must name.
    Raises: `DataError`, `ConfigError`.
    """
    about = "The user's own queries, corpora and judgements."
    fields: dict[str, Any] = {"about": about, "provenance": {"source": folder.resolve().name}}
    if existing(folder, "corpus.jsonl"):
        return _read_beir({_single_language(folder, languages): folder}, folder, fields)
    if files_by_code(folder, "corpus"):
        return read_flat(folder, folder.name, **fields)
    parts = [
        part for part in sorted(folder.iterdir()) if part.is_dir() and part.name[0] not in "._"
    ]
    if not parts:
        raise DataError(f"{folder}: holds no retrieval task; expected {LAYOUTS}")
    return _read_beir(_by_language({part.name: part for part in parts}), folder, fields)


def _single_language(folder: Path, languages: str) -> str:
    try:
        if languages != "all":  # which is a language too, Allar, but here the default
            return canonical(languages)
    except DataError:
        pass  # a group or a list
    raise ConfigError(
        f"{folder}: is one BEIR folder, which does not say its language; name it with --languages,"
        " such as"
        f" --languages swh (now {languages!r}), or move the files into a folder named by the"
        " language"
    )


def _by_language(paths: Mapping[str, Path]) -> dict[str, Path]:
    """Paths by the canonical language of their code. Raises `DataError` for unknown and repeated
    languages.
    """
    found: dict[str, Path] = {}
    for code, path in paths.items():
        language = language_of(code, path)
        if language in found:
            raise DataError(
                f"{path}: is {language}, and so is {found[language].name}; keep one of them"
            )
        found[language] = path
    return found


def files_by_code(folder: Path, kind: str = "") -> dict[str, Path]:
    """``KIND.CODE.jsonl[.gz]`` files of a folder (``CODE.jsonl[.gz]`` without a kind), by code."""
    found: dict[str, Path] = {}
    for path in sorted(folder.glob(f"{kind}.*.jsonl*" if kind else "*.jsonl*")):
        stem = (
            path.name.removesuffix(".gz")
            .removesuffix(".jsonl")
            .removeprefix(f"{kind}." if kind else "")
        )
        if path.name.endswith((".jsonl", ".jsonl.gz")) and "." not in stem:
            found.setdefault(stem, path)
    return found


def _read_beir(folders: Mapping[str, Path], origin: Path, fields: Mapping[str, Any]) -> Task:
    """BEIR folders by language; ``qrels/test.tsv`` is scored, queries judged only in other splits
    are left out.
    """
    elsewhere: set[str] = set()
    queries, corpus, qrels = {}, {}, {}
    for language, folder in folders.items():
        queries[language] = read_texts(required(folder, "queries.jsonl"))
        corpus[language] = read_texts(required(folder, "corpus.jsonl"))
        scored = required(folder, "qrels/test.tsv")
        qrels[language] = qrels_of(read_judgements(scored))
        for other in sorted((folder / "qrels").glob("*.tsv*")):
            if other != scored:
                elsewhere.update(query for query, _, _ in read_judgements(other))
    return make_task(
        origin.name,
        queries,
        corpus,
        qrels,
        origin=origin,
        judged_elsewhere=frozenset(elsewhere),
        **fields,
    )


def read_flat(
    folder: Path,
    name: str,
    *,
    split: str | None = None,
    codes: Mapping[str, str] | None = None,
    strip_language: bool = False,
    **fields: Any,
) -> Task:
    """A task in the flat layout.

    ``qrels.LANG`` judges the corpus of LANG. Where LANG has no corpus (AfriQA judges by query
    language), and in ``qrels.jsonl``, a judgement holds for every corpus that has its passage.

    Args:
        split: keep judgements of this split where rows have one.
        codes: language by the code in the file names; default: the code is the language.
        strip_language: ids end in ``-CODE``, without which they are the same in all languages.
        fields: further arguments of `make_task`.
    """

    def files(kind: str) -> dict[str, tuple[str, Path]]:
        found = files_by_code(folder, kind)
        by_language = (
            {codes[code]: found[code] for code in codes if code in found}
            if codes
            else _by_language(found)
        )
        return {language: (path.name.split(".")[1], path) for language, path in by_language.items()}

    def bare(key: str, code: str) -> str:
        return key.removesuffix(f"-{code}") if strip_language else key

    def texts(kind: str) -> dict[str, Texts]:
        found = {
            language: (code, read_texts(path)) for language, (code, path) in files(kind).items()
        }
        return {
            language: Texts(tuple(bare(key, code) for key in read.ids), read.texts)
            for language, (code, read) in found.items()
        }

    queries, corpus = texts("queries"), texts("corpus")
    if not queries or not corpus:
        raise DataError(
            f"{folder}: holds no {'corpus' if queries else 'queries'}; expected {LAYOUTS}"
        )
    qrels: dict[str, dict[str, dict[str, int]]] = {}
    everywhere: list[Judgement] = []
    for language, (code, path) in files("qrels").items():
        rows = [
            (bare(q, code), bare(d, code), grade) for q, d, grade in read_judgements(path, split)
        ]
        if language in corpus:
            qrels[language] = qrels_of(rows)
        else:
            everywhere += rows
    if shared := existing(folder, "qrels.jsonl"):
        everywhere += read_judgements(shared, split)
    if not qrels and not everywhere:
        raise DataError(
            f"{folder}: holds no judgements (qrels.LANG.jsonl or qrels.jsonl); expected {LAYOUTS}"
        )
    for language, judged in _spread(everywhere, corpus, folder).items():
        for query, row in judged.items():
            qrels.setdefault(language, {}).setdefault(query, {}).update(row)
    return make_task(name, queries, corpus, qrels, origin=folder, **fields)


def _spread(
    judgements: list[Judgement], corpus: Mapping[str, Texts], origin: Path
) -> dict[str, dict[str, dict[str, int]]]:
    """Judgements by every corpus that holds their passage. Raises `DataError` for a passage that
    none holds.
    """
    wanted = {passage for _, passage, _ in judgements}
    found = {language: wanted.intersection(texts.ids) for language, texts in corpus.items()}
    unknown = wanted.difference(*found.values())
    if unknown:
        first = next(passage for _, passage, _ in judgements if passage in unknown)
        raise DataError(
            f"{origin}: qrels name {len(unknown)} passage ids that are in no corpus (first:"
            f" {first!r});"
            " add the texts or remove the judgements"
        )
    return {
        language: rows
        for language, held in found.items()
        if (rows := qrels_of(judgement for judgement in judgements if judgement[1] in held))
    }


def read_bitext(folder: Path, name: str, **fields: Any) -> Task:
    """Aligned sentences as a retrieval task: find the sentence of the same id in another language.

    A language is never searched in itself, where query and passage would be one text.
    """
    texts = {
        language: collect(
            (
                (place, identifier(row, place, "id"), text_of(row, place))
                for place, row in json_rows(path)
            ),
            path,
        )
        for language, path in _by_language(files_by_code(folder)).items()
    }
    if len(texts) < 2:
        raise DataError(
            f"{folder}: holds {len(texts)} languages (LANG.jsonl[.gz]); aligned sentences need two"
        )
    qrels: dict[str, Qrels] = {
        language: {key: {key: 1} for key in read.ids} for language, read in texts.items()
    }
    return make_task(
        name, texts, texts, qrels, origin=folder, bitext=True, parallel=False, **fields
    )


def read_english_to(folder: Path, name: str, **fields: Any) -> Task:
    """Tatoeba's layout: each language's file has its own English side (``en``), which asks for its
    translations.
    """
    english: list[tuple[str, str, str]] = []
    corpus: dict[str, Texts] = {}
    for language, path in _by_language(files_by_code(folder)).items():
        rows = [
            (place, f"{language}-{identifier(row, place, 'id')}", row)
            for place, row in json_rows(path)
        ]
        corpus[language] = collect(
            ((place, key, text_of(row, place)) for place, key, row in rows), path
        )
        english += [(place, key, text_of(row, place, "en")) for place, key, row in rows]
    if not corpus:
        raise DataError(f"{folder}: holds no LANG.jsonl[.gz]")
    qrels: dict[str, Qrels] = {
        language: {key: {key: 1} for key in read.ids} for language, read in corpus.items()
    }
    return make_task(
        name,
        {canonical("en"): collect(english, folder)},
        corpus,
        qrels,
        origin=folder,
        bitext=True,
        parallel=False,
        **fields,
    )
