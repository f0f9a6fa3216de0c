"""The names of the strategies. They stand apart so that `--help` need not import numpy."""

from typing import Literal

Strategy = Literal["hybrid", "monolingual-first", "cross-lingual-first", "mixed", "mtt"]
ORDERED = ("monolingual-first", "cross-lingual-first")  # hybrid, one kind after the other
MIXING = ("hybrid", *ORDERED)  # strategies whose batches depend on the mix
