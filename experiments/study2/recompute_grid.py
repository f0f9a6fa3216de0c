"""Recomputes the figures of experiments B, C and D, for `recompute.py`. Uses nothing of hybridbatch."""

import json
import math
import re
from functools import cache

import pandas as pd
from plain import by_language, by_question, contrast, entries_of, interval

MEASURES = {
    f"{setting.removesuffix('-lingual')} {metric.replace('_', ' ')}": (setting, metric)
    for setting in ("monolingual", "cross-lingual", "multilingual")
    for metric in ("mAP", "rank_distance")
}


@cache
def scores(path):
    """Of a cell: {(task, setting, metric): {question: mean over query languages}}."""
    return {
        (*place, metric): by_question(table, metric)
        for place, table in pd.read_parquet(path).groupby(["task", "setting"])
        for metric in ("mAP", "rank_distance")
    }


@cache
def languages(path):
    """Of a cell: {(task, setting, metric): {query language: mean}}."""
    return {
        (*place, metric): by_language([table], metric)
        for place, table in pd.read_parquet(path).groupby(["task", "setting"])
        for metric in ("mAP", "rank_distance")
    }


def mean(path, task, setting, metric):
    """The macro-average over query languages of a cell."""
    found = languages(path)[task, setting, metric].values()
    return sum(found) / len(found)


def said(row):
    """The measure of a row in words."""
    return f"{row['setting'].removesuffix('-lingual')} {row['metric'].replace('_', ' ')}"


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
                found = cell[task, row["setting"], row["metric"]]
                known.append((side, found))
            for question in set.intersection(*(set(found) for _, found in known)):
                points = [(side, found[question]) for side, found in known]
                values[seed, question] = self.combined(row, points)
        return values

    def over_languages(self, row, seeds):
        """The contrast with query languages as the units, each averaged over seeds."""
        values = {}
        for seed in seeds:
            known = []
            for side in row["sides"]:
                task = f"{row['task']} (debiased)" if side["debiased"] else row["task"]
                found = languages(self.cell(side, seed))
                known.append((side, found[task, row["setting"], row["metric"]]))
            for code in known[0][1]:
                points = [(side, found[code]) for side, found in known]
                values.setdefault(code, []).append(self.combined(row, points))
        return contrast({(0, code): sum(each) / len(each) for code, each in values.items()})

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
                cells = [self.cell(line, seed) for seed in line["seeds"]]
                of_seeds = [mean(cell, named, setting, metric) for cell in cells]
                exact[name] = sum(of_seeds) / len(of_seeds)
                yield abs(exact[name] - value) / max(1.0, abs(exact[name]))
            self.lines.append((line, exact))

    def page_figures(self, text, every):
        """Every number of theirs in FINDINGS.md and grid.md: (line, number, exact, as shown)."""
        part = text.split("## Experiments B, C and D")[1].split("## E:")[0]
        yield from self.of_means(part)
        yield from self.of_verdicts(part)
        yield from self.of_means(every)
        yield from self.of_tables(every)
        yield from self.of_predictions(text)
        yield from self.of_starts(text)

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
            exact[column] = mean(self.baselines[name], named, setting, metric)
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
                if entries[4]:
                    seeds = next(of["seeds"] for of, each, _ in self.rows if each is row)
                    over = self.over_languages(row, seeds)
                    for end, shown in zip(
                        ("low", "high"), entries[4].split(" to "), strict=True
                    ):
                        yield line, float(shown), scale * over[end], shown

    def of_verdicts(self, part):
        """The lines of families: differences, and what would be found where there is none."""
        by_family = {}
        for family, row, found in self.rows:
            of = f"{row['contrast']} in {said(row)}"
            by_family.setdefault(family["name"], {})[of] = row, found
        for line in part.splitlines():
            known = by_family.get(entries_of(line)[0], {})
            for of, (row, found) in known.items():
                scale = 1 if row["metric"] == "rank_distance" else 100
                told = re.search(
                    re.escape(of) + r" ([+-]\S+) (?:points|ranks) (\[[^]]*\])", line
                )
                if told:
                    yield from interval(line, " ".join(told.groups()), found, scale)
                told = re.search(re.escape(of) + r" \((\S+) (?:points|ranks)\)", line)
                if told:
                    shown = told.group(1)
                    yield line, float(shown), scale * found["detectable"], shown

    def row(self, family, contrast, setting="multilingual", metric="mAP"):
        """The recomputed contrast of a row."""
        for of, row, found in self.rows:
            place = row["contrast"], row["setting"], row["metric"]
            if of["name"] == family and place == (contrast, setting, metric):
                return found
        return None

    def of_predictions(self, text):
        """What is left of the pool's gap, what was above the predicted pool, and the claim on gains."""
        for line in text.splitlines():
            left = re.match(r"\| C1 \| .* on (\S+) \|.*of (\S+) points (\S+) are left", line)
            if left:
                task, *shown = left.groups()
                exact = [self.pure_kinds(task), self.pure_kinds(f"{task} (debiased)")]
                for each, value in zip(shown, exact, strict=True):
                    yield line, float(each), 100 * value, each
            if line.startswith("| gains carry over") and line.endswith(" points |"):
                names = [
                    f"B1 hybrid against pure kinds, raw, {task}"
                    for task in ("atlas", "belebele-sib")
                ]
                shown = entries_of(line)[-1].removesuffix(" points")
                exact = max(self.row(name, "0.5 - 1")["detectable"] for name in names)
                yield line, float(shown), 100 * exact, shown

    def pure_kinds(self, task):
        """Mix 0 less mix 1 in the pool with the most records."""
        largest = {"experiment": "B", "axes": {"pairs": self.report["sizes"][-1]}}
        means = []
        for mix in (0.0, 1.0):
            side = largest | {"axes": largest["axes"] | {"mix": mix}}
            cells = [scores(self.cell(side, seed)) for seed in self.report["planned_seeds"]]
            of_seeds = [cell[task, "multilingual", "mAP"] for cell in cells]
            means.append(
                sum(sum(each.values()) / len(each) for each in of_seeds) / len(of_seeds)
            )
        return means[0] - means[1]

    def of_starts(self, text):
        """The sentence on debiasing alone in other pools."""
        for line in text.splitlines():
            for task, *shown in re.findall(r"(belebele-sib|atlas) (\.\d+) to (\.\d+)", line):
                for each, name in zip(shown, (task, f"{task} (debiased)"), strict=True):
                    exact = mean(self.baselines["untrained"], name, "multilingual", "mAP")
                    yield line, float(each), exact, each
