"""Encoders: where they come from, how they turn token sequences into embeddings, and how they are saved."""

from hybridbatch.model.builtin import BUILTIN
from hybridbatch.model.encoder import Encoder
from hybridbatch.model.precision import autocast, resolve_precision

__all__ = ["BUILTIN", "Encoder", "autocast", "resolve_precision"]
