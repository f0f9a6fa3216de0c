"""Recomputes the figures of all experiments from their committed files, by other code than the project's.

    python experiments/study2/recompute.py [FOLDER]

Reads the Parquet files of the runs (A, E) and cells (B to D) with pandas and nothing of hybridbatch. Means are taken
by plain loops, variances by the mean squares of a two-way table, quantiles from scipy. Compares with ``A/report.json``
and ``grid.json`` and says the largest deviation; ends with an error if one is beyond 1e-6 (of means: 1e-5, single
precision is stored). Every number of theirs in FINDINGS.md and grid.md is recomputed, too: an error if one differs in
its last digit. FOLDER is of other runs of A, with those of B to D in its folders.
"""

import json
import re
import sys
from pathlib import Path

import pandas as pd
from plain import by_question, contrast, entries_of, interval, macro
from recompute_grid import Grid, nearest

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


home = (
    HERE if folder.resolve() == (HERE / "A").resolve() else folder
)  # of the page, and of B to D
grid = Grid(home)
of_contrasts, of_grid_means = list(grid.contrasts()), list(grid.means())
checked += len(of_contrasts) + len(of_grid_means)
worst = max([worst, *of_contrasts])
of_means = max([of_means, *of_grid_means])


told = []  # (measure, contrast) of A and E that the page has in a table


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
            told.append((measure, found))
            yield from interval(line, entries[2], found, scale)
            yield line, float(entries[3]), scale * found["detectable"], entries[3]
    yield from grid.page_figures(text)
    yield from lines_of_recipe(text)
    # Sentences and claims repeat numbers of the tables: each must be one of them.
    above = text.split("## The answer in ten lines")[1].split("## Evidence")[0]
    yield from nearest(above, told + [(row["metric"], found) for _, row, found in grid.rows])


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
            told.append((entries[0], found))
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
