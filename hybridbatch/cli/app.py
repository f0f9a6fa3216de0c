"""The entry of the command line: `main` runs a command and prints a user's mistake in one line.

The commands are in the files beside this one, one file for each topic. No heavy module is imported
before a command runs.
"""

import errno
import io
import os
import sys
from importlib import import_module
from typing import Annotated, Any

import typer

import hybridbatch
from hybridbatch.cli import console
from hybridbatch.cli.base import EVERYWHERE, app
from hybridbatch.common.errors import DataError, HybridBatchError, Interrupted
from hybridbatch.common.shortage import in_words, least, shortage, watch_container
from hybridbatch.common.stopping import command_signals, end_at_next_interrupt

__all__ = ["app", "main"]

# The files of commands, in the order of `--help`.
TOPICS = ("data", "train", "evaluate", "search", "debias", "scaling", "sharing")
for topic in TOPICS:
    import_module(f"hybridbatch.cli.{topic}")

# the class of click, or of the copy of click in newer versions of typer
UsageError: type[Exception] = typer.BadParameter.__bases__[0]


def program() -> None:
    """The program `hybridbatch`: `main`, after which Ctrl-C ends the process at once."""
    try:
        main()
    finally:
        end_at_next_interrupt()


def main() -> None:
    """Run the command line. A mistake of the user becomes one line and exit code 2.

    If several processes run together, only one of them prints this line.
    """
    with command_signals():
        _run()


def _run() -> None:
    leads = os.environ.get("RANK", "0") == "0"
    if isinstance(sys.stdout, io.TextIOWrapper):  # names of files may hold any bytes
        sys.stdout.reconfigure(errors="backslashreplace")
    watch_container(console.error)
    if lacking := least():
        console.error(lacking)
        sys.exit(2)
    console.out.quiet = not leads
    try:
        code = app(prog_name="hybridbatch", standalone_mode=False)
    except (UsageError, KeyboardInterrupt, typer.Abort, Interrupted) as stop:
        if leads:
            _tell_stop(stop)
        sys.exit(2 if isinstance(stop, UsageError) else 130)
    except Exception as mistake:
        if _output_is_lost(mistake):
            sys.exit(_code_without_output(mistake))
        if not _tell_failure(mistake):
            raise
        sys.exit(2)
    try:
        sys.stdout.flush()
    except OSError as mistake:
        _output_is_lost(mistake)
        sys.exit(_code_without_output(mistake))
    sys.exit(code if isinstance(code, int) else 0)


def _tell_stop(stop: BaseException) -> None:
    """Print a mistake in the options or the note of an interruption.

    Print nothing if the user stopped the command while the options were read.
    """
    if isinstance(stop, UsageError):
        _tell_usage(stop)
    elif isinstance(stop, Interrupted):
        console.err.print(str(stop))


def _tell_failure(mistake: Exception) -> bool:
    """Print a shortage, a mistake of the user, or what the file system refused in one line.

    False if it is none of these.
    """
    needed = shortage(mistake)
    if needed is not None:
        console.show_traceback()
        console.error(in_words(needed))
        return True
    if isinstance(mistake, OSError) and mistake.strerror and mistake.filename is not None:
        mistake = DataError(
            f"{mistake.filename}: cannot be used ({mistake.strerror}); check this path and its"
            " permissions"
        )
    if isinstance(mistake, HybridBatchError):
        console.show_traceback()
        if _tells(mistake):
            console.error(str(mistake))
        return True
    return False


def _code_without_output(mistake: Exception) -> int:
    """The exit code after standard output is lost: 0 if the reader has gone."""
    return 0 if isinstance(mistake, BrokenPipeError) else 2


def _output_is_lost(mistake: Exception) -> bool:
    """Whether standard output accepts no more text; if so, nothing more is written there.

    Either its device is full, or its reader has gone (``| head``), which is no mistake.
    """
    if not isinstance(mistake, OSError) or mistake.filename is not None:
        return False
    if mistake.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EPIPE):
        return False
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    if not isinstance(mistake, BrokenPipeError):
        console.error(
            f"standard output: cannot be written ({mistake.strerror}); free some space, or"
            " send the output elsewhere"
        )
    return True


def _tell_usage(mistake: Any) -> None:
    """Print a mistake in the options in one line, or the help if no words were given."""
    if type(mistake).__name__ == "NoArgsIsHelpError":
        print(mistake.format_message())  # noqa: T201
        return
    context = getattr(mistake, "ctx", None)
    more = f" (see {context.command_path} --help)" if context else ""
    console.error(" ".join(mistake.format_message().split()) + more)


def _tells(mistake: HybridBatchError) -> bool:
    if os.environ.get("WORLD_SIZE", "1") == "1":
        return True
    from hybridbatch.common.distributed import tells

    return tells(mistake)


def _version(wanted: bool) -> None:
    if wanted:
        console.lines([hybridbatch.__version__])
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool,
        typer.Option(
            "--version",
            "-V",
            callback=_version,
            is_eager=True,
            help="Show the version and stop.",
            rich_help_panel="Everywhere",
        ),
    ] = False,
    quiet: Annotated[bool, EVERYWHERE["quiet"]] = False,
    verbose: Annotated[bool, EVERYWHERE["verbose"]] = False,
) -> None:
    console.reset()
    console.begin(quiet=quiet, verbose=verbose)
