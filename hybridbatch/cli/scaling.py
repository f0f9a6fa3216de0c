"""Commands about experiments of many runs: reproduce, scale-sweep, report."""

from pathlib import Path
from typing import Annotated, Any

import typer

from hybridbatch.cli import console
from hybridbatch.cli.base import (
    SCALING,
    DataRoot,
    DryRun,
    app,
    command,
    reporter,
    with_examples,
    with_output_options,
)
from hybridbatch.cli.help import HelpfulGroup, context_settings
from hybridbatch.cli.options import from_settings, number_option
from hybridbatch.cli.tables import cell
from hybridbatch.scaling.settings import ReproduceConfig, SweepConfig

sweeps = typer.Typer(
    cls=with_examples(
        HelpfulGroup,
        [
            "hybridbatch scale-sweep --mix 0,0.5,1 --pairs 500,2k --seeds 13,14 --dry-run",
            "hybridbatch scale-sweep --config grid.yaml --launcher slurm --jobs 20",
        ],
    ),
    context_settings=context_settings(),
    rich_markup_mode=None,
)
app.add_typer(sweeps, name="scale-sweep", rich_help_panel=SCALING)


@command(
    SCALING,
    ReproduceConfig,
    examples=[
        "hybridbatch reproduce",
        "hybridbatch reproduce --mixes 0,50%,1 --seeds 13,14 --out experiments/three-mixes",
        "hybridbatch reproduce --config experiments/paper/xlm-r.yaml --scale 0.01 --dry-run",
    ],
)
def reproduce(config: ReproduceConfig, dry_run: DryRun = False) -> None:
    """Train several mixes from one encoder, score them, and write a report."""
    if dry_run:
        from hybridbatch.scaling.reproduce import dry_run as planned

        return console.document(planned(config))
    from hybridbatch.common.documents import read_document
    from hybridbatch.scaling.reproduce import Reproduced, table_rows
    from hybridbatch.scaling.reproduce import reproduce as run

    folder = run(config, reporter())
    result = read_document(folder / "results.json", Reproduced, "run the command again")
    console.table(
        table_rows(result),
        title=f"{config.name}: mAP by setting, and rank distance, at temperature"
        f" {result['temperature']:g}",
    )
    console.path(folder / "report.md")


def _scale_sweep(
    config: SweepConfig,
    context: typer.Context,
    dry_run: DryRun = False,
    yes: Annotated[
        bool, typer.Option("--yes", help="Allow a grid of more than 10,000 cells.")
    ] = False,
) -> None:
    """Train and score a grid of mix, pairs, languages, batch size, model and seed.

    An interrupted sweep continues where it stopped.
    """
    if context.invoked_subcommand:
        return
    from hybridbatch.scaling import sweep

    if dry_run:
        planned = sweep.dry_run(config, reporter())
        if cells := planned.pop("cells"):
            _show_cells(cells, f"Cells of {sweep.sweep_path(config)}")
        return console.document(planned)
    folder = sweep.run_sweep(config, reporter(), confirmed=yes)
    console.path(folder / "summary.md")


sweeps.callback(invoke_without_command=True)(
    with_output_options(from_settings(SweepConfig, _scale_sweep))
)


@command(
    SCALING,
    to=sweeps,
    examples=[
        "hybridbatch scale-sweep status experiments/scale-sweep",
        "hybridbatch scale-sweep status experiments/grid --json",
    ],
)
def status(
    folder: Annotated[
        Path, typer.Argument(help="Folder of a sweep, which may still be running.")
    ],
) -> None:
    """Show every cell of a sweep with its state."""
    from hybridbatch.scaling.sweep import status as states

    _show_cells(states(folder), str(folder))


def _show_cells(rows: list[dict[str, Any]], title: str) -> None:
    """Show a table of the cells; axes with one value for all cells are listed below it."""
    from hybridbatch.scaling.sweep import varying

    told_apart, same = varying(rows)
    console.table(told_apart, title=title)
    if same:
        console.lines(
            [
                "all trained cells: "
                + ", ".join(f"{name} {cell(value)}" for name, value in same.items())
            ]
        )


@command(
    SCALING,
    to=sweeps,
    examples=[
        "hybridbatch scale-sweep check experiments/scale-sweep",
        "hybridbatch scale-sweep check experiments/grid --cells 3 --seed 7",
    ],
)
def check(
    folder: Annotated[Path, typer.Argument(help="Folder of a sweep.")],
    cells: Annotated[
        int,
        number_option(int, "Number of finished cells to run again, drawn at random.", least=1),
    ] = 1,
    seed: Annotated[int, number_option(int, "Seed of the random draw.")] = 13,
    tolerance: Annotated[
        float,
        number_option(float, "Largest difference in mAP that is allowed for any language."),
    ] = 0.02,
    exact: Annotated[
        bool,
        typer.Option(
            "--exact",
            help="Also fail where bits differ, if the record is of the same kind of machine.",
        ),
    ] = False,
    data: Annotated[
        str | None, typer.Option(help="Training data; default: the data that the sweep names.")
    ] = None,
    data_root: DataRoot = None,
) -> None:
    """Run random cells of a sweep again and compare the results with the stored ones.

    Trained cells come first. It fails if mAP differs by more than --tolerance, or rank distance by
    more than a tenth.
    """
    from hybridbatch.scaling.check import RANKS, check_cells

    checks = check_cells(
        folder, cells, seed=seed, data=data, data_root=data_root, report=reporter()
    )
    for each in checks:
        console.table(each.rows, title=each.cell.label)
        console.lines([f"{each.cell.key}: {each.verdict}"])
    if not all(each.within(tolerance) for each in checks):
        console.error(
            f"{folder}: differs from the record: mAP by more than {tolerance:g}, or rank distance"
            f" by more than {RANKS:.0%}"
        )
        raise typer.Exit(1)
    if exact and any(each.other_bits for each in checks):
        console.error(
            f"{folder}: not the bits of the record, though the machine is of its kind"
        )
        raise typer.Exit(1)


@command(
    SCALING,
    examples=[
        "hybridbatch report experiments/scale-sweep",
        "hybridbatch report experiments/grid experiments/control --json",
    ],
)
def report(
    folders: Annotated[
        list[Path],
        typer.Argument(
            metavar="FOLDER...",
            help="Folders of sweeps that have the same targets; one report covers them all.",
        ),
    ],
    data_root: DataRoot = None,
) -> None:
    """Write the report of a sweep into its folder: HTML page, figures, CSV, LaTeX and Markdown."""
    from hybridbatch.scaling.report.report import report as run

    console.path(run(*folders, data_root=data_root, progress=reporter()))
