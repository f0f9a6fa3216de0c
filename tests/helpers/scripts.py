"""Runs the scripts of the experiments in this process."""

import runpy
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest


def exit_code(main: Callable[[], Any], *arguments: object) -> int | str | None:
    """Call `main` with arguments of the command line; what it exits with, or 0."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["script", *map(str, arguments)])
        try:
            main()
        except SystemExit as end:
            return end.code
    return 0


def run_script(path: Path, *arguments: object) -> int | str | None:
    """Run a file that imports its neighbours; what it exits with, or 0."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(path.parent))
        return exit_code(lambda: runpy.run_path(str(path), run_name="__main__"), *arguments)
