"""Recomputes the figures of experiment A from its committed files, by other code than the project's.

    python experiments/study2/recompute.py [FOLDER]

Reads the Parquet files of the runs with pandas and nothing of hybridbatch. Means are taken by plain
loops, variances by the mean squares of a two-way table, quantiles from scipy. Compares with
``report.json`` and says the largest deviation; ends with an error if one is beyond 1e-6 (of means:
1e-5, single precision is stored).
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


def question_values(mix, column, chosen):
    """{(seed, question): mean over query languages}, by plain loops over rows."""
    sums, counts = defaultdict(float), defaultdict(int)
    for seed, half in chosen:
        table = runs[seed, half, mix]
        for question, value in zip(table["query_id"], table[column].astype(float), strict=True):
            sums[seed, question] += value
            counts[seed, question] += 1
    return {key: sums[key] / counts[key] for key in sums}


def whole(sides):
    """The blocks that have all three mixes and `sides`, whole seeds if there are any."""
    wanted = {"0", "0.5", "1", *sides}
    have = {(s, h) for s, h, _ in runs if all((s, h, w) in runs for w in wanted)}
    both = {(s, h) for s, h in have if (s, 1 - h) in have}
    return sorted(both or have)


def contrast(differences):
    """Mean, interval, p and detectable difference of {(seed, question): difference}."""
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


worst = 0.0
checked = 0
for family, rows in report["families"].items():
    for row in rows:
        if "raw) - (" in row["contrast"]:
            chosen, parts = whole([]), []
            for variant in ("raw", "collection"):
                column = f"{variant}/{row['measure']}"
                ours, theirs = (question_values(m, column, chosen) for m in ("0", "1"))
                parts.append({key: ours[key] - theirs[key] for key in ours})
            found = contrast({key: parts[0][key] - parts[1][key] for key in parts[0]})
        else:
            ours, theirs = (name(side) for side in row["contrast"].split(" - "))
            chosen = whole([ours, theirs])
            column = f"{'raw' if ', raw' in family else 'collection'}/{row['measure']}"
            first, second = (question_values(m, column, chosen) for m in (ours, theirs))
            found = contrast({key: first[key] - second[key] for key in first})
        for key, value in found.items():
            worst = max(worst, abs(value - row[key]) / max(1.0, abs(value)))
            checked += 1
of_means = 0.0
for line in report["means"]:
    mix = name(line["mix"])
    chosen = whole([mix])
    for measure in ("mono", "cross", "pool", "rank_distance", "same_language"):
        by_language = defaultdict(list)
        for seed, half in chosen:
            table = runs[seed, half, mix]
            values = table[f"{line['vectors']}/{measure}"].astype(float)
            for language, value in zip(table["query_language"], values, strict=True):
                by_language[language].append(value)
        mean = sum(sum(v) / len(v) for v in by_language.values()) / len(by_language)
        of_means = max(of_means, abs(mean - line[measure]) / max(1.0, abs(mean)))
        checked += 1
sys.stdout.write(f"{checked} figures: contrasts within {worst:.1e}, means within {of_means:.1e}\n")
sys.exit(0 if worst < 1e-6 and of_means < 1e-5 else 1)
