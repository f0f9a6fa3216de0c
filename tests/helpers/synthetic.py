"""Cells whose results are a known function of their settings, for tests of sweeps and reports."""

import os
import signal
from pathlib import Path

import numpy as np
import pandas as pd

from hybridbatch.common.settings import build
from hybridbatch.scaling.cells.folder import QUERIES
from hybridbatch.scaling.cells.grid import Cell, Facts
from hybridbatch.scaling.settings import SweepConfig

LANGUAGES = ("eng", "deu", "fin", "swh", "yor", "hin")
QUESTIONS = 40
E, A, B = 0.2, 3.0, 0.5  # 1 - mAP = E + A * pairs^-B, without the effect of the mix
BEST_MIX = 0.5
SETTINGS = {"monolingual": 0.0, "cross-lingual": 0.05, "multilingual": 0.1}  # how much harder


def facts(**changes) -> Facts:
    known = {
        "data": "d1", "training_languages": LANGUAGES, "records": lambda codes: 4000 if codes else 0,
        "tasks": {"atlas": "t1", "other": "t2"}, "task_languages": (*LANGUAGES, "zul"),
        "models": {"e5-small-q4": "m1", "labse": "m2"},
    }  # fmt: skip
    return Facts(**known | changes)


def sweep_config(**changes) -> SweepConfig:
    values = {"languages": "swh,zul", "mix": "0,0.5,1", "pairs": "100,200", "batch_size": "4", "steps": "2",
              "seeds": "13,14"}  # fmt: skip
    return build(SweepConfig, None, values | changes)


def error(mix: float, pairs: int) -> float:
    """1 - mAP of the monolingual setting."""
    return E + A * pairs**-B + 0.2 * (mix - BEST_MIX) ** 2


def run(cell: Cell, work: Path) -> dict:
    """A runner: scores by question and language from `error`, with noise of seed and question."""
    wrong = error(cell.train.mix, cell.train.max_records) if cell.train else 0.7
    rng = np.random.default_rng(
        [cell.train.seed if cell.train else 0, int(cell.key, 16) % 2**32]
    )
    wrong += 0.003 * rng.normal()
    hard = 0.1 * np.random.default_rng(0).normal(size=QUESTIONS)
    parts = []
    for setting, harder in SETTINGS.items():
        for language in cell.evaluation.languages.split(","):
            values = 1 - (wrong + harder + hard - hard.mean())
            part = pd.DataFrame({"task": "atlas", "setting": setting, "query_language": language,
                                 "query_id": [f"q{i}" for i in range(QUESTIONS)], "mAP": values,
                                 "contrastive_entropy": 2 * (1 - values)})  # fmt: skip
            part["rank_distance"] = 100 * (1 - values) if setting == "multilingual" else np.nan
            parts.append(part)
    questions = pd.concat(parts)
    questions.to_parquet(work / QUERIES)
    means = questions.groupby(["setting", "query_language"]).mean(numeric_only=True)
    settings: dict = {}
    for (setting, language), row in means.iterrows():
        settings.setdefault(setting, {})[language] = {
            name: float(v) for name, v in row.items() if v == v
        }
    tasks = [
        {
            "name": "atlas",
            "about": "synthetic",
            "counts": {},
            "provenance": {},
            "settings": settings,
        }
    ]
    trained = cell.train and {
        "trained_languages": cell.train.languages.split(","),
        "steps": cell.train.steps,
        "throughput": {"seconds": 0.3},
    }
    return {"train": trained, "eval": {"tasks": tasks}, "seconds": {"train": 0.5, "eval": 0.25}}


def fail_at_half(cell: Cell, work: Path) -> dict:
    if cell.train and cell.train.mix == 0.5:
        raise RuntimeError("the middle is cursed")
    return run(cell, work)


def die_once(cell: Cell, work: Path) -> dict:
    """Kills its process the first time it meets mix 1."""
    mark = work.parent.parent / f"died-{cell.key}"
    if cell.train and cell.train.mix == 1 and not mark.exists():
        mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return run(cell, work)
