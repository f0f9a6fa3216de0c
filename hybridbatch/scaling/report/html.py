"""The self-contained HTML page of a report: no network, readable on a phone, in print, and without
scripts.

Style and script lie in ``data/report.css`` and ``data/report.js``. Figures are drawn by the script
from rows in the page; tables stand in it with their main rows, and the script adds the others.
"""

import html
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

from hybridbatch.scaling.findings import TESTED
from hybridbatch.scaling.report.charts import Chart, packed
from hybridbatch.scoring.averages import SETTINGS

Row = Mapping[str, Any]
FEW = 40  # rows of a table that has no main ones


@dataclass(frozen=True)
class Contents:
    """What the page says."""

    title: str
    about: str  # one sentence under the title
    answers: Mapping[str, Sequence[str]]  # sentences of the first section, by question
    charts: Sequence[Chart]
    # by title; a row's ``keys`` become links to the JSON of its cells
    tables: Mapping[str, Sequence[Row]]
    notes: Mapping[str, str]  # what a table's columns mean, by title
    links: Mapping[str, str]  # path of a cell's JSON from the page, by key
    commands: Sequence[str]  # how to run the sweep again
    files: Sequence[str]  # names of the drawn figures


def page(contents: Contents) -> str:
    """The whole page."""
    data = {
        "charts": contents.charts,
        "tables": {name: _table_data(rows) for name, rows in contents.tables.items()},
        "links": contents.links,
        "settings": SETTINGS,
    }
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":"), allow_nan=False).replace(
        "</", "<\\/"
    )
    sections = [
        f"<header><h1>{html.escape(contents.title)}</h1><p>{html.escape(contents.about)}</p></header>",
        '<nav><a href="#answer">Answer</a> <a href="#figures">Figures</a> <a'
        ' href="#tables">Tables</a> '
        '<a href="#again">Run it again</a></nav>',
        '<h2 id="answer">Answer</h2>',
        *(
            f"<h3>{html.escape(question)}</h3><ul>"
            + "".join(f"<li>{html.escape(each)}</li>" for each in found)
            + "</ul>"
            for question, found in contents.answers.items()
        ),
        '<h2 id="figures">Figures</h2>',
        *(_figure(number, chart) for number, chart in enumerate(contents.charts)),
        _downloads(contents),
        '<h2 id="tables">Tables</h2>',
        *(_table(name, rows, contents) for name, rows in contents.tables.items()),
        '<h2 id="again">Run it again</h2><pre>'
        + html.escape("\n".join(contents.commands))
        + "</pre>",
    ]
    style, script = (
        files(__package__).joinpath(f"report.{kind}").read_text("utf-8") for kind in ("css", "js")
    )
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{html.escape(contents.title)}</title><style>\n{style}</style></head><body>\n"
        + "\n".join(sections)
        + f'\n<script type="application/json" id="data">{text}</script>\n<script>\n{script}</script></body></html>\n'
    )


def _figure(number: int, chart: Chart) -> str:
    title, note = html.escape(chart["title"]), html.escape(chart["note"])
    return (
        f'<figure data-chart="{number}"><h3>{title}</h3><div class="controls"></div><div'
        ' class="drawing"></div>'
        f"<figcaption>{note}</figcaption><noscript>Drawn by a script; see the files"
        " below.</noscript></figure>"
    )


def _downloads(contents: Contents) -> str:
    figures = " ".join(
        f'<a href="figures/{name}.svg">{html.escape(name)}</a> (<a'
        f' href="figures/{name}.png">PNG</a>)'
        for name in contents.files
    )
    tables = " ".join(
        f'<a href="tables/{name}.csv">{html.escape(name)}.csv</a>' for name in contents.tables
    )
    return (
        f"<details><summary>Files</summary><p>{tables} "
        '<a href="tables/main.tex">main.tex</a> <a'
        f' href="report.md">report.md</a></p><p>{figures}</p></details>'
    )


def _main(rows: Sequence[Row]) -> list[int]:
    """Numbers of the rows that a reader wants first: all query languages, and the metrics people
    know.
    """
    chosen = [
        number
        for number, row in enumerate(rows)
        if row.get("group", "all") == "all" and row.get("metric", TESTED[0]) in TESTED
    ]
    return (
        (chosen or list(range(len(rows))))[:FEW] if len(chosen) > 4 * FEW or not chosen else chosen
    )


def _table_data(rows: Sequence[Row]) -> dict[str, Any]:
    return packed(rows) | {"main": _main(rows)}


def _table(name: str, rows: Sequence[Row], contents: Contents) -> str:
    columns = [
        column
        for column in dict.fromkeys(column for row in rows for column in row)
        if column != "keys"
    ]
    linked = any("keys" in row for row in rows)
    head = "".join(
        '<th scope="col"><button'
        f' type="button">{html.escape(column.replace("_", " "))}</button></th>'
        for column in columns
    )
    main = _main(rows)
    body = "".join(
        "<tr>"
        + "".join(_cell(rows[number].get(column)) for column in columns)
        + (_links(rows[number], contents.links) if linked else "")
        + "</tr>"
        for number in main
    )
    more = (
        f"<label><input type='checkbox'> all {len(rows):,} rows</label>"
        if len(rows) > len(main)
        else ""
    )
    return (
        f'<section data-table="{html.escape(name)}"><h3>{html.escape(name.replace("_", " "))}</h3>'
        f"<p>{html.escape(contents.notes.get(name, ''))}</p>"
        '<div class="controls"><input type="search" placeholder="filter: words" aria-label="filter'
        f' {html.escape(name)}">'
        f"{more}</div><div"
        f' class="table"><table><thead><tr>{head}{"<th>cells</th>" if linked else ""}</tr></thead>'
        f"<tbody>{body}</tbody></table></div></section>"
    )


def _cell(value: Any) -> str:
    if value is None:
        return "<td></td>"
    if isinstance(value, bool) or not isinstance(value, int | float):
        return f"<td>{html.escape(str(value))}</td>"
    return f'<td class="number">{f"{value:.4g}" if isinstance(value, float) else f"{value:,}"}</td>'


def _links(row: Row, links: Mapping[str, str]) -> str:
    return (
        '<td class="cells">'
        + " ".join(
            f'<a href="{html.escape(links[key])}" title="{key}">{number}</a>'
            for number, key in enumerate(row.get("keys", []), start=1)
        )
        + "</td>"
    )
