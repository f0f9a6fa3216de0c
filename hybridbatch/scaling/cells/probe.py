"""Estimate what cells cost before any cell has run, from counts of tokens and a short probe.

The probe encodes and trains on a few texts of the task with the model itself, for a few
seconds. The rest follows from counts: the tokens that a cell draws for training and validation, and
the tokens that its evaluation encodes. The cache keeps the speed of the model on this machine, and
the counts for the model with these data and tasks. So a second estimate does not load the model.
Ranking is not counted, because it takes a small part of that time.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any

import numpy as np

from hybridbatch.common.errors import DataError
from hybridbatch.common.files import cache_folder, fingerprint, read_json, write_json
from hybridbatch.common.progress import SILENT, Reporter
from hybridbatch.common.provenance import hardware, versions
from hybridbatch.common.records import Split
from hybridbatch.common.seeding import stream
from hybridbatch.common.settings import Precision, ResolvedPrecision
from hybridbatch.sampling.index import HAS_PASSAGE, HAS_QUERY
from hybridbatch.scaling.cells.grid import Cell, Facts
from hybridbatch.scaling.settings import SweepConfig

if TYPE_CHECKING:
    from hybridbatch.data.store.reader import Store
    from hybridbatch.model import Encoder
    from hybridbatch.training.settings import TrainConfig

SAMPLE = 48  # texts of a side, for lengths
ENCODED = 24  # passages of the timed encoding
TRAINED = 16  # passages of the timed training step
TRIES = 4
SETUP = 2.0  # seconds of a cell beside training, checkpoints, encoding and validation
TRAINING_SETUP = 3.0  # seconds of a trained cell on top of these
WRITTEN = 400e6  # bytes of a checkpoint in a second
COPIES = 3  # of the weights in a checkpoint: themselves and two moments of the optimizer
VALIDATION = ("validation query", "validation passage")  # kept counts of tokens
SCHEMA = 3


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
    checkpoint_bytes: Mapping[str, float] = field(default_factory=dict)  # by model
    # tokens of a query and of a passage of the validation split, by model; default: half a pair
    validation_tokens: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    measured_on: str = field(
        default="a probe of the model on some texts, and the number of tokens"
    )

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
        validations = 1 + cell.train.steps // cell.train.validation_interval
        validated = validations * self._validation_tokens(cell.train, model)
        training = cell.drawn_pairs * pair * speed.train + validated * speed.encode
        # A checkpoint follows a validation that is the best so far, which most of a short training are.
        written = validations * self.checkpoint_bytes.get(model, 0.0) / WRITTEN
        return SETUP + TRAINING_SETUP + training + written + encoded

    def _validation_tokens(self, train: "TrainConfig", model: str) -> float:
        """Tokens that one validation embeds."""
        half = self.pair_tokens[model] / 2
        query, passage = self.validation_tokens.get(model, (half, half))
        tokens = 2 * train.validation_batches * train.batch_size * (query + passage)
        if train.validation_metric == "map":
            tokens += train.validation_queries * query + train.validation_passages * passage
        return tokens


def estimate(
    config: SweepConfig, cells: Sequence[Cell], facts: Facts, report: Reporter = SILENT
) -> Estimate:
    """Probe every model of the grid, or read the result of an earlier probe.

    Raises:
        HybridBatchError: data, tasks or models cannot be used.
    """
    speeds, pairs, checkpoints, validation = {}, {}, {}, {}
    evaluated: dict[tuple[str, str], float] = {}
    for name in config.model:
        own = [cell for cell in cells if cell.axes["model"] == name]
        probed = _Probed(config, name, own, report)
        evaluations = list(dict.fromkeys(cell.evaluation.languages for cell in own))
        options = own[0].evaluation.encoder_options
        identity = [facts.models[name], facts.data, facts.tasks, evaluations, options]
        needed = [
            "pair",
            *VALIDATION,
            "checkpoint_bytes",
            *(f"of {languages}" for languages in evaluations),
        ]
        counts = _kept(identity, needed, partial(probed.counts, evaluations))
        pairs[name] = counts["pair"]
        evaluated |= {(name, languages): counts[f"of {languages}"] for languages in evaluations}
        checkpoints[name] = counts["checkpoint_bytes"]
        query, passage = (counts[side] for side in VALIDATION)
        validation[name] = query, passage
        speeds[name] = _speed([facts.models[name], *probed.settings], probed.measured)
    return Estimate(speeds, pairs, evaluated, checkpoints, validation)


@dataclass
class _Probed:
    """A model with texts of its grid; both are loaded when they are first needed.

    Args:
        cells: the cells of the model.
    """

    config: SweepConfig
    name: str
    cells: Sequence[Cell]
    report: Reporter

    @property
    def cell(self) -> Cell:
        """The first cell, whose evaluation has the same settings as those of the others."""
        return self.cells[0]

    @property
    def precisions(self) -> tuple[Precision, Precision]:
        """The precision of training and of encoding, as the first cells have them."""
        trained = [cell.train.precision for cell in self.cells if cell.train]
        encoded = self.cell.evaluation.precision
        return (trained[0] if trained else encoded), encoded

    @property
    def settings(self) -> tuple[str, ...]:
        """The settings on which the speed depends."""
        from hybridbatch.common.device import resolve_device

        device = str(resolve_device(self.cell.evaluation.device))
        return (*self.precisions, device, str(hardware(device).get("gpu")))

    @cached_property
    def encoder(self) -> "Encoder":
        """The model."""
        from hybridbatch.model import Encoder

        return Encoder.load(self.name, **self.cell.evaluation.encoder_options, report=SILENT)

    @cached_property
    def store(self) -> "Store":
        """The data of the grid."""
        from hybridbatch.data.prepare import ensure_prepared
        from hybridbatch.data.store.reader import Store

        config = self.config
        return Store.open(ensure_prepared(config.data, config.data_root, self.report))

    @cached_property
    def texts(self) -> tuple[list[str], list[str]]:
        """Queries and passages of the training data."""
        return _sampled_texts(self.store, "train")

    @property
    def held_out(self) -> tuple[list[str], list[str]]:
        """Queries and passages that cells validate with."""
        held = "validation" in self.store.splits
        return _sampled_texts(self.store, "validation") if held else self.texts

    def counts(self, evaluations: Sequence[str]) -> dict[str, float]:
        """Tokens of training and validation pairs, and of the evaluation in each spec of languages.

        Also the bytes of a checkpoint, in which the word embedding has the touched rows only.
        """
        queries, passages = self.texts
        found = {"pair": _mean_tokens(self.encoder, queries, "query")}
        found["pair"] += _mean_tokens(self.encoder, passages, "passage")
        for name, side, texts in zip(
            VALIDATION, ("query", "passage"), self.held_out, strict=True
        ):
            found[name] = _mean_tokens(self.encoder, texts, side)
        words = self.encoder.model.get_input_embeddings().weight.numel()
        weights = sum(weight.numel() for weight in self.encoder.parameters()) - words
        found["checkpoint_bytes"] = 4.0 * COPIES * weights
        for languages in evaluations:
            found[f"of {languages}"] = _evaluation_tokens(self.encoder, self.cell, languages)
        return found

    def measured(self) -> dict[str, float]:
        """Seconds per token of training and of encoding."""
        from hybridbatch.common.device import resolve_device, resolve_precision

        self.report.note(f"measuring the speed of {self.name} on this machine")
        device = resolve_device(self.cell.evaluation.device)
        train, encode = (resolve_precision(each, device) for each in self.precisions)
        found = _measured(self.encoder.to(device), self.texts[1], train, encode)
        return {"train": found.train, "encode": found.encode}


def _sampled_texts(store: "Store", split: Split) -> tuple[list[str], list[str]]:
    """A sample of the queries and of the passages, which is equal each time."""
    index = store.index(split, store.languages)
    order = stream(0, "probe").permutation(index.rows)
    has = index.has[order]

    def sample(side: int) -> np.ndarray:
        rows = order[(has & side) > 0]
        return np.sort(index.store_rows(rows[:SAMPLE]))

    queries = store.queries(split, sample(HAS_QUERY))
    return queries, store.passages(split, sample(HAS_PASSAGE))


def _mean_tokens(encoder: "Encoder", texts: Sequence[str], side: Any) -> float:
    return float(np.mean(encoder.tokenise(texts, side).lengths)) if texts else 0.0


def _evaluation_tokens(encoder: "Encoder", cell: Cell, languages: str) -> float:
    """Tokens of all texts that an evaluation encodes, from the lengths of a sample of them."""
    from hybridbatch.scaling.cells.runner import _tasks

    tasks = _tasks(
        cell.evaluation.tasks, cell.evaluation.data_root, languages, cell.evaluation.parallel
    )
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


def _speed(model: Sequence[str], measure: Callable[[], dict[str, float]]) -> Speed:
    """The speed of a model on this machine, from the cache or measured.

    Args:
        model: the fingerprint, and the settings on which the speed depends.
    """
    machine = hardware()
    identity = [*model, machine["cpu"], machine["threads"], versions().get("torch")]
    kept = _kept(identity, ["train", "encode"], measure)
    return Speed(kept["train"], kept["encode"])


def _kept(
    identity: Sequence[object], needed: Sequence[str], compute: Callable[[], dict[str, float]]
) -> dict[str, float]:
    """The numbers that the cache keeps for `identity`; else they are computed and kept."""
    place = cache_folder() / "probes" / f"{fingerprint([SCHEMA, *identity])}.json"
    if place.exists():
        try:
            kept = read_json(place)
            return {name: float(kept[name]) for name in needed}
        except (DataError, KeyError, TypeError, ValueError):
            pass  # the file is damaged, so it is written again
    found = compute()
    write_json(place, found)
    return found


def _measured(
    encoder: "Encoder",
    texts: Sequence[str],
    train_precision: ResolvedPrecision,
    precision: ResolvedPrecision,
) -> Speed:
    import torch

    tokens = encoder.tokenise(texts, "passage")
    read = tokens.take(np.arange(min(ENCODED, len(texts))))
    few = tokens.take(np.arange(min(TRAINED, len(texts))))
    # Training computes no gradient of the whole table, only of the rows of its words.
    encoder.model.get_input_embeddings().requires_grad_(False)
    encode, train = [], []
    waits = {"cuda": torch.cuda.synchronize, "mps": torch.mps.synchronize}
    wait = waits.get(encoder.device.type, lambda: None)
    # Take the best of several short tries, so that other work on the machine does not count.
    for _ in range(TRIES):
        encoder.eval()
        started = time.perf_counter()
        with torch.inference_mode():
            encoder.embed(read, precision)
        wait()
        encode.append((time.perf_counter() - started) / float(read.lengths.sum()))
        encoder.train()
        started = time.perf_counter()
        encoder.embed(few, train_precision).sum().backward()
        wait()
        train.append((time.perf_counter() - started) / float(few.lengths.sum()))
        encoder.zero_grad(set_to_none=True)
    return Speed(min(train), min(encode))
