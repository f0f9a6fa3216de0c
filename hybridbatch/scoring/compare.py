"""`hybridbatch compare`: which of several evaluations is better, by tests on values per query."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

from hybridbatch.common.errors import ConfigError, DataError
from hybridbatch.common.files import write_json, write_text
from hybridbatch.scoring import per_query as perquery
from hybridbatch.scoring import significance
from hybridbatch.scoring.documents import Evaluated, read_evaluation
from hybridbatch.scoring.drawing import SUFFIXES, write_figure

SCHEMA_VERSION = 1
LOWER_IS_BETTER = ("rank_distance", "max_rank")
# all other metrics except `AS_IT_IS` are shares, printed in points (hundredths)
IN_RANKS = ("rank_distance", "max_rank")
AS_IT_IS = "mlrs"  # from 0 to 100 already
# beginnings of the names of metrics for which neither direction is better
NEITHER_IS_BETTER = ("lpr", "same_language_share", "first_", AS_IT_IS)


def compare(
    runs: Sequence[Path | Sequence[Path]],
    metric: str = "mAP",
    *,
    names: Sequence[str] | None = None,
    pairs: Sequence[tuple[int, int]] | None = None,
    seed: int = 13,
    draws: int = 10_000,
    alpha: float = 0.05,
) -> dict[str, Any]:
    """Compare every two of some evaluations, in every setting of every task that they share.

    The unit is the question: its values in all languages are flipped and drawn together
    (`scoring.significance`). p values are Holm-corrected over all settings, tasks and pairs of
    runs. Means are over all values of a setting. If all languages have the same questions, this is
    the macro-average.

    Args:
        runs: folders of `hybridbatch eval`, two or more. A run may be several folders, one for each
            seed, in the same order for every run. A question then has the values of all its
            folders.
        metric: a column of the scores per query, or the name of its mean (``mAP``, ``MRR``).
        names: names of the runs; default: the names of the folders.
        pairs: which runs are compared, as numbers; default: every two.
        seed, draws: of the randomisation test and the bootstrap.
        alpha: a difference counts if its corrected p value is below alpha.

    Returns:
        ``metric``, ``runs``, ``rows`` (the fields of `significance.Comparison` with task, setting
        and the two runs), ``verdicts`` (one sentence for each row), and ``summaries`` (one for each
        task and pair of runs). JSON types only.

    Raises:
        ConfigError: fewer than two runs.
        DataError: runs that share no task, have different data under one task name, or lack the
            metric.
    """
    if len(runs) < 2:
        raise ConfigError(
            f"compare needs two evaluations or more, not {len(runs)}; give their folders"
        )
    folders = [(run,) if isinstance(run, Path) else tuple(run) for run in runs]
    sizes = [len(group) for group in folders]
    if len(set(sizes)) > 1:
        raise ConfigError(
            f"compare: the runs have {sizes} folders; give the same number for each"
        )
    names = list(names or _names([group[0] for group in folders]))
    read = [
        _Run(name, group, [read_evaluation(run, Evaluated) for run in group])
        for name, group in zip(names, folders, strict=True)
    ]
    tasks = _shared_tasks(read)
    for run in read:
        run.scores = [perquery.read(folder, metric) for folder in run.folders]

    found: list[tuple[int, int, str, significance.Comparison]] = []
    for task in tasks:
        for a, b in pairs or combinations(range(len(read)), 2):
            for comparison in _compared(read[a], read[b], task, seed, draws):
                found.append((a, b, task, comparison))
    if not found:
        raise DataError(
            f"{', '.join(names)}: have no query with {metric!r} in common; evaluate the same tasks"
        )

    # All tests are one family, so p values are corrected once, over all comparisons.
    corrected = significance.holm(np.array([comparison.p for *_, comparison in found]))
    rows, verdicts = [], []
    told: dict[tuple[int, int, str], list[significance.Comparison]] = {}
    words: dict[str, Any] = {**wording(metric), "alpha": alpha}
    for (a, b, task, comparison), p_holm in zip(found, corrected.tolist(), strict=True):
        one, other = read[a], read[b]
        comparison = replace(comparison, p_holm=p_holm)
        rows.append(
            {"task": task, "run_a": one.name, "run_b": other.name, **asdict(comparison)}
        )
        named = replace(comparison, setting=f"{task} ({comparison.setting})")
        verdicts.append(significance.verdict(named, one.name, other.name, **words))
        told.setdefault((a, b, task), []).append(comparison)
    summaries = []
    for (a, b, task), comparisons in told.items():
        sentence = significance.summary(comparisons, read[a].name, read[b].name, **words)
        summaries.append(f"{task}: {sentence}")
    return {
        "schema_version": SCHEMA_VERSION,
        "kind": "compare",
        "metric": metric,
        "seed": seed,
        "draws": draws,
        "runs": [run.as_json() for run in read],
        "rows": rows,
        "verdicts": verdicts,
        "summaries": summaries,
    }


@dataclass
class _Run:
    """One side of a comparison: an evaluation, or the evaluations of several seeds."""

    name: str
    folders: Sequence[Path]
    facts: Sequence[Mapping[str, Any]]  # eval.json of each folder
    scores: Sequence[Any] = ()  # keys and values of the queries, for each folder

    def as_json(self) -> dict[str, Any]:
        """The description of the run in the comparison."""
        return {
            "name": self.name,
            "folders": [str(folder) for folder in self.folders],
            "models": [fact["model"] for fact in self.facts],
        }


def _compared(
    one: _Run, other: _Run, task: str, seed: int, draws: int
) -> list[significance.Comparison]:
    """Compare two runs on a task, in every setting.

    The values of a question from all seeds are together.
    """
    title = f"{one.name} and {other.name}"
    parts: tuple[list[np.ndarray], ...] = ([], [], [], [])
    for scores, others in zip(one.scores, other.scores, strict=True):
        for part, values in zip(parts, _paired(scores, others, task, title), strict=True):
            part.append(values)
    values_a, values_b, questions, settings = (np.concatenate(part) for part in parts)
    if not len(questions):
        return []
    return significance.compare(values_a, values_b, questions, settings, seed=seed, draws=draws)


def wording(metric: str) -> dict[str, Any]:
    """The keyword arguments of `significance.verdict` that suit a metric."""
    in_ranks = metric in IN_RANKS
    return {
        "metric": f"ranks of {metric.replace('_', ' ')}" if in_ranks else metric,
        "scale": 1.0 if in_ranks or metric.startswith(AS_IT_IS) else 100.0,
        "higher_is_better": metric not in LOWER_IS_BETTER,
        "verb": "exceeds" if metric.startswith(NEITHER_IS_BETTER) else "beats",
    }


def write(comparison: Mapping[str, Any], path: Path) -> None:
    """Write a comparison: a figure (``.svg``, ``.png``), Markdown (``.md``), else JSON.

    Raises:
        OutputError: the file cannot be written.
    """
    if path.suffix in SUFFIXES:
        from hybridbatch.scoring.figures import forest

        write_figure(forest(comparison, **wording(comparison["metric"])), path)
    elif path.suffix == ".md":
        write_text(path, markdown(comparison))
    else:
        write_json(path, comparison)


def markdown(comparison: Mapping[str, Any]) -> str:
    """The summaries and the table behind them."""
    head = (
        "task",
        "setting",
        "A",
        "B",
        "questions",
        "mean A",
        "mean B",
        "A - B",
        "95 % interval",
        "p (Holm)",
        "d",
    )
    lines = [f"# Comparison by {comparison['metric']}", ""]
    lines += [f"- {sentence}" for sentence in comparison["summaries"]]
    lines += ["", f"| {' | '.join(head)} |", "|" + " --- |" * len(head)]
    for row in comparison["rows"]:
        effect = "" if row["effect_size"] is None else f"{row['effect_size']:.2f}"
        cells = [row["task"], row["setting"], row["run_a"], row["run_b"], str(row["questions"])]
        cells += [f"{row[name]:.4f}" for name in ("mean_a", "mean_b", "difference")]
        cells += [f"{row['low']:.4f} to {row['high']:.4f}", f"{row['p_holm']:.4g}", effect]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _names(runs: Sequence[Path]) -> list[str]:
    """The names of the folders, or the whole paths if two names are equal."""
    short = [run.resolve().name for run in runs]
    return short if len(set(short)) == len(short) else [str(run) for run in runs]


def _shared_tasks(runs: Sequence[_Run]) -> list[str]:
    """Tasks of all runs.

    Raises:
        DataError: there is no shared task, or if one name stands for different data.
    """
    prints: list[tuple[str, dict[str, str]]] = []  # name of the run, fingerprints of its tasks
    for run in runs:
        for fact in run.facts:
            tasks = {}
            for task in fact["tasks"]:
                tasks[task["name"]] = task["provenance"]["fingerprint"]
            prints.append((run.name, tasks))
    first_name, first = prints[0]
    shared = [task for task in first if all(task in other for _, other in prints)]
    if not shared:
        listed = "; ".join(f"{name}: {', '.join(tasks)}" for name, tasks in prints)
        raise DataError(f"the evaluations share no task ({listed}); evaluate the same tasks")
    for task in shared:
        for name, other in prints:
            if other[task] != first[task]:
                raise DataError(
                    f"{first_name} and {name} evaluated different data as {task}"
                    f" (fingerprints {first[task]} and {other[task]}); evaluate both with the"
                    " same files and --languages"
                )
    return shared


def _paired(one: Any, other: Any, task: str, runs: str) -> tuple[np.ndarray, ...]:
    """Values of both runs, question and setting of each query.

    Raises:
        DataError: unless both runs have the same queries.
    """
    import pyarrow.compute as pc

    keys = [key for key in perquery.KEYS if key != "task"]
    parts = [table.filter(pc.field("task") == task) for table in (one, other)]
    if not parts[0].select(keys).equals(parts[1].select(keys)):
        # the order of the files decides the order of the languages
        parts = [part.sort_by([(key, "ascending") for key in keys]) for part in parts]
        if not parts[0].select(keys).equals(parts[1].select(keys)):
            raise DataError(
                f"{runs}: do not have the same queries of {task}; evaluate both again"
            )
    values = (part["value"].to_numpy() for part in parts)
    return (*values, *(parts[0][key].to_numpy() for key in ("query_id", "setting")))
