"""Experiment F, before B is run: how well do languages forecast other languages, on cells that are there?

    python experiments/study2/forecast_first_edition.py [--data-root FOLDER]

Takes the 75 trained cells of the first edition's grid. Each language is forecast from the others alone,
by the method of `scale-sweep --predict`; ridge and interval, too, come from the others. Writes
``experiments/study2/F/first-edition.json`` and ``.md``, and every forecast into ``first-edition.parquet``.
"""

import argparse
import sys
from pathlib import Path

import pandas as pd

from hybridbatch.common.errors import HybridBatchError
from hybridbatch.common.files import atomic_path, make_folder, write_json, write_text
from hybridbatch.common.settings import build
from hybridbatch.common.tables import markdown_table
from hybridbatch.scaling.analysis import Sweep
from hybridbatch.scaling.forecast import leave_one_language_out, misses
from hybridbatch.scaling.predict import examples_of, fertility_of
from hybridbatch.scaling.settings import SweepConfig

HERE = Path(__file__).parent
GRID = HERE.parent / "study" / "grid"


def main() -> None:
    """Write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data-root", type=Path, help="folder with a copy of belebele-sib")
    arguments = parser.parse_args()
    sweep = Sweep.open(GRID)
    settings = sweep.settings[0]
    given = {name: settings[name] for name in ("tasks", "languages", "model")}
    config = build(SweepConfig, None, given | {"data_root": arguments.data_root})
    fertility = fertility_of(config)
    examples = list(examples_of(sweep, fertility))
    forecasts = leave_one_language_out(examples)
    rows = misses(forecasts)
    by_language = []
    for code in sorted({example.language for example, _ in forecasts}):
        own = [pair for pair in forecasts if pair[0].language == code]
        for row in misses(own):
            if row["task"] == "atlas":
                tokens = fertility["atlas"].get(code)
                by_language.append({"language": code, "tokens_per_word": tokens, **row})
    folder = make_folder(HERE / "F")
    result = {
        "schema_version": 1,
        "kind": "forecast-check",
        "rows": rows,
        "languages": by_language,
    }
    write_json(folder / "first-edition.json", result)
    every = pd.DataFrame(
        {
            "key": example.key, "task": example.task, "setting": example.setting,
            "language": example.language, "untrained": example.untrained,
            "forecast": found.value, "low": found.low, "high": found.high,
        }
        for example, found in forecasts
    )  # fmt: skip
    with atomic_path(folder / "first-edition.parquet") as temporary:
        every.to_parquet(temporary, index=False, compression="zstd")
    lines = [
        "# Forecasts of the first edition's grid, each language left out", "",
        f"{len(forecasts):,} scores. miss: mean absolute error of mAP; inside: share within the 95 %"
        " interval; miss_untrained: the untrained score as the forecast.", "",
        markdown_table(rows), "", "## The atlas by language", "", markdown_table(by_language), "",
    ]  # fmt: skip
    write_text(folder / "first-edition.md", "\n".join(lines))


if __name__ == "__main__":
    try:
        main()
    except HybridBatchError as error:
        sys.stderr.write(f"error: {error}\n")
        sys.exit(2)
