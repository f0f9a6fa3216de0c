"""Which languages gain: English questions to passages in every language of belebele-sib, by the language of the passages.

Reads MODEL/passages/eval.json of three models beside this file; writes passages.csv and passages.md.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import spearmanr

from hybridbatch.common.files import read_json, write_text
from hybridbatch.common.languages import language
from hybridbatch.common.tables import csv_text, markdown_table
from hybridbatch.scaling.language_traits import regress, traits

HERE = Path(__file__).parent
MODELS = ("untrained", "mix-0.5", "mix-1")
GAINS = (("mix-0.5", "mix-1"), ("mix-0.5", "untrained"))
PRETRAINING = "xlm-r"  # what the encoder's own pretraining started from
TRAITS = ("joshi_class", "pretrained", "script_share", "family_share")
GROUPS = {
    "seen in training": lambda row: row["seen"],
    "unseen, class 3-5, in XLM-R's pretraining": lambda row: (
        not row["seen"] and row["high"] and row["pretrained"]
    ),
    "unseen, class 0-2 or unlisted, in XLM-R's pretraining": lambda row: (
        not row["seen"] and not row["high"] and row["pretrained"]
    ),
    "unseen, class 0-2 or unlisted, not in it": lambda row: (
        not row["seen"] and not row["high"] and not row["pretrained"]
    ),
}

Row = dict[str, Any]


def main() -> None:
    """Write the tables."""
    rows = list(read())
    unseen = [row for row in rows if not row["seen"]]
    parts = [
        "# English questions to passages in each language: mAP",
        "",
        markdown_table(list(by_group(rows))),
    ]
    for better, worse in GAINS:
        parts += ["", f"## Gain of {better} over {worse} in {len(unseen)} unseen languages", ""]
        parts += [
            markdown_table(list(predictors(unseen, better, worse))),
            "",
            extremes(unseen, better, worse),
        ]
    write_text(HERE / "passages.csv", csv_text(rows))
    write_text(HERE / "passages.md", "\n".join([*parts, ""]))


def read() -> Iterator[Row]:
    """A row for each language of passages but English, the language of the questions."""
    evaluations = {
        model: read_json(HERE / model / "passages" / "eval.json") for model in MODELS
    }
    pairs = {
        model: evaluation["tasks"][0]["pairs"] for model, evaluation in evaluations.items()
    }
    trained = evaluations["mix-0.5"]["model"]["trained_languages"]
    for place, code in enumerate(pairs[MODELS[0]]["corpus_languages"]):
        if code != "eng":
            facts = language(code)
            scores = {
                model: found["metrics"]["mAP"][found["query_languages"].index("eng")][place]
                for model, found in pairs.items()
            }
            yield {
                "language": code, "name": facts.name, "script": facts.script, "seen": code in trained,
                "high": (facts.joshi_class or 0) > 2, **traits(code, trained, PRETRAINING), **scores,
            }  # fmt: skip


def by_group(rows: Sequence[Row]) -> Iterator[Row]:
    """Means over the languages of a group, and in how many of them the hybrid is ahead."""
    for name, belongs in GROUPS.items():
        members = [row for row in rows if belongs(row)]
        means = {model: float(np.mean([row[model] for row in members])) for model in MODELS}
        ahead = {
            f"{better} > {worse}": f"{sum(row[better] > row[worse] for row in members)} of {len(members)}"
            for better, worse in GAINS
        }
        yield {"languages": name, **means, **ahead}


def predictors(rows: Sequence[Row], better: str, worse: str) -> Iterator[Row]:
    """Of each trait, its rank correlation with the gain, and its slope (points of mAP) beside the others."""
    rows = [row for row in rows if all(row[name] is not None for name in TRAITS)]
    gains = [100 * (row[better] - row[worse]) for row in rows]
    design = {name: [float(row[name]) for row in rows] for name in TRAITS}
    for found in regress(design, gains, seed=13):
        yield {
            "trait": found.name, "languages": len(rows),
            "rank correlation": float(spearmanr(design[found.name], gains).statistic),
            "slope": found.value, "low": found.interval[0], "high": found.interval[1], "p": found.p,
        }  # fmt: skip


def extremes(rows: Sequence[Row], better: str, worse: str) -> str:
    """The five languages that gain most and those that lose most."""
    ordered = sorted(rows, key=lambda row: row[better] - row[worse])
    most, least = (
        ", ".join(f"{row['name']} {100 * (row[better] - row[worse]):+.1f}" for row in part)
        for part in (ordered[:-6:-1], ordered[:5])
    )
    return f"Most: {most}. Least: {least}."


if __name__ == "__main__":
    main()
