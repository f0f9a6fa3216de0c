"""The answer in FINDINGS.md: ten lines that a practitioner can act on, and the numbers behind each.

A line is written when the experiment behind it is judged, so that no line has to be taken back.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from families import MIMO_TEMPERATURES, MIXES, STRATEGIES, TASKS
from findings_grid import POOLS, GridFindings
from measuring import USES
from wording import Row, enumerated, gains, loses, said, score, told

from hybridbatch.common.files import read_json

Numbers = tuple[str, str, str]  # what, raw, debiased
A1, A2 = "A1 the paper's claims, raw", "A2 the paper's claims, debiased"
A3, A4 = "A3 pure kinds, raw", "A4 pure kinds, debiased"
A5 = "A5 does debiasing close the gap between pure kinds"
A6 = "A6 is training worth it, debiased"
SETTINGS = {"mono": "within a language", "cross": "across languages", "pool": "pool"}
C2 = "C2 X-X and MTT against hybrid, debiased"
C4 = "C4 interleaved against monolingual first, raw"
WORTH = "is training worth it, debiased"
B1, B2 = "B1 hybrid against pure kinds, raw", "B2 hybrid against pure kinds, debiased"
REAL_QUESTIONS = {"xquad-r": "multilingual", "afriqa": "cross-lingual"}  # task -> setting
PLACES = {"xquad-r": "the pool of XQuAD-R", "afriqa": "AfriQA"}
PURE = {"1": "monolingual", "0": "cross-lingual"}  # batches, by their mix


class Line(NamedTuple):
    """A sentence or two, and the numbers behind them."""

    text: str
    behind: Sequence[Numbers] = ()


class Crossfit:
    """The rows of experiment A, by family, contrast and measure."""

    def __init__(self, report: Row) -> None:
        self.means = {(str(line["mix"]), line["vectors"]): line for line in report["means"]}
        self.rows = {
            (family, row["contrast"], row["measure"]): row
            for family, rows in report["families"].items()
            for row in rows
        }

    def pair(self, families: tuple[str, str], contrast: str, measure: str) -> tuple[Row, Row]:
        """A contrast raw and debiased."""
        raw, after = (self.rows[family, contrast, measure] for family in families)
        return raw, after

    def untrained(self) -> tuple[float, float]:
        """The pool's mAP raw and debiased."""
        raw, after = (
            self.means["untrained", vectors]["pool"] for vectors in ("raw", "collection")
        )
        return raw, after

    def best(self) -> float:
        """The best raw pool of the three mixes."""
        return max(self.means[str(mix), "raw"]["pool"] for mix in MIXES)


def answer(report: Row, home: Path, grid: GridFindings) -> list[str]:
    """The lines, and a table of the numbers behind them."""
    lines = list(ten_lines(report, home, grid))
    table = [
        f"| {number} | {' | '.join(numbers)} |"
        for number, line in enumerate(lines, 1)
        for numbers in line.behind
    ]
    return [
        *(f"{number}. {line.text}" for number, line in enumerate(lines, 1)), "",
        "The numbers behind the lines, mAP in points, with their 95 % intervals. *debiased*: the mean vector of"
        " each language is subtracted, on both sides of a comparison. XQuAD-R: experiment A, but in"
        " line 5 experiment B; belebele-sib and the atlas (eight low-resource languages and English) and AfriQA"
        " (seven African languages): experiments B to D.", "",
        "| line | what | raw | debiased |", "|---:|---|---|---|", *table,
    ]  # fmt: skip


def ten_lines(report: Row, home: Path, grid: GridFindings) -> Iterator[Line]:
    """Every line whose experiment is judged."""
    if report["final"]:
        crossfit = Crossfit(report)
        yield trade(crossfit)
        yield debias_first(crossfit, grid)
        yield hybrid(crossfit)
        yield worth(crossfit, grid)
    for line in (low_resource, more_text, beside_mixes, another_start):
        yield from line(grid)
    yield Line(
        "Train at the start's own temperature (`--temperature auto`), which is near 0.01 for e5-small-q4. Give all"
        " kinds of batches the same records (`--same-records`)."
    )
    yield recipe(home)


def trade(crossfit: Crossfit) -> Line:
    """The two pure kinds."""
    pairs = {m: crossfit.pair((A3, A4), "0.0 - 1.0", m) for m in ("pool", "cross", "mono")}
    text = "This is what the kind of batch changes."
    if gains(pairs["pool"][0]) and loses(pairs["mono"][0]):
        text = (
            "The kind of batch is a trade. If you do not debias, take cross-lingual batches to search one pool of"
            " languages, and monolingual ones to search within a language."
        )
    what = "cross-lingual less monolingual batches, XQuAD-R"
    return Line(text, [both(f"{what}, {SETTINGS[m]}", *pair) for m, pair in pairs.items()])


def debias_first(crossfit: Crossfit, grid: GridFindings) -> Line:
    """What debiasing does to the trade, and to the untrained encoder."""
    gap = crossfit.rows[A5, "(0 - 1 raw) - (0 - 1 debiased)", "pool"]
    pools = {"XQuAD-R": crossfit.untrained()} | grid.untrained_pools()
    return Line(
        "Debias before you train: subtract the mean vector of each language (`debias`, `eval --debias`, `search"
        f" --debias`). It needs no training and no labels. Of the pool's gap between the two kinds it takes"
        f" {100 * gap['difference'] / gap['mean']:.1f} % away.",
        [
            (f"untrained encoder, {name}, pool: mAP", score(raw), score(after))
            for name, (raw, after) in pools.items()
        ],
    )


def hybrid(crossfit: Crossfit) -> Line:
    """Hybrid batches against the better pure kind of each setting."""
    wanted = (("0.5 - 1.0", "mono"), ("0.5 - 0.0", "cross"), ("0.5 - 0.0", "pool"))
    mono, cross, pool = (crossfit.pair((A1, A2), *each) for each in wanted)
    text = "This is what hybrid batches (mix 0.5) lose against the better pure kind."
    if loses(mono[0]) and loses(pool[0]):
        text = "Hybrid batches (mix 0.5) lie between the pure kinds."
        if cross[0]["verdict"] == "equivalent":
            text += " They lose nothing across languages, and something within a language and in the pool."
    return Line(text, [
        both("hybrid less monolingual batches, XQuAD-R, within a language", *mono),
        both("hybrid less cross-lingual batches, XQuAD-R, across languages", *cross),
        both("hybrid less cross-lingual batches, XQuAD-R, pool", *pool),
    ])  # fmt: skip


def worth(crossfit: Crossfit, grid: GridFindings) -> Line:
    """Training against debiasing alone."""
    rows = {
        f"XQuAD-R {where}": crossfit.rows[A6, "0.5 - untrained", measure]
        for measure, where in SETTINGS.items()
    }
    found = grid.by_task((WORTH, "0.5 - untrained"))
    rows |= {f"{task} pool (exploratory)": row for task, (row,) in found.items()}
    text = (
        f"Compare with the untrained encoder, debiased: its pool of XQuAD-R has {score(crossfit.untrained()[1])} mAP,"
        f" the best raw trained one {score(crossfit.best())} mAP."
    )
    if outcome := shown(rows):
        text += f" Debiased as well, fine-tuning at mix 0.5 {outcome}."
    return Line(text, [
        (f"mix 0.5 less untrained, {name}", "", said(row)) for name, row in rows.items()
    ])  # fmt: skip


def shown(rows: dict[str, Row]) -> str:
    """Where contrasts are shown to gain or to lose, in words; empty if nowhere."""
    parts = []
    for word, fits in (("gains", gains), ("loses", loses)):
        names = [name for name, row in rows.items() if fits(row)]
        if names:
            parts.append(f"{word} in {enumerated(names)}")
    return ", and ".join(parts)


def low_resource(grid: GridFindings) -> Iterator[Line]:
    """Experiment B: the mission's languages."""
    pairs = against_pure_kinds(grid, B1, B2)
    if not pairs:
        return
    text = "These are hybrid batches in eight low-resource languages that no training saw, and English."
    against_mono = [pairs["1", task] for task in TASKS]
    if all(gains(raw) for raw, _ in against_mono):
        text = (
            "In eight low-resource languages that no training saw, and English, hybrid batches beat monolingual"
            " ones in the raw pool."
        )
        if all(abs(after["difference"]) < raw["difference"] / 4 for raw, after in against_mono):
            text += " After debiasing little of that is left."
    more, behind = real_questions(grid)
    yield Line(text + more, [*pure_kinds_told(pairs), *behind])


def real_questions(grid: GridFindings) -> tuple[str, list[Numbers]]:
    """Experiment B-wide: sentences, and the numbers behind them; nothing until it is judged."""
    pairs = against_pure_kinds(grid, B1, B2, REAL_QUESTIONS)
    gained = grid.by_task((WORTH, "0.5 - untrained"), settings=REAL_QUESTIONS)
    if not (pairs and gained):
        return "", []
    against_mono: dict[str, Row] = {}
    against_none: dict[str, Row] = {}
    behind: list[Numbers] = []
    for task, where in PLACES.items():
        raw, after = pairs["1", task]
        against_mono |= {where: raw, f"{where} debiased": after}
        for pure, kind in PURE.items():
            behind.append(both(f"hybrid less {kind} batches, {where}", *pairs[pure, task]))
        (gain,) = gained[task]
        against_none[where] = gain
        behind.append((f"mix 0.5 less untrained, {where} (exploratory)", "", said(gain)))
    text = (
        " On real questions, training on hybrid instead of monolingual batches"
        f" {shown(against_mono) or 'is not shown to matter'}. Against the untrained encoder, both debiased, mix 0.5"
        f" {shown(against_none) or 'is not shown to matter'} (exploratory)."
    )
    return text, behind


def against_pure_kinds(
    grid: GridFindings, raw: str, after: str, settings: Mapping[str, str] = POOLS
) -> dict[tuple[str, str], list[Row]]:
    """Hybrid batches against each pure kind by (mix of the kind, task): rows of two families."""
    found = {}
    for pure in PURE:
        contrast = f"0.5 - {pure}"
        rows = grid.by_task((raw, contrast), (after, contrast), settings=settings)
        found |= {(pure, task): pair for task, pair in rows.items()}
    return found


def pure_kinds_told(pairs: dict[tuple[str, str], list[Row]], about: str = "") -> list[Numbers]:
    """In words."""
    return [
        both(f"hybrid less {PURE[pure]} batches, {task}, pool{about}", *pair)
        for (pure, task), pair in pairs.items()
    ]


def more_text(grid: GridFindings) -> Iterator[Line]:
    """Experiments B3 and F: what more training text does."""
    found = grid.by_task(
        ("F does more text help, raw", "0.5, per doubling"),
        ("F does more text help, debiased", "0.5, per doubling"),
        ("B3 the same per doubling of records, raw", "0.5 - 1, per doubling"),
        ("B3 the same per doubling of records, debiased", "0.5 - 1, per doubling"),
    )
    if not found:
        return
    sizes = grid.report["sizes"]
    text = "This is what more text does to hybrid batches."
    if all(gains(raw) and not gains(after) for raw, after, *_ in found.values()):
        text = (
            "More text raises the raw pool of hybrid batches, and no gain is shown once it is debiased"
            f" ({sizes[0]:,} to {sizes[-1]:,} records)."
        )
    behind = []
    for task, (raw, after, lead, lead_after) in found.items():
        behind.append(both(f"hybrid, {task}, pool, for each doubling of records", raw, after))
        behind.append(both(f"its lead over monolingual batches, {task}", lead, lead_after))
    yield Line(text, behind)


def beside_mixes(grid: GridFindings) -> Iterator[Line]:
    """Experiment C: a teacher, other strategies, the order of the kinds; and MIMO's loss."""
    with_teacher = [f"{mix:g} with a teacher - {mix:g}" for mix in MIXES]
    raw = grid.by_task(*(("C5 a teacher against none, raw", each) for each in with_teacher))
    after = grid.by_task(
        *(("C5 a teacher against none, debiased", each) for each in with_teacher)
    )
    less_hybrid = [f"{words} - 0.5" for words in STRATEGIES.values()]
    rivals = grid.by_task(*((C2, each) for each in less_hybrid))
    order = grid.by_task((C4, "0.5 - monolingual first"))
    if not (raw and after and rivals and order):
        return
    behind: list[Numbers] = []
    taught, below, moved = [], [], []
    half = MIXES.index(0.5)
    for task in TASKS:
        taught += after[task]
        below += rivals[task]
        moved += order[task]
        what = f"hybrid with less without a teacher, {task}, pool"
        behind.append(both(what, raw[task][half], after[task][half]))
        for words, row in zip(STRATEGIES.values(), rivals[task], strict=True):
            behind.append((f"{words} less hybrid, {task}, pool", "", said(row)))
        what = f"interleaved less monolingual first, {task}, pool"
        behind.append((what, said(order[task][0]), ""))
    parts = []
    if all(map(gains, taught)):
        parts.append("A teacher (the start itself) helps every kind of batch, once debiased.")
    if all(row["difference"] < 0 for row in below):
        found = f"{sum(map(loses, below))} of {len(below)} differences are shown"
        parts.append(f"X-X and MTT come out below hybrid batches, debiased ({found}).")
    if all(abs(row["difference"]) < row["margin"] for row in moved):
        parts.append("The order of the kinds moved the pool by less than a point.")
    more, questions = alignment(grid)
    text = " ".join([*parts, more]).strip() or "This is what other ways to train do."
    yield Line(text, [*behind, *mimo(grid), *questions])


def mimo(grid: GridFindings) -> Iterator[Numbers]:
    """MIMO's loss against plain cross-lingual batches."""
    for temperature in MIMO_TEMPERATURES:
        contrast = f"MIMO at {temperature:g} - 0"
        found = grid.by_task(
            ("MIMO against mix 0, raw", contrast), ("MIMO against mix 0, debiased", contrast)
        )
        for task, pair in found.items():
            what = f"MIMO's loss at {temperature:g} less cross-lingual batches, {task}, pool (exploratory)"
            yield both(what, *pair)


def alignment(grid: GridFindings) -> tuple[str, list[Numbers]]:
    """Experiment C3: a share of MKQA's questions, in a sentence and in numbers; empty if not judged."""
    raws: dict[str, Row] = {}
    behind = []
    for mix in ("0", "0.5"):
        contrast = f"{mix} with 40 % MKQA - {mix} with 0 % MKQA"
        found = grid.by_task(
            ("C3 shares of MKQA, raw", contrast), ("C3 shares of MKQA, debiased", contrast)
        )
        for task, (raw, after) in found.items():
            raws[f"{task} at mix {mix}"] = raw
            behind.append(both(f"40 % MKQA less none, mix {mix}, {task}, pool", raw, after))
    outcome = shown(raws) or "is not shown to change"
    text = f"With 40 % of MKQA's questions, the raw pool {outcome}." if raws else ""
    return text, behind


def another_start(grid: GridFindings) -> Iterator[Line]:
    """Experiment D: an encoder that cannot retrieve yet."""
    if not grid.report:
        return
    about = f"from upper layers drawn anew, {grid.report['sizes'][-1]:,} records"
    families = [
        f"D hybrid against pure kinds {about}, {words}" for words in ("raw", "debiased")
    ]
    pairs = against_pure_kinds(grid, *families)
    if not pairs:
        return
    rows = {}
    for task in TASKS:
        rows[f"the raw pool of {task}"], rows[f"the debiased pool of {task}"] = pairs["1", task]
    yield Line(
        "From a start that cannot retrieve yet (its upper layers drawn anew), training on hybrid instead of"
        f" monolingual batches {shown(rows) or 'is not shown to matter'}.",
        pure_kinds_told(pairs, ", from that start"),
    )


def recipe(home: Path) -> Line:
    """Experiment E, in one attempt or two."""
    tried = [judged for judged in (judgement(home, 1), judgement(home, 2)) if judged]
    if not tried:
        return Line(
            "There is no accepted recipe yet (experiment E): none was shown better than the untrained encoder in"
            " every setting by the plan's rule."
        )
    behind = [numbers for judged in tried for numbers in against_start(judged)]
    last = tried[-1]
    if last["accepted"]:
        return Line(
            f"The recipe ({last['recipe']}, {last['used']}) is not worse than the untrained encoder in any setting"
            " (experiment E, chosen on English and Portuguese)"
            f"{'' if len(tried) == 1 else ', at the second attempt: used raw in the pool, it had failed'}.",
            behind,
        )
    return Line(
        f"No recipe is accepted (experiment E). The best of a search on English and Portuguese ({last['recipe']},"
        f" {last['used']}) is ahead in every setting there, and fails on eleven languages. Debias after training.",
        behind,
    )


def against_start(judged: Row) -> Iterator[Numbers]:
    """What an acceptance found: the lines that failed, or all of them if none did."""
    for row in judged["rows"]:
        if judged["accepted"] or not row["passed"]:
            what = f"the recipe, {judged['used']}, less the {row['against']} encoder, {row['measure']}"
            setting = row["measure"].removeprefix("XQuAD-R ")
            variant = USES[judged["used"]].get(setting, "raw")  # XQuADRetrieval: raw
            yield (what, told(row), "") if variant == "raw" else (what, "", told(row))


def judgement(home: Path, attempt: int) -> Row | None:
    """The acceptance of the chosen point of an attempt, if it was tried."""
    end = "" if attempt == 1 else f"-{attempt}"
    path = home / "E" / f"acceptance{end}.json"
    found = read_json(path) if path.exists() else None
    chosen = read_json(home / "E" / f"recipe{end}.json")["chosen"]["name"] if found else None
    return found if found and found["recipe"] == chosen else None


def both(what: str, raw: Row, after: Row) -> Numbers:
    """A contrast raw and debiased."""
    return what, said(raw), said(after)
