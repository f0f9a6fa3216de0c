"""The builder of mkqa-mia: open-domain questions in twelve languages."""

import re
from pathlib import Path

from hybridbatch.data.formats.zipped import zipped_json
from hybridbatch.data.homes.home import Files, said, write


def build_mkqa_mia(files: Files, folder: Path) -> None:
    """Write mkqa-mia from ``data/eval/mkqa_dev.zip``.

    The zip has one file of questions per language, with ids ``QUESTION_LANG``.
    """
    questions: dict[str, dict[str, str]] = {}
    pattern = re.compile(r"mkqa_dev/mkqa-(?P<code>\w+)\.jsonl")
    for match, records in zipped_json(
        files.path("data/eval/mkqa_dev.zip"), pattern, lines=True
    ):
        code = match["code"]
        for record in files.numbered(records, f"{match[0]}, line"):
            name = record["id"].removesuffix(f"_{code}")
            questions.setdefault(name, {})[code] = said(record, "question")
    table = ({"id": name, "queries": texts} for name, texts in questions.items())
    write(folder / "parallel_queries.dev.jsonl.gz", table)
