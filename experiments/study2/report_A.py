"""Report of experiment A from the files of its finished runs: ``A/report.md``, ``A/report.json`` and
the page FINDINGS.md.

    python experiments/study2/report_A.py [FOLDER]

Counts whole seeds alone: both halves, all mixes. Until the first seed is whole, the halves that have
all mixes are reported instead. Before the ten planned seeds are there, the report is interim: it
gives means, intervals and detectable differences, and no verdict (plan.md).
"""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import findings
import pandas as pd
from contrasts import contrast, margin_of, over_languages, settle, unit_table
from wording import verdict

from hybridbatch.common.files import read_json, read_yaml, write_json, write_text
from hybridbatch.scaling.report.tables import markdown_table
from hybridbatch.scoring.settings import BM25

HERE = Path(__file__).parent
PLANNED_SEEDS = 10
MEASURES = ("mono", "cross", "pool", "rank_distance")
VARIANTS = ("raw", "collection", "news")
UNTRAINED = "untrained"
Block = tuple[int, int]  # seed, half

# family: (name, variant of both sides, minuend, subtrahend) of every test; measures as listed
PAPER = (
    ("mono", 0.5, 1.0),
    ("cross", 0.5, 0.0),
    ("pool", 0.5, 0.0),
    ("rank_distance", 0.5, 1.0),
)
PURE = tuple((measure, 0.0, 1.0) for measure in MEASURES)
WORTH = tuple(
    (measure, mix, UNTRAINED)
    for mix in (0.0, 0.5, 1.0)
    for measure in ("mono", "cross", "pool")
)
FAMILIES = {
    "A1 the paper's claims, raw": ("raw", PAPER),
    "A2 the paper's claims, debiased": ("collection", PAPER),
    "A3 pure kinds, raw": ("raw", PURE),
    "A4 pure kinds, debiased": ("collection", PURE),
    "A6 is training worth it, debiased": ("collection", WORTH),
}
GAP = "A5 does debiasing close the gap between pure kinds"


class Runs:
    """The finished runs of a folder."""

    def __init__(self, folder: Path, mixes: list[float]) -> None:
        self.mixes = mixes
        self.tables: dict[tuple[Block, Any], pd.DataFrame] = {}
        for path in sorted(folder.glob("seed-*.json")):
            run = read_json(path)["run"]
            mix = UNTRAINED if run["mix"] is None else run["mix"]
            table = pd.read_parquet(path.with_suffix(".parquet"))
            single = table.select_dtypes("float32").columns
            table[single] = table[single].astype("float64")
            self.tables[(run["seed"], run["trained_on"]), mix] = table

    def blocks(self, wanted: list[Any]) -> list[Block]:
        """The blocks that have all of some mixes: of whole seeds, or of any while none is whole."""
        have = [
            block
            for block in sorted({block for block, _ in self.tables})
            if all((block, mix) in self.tables for mix in wanted)
        ]
        whole = [block for block in have if (block[0], 1 - block[1]) in have]
        return whole or have

    def values(self, mix: Any, column: str, blocks: list[Block]) -> pd.Series:
        """The mean over query languages of each question, by seed and question."""
        parts = {}
        for block in blocks:
            by_question = self.tables[block, mix].groupby("query_id")[column].mean()
            parts.setdefault(block[0], []).append(by_question)
        return pd.concat({seed: pd.concat(halves) for seed, halves in parts.items()})

    def by_language(self, mix: Any, column: str, blocks: list[Block]) -> pd.Series:
        """The mean of each query language."""
        frames = [self.tables[block, mix] for block in blocks]
        return pd.concat(frames).groupby("query_language")[column].mean()


def tested(
    runs: Runs, variant: str, tests: tuple[tuple[str, Any, Any], ...], article: dict[str, str]
) -> Iterator[dict[str, Any]]:
    """A row for each contrast of a family whose runs are there."""
    for measure, ours, theirs in tests:
        blocks = runs.blocks([*runs.mixes, *([UNTRAINED] if theirs == UNTRAINED else [])])
        if not blocks:
            continue
        column = f"{variant}/{measure}"
        first, second = (runs.values(mix, column, blocks) for mix in (ours, theirs))
        languages = runs.by_language(ours, column, blocks) - runs.by_language(
            theirs, column, blocks
        )
        margin = margin_of(measure, second.mean())
        yield row(f"{ours} - {theirs}", measure, first - second, article, margin) | {
            "mean": float(first.mean()),
            "mean_against": float(second.mean()),
            **over_languages(languages.to_numpy()),
        }


def row(
    name: str, measure: str, differences: pd.Series, article: dict[str, str], margin: float
) -> dict[str, Any]:
    """A contrast with its interval, test and detectable difference."""
    table = unit_table(differences.unstack(), article)
    return {"contrast": name, "measure": measure, **contrast(table, margin, "articles")}


def gap(runs: Runs, article: dict[str, str]) -> Iterator[dict[str, Any]]:
    """How much smaller the difference of the pure kinds is after debiasing."""
    blocks = runs.blocks(runs.mixes)
    for measure in ("pool", "rank_distance"):
        by_variant = [
            runs.values(0.0, f"{variant}/{measure}", blocks)
            - runs.values(1.0, f"{variant}/{measure}", blocks)
            for variant in ("raw", "collection")
        ]
        raw, after = by_variant
        margin = margin_of(measure, runs.values(1.0, f"raw/{measure}", blocks).mean())
        yield row("(0 - 1 raw) - (0 - 1 debiased)", measure, raw - after, article, margin) | {
            "mean": float(raw.mean()),
            "mean_against": float(after.mean()),
        }


def averages(runs: Runs, seen: list[str]) -> list[dict[str, Any]]:
    """Macro-averages by model and variant, over all, trained and untrained query languages."""
    found = []
    for mix in [BM25, UNTRAINED, *runs.mixes]:
        blocks = runs.blocks([*runs.mixes, mix])
        variants = ("raw",) if mix == BM25 else VARIANTS
        for variant in variants if blocks else ():
            line: dict[str, Any] = {"mix": mix, "vectors": variant}
            for measure in (*MEASURES, "same_language"):
                languages = runs.by_language(mix, f"{variant}/{measure}", blocks)
                line[measure] = float(languages.mean())
                if measure in ("mono", "cross", "pool"):
                    inside = languages.index.isin(seen)
                    line[f"{measure} trained"] = float(languages[inside].mean())
                    line[f"{measure} unseen"] = float(languages[~inside].mean())
            found.append(line)
    return found


def main() -> None:
    """Write the report."""
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else HERE / "A"
    settings = read_yaml(HERE / "A.yaml")
    article = read_json(HERE / "articles.json")
    runs = Runs(folder, settings["mixes"])
    if not runs.blocks(runs.mixes):
        sys.exit(f"{folder}: no half of any seed has all mixes yet; nothing to report")
    families = {
        name: list(tested(runs, variant, tests, article))
        for name, (variant, tests) in FAMILIES.items()
    }
    families[GAP] = list(gap(runs, article))
    blocks = runs.blocks(runs.mixes)
    seeds = sorted({seed for seed, _ in blocks})
    whole = len(blocks) == 2 * len(seeds)
    final = whole and len(seeds) >= PLANNED_SEEDS
    for rows in families.values():
        settle(rows, final)
    result = {
        "schema_version": 1, "kind": "crossfit-report", "final": final, "seeds": seeds,
        "halves": [list(block) for block in blocks], "means": averages(runs, settings["languages"]),
        "families": families,
    }  # fmt: skip
    write_json(folder / "report.json", result)
    write_text(folder / "report.md", markdown(result))
    home = HERE if folder.resolve() == (HERE / "A").resolve() else folder
    findings.write(result, home / "FINDINGS.md", home)


def markdown(result: dict[str, Any]) -> str:
    """The report for people."""
    halves = len(result["halves"])
    state = "Final." if result["final"] else (
        f"**Interim**: {halves} halves of {len(result['seeds'])} of {PLANNED_SEEDS} planned seeds."
        " No verdicts before all are there; with few seeds the degrees of freedom are few, and"
        " with one half the intervals are over articles alone."
    )  # fmt: skip
    lines = ["# Experiment A: cross-fitted XQuAD-R", "", state, "",
             "Scores are of half of XQuAD-R's articles and stand beside no published ones.", "",
             "## Means", "", markdown_table(result["means"])]  # fmt: skip
    for name, rows in result["families"].items():
        lines += ["", f"## {name}", "", markdown_table(list(map(worded, rows)))]
    return "\n".join(lines) + "\n"


def worded(row: dict[str, Any]) -> dict[str, Any]:
    """A row with its verdict, if it has one, in words."""
    known = {name: value for name, value in row.items() if name != "within_margin"}
    return known | {"verdict": verdict(row)} if "verdict" in row else known


if __name__ == "__main__":
    main()
