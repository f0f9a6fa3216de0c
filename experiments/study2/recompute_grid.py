"""Recomputes the figures of experiments B, C and D, for `recompute.py`. Uses nothing of hybridbatch."""

import json
import math
import re
from functools import cache

import pandas as pd
from plain import by_question, contrast, entries_of, interval, macro

MEASURES = {
    f"{setting.removesuffix('-lingual')} {metric.replace('_', ' ')}": (setting, metric)
    for setting in ("monolingual", "cross-lingual", "multilingual")
    for metric in ("mAP", "rank_distance")
}


@cache
def scores(path):
    """Of a cell: {(task, setting, metric): ({question: mean over query languages}, macro-average)}."""
    found = {}
    for (task, setting), table in pd.read_parquet(path).groupby(["task", "setting"]):
        for metric in ("mAP", "rank_distance"):
            found[task, setting, metric] = by_question(table, metric), macro([table], metric)
    return found


def plain_axis(value):
    """A value of an axis as the report writes it."""
    if isinstance(value, dict):
        return ",".join(f"{name}={each}" for name, each in sorted(value.items()))
    return value


def slope(points):
    """The least-squares slope of [(x, y)], and its line's value at the mean x."""
    x = sum(a for a, _ in points) / len(points)
    y = sum(b for _, b in points) / len(points)
    products = sum((a - x) * (b - y) for a, b in points)
    return products / sum((a - x) ** 2 for a, _ in points), x, y


class Grid:
    """The cells and the report of a folder."""

    def __init__(self, home):
        path = home / "grid.json"
        self.home = home
        self.report = json.loads(path.read_text()) if path.exists() else None
        self.cells = []  # (experiment, axes; None: untrained, path of its table)
        self.baselines = {}  # of B, by name
        for each in sorted(home.glob("*/cells/*.json")) if self.report else ():
            cell = json.loads(each.read_text())
            axes = {name: plain_axis(value) for name, value in cell["axes"].items()}
            experiment, table = each.parts[-3], each.with_suffix(".parquet")
            if cell["train"]:
                self.cells.append((experiment, axes, table))
            elif not axes.get("baseline"):
                self.cells.append((experiment, None, table))
            if not cell["train"] and experiment == "B":
                self.baselines[axes.get("baseline", "untrained")] = table
        self.rows = []  # (family, row, its contrast recomputed)
        self.lines = []  # (line of means, recomputed by measure)

    def cell(self, side, seed):
        """The table of a side with a seed."""
        wanted = side["axes"] | {"seed": seed}
        fits = [
            table
            for experiment, axes, table in self.cells
            if experiment == side["experiment"]
            and (
                all(axes.get(name) == value for name, value in wanted.items())
                if axes and side["axes"]
                else not axes and not side["axes"]
            )
        ]
        (table,) = fits
        return table

    def of_row(self, row, seeds):
        """{(seed, question): value} of a row."""
        values = {}
        for seed in seeds:
            known = []
            for side in row["sides"]:
                task = f"{row['task']} (debiased)" if side["debiased"] else row["task"]
                cell = scores(self.cell(side, seed))
                found, _ = cell[task, row["setting"], row["metric"]]
                known.append((side, found))
            for question in set.intersection(*(set(found) for _, found in known)):
                points = [(side, found[question]) for side, found in known]
                values[seed, question] = self.combined(row, points)
        return values

    def combined(self, row, points):
        """The value of a row for one seed and question."""
        if row["kind"] in ("difference", "gap"):
            return sum(side["sign"] * value for side, value in points)
        if row["kind"] == "level":
            ((_, value),) = points
            return value - float(row["contrast"].rpartition(" - ")[2])
        by_mix = {}
        for side, value in points:
            at = math.log2(side["axes"]["pairs"])
            by_mix.setdefault(side["axes"]["mix"], []).append((at, value))
        if row["kind"] == "trend":
            first, *others = (slope(each)[0] for each in by_mix.values())
            return first - sum(others)
        (line,) = by_mix.values()
        *smaller, (largest, value) = sorted(line)
        rise, x, y = slope(smaller)
        return value - (y + rise * (largest - x))

    def contrasts(self):
        """The relative deviation of every figure of the families."""
        for family in self.report["families"] if self.report else ():
            for row in family["rows"]:
                found = contrast(self.of_row(row, family["seeds"]))
                self.rows.append((family, row, found))
                for key, value in found.items():
                    yield abs(value - row[key]) / max(1.0, abs(value))

    def means(self):
        """The relative deviation of every mean."""
        for line in self.report["means"] if self.report else ():
            exact = {}
            for name, value in line.items():
                fits = re.fullmatch(r"(\S+) (\S+ingual) (mAP|rank_distance)", name)
                if not fits:
                    continue
                task, setting, metric = fits.groups()
                named = f"{task} (debiased)" if line["vectors"] == "debiased" else task
                cells = [scores(self.cell(line, seed)) for seed in line["seeds"]]
                exact[name] = sum(cell[named, setting, metric][1] for cell in cells) / len(
                    cells
                )
                yield abs(exact[name] - value) / max(1.0, abs(exact[name]))
            self.lines.append((line, exact))

    def page_figures(self, text):
        """Every number of theirs in FINDINGS.md and grid.md: (line, number, exact, as shown)."""
        part = text.split("## Experiments B, C and D")[1].split("## E:")[0]
        if self.report:
            yield from self.of_means(part)
            yield from self.of_sentences(part)
            every = (self.home / "grid.md").read_text(encoding="utf-8")
            yield from self.of_means(every)
            yield from self.of_tables(every)

    def of_means(self, part):
        """Tables of means; their heads name the measures."""
        columns = []
        for line in part.splitlines():
            entries = entries_of(line)
            if len(entries) > 3 and entries[2] == "seeds":
                columns = [self.column(name) for name in entries[3:]]
            elif columns and line.startswith("|") and entries[1] in ("raw", "debiased"):
                exact = self.line(entries[0], entries[1], columns)
                for column, shown in zip(columns, entries[3:], strict=True):
                    yield line, float(shown), exact[column], shown

    def column(self, head):
        """The measure at the head of a column."""
        task, _, measure = head.partition(" ")
        return " ".join([task, *MEASURES[measure]])

    def line(self, name, vectors, columns):
        """The recomputed means of a line of a table."""
        for line, exact in self.lines:
            if (line["side"], line["vectors"]) == (name, vectors) and columns[0] in exact:
                return exact
        exact = {}
        for column in columns:
            task, setting, metric = column.split(" ")
            named = f"{task} (debiased)" if vectors == "debiased" else task
            _, exact[column] = scores(self.baselines[name])[named, setting, metric]
        return exact

    def of_tables(self, part):
        """The tables of contrasts in grid.md."""
        family = None
        for line in part.splitlines():
            entries = entries_of(line)
            if line.startswith("**"):
                family = line.split("**")[1]
            elif family and line.startswith("|") and entries[1] in MEASURES:
                (found,) = (
                    (row, exact) for of, row, exact in self.rows
                    if of["name"] == family and row["contrast"] == entries[0]
                    and (row["setting"], row["metric"]) == MEASURES[entries[1]]
                )  # fmt: skip
                row, exact = found
                scale = 1 if row["metric"] == "rank_distance" else 100
                yield from interval(line, entries[2], exact, scale)
                yield line, float(entries[3]), scale * exact["detectable"], entries[3]

    def of_sentences(self, part):
        """Differences in sentences: each must be one of the rows."""
        yield from nearest(part, [(row["metric"], found) for _, row, found in self.rows])


def nearest(part, contrasts):
    """Every "+0.1 points [-0.1, +0.3]" of a text beside the (metric, contrast) that is nearest."""
    for each in re.findall(r"[+-]\d+\.\d+ (?:points|ranks) \[[^]]*\]", part):
        numbers = [float(number) for number in re.findall(r"[+-]\d+\.\d+", each)]
        scale = 1 if "ranks" in each else 100
        candidates = [
            found for metric, found in contrasts
            if (metric == "rank_distance") == ("ranks" in each)
        ]  # fmt: skip
        best = min(candidates, key=lambda found: distance(numbers, found, scale))
        yield from interval(each, each, best, scale)


def distance(numbers, found, scale):
    """How far three numbers are from a contrast."""
    keys = ("difference", "low", "high")
    return max(abs(n - scale * found[key]) for n, key in zip(numbers, keys, strict=True))
