"""Encoding by all processes of a run together: each process embeds a part of the texts."""

from collections.abc import Sequence

import numpy as np
import torch

from hybridbatch.common.distributed import Workers
from hybridbatch.common.progress import SILENT, Reporter
from hybridbatch.common.settings import ResolvedPrecision
from hybridbatch.model.encoder import Encoder
from hybridbatch.model.layout import Side

BLOCK = 1 << 16  # texts of all processes together between two exchanges


class SharedEncoder:
    """An encoder that every process has loaded.

    Args:
        encoder: the same on every process, on the process's device.
        workers: the processes.
        precision: of the matrix products.
    """

    def __init__(
        self, encoder: Encoder, workers: Workers, precision: ResolvedPrecision
    ) -> None:
        self.encoder, self.workers, self.precision = encoder, workers, precision

    def encode(
        self, texts: Sequence[str], side: Side, report: Reporter = SILENT
    ) -> np.ndarray | None:
        """float32 [n, D] as `Encoder.encode` on the first process, None on the others.

        Args:
            texts: the same on every process, which all call this.
        Raises: as `Encoder.encode`.
        """
        encode, workers = self.encoder.encode, self.workers
        if workers.size == 1:
            return encode(texts, side, precision=self.precision, report=report)
        # Every process gets long and short texts alike.
        order = np.argsort([len(text) for text in texts], kind="stable")
        found = np.empty((len(texts), self.encoder.dimension), np.float32)
        with report.bar("encode", total=len(texts), unit="texts") as bar:
            for start in range(0, len(order), BLOCK):
                block = order[start : start + BLOCK]
                shares = [block[rank :: workers.size] for rank in range(workers.size)]
                wanted = [texts[row] for row in shares[workers.rank]]
                mine = encode(wanted, side, precision=self.precision)
                rows = torch.from_numpy(mine).to(workers.meeting)
                gathered = workers.gather(rows, [len(share) for share in shares])
                if workers.leads:
                    found[np.concatenate(shares)] = gathered.cpu().numpy()
                bar.advance(len(block))
        return found if workers.leads else None
