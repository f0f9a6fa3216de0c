"""The command line: parses, calls one stage, shows its result. Nothing heavy is imported before a command runs."""

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

import hybridbatch
from hybridbatch import console
from hybridbatch.config import EvalConfig, PrepareConfig, TrainConfig
from hybridbatch.errors import HybridBatchError, Interrupted
from hybridbatch.options import from_settings
from hybridbatch.reporting import SILENT, Reporter

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    help="Hybrid monolingual and cross-lingual batches for multilingual dense retrieval.\n\n"
    "Results are JSON in experiments/NAME/. `hybridbatch COMMAND --help` explains a command.",
)
DryRun = Annotated[bool, typer.Option("--dry-run", help="Show what would be done, and do nothing.")]


def reporter() -> Reporter:
    """The terminal's reporter; silent on all ranks of a distributed run but the first."""
    return console.RichReporter() if os.environ.get("RANK", "0") == "0" else SILENT


def _command(cls: Any, arguments: dict[str, str] | None = None, **settings: Any) -> Callable[..., Any]:
    def register(handler: Callable[..., None]) -> Callable[..., None]:
        return app.command(**settings)(from_settings(cls, handler, arguments))

    return register


@_command(PrepareConfig, {"sources": "SOURCE"})
def prepare(
    config: PrepareConfig, list_: Annotated[bool, typer.Option("--list", help="List the built-in sources.")] = False
) -> None:
    """Build training data from built-in sources or your own parallel files."""
    if list_:
        from hybridbatch.sources import catalogue

        return console.table(catalogue(), title="Built-in sources")
    from hybridbatch.prepare import prepare as run

    console.out.print(str(run(config, reporter())), highlight=False)


@_command(TrainConfig)
def train(config: TrainConfig, dry_run: DryRun = False) -> None:
    """Fine-tune one encoder with hybrid batches."""
    if dry_run:
        from hybridbatch.train import plan

        return console.document(plan(config, reporter()))
    from hybridbatch.train import train as run

    console.out.print(str(run(config, reporter())), highlight=False)


@_command(EvalConfig, {"model": "MODEL"}, name="eval")
def evaluate(config: EvalConfig) -> None:
    """Score an encoder on every language pair and on the multilingual pool."""
    from hybridbatch.evaluate import evaluate as run
    from hybridbatch.evaluate import summary_rows
    from hybridbatch.files import read_json

    folder = run(config, reporter())
    console.table(
        summary_rows(read_json(folder / "eval.json")), title="mAP and rank distance, macro-averaged over languages"
    )
    console.out.print(str(folder), highlight=False)


@app.command()
def inspect(
    data: Annotated[Path, typer.Argument(help="Prepared data folder.")],
    records: Annotated[int, typer.Option(help="Sample records to show.")] = 3,
    languages: Annotated[str, typer.Option(help="Languages of the samples.")] = "all",
) -> None:
    """Summarise prepared data, with sample parallel records side by side."""
    from hybridbatch.store import Store, describe

    description = describe(Store.open(data), records=records, languages=languages)
    console.document(description)


@app.command()
def languages(
    group: Annotated[str, typer.Argument(help="Ids, groups and exclusions, such as 'low-resource,-swh'.")] = "all",
    of: Annotated[Path | None, typer.Option(help="Only languages of this prepared data folder.")] = None,
) -> None:
    """List the languages of a group."""
    from hybridbatch.languages import describe_group

    available = None
    if of:
        from hybridbatch.store import Store

        available = Store.open(of).languages
    console.table(describe_group(group, available=available), title=f"Languages: {group}")


def main() -> None:
    """Run the command line; users' mistakes become one line and exit code 2."""
    try:
        app()
    except Interrupted as stop:
        console.err.print(str(stop))
        sys.exit(130)
    except HybridBatchError as mistake:
        console.error(str(mistake))
        sys.exit(2)


def _version(wanted: bool) -> None:
    if wanted:
        console.out.print(hybridbatch.__version__, highlight=False)
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and stop.")
    ] = False,
) -> None:
    pass
