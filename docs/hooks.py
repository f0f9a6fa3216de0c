"""Writes the reference of the command line from the settings classes, when the site is built."""

from collections.abc import Iterator
from html import escape
from typing import Any

import typer
from mkdocs.structure.files import File, Files

from hybridbatch.cli.app import app

PAGE = "reference/commands.md"


def on_files(files: Files, config: Any) -> Files:
    """Add the page of all commands to the site."""
    text = "\n".join(["# Commands", "", *describe_all()])
    files.append(File.generated(config, PAGE, content=text))
    return files


def describe_all() -> Iterator[str]:
    """The lines of the page: a section for each command."""
    yield "Every option of these tables is also a setting of `--config FILE`, with `_` for `-`."
    yield ""
    root = typer.main.get_command(app)
    for name, command in root.commands.items():
        yield from describe(f"hybridbatch {name}", command)
        for inner, subcommand in getattr(command, "commands", {}).items():
            yield from describe(f"hybridbatch {name} {inner}", subcommand)


def describe(title: str, command: Any) -> Iterator[str]:
    """The lines of one command: what it does, then its arguments and options by panel."""
    yield f"## {title}"
    yield ""
    yield (command.help or "").partition("\f")[0]
    yield ""
    panels: dict[str, list[Any]] = {}
    for parameter in command.params:
        if parameter.name != "help":
            panel = getattr(parameter, "rich_help_panel", None) or "Options"
            panels.setdefault(panel, []).append(parameter)
    for panel, parameters in panels.items():
        yield f"**{panel}**"
        yield ""
        yield "| option | value | meaning |"
        yield "|---|---|---|"
        for parameter in parameters:
            yield row(parameter)
        yield ""


def row(parameter: Any) -> str:
    """One option as a row of a table."""
    argument = parameter.param_type_name == "argument"
    names = (
        parameter.metavar
        if argument
        else ", ".join([*parameter.opts, *parameter.secondary_opts])
    )
    value = "" if argument else (parameter.metavar or "")
    return f"| {code(names or parameter.name)} | {code(value)} | {cell(parameter.help or '')} |"


def code(text: str) -> str:
    """A text as code in a cell of a table."""
    return f"<code>{escape(text).replace('|', '&#124;')}</code>" if text else ""


def cell(text: str) -> str:
    """A help text without the marks of the terminal."""
    plain = text.replace("[dim]", "").replace("[/dim]", "").replace("\\[", "[")
    return " ".join(plain.split()).replace("|", "\\|").replace("<", "&lt;")
