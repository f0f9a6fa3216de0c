"""The settings of `hybridbatch prepare` and `hybridbatch mine`."""

import codecs
import re
from pathlib import Path
from typing import Literal, Self

from pydantic import field_validator, model_validator

from hybridbatch.common.errors import DataError
from hybridbatch.common.languages import canonical
from hybridbatch.common.settings import (
    CacheSettings,
    DataRootSettings,
    EncoderSettings,
    MachineSettings,
    setting,
)


class PrepareConfig(DataRootSettings, MachineSettings):
    """Settings of `hybridbatch prepare`."""

    sources: tuple[str, ...] = setting(
        ("atlas",),
        "Data",
        "Names of built-in sources, or files and folders of your own; several are merged.",
    )
    out: Path | None = setting(None, "Data", "Folder for the prepared data; default: data/NAME.")
    columns: dict[str, str] = setting(
        {},
        "Your own files",
        "Columns by their part, as 'query=question,passage=answer,language=lang'; default: as their"
        " names say.",
    )
    language: str | None = setting(
        None, "Your own files", "Language of the rows of tables that do not say it, such as 'swh'."
    )
    encoding: str = setting(
        "auto",
        "Your own files",
        "Encoding of text files, such as 'cp1252'; auto: UTF-8, or as the file's first bytes say.",
    )
    max_bad_share: float = setting(
        0.05,
        "Your own files",
        "Stop if more than this share of a file's records cannot be used; fewer are left out and"
        " counted.",
        ge=0,
        le=1,
    )
    revision: dict[str, str] = setting(
        {},
        "Data",
        "Commits to read of sources that follow a branch, as 'webfaq=COMMIT'; default: the present"
        " ones.",
    )
    languages: str = setting(
        "all",
        "Selection",
        "Languages to keep: ids, groups and exclusions, such as 'low-resource,-swh'.",
    )
    limit: int | None = setting(None, "Selection", "At most so many records of each source.", ge=1)
    validation_share: float = setting(
        0.05,
        "Selection",
        "Share of records set aside for validation where the source has no split of its own.",
        ge=0,
        lt=1,
    )
    test_share: float = setting(
        0.0,
        "Selection",
        "Share of records set aside for testing, the same of every language, where the source has"
        " no test split; `hybridbatch eval MODEL --tasks data/NAME` scores them.",
        ge=0,
        lt=1,
    )
    equal_queries: Literal["apart", "together"] = setting(
        "apart",
        "Selection",
        "Records with the same query, whose passages are no negatives of each other: kept out of"
        " one batch, as those with the same passage are; together: not, as in data prepared before"
        " there was this setting.",
    )
    decontaminate: tuple[str, ...] = setting(
        ("all",),
        "Decontamination",
        "Evaluation tasks whose texts are kept out, as 'xquad-r,belebele-sib'; all: every one that"
        " no source is made of"
        " and that is on this machine; none: no check.",
    )
    check_language: bool = setting(
        False, "Bad rows", "Leave out rows whose query or passage is hardly in the row's language."
    )
    markup: Literal["keep", "remove"] = setting(
        "keep",
        "Bad rows",
        "Tags, character references and link syntax in texts: counted, or taken out as well.",
    )
    max_characters: int | None = setting(
        None,
        "Bad rows",
        "Leave out rows whose query or passage is longer; default: no limit.",
        ge=1,
    )
    duplicates: Literal["keep", "remove"] = setting(
        "keep",
        "Bad rows",
        "Rows that repeat a query and its passage: counted, or left out but for the first.",
    )
    strict: bool = setting(
        False, "Bad rows", "Stop at the first bad row instead of counting and listing it."
    )
    translate_to: tuple[str, ...] = setting(
        (),
        "Translation",
        "Languages that every record gets by machine translation where it lacks them:"
        " 'swh,yor,amh'.",
    )
    translator: str | None = setting(
        None,
        "Translation",
        "Folder or hub id of an NLLB-200 or M2M-100 model, such as"
        " facebook/nllb-200-distilled-600M, or an"
        " OpenAI-compatible address with a model, as http://HOST/v1#MODEL.",
    )
    translate_from: tuple[str, ...] = setting(
        ("eng",),
        "Translation",
        "Languages to translate from, best first; after them the best resourced ones.",
    )
    beams: int = setting(
        4,
        "Translation",
        "Beams of the search of a local model; 1: greedy. Nothing is sampled.",
        ge=1,
    )
    batch_tokens: int = setting(
        4096, "Translation", "Tokens of a batch of a local model, padding included.", ge=64
    )
    seed: int = setting(13, "Reproduction", "Seed of every random choice.", ge=0)

    @field_validator("revision")
    @classmethod
    def _commits(cls, commits: dict[str, str]) -> dict[str, str]:
        for commit in commits.values():
            if not re.fullmatch("[0-9a-f]{40}", commit):
                raise ValueError(
                    "must name commits in full, 40 hexadecimal digits, as source=commit"
                )
        return commits

    @model_validator(mode="after")
    def _translatable(self) -> Self:
        if bool(self.translate_to) != bool(self.translator):
            raise ValueError("translate_to and translator go together; give both, or neither")
        return self

    @field_validator("language")
    @classmethod
    def _known_language(cls, code: str | None) -> str | None:
        if code is None:
            return None
        try:
            return canonical(code)
        except DataError as error:
            raise ValueError(str(error)) from error

    @field_validator("encoding")
    @classmethod
    def _known_encoding(cls, name: str) -> str:
        try:
            return name if name == "auto" else codecs.lookup(name).name
        except LookupError:
            raise ValueError(
                "no such encoding; use utf-8, utf-16, cp1252 (Windows), latin-1 or another that"
                " Python knows"
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
        "atlas", "Data", "Prepared data folder, or a built-in source that is then prepared first."
    )
    out: Path | None = setting(
        None, "Data", "Folder for the data with negatives; default: data/NAME-METHOD."
    )
    languages: str = setting(
        "all",
        "Selection",
        "Languages whose rows get negatives, such as 'low-resource,-swh'; others keep what they"
        " have.",
    )
    keep_given: bool = setting(
        False, "Selection", "Keep the negatives that rows have, before the mined ones."
    )
    corpus: Literal["source", "language"] = setting(
        "source",
        "Search",
        "Passages to search: those of the row's language and source, or of its language.",
    )
    method: Literal["bm25", "dense"] = setting(
        "bm25", "Search", "Search by words, or with the encoder --model."
    )
    query_languages: str = setting(
        "own",
        "Search",
        "own: search with the row's own query; else with its record's queries in these languages,"
        " such as 'all' or"
        " 'eng,swh', a passage's score being its best, for negatives that are hard across languages"
        " (dense only).",
    )
    debias: Path | None = setting(
        None,
        "Search",
        "Language vectors to take off the embeddings: what `hybridbatch debias` wrote (dense only).",
    )
    depth: int = setting(100, "Search", "Passages looked at per query, the best first.", ge=1)
    index: Literal["exact", "ivf", "ivfpq"] = setting(
        "exact", "Search", "Dense search: exact, or through an approximate FAISS index."
    )
    model: str = setting(
        "e5-small-q4", "Model", "Built-in name, local folder, run folder or hub id of the encoder."
    )
    negatives: int = setting(5, "Negatives", "Most negatives per row.", ge=1)
    positive_share: float | None = setting(
        0.95,
        "Negatives",
        "Only passages that score below this share of the positive's score (TopK-PercPos of"
        " arXiv:2407.15831); none: no"
        " such limit.",
        gt=0,
        le=1,
    )
    share_of: Literal["height", "score"] = setting(
        "height",
        "Negatives",
        "What shares are taken of: the score's height above the query's mean score over all"
        " passages, as some encoders"
        " give unrelated texts 0.7; or, as in the paper, the score. The same for BM25.",
    )
    positive_margin: float | None = setting(
        None,
        "Negatives",
        "Only passages that score below the positive's score less this (TopK-MarginPos).",
        ge=0,
    )
    max_score: float | None = setting(
        None, "Negatives", "Only passages that score below this (TopK-Abs)."
    )
    skip_first: int = setting(
        0,
        "Negatives",
        "Leave out the first so many passages of each search that are not known to be positive.",
        ge=0,
    )
    seed: int = setting(
        13, "Reproduction", "Seed of the sample that an approximate index is trained on.", ge=0
    )

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.method == "bm25" and self.query_languages != "own":
            raise ValueError(
                f"query_languages {self.query_languages!r} needs --method dense: BM25 compares"
                " words, and finds nothing"
                " with a query in another language; leave it out, and the passages of every"
                " language are searched with"
                " the record's own query in that language, which cross-lingual batches can use, too"
            )
        return self
