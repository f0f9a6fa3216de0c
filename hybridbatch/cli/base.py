"""What the commands of all topics share: the Typer application, its groups and the reporter.

A topic is a file of this folder. It registers its commands with `command`; `cli/app.py` imports it.
"""

import functools
import inspect
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from hybridbatch.cli import console
from hybridbatch.cli.completion import languages, of, tasks
from hybridbatch.cli.help import HelpfulCommand, HelpfulGroup, context_settings
from hybridbatch.cli.options import from_settings
from hybridbatch.common.progress import SILENT, Reporter

# The groups of `hybridbatch --help`.
DATA = "Data"
TRAINING = "Training"
EVALUATION = "Evaluation"
SEARCH = "Search"
DEBIASING = "Language bias"
SCALING = "Experiments"
SHARING = "Sharing"


def with_examples(kind: type, examples: Sequence[str]) -> Any:
    """Return a subclass of a command class whose help shows these examples."""
    return type(kind.__name__, (kind,), {"examples": tuple(examples)})


app = typer.Typer(
    cls=with_examples(
        HelpfulGroup,
        [
            "hybridbatch reproduce",
            "hybridbatch train --mix 50% --out experiments/first",
            "hybridbatch eval experiments/first --tasks atlas",
        ],
    ),
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings=context_settings(),
    help="Hybrid monolingual and cross-lingual batches for multilingual dense retrieval.\n\n"
    "Results are JSON in experiments/NAME/. `hybridbatch COMMAND --help` explains a command.",
)

# Options that several commands have.
DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Show what the command would do, and do nothing.")
]
DataRoot = Annotated[
    Path | None, typer.Option(help="Folder that holds local copies of public data sets.")
]
Languages = Annotated[
    str,
    typer.Option(
        help="Languages: ids, groups and exclusions, such as 'low-resource,-swh'.",
        autocompletion=of(languages),
    ),
]
Tasks = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[TASK...]",
        help="Evaluation tasks; default: the tasks that `prepare` checks.",
        autocompletion=of(tasks),
    ),
]
EVERYWHERE: dict[str, Any] = {
    "json_": typer.Option(
        "--json", help="Print results as JSON.", rich_help_panel="Everywhere"
    ),
    "quiet": typer.Option(
        "--quiet",
        "-q",
        help="Show only results, warnings and errors.",
        rich_help_panel="Everywhere",
    ),
    "verbose": typer.Option(
        "--verbose",
        "-v",
        help="Also show the time of every note, and the traceback of an error.",
        rich_help_panel="Everywhere",
    ),
}


def reporter() -> Reporter:
    """Return the reporter of the terminal; only rank 0 of a distributed run reports."""
    return console.TerminalReporter() if os.environ.get("RANK", "0") == "0" else SILENT


def command(
    topic: str,
    settings: Any = None,
    arguments: dict[str, str] | None = None,
    *,
    name: str | None = None,
    examples: Sequence[str] = (),
    to: typer.Typer = app,
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Register a function as a command of the group `topic`.

    Every command also gets ``--json``, ``--quiet`` and ``--verbose``; what it shows through
    `console` obeys them.

    Args:
        topic: one of the groups above.
        settings: the settings class whose fields become options. The function gets the built
            settings as its first argument.
        arguments: fields that can be given as positional arguments, with their metavar.
        name: name of the command; default: the name of the function.
        examples: two or more command lines for its help.
        to: the group to which the command belongs.
    """

    def register(handler: Callable[..., None]) -> Callable[..., None]:
        called = handler if settings is None else from_settings(settings, handler, arguments)
        to.command(
            name=name,
            cls=with_examples(HelpfulCommand, examples),
            rich_help_panel=topic,
            context_settings=context_settings(),
        )(with_output_options(called))
        return handler

    return register


def with_output_options(function: Callable[..., None]) -> Callable[..., None]:
    """Add the options of all commands to a function; the function does not receive them."""

    @functools.wraps(function)
    def run(**given: Any) -> None:
        console.begin(
            json=given.pop("json_"), quiet=given.pop("quiet"), verbose=given.pop("verbose")
        )
        function(**given)
        console.finish()

    own = inspect.signature(function).parameters.values()
    added = [
        inspect.Parameter(
            name,
            inspect.Parameter.KEYWORD_ONLY,
            default=False,
            annotation=Annotated[bool, option],
        )
        for name, option in EVERYWHERE.items()
    ]
    run.__signature__ = inspect.Signature([*own, *added])  # type: ignore[attr-defined]
    return run
