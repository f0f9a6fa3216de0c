"""Evaluation under torchrun: every process encodes its share, then the first one scores."""

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING

from hybridbatch.common.distributed import Workers, join
from hybridbatch.common.progress import SILENT, Reporter
from hybridbatch.common.provenance import versions
from hybridbatch.common.records import Task, Texts

if TYPE_CHECKING:
    import torch

    from hybridbatch.scoring.top_k import Search
    from hybridbatch.search.embeddings import EmbeddingStore


def share_encoding(
    store: "EmbeddingStore",
    tasks: Iterable[Task],
    searches: "Mapping[str, Search]",
    device: "torch.device",
    whole: "Callable[[slice], None]",
    report: Reporter = SILENT,
) -> None:
    """Put the vectors of all texts into the store; each process encodes its share.

    It does nothing if this process is alone. The store is on a disk that the processes share. If
    the first process has another disk, it encodes the texts that it does not find there itself.

    Args:
        tasks: of the evaluation.
        searches: by task name, the tasks that are searched block by block.
        whole: encodes those of mteb's own tasks that the slice chooses; a process takes whole tasks.

    Raises:
        ConfigError: processes differ in versions or model.
    """
    with join(device) as workers:
        if workers.size == 1:
            return
        workers.require_same(versions() | {"model": store.fingerprint})
        for search in searches.values():
            search.encode((workers.rank + 1, workers.size))
        for task in tasks:
            if task.name in searches:
                continue
            store.embed(_share(task.queries, workers), "query", report)
            store.embed(_share(task.corpus, workers), "passage", report)
        whole(slice(workers.rank, None, workers.size))
        workers.wait()


def _share(side: Mapping[str, Texts], workers: Workers) -> list[str]:
    """The distinct texts that a process encodes; each process gets long and short texts alike."""
    distinct: dict[str, None] = {}
    for texts in side.values():
        distinct |= dict.fromkeys(texts.texts)
    return sorted(distinct, key=len)[workers.rank :: workers.size]
