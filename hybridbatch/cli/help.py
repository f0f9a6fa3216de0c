"""The text of ``--help``: no name is cut at any width, and every command shows examples.

Typer draws boxes with columns of fixed shares, which cut long names at 80 columns. Here an option
stands in a column of its own where it fits, and on a line of its own where it does not.
"""

import re
import shutil
import textwrap
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from typer.core import TyperCommand, TyperGroup

from hybridbatch.common.errors import Interrupted

LEAST, MOST = 40, 100  # columns of a help text
NAMES = 26  # columns for names, of the widest terminals
# Panels of settings stand in this order; others follow in the order of their first option.
PANELS = (
    "Arguments", "Options", "Run", "Data", "Selection", "Targets", "Tasks", "Experiment", "Axes",
    "Model", "Batches", "Optimisation", "Loss", "Baselines", "Validation", "Metrics", "Search",
    "Reranking", "Negatives", "Stages", "Bad rows", "Decontamination", "Translation", "Execution",
    "Machine", "Reproduction", "Everywhere",
)  # fmt: skip
OWN, COMMON = "Options", "Everywhere"


class HelpfulCommand(TyperCommand):
    """A command whose help has examples."""

    examples: Sequence[str] = ()

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Write the help into click's formatter, which prints it."""
        formatter.write("\n".join(help_lines(self, ctx, _width())) + "\n")


class HelpfulGroup(TyperGroup):
    """A group of commands, listed by topic. A stopped command says how to continue."""

    examples: Sequence[str] = ()

    def invoke(self, ctx: Any) -> Any:
        """Run the command and report Ctrl-C, on which Typer would end silently."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            words = " ".join(filter(None, [ctx.command_path, ctx.invoked_subcommand]))
            raise Interrupted(
                f"{words}: stopped; nothing half-written is left, run the same command to start"
                " again"
            ) from None

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Write the help into click's formatter, which prints it."""
        formatter.write("\n".join(help_lines(self, ctx, _width())) + "\n")


def _width() -> int:
    return max(LEAST, min(MOST, shutil.get_terminal_size((80, 24)).columns))


def help_lines(command: Any, ctx: Any, width: int) -> Iterator[str]:
    """The help of a command, line by line, none longer than `width` but for a single long name."""
    arguments = [
        _argument(each) for each in command.params if each.param_type_name == "argument"
    ]
    following = ["COMMAND ..."] if hasattr(command, "commands") else []
    usage = " ".join([_path(ctx), "[OPTIONS]", *arguments, *following])
    yield from textwrap.wrap(f"Usage: {usage}", width, subsequent_indent=" " * 7)
    for paragraph in (command.help or "").split("\n\n"):
        yield ""
        yield from textwrap.wrap(" ".join(paragraph.split()), width)
    if command.examples:
        yield from ("", "Examples:")
        for example in command.examples:
            yield from _example(example, width)
    for topic, commands in _topics(command, ctx):
        yield from ("", f"{topic}:")
        rows = [(name, (each.help or "").split("\n\n")[0]) for name, each in commands]
        yield from definitions(rows, width)
    for panel, parameters in _panels(command.get_params(ctx)):
        yield from ("", f"{panel}:")
        yield from definitions(map(_definition, parameters), width)


def _path(ctx: Any) -> str:
    """The words before the options, without the arguments of groups."""
    words = []
    while ctx is not None:
        words.append(str(ctx.info_name or ""))
        ctx = ctx.parent
    return " ".join(reversed(words))


def _argument(parameter: Any) -> str:
    name = str(parameter.metavar or parameter.name.upper())
    if parameter.nargs == -1 and "..." not in name:
        name += "..."
    return name if parameter.required or name.startswith("[") else f"[{name}]"


def _example(text: str, width: int) -> Iterator[str]:
    """An example as a shell takes it: continued lines end in a backslash."""
    tied = re.sub(r"(--\S+) (?!--)", "\\1\N{NO-BREAK SPACE}", text)  # an option and its value
    lines = textwrap.wrap(
        tied,
        width - 4,
        subsequent_indent="    ",
        break_long_words=False,
        break_on_hyphens=False,
    )
    for number, line in enumerate(lines, 1):
        yield f"  {line}".replace("\N{NO-BREAK SPACE}", " ") + (
            " \\" if number < len(lines) else ""
        )


def _topics(command: Any, ctx: Any) -> Iterator[tuple[str, list[tuple[str, Any]]]]:
    """The commands of a group, by topic."""
    topics: dict[str, list[tuple[str, Any]]] = {}
    for name, each in getattr(command, "commands", {}).items():
        if not each.hidden:
            topic = getattr(each, "rich_help_panel", None)
            topics.setdefault(topic if isinstance(topic, str) else "Commands", []).append(
                (name, each)
            )
    yield from topics.items()


def _panels(parameters: Iterable[Any]) -> Iterator[tuple[str, list[Any]]]:
    """The parameters of a command, by panel; those that all commands have come last."""
    panels: dict[str, list[Any]] = {}
    for parameter in parameters:
        if not getattr(parameter, "hidden", False):
            panels.setdefault(_panel(parameter), []).append(parameter)
    order = dict.fromkeys([*(name for name in PANELS if name in panels), *panels])
    for name in sorted(order, key=lambda name: name == COMMON):
        yield name, panels[name]


def _panel(parameter: Any) -> str:
    if parameter.param_type_name == "argument":
        return "Arguments"
    given = getattr(parameter, "rich_help_panel", None)
    if isinstance(given, str):
        return given
    builtin = {"help", "install_completion", "show_completion"}
    return COMMON if parameter.name in builtin else OWN


def _definition(parameter: Any) -> tuple[str, str]:
    """An option or argument with its value, and what it is for."""
    if parameter.param_type_name == "argument":
        return _argument(parameter), parameter.help or ""
    names = sorted([*parameter.opts, *parameter.secondary_opts], key=lambda name: len(name) > 2)
    shown = ", ".join(names)
    if not (parameter.is_flag or parameter.count):
        shown += f" {parameter.metavar or _kind(parameter)}"
    default = parameter.default
    plain = (
        default is not None and default is not False and default != () and not callable(default)
    )
    told = f" [{default}]" if plain and getattr(parameter, "show_default", True) else ""
    return shown, f"{parameter.help or ''}{told}"


def _kind(parameter: Any) -> str:
    """The kind of value an option takes, if the option does not state it."""
    described = getattr(parameter, "type_descriptor", None)  # of newer typers
    if described is not None:
        kind = getattr(described.annotation, "__name__", "")
    else:
        kind = str(getattr(getattr(parameter, "type", None), "name", ""))
    known = {"int": "INTEGER", "integer": "INTEGER", "float": "NUMBER", "path": "PATH"}
    return known.get(kind.lower(), "TEXT")


def definitions(rows: Iterable[tuple[str, str]], width: int) -> Iterator[str]:
    """Names and what they mean, in two columns; long names have a line of their own."""
    rows = list(rows)
    longest = max((len(name) for name, _ in rows), default=0)
    column = min(longest, NAMES, width // 3) + 4
    for name, text in rows:
        lines = textwrap.wrap(" ".join(text.split()), width - column, break_on_hyphens=False)
        if len(name) + 4 <= column:
            yield f"  {name:<{column - 2}}{lines[0] if lines else ''}".rstrip()
            lines = lines[1:]
        else:
            yield from _long_name(name, width)
        for line in lines:
            yield " " * column + line


def _long_name(name: str, width: int) -> Iterator[str]:
    """A name with its choices over as many lines as it takes, broken after a comma, space or |."""
    spaced = name.replace("|", "| ").replace(",", ", ").replace(",  ", ", ")
    wrapped = textwrap.wrap(spaced, width - 2, subsequent_indent="    ", break_on_hyphens=False)
    if len(wrapped) == 1:
        yield f"  {name}"
        return
    for line in wrapped:
        yield "  " + line.replace("| ", "|")


def context_settings() -> dict[str, Any]:
    """The click settings of all commands: ``-h`` is the same as ``--help``."""
    return {"help_option_names": ["-h", "--help"]}


__all__ = ["HelpfulCommand", "HelpfulGroup", "context_settings", "definitions", "help_lines"]
