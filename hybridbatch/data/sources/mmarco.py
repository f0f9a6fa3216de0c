"""mMARCO (arXiv:2108.13897): MS MARCO's passages and questions, machine-translated to 14 languages.

All languages share ids, so every record exists in all of them. `mmarco` has a record for each
question and relevant passage, with the first negatives of its triples (which are in random order).
`mmarco-triples` has a record for each of the 39,780,811 triples, which is how arXiv:2408.10536
counts its pairs.

Layout read on 2026-11-24 from the data set's card and from public code that reads the files. Public
code pins the commit. The files have no header:
``data/google/queries/train/LANGUAGE_queries.train.tsv`` {query id, text},
``data/google/collections/LANGUAGE_collection.tsv`` {passage id, text}, 8.8 million lines, and
``data/triples.train.ids.small.tsv`` {query id, relevant passage id, irrelevant passage id}.

Memory holds the triples as int32, sorted once (about 1.5 GB at the peak), and 20 bytes a line of
one language's texts at a time. The texts stay on disk.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np

from hybridbatch.common.records import BadRow, Row
from hybridbatch.data.download.hub import Repository
from hybridbatch.data.download.sizes import HubFiles
from hybridbatch.data.formats.numbered import NumberedLines, integer_rows
from hybridbatch.data.formats.retrieval_sets import NEGATIVES
from hybridbatch.data.source import SourceContext
from hybridbatch.data.sources.kinds import hub_source, wanted

HUB = Repository("unicamp-dl/mmarco", "6d039c4638c0ba3e46a9cb7b498b145e7edc6230")
TRIPLES = "data/triples.train.ids.small.tsv"
LANGUAGES = [
    "english",
    "arabic",
    "chinese",
    "dutch",
    "french",
    "german",
    "hindi",
    "indonesian",
    "italian",
    "japanese",
    "portuguese",
    "russian",
    "spanish",
    "vietnamese",
]
# Bytes of a language's files where they are far from 3.4 GB: its script has more bytes a character.
ROUGHLY = {
    "arabic": 4.8e9,
    "chinese": 2.7e9,
    "hindi": 7.6e9,
    "japanese": 3.8e9,
    "russian": 5.8e9,
    "vietnamese": 4.2e9,
}
LICENCE = "Apache-2.0 (translations); MS MARCO: non-commercial research"
MISSING = "not in this file, or on a bad line of it, but in a triple"
_CHUNK = 1 << 14  # records whose texts are looked up together


@dataclass(frozen=True)
class Judgements:
    """N records: a question, a passage that answers it, up to K passages that do not.

    All are ids; -1 means none.
    """

    query: np.ndarray  # int32 [N]
    positive: np.ndarray  # int32 [N]
    negatives: np.ndarray  # int32 [N, K]


def as_they_are(triples: np.ndarray) -> Judgements:
    """A record for each triple; `triples` is int32 [N, 3]: query, relevant and irrelevant passage."""
    return Judgements(triples[:, 0], triples[:, 1], triples[:, 2:])


def by_pair(triples: np.ndarray, negatives: int = NEGATIVES) -> Judgements:
    """A record for each query and relevant passage, with the first `negatives` of their negatives."""
    key = (triples[:, 0].astype(np.int64) << 32) | triples[:, 1]
    order = np.argsort(key, kind="stable")
    key = key[order]
    first = (
        np.flatnonzero(np.concatenate([[True], key[1:] != key[:-1]]))
        if len(key)
        else np.zeros(0, np.int64)
    )
    last = np.append(first[1:], len(key))
    kept = np.full((len(first), negatives), -1, np.int32)
    for at in range(negatives):
        there = np.flatnonzero(first + at < last)
        kept[there, at] = triples[order[first[there] + at], 2]
    pairs = order[first]
    return Judgements(triples[pairs, 0], triples[pairs, 1], kept)


def _files(context: SourceContext) -> list[HubFiles]:
    found = [HubFiles(HUB, TRIPLES, 0.9e9)] if wanted(context, LANGUAGES) else []
    for language, _ in wanted(context, LANGUAGES):
        texts = rf"data/google/(queries/train|collections)/{language}_.*\.tsv"
        found.append(HubFiles(HUB, texts, ROUGHLY.get(language, 3.4e9)))
    return found


def _rows(name: str, context: SourceContext) -> Iterator[Row | BadRow]:
    languages = wanted(context, LANGUAGES)
    if not languages:
        return
    triples, bad = integer_rows(
        HUB.file(TRIPLES), HUB.label(TRIPLES), ("query id", "positive id", "negative id")
    )
    yield from bad
    judgements = by_pair(triples) if name == "mmarco" else as_they_are(triples)
    del triples
    for language, code in languages:
        yield from _language_rows(name, language, code, judgements)


def _language_rows(
    name: str, language: str, code: str, judgements: Judgements
) -> Iterator[Row | BadRow]:
    queries = f"data/google/queries/train/{language}_queries.train.tsv"
    passages = f"data/google/collections/{language}_collection.tsv"
    with (
        NumberedLines(HUB.file(queries), HUB.label(queries)) as query_lines,
        NumberedLines(HUB.file(passages), HUB.label(passages)) as passage_lines,
    ):
        yield from query_lines.bad + passage_lines.bad
        for start in range(0, len(judgements.query), _CHUNK):
            part = slice(start, start + _CHUNK)
            ids = zip(
                judgements.query[part].tolist(), judgements.positive[part].tolist(), strict=True
            )
            asked, answers = (
                query_lines.texts(judgements.query[part]),
                passage_lines.texts(judgements.positive[part]),
            )
            others = zip(
                *(passage_lines.texts(column) for column in judgements.negatives[part].T),
                strict=True,
            )
            for number, ((query, positive), words, answer, rest) in enumerate(
                zip(ids, asked, answers, others, strict=True), start
            ):
                if words is None:
                    yield BadRow(HUB.label(queries), 0, "query id", MISSING)
                elif answer is None:
                    yield BadRow(HUB.label(passages), 0, "positive id", MISSING)
                else:
                    record_id = f"{query}-{positive}" if name == "mmarco" else str(number)
                    negatives = tuple(text for text in rest if text is not None)
                    yield Row(name, record_id, code, words, answer, negatives)


SOURCES = tuple(
    hub_source(
        HUB,
        name=name,
        title=title,
        licence=LICENCE,
        languages="14, parallel",
        size=size,
        yields=yields,
        rows=partial(_rows, name),
        files=_files,
        stored=stored,
    )
    for name, title, size, yields, stored in (
        (
            "mmarco",
            "mMARCO, a record for each question and relevant passage",
            "14 languages, parallel; 2.7 to 7.6 GB of files a language",
            f"question -> passage, {NEGATIVES} hard negatives",
            0.3,  # some 500,000 records with up to five of the 8.8 million passages
        ),
        (
            "mmarco-triples",
            "mMARCO, a record for each triple, as arXiv:2408.10536 counts",
            "39,780,811 records in each of 14 languages; 2.7 to 7.6 GB of files a language",
            "question -> passage, 1 hard negative",
            8.0,  # a passage is in nine rows
        ),
    )
)
