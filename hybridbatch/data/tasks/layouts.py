"""The three file layouts of a retrieval task; each is read into one `Task` of all languages.

- **BEIR per language**: ``FOLDER/LANG/{corpus.jsonl, queries.jsonl, qrels/test.tsv}``, or a single
  folder of this form.
- **flat**: ``queries.LANG.jsonl``, ``corpus.LANG.jsonl`` and either ``qrels.LANG.jsonl`` or one
  ``qrels.jsonl``.
- **aligned sentences** (bitext): ``LANG.jsonl``, with one id for one sentence in every language.

Every file may be gzip'ed (``.gz``). A query id that occurs in two languages must mean one question
(`hybridbatch.data.tasks.parallel` checks whether this is plausible). Judgements may have any form
of `hybridbatch.data.tasks.judgements`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from hybridbatch.common.errors import ConfigError, DataError
from hybridbatch.common.languages import canonical
from hybridbatch.common.records import Qrels, Task, Texts
from hybridbatch.data.tasks.judgements import (
    TABLES,
    Judgement,
    find_qrels,
    qrels_of,
    read_judgements,
)
from hybridbatch.data.tasks.parallel import Parallel, settle_parallel
from hybridbatch.data.tasks.prepared import has_own, is_prepared, read_prepared
from hybridbatch.data.tasks.texts_and_qrels import (
    collect,
    existing,
    identifier,
    json_rows,
    language_of,
    make_task,
    read_texts,
    required,
    text_of,
)

LAYOUTS = (
    "LANG/corpus.jsonl + LANG/queries.jsonl + LANG/qrels/test.tsv, or "
    "corpus.LANG.jsonl + queries.LANG.jsonl + qrels.LANG.jsonl (any of them .gz)"
)


def read_folder(
    folder: Path, languages: str, split: str | None = None, parallel: Parallel = "auto"
) -> Task:
    """The user's task in any layout, or the test split of prepared data.

    A BEIR folder without language folders is in one language, which `languages` must name.

    Args:
        split: the split to score; None: test, or the split that exists.
        parallel: whether equal ids mean equal questions in all languages, as `settle_parallel`
            takes it.

    Raises:
        DataError: The data is absent or faulty.
        ConfigError: A setting does not fit the data.
    """
    if is_prepared(folder):
        task = read_prepared(folder, split or "test")
        if parallel == "auto" and not has_own(folder):
            return task  # the ids of built-in sources are parallel
        return settle_parallel(task, parallel)
    about = "The user's own queries, corpora and judgements."
    fields: dict[str, Any] = {
        "about": about,
        "provenance": {"source": folder.resolve().name},
        "rules": "as it is",
    }
    if existing(folder, "corpus.jsonl"):
        language = _single_language(folder, languages)
        return _read_beir({language: folder}, folder, split, fields)
    if files_by_code(folder, "corpus"):
        task = read_flat(folder, folder.name, split=split, **fields)
        return settle_parallel(task, parallel)
    parts = [
        part for part in sorted(folder.iterdir()) if part.is_dir() and part.name[0] not in "._"
    ]
    if not parts:
        raise DataError(f"{folder}: holds no retrieval task; expected {LAYOUTS}")
    by_language = _by_language({part.name: part for part in parts})
    return settle_parallel(_read_beir(by_language, folder, split, fields), parallel)


def _single_language(folder: Path, languages: str) -> str:
    try:
        if (
            languages != "all"
        ):  # also the code of the language Allar, but here it is the default
            return canonical(languages)
    except DataError:
        pass  # a group or a list
    raise ConfigError(
        f"{folder}: is one BEIR folder, which does not state its language; name it with"
        f" --languages, such as --languages swh (now {languages!r}), or move the files into a"
        " folder named by the language"
    )


def _by_language(paths: Mapping[str, Path]) -> dict[str, Path]:
    """Paths by the canonical language of their code.

    Raises:
        DataError: A language is unknown or repeated.
    """
    found: dict[str, Path] = {}
    for code, path in paths.items():
        language = language_of(code, path)
        if language in found:
            raise DataError(
                f"{path}: is {language}, and {found[language].name} is, too; keep one of them"
            )
        found[language] = path
    return found


def files_by_code(
    folder: Path, kind: str = "", ends: tuple[str, ...] = (".jsonl",)
) -> dict[str, Path]:
    """``KIND.CODE.jsonl[.gz]`` files of a folder (``CODE.jsonl[.gz]`` without a kind), by code.

    Args:
        ends: suffixes to accept in place of ``.jsonl``.
    """
    start = f"{kind}." if kind else ""
    found: dict[str, Path] = {}
    for path in sorted(folder.glob(f"{start}*")):
        name = path.name.removesuffix(".gz")
        end = next((end for end in ends if name.endswith(end)), None)
        if end is None:
            continue
        stem = name.removesuffix(end)
        code = stem.removeprefix(start)
        if code and "." not in code and stem.startswith(start):
            found.setdefault(code, path)
    return found


def _read_beir(
    folders: Mapping[str, Path], origin: Path, split: str | None, fields: Mapping[str, Any]
) -> Task:
    """BEIR folders by language, without the queries that are judged only in other splits."""
    elsewhere: set[str] = set()
    notes: list[str] = []
    queries, corpus, qrels = {}, {}, {}
    for language, folder in folders.items():
        queries[language] = read_texts(required(folder, "queries.jsonl"))
        corpus[language] = read_texts(required(folder, "corpus.jsonl"), may_be_empty=True)
        scored_split, scored = find_qrels(folder, split)
        if scored_split != (split or "test"):
            notes.append(
                f"{folder}: has no judgements for testing; those of {scored} are scored"
            )
        qrels[language] = qrels_of(read_judgements(scored))
        for other in sorted((folder / "qrels").glob("*.tsv*")):
            if other != scored:
                elsewhere.update(query for query, _, _ in read_judgements(other))
    task = make_task(
        origin.name,
        queries,
        corpus,
        qrels,
        origin=origin,
        judged_elsewhere=frozenset(elsewhere),
        **fields,
    )
    return replace(task, notes=(*notes, *task.notes))


@dataclass(frozen=True)
class _FlatFiles:
    """The files of a folder in the flat layout; for the attributes see `read_flat`."""

    folder: Path
    codes: Mapping[str, str] | None
    strip_language: bool

    def of(self, kind: str, ends: tuple[str, ...] = (".jsonl",)) -> dict[str, tuple[str, Path]]:
        """By language, the code in the file's name, and the file."""
        found = files_by_code(self.folder, kind, ends)
        if self.codes:
            by_language = {
                language: found[code] for code, language in self.codes.items() if code in found
            }
        else:
            by_language = _by_language(found)
        return {
            language: (path.name.split(".")[1], path) for language, path in by_language.items()
        }

    def texts(self, kind: str, *, may_be_empty: bool = False) -> dict[str, Texts]:
        """Queries or corpus by language."""
        read = {}
        for language, (code, path) in self.of(kind).items():
            found = read_texts(path, may_be_empty=may_be_empty)
            ids = tuple(self._bare(key, code) for key in found.ids)
            read[language] = Texts(ids, found.texts)
        return read

    def judgements(self, split: str | None) -> dict[str, list[Judgement]]:
        """The judgements of the files whose names have a language, by language."""
        read = {}
        for language, (code, path) in self.of("qrels", (".jsonl", *TABLES)).items():
            rows = read_judgements(path, split)
            read[language] = [
                (self._bare(query, code), self._bare(passage, code), grade)
                for query, passage, grade in rows
            ]
        return read

    def _bare(self, key: str, code: str) -> str:
        return key.removesuffix(f"-{code}") if self.strip_language else key


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

    ``qrels.LANG`` judges the corpus of LANG. If LANG has no corpus (AfriQA judges by query
    language), a judgement applies to every corpus that has its passage. The judgements of
    ``qrels.jsonl`` do so too.

    Args:
        split: keep only judgements of this split, if rows name one.
        codes: language by the code in the file names; default: the code is the language.
        strip_language: ids end in ``-CODE``, and are equal in all languages without this ending.
        fields: further arguments of `make_task`.
    """

    flat = _FlatFiles(folder, codes, strip_language)
    as_it_is = fields.get("rules") == "as it is"
    queries, corpus = flat.texts("queries"), flat.texts("corpus", may_be_empty=as_it_is)
    if not queries or not corpus:
        raise DataError(
            f"{folder}: holds no {'corpus' if queries else 'queries'}; expected {LAYOUTS}"
        )
    qrels: dict[str, dict[str, dict[str, int]]] = {}
    everywhere: list[Judgement] = []
    for language, rows in flat.judgements(split).items():
        if language in corpus:
            qrels[language] = qrels_of(rows)
        else:
            everywhere += rows
    if shared := existing(folder, "qrels.jsonl", *(f"qrels{end}" for end in TABLES)):
        everywhere += read_judgements(shared, split)
    if not qrels and not everywhere:
        raise DataError(
            f"{folder}: holds no judgements (qrels.LANG.jsonl or qrels.jsonl); expected {LAYOUTS}"
        )
    for language, judged in _spread(everywhere, corpus, folder, as_it_is).items():
        for query, row in judged.items():
            qrels.setdefault(language, {}).setdefault(query, {}).update(row)
    return make_task(name, queries, corpus, qrels, origin=folder, **fields)


def _spread(
    judgements: list[Judgement], corpus: Mapping[str, Texts], origin: Path, as_it_is: bool
) -> dict[str, dict[str, dict[str, int]]]:
    """Judgements by every corpus that holds their passage.

    A passage may be in no corpus. With `as_it_is`, its judgements apply to all corpora.

    Raises:
        DataError: A judged passage is in no corpus, and `as_it_is` is not set.
    """
    wanted = {passage for _, passage, _ in judgements}
    found = {language: wanted.intersection(texts.ids) for language, texts in corpus.items()}
    unknown = wanted.difference(*found.values())
    if unknown and not as_it_is:
        first = next(passage for _, passage, _ in judgements if passage in unknown)
        raise DataError(
            f"{origin}: qrels name {len(unknown)} passage ids that are in no corpus (first:"
            f" {first!r}); add the texts or remove the judgements"
        )
    spread = {}
    for language, held in found.items():
        here = [judged for judged in judgements if judged[1] in held or judged[1] in unknown]
        if here:
            spread[language] = qrels_of(here)
    return spread


def read_bitext(folder: Path, name: str, **fields: Any) -> Task:
    """Aligned sentences as a retrieval task: find the sentence with the query's id.

    A language is never searched in itself, because query and passage would be one text.
    """
    texts = {}
    for language, path in _by_language(files_by_code(folder)).items():
        rows = [
            (place, identifier(row, place, "id"), text_of(row, place))
            for place, row in json_rows(path)
        ]
        texts[language] = collect(rows, path)
    if len(texts) < 2:
        raise DataError(
            f"{folder}: holds {len(texts)} languages (LANG.jsonl[.gz]); aligned sentences need two"
        )
    qrels = {language: _same_ids(read) for language, read in texts.items()}
    return make_task(
        name, texts, texts, qrels, origin=folder, bitext=True, parallel=False, **fields
    )


def read_english_to(folder: Path, name: str, **fields: Any) -> Task:
    """Tatoeba's layout: each language has English queries (``en``) for its translations."""
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
    qrels = {language: _same_ids(read) for language, read in corpus.items()}
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


def _same_ids(texts: Texts) -> Qrels:
    """Judgements by which every text answers the query with its id."""
    return {key: {key: 1} for key in texts.ids}
