"""Compare every hybrid with every rival: differences with intervals, tests and verdicts.

One t test of a difference covers other seeds and other questions at once
(`significance.crossed_t`). Each test has its own degrees of freedom. Holm's correction runs inside
a family, and a family is one question: do hybrid batches beat this rival on this task? A difference
that is not significant is equivalent to none within a margin, or undecided. An undecided row has
the difference that the test would find with a chance of 80 %. A second test takes the query
languages as its units, and so covers other languages than the evaluated ones.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from hybridbatch.scaling.analysis import Measure, Responses, Sweep
from hybridbatch.scoring import significance
from hybridbatch.scoring.significance import Contrast

Row = dict[str, Any]
LEVEL = 0.95
ALPHA = 0.05
# axes on which a baseline may differ from the hybrid it is compared with
BASELINES = ("strategy", "copies", "teacher")
OF_MIMO = ("distill_from", "distill_weight", "temperature")  # axes on which MIMO may differ
TESTED = ("mAP", "rank_distance")  # metrics of the main questions
MARGIN = 0.01  # of mAP: a smaller difference counts as none; a sweep may set another margin
RANK_MARGIN = 0.10  # of the rival's rank distance
VERDICTS = {"equivalent": "equivalent within the margin", "undecided": "undecided"}

# a mix by number, its rival in words, the rival's values [N, S, Q] and keys [N, S]
Rival = tuple[int, float | str | None, np.ndarray, np.ndarray]


def contrast(differences: np.ndarray) -> Contrast | None:
    """`significance.crossed_t` of [S, Q]; None if there is a single value."""
    return significance.crossed_t(differences, level=LEVEL) if differences.size > 1 else None


def place(part: Responses) -> Row:
    """The measure of a part of the grid and the axes that are fixed in it."""
    measure = part.measure
    return {
        "task": measure.task,
        "setting": measure.setting,
        "metric": measure.metric,
        "group": measure.group,
    } | dict(part.fixed)


def is_inner(mix: float | None) -> bool:
    """Whether a mix is hybrid: it exists, and is neither of the pure strategies."""
    return mix is not None and 0 < mix < 1


def against_pure(part: Responses) -> Iterator[Row]:
    """Every inner mix against both pure strategies, at every size."""
    rivals: list[Rival] = []
    for number, mix in enumerate(part.mixes):
        for other, against in enumerate(part.mixes):
            if is_inner(mix) and against in (0, 1):
                rivals.append((number, against, part.values[other], part.keys[other]))
    yield from _differences(part, rivals)


def against_baselines(part: Responses, parts: Sequence[Responses]) -> Iterator[Row]:
    """Every inner mix against the baselines, at the sizes and seeds that both have.

    Baselines are the strategies that have no mix, and the same mix with a teacher or with one kind
    of batches after the other.
    """
    plain = part.fixed.get("strategy", "hybrid") == "hybrid" and not part.fixed.get("teacher")
    if part.mixes == (None,) or not plain:
        return
    for rival in parts:
        name = _baseline_name(part, rival)
        sizes = [size for size in part.sizes if size in rival.sizes]
        seeds = [seed for seed in part.seeds if seed in rival.seeds]
        if not name or not sizes or not seeds:
            continue
        ours, theirs = _at(part, sizes, seeds), _at(rival, sizes, seeds)
        rivals: list[Rival] = []
        for number, mix in enumerate(part.mixes):
            for other, its in enumerate(rival.mixes):
                if is_inner(mix) and (its in (None, mix) or _is_mimo(rival)):
                    rivals.append((number, name, theirs.values[other], theirs.keys[other]))
        yield from _differences(ours, rivals)


def _is_mimo(part: Responses) -> bool:
    """Whether a part distils cosines, as MIMO does (`training.distillation.cosine_loss`)."""
    return bool(part.fixed.get("teacher")) and part.fixed.get("distill_from") == "cosines"


def _baseline_name(part: Responses, rival: Responses) -> str:
    """How a rival differs from a part, in words; empty if the rival is no baseline of the part."""
    words = []
    if _is_mimo(rival):
        others = {name for name, value in rival.fixed.items() if value != part.fixed.get(name)}
        temperature = rival.fixed.get("temperature")
        at = f" at temperature {temperature}" if "temperature" in others else ""
        return "" if others - {*BASELINES, *OF_MIMO} else f"MIMO{at}"
    for name, value in rival.fixed.items():
        if value == part.fixed.get(name):
            continue
        if name not in BASELINES:
            return ""
        words.append(f"{value} batches" if name == "strategy" else f"{name} {value}")
    return ", ".join(words)


def _at(part: Responses, sizes: Sequence[float], seeds: Sequence[int]) -> Responses:
    """The responses at some sizes and seeds."""
    chosen = np.ix_(
        [part.sizes.index(size) for size in sizes], [part.seeds.index(seed) for seed in seeds]
    )
    values = np.stack([each[chosen] for each in part.values])
    keys = np.stack([each[chosen] for each in part.keys])
    return replace(part, sizes=tuple(sizes), seeds=tuple(seeds), values=values, keys=keys)


def _differences(part: Responses, rivals: Iterable[Rival]) -> Iterator[Row]:
    """A row for each rival and size. Without values per question, there is no test."""
    tested = part.values.shape[-1] > 1
    for number, against, values, keys in rivals:
        for n, size in enumerate(part.sizes):
            differences = part.values[number, n] - values[n]
            mean = float(differences.mean())
            found = contrast(differences)
            yield {
                **place(part),
                "mix": part.mixes[number],
                "against": against,
                "pairs": size,
                "mean": float(part.values[number, n].mean()),
                "mean_against": float(values[n].mean()),
                "difference": mean,
                "low": found.low if found else mean,
                "high": found.high if found else mean,
                "p": found.p if found and tested else None,
                "seeds": len(part.seeds),
                "degrees": found.degrees if found else None,
                "detectable": found.detectable if found else None,
                "ahead": (mean < 0) == part.measure.lower_is_better and mean != 0,
                "keys": [*part.keys[number, n].tolist(), *keys[n].tolist()],
                "contrast": found,
            }


def judged(rows: list[Row], axes: Sequence[str], margin: float) -> list[Row]:
    """The rows with corrected p values and verdicts for the main questions.

    The main questions are mAP and rank distance of all query languages, in every part of the grid
    at its largest size that has both pure strategies. The other tests are exploratory: they keep
    their raw p value and get no verdict.

    Args:
        rows: rows of `against_pure` and `against_baselines`.
        axes: the axes that name a part of the grid.
        margin: of mAP; a smaller difference counts as none.
    """
    largest = _largest_sizes(rows, axes)
    main = []
    for row in rows:
        where = tuple(row.get(name) for name in axes)
        if row["p"] is None or row["group"] != "all" or row["metric"] not in TESTED:
            continue
        if row["pairs"] == largest[where]:
            row["family"] = f"hybrid against {row['against']} on {row['task']}"
            main.append(row)
    corrected(main)
    for row in main:
        row["margin"] = margin
        if row["metric"] == "rank_distance":
            row["margin"] = RANK_MARGIN * row["mean_against"]
        row["verdict"] = _verdict(row)
    for row in rows:
        del row["contrast"]
    return rows


def _verdict(row: Row) -> str:
    if not row["margin"] > 0:  # a rival whose rank distance is 0
        return VERDICTS["undecided"]
    row["p_equivalence"] = significance.equivalence_p(row["contrast"], row["margin"])
    decision = significance.decide(row["contrast"], row["p_holm"], row["margin"], alpha=ALPHA)
    if decision == "difference":
        return "better" if row["ahead"] else "worse"
    return VERDICTS[decision]


def _largest_sizes(rows: Iterable[Row], axes: Sequence[str]) -> dict[tuple[Any, ...], int]:
    """The largest size of every part of the grid, of those with the most pure strategies."""
    against: dict[tuple[Any, ...], dict[int, set[Any]]] = {}
    for row in rows:
        where = tuple(row.get(name) for name in axes)
        against.setdefault(where, {}).setdefault(row["pairs"], set()).add(row["against"])

    largest = {}
    for where, found in against.items():
        largest[where] = max((len({0, 1} & rivals), pairs) for pairs, rivals in found.items())[
            1
        ]
    return largest


def corrected(rows: Iterable[Row]) -> None:
    """Give every row its p value after Holm's correction inside its family, and the family's size.

    Args:
        rows: rows with ``family`` and ``p``.
    """
    families: dict[str, list[Row]] = {}
    for row in rows:
        families.setdefault(row["family"], []).append(row)
    for members in families.values():
        after = significance.holm(np.array([row["p"] for row in members]))
        for row, p in zip(members, after, strict=True):
            row["p_holm"] = float(p)
            row["family_size"] = len(members)


def settle(rows: list[Row], family: Callable[[Row], str]) -> list[Row]:
    """Correct the tests inside their families and mark the settled ones.

    This covers the tests of mAP and rank distance over all query languages. A test is settled if
    its corrected p value is below 0.05 and its interval does not contain 0.
    """
    main = []
    for row in rows:
        whole = row.get("group", "all") == "all"
        if whole and row.get("p") is not None and row["metric"] in TESTED:
            row["family"] = family(row)
            main.append(row)
    corrected(main)
    for row in main:
        row["settled"] = bool(row["p_holm"] < ALPHA and not row["low"] <= 0 <= row["high"])
    return rows


def over_languages(sweep: Sweep, rows: Iterable[Row]) -> None:
    """Give the judged rows an interval and a p value with query languages as the units.

    This interval and this p value (t, languages - 1 degrees of freedom) are about other languages
    like the evaluated ones. The interval and the p value over seeds and questions are about the
    evaluated languages alone. The p value over languages is not corrected and decides no verdict.
    """
    for row in rows:
        if "verdict" not in row:
            continue
        measure = Measure(row["task"], row["setting"], row["metric"])
        keys = row["keys"]
        half = len(keys) // 2
        _, means = sweep.by_language(keys, measure.task, measure.setting, measure.metric)
        differences = means[:half].mean(axis=0) - means[half:].mean(axis=0)
        row["languages"] = len(differences)
        if len(differences) < 2:
            continue
        found = significance.crossed_t(differences[:, None], level=LEVEL)
        row["languages_low"], row["languages_high"] = found.low, found.high
        row["languages_p"] = found.p
