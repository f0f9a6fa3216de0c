"""What temperature does `--temperature auto` find, from which start, on which batches?

    python experiments/study2/temperature_rule.py DATA

DATA is the training text of experiments B to D, which `hybridbatch prepare --config
experiments/study2/data.yaml` makes. The batches are those that a run of experiment D begins with:
the rule is the product's own (`hybridbatch.training.temperature`), but it gets 256 pairs, not up to
512. Nothing is trained. Writes ``experiments/study2/temperature_rule.json``, a row for each start,
kind of batches and seed; what is there already is not done again, so name another file with --out
to do it all. The starts:

- e5-small-q4, and e5-small-q4-reset6, whose upper six layers are drawn anew;
- e5-small-q4, centred: its vectors minus the mean of all of them. Their cosines spread around 0, as
  those of LaBSE do, which is not here;
- random vectors.

English batches are also joined to larger ones, to see what the size of the batch does.
"""

import argparse
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch.nn import functional

from hybridbatch.common.device import resolve_precision
from hybridbatch.common.errors import ConfigError, HybridBatchError
from hybridbatch.common.files import read_json, write_json
from hybridbatch.common.progress import SILENT
from hybridbatch.common.provenance import versions
from hybridbatch.common.seeding import stream
from hybridbatch.common.settings import build
from hybridbatch.data.store.reader import Store
from hybridbatch.model import Encoder
from hybridbatch.training.inputs import Inputs
from hybridbatch.training.settings import TrainConfig
from hybridbatch.training.temperature import Embedded, embedded, find_temperature

HERE = Path(__file__).parent
START, RESET = "e5-small-q4", "e5-small-q4-reset6"
SEEDS = (13, 14, 15)
PAIRS, BATCH = 256, 16
JOINED = (64, 256)  # pairs of the larger batches
LENGTHS = {"max_query_tokens": 32, "max_passage_tokens": 96}
TOKENS = 8192  # of a forward pass
Vectors = list[Embedded]


class Kind(NamedTuple):
    """Batches of a run."""

    mix: float
    languages: str = "arb,deu,eng,hin,rus,spa,tha,tur,zho"  # those that B to D train on


MIXES = (Kind(0.0), Kind(0.5), Kind(1.0))
ENGLISH = Kind(1.0, "eng")


def main() -> None:
    """Find what is missing."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--out", type=Path, default=HERE / "temperature_rule.json")
    arguments = parser.parse_args()
    try:
        find_missing(arguments.data, arguments.out)
    except HybridBatchError as error:
        sys.stderr.write(f"error: {error}\n")
        sys.exit(2)


def find_missing(data: Path, out: Path) -> None:
    """Add what is missing to the file of results, a run after the other."""
    store = Store.open(data)
    facts = {"kind": "temperature that --temperature auto finds", "data": store.fingerprint,
             "lengths": LENGTHS, "precision": precision(), "versions": versions()}  # fmt: skip
    before = read_json(out) if out.exists() else {**facts, "rows": []}
    if before["data"] != store.fingerprint:
        raise ConfigError(f"{out}: is of other data; name another file with --out")
    rows = before["rows"]
    done = {(row["start"], row["mix"], row["languages"], row["seed"]) for row in rows}
    load = cache(lambda start: Encoder.load(start, **LENGTHS))
    for seed in SEEDS:
        for start, kinds in ((RESET, MIXES), (START, (*MIXES, ENGLISH))):
            for kind in kinds:
                if (start, *kind, seed) in done:
                    continue
                vectors = first_batches(load(start), store, data, kind, seed)
                rows += made(start, kind, seed, vectors)
                write_json(out, {**facts, "rows": rows})
                sys.stdout.write(f"{start}, {kind}, seed {seed}\n")
                sys.stdout.flush()


def made(start: str, kind: Kind, seed: int, vectors: Vectors) -> list[dict[str, Any]]:
    """The rows of a start's vectors, and of what is made from those of e5-small-q4."""
    rows = [row(start, kind, seed, BATCH, vectors)]
    if start == START:
        rows.append(row(f"{start}, centred", kind, seed, BATCH, centred(vectors)))
        rows.append(row("random vectors", kind, seed, BATCH, random(vectors)))
    if kind == ENGLISH:
        for size in JOINED:
            rows.append(row(start, kind, seed, size, joined(vectors, size // BATCH)))
    return rows


def row(start: str, kind: Kind, seed: int, size: int, vectors: Vectors) -> dict[str, Any]:
    """What the rule finds on batches of `size` pairs."""
    best = find_temperature(vectors)
    result = {"temperature": best.temperature, "found": best.known, "pairs": best.pairs,
              "loss": round(best.loss, 4), "loss_of_chance": round(best.uniform, 4)}  # fmt: skip
    return {"start": start, **kind._asdict(), "seed": seed, "batch_size": size, **result}


def first_batches(encoder: Encoder, store: Store, data: Path, kind: Kind, seed: int) -> Vectors:
    """The vectors of the first batches of a run from `encoder`."""
    config = build(TrainConfig, None, {
        "data": str(data), "same_records": kind != ENGLISH, "batch_size": BATCH, "steps": PAIRS // BATCH,
        "seed": seed, **LENGTHS, **kind._asdict(),
    })  # fmt: skip
    batches = Inputs.plan(config, store, SILENT).batches(encoder, config, SILENT)
    encoder.eval()
    with torch.no_grad():
        return list(
            embedded(batches, lambda tokens: encoder.embed(tokens, precision()), TOKENS)
        )


def precision() -> str:
    """That of a training on this machine's CPU."""
    return resolve_precision("auto", torch.device("cpu"))


def centred(vectors: Vectors) -> Vectors:
    """Less the mean of all queries and passages, at unit length."""
    mean = torch.cat([side for batch in vectors for side in batch[:2]]).mean(dim=0)
    return changed(vectors, lambda side: side - mean)


def random(vectors: Vectors) -> Vectors:
    """Directions drawn anew."""
    draws = stream(0, "random vectors")
    return changed(
        vectors, lambda side: torch.from_numpy(draws.standard_normal(side.shape)).float()
    )


def joined(vectors: Vectors, count: int) -> Vectors:
    """Every `count` batches as one; no record, and so no passage, is in two of them."""
    apart = [(queries, passages, keys + number * BATCH)
             for number, (queries, passages, keys) in enumerate(vectors)]  # fmt: skip
    groups = [apart[first : first + count] for first in range(0, len(apart), count)]
    return [tuple(torch.cat(sides) for sides in zip(*group, strict=True)) for group in groups]


def changed(vectors: Vectors, change: Callable[[torch.Tensor], torch.Tensor]) -> Vectors:
    """Both sides of every batch after `change`, at unit length."""
    return [
        (functional.normalize(change(queries)), functional.normalize(change(passages)), keys)
        for queries, passages, keys in vectors
    ]


if __name__ == "__main__":
    main()
