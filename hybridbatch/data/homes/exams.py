"""The builder of exams: school exam questions that have a parallel version in another language."""

import json
import tarfile
import zlib
from pathlib import Path
from typing import Any

from hybridbatch.common.errors import DataError
from hybridbatch.data.homes.home import Files, said, write

LANGUAGES = {"Albanian": "sq", "Arabic": "ar", "Bulgarian": "bg", "Croatian": "hr", "French": "fr", "German": "de",
             "Hungarian": "hu", "Italian": "it", "Lithuanian": "lt", "Macedonian": "mk", "North Macedonian": "mk", "Polish": "pl",
             "Portuguese": "pt", "Serbian": "sr", "Spanish": "es", "Turkish": "tr", "Vietnamese": "vi"}  # fmt: skip
Record = dict[str, Any]


def build_exams(files: Files, folder: Path) -> None:
    """Write one file of questions; parallel questions have one `group`."""
    parallel: dict[str, list[str]] = {}
    for record in files.records("data/exams/parallel_questions.jsonl"):
        for key, others in record.items():
            parallel.setdefault(key, []).extend(others)
    group_of = _groups(parallel)
    names: dict[str, str] = {}
    rows: list[Record] = []
    for split in ("train", "dev", "test"):
        archive = files.path(f"data/exams/multilingual/{split}.jsonl.tar.gz")
        for line in files.numbered(_packed(archive)):
            if not line.strip():
                continue
            record = json.loads(line)
            if record["id"] not in group_of:
                continue
            choices = {one["label"]: said(one, "text") for one in record["question"]["choices"]}
            stem = said(record["question"], "stem")
            if not stem or record["answerKey"] not in choices:
                continue
            group = group_of[record["id"]]
            language = record["info"]["language"]
            if language not in LANGUAGES:
                raise ValueError(f"unknown language {language!r}")
            rows.append(
                {
                    "id": record["id"],
                    "lang": LANGUAGES[language],
                    "split": split,
                    "text": stem,
                    "answer": choices[record["answerKey"]],
                    "choices": list(choices.values()),
                    "group": names.setdefault(group, f"g{len(names)}"),
                }
            )
    write(folder / "questions.jsonl.gz", rows)


def _groups(parallel: dict[str, list[str]]) -> dict[str, str]:
    """By question, the question that represents all questions parallel to it, directly or not."""
    leader: dict[str, str] = {}

    def find(key: str) -> str:
        while leader.setdefault(key, key) != key:
            leader[key] = leader[leader[key]]
            key = leader[key]
        return key

    for key, others in parallel.items():
        for other in others:
            leader[find(other)] = find(key)
    return {key: find(key) for key in list(leader)}


def _packed(path: Path) -> list[str]:
    """The lines of the only file of an archive."""
    try:
        with tarfile.open(path, "r:gz") as archive:
            for member in archive:
                content = archive.extractfile(member) if member.isfile() else None
                if content and member.name.endswith(".jsonl"):
                    return content.read().decode("utf-8").splitlines()
    except (tarfile.TarError, EOFError, zlib.error, OSError, ValueError) as error:
        raise DataError(
            f"{path}: cannot be read ({error}); delete it and run the command again"
        ) from error
    raise DataError(f"{path}: holds no JSON Lines; delete it and run the command again")
