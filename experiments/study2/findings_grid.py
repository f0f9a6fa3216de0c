"""Experiments B, C and D in FINDINGS.md, and every table of theirs in grid.md; from ``grid.json``."""

from collections.abc import Iterator, Mapping
from pathlib import Path

from families import PREDICTED_POOL, STRATEGIES, TASKS
from wording import (
    HEADER,
    Row,
    contrast_line,
    contrast_words,
    detectable,
    gains,
    of_setting,
    shown,
    told,
    within_margin,
    yes,
)

from hybridbatch.common.files import read_json, write_text

Columns = tuple[tuple[str, str, str], ...]  # task, setting, metric
Starts = dict[
    tuple[str, str], dict[tuple[str, str, str], float]
]  # by line and vectors, by measure
LINES: Columns = (
    ("belebele-sib", "cross-lingual", "mAP"), ("belebele-sib", "multilingual", "mAP"),
    ("belebele-sib", "multilingual", "rank_distance"), ("atlas", "monolingual", "mAP"),
    ("atlas", "cross-lingual", "mAP"), ("atlas", "multilingual", "mAP"),
    ("atlas", "multilingual", "rank_distance"),
)  # fmt: skip
WIDE_LINES: Columns = (
    ("xquad-r", "monolingual", "mAP"), ("xquad-r", "cross-lingual", "mAP"),
    ("xquad-r", "multilingual", "mAP"), ("xquad-r", "multilingual", "rank_distance"),
    ("afriqa", "cross-lingual", "mAP"),
)  # fmt: skip
QUESTIONS = {
    "B": "the grid again: mix and number of records",
    "B-baselines": "X-X and MTT beside it (C2)",
    "B-mimo": "MIMO's loss beside it",
    "B-wide": "its largest models on XQuAD-R and AfriQA",
    "C-mkqa": "is it question alignment (C3)",
    "C-order": "does the order of the kinds matter (C4)",
    "C-teacher": "is a teacher still worth it (C5)",
    "D": "another start; each mix found a temperature of its own",
    "D-fixed": "the same at 0.05, which mix 0 of D found",
}

MEASURE_WORDS = (
    "monolingual mAP",
    "cross mAP",
    "multilingual mAP",
    "multilingual rank distance",
)
POOLS = dict.fromkeys(TASKS, "multilingual")


class GridFindings:
    """The report of experiments B, C and D, and the scores of B's lines without training."""

    def __init__(self, home: Path) -> None:
        path = home / "grid.json"
        self.report: Row | None = read_json(path) if path.exists() else None
        self.starts = starts(home / "B", LINES)
        self.wide_starts = starts(home / "B-wide", WIDE_LINES)

    def row(self, family: str, contrast: str, setting: str = "multilingual") -> Row | None:
        """A row of mAP of a family; None until all its seeds are there."""
        wanted = (contrast, setting, "mAP")
        for each in self.report["families"] if self.report else ():
            whole = each["final"] or (
                each["exploratory"] and each["seeds"] == self.report["planned_seeds"]
            )
            if each["name"] != family or not whole:
                continue
            for row in each["rows"]:
                if (row["contrast"], row["setting"], row["metric"]) == wanted:
                    return row
        return None

    def by_task(
        self, *wanted: tuple[str, str], settings: Mapping[str, str] = POOLS
    ) -> dict[str, list[Row]]:
        """Some rows of each task; empty until all of them are there.

        Args:
            wanted: names of a family, without its task, and of a contrast.
            settings: the setting of each task.
        """
        found = {
            task: [
                self.row(f"{family}, {task}", contrast, where) for family, contrast in wanted
            ]
            for task, where in settings.items()
        }
        return found if all(all(rows) for rows in found.values()) else {}

    def untrained_pools(self) -> dict[str, tuple[float, float]]:
        """The pool's mAP of the untrained encoder, raw and debiased; empty if they are not scored."""
        raw, after = (self.starts.get(("untrained", v)) for v in ("raw", "debiased"))
        if not raw or not after:
            return {}
        pools = {task: (task, "multilingual", "mAP") for task in TASKS}
        return {task: (raw[pool], after[pool]) for task, pool in pools.items()}


def how_far(grid: GridFindings) -> str:
    """How much of experiments B to D is run, in a sentence."""
    experiments = grid.report["experiments"] if grid.report else []
    planned, trained = (
        sum(each[name] for each in experiments) for name in ("planned", "trained")
    )
    if not trained:
        return "No training of B, C or D has been run."
    judged = sum(family["final"] for family in grid.report["families"])
    return (
        f"Of B, C and D {trained} of {planned} trainings are run, and {judged} of their families are judged;"
        " the others are exploratory or wait for their seeds."
    )


AHEAD = ("B1 hybrid against pure kinds, raw", "0.5 - 1")
NEAR = "mixes .25 and .75 against .5, raw"


def stable(grid: GridFindings) -> str:
    """The claim that mixes near the half do alike, as a line of claims."""
    claim = "| mix 0.4 to 0.6 is a stable choice |"
    found = grid.by_task((NEAR, "0.25 - 0.5"), (NEAR, "0.75 - 0.5"))
    if not found:
        return f"{claim} undecidable here: B's mixes .25 and .75 are not run | | | |"
    rows = [row for both in found.values() for row in both]
    near = all(map(within_margin, rows))
    word = (
        "reproduced, from .25 to .75"
        if near
        else "undecidable here: tried with .25 and .75 alone"
    )
    told_of = "; ".join(
        f"{task}: .25 {told(below)}, .75 {told(above)}"
        for task, (below, above) in found.items()
    )
    least = max(row["detectable"] for row in rows)
    return f"{claim} {word} | | {100 * least:.1f} points | pool, against mix .5: {told_of} |"


def carried_over(grid: GridFindings) -> str:
    """The claim that gains carry over to languages that were not trained on, as a line of claims."""
    claim = "| gains carry over to languages that were not trained on |"
    rows = {task: row for task, (row,) in grid.by_task(AHEAD).items()}
    if not rows:
        return f"{claim} undecidable here: experiment B is not judged | | | |"
    word = "reproduced in the pool" if all(map(gains, rows.values())) else "not reproduced"
    told_of = "; ".join(f"{task} {told(row)}" for task, row in rows.items())
    least = max(row["detectable"] for row in rows.values())
    return f"{claim} {word} | | {100 * least:.1f} points | against X-X-mono: {told_of} |"


def grid_predictions(grid: GridFindings) -> Iterator[str]:
    """What the plan expected of experiment C, and whether it came."""
    for task in TASKS:
        row = grid.row(
            f"C1 does debiasing close the gap, {task}", "(0 - 1 raw) - (0 - 1 debiased)"
        )
        if row:
            share = row["difference"] / row["gap_raw"]
            left = row["gap_raw"] - row["difference"]
            yield (
                f"| C1 | debiasing closes most of the pool's gap on {task} | {yes(abs(1 - share) < 0.5)}{', the other kind is ahead' if share > 1.25 else ''} |"
                f" of {100 * row['gap_raw']:+.1f} points {100 * left:+.1f} are left |"
            )
    for name in STRATEGIES.values():
        row = grid.row("C2 their pool, debiased, belebele-sib", f"{name} - {PREDICTED_POOL:g}")
        if row:
            yield (
                f"| C2 | {name}'s debiased pool above .60 | {yes(row['low'] > 0)} | {told(row)} above |"
            )


def section(grid: GridFindings) -> Iterator[str]:
    """The section of FINDINGS.md."""
    found = grid.report
    if not found:
        yield how_far(grid)
        return
    yield from (
        "All settings are committed, and one command runs what is missing (`make study2`).", "",
        "| experiment | question | trainings | run |", "|---|---|---:|---:|",
    )  # fmt: skip
    for each in found["experiments"]:
        name = each["experiment"]
        yield f"| {name} | {QUESTIONS[name]} | {each['planned']} | {each['trained']} |"
    yield from (
        "", "English questions on belebele-sib; macro-averages over nine query languages on the atlas. Means and SHIFT's"
        " vectors are from the other half of each task's own texts. [grid.md](grid.md) has every size.",
        "", *head("line", LINES),
    )  # fmt: skip
    yield from start_lines(grid.starts, LINES)
    for line in found["means"]:
        if of_task(line, LINES[0][0]) and largest(line, found):
            yield mean_line(line, LINES)
    wide = [line for line in found["means"] if of_task(line, WIDE_LINES[0][0])]
    if wide:
        yield from (
            "", "The largest trainings on real questions: all of XQuAD-R in eleven languages, AfriQA in seven.", "",
            *head("line", WIDE_LINES),
        )  # fmt: skip
        yield from start_lines(grid.wide_starts, WIDE_LINES)
        yield from (mean_line(line, WIDE_LINES) for line in wide if line["axes"])
    if found["families"]:
        yield from ("", *verdicts(found))


def head(first: str, columns: Columns) -> list[str]:
    """The head of a table of means."""
    names = [first, "vectors", "seeds", *(in_words(*measure) for measure in columns)]
    return [f"| {' | '.join(names)} |", f"|---|---|---:|{'---:|' * len(columns)}"]


def start_lines(found: Starts, columns: Columns) -> Iterator[str]:
    """The lines without training of a table of means."""
    for (name, vectors), values in found.items():
        cells = [shown(measure[2], values[measure]) for measure in columns]
        yield f"| {name} | {vectors} | | {' | '.join(cells)} |"


def of_task(line: Row, task: str) -> bool:
    """Whether a line of means has scores of a task."""
    return any(name.startswith(f"{task} ") for name in line)


def largest(line: Row, found: Row) -> bool:
    """Whether a line of means is of trainings with the most records."""
    return line["axes"].get("pairs", found["sizes"][-1]) == found["sizes"][-1]


def mean_line(line: Row, columns: Columns) -> str:
    """The means of a side."""
    cells = [shown(measure[2], line[" ".join(measure)]) for measure in columns]
    seeds = len(line["seeds"])
    return f"| {line['side']} | {line['vectors']} | {seeds} | {' | '.join(cells)} |"


def verdicts(found: Row) -> Iterator[str]:
    """A table for each question of the plan: a line for each contrast, a column for each measure."""
    yield (
        "Every family of the plan, in points of mAP or in ranks. **D**: different by the test after Holm's correction in"
        " its family (one task's table lines); **d**: different, and within the margin by the two one-sided tests; **E**:"
        " equivalent; **?**: undecided, with the difference that would be found with a chance of 80 %. Intervals are of"
        " the single contrast, before the correction."
    )
    of_question: dict[str, list[Row]] = {}
    for family in found["families"]:
        if not family["exploratory"]:
            question = family["name"].rpartition(", ")[0]
            of_question.setdefault(question, []).append(family)
    for question, families in of_question.items():
        yield from (
            "",
            f"**{question}**",
            "",
            f"| task | contrast | {' | '.join(MEASURE_WORDS)} |",
        )
        yield f"|---|---|{'---|' * len(MEASURE_WORDS)}"
        for family in families:
            contrasts = dict.fromkeys(row["contrast"] for row in family["rows"])
            for contrast in contrasts:
                by_measure = {
                    of_setting(row["setting"], row["metric"]): verdict_cell(row)
                    for row in family["rows"]
                    if row["contrast"] == contrast
                }
                cells = [by_measure.get(measure, "") for measure in MEASURE_WORDS]
                task = family["rows"][0]["task"]
                yield f"| {task} | {contrast_words(contrast)} | {' | '.join(cells)} |"


def verdict_cell(row: Row) -> str:
    """A difference with the letter of its verdict."""
    words, _, interval = told(row).partition(" [")
    number = f"{words.split()[0]} [{interval}"
    letters = {"difference": "d" if row.get("within_margin") else "D", "equivalent": "E"}
    verdict = row.get("verdict")
    if verdict is None:
        return f"{number} not judged yet"
    if verdict == "undecided":
        return f"{number} ? ({detectable(row)})"
    return f"{number} {letters[verdict]}"


def write_page(found: Row, home: Path) -> None:
    """Write grid.md: every mean and every contrast of a report."""
    lines = [
        "<!-- Written by report_grid.py (findings_grid.py). Do not edit: make study2-report -->",
        "# Experiments B, C and D: every mean and every contrast", "",
        "[FINDINGS.md](FINDINGS.md) says what they mean, [plan.md](plan.md) what was planned. *detectable*: the"
        " difference that is found with a chance of 80 %, in points of mAP or in ranks; *over languages*: the"
        " interval with query languages as the units. *p (Holm)*: after Holm's correction inside the family."
        " Differences are judged by it, while intervals are of the single contrast: an interval without 0 may"
        " stand beside *undecided* or *equivalent*. *within the margin*: a difference that is shown to be smaller"
        " than the margin, too. Chance is of seeds and of the units that stand over each table.",
    ]  # fmt: skip
    for columns in (LINES, WIDE_LINES):
        rows = [line for line in found["means"] if of_task(line, columns[0][0])]
        if rows:
            lines += ["", *head("side", columns)]
            lines += [mean_line(line, columns) for line in rows]
    for family in found["families"]:
        seeds = ", ".join(map(str, family["seeds"]))
        without = "exploratory" if family["exploratory"] else "none yet"
        units = {f"{row['units']:,} {row['unit']}": None for row in family["rows"]}
        about = f"seeds {seeds}; units: {', '.join(units)}"
        lines += ["", f"**{family['name']}** ({about})", "", *HEADER]
        for row in family["rows"]:
            lines.append(contrast_line(row, of_setting(row["setting"], row["metric"]), without))
    write_text(home / "grid.md", "\n".join([*lines, ""]))


def starts(folder: Path, columns: Columns) -> Starts:
    """The means of the cells without training."""
    found: Starts = {}
    for path in sorted((folder / "cells").glob("*.json")):
        cell = read_json(path)
        if cell["train"] is not None:
            continue
        for task in cell["eval"]["tasks"]:
            line = (
                cell["axes"].get("baseline") or "untrained",
                "debiased" if task.get("of") else "raw",
            )
            for measure in columns:
                if measure[0] == (task.get("of") or task["name"]):
                    means = [each[measure[2]] for each in task["settings"][measure[1]].values()]
                    found.setdefault(line, {})[measure] = sum(means) / len(means)
    order = (("untrained", "raw"), ("untrained", "debiased"), ("shift", "raw"), ("bm25", "raw"))
    return {name: found[name] for name in order if name in found}


def in_words(task: str, setting: str, metric: str) -> str:
    """A measure at the head of a column."""
    return f"{task} {of_setting(setting, metric)}"
