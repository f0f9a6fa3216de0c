"""The settings of `hybridbatch search`."""

from pathlib import Path

from hybridbatch.common.settings import (
    CacheSettings,
    DataRootSettings,
    EncoderSettings,
    KernelSettings,
    MachineSettings,
    setting,
)


class SearchConfig(
    EncoderSettings, DataRootSettings, MachineSettings, KernelSettings, CacheSettings
):
    """Settings of `hybridbatch search`."""

    model: str = setting(
        "e5-small-q4", "Model", "Run folder, built-in name, local folder, or hub id."
    )
    debias: Path | None = setting(
        None,
        "Model",
        "Language vectors to subtract from the embeddings, as written by `hybridbatch debias`.",
    )
    query_language: str | None = setting(
        None,
        "Search",
        "Language of the queries, for --debias; default: the language is identified.",
    )
    corpus: str | None = setting(
        None,
        "Corpus",
        "File of passages (.jsonl, .tsv, .csv, .parquet, .txt), folder of a task, or"
        " built-in task.",
    )
    corpus_language: str | None = setting(
        None, "Corpus", "Language of the passages that state none."
    )
    language: str = setting(
        "all",
        "Search",
        "Search only passages in these languages: ids, groups and exclusions, such as"
        " 'swh,low-resource'.",
    )
    k: int = setting(10, "Search", "Number of passages shown for each query.", ge=1)
