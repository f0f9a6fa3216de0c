"""`hybridbatch report`: a sweep's findings as one HTML page, figures, CSV, LaTeX and Markdown."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hybridbatch.common.errors import HybridBatchError
from hybridbatch.common.files import atomic_folder
from hybridbatch.common.languages import optional
from hybridbatch.common.progress import SILENT, Reporter
from hybridbatch.common.records import Task
from hybridbatch.common.tables import csv_text, markdown_table
from hybridbatch.scaling.analysis import Sweep
from hybridbatch.scaling.cells.folder import DEFAULT_NAME
from hybridbatch.scaling.contrasts import TESTED
from hybridbatch.scaling.findings import Findings, find
from hybridbatch.scaling.report.charts import charts
from hybridbatch.scaling.report.figures import figures
from hybridbatch.scaling.report.headline import headline
from hybridbatch.scaling.report.html import Contents, page
from hybridbatch.scaling.report.sentences import sections
from hybridbatch.scaling.report.tables import TableRow
from hybridbatch.scaling.settings import SweepConfig
from hybridbatch.scoring.drawing import write_both

HIDDEN = ("law", "sizes", "values")  # of a row, what is drawn rather than shown
NOTES = {
    "means": "Macro-averages over the query languages of a group, with 95 % intervals over seeds and questions.",
    "comparisons": "Hybrid mixes against the pure strategies (0 cross-lingual, 1 monolingual batches) and against"
    " baselines: strategies that know no mix, and the same mix with a teacher. Interval and p: one t"
    " test over seeds and questions at once, with the contrast's own degrees of freedom (degrees)."
    " p_holm (Holm, inside the family) and verdict for the main questions only (mAP and rank"
    " distance, all query languages, largest size); the others are exploratory. A verdict is better"
    " or worse; equivalent, where two one-sided t tests reject a difference as large as the margin;"
    " else undecided. detectable: the difference that would have been found with a chance of 80 %."
    " languages_low, languages_high, languages_p: the same difference with query languages as the"
    " units, for other languages like these.",
    "optima": "Mix at the top of a quadratic through the responses (or the best measured one, where that has no inner"
    " top); the gain is that of the best measured hybrid, which choosing it flatters a little.",
    "break_evens": "Training records from which a hybrid stays ahead of a pure strategy, interpolated, not extrapolated.",
    "interactions": "Change per doubling of scale: of the best mix, and of a hybrid's difference from a pure strategy (in"
    " units of the metric). p: of the difference, a t test of the slopes over seeds and questions at"
    " once; of the best mix, from the bootstrap. p_holm, inside the family, and settled for mAP and"
    " rank distance of all query languages.",
    "laws": "E + A x^-b by robust least squares with 95 % bootstrap intervals; over two axes E + A_1 x_1^-b_1 + A_2 x_2^-b_2;"
    " extrapolation_error: at the largest sizes, fitted without them.",
    "languages": "mAP by query language at the largest size, before and after training with every mix. Shares are of the"
    " training languages; lexical_distance: 1 - cosine of character trigram counts of the"
    " evaluation texts, to the nearest"
    " training language.",
    "traits": "Which languages gain: points of mAP from a hybrid over a pure strategy against traits of the query language."
    " rank_correlation: Spearman, each trait alone; slope: least squares on all traits, 95 %"
    " bootstrap interval over"
    " languages, p of t tests with HC3 standard errors.",
    "missing": "Cells without a result; failed ones have their log in failed/KEY.log.",
}


def report(*paths: Path, data_root: Path | None = None, progress: Reporter = SILENT) -> Path:
    """Write ``report/`` in a sweep's folder: ``index.html``, ``report.md``, ``figures/``,
    ``tables/`` (CSV, LaTeX).

    Args:
        paths: folders of sweeps of the same targets, reported as one; the report is written into
            the first.
        data_root: where local copies of the evaluation data are, for the lexical distances of its
            languages.
        progress: notes.
    Returns: the path of ``index.html``.
    Raises: DataError for a folder that is no sweep, has no finished cell, or holds another schema
        version, and for sweeps of different targets; OutputError.
    """
    sweep = Sweep.open(*paths)
    findings = find(sweep, _texts(sweep, data_root, progress))
    answers = sections(sweep, findings)
    tables = {name: [_shown(row) for row in rows] for name, rows in findings.tables().items()}
    commands = rerun(sweep.settings)
    target = paths[0] / "report"
    with atomic_folder(target) as folder:
        drawings = _draw(findings, folder / "figures")
        (folder / "tables").mkdir()
        for name, rows in tables.items():
            (folder / "tables" / f"{name}.csv").write_text(csv_text(rows), encoding="utf-8")
        (folder / "tables" / "main.tex").write_text(latex(findings), encoding="utf-8")
        title = f"Hybrid batches: {paths[0].resolve().name}"
        (folder / "report.md").write_text(
            _markdown(title, answers, findings, drawings, commands), encoding="utf-8"
        )
        links = {
            key: os.path.relpath(home.result(key), target) for key, home in sweep.homes.items()
        }
        contents = Contents(
            title=title, about=_about(sweep), answers=answers, charts=charts(findings), tables=tables, notes=NOTES,
            links=links, commands=commands, files=[name for name, _ in drawings], headline=headline(findings),
        )  # fmt: skip
        (folder / "index.html").write_text(page(contents), encoding="utf-8")
    progress.note(f"wrote {target / 'index.html'}")
    return target / "index.html"


def _about(sweep: Sweep) -> str:
    """What the report is of, in a sentence."""
    tasks = ", ".join(
        f"{task['name']} ({len(sweep.languages(task['name']))} query languages)"
        for task in sweep.cells[0]["eval"]["tasks"]
    )
    missing = f", {len(sweep.missing)} missing" if sweep.missing else ""
    models = ", ".join(dict.fromkeys(cell["axes"]["model"] for cell in sweep.cells))
    return f"{len(sweep.trained)} trained cells{missing}; start: {models}; evaluated on {tasks}."


def _texts(
    sweep: Sweep, data_root: Path | None, progress: Reporter
) -> dict[str, dict[str, list[str]]]:
    """Queries and passages of the sweep's tasks by language; without those that are not here as
    they were evaluated.
    """
    from hybridbatch.data.tasks.registry import load_task

    if not sweep.cells:
        return {}
    found = {}
    settings = sweep.cells[0]["settings"]["eval"]
    for task in sweep.cells[0]["eval"]["tasks"]:
        name, evaluated = task["name"], task["provenance"].get("fingerprint")
        try:
            chosen = load_task(name, data_root=data_root, languages=optional(settings["languages"]))
            whole = load_task(name, data_root=data_root)  # of training languages, too
        except HybridBatchError as error:
            progress.note(f"{name}: no lexical distances of its languages ({error})")
            continue
        if chosen.provenance["fingerprint"] != evaluated:
            progress.note(
                f"{name}: no lexical distances of its languages, its texts have changed since"
            )
            continue
        found[name] = _texts_of(whole)
    return found


def _texts_of(task: Task) -> dict[str, list[str]]:
    """Queries and passages of a task, by language."""
    texts: dict[str, list[str]] = {}
    for side in (task.queries, task.corpus):
        for code, one in side.items():
            texts.setdefault(code, []).extend(one.texts)
    return texts


def rerun(settings: Sequence[Mapping[str, Any]]) -> list[str]:
    """The commands that make the sweeps and their report again: settings that differ from the
    defaults.

    An absolute folder is given by its last part, since the rest belongs to one machine.
    """
    folders = [_folder(each) for each in settings]
    report = " ".join(["hybridbatch report", *(f"'{folder}'" for folder in folders)])
    return [*(" ".join(["hybridbatch scale-sweep", *_options(each)]) for each in settings), report]


def _folder(settings: Mapping[str, Any]) -> str:
    out = Path(settings["out"] or Path("experiments") / (settings["name"] or DEFAULT_NAME))
    return out.name if out.is_absolute() else str(out)


def _options(settings: Mapping[str, Any]) -> list[str]:
    defaults = SweepConfig().as_json()
    options = []
    for name, value in settings.items():
        if value == defaults.get(name) or name == "out":
            continue
        flag = "--" + name.replace("_", "-")
        if isinstance(value, bool):
            options.append(flag if value else flag.replace("--", "--no-"))
        else:
            options.append(f"{flag} '{_option(value, ';' if name == 'train_languages' else ',')}'")
    return [*options, *([f"--out '{_folder(settings)}'"] if settings["out"] else [])]


def latex(findings: Findings) -> str:
    """The means of all query languages at the largest size as a LaTeX table: a row per mix, a
    column per measure.
    """
    rows = [row for row in _main_means(findings) if findings.place(row) == findings.centre]
    largest = max(row["pairs"] for row in rows)
    rows = [row for row in rows if row["pairs"] == largest]
    measures = list(dict.fromkeys(map(_measure, rows)))
    names = ["mix", *(f"{setting} {metric}" for _, setting, metric in measures)]
    lines = [
        r"\begin{tabular}{l" + "r" * len(measures) + "}",
        r"\toprule",
        " & ".join(names).replace("_", r"\_") + r" \\",
        r"\midrule",
    ]
    for mix in dict.fromkeys(row["mix"] for row in rows):
        found = {_measure(row): row for row in rows if row["mix"] == mix}
        cells = [_latex_cell(found[measure]) for measure in measures]
        lines.append(" & ".join(["–" if mix is None else f"{mix:g}", *cells]) + r" \\")
    lines += [r"\bottomrule", r"\end{tabular}"]
    lines.append(f"% {largest:,} training records; ± half the 95 % interval")
    return "\n".join([*lines, ""])


def _main_means(findings: Findings) -> list[TableRow]:
    """The means that people know, over all query languages."""
    return [row for row in findings.means if row["group"] == "all" and row["metric"] in TESTED]


def _measure(row: TableRow) -> tuple[str, str, str]:
    return row["task"], row["setting"], row["metric"]


def _latex_cell(row: TableRow) -> str:
    digits, scale = (0, 1) if row["metric"] == "rank_distance" else (1, 100)
    half = (row["high"] - row["low"]) / 2
    return f"${row['mean'] * scale:.{digits}f} \\pm {half * scale:.{digits}f}$"


def _draw(findings: Findings, folder: Path) -> list[tuple[str, str]]:
    """Write every figure as PNG and SVG; returns (name, caption)."""
    folder.mkdir()
    drawn = []
    for name, caption, figure in figures(findings):
        write_both(figure, folder, name)
        drawn.append((name, caption))
    return drawn


def _markdown(
    title: str,
    answers: Mapping[str, Sequence[str]],
    findings: Findings,
    drawings: Sequence[tuple[str, str]],
    commands: Sequence[str],
) -> str:
    lines = [f"# {title}", ""]
    top = headline(findings)
    if top.rows:
        lines += [top.caption, "", markdown_table(top.rows), "", top.rule, ""]
    for question, found in answers.items():
        lines += [f"## {question}", "", *(f"- {sentence}" for sentence in found), ""]
    for name, caption in drawings:
        lines += [f"![{caption}](figures/{name}.svg)", ""]
    means = []
    for row in _main_means(findings):
        means.append({name: value for name, value in _shown(row).items() if name != "keys"})
    lines += ["## Means", "", NOTES["means"], "", markdown_table(means), ""]
    lines += ["## Run it again", "", "```", *commands, "```", ""]
    return "\n".join(lines)


def _shown(row: TableRow) -> dict[str, Any]:
    return {name: value for name, value in row.items() if name not in HIDDEN}


def _option(value: Any, separator: str) -> str:
    if isinstance(value, Mapping):
        return "; ".join(f"{name}={_option(values, ',')}" for name, values in value.items())
    if isinstance(value, list):
        return separator.join("all" if item is None else str(item) for item in value)
    return str(value)
