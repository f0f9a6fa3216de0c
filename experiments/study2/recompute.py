"""Recomputes the figures of experiments A, B and E from their committed files, by other code than the project's.

    python experiments/study2/recompute.py [FOLDER]

Reads the Parquet files of the runs (A) and cells (B) with pandas and nothing of hybridbatch. Means are taken by plain
loops, variances by the mean squares of a two-way table, quantiles from scipy. Compares with
``report.json`` and says the largest deviation; ends with an error if one is beyond 1e-6 (of means:
1e-5, single precision is stored). Every number of theirs in FINDINGS.md is recomputed, too: an error if one
differs in its last digit. FOLDER is of other runs of A, with those of B in its folder B.
"""

import json
import math
import re
import sys
from collections import defaultdict
from pathlib import Path

import pandas as pd
from scipy import stats

HERE = Path(__file__).parent
folder = Path(sys.argv[1]) if len(sys.argv) > 1 else HERE / "A"
report = json.loads((folder / "report.json").read_text())
article_of = json.loads((HERE / "articles.json").read_text())
blocks = {(seed, half) for seed, half in report["halves"]}

runs = {}
for path in folder.glob("seed-*.parquet"):
    seed, half, kind = re.fullmatch(r"seed-(\d+)-half-(\d)-(.+)", path.stem).groups()
    runs[int(seed), int(half), kind.removeprefix("mix-")] = pd.read_parquet(path)


def name(side):
    """Of a mix, in file names."""
    return side if side == "untrained" else f"{float(side):g}"


def by_question(table, column):
    """{question: mean over query languages}, by plain loops over rows."""
    sums, counts = defaultdict(float), defaultdict(int)
    for question, value in zip(table["query_id"], table[column].astype(float), strict=True):
        if value == value:
            sums[question] += value
            counts[question] += 1
    return {question: sums[question] / counts[question] for question in sums}


def macro(tables, column, spoken=None):
    """The mean over query languages of the mean of each, by plain loops."""
    by_language = defaultdict(list)
    for table in tables:
        values = table[column].astype(float)
        for language, value in zip(table["query_language"], values, strict=True):
            if value == value and (spoken is None or language in spoken):
                by_language[language].append(value)
    if not by_language:
        return math.nan
    return sum(sum(v) / len(v) for v in by_language.values()) / len(by_language)


def entries_of(line):
    """The entries of a line of a table."""
    return [entry.strip() for entry in line.strip("|").split("|")]


def interval(line, text, found, scale):
    """The three numbers of "+0.1 points [-0.1, +0.3]": (line, number, exact, as shown)."""
    keys = ("difference", "low", "high")
    for key, each in zip(keys, re.findall(r"[+-]?\d+\.\d", text), strict=True):
        yield line, float(each), scale * found[key], each


def question_values(mix, column, chosen):
    """{(seed, question): mean over query languages} of runs of A."""
    return {
        (seed, question): value
        for seed, half in chosen
        for question, value in by_question(runs[seed, half, mix], column).items()
    }


def whole(sides):
    """The blocks that have all three mixes and `sides`, whole seeds if there are any."""
    wanted = {"0", "0.5", "1", *sides}
    have = {(s, h) for s, h, _ in runs if all((s, h, w) in runs for w in wanted)}
    both = {(s, h) for s, h in have if (s, 1 - h) in have}
    return sorted(both or have)


def contrast(differences, article_of):
    """Mean, interval, p and detectable difference of {(seed, question): difference}.

    Questions of an article are one unit.
    """
    seeds = sorted({seed for seed, _ in differences})
    articles = sorted({article_of[question] for _, question in differences})
    count = {seed: sum(1 for s, _ in differences if s == seed) for seed in seeds}
    cell = {(seed, article): 0.0 for seed in seeds for article in articles}
    for (seed, question), value in differences.items():
        cell[seed, article_of[question]] += value * len(articles) / count[seed]
    s, a = len(seeds), len(articles)
    grand = sum(cell.values()) / (s * a)
    of_seed = {x: sum(cell[x, y] for y in articles) / a for x in seeds}
    of_article = {y: sum(cell[x, y] for x in seeds) / s for y in articles}
    ss_articles = s * sum((v - grand) ** 2 for v in of_article.values())
    if s == 1:
        variance, degrees = ss_articles / (a - 1) / a, a - 1
    else:
        ms_seeds = a * sum((v - grand) ** 2 for v in of_seed.values()) / (s - 1)
        ms_articles = ss_articles / (a - 1)
        rest = sum((cell[x, y] - of_seed[x] - of_article[y] + grand) ** 2
                   for x in seeds for y in articles) / ((s - 1) * (a - 1))  # fmt: skip
        total = s * a
        variance = max(ms_seeds + ms_articles - rest, ms_seeds, ms_articles) / total
        degrees = min(s, a) - 1
        if s >= 5:
            top = (ms_seeds + ms_articles) ** 2
            degrees = max(degrees, top / (ms_seeds**2 / (s - 1) + ms_articles**2 / (a - 1)))
    error = math.sqrt(variance)
    half = stats.t.ppf(0.975, degrees) * error
    detectable = (stats.t.ppf(0.975, degrees) + stats.t.ppf(0.8, degrees)) * error
    p = 2 * stats.t.sf(abs(grand) / error, degrees)
    return {"difference": grand, "low": grand - half, "high": grand + half, "p": p,
            "degrees": degrees, "detectable": detectable}  # fmt: skip


UNSEEN = ("ell", "spa", "tha", "tur", "vie")


def mean_over_languages(chosen, mix, column, spoken=None):
    """Of runs of A."""
    return macro([runs[seed, half, mix] for seed, half in chosen], column, spoken)


def recomputed(family, about, measure):
    """The contrast of a row of a family."""
    if "raw) - (" in about:
        chosen, parts = whole([]), []
        for variant in ("raw", "collection"):
            column = f"{variant}/{measure}"
            ours, theirs = (question_values(m, column, chosen) for m in ("0", "1"))
            parts.append({key: ours[key] - theirs[key] for key in ours})
        return contrast({key: parts[0][key] - parts[1][key] for key in parts[0]}, article_of)
    ours, theirs = (name(side) for side in about.split(" - "))
    chosen = whole([ours, theirs])
    column = f"{'raw' if ', raw' in family else 'collection'}/{measure}"
    first, second = (question_values(m, column, chosen) for m in (ours, theirs))
    return contrast({key: first[key] - second[key] for key in first}, article_of)


worst = 0.0
checked = 0
for family, rows in report["families"].items():
    for row in rows:
        for key, value in recomputed(family, row["contrast"], row["measure"]).items():
            worst = max(worst, abs(value - row[key]) / max(1.0, abs(value)))
            checked += 1
of_means = 0.0
for line in report["means"]:
    mix = name(line["mix"])
    for measure in ("mono", "cross", "pool", "rank_distance", "same_language"):
        mean = mean_over_languages(whole([mix]), mix, f"{line['vectors']}/{measure}")
        of_means = max(of_means, abs(mean - line[measure]) / max(1.0, abs(mean)))
        checked += 1


home = HERE if folder.resolve() == (HERE / "A").resolve() else folder  # of the page, and of B
grid = home / "B" / "report.json"
grid_report = json.loads(grid.read_text()) if grid.exists() else None
cells = {}  # of B: {(mix; None: untrained, seed): table}, at the largest size
for path in sorted((home / "B" / "cells").glob("*.json")) if grid_report else ():
    axes = json.loads(path.read_text())["axes"]
    if axes["pairs"] in (0, grid_report["largest"]) and not axes.get("baseline"):
        table = pd.read_parquet(path.with_suffix(".parquet"))
        seeds = [axes["seed"]] if axes["pairs"] else grid_report["seeds"]  # untrained: any seed
        cells |= {(axes.get("mix"), seed): table for seed in seeds}
SIDES = {"0": 0.0, "0.5": 0.5, "1": 1.0, "untrained": None}


def scores_of(table, task, setting):
    """The rows of a cell's table."""
    return table[(table["task"] == task) & (table["setting"] == setting)]


def differences_of_cells(ours, theirs, *measure):
    """{(seed, question): difference} of two sides of B."""
    *place, metric = measure
    found = {}
    for seed in grid_report["seeds"]:
        first, second = (
            by_question(scores_of(cells[SIDES[side], seed], *place), metric)
            for side in (ours, theirs)
        )
        found |= {(seed, question): first[question] - second[question] for question in first}
    return found


def recomputed_of_grid(about, task, setting, metric):
    """The contrast of a row of B."""
    if "raw) - (" in about:
        raw = differences_of_cells("0", "1", task, setting, metric)
        after = differences_of_cells("0", "1", f"{task} (debiased)", setting, metric)
        found = {key: raw[key] - after[key] for key in raw}
    else:
        found = differences_of_cells(*about.split(" - "), task, setting, metric)
    return contrast(found, {question: question for _, question in found})


of_grid = {}
for rows in (
    (grid_report["families"] | grid_report["exploratory"]).values() if grid_report else ()
):
    for row in rows:
        place = row["contrast"], row["task"], row["setting"], row["metric"]
        of_grid[place] = recomputed_of_grid(*place)
        for key, value in of_grid[place].items():
            worst = max(worst, abs(value - row[key]) / max(1.0, abs(value)))
            checked += 1
for line in grid_report["means"] if grid_report else ():
    for task in ("belebele-sib", "atlas"):
        named = task if line["vectors"] == "raw" else f"{task} (debiased)"
        for setting, metric in (
            ("monolingual", "mAP"), ("cross-lingual", "mAP"), ("multilingual", "mAP"),
            ("multilingual", "rank_distance"),
        ):  # fmt: skip
            tables = [cells[line["mix"], seed] for seed in grid_report["seeds"]]
            mean = macro([scores_of(table, named, setting) for table in tables], metric)
            shown_mean = line[f"{task} {setting} {metric}"]
            of_means = max(of_means, abs(mean - shown_mean) / max(1.0, abs(mean)))
            checked += 1


told = {}  # every contrast of A and E that the page has in a table


def page_figures():
    """Every number of theirs in FINDINGS.md, beside its recomputation: (text, number, exact)."""
    text = (home / "FINDINGS.md").read_text(encoding="utf-8")
    label = {"monolingual mAP": "mono", "cross-lingual mAP": "cross", "pool mAP": "pool",
             "rank distance": "rank_distance"}  # fmt: skip
    part = text.split("## Evidence: experiment A")[1].split("## Settings")[0]
    family = None
    names = {"raw": "raw", "debiased": "collection", "debiased, means from news": "news"}
    for line in part.splitlines():
        entries = entries_of(line)
        if line.startswith("**"):
            family = line.strip("*")
        elif line.startswith(("| untrained", "| mix ")) and len(entries) == 9:
            mix, vectors = entries[0].removeprefix("mix "), names[entries[1]]
            chosen = whole([mix])
            columns = [(measure, None) for measure in label.values()]
            columns += [(measure, UNSEEN) for measure in ("mono", "cross", "pool")]
            for (measure, spoken), shown in zip(columns, entries[2:], strict=True):
                exact = mean_over_languages(chosen, mix, f"{vectors}/{measure}", spoken)
                yield line, float(shown), exact, shown
        elif line.startswith("|") and family and len(entries) == 6 and entries[1] in label:
            measure = label[entries[1]]
            scale = 1 if measure == "rank_distance" else 100
            found = recomputed(family, entries[0], measure)
            told[family, entries[0], measure] = found
            yield from interval(line, entries[2], found, scale)
            yield line, float(entries[3]), scale * found["detectable"], entries[3]
    yield from lines_without_training(text)
    yield from lines_of_grid(text)
    yield from lines_of_recipe(text)
    # Sentences and claims repeat numbers of the tables: each must be one of them.
    above = text.split("## The answer in ten lines")[1].split("## Evidence")[0]
    for each in re.findall(r"[+-]\d+\.\d (?:points|ranks) \[[^]]*\]", above):
        shown = [float(number) for number in re.findall(r"[+-]\d+\.\d", each)]
        scale = 1 if "ranks" in each else 100
        best = min(
            told.values(),
            key=lambda found: max(
                abs(number - scale * found[key])
                for number, key in zip(shown, ("difference", "low", "high"), strict=True)
            ),
        )
        for number, key in zip(shown, ("difference", "low", "high"), strict=True):
            yield each, number, scale * best[key], f"{number:+.1f}"


MEASURES_SHOWN = [
    ("belebele-sib", "cross-lingual", "mAP"), ("belebele-sib", "multilingual", "mAP"),
    ("belebele-sib", "multilingual", "rank_distance"), ("atlas", "monolingual", "mAP"),
    ("atlas", "cross-lingual", "mAP"), ("atlas", "multilingual", "mAP"),
    ("atlas", "multilingual", "rank_distance"),
]  # fmt: skip


def lines_without_training(text):
    """The table of experiment B's cells without training, from their Parquet files."""
    part = text.split("## Experiments B, C and D")[1].split("## E:")[0]
    tables = {}
    for path in sorted((home / "B" / "cells").glob("*.json")) if "| line |" in part else ():
        cell = json.loads(path.read_text())
        if cell["train"] is None:
            tables[cell["axes"].get("baseline", "untrained")] = pd.read_parquet(
                path.with_suffix(".parquet")
            )
    for line in part.splitlines():
        entries = entries_of(line)
        which, comma, _ = entries[0].partition(", debiased")
        if which not in tables or len(entries) != 1 + len(MEASURES_SHOWN):
            continue
        for (task, setting, metric), shown in zip(MEASURES_SHOWN, entries[1:], strict=True):
            named = f"{task} (debiased)" if comma else task
            exact = macro([scores_of(tables[which], named, setting)], metric)
            yield line, float(shown), exact, shown


def lines_of_grid(text):
    """The tables of experiment B's largest size, as `report.json` has them, which is recomputed above."""
    part = text.split("## Experiments B, C and D")[1].split("## E:")[0]
    measures = {
        f"{setting.removesuffix('-lingual')} {metric.replace('_', ' ')}": (setting, metric)
        for setting in ("monolingual", "cross-lingual", "multilingual")
        for metric in ("mAP", "rank_distance")
    }
    vectors, task = None, None
    for line in part.splitlines() if grid_report else ():
        entries = entries_of(line)
        if line.startswith("**"):
            task = line.strip("*").rpartition(", ")[2]
            vectors = " (debiased)" if ", debiased," in line else ""
        elif line.startswith("|") and task and len(entries) == 6 and entries[1] in measures:
            setting, metric = measures[entries[1]]
            found = of_grid[entries[0], task + vectors, setting, metric]
            scale = 1 if metric == "rank_distance" else 100
            yield from interval(line, entries[2], found, scale)
            yield line, float(entries[3]), scale * found["detectable"], entries[3]
        elif line.startswith("|") and len(entries) == 9 and entries[1] in ("raw", "debiased"):
            (row,) = (
                row for row in grid_report["means"]
                if f"{row['mix']:g}" == entries[0] and row["vectors"] == entries[1]
            )  # fmt: skip
            for (at, setting, metric), each in zip(MEASURES_SHOWN, entries[2:], strict=True):
                yield line, float(each), row[f"{at} {setting} {metric}"], each


def recipe_contrast(name, measure, against, variant):
    """A line of E's acceptance: XQuAD-R by seed and question, XQuADRetrieval by seed and language."""

    def file(of, suffix):
        return HERE / "E" / f"accept-{name}-{of}.{suffix}"

    seeds = (13, 14, 15)
    if measure == "XQuADRetrieval":
        before = json.loads(file("untrained", "json").read_text())["official"]
        found = {}
        for seed in seeds:
            after = json.loads(file(f"seed-{seed}", "json").read_text())["official"]
            found |= {
                (seed, language): after[language] - before[language] for language in before
            }
        return contrast(found, {language: language for language in before})
    setting = measure.removeprefix("XQuAD-R ")
    theirs = "collection" if against == "untrained debiased" else "raw"
    before = by_question(pd.read_parquet(file("untrained", "parquet")), f"{theirs}/{setting}")
    found = {}
    for seed in seeds:
        table = pd.read_parquet(file(f"seed-{seed}", "parquet"))
        after = by_question(table, f"{variant}/{setting}")
        found |= {(seed, question): after[question] - before[question] for question in before}
    return contrast(found, article_of)


def lines_of_recipe(text):
    """The tables of experiment E, from its Parquet and JSON files."""
    part = text.split("## E: a recipe")[1].split("## F:")[0]
    if "| learning rate |" not in part or home != HERE:
        return
    recipe = json.loads((HERE / "E" / "recipe.json").read_text())
    start = pd.read_parquet(HERE / "E" / "untrained.parquet")
    before = [macro([start], column) for column in ("raw/mono", "raw/cross", "collection/pool")]
    variants = {"raw": "raw", "debiased": "collection"}
    variant = variants[recipe["chosen"]["used"]]
    for line in part.splitlines():
        entries = entries_of(line)
        if line.startswith("Exploratory"):
            variant = next(each for each in variants.values() if each != variant)
        elif line.startswith("| untrained |"):
            for exact, each in zip(before, entries[5:8], strict=True):
                yield line, float(each), exact, each
        elif line.startswith("|") and len(entries) == 9 and entries[4] in variants:
            taught = "-teacher" if entries[2] else ""
            point = f"rate-{entries[0]}-temperature-{entries[1]}{taught}-start-{float(entries[3]):g}"
            table = pd.read_parquet(HERE / "E" / f"{point}.parquet")
            after = [
                macro([table], f"{variants[entries[4]]}/{m}") for m in ("mono", "cross", "pool")
            ]
            for exact, each in zip(after, entries[5:8], strict=True):
                yield line, float(each), exact, each
            least = 100 * min(a - b for a, b in zip(after, before, strict=True))
            yield line, float(entries[8]), least, entries[8]
        elif line.startswith("| XQuAD") and len(entries) == 5:
            found = recipe_contrast(recipe["chosen"]["name"], entries[0], entries[1], variant)
            told[line] = found
            yield from interval(line, entries[2], found, 100)


drifted = [
    (line, shown) for line, number, exact, shown in page_figures()
    if abs(number - exact) > 0.5 * 10 ** -len(shown.partition(".")[2]) + 2e-6 * max(1, abs(exact))
]  # fmt: skip
for line, shown in drifted:
    sys.stdout.write(f"FINDINGS.md: {shown} is not what the runs give, in: {line[:160]}\n")
sys.stdout.write(
    f"{checked} figures: contrasts within {worst:.1e}, means within {of_means:.1e}\n"
)
sys.exit(0 if worst < 1e-6 and of_means < 1e-5 and not drifted else 1)
