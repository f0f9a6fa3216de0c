"""Hybrid batches in `SentenceTransformerTrainer` and in the `Trainer` of transformers."""

import re
import tracemalloc
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from sentence_transformers import (
    SentenceTransformer,
    SentenceTransformerTrainer,
    SentenceTransformerTrainingArguments,
)
from sentence_transformers.base.sampler import RoundRobinBatchSampler
from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss
from torch.utils.data import ConcatDataset
from transformers import TrainingArguments

from hybridbatch.common.errors import ConfigError
from hybridbatch.data.store.writer import write_store
from hybridbatch.integrations.pytorch import PairReader
from hybridbatch.integrations.sentence_transformers import HybridBatchSampler, HybridDataset
from hybridbatch.integrations.transformers import HybridTrainer
from hybridbatch.sampling.index import RecordIndex
from tests.helpers.parallel import rows
from tests.integrations.test_pytorch import expected_texts

PAGE = Path(__file__).parents[2] / "docs" / "integrations.md"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("prepared") / "toy"
    sources = [{"name": "toy"}]
    write_store(place, [*rows(24), *rows(9, "validation")], provenance={"sources": sources})
    return place


class Recorded(HybridDataset):
    """Keeps the batches that it was asked for."""

    seen: list[list[tuple[str, str]]]

    def __getitems__(self, keys):
        pairs = super().__getitems__(keys)
        self.seen.append([(pair["anchor"], pair["positive"]) for pair in pairs])
        return pairs


@pytest.fixture
def train(folder: Path, tiny_model: Path, tmp_path: Path) -> Callable:
    """Trains; returns the batches that the trainer took."""

    def run(resume: bool = False, **changes) -> list[list[tuple[str, str]]]:
        dataset = Recorded.open(folder)
        dataset.seen = []
        model = SentenceTransformer(str(tiny_model))
        settings = {
            "num_train_epochs": 2,
            "per_device_train_batch_size": 6,
            "batch_sampler": partial(HybridBatchSampler, mix=0.5),
            "seed": 5,
            "use_cpu": True,
            "report_to": [],
            "save_strategy": "no",
        }
        arguments = SentenceTransformerTrainingArguments(
            output_dir=str(tmp_path / "out"), **(settings | changes)
        )
        trainer = SentenceTransformerTrainer(
            model=model,
            args=arguments,
            train_dataset=dataset,
            loss=MultipleNegativesRankingLoss(model),
        )
        trainer.train(resume_from_checkpoint=resume or None)
        return dataset.seen

    return run


def test_the_trainer_takes_the_batches_of_train_over_two_epochs(train, folder: Path) -> None:
    assert train() == expected_texts(folder, mix=0.5, batch_size=6, steps=8, seed=5)


def test_a_resumed_run_goes_on_with_the_batches_it_would_have_had(train, folder: Path) -> None:
    expected = expected_texts(folder, mix=0.5, batch_size=6, steps=8, seed=5)
    train(max_steps=3, save_strategy="steps", save_steps=3)
    resumed = train(resume=True, save_strategy="steps", save_steps=100)
    assert resumed == expected[3:]


def test_rows_are_seen_as_a_dataset_of_pairs_within_a_language(folder: Path) -> None:
    dataset = HybridDataset.open(folder, languages="deu,swh")
    assert dataset.column_names == ["anchor", "positive"]
    assert len(dataset) == 48
    pairs = PairReader.open(folder, languages="deu,swh")
    assert dataset[7] == {"anchor": pairs[7]["query"], "positive": pairs[7]["passage"]}
    assert dataset.select([3, 1])[1] == dataset[1]
    # beyond the rows: query of row 0, passage of row 1, the same record in the other language
    mixed = dataset[48]
    assert mixed == {"anchor": dataset[0]["anchor"], "positive": dataset[1]["positive"]}


def test_data_without_records_are_refused(folder: Path) -> None:
    with pytest.raises(ConfigError, match=r"a Dataset does not say.*not with select"):
        HybridBatchSampler(HybridDataset.open(folder).select([0, 1]), 2)


def test_batches_are_not_taken_from_several_datasets(folder: Path) -> None:
    dataset = HybridDataset.open(folder)
    batches = RoundRobinBatchSampler(
        dataset=ConcatDataset([dataset, dataset]),
        batch_samplers=[HybridBatchSampler(dataset, 6), HybridBatchSampler(dataset, 6)],
    )
    with pytest.raises(ConfigError, match="from one dataset, not from several"):
        next(iter(batches))


def test_the_script_of_the_docs_trains_a_model(
    folder: Path, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = re.search(r"<!-- tested.*?-->\n```python\n(.*?)```", PAGE.read_text(), re.DOTALL)[
        1
    ]
    small = {
        '"intfloat/multilingual-e5-small"': repr(str(tiny_model)),
        '"data/mine"': repr(str(folder)),
        "per_device_train_batch_size=64": "per_device_train_batch_size=8, use_cpu=True",
    }
    for text, instead in small.items():
        assert text in script
        script = script.replace(text, instead)
    monkeypatch.chdir(tmp_path)
    exec(compile(script, str(PAGE), "exec"), {})
    trained = SentenceTransformer(str(tmp_path / "e5-hybrid" / "final"))
    assert trained.encode("dera ba ba").shape == (32,)


class Encoder(torch.nn.Module):
    """The least that the `Trainer` of transformers can train: lengths of texts."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(1))

    def forward(self, lengths: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"loss": (self.weight * lengths).mean()}


def test_the_trainer_of_transformers_takes_them_too(folder: Path, tmp_path: Path) -> None:
    seen = []

    def collate(pairs: list[dict[str, str]]) -> dict[str, torch.Tensor]:
        seen.append([(pair["query"], pair["passage"]) for pair in pairs])
        return {"lengths": torch.tensor([float(len(pair["query"])) for pair in pairs])}

    arguments = TrainingArguments(
        output_dir=str(tmp_path),
        num_train_epochs=1,
        per_device_train_batch_size=6,
        use_cpu=True,
        report_to=[],
        save_strategy="no",
        remove_unused_columns=False,
        seed=5,
    )
    trainer = HybridTrainer(
        model=Encoder(),
        args=arguments,
        train_dataset=PairReader.open(folder),
        data_collator=collate,
        mix=0,
    )
    trainer.train()
    assert seen == expected_texts(folder, mix=0, batch_size=6, steps=4, seed=5)


@pytest.mark.parametrize("languages", [2, 20])
def test_pairs_of_languages_take_no_memory(languages: int) -> None:
    """40,000 rows: 20 languages have 800,000 pairs, ten times as many as 2 languages."""
    count = 40_000
    records = count // languages
    index = RecordIndex(
        sources=("toy",),
        languages=tuple(f"l{number:02}" for number in range(languages)),
        record_start=np.arange(0, count + 1, languages),
        source=np.zeros(records, np.int16),
        group=np.arange(records, dtype=np.int32),
        language=np.tile(np.arange(languages, dtype=np.int16), records),
        has=np.full(count, 3, np.uint8),
    )
    texts = pa.chunked_array([pa.array([f"text {number}" for number in range(count)])])

    def read(rows: np.ndarray) -> list[str]:
        return [texts[row].as_py() for row in rows]

    arrow = pa.total_allocated_bytes()
    tracemalloc.start()
    dataset = HybridDataset(PairReader(index, read, read), texts, texts)
    sampler = HybridBatchSampler(dataset, 50, mix=0.5, steps=20)
    pairs = [pair for batch in sampler for pair in dataset.__getitems__(batch)]
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(pairs) == 1000
    assert pa.total_allocated_bytes() - arrow < 16 * count
    assert most < 100 * count
