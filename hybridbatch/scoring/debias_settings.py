"""The settings of `hybridbatch debias`."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Self

from pydantic import field_validator, model_validator

from hybridbatch.common.settings import (
    CacheSettings,
    DataRootSettings,
    EncoderSettings,
    MachineSettings,
    checked_language,
    setting,
)

if TYPE_CHECKING:
    from hybridbatch.debias.fit import Method


class DebiasConfig(EncoderSettings, DataRootSettings, MachineSettings, CacheSettings):
    """Settings of `hybridbatch debias`."""

    model: str = setting(
        "e5-small-q4", "Model", "Run folder, built-in name, local folder, or hub id."
    )
    text: tuple[str, ...] = setting(
        (),
        "Texts",
        "Text for the passages, at best the corpus to be searched: a folder with a file for"
        " each language (swh.txt, swh.jsonl) or with a folder for each (swh/), a folder of a"
        " retrieval task, one file with a column lang, one file without it (the languages are"
        " identified), or a built-in task by name. Separate several by commas.",
    )
    queries: tuple[str, ...] = setting(
        (),
        "Texts",
        "Text for the queries, in the same forms; default: the queries of the task folder,"
        " else as --query-estimate says.",
    )
    query_estimate: Literal["texts", "passages"] = setting(
        "passages",
        "Texts",
        "What replaces missing queries. passages: the vectors of the passages; texts: the texts,"
        " encoded as queries.",
    )
    texts_per_language: int = setting(
        1000,
        "Texts",
        "Number of texts used per language; of more texts, a random sample is drawn.",
        ge=1,
    )
    vectors: Path | None = setting(
        None,
        "Index",
        "Rewrite these stored passage vectors instead of encoding text: .npy, .parquet, a"
        " FAISS index (flat or IVF), or raw float16/float32 with --dimension.",
    )
    languages: Path | None = setting(
        None,
        "Index",
        "Languages of the stored vectors, in the same order: a text file with one language a"
        " line, or a column of the Parquet file.",
    )
    dimension: int | None = setting(
        None,
        "Index",
        "Number of dimensions of the vectors in a raw memory map, which does not state it.",
        ge=1,
    )
    dtype: Literal["float16", "float32"] = setting(
        "float16", "Index", "Number type of a raw memory map."
    )
    column: str = setting("vector", "Index", "Column of a Parquet file that holds the vectors.")
    debias: Path | None = setting(
        None, "Index", "Language vectors to apply; default: estimated from the stored vectors."
    )
    method: Literal["centre", "lir", "lsar", "shift", "whiten"] = setting(
        "centre",
        "Method",
        "centre: subtract a mean; lir: remove each language's principal directions; lsar:"
        " remove the subspace of the languages' means; shift: move passages to where the"
        " pivot language lies; whiten: centre and decorrelate.",
    )
    scope: Literal["language", "global"] = setting(
        "language", "Method", "centre, whiten: one mean for each language, or one mean for all."
    )
    together: bool | None = setting(
        None,
        "Method",
        "Make one estimate for queries and passages together instead of two; default: together"
        " when a mean of each language is subtracted, else two.",
    )
    rank: int | None = setting(
        None,
        "Method",
        "Number of directions to remove; lir: per language [1]; lsar: of the subspace [all].",
        ge=1,
    )
    alpha: float = setting(1.0, "Method", "shift: strength of the shift.", ge=0)
    pivot: str = setting(
        "eng", "Method", "shift: language to which the other languages are moved."
    )
    shrink: bool = setting(
        True,
        "Method",
        "Shrink the estimates of languages with few texts towards the global estimates.",
    )
    out: Path | None = setting(
        None,
        "Result",
        "Folder of the language vectors; with --vectors, the new file. Default: a name made"
        " from the input's name.",
    )
    save_model: Path | None = setting(
        None,
        "Result",
        "Folder in which the model is also saved, together with its language vectors.",
    )
    fold: Literal["language", "global"] = setting(
        "language",
        "Result",
        "What --save-model saves. language: all language vectors; loading it needs"
        " hybridbatch. global: the global mean alone, as a layer that sentence-transformers"
        " knows.",
    )
    seed: int = setting(13, "Reproduction", "Seed of the random sample of texts.", ge=0)

    _language = field_validator("pivot")(checked_language)

    @model_validator(mode="after")
    def _something_to_do(self) -> Self:
        if self.vectors is None and not self.text:
            raise ValueError(
                "there is nothing to estimate from; give --text FOLDER (any text by"
                " language, at best the corpus to be searched), or --vectors FILE (an"
                " existing index)"
            )
        if self.vectors is not None and self.text:
            raise ValueError(
                "--vectors does not go with --text, because it encodes nothing; give one of them"
            )
        if self.vectors is None and self.debias is not None:
            raise ValueError("--debias FILE is applied to --vectors; give --vectors, too")
        return self

    @model_validator(mode="after")
    def _nothing_without_effect(self) -> Self:
        if self.vectors is None:
            self._refuse(self._of_panel("Index"), "goes with --vectors")
        else:
            self._refuse([*self._of_panel("Texts"), "save_model"], "goes with --text")
        if self.debias is not None:
            self._refuse(self._of_panel("Method"), "goes with an estimate, not with --debias")
        others = {"scope", "rank", "alpha", "pivot"} - set(self.how.parameters)
        self._refuse(sorted(others), f"has no effect with --method {self.method}")
        return self

    @classmethod
    def _of_panel(cls, panel: str) -> list[str]:
        """The names of the settings in a panel of `--help`."""
        return [
            name
            for name, field in cls.model_fields.items()
            if field.json_schema_extra == {"panel": panel}
        ]

    def _refuse(self, names: Sequence[str], why: str) -> None:
        """Raise `ValueError` for the first of these settings that is not at its default."""
        for name in names:
            if getattr(self, name) != type(self).model_fields[name].default:
                raise ValueError(f"--{name.replace('_', '-')} {why}; leave it out")

    @property
    def joins_sides(self) -> bool:
        """Whether queries and passages have one estimate: `together`, or its default."""
        return self.how.by_mean_of_language if self.together is None else self.together

    @property
    def how(self) -> "Method":
        """The method and its parameters."""
        from hybridbatch.debias.fit import Method

        return Method(self.method, self.scope, self.rank, self.alpha, self.pivot, self.shrink)
