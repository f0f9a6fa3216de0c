"""Recomputes the figures of experiment A, for `recompute.py`. Uses nothing of hybridbatch."""

import json
import math
import re
from functools import cache
from pathlib import Path

import pandas as pd
from plain import by_language, by_question, contrast, entries_of, holm, interval, tests

LABELS = {"monolingual mAP": "mono", "cross-lingual mAP": "cross", "pool mAP": "pool",
          "rank distance": "rank_distance"}  # fmt: skip
VARIANTS = {"raw": "raw", "debiased": "collection", "debiased, means from news": "news"}
UNSEEN = ("ell", "spa", "tha", "tur", "vie")
CLAIMS = {
    "hybrid keeps up with X-X-mono": ("0.5 - 1.0", "mono"),
    "hybrid keeps up with X-Y across": ("0.5 - 0.0", "cross"),
    "hybrid keeps up with X-Y in the pool": ("0.5 - 0.0", "pool"),
    "rank distance of hybrid": ("0.5 - 1.0", "rank_distance"),
}
ARTICLES = json.loads((Path(__file__).parent / "articles.json").read_text())


def name(side):
    """Of a mix, in file names."""
    return side if side in ("untrained", "bm25") else f"{float(side):g}"


class Crossfit:
    """The runs and the report of a folder."""

    def __init__(self, folder):
        self.report = json.loads((folder / "report.json").read_text())
        self.runs = {}
        for path in folder.glob("seed-*.parquet"):
            seed, half, kind = re.fullmatch(r"seed-(\d+)-half-(\d)-(.+)", path.stem).groups()
            self.runs[int(seed), int(half), kind.removeprefix("mix-")] = pd.read_parquet(path)
        self.told = []  # (measure, recomputed) of every row of the page's tables

    def values(self, mix, column, chosen):
        """{(seed, question): mean over query languages}."""
        return {
            (seed, question): value
            for seed, half in chosen
            for question, value in self.questions(seed, half, mix, column).items()
        }

    @cache  # noqa: B019 (one object a process)
    def questions(self, seed, half, mix, column):
        """{question: mean over query languages} of a run."""
        return by_question(self.runs[seed, half, mix], column)

    @cache  # noqa: B019
    def languages(self, mix, column):
        """{query language: mean} over seeds and halves."""
        chosen = self.whole([mix])
        return by_language([self.runs[seed, half, mix] for seed, half in chosen], column)

    def whole(self, sides):
        """The blocks that have all three mixes and `sides`, whole seeds if there are any."""
        wanted = {"0", "0.5", "1", *sides}
        have = {(s, h) for s, h, _ in self.runs if all((s, h, w) in self.runs for w in wanted)}
        both = {(s, h) for s, h in have if (s, 1 - h) in have}
        return sorted(both or have)

    def mean(self, mix, column, spoken=None):
        """Over seeds, halves and languages."""
        found = self.languages(mix, column)
        chosen = [value for code, value in found.items() if spoken is None or code in spoken]
        return sum(chosen) / len(chosen) if chosen else math.nan

    @cache  # noqa: B019
    def recomputed(self, family, about, measure):
        """The contrast of a row of a family."""
        if "raw) - (" in about:
            parts = [self.pure_kinds(variant, measure) for variant in ("raw", "collection")]
            return contrast({key: parts[0][key] - parts[1][key] for key in parts[0]}, ARTICLES)
        ours, theirs = (name(side) for side in about.split(" - "))
        column = f"{'raw' if ', raw' in family else 'collection'}/{measure}"
        return contrast(self.differences(ours, theirs, column), ARTICLES)

    @cache  # noqa: B019
    def of_family(self, family):
        """{(contrast, measure): the contrast}, with Holm's correction once there are verdicts."""
        places = [(row["contrast"], row["measure"]) for row in self.report["families"][family]]
        found = [self.recomputed(family, *place) for place in places]
        return dict(zip(places, holm(found) if self.report["final"] else found, strict=True))

    def pure_kinds(self, variant, measure):
        """{(seed, question): difference} of mix 0 and mix 1."""
        return self.differences("0", "1", f"{variant}/{measure}")

    def differences(self, ours, theirs, column):
        """{(seed, question): difference} of two sides."""
        chosen = self.whole([ours, theirs])
        first, second = (self.values(side, column, chosen) for side in (ours, theirs))
        return {key: first[key] - second[key] for key in first}

    def contrasts(self):
        """The relative deviation of every figure of the families."""
        for family, rows in self.report["families"].items():
            for row in rows:
                found = self.of_family(family)[row["contrast"], row["measure"]]
                for key, value in found.items():
                    yield abs(value - row[key]) / max(1.0, abs(value))

    def means(self):
        """The relative deviation of every mean."""
        for line in self.report["means"]:
            for measure in (*LABELS.values(), "same_language"):
                exact = self.mean(name(line["mix"]), f"{line['vectors']}/{measure}")
                yield abs(exact - line[measure]) / max(1.0, abs(exact))

    def page_figures(self, text):
        """Every number of the evidence in FINDINGS.md: (line, number, exact, as shown)."""
        family = None
        part = text.split("## Evidence: experiment A")[1].split("## Settings")[0]
        for line in part.splitlines():
            entries = entries_of(line)
            if line.startswith("**"):
                family = line.strip("*")
            elif len(entries) == 9 and entries[1] in VARIANTS:
                yield from self.of_means(line, entries)
            elif line.startswith("|") and family and entries[1] in LABELS:
                yield from self.of_contrast(line, entries, family)
        yield from self.of_shares(text.split("## Evidence")[0])

    def of_means(self, line, entries):
        """A line of the table of means."""
        mix = entries[0].lower().removeprefix("mix ")
        columns = [(measure, None) for measure in LABELS.values()]
        columns += [(measure, UNSEEN) for measure in ("mono", "cross", "pool")]
        for (measure, spoken), shown in zip(columns, entries[2:], strict=True):
            column = f"{VARIANTS[entries[1]]}/{measure}"
            yield line, float(shown), self.mean(mix, column, spoken), shown

    def of_contrast(self, line, entries, family):
        """A row of a family."""
        measure = LABELS[entries[1]]
        scale = 1 if measure == "rank_distance" else 100
        found = self.of_family(family)[entries[0], measure]
        self.told.append((measure, found))
        yield from interval(line, entries[2], found, scale)
        yield from tests(line, entries[3:6], found)
        yield line, float(entries[6]), scale * found["detectable"], entries[6]
        if entries[7]:
            over = self.over_languages(family, entries[0], measure)
            for end, shown in zip(over, entries[7].split(" to "), strict=True):
                yield line, float(shown), scale * end, shown

    def over_languages(self, family, about, measure):
        """The interval with query languages as the units."""
        ours, theirs = (name(side) for side in about.split(" - "))
        column = f"{'raw' if ', raw' in family else 'collection'}/{measure}"
        first, second = (self.languages(side, column) for side in (ours, theirs))
        exact = contrast({(0, code): first[code] - second[code] for code in first})
        return exact["low"], exact["high"]

    def of_shares(self, part):
        """Percentages and bare scores in the answer, the claims and the predictions."""
        closed = {}
        for measure in ("pool", "rank_distance"):
            raw, after = (
                contrast(self.pure_kinds(variant, measure), ARTICLES)["difference"]
                for variant in ("raw", "collection")
            )
            closed[measure] = 100 * (1 - after / raw)
        hybrid, mono = (self.mean(mix, "raw/rank_distance") for mix in ("0.5", "1"))
        wanted = {
            r"\], which is (\S+) %": [100 * (hybrid - mono) / mono],
            r"\| A4 \|.*\| (\S+) % of it": [100 - closed["pool"]],
            r"\| A5 \|.* (\S+) % in the pool, (\S+) % in rank": list(closed.values()),
        }
        for line in part.splitlines():
            for pattern, exact in wanted.items():
                found = re.search(pattern, line)
                if found:
                    for value, shown in zip(exact, found.groups(), strict=True):
                        yield line, float(shown), value, shown
            for claim, place in CLAIMS.items():
                if line.startswith(f"| {claim}"):
                    shown, unit = entries_of(line)[3].split(" ")
                    found = self.recomputed("A1 the paper's claims, raw", *place)
                    exact = found["detectable"] * (1 if unit == "ranks" else 100)
                    yield line, float(shown), exact, shown
