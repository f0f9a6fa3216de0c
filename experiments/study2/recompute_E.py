"""Recomputes the figures of experiment E and of the choice of settings, for `recompute.py`.

Uses nothing of hybridbatch.
"""

import json
import re

import pandas as pd
from plain import by_question, contrast, entries_of, interval, macro
from recompute_A import ARTICLES

SETTINGS = ("mono", "cross", "pool")
# The variant of each setting, by the use of a model.
USES = {
    "raw": {"mono": "raw", "cross": "raw", "pool": "raw"},
    "debiased": {"mono": "collection", "cross": "collection", "pool": "collection"},
    "debiased in the pool": {"mono": "raw", "cross": "raw", "pool": "collection"},
}
VARIANTS = ("raw", "collection")
SEEDS = {"": (13, 14, 15), "-2": tuple(range(16, 21))}  # plan.md, by attempt


class Recipe:
    """The files of a folder: ``settings/`` and ``E/``."""

    def __init__(self, home):
        self.home = home
        self.told = []  # (measure, recomputed) of every line of the acceptance

    def page_figures(self, text):
        """Every number of theirs in FINDINGS.md: (line, number, exact, as shown)."""
        yield from self.of_settings(text.split("## Settings")[1].split("## Experiments B")[0])
        part = text.split("## E: a recipe")[1].split("## F:")[0]
        if "| learning rate |" in part:
            first, _, second = part.partition("**A second attempt**")
            yield from self.of_search(part)
            yield from self.of_acceptance(first, "")
            yield from self.of_acceptance(second, "-2")

    def of_settings(self, part):
        """The choice of learning rate and temperature."""
        for line in part.splitlines():
            entries = entries_of(line)
            for shown, temperature in re.findall(r"(\.\d+) at (0\.\d+)", line):
                name = f"temperature-{temperature}-rate-3e-05"
                table = pd.read_parquet(self.home / "settings" / f"{name}.parquet")
                exact = sum(macro(table, f"raw/{m}") for m in SETTINGS) / len(SETTINGS)
                yield line, float(shown), exact, shown
            if len(entries) != 9 or not entries[1].startswith("."):
                continue
            name = entries[0].replace("temperature ", "temperature-")
            name = name.replace(", learning rate ", "-rate-")
            table = pd.read_parquet(self.home / "settings" / f"{name}.parquet")
            measures = (*SETTINGS, "rank_distance")
            columns = [f"{each}/{measure}" for each in VARIANTS for measure in measures]
            for column, shown in zip(columns, entries[1:], strict=True):
                yield line, float(shown), macro(table, column), shown

    def start(self):
        """The untrained encoder's scores, raw in mono and cross, debiased in the pool."""
        table = pd.read_parquet(self.home / "E" / "untrained.parquet")
        return [macro(table, column) for column in ("raw/mono", "raw/cross", "collection/pool")]

    def of_search(self, part):
        """The points of the search."""
        before = self.start()
        for line in part.splitlines():
            entries = entries_of(line)
            if line.startswith("| untrained |"):
                for exact, each in zip(before, entries[5:8], strict=True):
                    yield line, float(each), exact, each
            elif len(entries) == 9 and entries[4] in USES:
                rate, temperature, teacher, start = entries[:4]
                taught = "-teacher" if teacher else ""
                point = f"rate-{rate}-temperature-{temperature}{taught}-start-{float(start):g}"
                table = pd.read_parquet(self.home / "E" / f"{point}.parquet")
                used = USES[entries[4]]
                after = [macro(table, f"{used[m]}/{m}") for m in SETTINGS]
                for exact, each in zip(after, entries[5:8], strict=True):
                    yield line, float(each), exact, each
                least = 100 * min(a - b for a, b in zip(after, before, strict=True))
                yield line, float(entries[8]), least, entries[8]

    def of_acceptance(self, part, attempt):
        """The chosen point of an attempt against the start."""
        path = self.home / "E" / f"recipe{attempt}.json"
        chosen = json.loads(path.read_text())["chosen"] if part else None
        for line in part.splitlines():
            entries = entries_of(line)
            lexical = re.search(r"BM25 has (\S+), (\S+) and (\S+) mAP", line)
            if lexical:
                table = pd.read_parquet(self.home / "E" / "bm25.parquet")
                for measure, shown in zip(SETTINGS, lexical.groups(), strict=True):
                    yield line, float(shown), macro(table, f"raw/{measure}"), shown
            if line.startswith("Exploratory"):
                chosen["used"] = line.split("used ")[1].rstrip(":")
            elif line.startswith("| XQuAD") and len(entries) == 5:
                found = self.accepted(chosen, SEEDS[attempt], entries[0], entries[1])
                self.told.append((entries[0], found))
                yield from interval(line, entries[2], found, 100)
                floor = 0.0 if entries[1] == "untrained debiased" else -0.5  # plan.md
                yield line, float(entries[3]), floor, entries[3]

    def of_use(self, used, task, setting, against):
        """A comparison of the attempt that used its models in this way."""
        attempt = "-2" if used == "debiased in the pool" else ""
        chosen = json.loads((self.home / "E" / f"recipe{attempt}.json").read_text())["chosen"]
        measure = task if task == "XQuADRetrieval" else f"{task} {setting}"
        return self.accepted(chosen | {"used": used}, SEEDS[attempt], measure, against)

    def accepted(self, chosen, seeds, measure, against):
        """XQuAD-R by seed and question, XQuADRetrieval by seed and language."""
        name = chosen["name"]

        def file(of, suffix):
            return self.home / "E" / f"accept-{name}-{of}.{suffix}"

        if measure == "XQuADRetrieval":
            before = json.loads(file("untrained", "json").read_text())["official"]
            found = {}
            for seed in seeds:
                after = json.loads(file(f"seed-{seed}", "json").read_text())["official"]
                found |= {(seed, code): after[code] - before[code] for code in before}
            return contrast(found)
        setting = measure.removeprefix("XQuAD-R ")
        theirs = "collection" if against == "untrained debiased" else "raw"
        start = pd.read_parquet(file("untrained", "parquet"))
        before = by_question(start, f"{theirs}/{setting}")
        found = {}
        for seed in seeds:
            table = pd.read_parquet(file(f"seed-{seed}", "parquet"))
            after = by_question(table, f"{USES[chosen['used']][setting]}/{setting}")
            found |= {
                (seed, question): after[question] - before[question] for question in before
            }
        return contrast(found, ARTICLES)
