"""The part of `hybridbatch eval` that orders the first passages of every ranking anew."""

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from hybridbatch.common.progress import SILENT, Reporter
from hybridbatch.common.records import Task
from hybridbatch.common.settings import ResolvedPrecision
from hybridbatch.scoring.ranks import GridRanks, Ranks
from hybridbatch.scoring.reranking.models import Reranker, load_reranker

if TYPE_CHECKING:
    import torch


class SecondStage:
    """A reranker for the first `depth` passages of all rankings of a task; passages below stay
    where they are.
    """

    def __init__(self, reranker: Reranker, depth: int, report: Reporter = SILENT) -> None:
        self.reranker = reranker
        self.depth = depth
        self.report = report

    @classmethod
    def load(
        cls,
        name: str,
        depth: int,
        device: "torch.device",
        precision: ResolvedPrecision,
        report: Reporter = SILENT,
    ) -> "SecondStage":
        """The second stage of an evaluation.

        Args:
            name: folder or hub id of the reranker.
            depth: passages of every ranking that it orders.
        Raises: `ModelError`, `ConfigError`.
        """
        reranker = load_reranker(name, device=device, precision=precision, report=report)
        return cls(reranker, depth, report)

    def announce(self, tasks: Sequence[Task]) -> None:
        """Say what the second stage will cost, before anything is scored."""
        for task in tasks:
            queries = [text for texts in task.queries.values() for text in texts.texts]
            passages = [text for texts in task.corpus.values() for text in texts.texts]
            depth = min(self.depth, len(passages))
            cost = self.reranker.cost(rankings(task), depth, queries, passages)
            self.report.note(
                f"reranking of {task.name} by {self.reranker.name} ({self.reranker.kind}): {cost}"
            )

    def rerank(self, task: Task, language: str, ranked: GridRanks) -> GridRanks:
        """The ranks of the queries of a language after the first passages of every ranking were
        ordered anew.
        """
        passages = [text for texts in task.corpus.values() for text in texts.texts]
        every = {("language", name): ranks for name, ranks in ranked.languages.items()}
        every |= {("pool", name): ranks for name, ranks in ranked.pools.items()}
        tops = {
            "/".join(key): np.where(ranks.judged[:, None], ranks.top, -1)
            for key, ranks in every.items()
            if ranks.top is not None
        }
        orders = self.reranker.orders(task.queries[language].texts, tops, passages, self.report)
        moved = {key: reorder(ranks, orders["/".join(key)]) for key, ranks in every.items()}
        return GridRanks(
            {name: moved["language", name] for name in ranked.languages},
            {name: moved["pool", name] for name in ranked.pools},
        )

    def facts(self) -> dict[str, Any]:
        """What it is and did, for eval.json."""
        return {
            "name": self.reranker.name,
            "kind": self.reranker.kind,
            "depth": self.depth,
            **self.reranker.facts(),
        }


def rankings(task: Task) -> int:
    """How many rankings an evaluation of a task makes at most: one for each query in each corpus
    and the pool.
    """
    total = 0
    for language, texts in task.queries.items():
        searched = [name for name in task.qrels if not (task.bitext and name == language)]
        total += len(texts.ids) * (len(searched) + task.parallel)
    return total


def reorder(ranked: Ranks, order: np.ndarray) -> Ranks:
    """The ranks once the first k passages are in another order; deeper ranks stay.

    Args:
        ranked: with its first k passages or more.
        order: int [Q, k], the places (from 0) of the former order, best first.
    """
    k = order.shape[1]
    after = np.empty_like(order)
    np.put_along_axis(after, order, np.broadcast_to(np.arange(1, k + 1), order.shape), axis=1)
    among = (ranked.ranks > 0) & (ranked.ranks <= k)
    moved = np.take_along_axis(after, np.where(among, ranked.ranks - 1, 0), axis=1)
    top = None if ranked.top is None else np.take_along_axis(ranked.top, order, axis=1)
    return replace(ranked, ranks=np.where(among, moved, ranked.ranks), top=top, translated=None)
