"""Experiments B, C and D in FINDINGS.md, and every table of theirs in grid.md; from ``grid.json``."""

from collections.abc import Iterator
from pathlib import Path

from wording import (
    HEADER,
    Row,
    contrast_line,
    detectable,
    of_setting,
    said,
    shown,
    told,
    unit,
    yes,
)

from hybridbatch.common.files import read_json, write_text

LINES = (
    ("belebele-sib", "cross-lingual", "mAP"), ("belebele-sib", "multilingual", "mAP"),
    ("belebele-sib", "multilingual", "rank_distance"), ("atlas", "monolingual", "mAP"),
    ("atlas", "cross-lingual", "mAP"), ("atlas", "multilingual", "mAP"),
    ("atlas", "multilingual", "rank_distance"),
)  # fmt: skip
WIDE_LINES = (
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
    "D": "another start",
}


def grid_report(home: Path) -> Row | None:
    """What `report_grid.py` has written."""
    path = home / "grid.json"
    return read_json(path) if path.exists() else None


def how_far(home: Path) -> str:
    """How much of experiments B to D is run, in a sentence."""
    found = grid_report(home)
    planned = sum(each["planned"] for each in found["experiments"]) if found else 0
    trained = sum(each["trained"] for each in found["experiments"]) if found else 0
    if not found or not trained:
        return "No training of B, C or D has been run."
    judged = sum(family["final"] for family in found["families"])
    return (
        f"Of B, C and D {trained} of {planned} trainings are run, and {judged} of their families are judged;"
        " of the others nothing is claimed."
    )


def row_of(home: Path, family: str, contrast: str, setting: str = "multilingual") -> Row | None:
    """A row of mAP of a family; None while its seeds are not whole."""
    found = grid_report(home)
    for each in found["families"] if found else ():
        if each["name"] != family or each["seeds"] != found["planned_seeds"]:
            continue
        for row in each["rows"]:
            if (row["contrast"], row["setting"], row["metric"]) == (contrast, setting, "mAP"):
                return row
    return None


def low_resource(home: Path) -> Iterator[str]:
    """What experiment B says to a practitioner, once it is judged."""
    parts = []
    for task in ("belebele-sib", "atlas"):
        raw = row_of(home, f"B1 hybrid against pure kinds, raw, {task}", "0.5 - 1")
        after = row_of(home, f"B2 hybrid against pure kinds, debiased, {task}", "0.5 - 1")
        worth = row_of(home, f"is training worth it, debiased, {task}", "0.5 - untrained")
        if not (raw and after and worth):
            return
        parts.append((task, raw, after, worth))
    gains = "; ".join(
        f"{task} {said(raw)}, debiased {said(after)}" for task, raw, after, _ in parts
    )
    worths = "; ".join(f"{task} {told(worth)}" for task, _, _, worth in parts)
    yield (
        "In eight low-resource languages that no training saw, and English (experiment B), hybrid against"
        f" monolingual batches in the pool: {gains}. There, too, debiasing comes before training: mix 0.5 against"
        f" the untrained encoder, both debiased, pool (exploratory): {worths}."
    )


def more_text(home: Path) -> Iterator[str]:
    """What more training text does, once every size is judged."""
    found = {}
    for task in ("belebele-sib", "atlas"):
        rows = [
            row_of(home, f"F does more text help, {vectors}, {task}", "0.5, per doubling")
            for vectors in ("raw", "debiased")
        ]
        rows.append(
            row_of(
                home,
                f"B3 the same per doubling of records, raw, {task}",
                "0.5 - 1, per doubling",
            )
        )
        if not all(row and "verdict" in row for row in rows):
            return
        found[task] = rows
    gains = [raw["verdict"] == "difference" and raw["low"] > 0 for raw, _, _ in found.values()]
    gains_after = [
        after["verdict"] == "difference" and after["low"] > 0 for _, after, _ in found.values()
    ]
    if all(gains) and not any(gains_after):
        lead = "More text raises the raw pool of hybrid batches, and no gain is shown once it is debiased"
    else:
        lead = "What more text does to the pool of hybrid batches"
    sizes = grid_report(home)["sizes"]
    parts = [
        f"{task} {said(raw)}, debiased {said(after)}; the lead over monolingual batches, raw, {said(ahead)}"
        for task, (raw, after, ahead) in found.items()
    ]
    yield (
        f"{lead}. For each doubling from {sizes[0]:,} to {sizes[-1]:,} records: {'. '.join(parts)}."
    )


def beside_mixes(home: Path) -> Iterator[str]:
    """What a teacher, other strategies and the order of the kinds do, once they are judged."""
    parts = []
    for task in ("belebele-sib", "atlas"):
        rows = [
            row_of(
                home, f"C5 a teacher against none, debiased, {task}", "0.5 with a teacher - 0.5"
            ),
            row_of(home, f"C2 X-X and MTT against hybrid, debiased, {task}", "X-X - 0.5"),
            row_of(home, f"C2 X-X and MTT against hybrid, debiased, {task}", "MTT - 0.5"),
            row_of(
                home,
                f"C4 interleaved against monolingual first, raw, {task}",
                "0.5 - monolingual first",
            ),
        ]
        if not all(rows):
            return
        teacher, mixed, mtt, order = map(said, rows)
        parts.append(
            f"{task}: a teacher (the start itself) {teacher}, X-X {mixed}, MTT {mtt}, and, raw, interleaved"
            f" against monolingual first {order}"
        )
    yield f"Beside hybrid batches, debiased, in the pool (experiment C). {'. '.join(parts)}."


def carried_over(home: Path) -> str:
    """The claim that gains carry over to languages that were not trained on, as a line of claims."""
    claim = "| gains carry over to languages that were not trained on |"
    rows = {
        task: row_of(home, f"B1 hybrid against pure kinds, raw, {task}", "0.5 - 1")
        for task in ("belebele-sib", "atlas")
    }
    if not all(rows.values()):
        return f"{claim} undecidable here: experiment B is not judged | | |"
    won = [
        task for task, row in rows.items() if row["verdict"] == "difference" and row["low"] > 0
    ]
    word = "reproduced in the pool" if len(won) == len(rows) else "not reproduced"
    told_of = "; ".join(f"{task} {told(row)}" for task, row in rows.items())
    least = max(row["detectable"] for row in rows.values())
    return f"{claim} {word} | against X-X-mono: {told_of} | {100 * least:.1f} points |"


def grid_predictions(home: Path) -> Iterator[str]:
    """What the plan expected of experiment C, and whether it came."""
    for task in ("belebele-sib", "atlas"):
        row = row_of(
            home, f"C1 does debiasing close the gap, {task}", "(0 - 1 raw) - (0 - 1 debiased)"
        )
        if row:
            share = row["difference"] / row["gap_raw"]
            left = row["gap_raw"] - row["difference"]
            yield (
                f"| C1 | debiasing closes most of the pool's gap on {task} | {yes(abs(1 - share) < 0.5)} |"
                f" of {100 * row['gap_raw']:+.1f} points {100 * left:+.1f} are left |"
            )
    for name in ("X-X", "MTT"):
        row = row_of(home, "C2 their pool, debiased, belebele-sib", f"{name} - 0.6")
        if row:
            yield (
                f"| C2 | {name}'s debiased pool above .60 | {yes(row['low'] > 0)} | {told(row)} above |"
            )


def grid(home: Path) -> Iterator[str]:
    """The section of FINDINGS.md."""
    found = grid_report(home)
    if not found:
        yield how_far(home)
        return
    yield from (
        "All settings are committed, and one command runs what is missing (`make study2`).", "",
        "| experiment | question | trainings | run |", "|---|---|---:|---:|",
    )  # fmt: skip
    for each in found["experiments"]:
        name = each["experiment"]
        yield f"| {name} | {QUESTIONS[name]} | {each['planned']} | {each['trained']} |"
    yield from ("", *means(home, found, LINES))
    if found["families"]:
        yield from ("", *verdicts(found))


def means(home: Path, found: Row, columns: tuple[tuple[str, str, str], ...]) -> Iterator[str]:
    """The lines without training, and the means of what is trained with the largest size."""
    header = " | ".join(in_words(*measure) for measure in columns)
    yield (
        "English questions on belebele-sib; macro-averages over nine query languages on the atlas. Means and SHIFT's"
        " vectors are from the other half of each task's own texts. [grid.md](grid.md) has every size."
    )
    yield from (
        "",
        f"| line | vectors | seeds | {header} |",
        f"|---|---|---:|{'---:|' * len(columns)}",
    )
    for (name, vectors), values in starts(home / "B").items():
        cells = [shown(measure[2], values[measure]) for measure in columns]
        yield f"| {name} | {vectors} | | {' | '.join(cells)} |"
    for line in found["means"]:
        if of_task(line, columns[0][0]) and largest(line, found):
            yield mean_line(line, columns)


def of_task(line: Row, task: str) -> bool:
    """Whether a line of means has scores of a task."""
    return any(name.startswith(f"{task} ") for name in line)


def largest(line: Row, found: Row) -> bool:
    """Whether a line of means is of trainings with the most records."""
    return line["axes"].get("pairs", found["sizes"][-1]) == found["sizes"][-1]


def mean_line(line: Row, columns: tuple[tuple[str, str, str], ...]) -> str:
    """The means of a side."""
    cells = [shown(measure[2], line[" ".join(measure)]) for measure in columns]
    seeds = len(line["seeds"])
    return f"| {line['side']} | {line['vectors']} | {seeds} | {' | '.join(cells)} |"


def verdicts(found: Row) -> Iterator[str]:
    """A line for each family of the plan."""
    planned = len(found["planned_seeds"])
    yield from (
        "A family is judged when all its seeds are there. *Undecided*: with the difference that would be found with a"
        " chance of 80 %.", "",
        "| family | seeds | different | equivalent | undecided |", "|---|---:|---|---|---|",
    )  # fmt: skip
    for family in found["families"]:
        if family["exploratory"]:
            continue
        seeds = f"{len(family['seeds'])} of {planned}"
        cells = judged(family["rows"]) if family["final"] else ["not yet", "", ""]
        yield f"| {family['name']} | {seeds} | {' | '.join(cells)} |"


def judged(rows: list[Row]) -> list[str]:
    """The rows of a family by their verdict."""
    cells = []
    for verdict in ("difference", "equivalent", "undecided"):
        told_of = []
        for row in rows:
            if row["verdict"] != verdict:
                continue
            words = f"{row['contrast']} in {of_setting(row['setting'], row['metric'])}"
            if verdict == "difference":
                words += f" {told(row)}"
            if verdict == "undecided":
                words += f" ({detectable(row)} {unit(row)})"
            told_of.append(words)
        cells.append("; ".join(told_of))
    return cells


def write_page(home: Path) -> None:
    """Write grid.md: every mean and every contrast."""
    found = grid_report(home)
    if not found:
        return
    lines = [
        "<!-- Written by report_grid.py (findings_grid.py). Do not edit: make study2-report -->",
        "# Experiments B, C and D: every mean and every contrast", "",
        "[FINDINGS.md](FINDINGS.md) says what they mean, [plan.md](plan.md) what was planned. *detectable*: the"
        " difference that is found with a chance of 80 %, in points of mAP or in ranks; *over languages*: the"
        " interval with query languages as the units.",
    ]  # fmt: skip
    for columns in (LINES, WIDE_LINES):
        rows = [line for line in found["means"] if of_task(line, columns[0][0])]
        if rows:
            header = " | ".join(in_words(*measure) for measure in columns)
            lines += ["", f"| side | vectors | seeds | {header} |"]
            lines += [f"|---|---|---:|{'---:|' * len(columns)}"]
            lines += [mean_line(line, columns) for line in rows]
    for family in found["families"]:
        seeds = ", ".join(map(str, family["seeds"]))
        without = "exploratory" if family["exploratory"] else "none yet"
        lines += ["", f"**{family['name']}** (seeds {seeds})", "", *HEADER]
        for row in family["rows"]:
            lines.append(contrast_line(row, of_setting(row["setting"], row["metric"]), without))
    write_text(home / "grid.md", "\n".join([*lines, ""]))


def starts(folder: Path) -> dict[tuple[str, str], dict[tuple[str, str, str], float]]:
    """The means of the cells without training, by line and measure."""
    found: dict[tuple[str, str], dict[tuple[str, str, str], float]] = {}
    for path in sorted((folder / "cells").glob("*.json")):
        cell = read_json(path)
        if cell["train"] is not None:
            continue
        for task in cell["eval"]["tasks"]:
            line = (
                cell["axes"].get("baseline") or "untrained",
                "debiased" if task.get("of") else "raw",
            )
            for measure in LINES:
                if measure[0] == (task.get("of") or task["name"]):
                    means = [each[measure[2]] for each in task["settings"][measure[1]].values()]
                    found.setdefault(line, {})[measure] = sum(means) / len(means)
    order = (("untrained", "raw"), ("untrained", "debiased"), ("shift", "raw"), ("bm25", "raw"))
    return {name: found[name] for name in order if name in found}


def in_words(task: str, setting: str, metric: str) -> str:
    """A measure at the head of a column."""
    return f"{task} {of_setting(setting, metric)}"
