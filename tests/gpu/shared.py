"""One of two processes that share the pretended GPU: prints the losses of a short training."""

import json
import os
import sys
import tempfile
from pathlib import Path

from tests.helpers import pretend_cuda

pretend_cuda.install()

import torch  # noqa: E402

from hybridbatch.common.device import resolve_device  # noqa: E402
from hybridbatch.common.distributed import join  # noqa: E402
from hybridbatch.common.errors import ConfigError  # noqa: E402
from tests.helpers.tiny import write_tiny_model  # noqa: E402
from tests.helpers.trainers import make_trainer  # noqa: E402


def main() -> None:
    """Train on the share of this process."""
    torch.set_num_threads(1)
    folder = Path(tempfile.mkdtemp())
    model = write_tiny_model(folder / "model", "bert", dropout=0.0, layers=1)
    refused = ""
    if os.environ.get("WORLD_SIZE", "1") != "1":
        try:
            resolve_device("cuda:0")
        except ConfigError as error:
            refused = str(error)
    with pretend_cuda.PretendCuda(), join(resolve_device("cuda")) as workers:
        trainer = make_trainer(model, folder / "run", workers=workers, steps=3, validate=False)
        trainer.train()
        found = {"losses": trainer.losses, "meeting": str(workers.meeting), "refused": refused}
        print(json.dumps(found))


if __name__ == "__main__":
    sys.exit(main())
