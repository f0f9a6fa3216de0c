"""`hybridbatch report`: a sweep's findings as one HTML page, figures, CSV, LaTeX and Markdown."""

import os
from collections.abc import Mapping, Sequence
from functools import partial
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

HIDDEN = ("law", "sizes", "values")  # fields of a row that figures draw and tables leave out
NOTES = {
    "means": "Macro-averages over the query languages of a group, with 95 % intervals over seeds"
    " and questions.",
    "comparisons": "Hybrid mixes against the pure strategies (0 cross-lingual, 1 monolingual"
    " batches) and against baselines: strategies that have no mix, and the same mix with a teacher."
    " The interval and p come from one t test over seeds and questions at once, and degrees are its"
    " degrees of freedom. Only the main questions (mAP and rank distance, all query languages,"
    " largest size) have p_holm (Holm's correction inside the family) and a verdict; the other rows"
    " are exploratory. A verdict is better or worse; or equivalent, if two one-sided t tests reject"
    " a difference as large as the margin; or else undecided. detectable is the difference that the"
    " test would find with a chance of 80 %. languages_low, languages_high and languages_p take the"
    " query languages as the units, and so cover other languages like these.",
    "gaps": "How far debiasing closes the gap between the pure strategies: the difference of mix 0"
    " and mix 1 in raw scores, less their difference in debiased scores, with one t test over seeds"
    " and questions. share is the part of the raw gap that goes; it is left out if the raw gap is"
    " smaller than the margin. Rows at the largest size have p_holm and a verdict.",
    "lines": "Scores without training: the starting models, raw and debiased, and baselines. gain is"
    " the mean of mix 0.5 (or the nearest mix) at the largest size less this line, with an interval"
    " over seeds and questions; these comparisons are exploratory and have no verdict.",
    "optima": "The best mix is the top of a quadratic through the responses, or the best measured"
    " mix if the quadratic has no inner top. The gain is the gain of the best measured hybrid. It"
    " is slightly too high, because the same data choose this hybrid.",
    "break_evens": "The number of training records from which a hybrid stays ahead of a pure"
    " strategy. It is interpolated, never extrapolated.",
    "interactions": "The change per doubling of scale of the best mix, and of a hybrid's difference"
    " from a pure strategy (in units of the metric). The p value of a difference comes from a t"
    " test of the slopes over seeds and questions at once, and the p value of the best mix comes"
    " from the bootstrap. Rows about mAP and rank distance of all query languages have p_holm"
    " (corrected inside the family) and settled.",
    "laws": "E + A x^-b, fitted by robust least squares, with 95 % bootstrap intervals. Over two"
    " axes the law is E + A_1 x_1^-b_1 + A_2 x_2^-b_2. extrapolation_error is the error at the"
    " largest sizes of a law fitted without them.",
    "languages": "mAP by query language at the largest size, before training and after training"
    " with every mix. Shares are shares of the training languages. lexical_distance is 1 - the"
    " cosine of character trigram counts of the evaluation texts, to the nearest"
    " training language.",
    "traits": "How the gain of a hybrid over a pure strategy, in points of mAP, depends on traits"
    " of the query language. rank_correlation is Spearman's, for each trait alone. slope is from"
    " least squares on all traits, with a 95 % bootstrap interval over languages; p is from t tests"
    " with HC3 standard errors.",
    "missing": "Cells without a result. The log of a failed cell is in failed/KEY.log.",
}


def report(*paths: Path, data_root: Path | None = None, progress: Reporter = SILENT) -> Path:
    """Write ``report/`` in a sweep's folder: ``index.html``, ``report.md``, ``figures/``,
    ``tables/`` (CSV, LaTeX).

    Args:
        paths: folders of sweeps with the same evaluation targets. They give one report, which is
            written into the first folder.
        data_root: the folder with local copies of the evaluation data, which the lexical distances
            of languages need.
        progress: receives notes.

    Returns:
        The path of ``index.html``.

    Raises:
        DataError: a folder is no sweep, has no finished cell or has another schema version, or the
            sweeps have different targets.
        OutputError: the report cannot be written.
    """
    sweep = Sweep.open(*paths)
    findings = find(sweep, _texts(sweep, data_root, progress))
    answers = sections(sweep, findings)
    tables = {}
    for name, found in findings.tables().items():
        tables[name] = [_shown(row) for row in found]
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
            title=title,
            about=_about(sweep),
            answers=answers,
            charts=charts(findings),
            tables=tables,
            notes=NOTES,
            links=links,
            commands=commands,
            files=[name for name, _ in drawings],
            headline=headline(findings),
        )
        (folder / "index.html").write_text(page(contents), encoding="utf-8")
    progress.note(f"wrote {target / 'index.html'}")
    return target / "index.html"


def _about(sweep: Sweep) -> str:
    """The sentence under the title: cells, starting models and evaluation tasks."""
    names = [task["name"] for task in sweep.tasks]
    tasks = ", ".join(
        f"{name} (query languages: {len(sweep.languages(name))})" for name in names
    )
    missing = f", {len(sweep.missing)} missing" if sweep.missing else ""
    models = ", ".join(dict.fromkeys(cell["axes"]["model"] for cell in sweep.trained))
    return (
        f"The sweep has {len(sweep.trained)} trained cells{missing}. They start from {models} and"
        f" are evaluated on {tasks}."
    )


def _texts(
    sweep: Sweep, data_root: Path | None, progress: Reporter
) -> dict[str, dict[str, list[str]]]:
    """Queries and passages of the sweep's tasks by language.

    A task is left out if its data are not here, or are not the data that were evaluated.
    """
    from hybridbatch.data.tasks.registry import load_task

    if not sweep.cells:
        return {}
    found: dict[str, dict[str, list[str]]] = {}
    settings = sweep.cells[0]["settings"]["eval"]
    parallel = settings.get("parallel", "auto")
    for task in sweep.tasks:
        name, evaluated = task["name"], task["provenance"].get("fingerprint")
        if task.get("of"):
            if task["of"] in found:
                found[name] = found[task["of"]]
            continue
        try:
            load = partial(load_task, name, data_root=data_root, parallel=parallel)
            chosen = load(languages=optional(settings["languages"]))
            whole = load()  # includes the training languages
        except HybridBatchError as error:
            progress.note(
                f"{name}: the report has no lexical distances for this task ({error})"
            )
            continue
        if chosen.provenance["fingerprint"] != evaluated:
            progress.note(
                f"{name}: the report has no lexical distances for this task, because its texts have"
                " changed since the evaluation"
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
    """The commands that run the sweeps and write their report again.

    They give the settings that differ from the defaults. They give an absolute folder by its last
    part, because the rest of its path belongs to one machine.
    """
    folders = [_folder(each) for each in settings]
    report = " ".join(["hybridbatch report", *(f"'{folder}'" for folder in folders)])
    return [
        *(" ".join(["hybridbatch scale-sweep", *_options(each)]) for each in settings),
        report,
    ]


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
            options.append(
                f"{flag} '{_option(value, ';' if name == 'train_languages' else ',')}'"
            )
    return [*options, *([f"--out '{_folder(settings)}'"] if settings["out"] else [])]


def latex(findings: Findings) -> str:
    """A LaTeX table of the means over all query languages at the largest size.

    It has a row for each mix and a column for each measure.
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
    """The means of mAP and rank distance over all query languages."""
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
