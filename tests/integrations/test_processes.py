"""Two processes of torchrun (gloo) together take the batches of `train`, and go on after a stop."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from hybridbatch.data.store.writer import write_store
from tests.helpers.parallel import rows
from tests.integrations.test_pytorch import expected_texts

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

COMMON = """
import json, os, sys
from functools import partial
from pathlib import Path

folder, model, out, stop = sys.argv[1:]
settings = dict(
    output_dir=out, num_train_epochs=2, per_device_train_batch_size=3, seed=5, use_cpu=True,
    report_to=[], save_strategy="steps", save_steps=3, max_steps=int(stop), disable_tqdm=True,
)
resume = str(Path(out, "checkpoint-3")) if Path(out, "checkpoint-3").is_dir() else None
seen = []

def keep():
    name = f"seen-{os.environ['RANK']}-{'first' if resume is None else 'resumed'}.json"
    Path(out, name).write_text(json.dumps(seen))
"""
SENTENCE_TRANSFORMERS = (
    COMMON
    + """
from sentence_transformers import (
    SentenceTransformer, SentenceTransformerTrainer, SentenceTransformerTrainingArguments,
)
from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss
from hybridbatch.integrations.sentence_transformers import HybridBatchSampler, HybridDataset

class Recorded(HybridDataset):
    def __getitems__(self, keys):
        pairs = super().__getitems__(keys)
        seen.append([(pair["anchor"], pair["positive"]) for pair in pairs])
        return pairs

encoder = SentenceTransformer(model)
trainer = SentenceTransformerTrainer(
    model=encoder,
    args=SentenceTransformerTrainingArguments(
        batch_sampler=partial(HybridBatchSampler, mix=0.5), **settings
    ),
    train_dataset=Recorded.open(folder),
    loss=MultipleNegativesRankingLoss(encoder, gather_across_devices=True),
)
trainer.train(resume_from_checkpoint=resume)
keep()
"""
)
TRANSFORMERS = (
    COMMON
    + """
import torch
from transformers import TrainingArguments
from hybridbatch.integrations.pytorch import PairReader
from hybridbatch.integrations.transformers import HybridTrainer

class Lengths(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(1))

    def forward(self, lengths):
        return {"loss": (self.weight * lengths).mean()}

def collate(pairs):
    seen.append([(pair["query"], pair["passage"]) for pair in pairs])
    return {"lengths": torch.tensor([float(len(pair["query"])) for pair in pairs])}

trainer = HybridTrainer(
    model=Lengths(),
    args=TrainingArguments(remove_unused_columns=False, **settings),
    train_dataset=PairReader.open(folder), data_collator=collate, mix=0.5,
)
trainer.train(resume_from_checkpoint=resume)
keep()
"""
)


def run(script: str, place: Path, folder: Path, model: Path, steps: int) -> None:
    (place / "script.py").write_text(script)
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]
    command += ["--rdzv-backend", "c10d", "--rdzv-endpoint", "localhost:0"]
    command += [str(place / "script.py"), str(folder), str(model), str(place), str(steps)]
    root = str(Path(__file__).parents[2])
    done = subprocess.run(
        command, env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": root},
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]


def joined(place: Path, which: str) -> list[list[tuple[str, str]]]:
    """The batches of both processes, each step's parts together."""
    parts = [json.loads((place / f"seen-{rank}-{which}.json").read_text()) for rank in (0, 1)]
    steps = zip(*parts, strict=True)
    return [[tuple(pair) for pair in first + second] for first, second in steps]


@pytest.mark.parametrize("script", [SENTENCE_TRANSFORMERS, TRANSFORMERS], ids=["st", "hf"])
def test_two_processes_share_the_batches_of_train_and_resume(
    script: str, tiny_model: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "toy"
    write_store(
        folder, [*rows(24), *rows(9, "validation")], provenance={"sources": [{"name": "toy"}]}
    )
    expected = expected_texts(folder, mix=0.5, batch_size=6, steps=8, seed=5)
    place = tmp_path / "out"
    place.mkdir()
    run(script, place, folder, tiny_model, steps=3)
    assert joined(place, "first")[:3] == expected[:3]
    run(script, place, folder, tiny_model, steps=8)
    assert joined(place, "resumed")[-5:] == expected[3:]
