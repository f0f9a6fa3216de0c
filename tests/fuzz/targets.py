"""What is damaged, and the command that reads it. Every target is made once, in its own folder."""

import contextlib
import gzip
import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from tests.fuzz import mutations

Command = Sequence[str]


@dataclass(frozen=True)
class Target:
    """Files to damage, and commands that read them.

    Attributes:
        make: writes the good files into a folder.
        files: patterns of the files that are damaged.
        command: arguments of the command line, run in that folder.
        ways: how files are damaged.
        exact: whether a command that ends well must give what it gave before the damage.
        outputs: what a command writes; removed before each run.
    """

    name: str
    make: Callable[[Path], None]
    files: Sequence[str]
    command: Command
    ways: Sequence[Callable] = (mutations.mangled,)
    exact: bool = False
    outputs: Sequence[str] = ("out",)
    weight: int = 1
    slow: bool = field(default=False)


ROWS = [
    {
        "record_id": f"r{number}",
        "language": language,
        "query": f"Question {number} in {language}?",
        "passage": f"Answer {number} in {language}, with <b>some</b> text.",
        "negatives": [f"Other {number}"],
    }
    for number in range(6)
    for language in ("eng", "swh", "amh")
]


def _jsonl(folder: Path) -> None:
    (folder / "data.jsonl").write_text("\n".join(map(json.dumps, ROWS)))
    (folder / "data.json").write_text(json.dumps(ROWS, indent=1))


def _tables(folder: Path) -> None:
    names = list(ROWS[0])[:4]
    lines = ["\t".join(names), *("\t".join(row[name] for name in names) for row in ROWS)]
    (folder / "data.tsv").write_text("\n".join(lines))
    quoted = [",".join(names)]
    quoted += [
        ",".join('"' + row[name].replace('"', '""') + '"' for name in names) for row in ROWS
    ]
    (folder / "data.csv").write_text("\n".join(quoted))


def _packed(folder: Path) -> None:
    raw = "\n".join(map(json.dumps, ROWS)).encode()
    (folder / "data.jsonl.gz").write_bytes(gzip.compress(raw, mtime=0))
    with pa.output_stream(str(folder / "data.jsonl.zst"), compression="zstd") as stream:
        stream.write(raw)
    pq.write_table(pa.Table.from_pylist(ROWS), folder / "data.parquet")


TMX = (
    '<?xml version="1.0"?><tmx version="1.4"><header/><body>'
    + "".join(
        f'<tu><tuv xml:lang="en"><seg>The question of number {number} is long enough.</seg></tuv><tuv xml:lang="sw"><seg>Swali la nambari {number} ni refu vya kutosha.</seg></tuv></tu>'
        for number in range(5)
    )
    + "</body></tmx>"
)


def _tmx(folder: Path) -> None:
    (folder / "data.tmx").write_text(TMX)


def _settings(folder: Path) -> None:
    _prepared(folder)
    settings = {
        "mix": "0.5", "seed": "13", "batch_size": "4", "learning_rate": "1e-4",
        "source_weights": "{s: 2}", "matryoshka_dims": "[8, 16]", "data": "data",
        "model": "e5-small-q4", "languages": "eng,swh",
    }  # fmt: skip
    lines = [f"{name}: {value}" for name, value in settings.items()]
    (folder / "train.yaml").write_text("\n".join(lines))


def _task(folder: Path) -> None:
    for language in ("en", "sw"):
        home = folder / "task" / language
        (home / "qrels").mkdir(parents=True)
        passages = [
            {"_id": f"d{n}", "title": "", "text": f"Text {n} {language}"} for n in range(8)
        ]
        queries = [{"_id": f"q{n}", "text": f"Question {n} {language}"} for n in range(4)]
        (home / "corpus.jsonl").write_text("\n".join(map(json.dumps, passages)))
        (home / "queries.jsonl").write_text("\n".join(map(json.dumps, queries)))
        lines = ["query-id\tcorpus-id\tscore", *(f"q{n}\td{n}\t{n % 2 + 1}" for n in range(4))]
        (home / "qrels" / "test.tsv").write_text("\n".join(lines))


def _prepared(folder: Path) -> None:
    from hybridbatch.common.records import Row
    from hybridbatch.data.store.writer import write_store

    rows = [
        Row(
            "s",
            f"r{n}",
            language,
            f"question {n} {language}",
            f"passage {n} {language} " + "y" * n,
        )
        for n in range(60)
        for language in ("eng", "swh")
    ]
    write_store(folder / "data", rows, provenance={"sources": []}, validation_share=0.2)


def _evaluations(folder: Path) -> None:
    from hybridbatch.scoring.evaluate import evaluate
    from hybridbatch.scoring.settings import EvalConfig

    _task(folder)
    for seed in (1, 2):
        config = EvalConfig(
            model="random", tasks=(str(folder / "task"),), seed=seed, out=folder / f"eval-{seed}",
            cache=folder / "cache",
        )  # fmt: skip
        evaluate(config)
    shutil.rmtree(folder / "cache")


def _sweep(folder: Path) -> None:
    from hybridbatch.scaling.sweep import run_sweep
    from tests.helpers import synthetic

    config = synthetic.sweep_config(
        out=str(folder / "sweep"), mix="0,1", pairs="100", seeds="13,14", languages="swh"
    )
    run_sweep(config, runner=synthetic.run, facts=synthetic.facts())


def _embeddings(folder: Path) -> None:
    from hybridbatch.scoring.evaluate import evaluate
    from hybridbatch.scoring.settings import EvalConfig

    _task(folder)
    evaluate(
        EvalConfig(
            model="random",
            tasks=(str(folder / "task"),),
            out=folder / "first",
            cache=folder / "cache",
        )
    )


def _model(folder: Path) -> None:
    from tests.helpers.tiny import write_tiny_model

    _task(folder)
    write_tiny_model(folder / "model")


def _trained(folder: Path) -> None:
    """A run that was stopped after two of four steps."""
    from hybridbatch.common.errors import Interrupted
    from hybridbatch.training import loop
    from hybridbatch.training.settings import TrainConfig
    from hybridbatch.training.train import train
    from tests.helpers.tiny import write_tiny_model

    _prepared(folder)
    write_tiny_model(folder / "model")
    config = TrainConfig(
        model="model", data="data", out=Path("run"), steps=4, batch_size=4, checkpoint_every=1,
        micro_tokens=200, precision="fp32", log_to="none",
    )  # fmt: skip
    saved = loop.Trainer._save

    def save_and_stop(trainer: loop.Trainer) -> None:
        saved(trainer)
        if trainer.progress.step == 2:
            raise Interrupted("stopped")

    loop.Trainer._save = save_and_stop  # type: ignore[method-assign]
    try:
        with contextlib.chdir(folder), contextlib.suppress(Interrupted):
            train(config)
    finally:
        loop.Trainer._save = saved  # type: ignore[method-assign]


PREPARE = ("prepare", "--out", "out", "--decontaminate", "none", "--validation-share", "0")
EVAL = ("eval", "random", "--tasks", "task", "--out", "out", "--cache", "cache")
OWN = (mutations.flipped,)
SHAPES = (mutations.mangled, mutations.reshaped)
TRAIN = (
    "train", "--model", "model", "--data", "data", "--out", "run", "--steps", "4", "--batch-size", "4",
    "--checkpoint-every", "1", "--micro-tokens", "200", "--precision", "fp32", "--log-to", "none",
)  # fmt: skip

TARGETS = (
    Target("jsonl", _jsonl, ["data.jsonl"], (*PREPARE, "data.jsonl"), SHAPES, weight=3),
    Target("json", _jsonl, ["data.json"], (*PREPARE, "data.json"), SHAPES, weight=2),
    Target("tsv", _tables, ["data.tsv"], (*PREPARE, "data.tsv"), weight=2),
    Target("csv", _tables, ["data.csv"], (*PREPARE, "data.csv"), weight=2),
    Target("gz", _packed, ["data.jsonl.gz"], (*PREPARE, "data.jsonl.gz")),
    Target("zst", _packed, ["data.jsonl.zst"], (*PREPARE, "data.jsonl.zst")),
    Target("parquet", _packed, ["data.parquet"], (*PREPARE, "data.parquet"), weight=2),
    Target("tmx", _tmx, ["data.tmx"], (*PREPARE, "data.tmx")),
    Target(
        "settings", _settings, ["train.yaml"], ("train", "--dry-run", "--config", "train.yaml"), weight=2
    ),
    Target("task", _task, ["task/*/*.jsonl", "task/*/qrels/*"], EVAL, SHAPES, weight=4, outputs=("out", "cache")),
    Target("prepared", _prepared, ["data/**/*"], ("inspect", "data", "--json"), OWN, exact=True, weight=3),
    Target(
        "prepared-shapes", _prepared, ["data/manifest.json"], ("inspect", "data"), SHAPES, weight=3
    ),
    Target(
        "evaluations", _evaluations, ["eval-1/*.*"], ("compare", "eval-1", "eval-2", "--out", "out.json"), OWN,
        exact=True, outputs=("out.json",), weight=3,
    ),
    Target(
        "evaluation-shapes", _evaluations, ["eval-1/eval.json"], ("compare", "eval-1", "eval-2"), SHAPES, weight=2
    ),
    Target(
        "figures", _evaluations, ["eval-1/eval.json"], ("figures", "eval-1"), SHAPES, outputs=("eval-1/figures",)
    ),
    Target("sweep", _sweep, ["sweep/sweep.json"], ("scale-sweep", "status", "sweep"), SHAPES),
    Target(
        "cells", _sweep, ["sweep/cells/*"], ("report", "sweep"), (*OWN, *SHAPES), outputs=("sweep/report",), slow=True
    ),
    Target("embeddings", _embeddings, ["cache/**/*.npy"], EVAL, OWN, exact=True, weight=2),
    Target(
        "cache", _embeddings, ["cache/*/space.json", "cache/**/*.npy"], ("cache",), SHAPES
    ),
    Target(
        "model", _model, ["model/**/*.json"],
        ("eval", "model", "--tasks", "task", "--out", "out", "--cache", "cache", "--precision", "fp32"),
        SHAPES, outputs=("out", "cache"), slow=True, weight=2,
    ),
    Target("checkpoints", _trained, ["run/checkpoints/**/*.*", "run/run.json"], TRAIN, OWN, exact=True, slow=True),
    Target("run-shapes", _trained, ["run/checkpoints/*/state.json", "run/run.json"], TRAIN, SHAPES, slow=True),
)  # fmt: skip
