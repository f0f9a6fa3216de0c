"""XOR-TyDi QA: questions in seven languages, with gold paragraphs from English Wikipedia.

A record has only the question in its language, and only the paragraph in English. Layout read on
2026-11-24 from the repository's README and public code that reads the data: a zip with
``gp_squad_train_data.json`` in the form of SQuAD, where a question has id, question and lang. A
question with several gold paragraphs occurs several times. (The data set on the hub,
akariasai/xor_tydi_qa, has only a script and no paragraphs.) The zip has no version; a run's
provenance has its checksum. Only the training set is read.
"""

import re
from collections import Counter
from collections.abc import Iterator
from functools import partial

from hybridbatch.common.records import BadRow, Row
from hybridbatch.data.download.sizes import WebFile
from hybridbatch.data.download.web import web_file
from hybridbatch.data.formats.squad import squad_rows
from hybridbatch.data.formats.tables import Record, identifier, language, text
from hybridbatch.data.formats.zipped import zipped_json
from hybridbatch.data.source import Source, SourceContext
from hybridbatch.data.sources.kinds import wanted

URL, REVISION = "https://github.com/AkariAsai/XORQA", "c894f529b3adb046dc5fec871b2be0e8535f526c"
ADDRESS = "https://nlp.cs.washington.edu/xorqa/XORQA_site/data/tydi_xor_gp.zip"
CODES = ("arb", "ben", "fin", "jpn", "kor", "rus", "tel")
_TRAIN = re.compile(r"(?:.*/)?gp_squad_train_data\.json")


def _rows(context: SourceContext) -> Iterator[Row | BadRow]:
    if context.keeps("eng") and wanted(context, CODES):
        times: Counter[str] = Counter()
        for member, whole in zipped_json(web_file(ADDRESS), _TRAIN):
            yield from squad_rows(whole, f"xor-tydi/{member[0]}", partial(_parse, times))


def _parse(times: Counter[str], title: str, context: str, record: Record) -> Iterator[Row]:
    question, code, query = (
        identifier(record, "id"),
        language(record, "lang"),
        text(record, "question"),
    )
    times[question] += 1
    record_id = f"{question}#{times[question]}" if times[question] > 1 else question
    yield Row("xor-tydi", record_id, code, query, None)
    yield Row("xor-tydi", record_id, "eng", None, context)


SOURCES = (
    Source(
        name="xor-tydi",
        title="XOR-TyDi QA gold paragraphs, training set",
        licence="MIT (passages: Wikipedia, CC BY-SA)",
        url=URL,
        revision=REVISION,
        languages="7, and en",
        size="about 15,000 questions",
        yields="question -> English paragraph, for cross-lingual batches",
        rows=_rows,
        inputs=lambda context: [web_file(ADDRESS)],
        files=lambda context: [WebFile(ADDRESS)],
    ),
)
