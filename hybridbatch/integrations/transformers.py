"""Hybrid batches for the `Trainer` of transformers.

`HybridTrainer` is `Trainer` with hybrid batches; the model, the loss and the collator are yours.
The collator gets a list of ``{"query": ..., "passage": ...}``.
"""

from typing import Any

from torch.utils.data import DataLoader
from transformers import Trainer

from hybridbatch.integrations.pytorch import HybridBatchSampler, PairReader


class HybridTrainer(Trainer):
    """`Trainer` over a `PairReader`, in hybrid batches.

    Args:
        train_dataset: the pairs.
        mix: chance of a monolingual batch, 0 to 1.
        schedule: further settings of `HybridBatchSampler`, such as ``strategy``.
        others: as for `Trainer`. Its `args.seed` is the seed of the batches.
    """

    def __init__(
        self,
        *others: Any,
        train_dataset: PairReader,
        mix: float = 0.5,
        schedule: dict[str, Any] | None = None,
        **settings: Any,
    ) -> None:
        super().__init__(*others, train_dataset=train_dataset, **settings)
        self._schedule = {"mix": mix, **(schedule or {})}

    def get_train_dataloader(self) -> DataLoader:
        """The batches of this process."""
        size, seed = self.args.train_batch_size, self.args.seed
        sampler = HybridBatchSampler(self.train_dataset, size, seed=seed, **self._schedule)
        loader = DataLoader(
            self.train_dataset,
            batch_sampler=sampler,
            collate_fn=self.data_collator,
            num_workers=self.args.dataloader_num_workers,
            pin_memory=self.args.dataloader_pin_memory,
        )
        self.accelerator.even_batches = False  # every process has its part of every step
        return self.accelerator.prepare(loader)
