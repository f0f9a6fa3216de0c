"""Published values beside our own: the numbers, and the differences between kinds of batches."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from hybridbatch.scoring.averages import SETTINGS

# Measure of a published table -> (setting, metric) of an evaluation.
MEASURES = {
    **{name: (name, "mAP") for name in SETTINGS},
    "rank distance": ("multilingual", "rank_distance"),
    "nDCG@10": ("monolingual", "ndcg@10"),
    "recall@100": ("monolingual", "recall@100"),
}
DIGITS = {"rank distance": 0}  # 4 for the others


def unknown_names(published: Mapping[str, Any], kinds: Iterable[str]) -> list[str]:
    """The measures and the kinds of batches of published values that this project does not have."""
    known = set(kinds)
    found = []
    for measures in published.values():
        for measure, values in measures.items():
            found += [measure] if measure not in MEASURES else []
            found += [kind for kind in values if kind not in known]
    return list(dict.fromkeys(found))


def value_rows(result: Mapping[str, Any]) -> list[dict[str, Any]]:
    """A row for each published value: task, measure, batches, published, ours, difference."""
    rows = []
    for task, measure, values in _entries(result):
        for batches, value in values.items():
            own = _mean(result, task, measure, batches)
            rows.append(
                {
                    "task": task,
                    "measure": measure,
                    "batches": batches,
                    "published": value,
                    "ours": own,
                    "difference": None if own is None else own - value,
                }
            )
    return rows


def gap_rows(result: Mapping[str, Any]) -> list[dict[str, Any]]:
    """A row for each published difference of two kinds, beside our difference and its test.

    ``low``, ``high`` (95 %) and ``p`` (Holm-corrected over all tests of the metric) are those of
    `scoring.compare`; None where it made no such comparison.
    """
    rows = []
    for task, measure, values in _entries(result):
        setting, metric = MEASURES[measure]
        for one in result["comparisons"]:
            pair = one["run_a"], one["run_b"]
            is_it = (one["task"], one["setting"], one["metric"]) == (task, setting, metric)
            if is_it and all(kind in values for kind in pair):
                rows.append(
                    {
                        "task": task,
                        "measure": measure,
                        "batches": " - ".join(pair),
                        "published": values[pair[0]] - values[pair[1]],
                        "ours": one["difference"],
                        "low": one["low"],
                        "high": one["high"],
                        "p": one["p_holm"],
                    }
                )
    return rows


def metrics_of(published: Mapping[str, Any]) -> list[str]:
    """The metrics of the measures, besides mAP and the rank distance."""
    found = [MEASURES[measure][1] for measures in published.values() for measure in measures]
    return [one for one in dict.fromkeys(found) if one not in ("mAP", "rank_distance")]


def has_measure(published: Mapping[str, Any], task: str, setting: str, metric: str) -> bool:
    """Whether a comparison is wanted: by mAP and rank distance always, else if it is published."""
    if metric in ("mAP", "rank_distance"):
        return True
    return any(MEASURES[one] == (setting, metric) for one in published.get(task, {}))


def shown(rows: Iterable[Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
    """The rows with their numbers as text."""
    for row in rows:
        digits = DIGITS.get(row["measure"], 4)
        line = dict(row)
        for name, value in row.items():
            if name in ("task", "measure", "batches"):
                continue
            places = 4 if name == "p" else digits
            line[name] = "–" if value is None else f"{value:.{places}f}"
        yield line


def _entries(result: Mapping[str, Any]) -> Iterator[tuple[str, str, Mapping[str, float]]]:
    """(task, measure, values by batches) of the published tasks that were scored."""
    scored = {task["name"] for task in result["arms"][0]["tasks"]}
    for task, measures in result["config"].get("published", {}).items():
        if task in scored:
            for measure, values in measures.items():
                yield task, measure, values


def _mean(result: Mapping[str, Any], task: str, measure: str, batches: str) -> float | None:
    """Our value: the mean over the seeds of an arm."""
    setting, metric = MEASURES[measure]
    found = []
    for arm in result["arms"]:
        if arm["batches"] == batches:
            (own,) = [each for each in arm["tasks"] if each["name"] == task]
            value = own["settings"].get(setting, {}).get("metrics", {}).get(metric)
            found += [] if value is None else [value]
    return sum(found) / len(found) if found else None
