"""Figures of a sweep. Equal findings give equal figures and equal SVG text."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from hybridbatch.scaling.findings import Findings
from hybridbatch.scaling.fits import Law
from hybridbatch.scaling.report.tables import TableRow
from hybridbatch.scoring.averages import SETTINGS
from hybridbatch.scoring.drawing import STYLE

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

LABELS = {
    "mAP": "mAP",
    "rank_distance": "rank distance",
    "contrastive_entropy": "contrastive entropy (nats)",
}


def figures(findings: Findings) -> Iterator[tuple[str, str, "Figure"]]:
    """(file name, caption, figure) of every figure.

    The figures show the mix response and the scaling of every metric, the laws, and the map of
    languages.
    """
    tasks = dict.fromkeys(row["task"] for row in findings.means)
    for task in tasks:
        for metric, label in LABELS.items():
            of_metric = (
                r for r in findings.means if r["task"] == task and r["metric"] == metric
            )
            rows = [
                row
                for row in of_metric
                if row["group"] == "all" and findings.place(row) == findings.centre
            ]
            if rows and len({row["mix"] for row in rows}) > 1:
                caption = (
                    f"{task}: {label} against the mix (0 cross-lingual, 1 monolingual batches); the"
                    " bands are 95 % intervals"
                )
                yield (
                    f"{task}-mix-{metric}",
                    caption,
                    _lines(rows, label, x="mix", line="pairs"),
                )
            if rows and len({row["pairs"] for row in rows}) > 1:
                caption = (
                    f"{task}: {label} against the number of training records; the dashed line is"
                    " the model before training"
                )
                yield (
                    f"{task}-pairs-{metric}",
                    caption,
                    _lines(rows, label, x="pairs", line="mix"),
                )
        languages = [
            row
            for row in findings.languages
            if row["task"] == task and row["setting"] == "cross-lingual"
        ]
        mixed = any(name.startswith("mix ") for row in languages for name in row)
        if mixed and all(row["untrained"] is not None for row in languages):
            caption = (
                f"{task}: gain in cross-lingual mAP over the untrained model, in points, by query"
                " language and mix"
            )
            yield f"{task}-languages", caption, _language_map(languages)
    for name, laws in _law_panels(findings):
        yield (
            name,
            f"{laws[0]['task']}: {laws[0]['of']} over {laws[0]['over']} with the fitted laws",
            _laws(laws),
        )


def _panels(count: int) -> tuple["Figure", list["Axes"]]:
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(3.3 * count + 0.6, 3.0), layout="constrained")
        return figure, list(np.atleast_1d(figure.subplots(1, count)))


def _settings(rows: Sequence[TableRow]) -> list[str]:
    """The settings that the rows are about, in the order of `SETTINGS`."""
    found = {row["setting"] for row in rows}
    return [setting for setting in SETTINGS if setting in found]


def _lines(rows: Sequence[TableRow], label: str, *, x: str, line: str) -> "Figure":
    settings = _settings(rows)
    figure, panels = _panels(len(settings))
    for panel, setting in zip(panels, settings, strict=True):
        part = [row for row in rows if row["setting"] == setting]
        values = sorted({row[line] for row in part})
        for value, colour in zip(values, _colours(len(values)), strict=True):
            points = sorted((row for row in part if row[line] == value), key=lambda row: row[x])
            sizes = [row[x] for row in points]
            low, high = [row["low"] for row in points], [row["high"] for row in points]
            panel.plot(
                sizes,
                [row["mean"] for row in points],
                "o-",
                color=colour,
                markersize=3.5,
                label=line if value is None else f"{line} {value:,}",
            )
            panel.fill_between(sizes, low, high, color=colour, alpha=0.15, linewidth=0)
        if part[0]["untrained"] is not None:
            panel.axhline(part[0]["untrained"], color="0.4", linestyle="--", linewidth=0.8)
        if x == "pairs":
            panel.set_xscale("log")
        panel.set(title=setting, xlabel="training records" if x == "pairs" else "mix")
    panels[0].set_ylabel(label)
    figure.legend(
        *panels[0].get_legend_handles_labels(),
        loc="outside right upper",
        fontsize=7,
        frameon=False,
    )
    return figure


def _language_map(rows: Sequence[TableRow]) -> "Figure":
    import matplotlib
    from matplotlib.figure import Figure

    mixes = [name for name in rows[0] if name.startswith("mix ")]
    ordered = sorted(
        rows, key=lambda row: (row["joshi_class"] is None, row["joshi_class"] or 0, row["name"])
    )
    by_language = []
    for row in ordered:
        by_language.append([100 * (row[mix] - row["untrained"]) for mix in mixes])
    gains = np.array(by_language)
    with matplotlib.rc_context(STYLE):
        figure = Figure(
            figsize=(2.6 + 0.7 * len(mixes), 0.8 + 0.22 * len(ordered)), layout="constrained"
        )
        axes = figure.subplots()
        limit = float(np.abs(gains).max()) or 1.0
        image = axes.imshow(gains, aspect="auto", cmap="RdBu", vmin=-limit, vmax=limit)
        axes.set_xticks(range(len(mixes)), mixes)
        shown = [
            f"{row['name']} ({'–' if row['joshi_class'] is None else row['joshi_class']})"
            for row in ordered
        ]
        axes.set_yticks(range(len(ordered)), shown)
        axes.set_title("language (Joshi class)", loc="left", fontsize=8)
        for (i, j), gain in np.ndenumerate(gains):
            axes.text(
                j,
                i,
                f"{gain:+.1f}",
                ha="center",
                va="center",
                fontsize=7,
                color="w" if abs(gain) > 0.6 * limit else "k",
            )
        figure.colorbar(image, ax=axes, label="points")
    return figure


def _law_panels(findings: Findings) -> Iterator[tuple[str, list[TableRow]]]:
    """The file name and the laws of each figure of laws.

    A figure shows the laws over one axis, for all query languages, in the centre of the grid.
    """
    panels: dict[tuple[str, str, str], list[TableRow]] = {}
    for row in findings.laws:
        centre = {name: findings.centre[name] for name in findings.place(row)}
        if (
            "law" in row
            and row["group"] == "all"
            and " and " not in row["over"]
            and findings.place(row) == centre
        ):
            panels.setdefault((row["task"], row["of"], row["over"]), []).append(row)
    for (task, of, over), rows in panels.items():
        yield f"{task}-law-{of.replace(' ', '-')}-{over}".replace("1---", "1-minus-"), rows


def _laws(rows: Sequence[TableRow]) -> "Figure":
    settings = _settings(rows)
    figure, panels = _panels(len(settings))
    for panel, setting in zip(panels, settings, strict=True):
        part = [row for row in rows if row["setting"] == setting][:6]
        for row, colour in zip(part, _colours(len(part)), strict=True):
            law: Law = row["law"]
            sizes = np.array(row["sizes"])[:, 0]
            curve = np.geomspace(sizes.min(), 4 * sizes.max(), 60)
            low, high = law.band(curve)
            name = f"mix {row['mix']:g}" if row.get("mix") is not None else None
            panel.plot(sizes, row["values"], "o", color=colour, markersize=3, label=name)
            panel.plot(curve, law.predict(curve), color=colour, linewidth=1)
            panel.fill_between(curve, low, high, color=colour, alpha=0.12, linewidth=0)
        panel.set_xscale("log")
        panel.set(title=setting, xlabel=rows[0]["over"])
    panels[0].set_ylabel(rows[0]["of"])
    figure.legend(
        *panels[0].get_legend_handles_labels(),
        loc="outside right upper",
        fontsize=7,
        frameon=False,
    )
    return figure


def _colours(count: int) -> list[Any]:
    from matplotlib import colormaps

    return [colormaps["viridis"](0.9 * i / max(1, count - 1)) for i in range(count)]
