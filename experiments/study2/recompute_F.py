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


@cache
def forecasts_of(path):
    """The forecasts of the first edition's cells."""
    return pd.read_parquet(path).to_dict("records")


def miss(forecasts, cells):
    """Of the forecasts whose cells are there: number of scores, then shares and means in percent."""
    done = []
    for each in forecasts:
        cell = cells / f"{each['key']}.parquet"
        if cell.exists():
            done.append((each, means(cell)[each["task"], each["setting"], each["language"]]))
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
            every = forecasts_of(home / "F" / "first-edition.parquet")
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
