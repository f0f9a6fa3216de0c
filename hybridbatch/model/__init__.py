"""Encoders: where they come from, how they turn token sequences into embeddings, and how they are
saved.
"""

from hybridbatch.model.builtin import BUILTIN
from hybridbatch.model.encoder import Encoder

__all__ = ["BUILTIN", "Encoder"]
