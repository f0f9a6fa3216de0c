"""The sentences of a report. Code builds all of them from the findings of a sweep."""

from collections.abc import Iterator, Mapping, Sequence
from statistics import median
from typing import Any

from hybridbatch.scaling.analysis import Sweep
from hybridbatch.scaling.cells.grid import in_words
from hybridbatch.scaling.contrasts import TESTED, VERDICTS
from hybridbatch.scaling.findings import BEST_MIX, Findings
from hybridbatch.scaling.forecast import misses
from hybridbatch.scaling.predict import compared
from hybridbatch.scaling.report.tables import TableRow
from hybridbatch.scoring.averages import SETTINGS

# pure strategies by mix; the findings name baselines in words already
STRATEGIES = {0.0: "cross-lingual batches", 1.0: "monolingual batches"}
SCALE_UNITS = {
    "pairs": "training records",
    "train_languages": "training languages",
    "batch_size": "the batch size",
}


def sentences(sweep: Sweep, findings: Findings) -> list[str]:
    """All sentences of `sections`."""
    return [sentence for found in sections(sweep, findings).values() for sentence in found]


def sections(sweep: Sweep, findings: Findings) -> dict[str, list[str]]:
    """The sentences by question. Questions without a sentence are left out.

    If a grid has further axes, the sentences describe the part with the most cells, and count the
    verdicts of the other parts.
    """
    found = {
        "Do hybrid batches beat pure ones?": _comparisons(findings),
        "Does debiasing close the gap?": _gaps(findings),
        "What is there without training?": _lines(findings),
        "Which mix is best?": _optima(findings),
        "How much data does it need?": _break_evens(findings),
        "Does the answer move with scale?": _interactions(findings),
        "What laws does scale follow?": _laws(findings),
        "Which languages gain?": _traits(findings),
        "How well was it forecast?": _forecasts(sweep),
        "What to keep in mind": _caveats(sweep, findings),
    }
    return {question: told for question, each in found.items() if (told := list(each))}


def _caveats(sweep: Sweep, findings: Findings) -> Iterator[str]:
    if findings.axes:
        yield (
            "Unless a sentence says otherwise, it describes the part of the grid with the most"
            f" cells: {_words(findings.centre)}."
        )
    if max((row["seeds"] for row in findings.means), default=0) == 1:
        yield (
            "Every cell was run with one seed. The tests cover other questions, but they do not"
            " cover other seeds."
        )
    yield from _missing(findings)
    yield from (f"{task['name']}: {task['about']}" for task in sweep.tasks if task["about"])


def _words(place: Mapping[str, Any]) -> str:
    return in_words({name.replace("_", " "): value for name, value in place.items()})


def _headline(
    findings: Findings, rows: Sequence[TableRow], metrics: tuple[str, ...] = TESTED
) -> Iterator[TableRow]:
    """The rows of the centre over all query languages in some metrics, ordered by setting."""
    for setting in SETTINGS:
        for row in rows:
            if row["group"] == "all" and row["setting"] == setting and row["metric"] in metrics:
                place = findings.place(row)
                if place == {name: findings.centre[name] for name in place}:
                    yield row


def main_comparisons(findings: Findings) -> list[TableRow]:
    """The comparisons that answer the main question, ordered by rival.

    They are about the mix nearest to one half, in the part of the grid with the most cells, at the
    largest size.
    """
    rows = list(_headline(findings, findings.comparisons))
    if not rows:
        return []
    half = _nearest_half(rows)
    near = [row for row in rows if row["mix"] == half]
    tested = [row for row in near if "verdict" in row]
    largest = max(row["pairs"] for row in near)
    chosen = tested or [row for row in near if row["pairs"] == largest]
    rivals = list(dict.fromkeys(row["against"] for row in chosen))
    return sorted(chosen, key=lambda row: rivals.index(row["against"]))


def _comparisons(findings: Findings) -> Iterator[str]:
    rows = main_comparisons(findings)
    if not rows:
        yield (
            "The report does not compare hybrid batches with pure ones: the sweep has no mix"
            " between 0 and 1, or it has neither mix 0 nor mix 1."
        )
        return
    main = [row for row in rows if "verdict" in row]
    told = {id(row) for row in main}
    others = [row for row in findings.comparisons if "verdict" in row and id(row) not in told]
    half, largest = rows[0]["mix"], max(row["pairs"] for row in rows)
    yield from _counted(f"At mix {half:g} with {largest:,} training records", main)
    yield from _counted("At all other inner mixes and in all other parts of the grid", others)
    yield from map(_comparison, rows)


def _counted(where: str, rows: Sequence[TableRow]) -> Iterator[str]:
    """Count the verdicts against each rival."""
    for against in dict.fromkeys(row["against"] for row in rows):
        part = [row["verdict"] for row in rows if row["against"] == against]
        yield (
            f"{where}, hybrid batches are better than {rival(against)} in {part.count('better')} of"
            f" {len(part)} tests, worse in {part.count('worse')}, equivalent within the margin in"
            f" {part.count(VERDICTS['equivalent'])}, and undecided in"
            f" {part.count(VERDICTS['undecided'])}."
        )


def _nearest_half(rows: Sequence[TableRow]) -> float:
    return min((abs(row["mix"] - 0.5), row["mix"]) for row in rows)[1]


def smallest_seen(row: TableRow) -> float | None:
    """The difference that a test at 5 % would find with a chance of 80 %, in units of the metric.

    If the findings do not have it, it is (1.96 + 0.84) / 1.96 of half the 95 % interval.
    """
    if row.get("detectable") is not None:
        return float(row["detectable"])
    if row.get("low") is None or row.get("high") is None:
        return None
    return 1.43 * (row["high"] - row["low"]) / 2


def _comparison(row: TableRow) -> str:
    distance = row["metric"] == "rank_distance"
    unit, scale = ("ranks", 1) if distance else ("points", 100)
    what = "rank distance" if distance else row["metric"]
    hybrid, other = f"hybrid batches (mix {row['mix']:g})", rival(row["against"])
    tested = "not tested"
    if row.get("p_holm") is not None:
        tested = (
            f"p = {row['p_holm']:.2g} (t test, df = {row['degrees']:.3g}; Holm's correction over"
            f" {row['family_size']} tests)"
        )
    verdicts = {
        "better": f"{hybrid} are better than {other}",
        "worse": f"{hybrid} are worse than {other}",
        VERDICTS["equivalent"]: f"{hybrid} are equivalent to {other} within the margin",
        VERDICTS["undecided"]: f"the comparison of {hybrid} with {other} is undecided",
    }
    told = verdicts.get(row.get("verdict", ""), f"{hybrid} and {other} have no verdict")
    return (
        f"With {row['pairs']:,} training records, {told} in {row['setting']} {what} on"
        f" {row['task']} ({row['mean'] * scale:.1f} against {row['mean_against'] * scale:.1f}, a"
        f" difference of {row['difference'] * scale:+.1f} {unit}, 95 % interval"
        f" {row['low'] * scale:+.1f} to {row['high'] * scale:+.1f}; {tested})."
        f"{_if_no_difference(row, unit, scale)}{_other_languages(row, unit, scale)}"
    )


def _if_no_difference(row: TableRow, unit: str, scale: float) -> str:
    """A further sentence about a difference that is not significant; else nothing."""
    verdict = row.get("verdict")
    if verdict == VERDICTS["equivalent"]:
        return (
            f" The difference is smaller than {row['margin'] * scale:.1f} {unit} (p ="
            f" {row['p_equivalence']:.2g}, two one-sided tests)."
        )
    if verdict == VERDICTS["undecided"]:
        return (
            f" A difference of {row['detectable'] * scale:.1f} {unit} would have been found with a"
            " chance of 80 %."
        )
    return ""


def _other_languages(row: TableRow, unit: str, scale: float) -> str:
    if row.get("languages_low") is None:
        return ""
    return (
        f" With the {row['languages']} query languages as the units, which covers other languages"
        f" like these, the 95 % interval is {row['languages_low'] * scale:+.1f} to"
        f" {row['languages_high'] * scale:+.1f} {unit}."
    )


def _gaps(findings: Findings) -> Iterator[str]:
    for row in _headline(findings, findings.gaps):
        if "verdict" not in row:
            continue
        unit, scale = ("ranks", 1) if row["metric"] == "rank_distance" else ("points", 100)
        what = "rank distance" if row["metric"] == "rank_distance" else row["metric"]
        share = f", {100 * row['share']:.0f} % of it," if row["share"] is not None else ""
        told = {
            "closes": "Debiasing closes",
            "widens": "Debiasing widens",
            VERDICTS["equivalent"]: "Debiasing does not change, within the margin,",
        }.get(row["verdict"], "It is undecided whether debiasing changes")
        yield (
            f"{told} the gap between cross-lingual and monolingual batches in {row['setting']}"
            f" {what} on {row['task']} with {row['pairs']:,} training records:"
            f" {row['gap_raw'] * scale:+.1f} {unit} raw, {row['gap_debiased'] * scale:+.1f}"
            f" debiased, a change{share} of {row['closed'] * scale:+.1f} (95 % interval"
            f" {row['low'] * scale:+.1f} to {row['high'] * scale:+.1f}; p = {row['p_holm']:.2g}"
            f" after Holm's correction; a change of {row['detectable'] * scale:.1f} would have been"
            " found with a chance of 80 %)."
        )


def _lines(findings: Findings) -> Iterator[str]:
    """Scores without training, a sentence for each task and setting, of mAP."""
    told: dict[tuple[str, str], list[str]] = {}
    for row in findings.lines:
        if row["metric"] != "mAP":
            continue
        named = row["line"] == row["model"]
        name = row["line"] if named else f"{row['model']} {row['line']}"
        gain = f" (the trained hybrid gains {100 * row['gain']:+.1f})" if "gain" in row else ""
        parts = told.setdefault((row["task"], row["setting"]), [])
        parts.append(f"{name} {100 * row['mean']:.1f}{gain}")
    for (task, setting), parts in told.items():
        yield f"Without training, {setting} mAP on {task} is: {'; '.join(parts)}."


def _optima(findings: Findings) -> Iterator[str]:
    rows = list(_headline(findings, findings.optima, ("mAP",)))
    for row in rows:
        if row["pairs"] == "all" or len({r["pairs"] for r in rows}) == 1:
            settled = "" if row["gain_low"] > 0 else ". The gain is not settled"
            yield (
                f"The best mix for {row['setting']} mAP on {row['task']} is {row['best_mix']:.2f}"
                f" (95 % interval {row['low']:.2f} to {row['high']:.2f}). The best measured hybrid"
                f" gains {100 * row['gain_over_pure']:+.1f} points over the better pure strategy"
                f" (95 % interval {100 * row['gain_low']:+.1f} to"
                f" {100 * row['gain_high']:+.1f}){settled}."
            )


def _break_evens(findings: Findings) -> Iterator[str]:
    rows = list(_headline(findings, findings.break_evens, ("mAP",)))
    for row in rows:
        if row["mix"] != _nearest_half(rows):
            continue
        if row["always_ahead"]:
            where = "at every measured size"
        elif row["pairs"] is None:
            where = ""
        else:
            where = f"from about {row['pairs']:,.0f} training records on"
        is_ahead = "is ahead of" if where else "is not ahead of"
        yield (
            f"Mix {row['mix']:g} {is_ahead} {rival(row['against'])} in {row['setting']} mAP on"
            f" {row['task']} {where or 'at the largest measured size'}. It is ahead at the largest"
            f" size in {100 * row['chance_ahead_at_largest']:.0f} % of the bootstrap resamples."
        )


def _interactions(findings: Findings) -> Iterator[str]:
    """Does the best mix, or the gain over the pure strategies, move with scale?"""
    rows = list(_headline(findings, findings.interactions, ("mAP",)))
    for row in rows:
        if row["of"] != BEST_MIX:
            continue
        how = "moves" if row.get("settled") else "does not move significantly"
        tested = f"; p = {row['p_holm']:.2g} after Holm's correction" if "p_holm" in row else ""
        yield (
            f"The best mix for {row['setting']} mAP on {row['task']} {how} with"
            f" {_unit(row['over'])}. The change is {row['per_doubling']:+.3f} per doubling (95 %"
            f" interval {row['low']:+.3f} to {row['high']:+.3f}{tested})."
        )
    differences = [row for row in rows if row["of"] != BEST_MIX and "settled" in row]
    for over in dict.fromkeys(row["over"] for row in differences):
        part = [row for row in differences if row["over"] == over]
        moved = [row for row in part if row["settled"]]
        half = _nearest_half(part)
        told = "; ".join(
            f"{row['setting']} on {row['task']} over {rival(row['against'])}"
            f" {100 * row['per_doubling']:+.2f} points"
            for row in moved
            if row["mix"] == half
        )
        yield (
            f"The gain of hybrid batches in mAP changes significantly with {_unit(over)} in"
            f" {len(moved)} of {len(part)}"
            f" tests{f' (mix {half:g}, change per doubling: {told})' if told else ''}."
        )


def _unit(axis: str) -> str:
    return SCALE_UNITS.get(axis, axis)


def _traits(findings: Findings) -> Iterator[str]:
    refusals = {row["refused"] for row in findings.traits if "refused" in row}
    yield from (
        f"The report does not say which languages gain: {refusal}."
        for refusal in sorted(refusals)
    )
    tested = [row for row in findings.traits if "settled" in row]
    for row in tested:
        if row["settled"]:
            yield (
                f"The gain of mix {row['mix']:g} over {rival(row['against'])} in {row['setting']}"
                f" mAP on {row['task']} depends on the {row['trait'].replace('_', ' ')} of the"
                f" query language: it changes by {row['slope']:+.2f} points per unit (95 % interval"
                f" {row['low']:+.2f} to {row['high']:+.2f}; p = {row['p_holm']:.2g} after Holm's"
                f" correction). The regression over {row['languages']} languages includes the other"
                " traits."
            )
    if tested and not any(row["settled"] for row in tested):
        yield (
            f"None of {len(tested)} tests finds, after Holm's correction, that the gain depends on"
            f" a trait of the {max(row['languages'] for row in tested)} query languages (resource"
            " class, pretraining, script, family, lexical distance)."
        )


def _forecasts(sweep: Sweep) -> Iterator[str]:
    """The miss of the forecasts that were made before training."""
    found = [pair for folder in sweep.folders for pair in compared(folder)]
    for row in misses(found):
        what = (
            "all tasks and settings"
            if row["task"] == "all"
            else f"{row['setting']} {row['task']}"
        )
        yield (
            f"Before training, {row['scores']:,} scores of {row['languages']} languages in"
            f" {row['cells']:,} cells were forecast for {what}. The mean miss is"
            f" {100 * row['miss']:.1f} points of mAP, and {100 * row['inside']:.0f} % of the scores"
            f" lie inside their 95 % interval (half as wide as {100 * row['half_width']:.1f} points"
            f" on average). The score of the untrained model misses by"
            f" {100 * row['miss_untrained']:.1f} points."
        )


def _laws(findings: Findings) -> Iterator[str]:
    refusals = {row["refused"]: row for row in findings.laws if "refused" in row}
    yield from (f"Over {row['over']}: {refusal}." for refusal, row in refusals.items())
    fitted: dict[tuple[str, str], list[float]] = {}
    for row in findings.laws:
        if "refused" not in row and row["group"] == "all":
            fitted.setdefault((row["of"], row["over"]), []).append(row["extrapolation_error"])
    for (of, over), errors in fitted.items():
        yield (
            f"Power laws of {of} over {over}, fitted without the largest size, predict it with a"
            f" median error of {100 * median(errors):.1f} % (at worst {100 * max(errors):.1f} %,"
            f" among {len(errors)} fits)."
        )


def _missing(findings: Findings) -> Iterator[str]:
    if findings.missing:
        failed = sum(row["state"] == "failed" for row in findings.missing)
        yield (
            f"The number of cells without a result is {len(findings.missing)}; the sweep set"
            f" {failed} of them aside after failures. The table of missing cells names them."
        )


def rival(against: Any) -> str:
    """The rival of a comparison in words: a pure strategy or a baseline."""
    return STRATEGIES.get(against, str(against))
