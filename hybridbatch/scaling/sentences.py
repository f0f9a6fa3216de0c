"""What the findings say, in sentences; nothing here is written by hand for a particular result."""

from collections.abc import Iterator, Mapping, Sequence
from statistics import median
from typing import Any

from hybridbatch.averages import SETTINGS
from hybridbatch.scaling.analysis import Sweep
from hybridbatch.scaling.findings import Findings

Row = Mapping[str, Any]
SLICE_AXES = ("model", "train_languages", "batch_size", "steps", "epochs")
STRATEGIES = {0.0: "cross-lingual batches", 1.0: "monolingual batches"}


def sentences(sweep: Sweep, findings: Findings) -> list[str]:
    """The answer in sentences: comparisons at the largest size, best mix, break-even, laws, then caveats."""
    about = [f"{task['name']}: {task['about']}" for task in sweep.cells[0]["eval"]["tasks"] if task["about"]]
    return [
        *_comparisons(findings),
        *_optima(findings),
        *_break_evens(findings),
        *_laws(findings),
        *_missing(findings),
        *about,
    ]


def _headline(rows: Sequence[Row], metrics: tuple[str, ...] = ("mAP", "rank_distance")) -> Iterator[Row]:
    """Rows of all query languages and the metrics people know, in the order of settings."""
    for setting in SETTINGS:
        yield from (r for r in rows if r["group"] == "all" and r["setting"] == setting and r["metric"] in metrics)


def _comparisons(findings: Findings) -> Iterator[str]:
    rows = list(_headline(findings.comparisons))
    if not rows:
        yield "Hybrid batches were not compared with pure ones: the sweep has no mix between 0 and 1, or neither 0 nor 1."
        return
    largest = max(row["pairs"] for row in rows)
    half = _nearest_half(rows)
    yield from (_comparison(row) for row in rows if row["pairs"] == largest and row["mix"] == half)


def _nearest_half(rows: Sequence[Row]) -> float:
    return min((abs(row["mix"] - 0.5), row["mix"]) for row in rows)[1]


def _comparison(row: Row) -> str:
    unit, scale = ("ranks", 1) if row["metric"] == "rank_distance" else ("points", 100)
    what = "rank distance" if row["metric"] == "rank_distance" else row["metric"]
    values = f"{row['mean'] * scale:.1f} against {row['mean_against'] * scale:.1f}"
    change = f"{row['difference'] * scale:+.1f} {unit}, 95 % interval {row['low'] * scale:+.1f} to {row['high'] * scale:+.1f}"
    tested = f"; p = {row['p_holm']:.2g} after Holm's correction" if row.get("p_holm") is not None else "; not tested"
    verdict = row.get("verdict", "no verdict")
    return (
        f"{_where(row)}Hybrid batches (mix {row['mix']:g}) against {STRATEGIES[row['against']]}, {row['setting']} {what} with "
        f"{row['pairs']:,} training records: {verdict} ({values}: {change}{tested})."
    )


def _optima(findings: Findings) -> Iterator[str]:
    for row in _headline(findings.optima, ("mAP",)):
        if row["pairs"] == "all" or len({r["pairs"] for r in findings.optima}) == 1:
            settled = "" if row["gain_low"] > 0 else ", which is not settled"
            yield (
                f"{_where(row)}The best mix for {row['setting']} mAP is {row['best_mix']:.2f} "
                f"({row['low']:.2f} to {row['high']:.2f}); the best measured hybrid gains {100 * row['gain_over_pure']:+.1f} "
                f"points ({100 * row['gain_low']:+.1f} to {100 * row['gain_high']:+.1f}) over the better pure strategy{settled}."
            )


def _break_evens(findings: Findings) -> Iterator[str]:
    rows = list(_headline(findings.break_evens, ("mAP",)))
    for row in rows:
        if row["mix"] != _nearest_half(rows):
            continue
        subject = f"{_where(row)}Mix {row['mix']:g} against {STRATEGIES[row['against']]}, {row['setting']} mAP: "
        chance = f"{100 * row['chance_ahead_at_largest']:.0f} % of resamples end ahead"
        if row["always_ahead"]:
            yield f"{subject}ahead at every measured size ({chance})."
        elif row["pairs"] is None:
            yield f"{subject}not ahead at the largest measured size ({chance})."
        else:
            yield f"{subject}ahead from about {row['pairs']:,.0f} training records on ({chance})."


def _laws(findings: Findings) -> Iterator[str]:
    refusals = {row["refused"]: row for row in findings.laws if "refused" in row}
    yield from (f"Over {row['over']}: {refusal}." for refusal, row in refusals.items())
    fitted: dict[tuple[str, str], list[float]] = {}
    for row in findings.laws:
        if "refused" not in row and row["group"] == "all":
            fitted.setdefault((row["of"], row["over"]), []).append(row["extrapolation_error"])
    for (of, over), errors in fitted.items():
        yield (
            f"Power laws of {of} over {over}: {len(errors)} fits; they predict the left-out largest size with an error of "
            f"{100 * median(errors):.1f} % (median; worst {100 * max(errors):.1f} %)."
        )


def _missing(findings: Findings) -> Iterator[str]:
    if findings.missing:
        failed = sum(row["state"] == "failed" for row in findings.missing)
        yield f"Missing: {len(findings.missing)} cells, {failed} of them set aside after failing; see the table."


def _where(row: Row) -> str:
    """The part of the grid, where axes beside mix, pairs and seed vary."""
    fixed = [f"{name} {row[name]}" for name in SLICE_AXES if name in row]
    return f"{', '.join(fixed)}: " if fixed else ""
