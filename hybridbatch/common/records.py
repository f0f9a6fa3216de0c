"""The words of the data: rows, the record index the schedule works on, and retrieval tasks.

A *record* is one question-answer item of one source; (source, record_id) identifies it. A *row* is
a record in one language. A *pair* of a batch joins the query of one row with the passage of another
(or the same) row of its record.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

Split = Literal["train", "validation", "test"]
SPLITS: tuple[Split, ...] = ("train", "validation", "test")


class Row(NamedTuple):
    """A record in one language. A side that does not exist in it is None: AfriQA's Hausa rows have
    no passage.

    A tuple, because Python makes one five times faster than an object of a frozen dataclass, and
    `prepare` makes tens of millions.
    """

    source: str
    record_id: str
    language: str  # canonical id of hybridbatch.common.languages
    query: str | None
    passage: str | None
    negatives: tuple[str, ...] = ()  # hard negatives, in the row's language
    split: Split = "train"
    # canonical id of the language that a machine translated it from
    translated_from: str | None = None


@dataclass(frozen=True, slots=True)
class BadRow:
    """An input row that cannot be used, and why."""

    file: str
    line: int  # from 1; 0 where the format has no lines
    field: str
    reason: str


@dataclass(frozen=True)
class Texts:
    """Identified texts in one language: the queries or the corpus of a task."""

    ids: Sequence[str]  # a tuple, or what reads it from a file as it is asked for
    texts: Sequence[str]
    fingerprint: str | None = None  # of the content, where it is known without reading it


Qrels = Mapping[str, Mapping[str, int]]  # query id -> passage id -> relevance, as in trec_eval


@dataclass(frozen=True)
class Task:
    """A retrieval task in one or more languages.

    A query id stands for the same question in every language that has it, so a query of language A
    is scored against the corpus of language B with `qrels[B]`. Queries of A without an entry in
    `qrels[B]` have no A -> B setting.
    """

    name: str
    queries: Mapping[str, Texts]  # by canonical language
    corpus: Mapping[str, Texts]
    qrels: Mapping[str, Qrels]  # by corpus language
    about: str = (
        ""  # one sentence, with the caveat that belongs beside every number of this task
    )
    # the corpora are translations of each other, so that a pool and rank distance make sense
    parallel: bool = True
    # queries are the corpus texts themselves, so a language is never searched in itself
    bitext: bool = False
    # source, revision, licence, fingerprint
    provenance: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()  # what a person should know who scores it, a sentence each
