"""Encoders: where they come from, how they turn tokens into embeddings, how they are saved."""

from typing import TYPE_CHECKING, Any

from hybridbatch.model.builtin import BUILTIN

if TYPE_CHECKING:
    from hybridbatch.model.encoder import Encoder

__all__ = ["BUILTIN", "Encoder"]


def __getattr__(name: str) -> Any:
    """`Encoder`, imported when it is first used, because it imports torch."""
    if name == "Encoder":
        from hybridbatch.model.encoder import Encoder

        return Encoder
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
