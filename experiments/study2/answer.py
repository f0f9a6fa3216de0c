"""The answer in FINDINGS.md: ten lines that a practitioner can act on, and the numbers behind each.

A line is written when the experiment behind it is judged, so that no line has to be taken back.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from families import MIMO_TEMPERATURES, MIXES, MKQA, ORDERS, STRATEGIES, TASKS
from findings_grid import POOLS, GridFindings
from measuring import USES, attempt_file
from wording import Row, contrast_words, enumerated, gains, loses, said, score, told

from hybridbatch.common.files import read_json

A1, A2 = "A1 the paper's claims, raw", "A2 the paper's claims, debiased"
A3, A4 = "A3 pure kinds, raw", "A4 pure kinds, debiased"
A5 = "A5 does debiasing close the gap between pure kinds"
A6 = "A6 is training worth it, debiased"
SETTINGS = {"mono": "within a language", "cross": "across languages", "pool": "pool"}
GRID_SETTINGS = {
    "monolingual": "within a language", "cross-lingual": "across languages", "multilingual": "pool",
}  # fmt: skip
HALF = "cross-fitted XQuAD-R"
C2 = "C2 X-X and MTT against hybrid, debiased"
WORTH = "is training worth it, debiased"
B1, B2 = "B1 hybrid against pure kinds, raw", "B2 hybrid against pure kinds, debiased"
PLACES = {"xquad-r": "multilingual", "afriqa": "cross-lingual"}  # task -> setting
PURE = ("1", "0")  # mixes


class Numbers(NamedTuple):
    """A line of the table: a difference or a score, where it was measured, raw and debiased."""

    what: str
    task: str
    setting: str
    raw: str
    debiased: str


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

    def untrained(self, measure: str) -> tuple[float, float]:
        """The mAP raw and debiased."""
        raw, after = (
            self.means["untrained", vectors][measure] for vectors in ("raw", "collection")
        )
        return raw, after


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
        "The numbers behind the lines: differences of mAP in points, with 95 % intervals. *debiased*: the mean"
        " vector of each language is subtracted, on both sides of a difference. Differences without another word"
        " are shown by their test, after Holm's correction in their family. The intervals are of the single"
        " difference, so one may exclude 0 and the difference still be undecided.", "",
        "| line | what | task | setting | raw | debiased |", "|---:|---|---|---|---|---|", *table,
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
        "Train at the start's own temperature, which is near 0.01 for e5-small-q4 (`--temperature auto` finds it)."
        " To compare kinds of batches, name one value, because auto depends on the batches, and give all kinds"
        " the same records (`--same-records`)."
    )
    yield recipe(home)


def trade(crossfit: Crossfit) -> Line:
    """The two pure kinds."""
    pairs = {m: crossfit.pair((A3, A4), "0.0 - 1.0", m) for m in ("pool", "cross", "mono")}
    text = "This is what the kind of batch changes."
    if gains(pairs["pool"][0]) and loses(pairs["mono"][0]):
        text = (
            "The kind of batch is a trade. Without debiasing, cross-lingual batches are better in one pool of"
            " languages, and monolingual ones within a language."
        )
    return Line(text, [both(*pair) for pair in pairs.values()])


def debias_first(crossfit: Crossfit, grid: GridFindings) -> Line:
    """What debiasing does to the trade, and to the untrained encoder."""
    gap = crossfit.rows[A5, "(0 - 1 raw) - (0 - 1 debiased)", "pool"]
    known = [(HALF, SETTINGS[m], crossfit.untrained(m)) for m in SETTINGS]
    known += [(task, "pool", pools) for task, pools in grid.untrained_pools().items()]
    text = (
        "Debias first: subtract the mean vector of each language (`debias`, `eval --debias`, `search --debias`). It"
        " needs no training and no relevance labels, but the language of every text. Of the pool's gap between the"
        f" two kinds, {told(gap)} go."
    )
    if crossfit.untrained("mono")[0] > crossfit.untrained("mono")[1]:
        text += " Within a language it costs the untrained encoder a little."
    return Line(text, [
        Numbers("untrained encoder: mAP", *place, score(raw), score(after))
        for *place, (raw, after) in known
    ])  # fmt: skip


def hybrid(crossfit: Crossfit) -> Line:
    """Hybrid batches against the better pure kind of each setting."""
    wanted = (("0.5 - 1.0", "mono"), ("0.5 - 0.0", "cross"), ("0.5 - 0.0", "pool"))
    mono, cross, pool = (crossfit.pair((A1, A2), *each) for each in wanted)
    text = "This is what hybrid batches (mix 0.5) lose against the better pure kind."
    if loses(mono[0]) and loses(pool[0]) and cross[0]["verdict"] == "equivalent":
        text = (
            "Hybrid batches (mix 0.5) are a compromise: equivalent to cross-lingual batches across languages, behind"
            " them in the pool, and behind monolingual batches within a language."
        )
    return Line(text, [both(*mono), both(*cross), both(*pool)])


def worth(crossfit: Crossfit, grid: GridFindings) -> Line:
    """Training against debiasing alone."""
    asked = {
        (HALF, where): crossfit.rows[A6, "0.5 - untrained", m] for m, where in SETTINGS.items()
    }
    found = {
        (task, where): grid.row(f"{WORTH}, {task}", "0.5 - untrained", setting)
        for task in (*PLACES, *TASKS)
        for setting, where in GRID_SETTINGS.items()
    }
    others = {place: row for place, row in found.items() if row}
    text = (
        "Fine-tune if you have questions of the kind that will be asked; if you do not, debias alone. Against the"
        " untrained encoder, both debiased: trained on questions about other articles, mix 0.5 is"
        f" {beside_zero(asked)}."
    )
    if others:
        text += (
            " Trained on pairs of news and health text instead, it is"
            f" {beside_zero(others)} (exploratory)."
        )
    return Line(text, [both(None, row) for row in (*asked.values(), *others.values())])


def low_resource(grid: GridFindings) -> Iterator[Line]:
    """Experiment B: the mission's languages."""
    pairs = against_pure_kinds(grid, B1, B2)
    if not pairs:
        return
    rows = pools_against_mono(pairs)
    text = (
        "Eight low-resource languages that no training saw: English questions to passages in them (belebele-sib), names"
        " in them and in English (atlas). Hybrid instead of monolingual batches"
        f" {shown(rows) or 'are not shown to matter'}."
    )
    real = against_pure_kinds(grid, B1, B2, PLACES)
    if real:
        rows = {}
        for task in PLACES:
            raw, after = real["1", task]
            rows |= {f"{task}, raw": raw, f"{task}, debiased": after}
        text += (
            " On real questions (the pool of xquad-r, seven African languages of afriqa) they"
            f" {shown(rows) or 'are not shown to matter'}."
        )
    yield Line(text, [both(*pair) for pair in (*pairs.values(), *real.values())])


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


def pools_against_mono(pairs: dict[tuple[str, str], list[Row]]) -> dict[str, Row]:
    """Hybrid against monolingual batches, raw and debiased, by the name of the pool."""
    return {
        f"the {words} pool of {task}": row
        for task in TASKS
        for words, row in zip(("raw", "debiased"), pairs["1", task], strict=True)
    }


def more_text(grid: GridFindings) -> Iterator[Line]:
    """Experiments B3 and F: what more training does."""
    rises = {
        words: grid.by_task((f"F does more text help, {words}", "0.5, per doubling"))
        for words in ("raw", "debiased")
    }
    leads = grid.by_task(
        ("B3 the same per doubling of records, raw", "0.5 - 1, per doubling"),
        ("B3 the same per doubling of records, debiased", "0.5 - 1, per doubling"),
    )
    laws = grid.by_task(
        *(("F does a law hold at the largest size, raw", f"{m:g}, less its law") for m in MIXES)
    )
    if not (all(rises.values()) and leads and laws):
        return
    sizes = grid.report["sizes"]
    rows = {
        f"the {words} pool of {task}": row
        for words, found in rises.items()
        for task, (row,) in found.items()
    }
    last = [row for each in laws.values() for row in each]
    below = sum(row["high"] < 0 for row in last)
    text = (
        f"More training, {sizes[0]:,} to {sizes[-1]:,} records and as many more steps: for each doubling hybrid"
        f" batches {shown(rows) or 'are not shown to change'}. The rise flattens: in {below} of {len(last)} raw"
        " pools the largest size lies below the straight line through the smaller ones (interval without 0)."
    )
    behind = []
    for task in TASKS:
        behind.append(both(rises["raw"][task][0], rises["debiased"][task][0]))
        behind.append(both(*leads[task]))
        behind += [both(row, None) for row in laws[task]]
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
    orders = {
        (task, kind): row
        for kind in ORDERS
        for task, (row,) in grid.by_task(
            (f"C4 interleaved against {kind} first, raw", f"0.5 - {kind} first")
        ).items()
    }
    if not (raw and after and rivals and orders):
        return
    half = MIXES.index(0.5)
    taught = [row for task in TASKS for row in after[task]]
    below = [row for task in TASKS for row in rivals[task]]
    parts = []
    if all(map(gains, taught)):
        parts.append("A teacher (the start itself) helps every kind of batch, once debiased.")
    parts.append(
        f"Debiased, X-X and MTT are behind hybrid batches in {sum(map(loses, below))} of {len(below)} pools."
    )
    ordered = {f"{task} (against {kind} first)": row for (task, kind), row in orders.items()}
    parts.append(
        f"Interleaved kinds of batches, against one kind first, {shown(ordered) or 'are not shown to matter'}."
    )
    behind = [both(raw[task][half], after[task][half]) for task in TASKS]
    behind += [both(None, row) for row in below]
    behind += [both(row, None) for row in orders.values()]
    more, questions = alignment(grid)
    yield Line(" ".join([*parts, more]).strip(), [*behind, *mimo(grid), *questions])


def mimo(grid: GridFindings) -> Iterator[Numbers]:
    """MIMO's loss against plain cross-lingual batches."""
    for temperature in MIMO_TEMPERATURES:
        contrast = f"MIMO at {temperature:g} - 0"
        found = grid.by_task(
            ("MIMO against mix 0, raw", contrast), ("MIMO against mix 0, debiased", contrast)
        )
        for pair in found.values():
            yield both(*pair)


def alignment(grid: GridFindings) -> tuple[str, list[Numbers]]:
    """Experiment C3: MKQA's questions, in a sentence and in numbers; empty if not judged."""
    none, *_, most = MKQA
    raws: dict[str, Row] = {}
    behind = []
    for mix in ("0", "0.5"):
        contrast = f"{mix} with {most} - {mix} with {none}"
        found = grid.by_task(
            ("C3 MKQA's questions, raw", contrast), ("C3 MKQA's questions, debiased", contrast)
        )
        for task, (raw, after) in found.items():
            raws[f"{task} at mix {mix}"] = raw
            behind.append(both(raw, after))
    outcome = shown(raws) or "is not shown to change"
    text = f"With much MKQA, the raw pool {outcome}." if raws else ""
    return text, behind


def another_start(grid: GridFindings) -> Iterator[Line]:
    """Experiment D: an encoder that cannot retrieve yet."""
    if not grid.report:
        return
    start = f"upper layers drawn anew, {grid.report['sizes'][-1]:,} records"
    pairs = against_pure_kinds(
        grid,
        *(
            f"D hybrid against pure kinds from {start}, {words}"
            for words in ("raw", "debiased")
        ),
    )
    gained = grid.by_task((f"is training worth it from {start}, debiased", "0.5 - untrained"))
    if not (pairs and gained):
        return
    rows = pools_against_mono(pairs)
    none = {(task, "pool"): row for task, (row,) in gained.items()}
    about = ", from that start"
    yield Line(
        "From a start that cannot retrieve yet (its upper layers drawn anew), all at temperature 0.05, hybrid instead"
        f" of monolingual batches {shown(rows) or 'are not shown to matter'}. Against that start without training,"
        f" both debiased, hybrid batches are {beside_zero(none)} (exploratory).",
        [both(*pair, about) for pair in pairs.values()]
        + [both(None, row, about) for row in none.values()],
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
        chosen = read_json(attempt_file(home / "E", "recipe", len(tried)))["chosen"]["training"]
        again = (
            " It is the second attempt on these collections: raw in the pool, it had failed."
        )
        return Line(
            f"Train with learning rate {chosen['rate']:g} at temperature {chosen['temperature']:g} (the defaults, for"
            f" this start), and use the vectors {last['used']}. This recipe, found on English and Portuguese"
            " questions, is accepted (experiment E): by the plan's rule it is not below the untrained encoder in any"
            f" setting, with or without debiasing.{again if len(tried) > 1 else ''}",
            behind,
        )
    return Line(
        f"No recipe is accepted (experiment E). The best of a search on English and Portuguese ({last['recipe']},"
        f" {last['used']}) is ahead in every setting there, and not in all settings of eleven languages.",
        behind,
    )


def against_start(judged: Row) -> Iterator[Numbers]:
    """What an acceptance found: the lines that failed, or all of them if none did."""
    for row in judged["rows"]:
        if not judged["accepted"] and row["passed"]:
            continue
        task, _, setting = row["measure"].partition(" ")
        variant = USES[judged["used"]].get(setting, "raw")  # XQuADRetrieval: raw
        cells = (told(row), "") if variant == "raw" else ("", told(row))
        where = SETTINGS.get(setting, "within a language")
        yield Numbers(f"recipe, {judged['used']} - {row['against']}", task, where, *cells)


def judgement(home: Path, attempt: int) -> Row | None:
    """The acceptance of the chosen point of an attempt, if it was tried."""
    path = attempt_file(home / "E", "acceptance", attempt)
    found = read_json(path) if path.exists() else None
    if not found:
        return None
    chosen = read_json(attempt_file(home / "E", "recipe", attempt))["chosen"]["name"]
    return found if found["recipe"] == chosen else None


def both(raw: Row | None, after: Row | None, about: str = "") -> Numbers:
    """A contrast raw and debiased, or one of them."""
    row = raw or after
    if "task" in row:
        place = row["task"], GRID_SETTINGS[row["setting"]]
    else:
        place = HALF, SETTINGS[row["measure"]]
    cells = (said(each) if each else "" for each in (raw, after))
    return Numbers(f"{contrast_words(row['contrast'])}{about}", *place, *cells)


def beside_zero(rows: Mapping[tuple[str, str], Row]) -> str:
    """Where intervals lie above or below 0, of rows by task and setting; in words."""
    parts = []
    for word, fits in (("ahead", gains), ("behind", loses)):
        settings: dict[str, list[str]] = {}
        for (task, setting), row in rows.items():
            if fits(row):
                settings.setdefault(task, []).append(setting)
        names = [f"{task} ({', '.join(each)})" for task, each in settings.items()]
        if names:
            parts.append(f"{word} in {enumerated(names)}")
    return ", and ".join(parts) or "neither ahead nor behind"


def shown(rows: Mapping[str, Row]) -> str:
    """Where contrasts are shown to gain or to lose, in words; empty if nowhere."""
    parts = []
    for word, fits in (("gain", gains), ("lose", loses)):
        names = [name for name, row in rows.items() if fits(row)]
        if names:
            parts.append(f"{word} in {enumerated(names)}")
    return ", and ".join(parts)
