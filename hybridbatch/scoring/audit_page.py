"""Writes the page of an audit: one HTML file, without scripts, that needs no network."""

import html
from collections.abc import Mapping, Sequence
from typing import Any

STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
.answer { font-size: 1.25rem; border-left: .3rem solid #36c; padding-left: 1rem; }
table { border-collapse: collapse; width: 100%; margin: 1rem 0; }
th, td { padding: .25rem .6rem; text-align: right; border-bottom: 1px solid #8884; }
th:first-child, td:first-child { text-align: left; }
small { opacity: .7; white-space: nowrap; }
.hidden { color: #b00; font-weight: 600; }
.bar { display: inline-block; height: .7rem; background: #36c8; vertical-align: middle; }
@media (prefers-color-scheme: dark) { body { background: #111; color: #ddd; } .hidden { color: #f77; } }
"""


def page(result: Mapping[str, Any], measures: Mapping[str, str]) -> str:
    """Write the whole page from the content of ``audit.json``.

    Args:
        measures: the measures of the first table, in order, with their names for people.
    """
    model, task = result["model"]["name"], result["task"]
    title = f"Language audit of {model} on {task['name']}"
    parts = [
        f"<h1>{html.escape(title)}</h1>",
        f'<p class="answer">{html.escape(result["answer"])}</p>',
        f"<p>{html.escape(task['about'])}</p>",
        "<h2>The pool of all languages</h2>",
        _lines(result, measures),
        "<p>TLR: share of the relevant passages in other languages than the query's among the first"
        " 20. PEER: whether languages are ranked alike (1: alike). LPR: share of queries whose first"
        " relevant passage is in their own language. MRC: how alike the rankings of one question in"
        " different languages are. Below the means: 95 % intervals over questions.</p>",
        "<h2>Which languages are hidden</h2>",
        _languages(result),
        "<p>TLR@20 of the passages of a language, by queries in the others, and how far it lies"
        " behind the mean of the other languages. Hidden (red): the interval of the gap is below"
        " zero by more than 0.02.</p>",
    ]
    head = f"<title>{html.escape(title)}</title><style>{STYLE}</style>"
    meta = '<meta charset="utf-8"><meta name="viewport" content="width=device-width">'
    body = "\n".join(parts)
    return f"<!doctype html>\n<html lang=en>{meta}{head}\n<body>\n{body}\n</body></html>\n"


def _lines(result: Mapping[str, Any], measures: Mapping[str, str]) -> str:
    rows = []
    for name, shown in measures.items():
        cells = [_cell(one.get(name)) for one in result["lines"].values()]
        rows.append([html.escape(shown), *cells])
    return _table(["measure", *result["lines"]], rows)


def _languages(result: Mapping[str, Any]) -> str:
    labels = list(result["lines"])
    first = labels[0]
    ordered = sorted(
        result["by_language"],
        key=lambda row: row.get(first, {}).get("gap", {}).get("mean", 0.0),
    )
    rows = []
    for row in ordered:
        cells = [html.escape(f"{row['name']} ({row['language']})")]
        for label in labels:
            one = row.get(label)
            if one is None:
                cells += ["", ""]
                continue
            gap = _cell(one.get("gap"), signed=True)
            cells += [
                _bar(one["tlr@20"]["mean"]),
                f'<span class="hidden">{gap}</span>' if one.get("hidden") else gap,
            ]
        rows.append(cells)
    heads = ["language"]
    for label in labels:
        heads += [f"{label}: TLR@20", "gap"]
    return _table(heads, rows)


def _bar(value: float) -> str:
    return f'{value:.3f} <span class="bar" style="width:{4 * value:.2f}rem"></span>'


def _cell(values: Mapping[str, float] | None, signed: bool = False) -> str:
    if values is None:
        return "–"
    digits = 3 if abs(values["mean"]) < 10 else 0
    sign = "+" if signed else ""
    mean = f"{values['mean']:{sign}.{digits}f}"
    if "low" not in values:
        return mean
    return f"{mean}<br><small>{values['low']:{sign}.{digits}f} to {values['high']:{sign}.{digits}f}</small>"


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    head = "".join(f"<th>{html.escape(name)}</th>" for name in heads)
    body = "\n".join(
        "<tr>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>" for cells in rows
    )
    return f"<table>\n<tr>{head}</tr>\n{body}\n</table>"
