"""The settings of `hybridbatch prepare` and `hybridbatch mine`."""

import codecs
import io
import re
from pathlib import Path
from typing import Literal, Self

from pydantic import field_validator, model_validator

from hybridbatch.common.settings import (
    CacheSettings,
    DataRootSettings,
    EncoderSettings,
    MachineSettings,
    checked_language,
    setting,
    wanted_recall,
)


class PrepareConfig(DataRootSettings, MachineSettings):
    """Settings of `hybridbatch prepare`."""

    sources: tuple[str, ...] = setting(
        ("atlas",),
        "Data",
        "Names of built-in sources, or your own files and folders; several sources are merged.",
    )
    out: Path | None = setting(
        None, "Data", "Folder for the prepared data; default: data/NAME."
    )
    columns: dict[str, str] = setting(
        {},
        "Your own files",
        "Which column holds which part, such as"
        " 'query=question,passage=answer,language=lang'; default: the names of the columns"
        " decide.",
    )
    language: str | None = setting(
        None,
        "Your own files",
        "Language of tables that have no language column, such as 'swh'.",
    )
    encoding: str = setting(
        "auto",
        "Your own files",
        "Encoding of text files, such as 'cp1252'; auto: UTF-8, or the encoding that the"
        " first bytes of the file show.",
    )
    max_bad_share: float = setting(
        0.05,
        "Your own files",
        "Largest share of unusable records in a file: beyond it the command stops, up to it"
        " these records are left out and counted.",
        ge=0,
        le=1,
    )
    revision: dict[str, str] = setting(
        {},
        "Data",
        "Commits to read of sources that follow a branch, such as 'webfaq=COMMIT'; default:"
        " the newest commits.",
    )
    languages: str = setting(
        "all",
        "Selection",
        "Languages to keep: ids, groups and exclusions, such as 'low-resource,-swh'.",
    )
    source_languages: dict[str, str] = setting(
        {},
        "Selection",
        "Languages to keep of single sources, within --languages, such as"
        " 'mfaq=eng,mrtydi=eng;swh'.",
    )
    limit: int | None = setting(
        None, "Selection", "Largest number of records of each source.", ge=1
    )
    record_share: float = setting(
        1.0,
        "Selection",
        "Share of the records of each source to keep, drawn at random: a small version of the"
        " same data. At least 200 records of a source are kept, or all that it has.",
        gt=0,
        le=1,
    )
    validation_share: float = setting(
        0.05,
        "Selection",
        "Share of records set aside for validation, for sources without a validation split.",
        ge=0,
        lt=1,
    )
    test_share: float = setting(
        0.0,
        "Selection",
        "Share of records set aside for testing, for sources without a test split. A record"
        " is set aside in all its languages. `hybridbatch eval MODEL --tasks data/NAME`"
        " scores this split.",
        ge=0,
        lt=1,
    )
    equal_queries: Literal["apart", "together"] = setting(
        "apart",
        "Selection",
        "Records that have the same query: apart keeps them out of one batch, because their"
        " passages are not negatives of each other; together does not, as in data prepared"
        " before this setting existed.",
    )
    decontaminate: tuple[str, ...] = setting(
        ("all",),
        "Decontamination",
        "Evaluation tasks whose texts are kept out of the data, such as"
        " 'xquad-r,belebele-sib'; all: every task that is on this machine and of which no"
        " source is made; none: no check.",
    )
    check_language: bool = setting(
        False,
        "Bad rows",
        "Leave out rows whose query or passage is hardly in the language of the row.",
    )
    markup: Literal["keep", "remove"] = setting(
        "keep",
        "Bad rows",
        "Tags, character references and link syntax in texts: count them, or also take them out.",
    )
    max_characters: int | None = setting(
        None,
        "Bad rows",
        "Leave out rows whose query or passage is longer than this; default: no limit.",
        ge=1,
    )
    duplicates: Literal["keep", "remove"] = setting(
        "keep",
        "Bad rows",
        "Rows that repeat both the query and the passage of another row: count them, or keep"
        " the first one only.",
    )
    strict: bool = setting(
        False, "Bad rows", "Stop at the first bad row instead of counting and listing bad rows."
    )
    translate_to: tuple[str, ...] = setting(
        (),
        "Translation",
        "Languages into which records that lack them are machine-translated: 'swh,yor,amh'.",
    )
    translator: str | None = setting(
        None,
        "Translation",
        "Model that translates: folder or hub id of an NLLB-200 or M2M-100 model, such as"
        " facebook/nllb-200-distilled-600M, or an OpenAI-compatible address with a model,"
        " such as http://HOST/v1#MODEL.",
    )
    translate_from: tuple[str, ...] = setting(
        ("eng",),
        "Translation",
        "Languages to translate from, the best first; the best resourced languages follow them.",
    )
    translate_sources: tuple[str, ...] = setting(
        (), "Translation", "Sources whose records are translated; default: all sources."
    )
    beams: int = setting(
        4,
        "Translation",
        "Number of beams in the search of a local model; 1: greedy search. Nothing is sampled.",
        ge=1,
    )
    batch_tokens: int = setting(
        4096,
        "Translation",
        "Number of tokens in a batch of a local model, padding included.",
        ge=64,
    )
    seed: int = setting(13, "Reproduction", "Seed of every random choice.", ge=0)

    @field_validator("revision")
    @classmethod
    def _commits(cls, commits: dict[str, str]) -> dict[str, str]:
        for commit in commits.values():
            if not re.fullmatch("[0-9a-f]{40}", commit):
                raise ValueError(
                    "must name full commits of 40 hexadecimal digits, as source=commit"
                )
        return commits

    @model_validator(mode="after")
    def _translatable(self) -> Self:
        if bool(self.translate_to) != bool(self.translator):
            raise ValueError("translate_to and translator go together; give both, or neither")
        if self.translate_sources and not self.translate_to:
            raise ValueError("translate_sources does nothing without translate_to; set both")
        if self.limit is not None and self.record_share < 1:
            raise ValueError("limit and record_share exclude each other; leave one of them out")
        return self

    _language = field_validator("language")(checked_language)

    @field_validator("encoding")
    @classmethod
    def _known_encoding(cls, name: str) -> str:
        if name == "auto":
            return name
        try:
            encoded = io.BytesIO("id\n".encode(name))
            io.TextIOWrapper(encoded, name, "surrogateescape").read()  # as files are read
            return codecs.lookup(name).name
        except (LookupError, UnicodeError):
            raise ValueError(
                "is no known encoding of text; use utf-8, utf-16, cp1252 (Windows), latin-1 or"
                " another that Python knows"
            ) from None

    @field_validator("decontaminate")
    @classmethod
    def _checks(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        if not names or (len(names) > 1 and {"all", "none"} & set(names)):
            raise ValueError("must be names of tasks, or 'all' or 'none' alone")
        return names


class MineConfig(EncoderSettings, DataRootSettings, MachineSettings, CacheSettings):
    """Settings of `hybridbatch mine`."""

    data: str = setting(
        "atlas", "Data", "Prepared data folder, or a built-in source, which is prepared first."
    )
    out: Path | None = setting(
        None, "Data", "Folder for the data with negatives; default: data/NAME-METHOD."
    )
    languages: str = setting(
        "all",
        "Selection",
        "Languages whose rows get negatives, such as 'low-resource,-swh'; rows in other"
        " languages keep the negatives they have.",
    )
    keep_given: bool = setting(
        False, "Selection", "Keep the negatives that rows already have, before the mined ones."
    )
    corpus: Literal["source", "language"] = setting(
        "source",
        "Search",
        "Passages to search, in the language of the row. source: of its source; language: of all.",
    )
    method: Literal["bm25", "dense"] = setting(
        "bm25", "Search", "Search by words (bm25), or with the encoder --model (dense)."
    )
    query_languages: str = setting(
        "own",
        "Search",
        "Queries to search with. own: the row's own query; languages such as 'all' or"
        " 'eng,swh': the queries of the record in these languages, where a passage counts"
        " with its best score (dense only). Such negatives are hard across languages.",
    )
    debias: Path | None = setting(
        None,
        "Search",
        "Language vectors to subtract from the embeddings, as written by `hybridbatch"
        " debias` (dense only).",
    )
    depth: int = setting(
        100, "Search", "Number of passages looked at per query, from the best down.", ge=1
    )
    index: Literal["exact", "ivf", "ivfpq"] = setting(
        "exact", "Search", "Dense search: exact, or approximate with a FAISS index."
    )
    recall: float = wanted_recall()
    model: str = setting(
        "e5-small-q4", "Model", "Encoder: built-in name, local folder, run folder or hub id."
    )
    negatives: int = setting(5, "Negatives", "Largest number of negatives per row.", ge=1)
    positive_share: float | None = setting(
        0.95,
        "Negatives",
        "Keep only passages that score below this share of the positive's score"
        " (TopK-PercPos of arXiv:2407.15831); none: no limit.",
        gt=0,
        le=1,
    )
    share_of: Literal["height", "score"] = setting(
        "height",
        "Negatives",
        "Score of which shares are taken. height: the score minus the query's mean score"
        " over all passages, because some encoders give unrelated texts 0.7; score: the"
        " score itself, as in the paper. With BM25 the two are equal.",
    )
    positive_margin: float | None = setting(
        None,
        "Negatives",
        "Keep only passages that score at least this much below the positive (TopK-MarginPos).",
        ge=0,
    )
    max_score: float | None = setting(
        None, "Negatives", "Keep only passages that score below this value (TopK-Abs)."
    )
    skip_first: int = setting(
        0,
        "Negatives",
        "Number of first passages of each search to leave out, not counting known positives.",
        ge=0,
    )
    seed: int = setting(
        13,
        "Reproduction",
        "Seed of the samples that train and tune an approximate index.",
        ge=0,
    )

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.method == "bm25" and self.query_languages != "own":
            raise ValueError(
                f"query_languages {self.query_languages!r} needs --method dense: BM25"
                " compares words, and finds nothing with a query in another language. Leave"
                " query_languages out: then the record's own query in each language searches"
                " the passages of this language, and cross-lingual batches can use these"
                " negatives, too"
            )
        return self
