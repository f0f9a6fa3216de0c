"""The self-contained HTML page of a report: no network, readable on a phone and in print."""

import html
from collections.abc import Mapping, Sequence
from typing import Any

Row = Mapping[str, Any]
STYLE = """
:root { color-scheme: light dark; --line: #8884; --soft: #8881; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 76rem; margin: 0 auto; padding: 1rem; }
h1 { line-height: 1.2; } h2 { margin-top: 2.5rem; border-bottom: 1px solid var(--line); }
figure { margin: 1.5rem 0; overflow-x: auto; background: #fff; color: #000; border-radius: 4px; padding: .5rem; }
figure svg { max-width: 100%; height: auto; min-width: 22rem; } figcaption { font-size: .85rem; }
.table { overflow: auto; max-height: 32rem; border: 1px solid var(--line); }
table { border-collapse: collapse; font-size: .8rem; font-variant-numeric: tabular-nums; }
th, td { padding: .2rem .6rem; text-align: left; white-space: nowrap; border-bottom: 1px solid var(--soft); }
th { position: sticky; top: 0; background: Canvas; cursor: pointer; } th[aria-sort]::after { content: " \\2195"; }
td.number { text-align: right; } input { font: inherit; margin: .4rem 0; padding: .2rem .5rem; width: 16rem; max-width: 100%; }
pre { overflow-x: auto; background: var(--soft); padding: .6rem; } li { margin: .3rem 0; }
@media print { .table { max-height: none; overflow: visible; border: 0; } input { display: none; } body { font-size: 10pt; }
  th { position: static; } figure, tr { break-inside: avoid; } }
"""
SCRIPT = """
for (const box of document.querySelectorAll('.table')) {
  const body = box.querySelector('tbody'), rows = [...body.rows];
  box.querySelectorAll('th').forEach((head, column) => head.addEventListener('click', () => {
    const down = head.getAttribute('aria-sort') === 'ascending';
    box.querySelectorAll('th').forEach(other => other.removeAttribute('aria-sort'));
    head.setAttribute('aria-sort', down ? 'descending' : 'ascending');
    const key = row => row.cells[column].dataset.value ?? row.cells[column].textContent;
    rows.sort((a, b) => key(a).localeCompare(key(b), undefined, {numeric: true}));
    rows.sort((a, b) => (parseFloat(key(a)) - parseFloat(key(b))) || 0);
    body.append(...(down ? rows.reverse() : rows));
  }));
  const filter = box.previousElementSibling;
  filter.addEventListener('input', () => {
    const words = filter.value.toLowerCase().split(/\\s+/);
    for (const row of rows) row.hidden = !words.every(word => row.textContent.toLowerCase().includes(word));
  });
}
"""


def page(
    title: str,
    answers: Sequence[str],
    drawings: Sequence[tuple[str, str]],
    tables: Mapping[str, Sequence[Row]],
    commands: Sequence[str],
    notes: Mapping[str, str],
) -> str:
    """The whole page.

    Args:
        title: of the page.
        answers: sentences of the first section.
        drawings: (caption, SVG text).
        tables: rows by title; a row's ``keys`` become links to the JSON of its cells.
        commands: how to run the sweep again.
        notes: what a table's columns mean, by title.
    """
    sections = [
        f"<h1>{html.escape(title)}</h1>",
        "<h2>Answer</h2><ul>" + "".join(f"<li>{html.escape(answer)}</li>" for answer in answers) + "</ul>",
        "<h2>Figures</h2>",
        *(f"<figure>{svg}<figcaption>{html.escape(text)}</figcaption></figure>" for text, svg in drawings),
        "<h2>Tables</h2>",
        *(_table(name, rows, notes.get(name, "")) for name, rows in tables.items()),
        "<h2>Run it again</h2><pre>" + html.escape("\n".join(commands)) + "</pre>",
    ]
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{html.escape(title)}</title><style>{STYLE}</style></head><body>\n"
        + "\n".join(sections)
        + f"\n<script>{SCRIPT}</script></body></html>\n"
    )


def _table(name: str, rows: Sequence[Row], note: str) -> str:
    columns = [column for column in dict.fromkeys(column for row in rows for column in row) if column != "keys"]
    linked = any("keys" in row for row in rows)
    head = "".join(f"<th>{html.escape(column)}</th>" for column in [*columns, *(["cells"] if linked else [])])
    body = "".join(
        "<tr>" + "".join(_cell(row.get(column)) for column in columns) + (_links(row) if linked else "") + "</tr>"
        for row in rows
    )
    return (
        f"<h3>{html.escape(name)}</h3><p>{html.escape(note)}</p>"
        f'<input type="search" placeholder="filter: words" aria-label="filter {html.escape(name)}">'
        f'<div class="table"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'
    )


def _cell(value: Any) -> str:
    if value is None:
        return "<td></td>"
    if isinstance(value, bool) or not isinstance(value, int | float):
        return f"<td>{html.escape(str(value))}</td>"
    shown = f"{value:.4g}" if isinstance(value, float) else f"{value:,}"
    return f'<td class="number" data-value="{value!r}">{shown}</td>'


def _links(row: Row) -> str:
    return (
        "<td>"
        + " ".join(f'<a href="../cells/{key}.json" title="{key}">{key[:6]}</a>' for key in row.get("keys", []))
        + "</td>"
    )
