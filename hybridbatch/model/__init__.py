"""Encoders: where they come from, how they turn tokens into embeddings, how they are saved."""

from hybridbatch.model.builtin import BUILTIN
from hybridbatch.model.encoder import Encoder

__all__ = ["BUILTIN", "Encoder"]
