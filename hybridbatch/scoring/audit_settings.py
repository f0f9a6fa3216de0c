"""The settings of `hybridbatch audit-bias`."""

from pathlib import Path

from hybridbatch.common.settings import (
    CacheSettings,
    DataRootSettings,
    EncoderSettings,
    MachineSettings,
    setting,
)


class AuditConfig(EncoderSettings, DataRootSettings, MachineSettings, CacheSettings):
    """Settings of `hybridbatch audit-bias`."""

    model: str = setting(
        "e5-small-q4",
        "Model",
        "Run folder, built-in name, local folder, or hub id; with --vectors, any name.",
    )
    vectors: Path | None = setting(
        None,
        "Model",
        "Folder with queries.LANG.npy and corpus.LANG.npy to read instead of running a"
        " model; rows are in the order of the task's files.",
    )
    debias: Path | None = setting(
        None,
        "Model",
        "Language vectors to compare with; default: the means of the task's own texts,"
        " cross-fitted.",
    )
    task: str = setting(
        "atlas",
        "Task",
        "Task with passages in several languages: a built-in task, or a folder in BEIR layout.",
    )
    languages: str = setting("all", "Task", "Languages to audit: ids, groups and exclusions.")
    out: Path | None = setting(
        None, "Result", "Folder of the audit; default: audit-MODEL-TASK."
    )
    seed: int = setting(13, "Reproduction", "Seed of the halves and the intervals.", ge=0)
