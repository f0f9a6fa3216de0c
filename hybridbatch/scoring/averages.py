"""Macro-averages over languages: from means per language pair to the numbers of a results table.

A *cell* is a pair (query language, corpus language or ``pool``) of one setting, with its means over
queries.

- The value of a query language is the mean over its cells, one for each corpus language.
- The **macro-average** of a setting is the mean of these values over query languages. Every query
  language has the same weight, whatever its number of queries or corpus languages. So do the corpus
  languages of one query language.
- A **group** has the same average over a part of the cells. A label names both languages of a cell:
  ``low`` means that both are low-resource, and ``high-to-low`` means a high-resource query language
  and a low-resource corpus language. A cell of the pool, which mixes all corpus languages, is
  labelled by its query language alone.

The mean of a metric leaves out cells without this metric. All functions are pure.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

# the pool of all corpus languages; a group's is ``pool:GROUP``, its setting ``multilingual:GROUP``
POOL = "pool"
SETTINGS = ("monolingual", "cross-lingual", "multilingual")
SHARES = "language_distribution"  # the measures that add up to 1 over the languages of a pool
Means = Mapping[str, float]  # by metric
Cells = Mapping[tuple[str, str], Means]  # by (query language, corpus language or POOL)


def is_pool(corpus_language: str) -> bool:
    """Whether this is a pool of languages."""
    return corpus_language.partition(":")[0] == POOL


def setting_of(query_language: str, corpus_language: str) -> str:
    """The setting of a pair of languages; the pool of a group has ``multilingual:GROUP``."""
    if is_pool(corpus_language):
        return "multilingual" + corpus_language.removeprefix(POOL)
    return "monolingual" if query_language == corpus_language else "cross-lingual"


def label_of(query_language: str, corpus_language: str, group: Callable[[str], str]) -> str:
    """The group of a cell: ``low``, or ``high-to-low`` if its two languages differ in group."""
    first, second = (
        group(query_language),
        group(query_language if is_pool(corpus_language) else corpus_language),
    )
    return first if first == second else f"{first}-to-{second}"


def mean(rows: Iterable[Means]) -> dict[str, float]:
    """The mean of every metric over the rows that have it."""
    values: dict[str, list[float]] = {}
    for row in rows:
        for metric, value in row.items():
            values.setdefault(metric, []).append(value)
    return {metric: sum(each) / len(each) for metric, each in values.items()}


def by_query_language(cells: Cells) -> dict[str, dict[str, float]]:
    """For each query language the mean over its corpus languages."""
    rows: dict[str, list[Means]] = {}
    for (query_language, _), means in cells.items():
        rows.setdefault(query_language, []).append(means)
    return {query_language: mean(each) for query_language, each in rows.items()}


def macro_average(cells: Cells) -> dict[str, Any]:
    """The macro-average of every metric, and the number of query languages and cells behind it."""
    languages = by_query_language(cells)
    return {
        "query_languages": len(languages),
        "cells": len(cells),
        "metrics": mean(languages.values()),
    }


def grouped(cells: Cells, group: Callable[[str], str]) -> dict[str, dict[str, Any]]:
    """The macro-average of each group of cells, by label."""
    parts: dict[str, dict[tuple[str, str], Means]] = {}
    for pair, means in cells.items():
        parts.setdefault(label_of(*pair, group), {})[pair] = means
    return {label: macro_average(part) for label, part in sorted(parts.items())}


def summarise(cells: Cells, groups: Mapping[str, Callable[[str], str]]) -> dict[str, Any]:
    """The macro-average of every setting, its groups, and its values by query language.

    Args:
        cells: of all settings of one task.
        groups: by name, a function that gives the group of a language, such as ``{"resource_class":
            resource_class}``.
    """
    summary = {}
    for setting in dict.fromkeys([*SETTINGS, *(setting_of(*pair) for pair in cells)]):
        part = {pair: means for pair, means in cells.items() if setting_of(*pair) == setting}
        if part:
            summary[setting] = {
                **macro_average(part),
                "groups": {name: grouped(part, group) for name, group in groups.items()},
                "by_query_language": by_query_language(part),
            }
    return summary


def pair_matrix(cells: Cells) -> dict[str, Any]:
    """Means of all language pairs, as one matrix for each metric.

    Rows are query languages. An entry is None if there is no cell.
    """
    pairs = {pair: means for pair, means in cells.items() if not is_pool(pair[1])}
    rows = [*dict.fromkeys(query for query, _ in pairs)]
    columns = [*dict.fromkeys(corpus for _, corpus in pairs)]
    metrics: dict[str, None] = {}
    for means in pairs.values():
        metrics |= dict.fromkeys(means)
    matrices: dict[str, list[list[float | None]]] = {}
    for metric in metrics:
        matrices[metric] = [
            [pairs.get((row, column), {}).get(metric) for column in columns] for row in rows
        ]
    return {"query_languages": rows, "corpus_languages": columns, "metrics": matrices}


def language_matrices(
    cells: Mapping[tuple[str, str], Mapping[str, Means]],
    sizes: Mapping[str, int],
    groups: Mapping[str, Callable[[str], str]],
) -> dict[str, Any]:
    """By pool, what each language of the pool gets from each query language, and shares of groups.

    Args:
        cells: by query language and pool; values by name of the measure and language of the pool.
        sizes: number of passages of every language.
        groups: as in `summarise`.

    Returns:
        By pool, ``query_languages``, ``corpus_languages``, ``pool_share`` (share of each language
        in the passages of the pool), ``measures`` (one matrix each; rows are query languages; None
        if there is no value) and ``groups``. ``groups`` is for measures that are shares. By group
        of query languages and group of pool languages, it has the sum of the share over these pool
        languages, as a mean over these query languages. Under ``pool`` it has the share of each
        group in the passages.
    """
    by_pool: dict[str, dict[str, Mapping[str, Means]]] = {}
    for (query, pool), measures in cells.items():
        if measures:
            by_pool.setdefault(pool, {})[query] = measures
    return {pool: _pool_matrices(rows, sizes, groups) for pool, rows in by_pool.items()}


def _pool_matrices(
    rows: Mapping[str, Mapping[str, Means]],
    sizes: Mapping[str, int],
    groups: Mapping[str, Callable[[str], str]],
) -> dict[str, Any]:
    """As `language_matrices`, for one pool; `rows`: measures by query language."""
    names: dict[str, None] = {}
    codes: dict[str, None] = {}
    for measures in rows.values():
        names |= dict.fromkeys(measures)
        for values in measures.values():
            codes |= dict.fromkeys(values)
    columns = [*codes]
    passages = sum(sizes[code] for code in columns)
    share = {code: sizes[code] / passages for code in columns}
    matrices: dict[str, list[list[float | None]]] = {}
    by_group: dict[str, dict[str, Any]] = {}
    for name in names:
        by_query = [measures.get(name, {}) for measures in rows.values()]
        matrices[name] = [[values.get(code) for code in columns] for values in by_query]
        if name.startswith(SHARES):
            by_group[name] = {
                kind: _shares(rows, name, share, group) for kind, group in groups.items()
            }
    return {
        "query_languages": [*rows],
        "corpus_languages": columns,
        "pool_share": [*share.values()],
        "measures": matrices,
        "groups": by_group,
    }


def _shares(
    rows: Mapping[str, Mapping[str, Means]],
    name: str,
    share: Means,
    group: Callable[[str], str],
) -> dict[str, dict[str, float]]:
    """Sums of a share over groups of languages, by group of query languages, and for the pool."""
    parts: dict[str, list[Means]] = {}
    for query, measures in rows.items():
        if name in measures:
            parts.setdefault(group(query), []).append(_sums(measures[name], group))
    return {
        "pool": _sums(share, group),
        **{label: mean(each) for label, each in sorted(parts.items())},
    }


def _sums(values: Means, group: Callable[[str], str]) -> dict[str, float]:
    sums: dict[str, float] = {}
    for code, value in values.items():
        sums[group(code)] = sums.get(group(code), 0.0) + value
    return dict(sorted(sums.items()))
