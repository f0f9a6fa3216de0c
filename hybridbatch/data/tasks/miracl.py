"""MIRACL's development set: questions in 18 languages against each language's Wikipedia.

The languages are not parallel. The layout is that of `hybridbatch.data.sources.miracl`, with
``-dev`` for ``-train``. A language's corpus of up to 33 million passages is read once into an Arrow
file in the cache, and memory-mapped from there. Only the wanted languages are downloaded.

Source: Zhang et al. 2023, MIRACL, TACL 11.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from hybridbatch.common.files import cache_folder, fingerprint
from hybridbatch.common.languages import canonical, resolve
from hybridbatch.common.records import Qrels, Task, Texts
from hybridbatch.common.texts import nfc
from hybridbatch.data.download.sizes import HubFiles
from hybridbatch.data.formats.retrieval_sets import titled
from hybridbatch.data.formats.tables import Record, RowProblem, identifier, text
from hybridbatch.data.sources.miracl import CORPUS, HUB
from hybridbatch.data.tasks.corpus_file import open_texts, write_texts
from hybridbatch.data.tasks.hub_files import local_copy, rows_of
from hybridbatch.data.tasks.texts_and_qrels import collect, make_task

SOURCE = (
    f"huggingface.co/datasets/{HUB.name} @ {HUB.revision}; {CORPUS.name} @ {CORPUS.revision}"
)
QUERIES = {"ar": 2896, "bn": 411, "de": 305, "en": 799, "es": 648, "fa": 632, "fi": 1271, "fr": 343, "hi": 350,
           "id": 960, "ja": 860, "ko": 213, "ru": 1252, "sw": 482, "te": 828, "th": 733, "yo": 119, "zh": 393}  # fmt: skip
PASSAGES = {"ar": 2_061_414, "bn": 297_265, "de": 15_866_222, "en": 32_893_221, "es": 10_373_953, "fa": 2_207_172,
            "fi": 1_883_509, "fr": 14_636_953, "hi": 506_264, "id": 1_446_315, "ja": 6_953_614, "ko": 1_486_752,
            "ru": 9_543_918, "sw": 131_924, "te": 518_079, "th": 542_166, "yo": 49_043, "zh": 4_934_368}  # fmt: skip

PACKED_BYTES = 220.0  # of a passage in the packed files, about


def files(languages: str, trained: Sequence[str]) -> list[HubFiles]:
    """The files of the wanted languages, for `Description.files`."""
    codes = {canonical(code): code for code in QUERIES}
    found = []
    for language in resolve(languages, tuple(codes), trained):
        code = codes[language]
        found.append(HubFiles(HUB, rf"miracl-v1\.0-{code}/.*-dev\.tsv", 0.1e6))
        packed = PACKED_BYTES * PASSAGES[code]
        found.append(HubFiles(CORPUS, rf"miracl-corpus-v1\.0-{code}/.*\.gz", packed))
    return found


def read_miracl(
    name: str, data_root: Path | None, languages: str, trained: Iterable[str], **fields: Any
) -> Task:
    """The task in the wanted languages.

    Args:
        data_root: may hold ``miracl`` and ``miracl-corpus``, copies of the repositories; the hub
            serves what is absent.

    Raises:
        DataError: The data cannot be downloaded or is faulty.
        ConfigError: A language is unknown or not in the task.
    """
    codes = {canonical(code): code for code in QUERIES}
    wanted = resolve(languages, tuple(codes), tuple(trained))
    queries: dict[str, Texts] = {}
    corpus: dict[str, Texts] = {}
    qrels: dict[str, Qrels] = {}
    for language in wanted:
        folder = f"miracl-v1.0-{codes[language]}"
        topics, judgements = (
            f"{folder}/{kind}/{kind}.{folder}-dev.tsv" for kind in ("topics", "qrels")
        )
        # the number of a question means different questions in different languages
        queries[language] = collect(
            (
                (place, f"{language}-{number}", question)
                for place, (number, question) in rows_of(
                    HUB, data_root, topics, _question, ["id", "query"]
                )
            ),
            HUB.label(topics),
        )
        judged: dict[str, dict[str, int]] = {}
        for _, (number, passage, grade) in rows_of(
            HUB, data_root, judgements, _judgement, ["id", "Q0", "docid", "grade"]
        ):
            judged.setdefault(f"{language}-{number}", {})[passage] = grade
        qrels[language] = judged
        corpus[language] = _corpus(codes[language], data_root)
    return make_task(name, queries, corpus, qrels, origin=HUB.name, parallel=False, **fields)


def _question(record: Record) -> tuple[str, str]:
    return identifier(record, "id"), nfc(text(record, "query"))


def _judgement(record: Record) -> tuple[str, str, int]:
    if record["grade"] not in ("0", "1"):
        raise RowProblem("grade", f"must be 0 or 1, not {record['grade']!r}")
    return identifier(record, "id"), identifier(record, "docid"), int(record["grade"])


def _passage(record: Record) -> tuple[str, str]:
    return identifier(record, "docid"), nfc(titled(record))


def _corpus(code: str, data_root: Path | None) -> Texts:
    folder = f"miracl-corpus-v1.0-{code}"
    local = local_copy(CORPUS, data_root, folder)
    if local:
        files = sorted((file.stat().st_mtime_ns, file.name) for file in local.iterdir())
        version = fingerprint([str(local.resolve()), files])
    else:
        version = CORPUS.revision[:16]
    path = cache_folder() / "corpora" / f"{folder}-{version}.arrow"
    if not path.is_file():
        names = (
            sorted(file.name for file in local.iterdir())
            if local
            else map(_name, CORPUS.folder(folder))
        )
        write_texts(
            path,
            (
                row
                for name in names
                for _, row in rows_of(CORPUS, data_root, f"{folder}/{name}", _passage)
            ),
        )
    return open_texts(path)


def _name(path: str) -> str:
    return path.rpartition("/")[2]
