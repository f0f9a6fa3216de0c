"""Means, contrasts and tables for the recomputation, by plain loops and nothing of hybridbatch."""

import math
import re
from collections import defaultdict

from scipy import stats


def by_question(table, column):
    """{question: mean over query languages}, by plain loops over rows."""
    sums, counts = defaultdict(float), defaultdict(int)
    for question, value in zip(table["query_id"], table[column].astype(float), strict=True):
        if value == value:
            sums[question] += value
            counts[question] += 1
    return {question: sums[question] / counts[question] for question in sums}


def by_language(tables, column):
    """{query language: mean over its questions}, by plain loops over rows."""
    sums, counts = defaultdict(float), defaultdict(int)
    for table in tables:
        values = table[column].astype(float)
        for language, value in zip(table["query_language"], values, strict=True):
            if value == value:
                sums[language] += value
                counts[language] += 1
    return {language: sums[language] / counts[language] for language in sums}


def macro(table, column):
    """The mean over query languages of the mean of each."""
    found = by_language([table], column)
    return sum(found.values()) / len(found)


def entries_of(line):
    """The entries of a line of a table."""
    return [entry.strip() for entry in line.strip("|").split("|")]


def interval(line, text, found, scale):
    """The three numbers of "+0.1 points [-0.1, +0.3]": (line, number, exact, as shown)."""
    keys = ("difference", "low", "high")
    for key, each in zip(keys, re.findall(r"[+-]?\d+\.\d+", text), strict=True):
        yield line, float(each), scale * found[key], each


def tests(line, shown, found):
    """Degrees of freedom, p and Holm's p of a row: (line, number, exact, as shown)."""
    degrees, *probabilities = shown
    yield line, float(degrees), found["degrees"], degrees
    for key, each in zip(("p", "p_holm"), probabilities, strict=True):
        if key in found:
            yield line, *probability(each, found[key])


def probability(text, p):
    """A p value as shown, the exact one, and its digits; "<.001" is exact for all below."""
    shown = text.removeprefix("<")
    if text == "<.001":
        p = 0.001 if p < 0.001 else 1.0
    return float(shown), p, shown


def holm(found):
    """The contrasts of a family with their p values after Holm's correction."""
    largest = 0.0
    after = {}
    for place, number in enumerate(sorted(range(len(found)), key=lambda i: found[i]["p"])):
        largest = max(largest, min(1.0, (len(found) - place) * found[number]["p"]))
        after[number] = largest
    return [each | {"p_holm": after[number]} for number, each in enumerate(found)]


def contrast(differences, article_of=None):
    """Mean, interval, p and detectable difference of {(seed, question): difference}.

    Questions of an article, or what else the unit is, are one unit; without, each question.
    """
    article_of = article_of or {question: question for _, question in differences}
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
            top = (variance * s * a) ** 2
            degrees = max(degrees, top / (ms_seeds**2 / (s - 1) + ms_articles**2 / (a - 1)))
    error = math.sqrt(variance)
    half = stats.t.ppf(0.975, degrees) * error
    detectable = (stats.t.ppf(0.975, degrees) + stats.t.ppf(0.8, degrees)) * error
    p = 2 * stats.t.sf(abs(grand) / error if error else math.inf, degrees)
    return {"difference": grand, "low": grand - half, "high": grand + half, "p": p,
            "degrees": degrees, "detectable": detectable, "units": a}  # fmt: skip


def nearest(part, contrasts):
    """Every "+0.1 points [-0.1, +0.3]" of a text beside the (metric, contrast) that is nearest.

    What would be found, if it is told, is of the same contrast.
    """
    pattern = r"([+-]\d+\.\d+) (points|ranks) (\[[^]]*\])(?: \(undecided; (\S+) \w+ would be found\))?"
    for line in part.splitlines():
        for difference, unit, ends, detectable in re.findall(pattern, line):
            text = f"{difference} {ends}"
            numbers = [float(number) for number in re.findall(r"[+-]\d+\.\d+", text)]
            scale = 1 if unit == "ranks" else 100
            of_unit = [
                found
                for metric, found in contrasts
                if (metric == "rank_distance") == (scale == 1)
            ]
            best = min(of_unit, key=lambda found: distance(numbers, found, scale))
            yield from interval(line, text, best, scale)
            if detectable:
                yield line, float(detectable), scale * best["detectable"], detectable


def distance(numbers, found, scale):
    """How far three numbers are from a contrast."""
    keys = ("difference", "low", "high")
    return max(abs(n - scale * found[key]) for n, key in zip(numbers, keys, strict=True))
