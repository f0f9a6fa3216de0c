"""Recomputes the figures of all experiments from their committed files, by other code than the project's.

    python experiments/study2/recompute.py [FOLDER]

Reads the Parquet files of the runs (A, E) and cells (B to D) with pandas and nothing of hybridbatch.
Means are taken by plain loops, variances by the mean squares of a two-way table, quantiles from
scipy. Compares with ``A/report.json`` and ``grid.json`` and says the largest deviation; ends with an
error if one is beyond 1e-6 (of means: 1e-5, single precision is stored). Every number with a decimal
point in FINDINGS.md and grid.md is recomputed, too, but for those of `SETTINGS`: an error if one
differs in its last digit, or is not recomputed. FOLDER is of other runs of A, with those of B to D in
its folders.
"""

import re
import sys
from collections import Counter, defaultdict
from pathlib import Path

import recompute_F
from plain import nearest
from recompute_A import Crossfit
from recompute_answer import Answer
from recompute_E import Recipe
from recompute_grid import Grid

HERE = Path(__file__).parent
# Numbers of the plan and of names, which no run gives.
SETTINGS = {
    "0.0", "0.5", "1.0", "0.01", "0.02", "0.05", "0.005", "0.4", "0.6", ".60", ".25", ".75", ".5",
    "0.00", "0.25", "0.50", "0.75", "0.0096", "0.011", "0.0075", "0.0087",
}  # fmt: skip
DECIMAL = r"(?<![\w.])[+-]?\d*\.\d+(?![\w.])"


def page_figures(pages, crossfit, grid, recipe):
    """Every number of the pages beside its recomputation: (line, number, exact, as shown)."""
    text = pages["FINDINGS.md"]
    yield from crossfit.page_figures(text)
    yield from grid.page_figures(text, pages.get("grid.md", ""))
    yield from recipe.page_figures(text)
    yield from Answer(crossfit, grid, recipe).page_figures(text)
    yield from recompute_F.page_figures(grid.home, text)
    # Sentences and claims repeat numbers of the tables: each must be one of them.
    told = [*crossfit.told, *recipe.told]
    told += [(row["metric"], found) for _, row, found in grid.rows]
    lines, rest = text.split("The numbers behind the lines")
    yield from nearest(lines, told)
    claims = rest.split("## Claims")[1].split("## Evidence")[0].splitlines()
    others = [line for line in claims if not line.startswith("| hybrid keeps up")]
    yield from nearest("\n".join(others), told)


def differs(number, exact, shown):
    """Whether a number is not the exact one, rounded to its digits."""
    half = 0.5 * 10 ** -len(shown.partition(".")[2])
    return abs(number - exact) > half + 2e-6 * max(1, abs(exact))


def unchecked(pages, figures):
    """The decimal numbers of the pages that no figure covers: (line, number)."""
    covered = defaultdict(Counter)
    for line, _, _, shown in figures:
        covered[line][shown.lstrip("+")] += 1
    for line in "\n".join(pages.values()).splitlines():
        for number in re.findall(DECIMAL, line):
            if number in SETTINGS or f"arXiv {number}" in line:
                continue
            if not covered[line][number.lstrip("+")]:
                yield line, number
            covered[line][number.lstrip("+")] -= 1


def main():
    """Compare, and say how it went."""
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else HERE / "A"
    home = HERE if folder.resolve() == (HERE / "A").resolve() else folder
    crossfit, grid, recipe = Crossfit(folder), Grid(home), Recipe(home)
    contrasts = [*crossfit.contrasts(), *grid.contrasts()]
    means = [*crossfit.means(), *grid.means()]
    names = [name for name in ("FINDINGS.md", "grid.md") if (home / name).exists()]
    pages = {name: (home / name).read_text(encoding="utf-8") for name in names}
    figures = list(page_figures(pages, crossfit, grid, recipe))
    wrong = [(line, shown) for line, *rest, shown in figures if differs(*rest, shown)]
    for line, shown in wrong:
        sys.stdout.write(f"{shown} is not what the runs give, in: {line[:160]}\n")
    missed = list(unchecked(pages, figures))
    for line, shown in missed:
        sys.stdout.write(f"{shown} is not recomputed, in: {line[:160]}\n")
    sys.stdout.write(
        f"{len(contrasts) + len(means)} figures: contrasts within {max(contrasts):.1e}, means within"
        f" {max(means):.1e}; {len(figures)} numbers of the pages\n"
    )
    fine = max(contrasts) < 1e-6 and max(means) < 1e-5 and not wrong and not missed
    sys.exit(0 if fine else 1)


if __name__ == "__main__":
    main()
