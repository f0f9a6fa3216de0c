"""Recomputes the figures of experiments B, C and D, for `recompute.py`. Uses nothing of hybridbatch."""

import json
import math
import re
from functools import cache

import pandas as pd
from plain import by_language, by_question, contrast, entries_of, holm, interval, tests
from recompute_A import ARTICLES

METRICS = ("mAP", "rank_distance")


def said(setting, metric):
    """A measure in words."""
    return f"{setting.removesuffix('-lingual')} {metric.replace('_', ' ')}"


MEASURES = {
    said(setting, metric): (setting, metric)
    for setting in ("monolingual", "cross-lingual", "multilingual")
    for metric in METRICS
}
# Claims of the paper: the family, without its task, and the contrasts that they are judged by.
CLAIMS = {
    "gains carry over": ("B1 hybrid against pure kinds, raw", ("0.5 - 1",)),
    "mix 0.4 to 0.6": (
        "mixes .25 and .75 against .5, raw",
        ("0.25 - 0.5", "0.75 - 0.5"),
    ),
}


def named(task, debiased):
    """A task's name in the tables of cells."""
    return f"{task} (debiased)" if debiased else task


def unit_of(task, question):
    """What a question is about: the unit of its task's tests."""
    if task == "xquad-r":
        return ARTICLES[question]
    return question if task == "afriqa" else re.sub(r"-[^-]*$", "", question)


def scale_of(row):
    """From a difference to what is shown: ranks, or points of mAP."""
    return 1 if row["metric"] == "rank_distance" else 100


@cache
def scores(path):
    """Of a cell: {(task, setting, metric): ({question: mean}, {query language: mean})}."""
    return {
        (*place, metric): (by_question(table, metric), by_language([table], metric))
        for place, table in pd.read_parquet(path).groupby(["task", "setting"])
        for metric in METRICS
    }


def mean(path, task, setting, metric):
    """The macro-average over query languages of a cell."""
    _, languages = scores(path)[task, setting, metric]
    return sum(languages.values()) / len(languages)


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


def in_numbers(contrast):
    """A contrast with its mixes as numbers: the same for "0.5 - 1" and "hybrid - monolingual"."""
    for word, mix in (("cross-lingual", "0"), ("hybrid", "0.5"), ("monolingual", "1")):
        contrast = re.sub(rf"(^|- |\(){word}(?=[ ,)]|$)(?! first)", rf"\g<1>{mix}", contrast)
    return contrast


def of_cell(line, cell, row, found):
    """The numbers of "-0.7 [-1.1, -0.3] D" or "-0.9 [-1.8, +0.1] ? (1.2)"."""
    scale = scale_of(row)
    yield from interval(line, cell.split("]")[0], found, scale)
    detectable = re.search(r"\? \((\S+)\)", cell)
    if detectable:
        yield line, float(detectable[1]), scale * found["detectable"], detectable[1]


class Grid:
    """The cells and the report of a folder."""

    def __init__(self, home):
        path = home / "grid.json"
        self.home = home
        self.report = json.loads(path.read_text()) if path.exists() else None
        self.cells = []  # (experiment, axes; None: untrained, path of its table)
        self.baselines = {}  # by experiment and name
        for each in sorted(home.glob("*/cells/*.json")) if self.report else ():
            cell = json.loads(each.read_text())
            axes = {name: plain_axis(value) for name, value in cell["axes"].items()}
            experiment, table = each.parts[-3], each.with_suffix(".parquet")
            if cell["train"]:
                self.cells.append((experiment, axes, table))
            elif not axes.get("baseline"):
                self.cells.append((experiment, None, table))
            if not cell["train"]:
                self.baselines[experiment, axes.get("baseline", "untrained")] = table
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

    def known(self, row, seed):
        """The scores of the sides of a row: [(side, {question: mean}, {query language: mean})]."""
        found = []
        for side in row["sides"]:
            place = named(row["task"], side["debiased"]), row["setting"], row["metric"]
            found.append((side, *scores(self.cell(side, seed))[place]))
        return found

    def of_row(self, row, seeds):
        """{(seed, question): value} of a row."""
        values = {}
        for seed in seeds:
            sides = [(side, questions) for side, questions, _ in self.known(row, seed)]
            for question in set.intersection(*(set(found) for _, found in sides)):
                points = [(side, found[question]) for side, found in sides]
                values[seed, question] = self.combined(row, points)
        return values

    def over_languages(self, row, seeds):
        """The contrast with query languages as the units, each averaged over seeds."""
        values = {}
        for seed in seeds:
            sides = [(side, languages) for side, _, languages in self.known(row, seed)]
            for code in sides[0][1]:
                points = [(side, found[code]) for side, found in sides]
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
            exact = [self.exact(row, family["seeds"]) for row in family["rows"]]
            exact = holm(exact) if family["final"] else exact
            for row, found in zip(family["rows"], exact, strict=True):
                self.rows.append((family, row, found))
                for key, value in found.items():
                    yield abs(value - row[key]) / max(1.0, abs(value))

    def exact(self, row, seeds):
        """The contrast of a row."""
        values = self.of_row(row, seeds)
        return contrast(values, {each: unit_of(row["task"], each) for _, each in values})

    def means(self):
        """The relative deviation of every mean."""
        for line in self.report["means"] if self.report else ():
            exact = {}
            for name, value in line.items():
                fits = re.fullmatch(r"(\S+) (\S+ingual) (mAP|rank_distance)", name)
                if not fits:
                    continue
                task, setting, metric = fits.groups()
                place = named(task, line["vectors"] == "debiased"), setting, metric
                of_seeds = [mean(self.cell(line, seed), *place) for seed in line["seeds"]]
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
            place = named(task, vectors == "debiased"), setting, metric
            exact[column] = self.without_training(name, *place)
        return exact

    def without_training(self, name, task, setting, metric):
        """A mean of the untrained encoder, BM25 or SHIFT."""
        home = "B-wide" if task.startswith(("xquad-r", "afriqa")) else "B"
        return mean(self.baselines[home, name], task, setting, metric)

    def of_tables(self, part):
        """The tables of contrasts in grid.md."""
        family = None
        for line in part.splitlines():
            entries = entries_of(line)
            if line.startswith("**"):
                family = line.split("**")[1]
            elif family and line.startswith("|") and entries[1] in MEASURES:
                yield from self.of_contrast(line, entries, family)

    def of_contrast(self, line, entries, family):
        """A row of a table of contrasts."""
        of, row, exact = self.row(family, entries[0], *MEASURES[entries[1]])
        scale = scale_of(row)
        yield from interval(line, entries[2], exact, scale)
        yield from tests(line, entries[3:6], exact)
        yield line, float(entries[6]), scale * exact["detectable"], entries[6]
        if entries[7]:
            over = self.over_languages(row, of["seeds"])
            for end, shown in zip(("low", "high"), entries[7].split(" to "), strict=True):
                yield line, float(shown), scale * over[end], shown

    def row(self, family, about, setting, metric):
        """A family, its row of that name and measure, and the row's contrast recomputed."""
        (found,) = (
            (of, row, exact) for of, row, exact in self.rows
            if of["name"] == family
            and (row["contrast"], row["setting"], row["metric"]) == (about, setting, metric)
        )  # fmt: skip
        return found

    def of_verdicts(self, part):
        """The tables of families: differences, and what would be found where there is none."""
        known = {
            (
                family["name"],
                in_numbers(row["contrast"]),
                said(row["setting"], row["metric"]),
            ): (row, found)
            for family, row, found in self.rows
        }
        question, columns = None, []
        for line in part.splitlines():
            entries = entries_of(line)
            if line.startswith("**"):
                question = line.strip("*")
            elif entries[:2] == ["task", "contrast"]:
                columns = entries[2:]
            elif (
                question and len(entries) == len(columns) + 2 and not entries[0].startswith("-")
            ):
                for column, cell in zip(columns, entries[2:], strict=True):
                    if cell:
                        place = f"{question}, {entries[0]}", in_numbers(entries[1]), column
                        yield from of_cell(line, cell, *known[place])

    def of_predictions(self, text):
        """What is left of the pool's gap, and the claim on gains."""
        for line in text.splitlines():
            left = re.match(r"\| C1 \| .* on (\S+) \|.*of (\S+) points (\S+) are left", line)
            if left:
                task, *shown = left.groups()
                exact = [self.pure_kinds(named(task, debiased)) for debiased in (False, True)]
                for each, value in zip(shown, exact, strict=True):
                    yield line, float(each), 100 * value, each
            for claim, (family, abouts) in CLAIMS.items():
                if line.startswith(f"| {claim}") and entries_of(line)[3].endswith(" points"):
                    yield from self.of_claim(line, family, abouts)

    def of_claim(self, line, family, abouts):
        """What would be found, at the end of a claim: the largest of its contrasts."""
        shown = entries_of(line)[3].removesuffix(" points")
        exact = max(
            self.row(f"{family}, {task}", about, "multilingual", "mAP")[2]["detectable"]
            for task in ("atlas", "belebele-sib")
            for about in abouts
        )
        yield line, float(shown), 100 * exact, shown

    def pure_kinds(self, task):
        """Mix 0 less mix 1 in the pool with the most records."""
        largest = {"experiment": "B", "axes": {"pairs": self.report["sizes"][-1]}}
        means = []
        for mix in (0.0, 1.0):
            side = largest | {"axes": largest["axes"] | {"mix": mix}}
            seeds = self.report["planned_seeds"]
            of_seeds = [
                scores(self.cell(side, seed))[task, "multilingual", "mAP"][0] for seed in seeds
            ]
            means.append(sum(sum(each.values()) / len(each) for each in of_seeds) / len(seeds))
        return means[0] - means[1]
