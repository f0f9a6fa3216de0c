"""Estimate what cells cost before any cell has run, from counts of tokens and a short probe.

The probe encodes and trains on a few texts of the task with the model itself, for about two
seconds. The cache keeps its two numbers, seconds per token, for this model on this machine. The
rest follows from counts: the tokens that a cell draws for training and validation, and the tokens
that its evaluation encodes. Ranking is not counted, because it takes a small part of that time.
"""

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from hybridbatch.common.errors import DataError
from hybridbatch.common.files import cache_folder, fingerprint, read_json, write_json
from hybridbatch.common.progress import SILENT, Reporter
from hybridbatch.common.provenance import hardware, versions
from hybridbatch.common.seeding import stream
from hybridbatch.scaling.cells.grid import Cell, Facts
from hybridbatch.scaling.settings import SweepConfig

if TYPE_CHECKING:
    from hybridbatch.model import Encoder

SAMPLE = 48  # texts of a side, for lengths
TRAINED = 8  # passages of the timed training step
TRIES = 6
SETUP = 4.0  # seconds of a cell beside training, encoding and validation
SCHEMA = 1


@dataclass(frozen=True)
class Speed:
    """Seconds per token on this machine."""

    train: float  # forward and backward
    encode: float


@dataclass
class Estimate:
    """The expected time of each cell of a grid."""

    speeds: Mapping[str, Speed]  # by model
    pair_tokens: Mapping[str, float]  # tokens of a training pair, by model
    # tokens that an evaluation encodes, by model and by its languages
    evaluation_tokens: Mapping[tuple[str, str], float]
    measured_on: str = field(default="a probe of the model on some texts, and the number of tokens")

    def of(self, cell: Cell) -> float:
        """The expected seconds of a cell."""
        model = str(cell.axes["model"])
        if model not in self.speeds:  # BM25, which encodes nothing
            return SETUP
        speed = self.speeds[model]
        encoded = self.evaluation_tokens[model, cell.evaluation.languages] * speed.encode
        if cell.train is None:
            return SETUP + encoded
        pair = self.pair_tokens[model]
        every = cell.train.validate_every or max(1, cell.train.steps // 10)
        validations = 1 + cell.train.steps // every
        validated = 2 * cell.train.validation_batches * cell.train.batch_size * validations
        training = cell.drawn_pairs * pair * speed.train + validated * pair * speed.encode
        return SETUP + training + encoded


def estimate(
    config: SweepConfig, cells: Sequence[Cell], facts: Facts, report: Reporter = SILENT
) -> Estimate:
    """Probe every model of the grid, or read the result of an earlier probe.

    Raises:
        HybridBatchError: data, tasks or models cannot be used.
    """
    from hybridbatch.data.prepare import ensure_prepared
    from hybridbatch.data.store.reader import Store
    from hybridbatch.model import Encoder

    store = Store.open(ensure_prepared(config.data, config.data_root, report))
    queries, passages = _training_texts(store)
    speeds, pairs, evaluated = {}, {}, {}
    for name in config.model:
        own = [cell for cell in cells if cell.axes["model"] == name]
        encoder = Encoder.load(name, **own[0].evaluation.encoder_options, report=SILENT)
        pairs[name] = _mean_tokens(encoder, queries, "query") + _mean_tokens(
            encoder, passages, "passage"
        )
        for languages in dict.fromkeys(cell.evaluation.languages for cell in own):
            counted = _evaluation_tokens(encoder, own[0], languages)
            evaluated[name, languages] = counted
        speeds[name] = _speed(encoder, passages, facts.models[name], report)
    return Estimate(speeds, pairs, evaluated)


def _training_texts(store: Any) -> tuple[list[str], list[str]]:
    """A sample of queries and passages, which is equal each time."""
    index = store.index("train", store.languages)
    draw = stream(0, "probe").permutation(index.rows)[:SAMPLE]
    rows = np.sort(index.store_rows(draw))
    return list(store.queries("train", rows)), list(store.passages("train", rows))


def _mean_tokens(encoder: "Encoder", texts: Sequence[str], side: Any) -> float:
    return float(np.mean(encoder.tokenise(texts, side).lengths)) if texts else 0.0


def _evaluation_tokens(encoder: "Encoder", cell: Cell, languages: str) -> float:
    """Tokens of all texts that an evaluation encodes, from the lengths of a sample of them."""
    from hybridbatch.scaling.cells.runner import _tasks

    tasks = _tasks(cell.evaluation.tasks, cell.evaluation.data_root, languages)
    total = 0.0
    for task in tasks:
        sides: tuple[tuple[Any, Any], ...] = (("query", task.queries), ("passage", task.corpus))
        for side, by_language in sides:
            texts = list(_texts(by_language))
            step = max(1, len(texts) // SAMPLE)
            total += len(texts) * _mean_tokens(encoder, texts[::step][:SAMPLE], side)
    return total


def _texts(by_language: Mapping[str, Any]) -> Iterator[str]:
    for one in by_language.values():
        yield from one.texts


def _speed(encoder: "Encoder", texts: Sequence[str], model: str, report: Reporter) -> Speed:
    """The speed of a model on this machine, from the cache or from a measurement."""
    machine = hardware()
    identity = [SCHEMA, model, machine["cpu"], machine["threads"], versions().get("torch")]
    place = cache_folder() / "probes" / f"{fingerprint(identity)}.json"
    if place.exists():
        try:
            kept = read_json(place)
            return Speed(float(kept["train"]), float(kept["encode"]))
        except (DataError, KeyError, TypeError, ValueError):
            pass  # the file is damaged, so the speed is measured again
    report.note(f"measuring the speed of {encoder.name} on this machine")
    found = _measured(encoder, texts)
    write_json(place, {"train": found.train, "encode": found.encode, "model": encoder.name})
    return found


def _measured(encoder: "Encoder", texts: Sequence[str]) -> Speed:
    import torch

    tokens = encoder.tokenise(texts, "passage")
    few = tokens.take(np.arange(min(TRAINED, len(texts))))
    size = float(few.lengths.sum())
    encode, train = [], []
    # Take the best of several short tries, so that other work on the machine does not count.
    for _ in range(TRIES):
        encoder.eval()
        started = time.perf_counter()
        with torch.inference_mode():
            encoder.embed(few)
        encode.append((time.perf_counter() - started) / size)
        encoder.train()
        started = time.perf_counter()
        encoder.embed(few).sum().backward()
        train.append((time.perf_counter() - started) / size)
        encoder.zero_grad(set_to_none=True)
    return Speed(min(train), min(encode))
