"""The look and the output of figures: the same content gives the same bytes."""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from hybridbatch.common.errors import ConfigError
from hybridbatch.common.files import atomic_path, write_text

if TYPE_CHECKING:
    import numpy as np
    from matplotlib.figure import Figure

STYLE = {"svg.fonttype": "none", "svg.hashsalt": "hybridbatch", "font.size": 9, "axes.spines.top": False,
         "axes.spines.right": False}  # fmt: skip
SUFFIXES = (".svg", ".png")
DPI = 200


def svg(figure: "Figure") -> str:
    """A figure as SVG text without date or XML header, to be embedded in a page."""
    import matplotlib

    text = io.StringIO()
    with matplotlib.rc_context(STYLE):
        figure.savefig(text, format="svg", metadata={"Date": None, "Creator": None})
    return text.getvalue()[text.getvalue().index("<svg") :]


def write_figure(figure: "Figure", path: Path) -> None:
    """Write a figure as SVG or PNG, as the suffix says.

    Raises:
        ConfigError: another suffix.
        OutputError: the file cannot be written.
    """
    import matplotlib

    if path.suffix == ".svg":
        write_text(path, svg(figure))
    elif path.suffix == ".png":
        with matplotlib.rc_context(STYLE), atomic_path(path) as temporary:
            figure.savefig(temporary, format="png", dpi=DPI, metadata={"Software": None})
    else:
        raise ConfigError(f"{path}: figures can only be written as {' or '.join(SUFFIXES)}")


def write_both(figure: "Figure", folder: Path, name: str) -> list[Path]:
    """Write a figure as SVG and as PNG; returns the paths."""
    paths = [folder / f"{name}{suffix}" for suffix in SUFFIXES]
    for path in paths:
        write_figure(figure, path)
    return paths


def ink(colour: "Sequence[float] | np.ndarray") -> str:
    """Black or white, whichever is easier to read on a colour (RGB, each 0 .. 1)."""
    red, green, blue = colour[:3]
    return "k" if 0.299 * red + 0.587 * green + 0.114 * blue > 0.55 else "w"
