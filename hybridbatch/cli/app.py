"""The command line: parses, calls one stage, shows its result. Nothing heavy is imported before a
command runs.
"""

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

import hybridbatch
from hybridbatch.cli import console
from hybridbatch.cli.options import from_settings
from hybridbatch.common.errors import HybridBatchError, Interrupted
from hybridbatch.common.progress import SILENT, Reporter
from hybridbatch.data.settings import MineConfig, PrepareConfig
from hybridbatch.scaling.settings import ReproduceConfig, SweepConfig
from hybridbatch.scoring.settings import EvalConfig
from hybridbatch.training.settings import TrainConfig

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    help="Hybrid monolingual and cross-lingual batches for multilingual dense retrieval.\n\n"
    "Results are JSON in experiments/NAME/. `hybridbatch COMMAND --help` explains a command.",
)
# click's, or that of the copy in newer typers
UsageError: type[Exception] = typer.BadParameter.__bases__[0]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Show what would be done, and do nothing.")]


def reporter() -> Reporter:
    """The terminal's reporter; silent on all ranks of a distributed run but the first."""
    return console.RichReporter() if os.environ.get("RANK", "0") == "0" else SILENT


def _command(
    cls: Any, arguments: dict[str, str] | None = None, **settings: Any
) -> Callable[..., Any]:
    def register(handler: Callable[..., None]) -> Callable[..., None]:
        return app.command(**settings)(from_settings(cls, handler, arguments))

    return register


@_command(PrepareConfig, {"sources": "SOURCE"})
def prepare(
    config: PrepareConfig,
    list_: Annotated[bool, typer.Option("--list", help="List the built-in sources.")] = False,
) -> None:
    """Build training data from built-in sources or your own parallel files."""
    if list_:
        from hybridbatch.data.sources.registry import catalogue

        return console.table(catalogue(), title="Built-in sources")
    from hybridbatch.data.prepare import prepare as run

    console.out.print(str(run(config, reporter())), highlight=False)


@_command(MineConfig, {"data": "DATA"})
def mine(config: MineConfig) -> None:
    """Find hard negatives for prepared data, by BM25 or with an encoder."""
    from hybridbatch.data.mine import mine as run

    console.out.print(str(run(config, reporter())), highlight=False)


@_command(TrainConfig)
def train(config: TrainConfig, dry_run: DryRun = False) -> None:
    """Fine-tune one encoder with hybrid batches."""
    if dry_run:
        from hybridbatch.training.train import plan

        return console.document(plan(config, reporter()))
    from hybridbatch.training.train import train as run

    console.out.print(str(run(config, reporter())), highlight=False)


@_command(EvalConfig, {"model": "MODEL"}, name="eval")
def evaluate(
    config: EvalConfig,
    dry_run: DryRun = False,
    list_: Annotated[bool, typer.Option("--list", help="List the built-in tasks.")] = False,
) -> None:
    """Score an encoder on every language pair and on the multilingual pool."""
    if list_:
        from hybridbatch.data.tasks.registry import describe_tasks

        return console.table(
            describe_tasks(),
            title="Built-in tasks; besides, mteb's by name and folders of your own",
        )
    if dry_run:
        from hybridbatch.scoring.evaluate import plan

        return console.table(plan(config), title=f"To score with {config.model}")
    from hybridbatch.common.files import read_json
    from hybridbatch.scoring.evaluate import SECOND, leads
    from hybridbatch.scoring.evaluate import evaluate as run
    from hybridbatch.scoring.summary import official_rows, summary_rows

    folder = run(config, reporter())
    if not leads(config):
        return
    result = read_json(folder / "eval.json")
    if result["tasks"]:
        console.table(
            summary_rows(result),
            title="mAP by setting, and rank distance, macro-averaged over languages",
        )
    if result["official"]:
        console.table(official_rows(result), title="mteb tasks")
    if config.rerank:
        reranked = read_json(folder / SECOND / "eval.json")
        console.table(summary_rows(reranked), title=f"The same after reranking by {config.rerank}")
    console.out.print(str(folder), highlight=False)


@_command(ReproduceConfig)
def reproduce(config: ReproduceConfig, dry_run: DryRun = False) -> None:
    """Train and score several mixes from one start, and write a report."""
    if dry_run:
        from hybridbatch.scaling.reproduce import plan

        return console.document(
            {
                arm.name: {
                    "train": training.as_json() if training else None,
                    "eval": evaluation.as_json(),
                }
                for arm, (training, evaluation) in plan(config).items()
            }
        )
    from hybridbatch.common.files import read_json
    from hybridbatch.scaling.reproduce import reproduce as run
    from hybridbatch.scaling.reproduce import table_rows

    folder = run(config, reporter())
    console.table(
        table_rows(read_json(folder / "results.json")),
        title=f"{config.name}: mAP by setting, and rank distance",
    )
    console.out.print(f"{folder}/report.md", highlight=False)


@app.command()
def compare(
    runs: Annotated[
        list[str],
        typer.Argument(metavar="RUN...", help="Evaluation folders; one per seed as A1,A2."),
    ],
    metric: Annotated[
        str, typer.Option(help="Metric to compare, such as mAP, ndcg@10 or rank_distance.")
    ] = "mAP",
    seed: Annotated[
        int, typer.Option(help="Seed of the randomisation test and the bootstrap.")
    ] = 13,
    out: Annotated[
        Path | None,
        typer.Option(
            help="Also write the comparison there: .svg or .png (figure), .md, else JSON."
        ),
    ] = None,
) -> None:
    """Test which of several evaluations is better, with questions as the unit."""
    from hybridbatch.scoring.compare import compare as run
    from hybridbatch.scoring.compare import write

    result = run([[Path(part) for part in group.split(",")] for group in runs], metric, seed=seed)
    shown = (
        "task",
        "setting",
        "run_a",
        "run_b",
        "questions",
        "mean_a",
        "mean_b",
        "difference",
        "low",
        "high",
        "p_holm",
        "effect_size",
    )
    console.table(
        [{name: row[name] for name in shown} for row in result["rows"]],
        title=f"Comparison by {metric}",
    )
    console.lines(result["summaries"])
    if out:
        write(result, out)
        console.out.print(str(out), highlight=False)


@app.command()
def figures(
    runs: Annotated[list[Path], typer.Argument(metavar="EVAL...", help="Evaluation folders.")],
    metric: Annotated[str, typer.Option(help="Metric of the heat map of language pairs.")] = "mAP",
) -> None:
    """Draw evaluations: heat maps of language pairs, and language bias, as SVG and PNG in
    EVAL/figures.
    """
    from hybridbatch.scoring.figures import draw

    for folder in runs:
        console.lines([str(path) for path in draw(folder, metric, reporter())])


@app.command()
def cache(
    prune: Annotated[
        float | None,
        typer.Option(metavar="GB", help="Drop what was used longest ago until so much is left."),
    ] = None,
) -> None:
    """Show the stored embeddings, and prune them."""
    from datetime import UTC, datetime

    from hybridbatch.search import embeddings

    if prune is not None:
        dropped = embeddings.prune(max_bytes=int(prune * 1e9))
        console.lines(
            [
                f"dropped {space.model} ({space.side}), {space.bytes / 1e6:,.0f} MB"
                for space in dropped
            ]
        )
    rows = [
        {
            "model": space.model,
            "fingerprint": space.fingerprint[:12],
            "side": space.side,
            "precision": space.precision,
            "vectors": space.vectors,
            "MB": round(space.bytes / 1e6),
            "last used": datetime.fromtimestamp(space.last_used, UTC).strftime("%Y-%m-%d %H:%M"),
        }
        for space in embeddings.list_spaces()
    ]
    console.table(rows, title=f"Stored embeddings in {embeddings.default_folder()}")


sweeps = typer.Typer()


app.add_typer(sweeps, name="scale-sweep")


def _scale_sweep(
    config: SweepConfig,
    context: typer.Context,
    dry_run: DryRun = False,
    yes: Annotated[
        bool, typer.Option("--yes", help="Run a grid of more than 10,000 cells.")
    ] = False,
) -> None:
    """Train and score a grid of mix, pairs, languages, batch size, model and seed; go on where it
    was interrupted.
    """
    if context.invoked_subcommand:
        return
    from hybridbatch.scaling import sweep

    if dry_run:
        planned = sweep.dry_run(config, reporter())
        _show_cells(planned.pop("cells"), f"Cells of {sweep.sweep_path(config)}")
        return console.document(planned)
    folder = sweep.run_sweep(config, reporter(), confirmed=yes)
    console.out.print(f"{folder}/summary.md", highlight=False)


sweeps.callback(invoke_without_command=True)(from_settings(SweepConfig, _scale_sweep))


@sweeps.command()
def status(
    folder: Annotated[Path, typer.Argument(help="Folder of a sweep, running or not.")],
) -> None:
    """Show every cell of a sweep with its state."""
    from hybridbatch.scaling.sweep import status as states

    _show_cells(states(folder), str(folder))


def _show_cells(rows: list[dict[str, Any]], title: str) -> None:
    """A table of a sweep's cells; axes that are the same in all of them are below it."""
    from hybridbatch.scaling.sweep import varying

    told_apart, same = varying(rows)
    console.table(told_apart, title=title)
    if same:
        console.lines(
            [
                "all trained cells: "
                + ", ".join(f"{name} {console.cell(value)}" for name, value in same.items())
            ]
        )


@sweeps.command()
def check(
    folder: Annotated[Path, typer.Argument(help="Folder of a sweep.")],
    cells: Annotated[
        int, typer.Option(help="Finished cells to do again, drawn at random.", min=1)
    ] = 1,
    seed: Annotated[int, typer.Option(help="Seed of the draw.", min=0)] = 13,
    tolerance: Annotated[
        float, typer.Option(help="Largest difference in mAP of any language.", min=0)
    ] = 0.02,
    data: Annotated[
        str | None, typer.Option(help="Training data; default: as the sweep says.")
    ] = None,
    data_root: Annotated[
        Path | None, typer.Option(help="Folder that holds local copies of public data sets.")
    ] = None,
) -> None:
    """Do random cells of a sweep again and compare them with the record."""
    from hybridbatch.scaling.check import check_cells

    checks = check_cells(
        folder, cells, seed=seed, data=data, data_root=data_root, report=reporter()
    )
    for each in checks:
        console.table(each.rows, title=each.cell.label)
        console.lines(
            [
                f"{each.cell.key}:"
                f" {'the same to the last bit' if each.identical else 'not the same bits'}"
            ]
        )
    if not all(each.within(tolerance) for each in checks):
        console.error(f"{folder}: mAP differs by more than {tolerance:g} from the record")
        raise typer.Exit(1)


@app.command()
def report(
    folders: Annotated[
        list[Path],
        typer.Argument(
            metavar="FOLDER...", help="Folders of sweeps of the same targets, reported as one."
        ),
    ],
    data_root: Annotated[
        Path | None, typer.Option(help="Folder that holds local copies of public data sets.")
    ] = None,
) -> None:
    """Write the findings of a sweep into it: one HTML page, figures, CSV, LaTeX and Markdown."""
    from hybridbatch.scaling.report.report import report as run

    console.out.print(str(run(*folders, data_root=data_root, progress=reporter())), highlight=False)


@app.command()
def inspect(
    data: Annotated[Path, typer.Argument(help="Prepared data folder.")],
    records: Annotated[int, typer.Option(help="Sample records to show.")] = 3,
    languages: Annotated[str, typer.Option(help="Languages of the samples.")] = "all",
    json_: Annotated[bool, typer.Option("--json", help="All of it as JSON.")] = False,
) -> None:
    """Show what is in prepared data, what was left out and why, and sample parallel records side by
    side.
    """
    from hybridbatch.data import inspection
    from hybridbatch.data.store.reader import Store

    found = inspection.describe(Store.open(data), records=records, languages=languages)
    if json_:
        return console.json(found)
    console.table(
        inspection.source_table(found),
        title=f"{data}: rows by source, fingerprint {found['fingerprint']}",
    )
    console.lines(inspection.origins(found))
    console.table(
        inspection.language_table(found), title=f"Rows by language, {found['languages']} languages"
    )
    console.table(
        inspection.dropped_table(found), title=f"Rows left out: {found['dropped']['rows']:,}"
    )
    if "quality" in found:
        console.table(inspection.quality_table(found), title=inspection.quality_title(found))
    console.table(
        inspection.removed_table(found),
        title=f"Evaluation texts, in {found['removed']['records']:,} records left out",
    )
    for name in ("language_check", "translation"):
        if name in found:
            console.document({name: found[name]})
    for sample in found["samples"]:
        console.table(
            inspection.sample_table(sample), title=f"{sample['source']}, record {sample['record']}"
        )


@app.command()
def audit(
    data: Annotated[Path, typer.Argument(help="Prepared data folder.")],
    tasks: Annotated[
        list[str] | None,
        typer.Argument(metavar="[TASK...]", help="Evaluation tasks; default: as `prepare` checks."),
    ] = None,
    data_root: Annotated[
        Path | None, typer.Option(help="Folder that holds local copies of public data sets.")
    ] = None,
    languages: Annotated[str, typer.Option(help="Languages of the tasks to look at.")] = "all",
    out: Annotated[Path | None, typer.Option(help="Also write the report there, as JSON.")] = None,
) -> None:
    """Report evaluation texts in prepared data, exact and nearly so, without changing it."""
    from hybridbatch.common.files import write_json
    from hybridbatch.data.filters.decontamination import audit as run
    from hybridbatch.data.filters.decontamination import summary

    result = run(
        data, tasks or ("all",), data_root=data_root, languages=languages, report=reporter()
    )
    console.table(result["found"]["counts"], title=f"Evaluation texts in {data}")
    console.document({"examples": result["found"]["examples"]})
    console.lines([summary(result["found"])])
    if out:
        write_json(out, result)
        console.out.print(str(out), highlight=False)


@app.command()
def languages(
    group: Annotated[
        str, typer.Argument(help="Ids, groups and exclusions, such as 'low-resource,-swh'.")
    ] = "all",
    of: Annotated[
        Path | None, typer.Option(help="Only languages of this prepared data folder.")
    ] = None,
) -> None:
    """List the languages of a group."""
    from hybridbatch.common.languages import describe_group

    available = None
    if of:
        from hybridbatch.data.store.reader import Store

        available = Store.open(of).languages
    console.table(describe_group(group, available=available), title=f"Languages: {group}")


def main() -> None:
    """Run the command line; users' mistakes become one line and exit code 2, also of several
    processes together.
    """
    leads = os.environ.get("RANK", "0") == "0"
    console.out.quiet = not leads
    try:
        app(standalone_mode=leads)
    except UsageError:  # the first process shows it
        sys.exit(2)
    except Interrupted as stop:
        if leads:
            console.err.print(str(stop))
        sys.exit(130)
    except HybridBatchError as mistake:
        if _tells(mistake):
            console.error(str(mistake))
        sys.exit(2)


def _tells(mistake: HybridBatchError) -> bool:
    if os.environ.get("WORLD_SIZE", "1") == "1":
        return True
    from hybridbatch.training.distributed import tells

    return tells(mistake)


def _version(wanted: bool) -> None:
    if wanted:
        console.out.print(hybridbatch.__version__, highlight=False)
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_version, is_eager=True, help="Show the version and stop."
        ),
    ] = False,
) -> None:
    pass
