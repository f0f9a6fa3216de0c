"""The self-contained HTML page of a report.

The page needs no network. It is readable on a phone, in print, and without scripts. The page is a
template (``report.html.j2``), with a style and a script in files beside it. The script draws the
figures from packed and compressed rows in the page. The page has the main rows of every table, and
the script adds the other rows.
"""

import base64
import gzip
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from typing import Any

from hybridbatch.common.tables import columns, constant, shown
from hybridbatch.scaling.contrasts import TESTED
from hybridbatch.scaling.report.charts import Chart, packed
from hybridbatch.scaling.report.tables import TableRow
from hybridbatch.scoring.averages import SETTINGS

FEW = 40  # rows of a table that the page shows without a script


@dataclass(frozen=True)
class Verdict:
    """The outcome of one comparison, for a table of measures by rivals."""

    difference: str
    verdict: str
    detectable: str  # the difference that would have been found


@dataclass(frozen=True)
class Headline:
    """The table that answers the main question.

    With many rows, `summary` is shown in their place, and the rows are folded.
    """

    caption: str = ""
    summary: Mapping[str, Mapping[str, Verdict]] = field(default_factory=dict)
    rows: Sequence[Mapping[str, str]] = ()
    classes: Sequence[str] = ()  # of each row: its verdict, or nothing
    rule: str = ""  # the rule of the verdicts


@dataclass(frozen=True)
class Contents:
    """The contents of the page."""

    title: str
    about: str  # one sentence under the title
    answers: Mapping[str, Sequence[str]]  # sentences, by question
    charts: Sequence[Chart]  # the page shows the first two above the sentences
    # by title; a row's ``keys`` become links to the JSON of its cells
    tables: Mapping[str, Sequence[TableRow]]
    notes: Mapping[str, str]  # what a table's columns mean, by title
    links: Mapping[str, str]  # path of a cell's JSON from the page, by key
    commands: Sequence[str]  # how to run the sweep again
    files: Sequence[str]  # names of the drawn figures
    headline: Headline = field(default_factory=Headline)


@dataclass(frozen=True)
class PageTable:
    """A table as the page shows it."""

    rows: Sequence[TableRow]
    columns: Sequence[str]  # without those that are the same in all rows
    constant: str  # the columns that are the same in all rows, in words
    main: Sequence[TableRow]
    numbers: Sequence[int]  # of the main rows
    linked: bool

    @property
    def more(self) -> bool:
        """Whether there are rows other than the main ones."""
        return len(self.rows) > len(self.main)

    def packed(self) -> dict[str, Any]:
        """The rows for the script."""
        names = [*self.columns, *(["keys"] if self.linked else [])]
        return packed(self.rows, names) | {"main": list(self.numbers)}


def page(contents: Contents) -> str:
    """The whole page; the same contents give the same bytes."""
    from jinja2 import Environment, PackageLoader

    environment = Environment(
        loader=PackageLoader(__package__ or "", "."),
        autoescape=True,
        keep_trailing_newline=True,
    )
    environment.filters.update(shown=shown, words=lambda name: name.replace("_", " "))
    tables = {name: page_table(rows) for name, rows in contents.tables.items()}
    data = {
        "charts": contents.charts,
        "tables": {name: table.packed() for name, table in tables.items()},
        "links": contents.links,
        "settings": SETTINGS,
    }
    return environment.get_template("report.html.j2").render(
        c=contents,
        tables=tables,
        data=compressed(data),
        style=_beside("report.css"),
        script=_beside("report.js"),
    )


def _beside(name: str) -> str:
    return files(__package__).joinpath(name).read_text("utf-8")


def compressed(value: Any) -> str:
    """Gzipped JSON in base 64, which `report.js` unpacks. It cannot end the script block."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return base64.b64encode(gzip.compress(text.encode(), mtime=0)).decode()


def page_table(rows: Sequence[TableRow]) -> PageTable:
    """Rows with their main ones, and without the columns that say nothing."""
    same = constant(rows)
    numbers = _main(rows)
    told = [f"{name.replace('_', ' ')} {shown(value)}" for name, value in same.items()]
    return PageTable(
        rows=rows,
        columns=[name for name in columns(rows) if name != "keys" and name not in same],
        constant=", ".join(text for text in told if not text.endswith(" ")),
        main=[rows[number] for number in numbers],
        numbers=numbers,
        linked=any("keys" in row for row in rows),
    )


def _main(rows: Sequence[TableRow]) -> list[int]:
    """Numbers of the rows that a reader wants first: all query languages, and the metrics people
    know.
    """
    chosen = [
        number
        for number, row in enumerate(rows)
        if row.get("group", "all") == "all" and row.get("metric", TESTED[0]) in TESTED
    ]
    return (chosen or list(range(len(rows))))[:FEW]
