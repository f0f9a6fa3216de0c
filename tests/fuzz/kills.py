"""Commands that are killed, again and again, and then run to their end."""

import json
from pathlib import Path

from tests.fuzz import targets
from tests.fuzz.targets import EVAL, ROWS, Target


def _mined(folder: Path) -> None:
    targets._prepared(folder)


def _audited(folder: Path) -> None:
    targets._prepared(folder)
    targets._task(folder)


def _cached(folder: Path) -> None:
    from hybridbatch.scoring.evaluate import evaluate
    from hybridbatch.scoring.settings import EvalConfig

    targets._task(folder)
    cache = folder / "home" / "embeddings"
    config = EvalConfig(
        model="random", tasks=(str(folder / "task"),), out=folder / "first", cache=cache
    )
    evaluate(config)


def _reproduced(folder: Path) -> None:
    from tests.helpers.tiny import write_tiny_model

    write_tiny_model(folder / "model")
    targets._task(folder)
    rows = [
        row | {"record_id": f"{row['record_id']}-{copy}"} for copy in range(8) for row in ROWS
    ]
    (folder / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    settings = {
        "name": "again", "sources": ["rows.jsonl"], "model": "model", "mixes": [0.5], "seeds": [13], "out": "again", "languages": "eng,swh",
        "preparation": {"decontaminate": "none", "validation_share": 0.2},
        "train": {"steps": 2, "batch_size": 4, "precision": "fp32", "micro_tokens": 200, "log_to": "none"},
        "evaluation": {"tasks": "task", "cache": "cache", "precision": "fp32"},
    }  # fmt: skip
    (folder / "again.yaml").write_text(json.dumps(settings))


def _trainable(folder: Path) -> None:
    from tests.helpers.tiny import write_tiny_model

    write_tiny_model(folder / "model")
    targets._prepared(folder)
    targets._task(folder)


SWEEP = (
    "scale-sweep", "--data", "data", "--tasks", "task", "--languages", "all", "--allow-seen", "--mix", "0,1",
    "--pairs", "all", "--steps", "2", "--batch-size", "4", "--seeds", "13", "--model", "model", "--out", "sweep",
    "--set", "micro_tokens=200;precision=fp32",
)  # fmt: skip
KILLED = (
    Target("prepare", targets._jsonl, ["data.jsonl"], (*targets.PREPARE, "data.jsonl")),
    Target("train", _trainable, ["data/manifest.json"], targets.TRAIN, outputs=("run",)),
    Target("sweep", _trainable, ["data/manifest.json"], SWEEP, outputs=("sweep",)),
    Target("eval", targets._task, ["task/en/corpus.jsonl"], EVAL, outputs=("out", "cache")),
    Target("mine", _mined, ["data/manifest.json"], ("mine", "data", "--out", "mined"), outputs=("mined",)),
    Target(
        "audit", _audited, ["data/manifest.json"], ("audit", "data", "task", "--out", "out.json"),
        outputs=("out.json",),
    ),
    Target("figures", targets._evaluations, ["eval-1/eval.json"], ("figures", "eval-1"), outputs=("eval-1/figures",)),
    Target("report", targets._sweep, ["sweep/sweep.json"], ("report", "sweep"), outputs=("sweep/report",)),
    Target("cache", _cached, ["home/**/*.npy"], ("cache", "--prune", "0"), outputs=(), slow=True),
    Target(
        "reproduce", _reproduced, ["rows.jsonl"], ("reproduce", "--config", "again.yaml"),
        outputs=("again", "cache"),
    ),
)  # fmt: skip
