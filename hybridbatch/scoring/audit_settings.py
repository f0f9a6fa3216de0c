"""The settings of `hybridbatch audit-bias`."""

from pathlib import Path

from hybridbatch.common.settings import EncoderSettings, Precision, setting


class AuditConfig(EncoderSettings):
    """Settings of `hybridbatch audit-bias`."""

    model: str = setting(
        "e5-small-q4",
        "Model",
        "Run folder, built-in name, local folder, or hub id; with --vectors, only a name.",
    )
    vectors: Path | None = setting(
        None,
        "Model",
        "Folder with queries.LANG.npy and corpus.LANG.npy, rows in the order of the task's files,"
        " instead of a model.",
    )
    debias: Path | None = setting(
        None,
        "Model",
        "Language vectors for the line beside; default: means of the task's own texts,"
        " cross-fitted.",
    )
    task: str = setting(
        "atlas",
        "Task",
        "A task whose passages are in several languages: built-in, or a folder in BEIR layout.",
    )
    languages: str = setting("all", "Task", "Languages to look at: ids, groups and exclusions.")
    data_root: Path | None = setting(
        None, "Task", "Folder that holds local copies of public data sets."
    )
    out: Path | None = setting(None, "Result", "Folder of the audit; default: audit-MODEL-TASK.")
    device: str = setting("auto", "Machine", "cpu, cuda, cuda:1 ...; auto: CUDA if there is one.")
    precision: Precision = setting(
        "auto", "Machine", "auto: bf16 where the machine computes it fast, else fp32."
    )
    cache: Path | None = setting(
        None, "Machine", "Folder of stored embeddings; default: the user's cache folder."
    )
    seed: int = setting(13, "Reproduction", "Seed of halves and intervals.", ge=0)
