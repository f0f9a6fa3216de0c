"""`hybridbatch figures`: draws language pairs and language bias, from eval.json."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from hybridbatch.common.errors import DataError, nearest
from hybridbatch.common.files import make_folder, plain_name
from hybridbatch.common.languages import language
from hybridbatch.common.progress import SILENT, Reporter
from hybridbatch.scoring.averages import SETTINGS, setting_of
from hybridbatch.scoring.documents import read_evaluation
from hybridbatch.scoring.drawing import STYLE, ink, write_both
from hybridbatch.scoring.significance import p_in_words

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

CLASSES = {
    "high": "high-resource",
    "mid": "mid-resource",
    "low": "low-resource",
    "unknown": "unlisted",
}
CLASS_COLOURS = {"high": "#2b5c8a", "mid": "#6aa5c9", "low": "#e8a33d", "unknown": "#b8b8b8"}
OUTCOMES = {
    "first_relevant_same": ("relevant, query's language", "#1b7f5c"),
    "first_relevant_other": ("relevant, other language", "#8fd0b4"),
    "first_irrelevant_same": ("irrelevant, query's language", "#c8553d"),
    "first_irrelevant_other": ("irrelevant, other language", "#efb8a5"),
}
AHEAD, BEHIND = "#1b7f5c", "#c8553d"
FAMILIES = 0.35  # opacity of the lines between language families
NUMBERED = 32  # a heat map of at most so many languages has numbers in its cells
FIGURES = "figures"  # subfolder of the evaluation
LEAST_CELL = 0.085  # inches
BAR, GAP = (
    0.09,
    0.05,
)  # inches: thickness of the bars of resource classes, and space before them
SLIM = 6  # with so many times as many columns as rows, columns become rows


def draw(folder: Path, metric: str = "mAP", report: Reporter = SILENT) -> list[Path]:
    """Draw the figures of an evaluation into its folder ``figures/``, each as SVG and PNG.

    Args:
        folder: of `hybridbatch eval`.
        metric: of the heat map of language pairs.

    Returns:
        The files written.

    Raises:
        `DataError` for a folder without eval.json, or one whose tasks lack the metric;
            `OutputError`.
    """
    facts = read_evaluation(folder)
    known = list(
        dict.fromkeys(name for task in facts["tasks"] for name in task["pairs"]["metrics"])
    )
    if facts["tasks"] and metric not in known:
        raise DataError(
            f"{folder}: no language pair has the metric {metric!r}{nearest(metric, known)}"
        )
    made = [
        (f"{plain_name(task['name'])}-{name}", figure)
        for task in facts["tasks"]
        for name, figure in task_figures(task, facts["model"], metric)
    ]
    if not made:
        raise DataError(
            f"{folder}: has no task with language pairs or pools, so there is nothing to draw"
        )
    place = make_folder(folder / FIGURES)
    with report.bar("draw", len(made), "figures") as bar:
        paths = []
        for name, figure in made:
            paths += write_both(figure, place, name)
            bar.advance()
    return paths


def task_figures(
    task: Mapping[str, Any], model: Mapping[str, Any], metric: str
) -> Iterator[tuple[str, "Figure"]]:
    """Yield (name, figure) for each figure that a task's part of eval.json has data for."""
    pairs, title = task["pairs"], f"{task['name']}, {model['name']}"
    rows, columns = order(pairs["query_languages"]), order(pairs["corpus_languages"])
    if metric in pairs["metrics"] and len(rows.codes) * len(columns.codes) > 1:
        values = _matrix(pairs["metrics"][metric], pairs, rows, columns)
        yield (
            f"pairs-{metric}",
            heat_map(values, rows, columns, f"{title}: {metric} of each language pair", metric),
        )
    for pool, bias in task.get("bias", {}).items():
        means = task["settings"][setting_of("", pool)]["by_query_language"]
        rows, columns = order(bias["query_languages"]), order(bias["corpus_languages"])
        name = plain_name(pool)
        yield (
            f"{name}-profile",
            profile(means, bias, rows, f"{title}: language bias in the {_words(pool)}"),
        )
        for measure, matrix in bias["measures"].items():
            values = _matrix(matrix, bias, rows, columns)
            if measure.startswith("language_distribution"):
                depth = measure.partition("@")[2]
                what = f"{title}: languages of the first {depth} passages, by query language"
                yield (
                    f"{name}-languages",
                    heat_map(100 * values, rows, columns, what, "% of the passages", low=0),
                )
            elif measure.startswith("mlrs"):
                what = f"{title}: rank shift (MLRS) when the first passages are translated"
                yield (
                    f"{name}-mlrs",
                    heat_map(
                        values,
                        rows,
                        columns,
                        what,
                        "MLRS",
                        low=0,
                        column_title="translated into",
                    ),
                )


@dataclass(frozen=True)
class Order:
    """Languages in the order of a figure.

    They are ordered by resource class from high to low, then by family, then by name.
    """

    codes: tuple[str, ...]
    names: tuple[str, ...]
    classes: tuple[str, ...]
    families: tuple[str, ...]

    def breaks(self, of: Sequence[str]) -> list[int]:
        """The places at which a value differs from the one before."""
        return [place for place, (one, other) in enumerate(pairwise(of), 1) if one != other]

    def spans(self) -> Iterator[tuple[str, int, int]]:
        """(class, first place, place after the last)."""
        edges = [0, *self.breaks(self.classes), len(self.codes)]
        for start, end in pairwise(edges):
            yield self.classes[start], start, end


def order(codes: Sequence[str]) -> Order:
    """Sort languages for a figure. Raises: `DataError` for an unknown one."""
    ranks = list(CLASSES)
    facts = sorted(
        (ranks.index(row.resource_class), row.family or "~", row.name, code, row.resource_class)
        for code, row in ((code, language(code)) for code in codes)
    )
    return Order(
        tuple(row[3] for row in facts),
        tuple(row[2] for row in facts),
        tuple(row[4] for row in facts),
        tuple(row[1] for row in facts),
    )


def heat_map(
    values: np.ndarray,
    rows: Order,
    columns: Order,
    title: str,
    label: str,
    *,
    low: float | None = None,
    column_title: str = "corpus language",
) -> "Figure":
    """Draw values of query language x corpus language; cells without a value are white.

    Few query languages against many corpus languages are drawn the other way round, so that names
    are in rows.

    Args:
        values: float [rows, columns], NaN if there is no value; shares (at most 1) or numbers.
        low: where the colours start; default: the least value.
    """
    import matplotlib
    from matplotlib import colormaps
    from matplotlib.figure import Figure

    row_title = "query language"
    if SLIM * len(rows.codes) < len(columns.codes):
        values, rows, columns, row_title, column_title = (
            values.T,
            columns,
            rows,
            column_title,
            row_title,
        )
    high, wide = values.shape
    height = float(np.clip(8.5 / high, LEAST_CELL, 0.46))
    width = max(height, min(0.46, 8.5 / wide))
    font = float(np.clip(72 * height * 0.72, 3.6, 8.5))
    column_font = float(np.clip(72 * width * 0.72, 3.6, 8.5))
    margin = font / 72 * 0.58 * max(len(name) for name in rows.names) + 1.7
    beneath = column_font / 72 * 0.7 * max(len(code) for code in columns.codes) + 1.1
    size = max(wide * width + margin, 0.075 * len(title) + 0.3), high * height + beneath
    with matplotlib.rc_context(
        STYLE | {"axes.spines.left": False, "axes.spines.bottom": False}
    ):
        figure = Figure(figsize=size, layout="constrained")
        axes = figure.subplots()
        colours = colormaps["YlGnBu"].with_extremes(bad="white")
        least = float(np.nanmin(values)) if low is None else low
        most = float(np.nanmax(values))
        image = axes.imshow(
            values, cmap=colours, vmin=least, vmax=most if most > least else least + 1, interpolation="none",
            aspect=height / width,
        )  # fmt: skip
        axes.set_xticks(
            range(wide), columns.codes, rotation=90, fontsize=column_font, family="monospace"
        )
        axes.set_yticks(range(high), rows.names, fontsize=font)
        axes.tick_params(length=0, pad=2)
        _rule(axes, rows, columns)
        _name_classes(axes, rows, columns, height, width)
        axes.set_xlabel(column_title, fontsize=9)
        axes.set_ylabel(row_title, fontsize=9)
        if max(values.shape) <= NUMBERED:
            for (i, j), value in np.ndenumerate(values):
                if not math.isnan(value):
                    text = f"{value:.2f}".removeprefix("0") if most <= 1 else f"{value:.0f}"
                    axes.text(j, i, text, ha="center", va="center", fontsize=min(7.5, 72 * height * 0.36),
                              color=ink(image.cmap(image.norm(value))))  # fmt: skip
        bar = figure.colorbar(
            image, ax=axes, shrink=min(1.0, 3.2 / (height * high)), aspect=16, pad=0.02
        )
        bar.set_label(label, fontsize=9)
        bar.ax.tick_params(labelsize=8, length=2)
        bar.outline.set_visible(False)
        figure.suptitle(title, fontsize=10, x=0.01, ha="left")
    return figure


def _rule(axes: "Axes", rows: Order, columns: Order) -> None:
    """Draw white lines between classes, and thin lines between families."""
    for order_, line in ((rows, axes.axhline), (columns, axes.axvline)):
        for place in order_.breaks(order_.families):
            line(place - 0.5, color="white", linewidth=0.5, alpha=FAMILIES)
        for place in order_.breaks(order_.classes):
            line(place - 0.5, color="white", linewidth=1.8)


def _name_classes(
    axes: "Axes", rows: Order, columns: Order, height: float, width: float
) -> None:
    """Draw coloured bars of the resource classes, right of the rows and above the columns.

    The bars above the columns have names.

    Args:
        height, width: of a cell, in inches.
    """
    from matplotlib.patches import Rectangle

    tall, broad = len(rows.codes) * height, len(columns.codes) * width
    # one direction in data coordinates, one in axes coordinates
    above, beside = axes.get_xaxis_transform(), axes.get_yaxis_transform()
    for kind, start, end in columns.spans():
        place, size = (start - 0.46, 1 + GAP / tall), (end - start - 0.08, BAR / tall)
        axes.add_patch(
            Rectangle(
                place,
                *size,
                color=CLASS_COLOURS[kind],
                linewidth=0,
                clip_on=False,
                transform=above,
            )
        )
        room = (end - start) * width / 0.075
        name = next((name for name in (CLASSES[kind], kind) if len(name) <= room), "")
        axes.text((start + end - 1) / 2, 1 + (1.6 * GAP + BAR) / tall, name, ha="center", va="bottom", fontsize=7.5,
                  color=CLASS_COLOURS[kind], transform=above)  # fmt: skip
    for kind, start, end in rows.spans():
        place, size = (1 + GAP / broad, start - 0.46), (BAR / broad, end - start - 0.08)
        axes.add_patch(
            Rectangle(
                place,
                *size,
                color=CLASS_COLOURS[kind],
                linewidth=0,
                clip_on=False,
                transform=beside,
            )
        )
        if (end - start) * height > 0.075 * len(CLASSES[kind]):
            axes.text(1 + (1.6 * GAP + BAR) / broad, (start + end - 1) / 2, CLASSES[kind], ha="left", va="center",
                      rotation=270, fontsize=7.5, color=CLASS_COLOURS[kind], transform=beside)  # fmt: skip


def profile(
    means: Mapping[str, Mapping[str, float]], bias: Mapping[str, Any], rows: Order, title: str
) -> "Figure":
    """Draw language bias by query language.

    The panels are rank distance, the outcome of the first passage, and the languages of the first
    passages.

    Args:
        means: of the pool, by query language.
        bias: the part of `tasks[].bias` for this pool.
    """
    import matplotlib
    from matplotlib.figure import Figure
    from matplotlib.transforms import ScaledTranslation

    count = len(rows.codes)
    step = float(np.clip(9.0 / count, LEAST_CELL, 0.3))
    font = float(np.clip(72 * step * 0.66, 3.6, 8.5))
    places = np.arange(count)
    panels = [
        name
        for name, there in (
            ("distance", any("rank_distance" in means.get(code, {}) for code in rows.codes)),
            (
                "first",
                any(name in means.get(code, {}) for name in OUTCOMES for code in rows.codes),
            ),
            ("languages", True),
        )
        if there
    ]
    with matplotlib.rc_context(STYLE | {"axes.spines.left": False}):
        figure = Figure(
            figsize=(1.6 + 3.1 * len(panels), step * count + 1.75), layout="constrained"
        )
        drawn = dict(
            zip(
                panels, np.atleast_1d(figure.subplots(1, len(panels), sharey=True)), strict=True
            )
        )
        first = drawn[panels[0]]
        first.set_yticks(places, rows.names, fontsize=font)
        first.set_ylim(count - 0.4, -0.6)
        first.set_ylabel("query language", fontsize=9)
        if axes := drawn.get("distance"):
            values = _column(means, rows, "rank_distance")
            colours = [CLASS_COLOURS[kind] for kind in rows.classes]
            axes.hlines(
                places,
                0,
                values,
                color=colours,
                linewidth=max(0.6, 72 * step * 0.12),
                alpha=0.55,
            )
            axes.scatter(
                values,
                places,
                color=colours,
                s=(72 * step * 0.42) ** 2,
                zorder=3,
                clip_on=False,
            )
            least = len(bias["corpus_languages"]) - 1
            axes.axvline(least, color="0.45", linewidth=0.8, linestyle=":")
            axes.set_xlim(0, None)
            axes.set_title("rank distance (lower: fairer)", fontsize=9)
            axes.set_xlabel(f"ranks; dotted: {least}, the least possible", fontsize=8)
        if axes := drawn.get("first"):
            series = [
                (label, colour, _column(means, rows, name))
                for name, (label, colour) in OUTCOMES.items()
            ]
            _stack(axes, places, series)
            axes.set_title("the first passage", fontsize=9)
        axes = drawn["languages"]
        _stack(axes, places, list(_class_shares(bias, rows)))
        own = _column(
            means,
            rows,
            next(
                (n for n in next(iter(means.values()), {}) if n.startswith("same_language")), ""
            ),
        )
        if not np.isnan(own).all():
            axes.scatter(own, places, marker="D", s=(72 * step * 0.3) ** 2, color="white", edgecolor="0.1",
                         linewidth=0.6, zorder=4, clip_on=False, label="query's own language")  # fmt: skip
        shares = np.cumsum([share for _, share in _pool_shares(bias)])
        for edge in shares[:-1]:
            axes.axvline(edge, color="0.1", linewidth=0.8, linestyle=":")
        depth = next(
            (name.partition("@")[2] for name in bias["measures"] if "distribution" in name), ""
        )
        axes.set_title(f"languages of the first {depth}", fontsize=9)
        axes.set_xlabel("%; dotted: shares of the pool", fontsize=8)
        for name, axes in drawn.items():
            axes.tick_params(axis="y", length=0)
            axes.tick_params(axis="x", labelsize=8, length=2)
            if name != "distance":
                below = axes.transAxes + ScaledTranslation(0, -0.38, figure.dpi_scale_trans)
                axes.legend(loc="upper center", bbox_to_anchor=(0.5, 0), bbox_transform=below, fontsize=6.5, ncols=2,
                            frameon=False, handlelength=1.0, handleheight=0.9, columnspacing=0.9)  # fmt: skip
        figure.suptitle(title, fontsize=10, x=0.01, ha="left")
    return figure


def _stack(
    axes: "Axes", places: np.ndarray, series: Sequence[tuple[str, str, np.ndarray]]
) -> None:
    """Horizontal bars of shares that add up to 1."""
    left = np.zeros(len(places))
    for label, colour, values in series:
        shares = np.nan_to_num(values)
        axes.barh(
            places, shares, left=left, color=colour, height=0.82, label=label, linewidth=0
        )
        left = left + shares
    axes.set_xlim(0, 1)
    axes.set_xticks([0, 0.25, 0.5, 0.75, 1], ["0", "25", "50", "75", "100"])
    axes.set_xlabel("%", fontsize=8)


def _pool_shares(bias: Mapping[str, Any]) -> list[tuple[str, float]]:
    """(class, share in the passages of the pool) for each class that the pool has."""
    sums = dict.fromkeys(CLASSES, 0.0)
    for code, share in zip(bias["corpus_languages"], bias["pool_share"], strict=True):
        sums[language(code).resource_class] += share
    return [(kind, share) for kind, share in sums.items() if share]


def _class_shares(
    bias: Mapping[str, Any], rows: Order
) -> Iterator[tuple[str, str, np.ndarray]]:
    """Yield (label, colour, share) for each class of the languages in the pool.

    The share is the share among the first passages, by query language.
    """
    (matrix,) = (
        matrix
        for name, matrix in bias["measures"].items()
        if name.startswith("language_distribution")
    )
    of_query = dict(zip(bias["query_languages"], np.array(matrix, dtype=float), strict=True))
    kinds = np.array([language(code).resource_class for code in bias["corpus_languages"]])
    for kind, _ in _pool_shares(bias):
        yield (
            CLASSES[kind],
            CLASS_COLOURS[kind],
            np.array([of_query[code][kinds == kind].sum() for code in rows.codes]),
        )


def _column(means: Mapping[str, Mapping[str, float]], rows: Order, name: str) -> np.ndarray:
    return np.array([means.get(code, {}).get(name, math.nan) for code in rows.codes])


def _matrix(
    matrix: Sequence[Sequence[float | None]],
    part: Mapping[str, Any],
    rows: Order,
    columns: Order,
) -> np.ndarray:
    """float [rows, columns] in the order of the figure."""
    values = np.array(matrix, dtype=float)
    return values[
        np.ix_(
            [part["query_languages"].index(code) for code in rows.codes],
            [part["corpus_languages"].index(code) for code in columns.codes],
        )
    ]


def _words(pool: str) -> str:
    """``pool:low-resource`` as words."""
    name, _, group = pool.partition(":")
    return f"{name} of {group}" if group else f"{name} of all languages"


def forest(
    comparison: Mapping[str, Any],
    metric: str,
    *,
    scale: float,
    higher_is_better: bool,
    alpha: float = 0.05,
    verb: str = "",
) -> "Figure":
    """Draw the differences of a comparison with their intervals.

    There is a line for each task, pair of runs and setting.

    Args:
        comparison: of `hybridbatch.scoring.compare.compare`.
        metric, scale: the unit of the differences, and the factor that gives this unit.
        higher_is_better: whether a difference above 0 is in favour of the first run.
        alpha: marks are filled if the corrected p value is below alpha.
        verb: "exceeds" if neither side is better.
    """
    import matplotlib
    from matplotlib.figure import Figure

    groups: dict[tuple[str, str, str], list[Mapping[str, Any]]] = {}
    for row in comparison["rows"]:
        groups.setdefault((row["task"], row["run_a"], row["run_b"]), []).append(row)
    lines = sum(len(rows) + 1 for rows in groups.values())
    with matplotlib.rc_context(STYLE | {"axes.spines.left": False}):
        figure = Figure(figsize=(7.6, 0.27 * lines + 1.0), layout="constrained")
        axes = figure.subplots()
        place, ticks = 0.0, []
        for (task, run_a, run_b), rows in groups.items():
            axes.text(0, place, f"{task}: {run_a} − {run_b}", transform=axes.get_yaxis_transform(), va="center",
                      fontsize=8.5, fontweight="bold", bbox={"facecolor": "white", "linewidth": 0, "pad": 1})  # fmt: skip
            for row in sorted(
                rows, key=lambda row: SETTINGS.index(row["setting"].partition(":")[0])
            ):
                place += 1
                real = row["p_holm"] < alpha
                ahead = (row["difference"] > 0) == higher_is_better
                colour = "0.45" if not real else AHEAD if ahead or verb == "exceeds" else BEHIND
                axes.hlines(
                    place,
                    scale * row["low"],
                    scale * row["high"],
                    color=colour,
                    linewidth=2.2,
                    alpha=0.6,
                )
                axes.scatter(scale * row["difference"], place, s=34, color=colour if real else "white", edgecolor=colour,
                             linewidth=1.3, zorder=3)  # fmt: skip
                effect = (
                    "" if row["effect_size"] is None else f"   d = {row['effect_size']:+.2f}"
                )
                half = scale * (row["high"] - row["low"]) / 2
                axes.text(1.02, place, f"{scale * row['difference']:+.1f} ± {half:.1f}   {p_in_words(row['p_holm'])}{effect}",
                          transform=axes.get_yaxis_transform(), va="center", fontsize=7.5)  # fmt: skip
                ticks.append((place, row["setting"]))
            place += 1.25
        axes.axvline(0, color="0.2", linewidth=0.8, zorder=0)
        axes.set_yticks([at for at, _ in ticks], [setting for _, setting in ticks], fontsize=8)
        axes.set_ylim(place - 0.6, -0.7)
        axes.tick_params(axis="y", length=0)
        axes.margins(x=0.08)
        points = "points of " if scale == 100 else ""
        side = (
            ""
            if verb == "exceeds"
            else f"; {'right' if higher_is_better else 'left'}: the first is better"
        )
        axes.set_xlabel(f"difference in {points}{metric}{side}", fontsize=8.5)
        figure.suptitle("95 % intervals over questions; filled: p (Holm) below 0.05", fontsize=8, x=0.01, ha="left",
                        color="0.35")  # fmt: skip
    return figure
