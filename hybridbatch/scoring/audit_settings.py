"""The settings of `hybridbatch audit-bias`."""

from pathlib import Path

from hybridbatch.common.settings import EncoderSettings, Precision, setting


class AuditConfig(EncoderSettings):
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
    data_root: Path | None = setting(
        None, "Task", "Folder that holds local copies of public data sets."
    )
    out: Path | None = setting(
        None, "Result", "Folder of the audit; default: audit-MODEL-TASK."
    )
    device: str = setting(
        "auto", "Machine", "cpu, cuda, cuda:1 ...; auto: CUDA if there is one."
    )
    precision: Precision = setting(
        "auto",
        "Machine",
        "Number format; auto: bf16 if the machine computes it fast, else fp32.",
    )
    cache: Path | None = setting(
        None, "Machine", "Folder of stored embeddings; default: the user's cache folder."
    )
    seed: int = setting(13, "Reproduction", "Seed of the halves and the intervals.", ge=0)
