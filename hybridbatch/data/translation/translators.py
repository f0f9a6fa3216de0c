"""What a translator is, and which one a name means."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from hybridbatch.common.settings import Precision


@dataclass(frozen=True)
class Decoding:
    """How a sequence-to-sequence model decodes, and where.

    Attributes:
        beams: of the beam search; 1 is greedy. Nothing is ever sampled.
        batch_tokens: tokens of a batch, padding included.
        device: as the settings' ``device``.
        precision: as the settings' ``precision``.
    """

    beams: int = 4
    batch_tokens: int = 4096
    device: str = "auto"
    precision: Precision = "auto"


class Translator(Protocol):
    """Translates pieces of text: sentences or whole texts, as it works best."""

    def describe(self) -> dict[str, Any]:
        """All that a translation depends on besides the piece and the languages, as JSON."""

    def speaks(self, language: str) -> bool:
        """Whether it translates from and into a canonical language."""

    def pieces(self, text: str, language: str) -> list[tuple[str, str]]:
        """A text cut into pieces, each with the white space that follows it."""

    def batches(self, pieces: Sequence[str], source: str) -> list[list[int]]:
        """The numbers of the pieces that are best translated together; a function of the pieces
        alone.
        """

    def translate(self, pieces: Sequence[str], source: str, target: str) -> list[str | None]:
        """The translations of one batch, or of part of one; None for a piece that was not
        translated to its end.

        Raises: `ModelError` or `DataError` in one line if the translator fails.
        """
