"""`hybridbatch report`: a sweep's findings as one HTML page, figures, CSV, LaTeX and Markdown."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hybridbatch.config import SweepConfig
from hybridbatch.files import atomic_folder
from hybridbatch.reporting import SILENT, Reporter
from hybridbatch.scaling.analysis import Sweep
from hybridbatch.scaling.cells import DEFAULT_NAME
from hybridbatch.scaling.figures import STYLE, figures, svg
from hybridbatch.scaling.findings import Findings, find
from hybridbatch.scaling.page import page
from hybridbatch.scaling.sentences import sentences
from hybridbatch.scaling.summary import csv_text, markdown_table

Row = Mapping[str, Any]
HIDDEN = ("law", "sizes", "values")  # of a row, what is drawn rather than shown
NOTES = {
    "means": "Macro-averages over the query languages of a group, with 95 % intervals over seeds and questions.",
    "comparisons": "Hybrid mixes against the pure strategies. p: paired randomisation test over questions, seeds averaged;"
    " p_holm and verdict for the main questions only (mAP and rank distance, all query languages, largest size),"
    " the others are exploratory.",
    "optima": "Mix at the top of a quadratic through the responses (or the best measured one, where that has no inner"
    " top); the gain is that of the best measured hybrid, which choosing it flatters a little.",
    "break_evens": "Training records from which a hybrid stays ahead of a pure strategy, interpolated, not extrapolated.",
    "laws": "E + A x^-b by robust least squares with 95 % bootstrap intervals; extrapolation_error: at the largest size,"
    " fitted without it.",
    "languages": "mAP by query language at the largest size, before and after training with every mix.",
    "missing": "Cells without a result; failed ones have their log in failed/KEY.log.",
}


def report(path: Path, progress: Reporter = SILENT) -> Path:
    """Write ``report/`` in a sweep's folder: ``index.html``, ``report.md``, ``figures/``, ``tables/`` (CSV, LaTeX).

    Returns: the path of ``index.html``.
    Raises: DataError for a folder that is no sweep, has no finished cell, or holds another schema version; OutputError.
    """
    sweep = Sweep.open(path)
    findings = find(sweep)
    answers = sentences(sweep, findings)
    tables = {name: [_shown(row) for row in rows] for name, rows in findings.tables().items()}
    commands = rerun(sweep.settings)
    with atomic_folder(path / "report") as folder:
        drawings = _draw(findings, folder / "figures", progress)
        (folder / "tables").mkdir()
        for name, rows in tables.items():
            (folder / "tables" / f"{name}.csv").write_text(csv_text(rows), encoding="utf-8")
        (folder / "tables" / "main.tex").write_text(latex(findings), encoding="utf-8")
        title = f"Hybrid batches: {path.resolve().name}"
        (folder / "report.md").write_text(_markdown(title, answers, findings, drawings, commands), encoding="utf-8")
        body = page(title, answers, [(text, drawn) for _, text, drawn in drawings], tables, commands, NOTES)
        (folder / "index.html").write_text(body, encoding="utf-8")
    progress.note(f"wrote {path / 'report' / 'index.html'}")
    return path / "report" / "index.html"


def rerun(settings: Mapping[str, Any]) -> list[str]:
    """The commands that make the sweep and its report again: settings that differ from the defaults.

    An absolute folder is given by its last part, since the rest belongs to one machine.
    """
    out = Path(settings["out"] or Path("experiments") / (settings["name"] or DEFAULT_NAME))
    folder = out.name if out.is_absolute() else str(out)
    defaults = SweepConfig().as_json()
    options = []
    for name, value in settings.items():
        if value == defaults[name] or name == "out":
            continue
        flag = "--" + name.replace("_", "-")
        if isinstance(value, bool):
            options.append(flag if value else flag.replace("--", "--no-"))
        else:
            options.append(f"{flag} '{_option(value, ';' if name == 'train_languages' else ',')}'")
    if settings["out"]:
        options.append(f"--out '{folder}'")
    return [" ".join(["hybridbatch scale-sweep", *options]), f"hybridbatch report '{folder}'"]


def latex(findings: Findings) -> str:
    """The means of all query languages at the largest size as a LaTeX table: a row per mix, a column per measure."""
    rows = [row for row in findings.means if row["group"] == "all" and row["metric"] in ("mAP", "rank_distance")]
    largest = max(row["pairs"] for row in rows)
    rows = [row for row in rows if row["pairs"] == largest]
    columns = list(dict.fromkeys((row["task"], row["setting"], row["metric"]) for row in rows))
    lines = [r"\begin{tabular}{l" + "r" * len(columns) + "}", r"\toprule"]
    lines.append(
        " & ".join(["mix", *(f"{setting} {metric}" for _, setting, metric in columns)]).replace("_", r"\_") + r" \\"
    )
    lines.append(r"\midrule")
    for mix in dict.fromkeys(row["mix"] for row in rows):
        found = {(row["task"], row["setting"], row["metric"]): row for row in rows if row["mix"] == mix}
        lines.append(" & ".join([f"{mix:g}", *(_latex_cell(found[column]) for column in columns)]) + r" \\")
    return "\n".join(
        [*lines, r"\bottomrule", r"\end{tabular}", f"% {largest:,} training records; ± half the 95 % interval", ""]
    )


def _latex_cell(row: Row) -> str:
    digits, scale = (0, 1) if row["metric"] == "rank_distance" else (1, 100)
    half = (row["high"] - row["low"]) / 2
    return f"${row['mean'] * scale:.{digits}f} \\pm {half * scale:.{digits}f}$"


def _draw(findings: Findings, folder: Path, progress: Reporter) -> list[tuple[str, str, str]]:
    """Write every figure as PNG and SVG; returns (name, caption, SVG text)."""
    import matplotlib

    folder.mkdir()
    drawn = []
    for name, caption, figure in figures(findings):
        text = svg(figure)
        (folder / f"{name}.svg").write_text(text, encoding="utf-8")
        with matplotlib.rc_context(STYLE):
            figure.savefig(folder / f"{name}.png", dpi=150, metadata={"Software": None})
        drawn.append((name, caption, text))
    return drawn


def _markdown(
    title: str,
    answers: Sequence[str],
    findings: Findings,
    drawings: Sequence[tuple[str, str, str]],
    commands: Sequence[str],
) -> str:
    main = [_shown(row) for row in findings.means if row["group"] == "all" and row["metric"] != "contrastive_entropy"]
    lines = [f"# {title}", "", *(f"- {answer}" for answer in answers), ""]
    lines += [text for name, caption, _ in drawings for text in (f"![{caption}](figures/{name}.svg)", "")]
    lines += [
        "## Means",
        "",
        NOTES["means"],
        "",
        markdown_table([{k: v for k, v in r.items() if k != "keys"} for r in main]),
    ]
    return "\n".join([*lines, "", "## Run it again", "", "```", *commands, "```", ""])


def _shown(row: Row) -> dict[str, Any]:
    return {name: value for name, value in row.items() if name not in HIDDEN}


def _option(value: Any, separator: str) -> str:
    if isinstance(value, Mapping):
        return "; ".join(f"{name}={_option(values, ',')}" for name, values in value.items())
    if isinstance(value, list):
        return separator.join("all" if item is None else str(item) for item in value)
    return str(value)
