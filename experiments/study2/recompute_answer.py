"""Recomputes the table behind the answer's lines, for `recompute.py`. Uses nothing of hybridbatch.

Each number is bound to its contrast by the words of its line, so that a right number in a wrong line
is found.
"""

import re

from plain import entries_of, interval
from recompute_E import USES
from recompute_grid import in_numbers, named

HALF = "cross-fitted XQuAD-R"
SETTINGS = {  # measure of experiments A and E, setting of the others
    "within a language": ("mono", "monolingual"),
    "across languages": ("cross", "cross-lingual"),
    "pool": ("pool", "multilingual"),
}


def start_of(family):
    """What the table says of a family's start and size."""
    if "upper layers drawn anew" not in family["name"]:
        return ""
    if "own temperature" in family["name"] or " 362 records" in family["name"]:
        return ", not in the table"
    return ", from that start"


# Claims of the paper that hybrid batches keep up: contrast, setting in the table's words.
KEEPS_UP = {
    "hybrid keeps up with X-X-mono within a language": ("0.5 - 1", "within a language"),
    "hybrid keeps up with X-Y across languages": ("0.5 - 0", "across languages"),
    "hybrid keeps up with X-Y in the pool": ("0.5 - 0", "pool"),
}
TOLD = r"(xquad-r|afriqa|belebele-sib|atlas) ([+-]\S+ points \[[^]]*\](?: \(undecided; \S+ points)?)"


class Answer:
    """The recomputed contrasts of all experiments, by the words of the table."""

    def __init__(self, crossfit, grid, recipe):
        self.crossfit, self.grid, self.recipe = crossfit, grid, recipe

    def page_figures(self, text):
        """Every number of the table: (line, number, exact, as shown)."""
        for line in text.split("## Claims")[0].splitlines():
            entries = entries_of(line)
            if len(entries) == 6 and entries[0].isdigit():
                for vectors, cell in zip(("raw", "debiased"), entries[4:], strict=True):
                    if cell:
                        yield from self.of_cell(line, *entries[1:4], vectors, cell)
        for line in text.splitlines():
            entries = entries_of(line)
            if entries[0] in KEEPS_UP:
                contrast, setting = KEEPS_UP[entries[0]]
                yield from self.of_cell(line, contrast, HALF, setting, "raw", entries[2])
                for task, cell in re.findall(TOLD, entries[4]):
                    yield from self.of_cell(line, contrast, task, setting, "raw", cell)

    def of_cell(self, line, what, task, setting, vectors, cell):
        """A score, or a difference with what would be found."""
        if what == "untrained encoder: mAP":
            yield line, float(cell), self.untrained(task, setting, vectors), cell
            return
        fits = list(self.contrasts(what, task, setting, vectors))
        if len(fits) != 1:
            return  # `recompute.py` says that the numbers are not recomputed
        (found,) = fits
        yield from interval(line, cell.split("]")[0], found, 100)
        detectable = re.search(r"undecided; (\S+) points", cell)
        if detectable:
            yield line, float(detectable[1]), 100 * found["detectable"], detectable[1]

    def untrained(self, task, setting, vectors):
        """A score of the untrained encoder."""
        ours, theirs = SETTINGS[setting]
        if task == HALF:
            variant = {"raw": "raw", "debiased": "collection"}[vectors]
            return self.crossfit.mean("untrained", f"{variant}/{ours}")
        place = named(task, vectors == "debiased"), theirs, "mAP"
        return self.grid.without_training("untrained", *place)

    def contrasts(self, what, task, setting, vectors):
        """The contrasts that the words of a line mean: one, if all is well."""
        ours, theirs = SETTINGS[setting]
        if task == HALF:
            for family, rows in self.crossfit.report["families"].items():
                for row in rows:
                    name = re.sub(r"\.0\b", "", row["contrast"])
                    known = name, row["measure"], ", raw" in family
                    if known == (in_numbers(what), ours, vectors == "raw"):
                        yield self.crossfit.recomputed(family, row["contrast"], ours)
        elif what.startswith("recipe, "):
            used, against = what.removeprefix("recipe, ").split(" - ")
            fits = (
                vectors == {"raw": "raw", "collection": "debiased"}[USES[used].get(ours, "raw")]
            )
            if fits or task == "XQuADRetrieval":
                yield self.recipe.of_use(used, task, ours, against)
        for family, row, found in self.grid.rows if task != HALF else ():
            words, about = re.fullmatch(r"(.*?)(, from that start)?", what).groups()
            known = row["contrast"], start_of(family), row["task"], row["setting"]
            wanted = in_numbers(words), about or "", task, theirs
            debiased = {side["debiased"] for side in row["sides"]}
            if (*known, row["metric"], debiased) == (*wanted, "mAP", {vectors == "debiased"}):
                yield found
