"""Experiment E: a recipe to recommend, found on SQuADShifts English-Portuguese alone.

    python experiments/study2/recipe.py search DATA [--points N]
    python experiments/study2/recipe.py accept DATA [--data-root FOLDER] [--attempt 2]

DATA is the folder that `translate_squadshifts.py` wrote. *search* trains the points of the grid
(learning rate, temperature, a teacher), averages each with the start's weights, and measures them on
500 questions against 5,270 sentences in all three settings, raw and debiased. A point's worth is its
smallest gain: within and across languages over the untrained encoder, in the pool over the untrained
encoder after debiasing, which costs nothing. The point with the largest smallest gain is chosen.

*accept* trains the chosen point with new seeds and applies the plan's rule: on every setting of
XQuAD-R and on mteb's XQuADRetrieval the lower end of the interval against the untrained encoder must
be above -0.5 points, and the pool not below debiasing alone. Nothing is chosen there. The second
attempt fixes how the vectors are used, and its rule is stricter (plan.md, changes).

Both are resumable: what is there is not done again. Results: ``experiments/study2/E/``.
"""

import argparse
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
from contrasts import unit_table
from crossfit import Collection, embedding
from measuring import SETTINGS, USES, attempt_file, means, measure, measure_bm25, write_table
from settings_on_other_text import LENGTHS, fold_of

from hybridbatch.common.errors import ConfigError, DataError, HybridBatchError
from hybridbatch.common.files import make_folder, read_json, write_json
from hybridbatch.common.settings import build
from hybridbatch.data.prepare import prepare
from hybridbatch.data.settings import PrepareConfig
from hybridbatch.data.tasks.registry import load_task
from hybridbatch.model import Encoder
from hybridbatch.scoring.significance import Contrast, crossed_t
from hybridbatch.training.settings import TrainConfig
from hybridbatch.training.train import average_with_start, train

HERE = Path(__file__).parent
START = "e5-small-q4"
SPOKEN = ("eng", "por")
SHARES = (0.0, 0.25, 0.5, 0.75)  # of the start's weights
OFFICIAL = "XQuADRetrieval"
RIVALS = {"untrained": USES["raw"], "untrained debiased": USES["debiased"]}

# (setting, rival, floor): the lower end of the interval must be above the floor.
FLOOR = -0.005
RULE = (
    ("mono", "untrained", FLOOR), ("cross", "untrained", FLOOR), ("pool", "untrained", FLOOR),
    ("pool", "untrained debiased", 0.0),
)  # fmt: skip


class Attempt(NamedTuple):
    """A search with its acceptance, as plan.md fixes it."""

    number: int
    uses: tuple[str, ...]  # the better one counts
    seeds: tuple[int, ...]  # of the acceptance
    rule: tuple[tuple[str, str, float], ...]
    exploratory: tuple[str, ...]  # uses that are compared as well, if not chosen

    def file(self, out: Path, name: str) -> Path:
        """``recipe`` or ``acceptance`` of this attempt."""
        return attempt_file(out, name, self.number)


ATTEMPTS = (
    Attempt(1, ("raw", "debiased"), (13, 14, 15), RULE, ("raw", "debiased")),
    Attempt(
        2, ("debiased in the pool",), tuple(range(16, 21)),
        (*RULE, ("cross", "untrained debiased", 0.0)), ("debiased",),
    ),
)  # fmt: skip


class Training(NamedTuple):
    """A training of the grid."""

    rate: float
    temperature: float = 0.01
    teacher: str | None = None

    @property
    def name(self) -> str:
        """Of its files."""
        taught = "-teacher" if self.teacher else ""
        return f"rate-{self.rate:g}-temperature-{self.temperature:g}{taught}"


# The likely ones first, so that a search that is stopped has tried them.
GRID = (
    Training(1e-5), Training(3e-5), Training(5e-6), Training(1e-5, teacher=START),
    Training(3e-5, teacher=START), Training(1e-5, 0.02), Training(2e-5), Training(1e-5, 0.005),
    Training(5e-6, teacher=START),
)  # fmt: skip


def config(training: Training, data: Path, out: Path, seed: int) -> TrainConfig:
    """The settings of a training: one pass over 600 records, as in experiment A."""
    return build(TrainConfig, None, {
        "data": str(data), "out": out, "model": START, "mix": 0.5, "same_records": True,
        "batch_size": 16, "steps": 37, "seed": seed, "temperature": training.temperature,
        "learning_rate": training.rate, "teacher": training.teacher, "average_start": 0.0, **LENGTHS,
        "validate_every": 1000, "log_to": "none",
    })  # fmt: skip


def prepared(folder: Path) -> Path:
    """The prepared training data."""
    if not (folder / "train.jsonl").is_file() or not (folder / "validation").is_dir():
        raise ConfigError(
            f"{folder}: has no train.jsonl and validation/; make them with translate_squadshifts.py"
        )
    return prepare(build(PrepareConfig, None, {
        "sources": [str(folder / "train.jsonl")], "out": folder / "prepared",
        "decontaminate": ["none"], "validation_share": 0,
    }))  # fmt: skip


def averaged(run: Path, settings: TrainConfig, share: float) -> Encoder:
    """A trained encoder, averaged with the start."""
    encoder = Encoder.load(str(run), **LENGTHS)
    average_with_start(encoder, settings.model_copy(update={"average_start": share}))
    return encoder


def search(folder: Path, points: int, out: Path) -> None:
    """Train and measure what is missing of the first `points` of the grid."""
    data = prepared(folder)
    task = load_task(str(folder / "validation"))
    if not (out / "untrained.json").exists():
        keep(
            measured(Encoder.load(START, **LENGTHS), task), {"training": None}, out, "untrained"
        )
    for training in GRID[:points]:
        names = {share: f"{training.name}-start-{share:g}" for share in SHARES}
        missing = [share for share in SHARES if not (out / f"{names[share]}.json").exists()]
        if not missing:
            continue
        with tempfile.TemporaryDirectory() as scratch:
            settings = config(training, data, Path(scratch) / "run", 13)
            run = train(settings)
            for share in missing:
                table = measured(averaged(run, settings, share), task)
                about = {"training": training._asdict(), "average_start": share}
                keep(table, about, out, names[share])
        for attempt in ATTEMPTS:
            summarise(attempt, out)


def measured(encoder: Encoder, task: Any) -> pd.DataFrame:
    """The scores of an encoder on the validation task, raw and debiased."""
    return measure(task, embedding(encoder, Path(tempfile.mkdtemp())), fold_of, None)


def keep(table: pd.DataFrame, about: dict[str, Any], out: Path, name: str) -> None:
    """Write a measurement."""
    write_table(table, out / f"{name}.parquet")
    write_json(out / f"{name}.json", about | {"means": means(table, SPOKEN)})


def gains(
    uses: tuple[str, ...], own: dict[str, float], start: dict[str, float]
) -> tuple[str, float]:
    """The best of some ways to use a model, and its smallest gain."""
    best_known = USES["debiased in the pool"]  # of the untrained encoder
    floors = {setting: start[f"{best_known[setting]}/{setting}"] for setting in SETTINGS}
    found = {
        use: min(
            own[f"{USES[use][setting]}/{setting}"] - floors[setting] for setting in SETTINGS
        )
        for use in uses
    }
    best = max(found, key=lambda use: found[use])
    return best, found[best]


def points_of(uses: tuple[str, ...], out: Path) -> Iterator[dict[str, Any]]:
    """The measured points with their worth."""
    start = read_json(out / "untrained.json")["means"]
    for training in GRID:
        for share in SHARES:
            path = out / f"{training.name}-start-{share:g}.json"
            if path.exists():
                found = read_json(path)
                used, least = gains(uses, found["means"], start)
                yield {
                    "name": path.stem, "used": used, "least": least, "average_start": share,
                    "training": found["training"], "means": found["means"],
                }  # fmt: skip


def summarise(attempt: Attempt, out: Path) -> dict[str, Any]:
    """Write the points of an attempt, the chosen one, and whether it is accepted."""
    rows = sorted(points_of(attempt.uses, out), key=lambda row: -row["least"])
    planned = len(GRID) * len(SHARES)
    result: dict[str, Any] = {
        "schema_version": 1, "kind": "recipe", "planned": planned, "done": len(rows),
        "points": rows, "chosen": rows[0] if rows else None, "accepted": None,
    }  # fmt: skip
    best = result["chosen"]
    if best is None:
        result["verdict"] = "No point is measured yet."
    elif best["least"] <= 0:
        result["verdict"] = (
            f"The best point so far, {best['name']} ({best['used']}), is not ahead of the untrained encoder in"
            " every setting, so there is nothing to accept yet."
        )
    else:
        result["verdict"] = (
            f"The best point so far is {best['name']}, used {best['used']}: ahead of the untrained encoder in"
            " every setting of the validation. Whether it holds on XQuAD-R and XQuADRetrieval"
            " (`recipe.py accept`) is open."
        )
    judgement = attempt.file(out, "acceptance")
    if best is not None and judgement.exists():
        found = read_json(judgement)
        if found["recipe"] == best["name"]:
            result["accepted"] = best["name"] if found["accepted"] else None
            result["verdict"] = found["verdict"]
    write_json(attempt.file(out, "recipe"), result)
    return result


def accept(
    attempt: Attempt, folder: Path, data_root: Path | None, out: Path, seed: int | None = None
) -> None:
    """Apply the plan's rule to the chosen point; with a seed, only measure that training."""
    best = summarise(attempt, out)["chosen"] if (out / "untrained.json").exists() else None
    if best is None:
        raise ConfigError(f"{out}: has no measured point; run `recipe.py search` first")
    if best["least"] <= 0:
        raise ConfigError(
            f"{out}: the best point is not ahead in every setting of the validation, so there is"
            " nothing to accept; search on"
        )
    collection = Collection(load_task("xquad-r", data_root=data_root))
    data = prepared(folder)
    if seed is not None:
        trial(best, seed, data, collection, out)
        return
    bm25_of_collection(collection, out)
    start, before = trial(best, None, data, collection, out)
    trained = {seed: trial(best, seed, data, collection, out) for seed in attempt.seeds}
    tables = {seed: table for seed, (table, _) in trained.items()}
    official = {None: before} | {seed: scores for seed, (_, scores) in trained.items()}
    judge(attempt, best, start, tables, official, collection, out)


def trial(
    best: dict[str, Any], seed: int | None, data: Path, collection: Collection, out: Path
) -> tuple[pd.DataFrame, Any]:
    """XQuAD-R's scores by question, and the official ones, of the chosen point or the start."""
    name = f"accept-{best['name']}-{'untrained' if seed is None else f'seed-{seed}'}"
    if not (out / f"{name}.json").exists():
        with tempfile.TemporaryDirectory() as scratch:
            model = START
            if seed is not None:
                settings = config(
                    Training(**best["training"]), data, Path(scratch) / "run", seed
                )
                share = {"average_start": best["average_start"]}
                model = str(train(settings.model_copy(update=share)))
            table = of_collection(model, collection)
            scores = official_scores(model, Path(scratch))
        write_table(table, out / f"{name}.parquet")
        write_json(out / f"{name}.json", {"official": scores})
    table = pd.read_parquet(out / f"{name}.parquet")
    keys = ["query_language", "query_id"]
    return table.set_index(keys), read_json(out / f"{name}.json")["official"]


def of_collection(model: str, collection: Collection) -> pd.DataFrame:
    """The scores of a model on XQuAD-R, debiased by the means of other articles."""
    halves = collection.halves(13)
    encoder = Encoder.load(model, **LENGTHS)
    embed = embedding(encoder, Path(tempfile.mkdtemp()))
    return measure(collection.task, embed, lambda name: halves[collection.article[name]], None)


def bm25_of_collection(collection: Collection, out: Path) -> None:
    """Write the scores of BM25 on XQuAD-R, if they are not there."""
    if not (out / "bm25.json").exists():
        table = measure_bm25(collection.task)
        write_table(table, out / "bm25.parquet")
        write_json(out / "bm25.json", {"means": means(table, collection.task.queries)})


def official_scores(model: str, scratch: Path) -> dict[str, float] | str:
    """nDCG@10 by language of mteb's XQuADRetrieval, or why it could not be had."""
    from hybridbatch.scoring.evaluate import evaluate
    from hybridbatch.scoring.settings import EvalConfig

    given = {
        "model": model,
        "tasks": OFFICIAL,
        "out": scratch / "eval",
        "cache": scratch / "cache",
        "verify": 0,
    }
    try:
        found = read_json(evaluate(build(EvalConfig, None, given)) / "eval.json")["official"]
    except HybridBatchError as error:
        return str(error)
    if not found:
        return f"{OFFICIAL}: gave no scores"
    return {entry["subset"]: float(entry["main_score"]) for entry in found[0]["by_subset"]}


def judge(
    attempt: Attempt,
    best: dict[str, Any],
    start: pd.DataFrame,
    tables: dict[int, pd.DataFrame],
    official: dict[int | None, Any],
    collection: Collection,
    out: Path,
) -> None:
    """Write the acceptance of an attempt."""
    rows = list(on_collection(attempt.rule, best["used"], start, tables, collection))
    others = [use for use in attempt.exploratory if use != best["used"]]
    refused = [value for value in official.values() if isinstance(value, str)]
    if refused:
        rows.append(
            {"measure": OFFICIAL, "against": "untrained", "passed": None, "why": refused[0]}
        )
    else:
        differences = pd.DataFrame(
            {s: {n: official[s][n] - official[None][n] for n in official[None]} for s in tables}
        )
        rows.append(row(OFFICIAL, "untrained", crossed_t(differences.T.to_numpy()), FLOOR))
    accepted = all(each["passed"] for each in rows)
    failed = [each["measure"] for each in rows if not each["passed"]]
    words = "accepted by the plan's rule" if accepted else f"not accepted: {', '.join(failed)}"
    verdict = f"{best['name']}, used {best['used']}, is {words}."
    write_json(attempt.file(out, "acceptance"), {
        "schema_version": 1, "kind": "recipe-acceptance", "recipe": best["name"], "used": best["used"], "rows": rows,
        "exploratory": [
            each for use in others for each in on_collection(RULE, use, start, tables, collection)
        ],
        "accepted": accepted, "verdict": verdict,
    })  # fmt: skip
    summarise(attempt, out)


def on_collection(
    rule: tuple[tuple[str, str, float], ...],
    use: str,
    start: pd.DataFrame,
    tables: dict[int, pd.DataFrame],
    collection: Collection,
) -> Iterator[dict[str, Any]]:
    """The comparisons on XQuAD-R of models that are used in one way; tables by seed."""
    for setting, rival, floor in rule:
        before = start[f"{RIVALS[rival][setting]}/{setting}"]
        parts = {
            seed: (table[f"{USES[use][setting]}/{setting}"] - before)
            .astype(float).groupby("query_id").mean()
            for seed, table in tables.items()
        }  # fmt: skip
        found = crossed_t(unit_table(pd.DataFrame(parts).T, collection.article))
        yield row(f"XQuAD-R {setting}", rival, found, floor)


def row(measure: str, against: str, found: Contrast, floor: float) -> dict[str, Any]:
    """A comparison with its verdict."""
    return {
        "measure": measure, "against": against, "difference": found.mean, "low": found.low,
        "high": found.high, "degrees": found.degrees, "floor": floor, "passed": bool(found.low > floor),
    }  # fmt: skip


def main() -> None:
    """Search, or accept."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=["search", "accept"])
    parser.add_argument("data", type=Path)
    parser.add_argument("--points", type=int, default=len(GRID), help="only so many trainings")
    parser.add_argument("--data-root", type=Path, help="folder with a copy of xquad-r")
    parser.add_argument("--attempt", type=int, default=1, choices=[a.number for a in ATTEMPTS])
    parser.add_argument(
        "--seed", type=int, help="only train and measure this one, judge nothing"
    )
    parser.add_argument("--out", type=Path, default=HERE / "E")
    arguments = parser.parse_args()
    try:
        if arguments.points < 1:
            raise ConfigError(f"--points {arguments.points}: must be at least 1")
        out = make_folder(arguments.out)
        if arguments.what == "search":
            search(arguments.data, arguments.points, out)
            for attempt in ATTEMPTS:
                summarise(attempt, out)
        else:
            attempt = ATTEMPTS[arguments.attempt - 1]
            accept(attempt, arguments.data, arguments.data_root, out, arguments.seed)
    except (HybridBatchError, DataError) as error:
        sys.stderr.write(f"error: {error}\n")
        sys.exit(2)


if __name__ == "__main__":
    main()
