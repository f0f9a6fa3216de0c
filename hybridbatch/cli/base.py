"""What the commands of all topics share: the Typer application, its groups and the reporter.

A topic is a file of this folder. It registers its commands with `command`; `cli/app.py` imports it.
"""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from hybridbatch.cli import console
from hybridbatch.cli.options import from_settings
from hybridbatch.common.progress import SILENT, Reporter

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    help="Hybrid monolingual and cross-lingual batches for multilingual dense retrieval.\n\n"
    "Results are JSON in experiments/NAME/. `hybridbatch COMMAND --help` explains a command.",
)

# The groups of `hybridbatch --help`.
DATA = "Data"
TRAINING = "Training"
EVALUATION = "Evaluation"
SEARCH = "Search"
DEBIASING = "Language bias"
SCALING = "Experiments"
SHARING = "Sharing"

DryRun = Annotated[bool, typer.Option("--dry-run", help="Show what would be done, and do nothing.")]
DataRoot = Annotated[
    Path | None, typer.Option(help="Folder that holds local copies of public data sets.")
]


def reporter() -> Reporter:
    """The terminal's reporter; silent on all ranks of a distributed run but the first."""
    return console.RichReporter() if os.environ.get("RANK", "0") == "0" else SILENT


def command(
    topic: str,
    settings: Any = None,
    arguments: dict[str, str] | None = None,
    name: str | None = None,
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Register a function as a command of the group `topic`.

    Args:
        topic: one of the groups above.
        settings: the settings class whose fields become options. The function gets the built
            settings as its first argument.
        arguments: fields that can be given as positional arguments, with their metavar.
        name: of the command; default: the function's.
    """

    def register(handler: Callable[..., None]) -> Callable[..., None]:
        called = handler if settings is None else from_settings(settings, handler, arguments)
        app.command(name=name, rich_help_panel=topic)(called)
        return handler

    return register
