"""Recomputes the misses of experiment F's forecasts, for `recompute.py`. Uses nothing of hybridbatch."""

import json
import re
from functools import cache

import pandas as pd
from plain import entries_of


@cache
def means(path):
    """{(task, setting, language): mAP} of a cell."""
    table = pd.read_parquet(path)
    return table.groupby(["task", "setting", "query_language"])["mAP"].mean().to_dict()


def miss(forecasts, cells):
    """Of forecasts of the cells there are: (scores, miss, share inside, half width, miss of the start)."""
    done = [
        (
            each,
            means(cells / f"{each['key']}.parquet")[
                each["task"], each["setting"], each["language"]
            ],
        )
        for each in forecasts
        if (cells / f"{each['key']}.parquet").exists()
    ]
    count = len(done)
    inside = sum(each["low"] <= score <= each["high"] for each, score in done)
    return {
        "scores": count,
        "miss": 100 * sum(abs(each["forecast"] - score) for each, score in done) / count,
        "inside": 100 * inside / count,
        "half_width": 50 * sum(each["high"] - each["low"] for each, _ in done) / count,
        "start": 100 * sum(abs(each["untrained"] - score) for each, score in done) / count,
    }


def page_figures(home, text):
    """Every number of theirs in FINDINGS.md: (line, number, exact, as shown)."""
    part = text.split("## F: forecasts")[1].split("## The first edition")[0]
    for line in part.splitlines():
        entries = entries_of(line)
        if len(entries) == 8 and entries[0] in ("atlas", "all"):
            every = pd.read_parquet(home / "F" / "first-edition.parquet").to_dict("records")
            chosen = [each for each in every if entries[1] in (each["setting"], "all")]
            found = miss(chosen, home.parent / "study" / "grid" / "cells")
            wanted = ("scores", "miss", "inside", "half_width", "start")
            for name, entry in zip(wanted, entries[3:], strict=True):
                shown = entry.replace(",", "").removesuffix(" %")
                yield line, float(shown), found[name], shown
        elif "scores were forecast before" in line:
            yield from of_grid(home, line)


def of_grid(home, line):
    """The sentence on experiment B's forecasts."""
    forecasts = json.loads((home / "B" / "forecast.json").read_text())["forecasts"]
    found = miss(forecasts, home / "B" / "cells")
    pattern = (
        r"B's (\S+) scores were forecast.* (\S+) of them can be compared.* misses by (\S+) points"
        r".*forecast, by (\S+); (\S+) % lie"
    )
    exact = (len(forecasts), *(found[name] for name in ("scores", "miss", "start", "inside")))
    for value, shown in zip(exact, re.search(pattern, line).groups(), strict=True):
        shown = shown.replace(",", "")
        yield line, float(shown), value, shown
